"""Writes, passed on to the API server with the caller's own credentials (``gateway.writes: forward``).

Also passed on is reading what Shoal does not hold: subresources such as ``scale``, ``status`` and a pod's ``log``. The
API server decides as if the caller had asked it: it is sent the caller's own Authorization and ``Impersonate-*``
headers and never Shoal's, because the connection it goes over has none (`Access.anonymous`). So is its answer: with
``follow.secrets: redact`` too, whoever writes a Secret is answered with it as the API server lets them see it. A
caller known by a client certificate cannot be passed on (only the holder of the key can show it) and is told so; so is
whoever wants to upgrade a connection (``exec``, ``attach``, ``portforward``, ``proxy``).

A body is read whole, up to `body_bytes_max`, before anything is sent: half a body never arrives there. Nothing is ever
repeated. What is read for long (a log that is followed) has connections of its own, and each user only so many, so
that nobody's reading keeps others from writing. When the connection fails the error says whether the write may have
happened. The version in the answer is noted in the `ReadFloor` before the answer is sent on, so that its writer reads
what it wrote.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Final

from ...shards.api.client import ApiConnection, ApiResponse
from ...shards.api.requests import ApiRequest, Pairs
from ...shards.model.errors import (
    BadRequest,
    ConnectionFailed,
    KubeconfigError,
    NotReady,
    ShoalError,
    TimedOut,
    TooManyRequests,
)
from ..query.floor import ReadFloor, written_version
from ..serving.identity import User, header_text
from ..serving.paths import RequestPath, ResourcePath
from .asked import Asked
from .authentication import Caller
from .http import JSON, Answer, Receive, Request, connection_options, tells_who, unless_gone
from .settings import ForwardingSettings

log = logging.getLogger("shoal.cluster.gateway.writing")

WRITING: Final = ("POST", "PUT", "PATCH", "DELETE")
SMALL_BYTES: Final = 1 << 20
"""An answer to a write that says it is no longer than this is read whole, for the version in it."""
LONG_SUBRESOURCES: Final = ("log",)
"""Read for as long as the client likes."""
UPGRADED: Final = ("attach", "exec", "portforward", "proxy")
"""Subresources that are conversations, not requests."""
_NOT_SENT = frozenset(
    {
        # Of one connection, not of the request (RFC 9110, 7.6.1).
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
        # Made anew, or of no use there: what is compressed could not be read for its version.
        "accept-encoding", "content-length", "cookie", "expect", "host",
    }
)  # fmt: skip
_PROXY_IDENTITY = ("x-remote-", "x-forwarded-")
"""How a front proxy tells an API server whom it stands for; never taken over from a client."""
_NOT_RETURNED = _NOT_SENT | {"date", "content-type", "server"}


class RequestTooLarge(ShoalError):  # noqa: N818 - named like the Status reason
    """A body longer than is passed on."""

    code = 413
    reason = "RequestEntityTooLarge"


class NotForwarded(ShoalError):  # noqa: N818 - says what happened
    """A request that only the API server itself can take."""

    code = 501
    reason = "NotImplemented"


class Forwarder:
    """Passes requests on over a connection to the API server that has no credentials of its own."""

    def __init__(
        self,
        connection: ApiConnection,
        settings: ForwardingSettings,
        *,
        streams: ApiConnection | None = None,
        floor: ReadFloor | None = None,
    ) -> None:
        """`streams` carries what is read for long (`LONG_SUBRESOURCES`), so that it takes no connection from a write;
        without it everything goes over `connection`.
        """
        self._connection = connection
        self._streams = streams or connection
        self._streams_of: Counter[str] = Counter()
        self._settings = settings
        self._floor = floor
        self._turns = asyncio.Semaphore(settings.at_once)

    @property
    def streaming(self) -> int:
        """Streams open at the moment."""
        return self._streams_of.total()

    def takes(self, request: Request, path: RequestPath) -> bool:
        """Whether a request is one to pass on: a write, or a read of a subresource."""
        if not isinstance(path, ResourcePath):
            return False
        return request.method in WRITING or (request.reads and path.subresource is not None)

    async def body(self, request: Request, receive: Receive) -> bytes:
        """The whole body of a request.

        Raises:
            RequestTooLarge: it is longer than `body_bytes_max`.
            ClientLeft: the client went away in the middle of it.
            TimedOut: it did not arrive within `timeout_s`.
        """
        return await read_body(request, receive, self._settings.body_bytes_max, self._settings.timeout_s)

    async def forward(self, asked: Asked) -> None:
        """Answers a request by passing it on. A client that goes away ends it; a write that was sent may have happened.

        Raises:
            RequestTooLarge, ClientLeft, TimedOut: as `body`.
            ShoalError: as `pass_on`.
        """
        assert isinstance(asked.path, ResourcePath)
        asked.exchange.resource = str(asked.path.identity)
        _check(asked.user, asked.request, asked.path)
        body = await self.body(asked.request, asked.client.receive)
        problem: ShoalError | None = None

        async def passing(path: ResourcePath) -> None:
            nonlocal problem
            try:
                await self.pass_on(asked.user, asked.request, path, body, asked.exchange.send)
            except ShoalError as error:
                problem = error

        await unless_gone(asked.client.receive, passing(asked.path))
        if problem is not None:
            raise problem

    async def pass_on(
        self,
        user: User,
        request: Request,
        path: ResourcePath,
        body: bytes,
        send: Callable[[Answer], Awaitable[None]],
    ) -> None:
        """Passes a request on and its answer back; `send` is given the answer once its head has come.

        Raises:
            NotForwarded: it would be an upgraded connection, or the caller's credentials cannot be passed on.
            NotReady: the API server cannot be reached; nothing was written.
            TimedOut: it did not answer in time; the write may have happened.
            ConnectionFailed: the connection broke; before `send` was called, the write may have happened.
            TooManyRequests: too many requests are being passed on, or read for long.
        """
        _check(user, request, path)
        long = request.reads and path.subresource in LONG_SUBRESOURCES
        async with AsyncExitStack() as exchange:
            if long:
                exchange.enter_context(self._stream_of(user.name))
            async with AsyncExitStack() as turn:
                await self._turn(turn)
                response = await self._open(exchange, request, body, long=long)
                answer = await self._answer(request, path, response)
            await send(answer)

    # -- one request -----------------------------------------------------------------------------------------

    async def _turn(self, turn: AsyncExitStack) -> None:
        try:
            async with asyncio.timeout(self._settings.wait_s):
                await turn.enter_async_context(self._turns)
        except TimeoutError:
            raise TooManyRequests(
                "too many requests are being passed on to the API server, please try again later",
                retry_after_s=1,
            ) from None

    @contextmanager
    def _stream_of(self, user: str) -> Iterator[None]:
        settings, open_of = self._settings, self._streams_of
        if open_of[user] >= settings.streams_per_user or self.streaming >= settings.streams:
            whose = "you have" if open_of[user] >= settings.streams_per_user else "there are"
            raise TooManyRequests(
                f"{whose} too many logs open through this gateway, please try again later", retry_after_s=1
            )
        open_of[user] += 1
        try:
            yield
        finally:
            open_of[user] -= 1
            if not open_of[user]:
                del open_of[user]

    async def _open(
        self, exchange: AsyncExitStack, request: Request, body: bytes, *, long: bool
    ) -> ApiResponse:
        connection = self._streams if long else self._connection
        asked = ApiRequest(
            request.method, request.path, request.parameters, _headers(request), body, stream=request.reads
        )
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await exchange.enter_async_context(connection.open(asked))
        except KubeconfigError as error:
            raise NotReady(f"{error.message}; nothing was passed on", retry_after_s=1) from error
        except TimeoutError:
            raise TimedOut(
                f"the API server did not answer within {self._settings.timeout_s:g} s{_perhaps(request)}"
            ) from None
        except ConnectionFailed as error:
            if not error.sent:
                raise NotReady(f"{error.message}; nothing was passed on", retry_after_s=1) from error
            raise ConnectionFailed(f"{error.message}{_perhaps(request)}") from error

    async def _answer(self, request: Request, path: ResourcePath, response: ApiResponse) -> Answer:
        answer = Answer(
            response.status,
            response.headers.get("content-type", "application/octet-stream"),
            chunks=response.chunks(),
            headers=_returned(response.headers),
        )
        length = response.headers.get("content-length", "")
        if request.reads or not length.isdigit() or int(length) > SMALL_BYTES:
            return answer
        try:
            whole = await response.read(SMALL_BYTES)
        except ConnectionFailed as error:
            raise ConnectionFailed(f"{error.message}{_perhaps(request)}") from error
        if self._floor is not None and response.status < 300 and answer.content_type.startswith(JSON):
            # Before its writer can know of the write, and ask for it.
            self._note(path, whole)
        return Answer(answer.status, answer.content_type, whole, headers=answer.headers)

    def _note(self, path: ResourcePath, body: bytes) -> None:
        """Notes what was written. It is done: whatever goes wrong here must not tell its writer that it failed."""
        assert self._floor is not None
        try:
            self._floor.note(path.identity, written_version(body), path.namespace)
        except Exception:
            log.exception("the version of a write was not noted", extra={"resource": str(path.identity)})


class ClientLeft(ShoalError):  # noqa: N818 - says what happened
    """The client is gone: nobody reads this."""

    code = 400
    reason = "BadRequest"


async def read_body(request: Request, receive: Receive, limit: int, timeout_s: float) -> bytes:
    """The whole body of a request. Raises as `Forwarder.body`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _read(request, receive, limit)
    except TimeoutError:
        raise TimedOut(
            f"the request's body did not arrive within {timeout_s:g} s; nothing was passed on"
        ) from None


async def _read(request: Request, receive: Receive, limit: int) -> bytes:
    told = request.headers.get("content-length", "")
    if told.isascii() and told.isdigit() and int(told[:20]) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeft("the client went away before its request was complete; nothing was passed on")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _check(user: User, request: Request, path: ResourcePath) -> None:
    kind = (path.subresource or "").partition("/")[0]
    if kind in UPGRADED or "upgrade" in request.headers:
        raise NotForwarded(
            f"Shoal passes on no upgraded connections and no proxying ({kind or 'upgrade'}): ask the API server itself"
        )
    if isinstance(user, Caller) and user.credential == "certificate":
        raise NotForwarded(
            "Shoal cannot pass this on for a user known by a client certificate, which only its holder can show to the "
            "API server: use a bearer token, or ask the API server itself"
        )
    if any(part in (".", "..") for part in request.path.split("/")):
        raise BadRequest("a path with . or .. in it is not passed on")


def _headers(request: Request) -> Pairs:
    """The caller's headers but for those of its connection."""
    named = connection_options(request.headers.get("connection", ""))
    # NB: who asks, and as whom, is passed on or refused, never dropped: the rest would be done as somebody else.
    named -= {name for name in named if tells_who(name)}
    return tuple(
        # Text again: the HTTP client writes UTF-8, and Latin-1 is only how it was read.
        (name, header_text(value))
        for name, value in request.fields
        if name not in _NOT_SENT and name not in named and not name.startswith(_PROXY_IDENTITY)
    )


def _returned(headers: Mapping[str, str]) -> Pairs:
    named = connection_options(headers.get("connection", ""))
    return tuple(
        (name, value) for name, value in headers.items() if name not in _NOT_RETURNED and name not in named
    )


def _perhaps(request: Request) -> str:
    """What a failure after the request was sent means."""
    if request.reads:
        return ""
    return "; whether the write happened is not known: read before it is repeated"


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"Request entity too large: limit is {limit}")
