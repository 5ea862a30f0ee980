"""An HTTP request as the simulator's parts see it, and the ASGI plumbing around it.

`Exchange` is one request and the way to answer it. It knows ASGI and nothing of Kubernetes but the
headers every answer carries. Breaking a connection needs more than ASGI has: the server that runs the app
puts a callable into the scope's extensions (`ABORT`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from ...shards.model.errors import ShoalError
from ..serving.certificates import PeerCertificate
from ..serving.documents import status_body

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ABORT = "shoal.abort"
"""Name of the scope extension ``{"abort": callable}`` that breaks the connection at once."""
CERTIFICATE = "shoal.certificate"
"""Name of the scope extension that is the client's `PeerCertificate`, or None."""
BODY_BYTES_MAX = 64 << 20
"""kube-apiserver takes 3 MiB; here objects that etcd would refuse are wanted for tests."""

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
_NO_CACHE = (b"cache-control", b"no-cache, private")
_NO_SNIFF = (b"x-content-type-options", b"nosniff")


class TooLarge(ShoalError):  # noqa: N818 - named like the Status reason
    """A request body of more than `BODY_BYTES_MAX`."""

    code = 413
    reason = "RequestEntityTooLarge"


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        query = scope.get("query_string", b"").decode("latin-1")
        self.query: tuple[tuple[str, str], ...] = tuple(parse_qsl(query, keep_blank_values=True))
        self.fields = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]
        )
        """Every header as it came, names in lower case."""
        self.headers = dict(self.fields)
        self._scope = scope
        self._receive = receive
        self._send = send
        self.started = False
        """The head of the answer has been sent."""
        self.warnings: tuple[tuple[bytes, bytes], ...] = ()
        """Warning headers, for the answer that ends well."""

    def header(self, name: str) -> str | None:
        """A header by its lower-case name."""
        return self.headers.get(name)

    def first(self, name: str) -> str | None:
        """The first of several headers of one name."""
        return next((value for key, value in self.fields if key == name), None)

    @property
    def certificate(self) -> PeerCertificate | None:
        """Of the client, where the server that runs the app says so."""
        found: PeerCertificate | None = (self._scope.get("extensions") or {}).get(CERTIFICATE)
        return found

    def parameter(self, name: str) -> str:
        """The first value of a query parameter, or the empty text."""
        return next((value for key, value in self.query if key == name), "")

    @property
    def server_address(self) -> str:
        """``host:port`` the request came in at; empty if the server does not say."""
        server = self._scope.get("server")
        return f"{server[0]}:{server[1]}" if server and server[1] else ""

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            TooLarge: it is longer than `BODY_BYTES_MAX`.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            part: bytes = message.get("body", b"")
            parts.append(part)
            size += len(part)
            if size > BODY_BYTES_MAX:
                raise TooLarge(f"Request entity too large: limit is {BODY_BYTES_MAX}")
            if not message.get("more_body", False):
                return b"".join(parts)

    async def disconnected(self) -> None:
        """Returns once the client has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(
        self, status: int, content_type: str, body: bytes, *headers: tuple[bytes, bytes]
    ) -> None:
        """A whole answer. Without a Cache-Control among `headers`, nothing may be cached."""
        length = (b"content-length", str(len(body)).encode())
        sniff = (_NO_SNIFF,) if content_type == TEXT else ()
        await self.begin(status, content_type, length, *sniff, *headers)
        await self._send({"type": "http.response.body", "body": body})

    async def error(self, error: ShoalError) -> None:
        """The Status of an error."""
        extra: list[tuple[bytes, bytes]] = []
        if error.retry_after_s is not None:
            extra.append((b"retry-after", str(error.retry_after_s).encode()))
        if error.code == 403:
            extra.append(_NO_SNIFF)
        await self.answer(error.code, JSON, status_body(error), *extra)

    async def missing(self) -> None:
        """The plain text 404 of a path nobody serves."""
        await self.answer(404, TEXT, b"404 page not found\n")

    async def begin(self, status: int, content_type: str, *headers: tuple[bytes, bytes]) -> None:
        """The head of an answer."""
        names = {name for name, _ in headers}
        head = [] if b"cache-control" in names else [_NO_CACHE]
        head.append((b"content-type", content_type.encode()))
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": [*head, *headers]})

    async def write(self, chunk: bytes) -> None:
        """A piece of an answer begun without a length; waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def finish(self) -> None:
        """The proper end of an answer begun without a length."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def abort(self) -> None:
        """Breaks the connection: the client sees an answer cut short, or none. Returns once it is broken."""
        extension = (self._scope.get("extensions") or {}).get(ABORT)
        if extension is not None:
            extension["abort"]()
            # Until then the server that runs the app would take it for one that forgot to answer.
            await self.disconnected()
