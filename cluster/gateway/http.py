"""Requests and answers as the ASGI application sees them, and how an answer is sent.

A request is read once into a value; an answer is a head and either a finished body or an iterator of
chunks. A chunked answer that fails half-way ends the connection without its last chunk: the client sees a
broken answer, never a short one that looks whole. A client that takes nothing for `STALL_S` loses its
connection: what an answer holds is not held for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, quote

from ...shards.model.errors import BadRequest, ShoalError
from ..connection import CONNECTION
from ..serving.documents import status_body

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = tuple[tuple[str, str], ...]

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
NO_CACHE = ("Cache-Control", "no-cache, private")
NO_SNIFF = ("X-Content-Type-Options", "nosniff")
PARAMETERS_MAX = 10_000
"""More pairs in one query than any client sends; taking many more apart would keep the event loop from others."""
SLICE_BYTES = 256 << 10
"""Given to the server at a time, so that what is buffered for a client that reads slowly stays small."""
STALL_S = 30.0
"""How long a client may take nothing of its answer."""
UNWANTED_BYTES = 1 << 20
"""Of a body that comes with a request which takes none, while it is being answered."""
READING = ("GET", "HEAD")


class ClientStalled(Exception):  # noqa: N818 - says what happened, like the errors of shards
    """The client took nothing of its answer for `STALL_S`; its connection is broken."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks. Header names are lower case; path and parameters are decoded."""

    method: str
    path: str
    parameters: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    server: str = ""
    """``host:port`` the request arrived at; empty if unknown."""
    fields: Headers = ()
    """Every header as it came, in order: where `headers` joins those of one name, these stay apart."""
    target: str = ""
    """Path and query as they stood in the request line, nothing decoded."""

    def values(self, name: str) -> tuple[str, ...]:
        """Every value of a header, in order; `name` in lower case."""
        return tuple(value for key, value in self.fields if key == name)

    def parameter(self, name: str) -> str | None:
        """The first value of a parameter."""
        return next((value for key, value in self.parameters if key == name), None)

    @property
    def reads(self) -> bool:
        """Whether the method only reads."""
        return self.method in READING


def read_request(scope: Scope) -> Request:
    """The request of an ASGI scope.

    Raises:
        BadRequest: a query that cannot be taken apart, or a Connection header that names what tells who asks.
    """
    try:
        parameters = parse_qsl(
            bytes(scope.get("query_string", b"")).decode("utf-8", "replace"),
            keep_blank_values=True,
            max_num_fields=PARAMETERS_MAX,
        )
    except ValueError as error:
        raise BadRequest(f"the query of the request cannot be read: {error}") from error
    server = scope.get("server")
    fields = tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope.get("headers", ())
    )
    headers = _joined_headers(fields)
    hidden = [name for name in connection_options(headers.get("connection", "")) if tells_who(name)]
    if hidden:
        # Somebody between here and the client may have dropped it, or may drop it: then others are asked for.
        raise BadRequest(
            f"the Connection header names {min(hidden)[:80]!r}: headers that tell who asks are not the connection's"
        )
    return Request(
        method=scope["method"],
        path=scope["path"],
        parameters=tuple(parameters),
        headers=headers,
        server=f"{server[0]}:{server[1]}" if server and server[1] is not None else "",
        fields=fields,
        target=_target(scope),
    )


def connection_options(header: str) -> set[str]:
    """Names, in lower case, that a Connection header says are of this connection alone (RFC 9110, 7.6.1)."""
    return {name.strip().lower() for name in header.split(",")} - {""}


def tells_who(name: str) -> bool:
    """Whether a header, its name in lower case, says who asks, or as whom."""
    return name == "authorization" or name.startswith("impersonate-")


def _target(scope: Scope) -> str:
    raw_path = scope.get("raw_path")
    path = raw_path.decode("latin-1") if raw_path else quote(scope["path"])
    query = bytes(scope.get("query_string", b"")).decode("latin-1")
    return f"{path.partition('?')[0]}?{query}" if query else path.partition("?")[0]


def _joined_headers(fields: Headers) -> dict[str, str]:
    headers: dict[str, list[str]] = {}
    for key, text in fields:
        headers.setdefault(key, []).append(text)
    return {key: ", ".join(texts) for key, texts in headers.items()}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: `body`, or `chunks` where it is not all there when the head is sent."""

    status: int = 200
    content_type: str = JSON
    body: bytes = b""
    chunks: AsyncIterator[bytes] | None = None
    headers: Headers = field(default=(NO_CACHE,))


def text_answer(text: str, status: int = 200) -> Answer:
    """Plain text with the headers kube-apiserver gives it."""
    return Answer(status, TEXT, text.encode(), headers=(NO_CACHE, NO_SNIFF))


def no_such_page() -> Answer:
    """Kube-apiserver's answer for paths it knows nothing of, discovery groups among them."""
    return text_answer("404 page not found\n", 404)


def error_answer(error: ShoalError, *, allow: str = "", close: bool = False) -> Answer:
    """An error as its Status; `allow` says which methods there are instead, `close` ends the connection."""
    headers = [NO_CACHE]
    if error.retry_after_s is not None:
        headers.append(("Retry-After", str(error.retry_after_s)))
    if allow:
        headers.append(("Allow", allow))
    if close:
        headers.append(("Connection", "close"))
    if error.code == 403:
        headers.append(NO_SNIFF)
    return Answer(error.code, JSON, status_body(error), headers=tuple(headers))


def patient(scope: Scope, send: Send) -> Send:
    """`send` with a deadline: raises `ClientStalled`, with the connection broken, once the client has taken
    nothing for `STALL_S`.

    How much it has taken is the server's to say (`listening.CONNECTION`), and to a server that says so a message
    may be given again: a wait for room that was cut short has sent nothing. From any other server, a message that
    is not taken in time is one that never will be.
    """
    connection = (scope.get("extensions") or {}).get(CONNECTION)

    async def send_in_time(message: Message) -> None:
        unsent = connection["unsent"]() if connection else 0
        while True:
            try:
                async with asyncio.timeout(STALL_S):
                    return await send(message)
            except TimeoutError:
                before, unsent = unsent, connection["unsent"]() if connection else 0
                if unsent >= before:
                    break
        if connection:
            await connection["abort"]()
        raise ClientStalled

    return send_in_time


async def send_answer(send: Send, answer: Answer, *, head_only: bool = False) -> int:
    """Sends an answer; returns the bytes of body sent."""
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers),
    ]
    if answer.chunks is None:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if answer.chunks is None or head_only:
        body = b"" if head_only else answer.body
        left = len(body)
        for piece in _slices(body):
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
        return len(body)
    sent = 0
    async for chunk in answer.chunks:
        for piece in _slices(chunk):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        sent += len(chunk)
    await send({"type": "http.response.body", "body": b""})
    return sent


def _slices(body: bytes) -> Iterator[bytes]:
    """The body in pieces, each cut when it is asked for; at least one, which may be empty."""
    if len(body) <= SLICE_BYTES:
        yield body
        return
    for start in range(0, len(body), SLICE_BYTES):
        yield body[start : start + SLICE_BYTES]


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> bool:
    """Does `work`, and stops it when the client goes away; says whether it was done. Raises what it raises."""
    working = asyncio.create_task(work, name="gateway answer")
    leaving = asyncio.create_task(gone(receive), name="gateway client gone")
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        done = working.done()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))
    if done:
        working.result()
    return done


async def gone(receive: Receive) -> None:
    """Returns once the client has left, or sends a body without end where none is wanted."""
    size = 0
    while (message := await receive())["type"] != "http.disconnect":
        size += len(message.get("body", b""))
        if size > UNWANTED_BYTES:
            return
