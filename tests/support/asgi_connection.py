"""An `ApiConnection` to an ASGI application in this process, over a network that a seed decides about.

What the network does: pieces wait in a short queue, so a reader that does not read slows the server down;
pieces are torn apart at any byte and run together; heads take their time; and when the application breaks a
connection, what was sent last may be lost on the way, as it is with a reset. Nothing here waits for real, so
it runs in virtual time (`support.clock`).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from shoal.cluster.simulator.requests import ABORT
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import ConnectionFailed, Garbage

App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]

QUEUED_PIECES = 4
LATENCY_S = 0.02
"""Longest time a head takes on the way."""


class AsgiConnection:
    """Requests of one process to `app`. With `rng`, the network is as bad as networks are; without, it is
    perfect."""

    def __init__(self, app: App, *, rng: random.Random | None = None, token: str = "") -> None:
        self._app = app
        self._rng = rng
        self._token = token
        self._open: set[_Exchange] = set()

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[_Exchange]:
        """As `ApiConnection.open`."""
        headers = [(name.lower().encode(), value.encode()) for name, value in request.headers]
        if self._token:
            headers.append((b"authorization", f"Bearer {self._token}".encode()))
        exchange = _Exchange(request, headers, self._rng)
        self._open.add(exchange)
        task = asyncio.create_task(exchange.serve(self._app), name=f"server of {request.target}")
        try:
            if self._rng is not None:
                await asyncio.sleep(self._rng.random() * LATENCY_S)
            await exchange.begun()
            yield exchange
        finally:
            self._open.discard(exchange)
            exchange.leave()
            # An application that does not notice is stopped, as a server does when it shuts down.
            done, _ = await asyncio.wait([task], timeout=1.0)
            if not done:
                task.cancel()
                await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[PinnedAsgiConnection]:
        """As `ApiConnection.pinned`."""
        yield PinnedAsgiConnection(self)

    @property
    def incarnation(self) -> object:
        """Changes when the server is another one than before: its connections have broken then."""
        return getattr(getattr(self._app, "storage", None), "incarnation", None)

    async def aclose(self) -> None:
        """As `ApiConnection.aclose`."""
        for exchange in tuple(self._open):
            exchange.abort()


class PinnedAsgiConnection:
    """Requests over what would be one TCP connection: it does not outlive the server it leads to."""

    def __init__(self, connection: AsgiConnection) -> None:
        self._connection = connection
        self._incarnation: object = None
        self._used = False

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[_Exchange]:
        """As `ApiConnection.open`."""
        incarnation = self._connection.incarnation
        if self._used and incarnation != self._incarnation:
            raise ConnectionFailed(f"{request.path}: the connection was not kept")
        self._used, self._incarnation = True, incarnation
        async with self._connection.open(request) as exchange:
            yield exchange


class _Exchange:
    """One request and its answer: ASGI's `receive` and `send` on one side, `ApiResponse` on the other."""

    def __init__(
        self, request: ApiRequest, headers: list[tuple[bytes, bytes]], rng: random.Random | None
    ) -> None:
        path, _, query = request.target.partition("?")
        self.status = 0
        self.headers: dict[str, str] = {}
        self._request = request
        self._rng = rng
        self._pieces: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._complete = self._broken = self._left = self._body_sent = False
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": path,
            "query_string": query.encode(),
            "headers": headers,
            "server": ("apiserver", 80),
            "extensions": {ABORT: {"abort": self.abort}},
        }

    # -- the application's side ------------------------------------------------------------------------------

    async def serve(self, app: App) -> None:
        try:
            await app(self.scope, self.receive, self.send)
        finally:
            # An application that ends without ending its answer breaks the connection.
            self._broken = self._broken or not self._complete
            self._signal()

    async def receive(self) -> dict[str, Any]:
        if not self._body_sent:
            self._body_sent = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._until(lambda: self._left or self._complete or self._broken)
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if self._left or self._broken:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
            self._signal()
            return
        for piece in self._torn(message.get("body", b"")):
            await self._until(lambda: len(self._pieces) < QUEUED_PIECES or self._left or self._broken)
            if self._left or self._broken:
                return
            self._pieces.append(piece)
            self._signal()
        if not message.get("more_body", False):
            self._complete = True
            self._signal()

    def abort(self, *, answered: bool = True) -> None:
        """Breaks the connection; the last pieces may not arrive. Before an answer began there are none."""
        assert answered or not self._pieces
        self._broken = True
        if self._rng is not None:
            for _ in range(self._rng.randint(0, len(self._pieces))):
                self._pieces.pop()
        self._signal()

    def _torn(self, body: bytes) -> list[bytes]:
        if not body or self._rng is None or self._rng.random() < 0.5:
            return [body] if body else []
        at = self._rng.randrange(len(body) + 1)
        return [part for part in (body[:at], body[at:]) if part]

    # -- the client's side -----------------------------------------------------------------------------------

    async def begun(self) -> None:
        """Waits for the head.

        Raises:
            ConnectionFailed: the connection broke first.
        """
        await self._until(lambda: self.status or self._broken)
        if not self.status:
            raise ConnectionFailed(f"{self._request.path}: the connection broke before the answer")

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            await self._until(lambda: self._pieces or self._complete or self._broken)
            if self._pieces:
                if self._rng is not None and self._rng.random() < 0.3:
                    # On its way it is caught up with by what was sent later.
                    await asyncio.sleep(self._rng.random() * LATENCY_S)
                    if not self._pieces:
                        continue
                    piece = b"".join(self._pieces)
                    self._pieces.clear()
                else:
                    piece = self._pieces.popleft()
                self._signal()
                yield piece
            elif self._complete:
                return
            else:
                raise ConnectionFailed(
                    f"{self._request.path}: the connection broke in the middle of the answer"
                )

    async def read(self, limit: int = 1 << 30) -> bytes:
        parts, size = [], 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise Garbage(f"an answer of more than {limit} bytes")
        return b"".join(parts)

    def leave(self) -> None:
        """The client is gone."""
        self._left = True
        self._signal()

    # -- between them ----------------------------------------------------------------------------------------

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self._changed.wait()

    def _signal(self) -> None:
        # Wakes everybody who waits now; who comes later looks at the condition first.
        self._changed.set()
        self._changed = asyncio.Event()
