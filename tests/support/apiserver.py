"""The embedded API server without sockets: an `ApiConnection` that calls the application directly.

Runs in virtual time (`support.clock`). What the network would do is done here: chunks wait in a short
queue, so a reader that does not read slows the server down, and a broken connection delivers what was
sent before it broke.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from support.clock import VirtualLoop

from shoal.cluster.simulator.app import ApiServerApp
from shoal.cluster.simulator.requests import ABORT
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import ConnectionFailed, Garbage

EPOCH = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
"""Wall-clock time at loop time 0."""
_QUEUED_CHUNKS = 4
_END = object()
T = TypeVar("T")


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end in virtual time. The event loop of the test runner is left alone."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def virtual_now() -> datetime:
    """The wall clock that belongs to the running loop's time; `EPOCH` outside of a loop."""
    try:
        return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())
    except RuntimeError:
        return EPOCH


def virtual_apiserver(settings: SimulatorSettings | None = None) -> ApiServerApp:
    """A server whose clock is the loop's; seeded, so that a run repeats."""
    app = build_app(settings or SimulatorSettings(seed=1), now=virtual_now)
    app.openapi.off_loop = _here
    return app


async def _here(make: Callable[[], T], /) -> T:
    """There are no threads in virtual time."""
    return make()


class InProcessResponse:
    """`ApiResponse` of an answer that is being made."""

    def __init__(self, status: int, headers: Mapping[str, str], chunks: asyncio.Queue[Any]) -> None:
        self.status = status
        self.headers = headers
        self._chunks = chunks

    async def chunks(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not _END:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def read(self, limit: int = 1 << 30) -> bytes:
        parts, size = [], 0
        async for chunk in self.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise Garbage(f"an answer of more than {limit} bytes")
        return b"".join(parts)


class _Exchange:
    """The ASGI side of one request."""

    def __init__(self, request: ApiRequest) -> None:
        self.request = request
        self.head: asyncio.Future[tuple[int, dict[str, str]]] = asyncio.get_running_loop().create_future()
        self.chunks: asyncio.Queue[Any] = asyncio.Queue(_QUEUED_CHUNKS)
        self.gone = asyncio.Event()
        self._body_sent = False
        self._broken = False

    @property
    def scope(self) -> dict[str, Any]:
        path, _, query = self.request.target.partition("?")
        del path
        return {
            "type": "http",
            "method": self.request.method,
            "path": self.request.path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.request.headers],
            "server": ("127.0.0.1", 6443),
            "extensions": {ABORT: {"abort": self.abort}},
        }

    def abort(self) -> None:
        self._broken = True

    async def receive(self) -> dict[str, Any]:
        if not self._body_sent:
            self._body_sent = True
            return {"type": "http.request", "body": self.request.body, "more_body": False}
        if not self._broken:
            await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.head.set_result((message["status"], headers))
            return
        if message.get("body"):
            await self.chunks.put(message["body"])
        if not message.get("more_body", False):
            await self.chunks.put(_END)

    async def run(self, app: ApiServerApp) -> None:
        failure: Exception = ConnectionFailed("connection broken")
        try:
            await app(self.scope, self.receive, self.send)
            if not self._broken:
                return
        except Exception as error:  # noqa: BLE001 - told to the client, whose test then fails
            failure = error
        if self.head.done():
            await self.chunks.put(failure)
        else:
            self.head.set_exception(failure)


class InProcessConnection:
    """`ApiConnection` to an application in this loop. `away` makes every new request fail, as a dead
    server does.
    """

    def __init__(self, app: ApiServerApp) -> None:
        self.app = app
        self.away = False
        self.requests: list[ApiRequest] = []
        """What was asked, in order."""

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[InProcessResponse]:
        self.requests.append(request)
        if self.away:
            raise ConnectionFailed("connection refused")
        exchange = _Exchange(request)
        serving = asyncio.create_task(exchange.run(self.app), name=f"serve {request.target}")
        try:
            status, headers = await exchange.head
            yield InProcessResponse(status, headers, exchange.chunks)
        finally:
            exchange.gone.set()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def aclose(self) -> None:
        self.away = True


class Caller:
    """Asks an application for JSON, as a test wants it: one call, one answer."""

    def __init__(self, app: ApiServerApp) -> None:
        self.app = app
        self.connection = InProcessConnection(app)

    async def ask(
        self, method: str, path: str, document: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and parsed body; `path` may have a query. Bodies that are no JSON come as text."""
        bare, _, query = path.partition("?")
        body = b"" if document is None else json.dumps(document).encode()
        given = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        request = ApiRequest(
            method, bare, tuple(parse_qsl(query, keep_blank_values=True)), tuple(given.items()), body
        )
        async with self.connection.open(request) as response:
            raw = (await response.read()).decode()
            try:
                return response.status, json.loads(raw)
            except ValueError:
                return response.status, raw

    async def get(self, path: str, **headers: str) -> Any:
        """The parsed body of a GET that must succeed."""
        status, document = await self.ask("GET", path, headers=headers)
        assert status == 200, document
        return document

    async def create(self, path: str, name: str, **members: Any) -> Any:
        """Creates an object that must be creatable; `labels` go into its metadata."""
        metadata: dict[str, Any] = {"name": name}
        if "labels" in members:
            metadata["labels"] = members.pop("labels")
        status, document = await self.ask("POST", path, {"metadata": metadata, **members})
        assert status == 201, document
        return document

    @asynccontextmanager
    async def watch(self, path: str, *, accept: str = "application/json") -> AsyncIterator[Lines]:
        """An open watch."""
        bare, _, query = path.partition("?")
        pairs = (("watch", "1"), *parse_qsl(query, keep_blank_values=True))
        request = ApiRequest("GET", bare, pairs, (("Accept", accept),), stream=True)
        async with self.connection.open(request) as response:
            yield Lines(response)


class Lines:
    """The lines of an open watch, one at a time."""

    def __init__(self, response: InProcessResponse) -> None:
        self.response = response
        self._chunks = response.chunks()
        self._pending = b""
        self._read: list[bytes] = []

    async def raw(self) -> bytes | None:
        """The next line, or None at the end; what is left without a newline counts as a line."""
        while not self._read:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                rest, self._pending = self._pending, b""
                return rest or None
            *complete, self._pending = (self._pending + chunk).split(b"\n")
            self._read = complete
        return self._read.pop(0)

    async def next(self) -> tuple[str, Any]:
        """Type and object of the next event."""
        line = await self.raw()
        assert line is not None, "the stream has ended"
        event = json.loads(line)
        return event["type"], event["object"]

    async def rest(self) -> list[tuple[str, Any]]:
        """All events up to the end of the stream."""
        found = []
        while (line := await self.raw()) is not None:
            event = json.loads(line)
            found.append((event["type"], event["object"]))
        return found

    async def brief(self) -> list[str]:
        """All events up to the end, as ``TYPE name@version``."""
        return [brief(event) for event in await self.rest()]


def brief(event: tuple[str, Any]) -> str:
    """An event as ``TYPE name@version``."""
    kind, document = event
    metadata = document["metadata"]
    return f"{kind} {metadata.get('name', '')}@{metadata.get('resourceVersion', '')}"
