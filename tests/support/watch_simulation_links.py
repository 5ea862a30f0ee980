"""The way from a gateway to a shard, in virtual time: slow, uneven, and broken now and then.

The pieces of one feed or list arrive in the order they were sent, however long they take. On some links answers keep
their place among them, as on one TCP connection without flow control; on others they overtake what is held back by it.
Other links have other delays, so one partition's news may be seconds ahead of another's, or not come for longer than
anybody waits. A link that is cut breaks every call and feed on it, and the shard behind it may die.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, TypeVar

from support.asgi_connection import AsgiConnection

from shoal.shards.api.client import ApiConnection, ApiResponse
from shoal.shards.api.requests import ApiRequest
from shoal.shards.handle import ShardHandle
from shoal.shards.local import LocalShardHandle
from shoal.shards.model.errors import NotReady, ShoalError
from shoal.shards.model.partitions import ShardId
from shoal.shards.shard import Shard

T = TypeVar("T")

MOODS_S = (0.0, 0.0, 0.0, 0.001, 0.001, 0.02, 0.02, 0.3, 0.3, 2.0, 2.0, 60.0)
"""Longest delay of a message, by how the link feels; the last is for a connection on which nobody answers."""
LAGS_S = (0.0, 0.0, 0.01, 0.5, 3.0)
"""The same of a shard's watches of the API server."""
STEP_S = 1e-6
"""Between two messages of one link: keeps their order."""
QUEUED = 4


class MortalShard:
    """A shard that dies and comes back empty, as an actor does. Away, it is not ready."""

    def __init__(self, shard_id: ShardId, make: Callable[[ShardId], Shard]) -> None:
        self.shard_id = shard_id
        self._make = make
        self.died = asyncio.Event()
        self.alive: LocalShardHandle | None = None
        self.revive()

    def revive(self) -> None:
        self.died = asyncio.Event()
        self.alive = LocalShardHandle(self._make(self.shard_id))

    async def die(self) -> None:
        if self.alive is not None:
            alive, self.alive = self.alive, None
            self.died.set()
            await alive.stop()

    def __getattr__(self, name: str) -> Any:
        if self.alive is None:
            raise NotReady(f"{self.shard_id} is away", retry_after_s=1)
        return getattr(self.alive, name)


class Link:
    """What one gateway reaches one shard by: a `ShardHandle`."""

    def __init__(self, shard: MortalShard, rng: random.Random) -> None:
        self.shard_id = shard.shard_id
        self._shard = shard
        self._rng = rng
        self._mood_s = 0.0
        self._mood_ends = 0.0
        self._arrives = 0.0
        self._ordered = rng.random() < 0.5
        self.calm = False
        """Messages take no time."""
        self._cut = asyncio.Event()

    def cut(self) -> None:
        """Breaks everything that is on the way; the next call finds a new connection."""
        cut, self._cut = self._cut, asyncio.Event()
        self._arrives = 0.0
        cut.set()

    # -- the network -----------------------------------------------------------------------------------------

    def _delay(self) -> float:
        now = asyncio.get_running_loop().time()
        if self.calm:
            return 0.0
        if now > self._mood_ends:
            self._mood_s = self._rng.choice(MOODS_S)
            self._mood_ends = now + self._rng.expovariate(1 / 10.0)
        return self._rng.random() * self._mood_s

    async def _arrive(self) -> None:
        """Waits as long as one message from the shard takes; messages keep their order."""
        now = asyncio.get_running_loop().time()
        self._arrives = max(now + self._delay(), self._arrives + STEP_S)
        await asyncio.sleep(self._arrives - now)

    def _there(self) -> LocalShardHandle:
        if self._shard.alive is None:
            raise NotReady(f"{self.shard_id} is away", retry_after_s=1)
        return self._shard.alive

    async def _unbroken(self, work: Awaitable[T]) -> T:
        """The result of `work`, unless the connection breaks or the shard dies first."""
        task = asyncio.ensure_future(work)
        ends = [asyncio.ensure_future(event.wait()) for event in (self._cut, self._shard.died)]
        try:
            await asyncio.wait([task, *ends], return_when=asyncio.FIRST_COMPLETED)
            if any(end.done() for end in ends):
                raise NotReady(f"the connection to {self.shard_id} broke", retry_after_s=1)
            return task.result()
        finally:
            for other in (task, *ends):
                other.cancel()
            await asyncio.gather(task, *ends, return_exceptions=True)

    async def _call(self, ask: Callable[[LocalShardHandle], Awaitable[T]]) -> T:
        async def travel() -> T:
            await asyncio.sleep(self._delay())
            try:
                return await ask(self._there())
            finally:
                await (self._arrive() if self._ordered else asyncio.sleep(self._delay()))

        return await self._unbroken(travel())

    async def _stream(self, begin: Callable[[LocalShardHandle], AsyncIterator[T]]) -> AsyncIterator[T]:
        """Passes a stream of the shard on, a few pieces ahead of whoever reads it."""
        queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue(QUEUED)

        async def pump() -> None:
            try:
                await asyncio.sleep(self._delay())
                async with aclosing(begin(self._there())) as pieces:  # type: ignore[type-var]
                    async for piece in pieces:
                        await self._arrive()
                        await queue.put(("piece", piece))
            except ShoalError as error:
                await self._arrive()
                await queue.put(("error", error))
            else:
                await self._arrive()
                await queue.put(("end", None))

        pumping = asyncio.ensure_future(pump())
        try:
            while True:
                kind, what = await self._unbroken(queue.get())
                if kind == "error":
                    raise what
                if kind == "end":
                    return
                yield what
        finally:
            pumping.cancel()
            await asyncio.gather(pumping, return_exceptions=True)

    # -- the handle ------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name in ("stream", "changes", "feed", "export"):
            return lambda query: self._stream(lambda shard: getattr(shard, name)(query))
        if name in ("get", "page", "count", "overtake", "statistics"):
            return lambda *query: self._call(lambda shard: getattr(shard, name)(*query))
        raise AttributeError(name)


class Network:
    """The links of one gateway."""

    def __init__(self, find: Callable[[ShardId], MortalShard], rng: random.Random) -> None:
        self._find = find
        self._rng = rng
        self._calm = False
        self.links: dict[ShardId, Link] = {}

    def __call__(self, shard_id: ShardId) -> ShardHandle:
        """As `ShardDirectory`."""
        if shard_id not in self.links:
            rng = random.Random(self._rng.getrandbits(64))
            try:
                link = self.links[shard_id] = Link(self._find(shard_id), rng)
                link.calm = self._calm
            except KeyError:
                raise NotReady(f"there is no {shard_id}", retry_after_s=1) from None
        return self.links[shard_id]  # type: ignore[return-value]

    def calm(self, calm: bool) -> None:
        """Has messages arrive at once, or lets links have their moods again. What is on its way stays there."""
        self._calm = calm
        for link in self.links.values():
            link.calm = calm

    def trouble(self) -> None:
        """Cuts one link."""
        if self.links:
            self._rng.choice(list(self.links.values())).cut()


class LaggingConnection:
    """A shard's connection to the API server, on which watches lag: one shard's by more than another's."""

    def __init__(self, connection: AsgiConnection, rng: random.Random) -> None:
        self._connection = connection
        self._rng = rng
        self._lag_s = 0.0
        self._lag_ends = 0.0

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[ApiResponse]:
        """As `ApiConnection.open`."""
        async with self._connection.open(request) as response:
            yield _LaggingResponse(response, self._lag) if request.stream else response

    @property
    def incarnation(self) -> object:
        """As `AsgiConnection.incarnation`."""
        return self._connection.incarnation

    def pinned(self) -> AbstractAsyncContextManager[ApiConnection]:
        """As `ApiConnection.pinned`; on it nothing lags."""
        return self._connection.pinned()

    async def aclose(self) -> None:
        """As `ApiConnection.aclose`."""
        await self._connection.aclose()

    async def _lag(self) -> None:
        now = asyncio.get_running_loop().time()
        if now > self._lag_ends:
            self._lag_s = self._rng.choice(LAGS_S)
            self._lag_ends = now + self._rng.expovariate(1 / 10.0)
        if self._lag_s:
            await asyncio.sleep(self._rng.random() * self._lag_s)


class _LaggingResponse:
    """A watch whose pieces come late, and all that have come meanwhile after them."""

    def __init__(self, response: ApiResponse, lag: Callable[[], Awaitable[None]]) -> None:
        self.status = response.status
        self.headers = response.headers
        self.read = response.read
        self._response = response
        self._lag = lag

    async def chunks(self) -> AsyncIterator[bytes]:
        """As `ApiResponse.chunks`."""
        async with aclosing(self._response.chunks()) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                await self._lag()
                yield chunk
