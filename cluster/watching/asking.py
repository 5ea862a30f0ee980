"""How a watch asks shards: who serves a partition now, with a deadline, and its changes page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ...shards.handle import ShardHandle
from ...shards.model.errors import NotReady, NotServed, ShoalError
from ...shards.model.partitions import PartitionId, ShardId
from ...shards.model.queries import Change, ChangesPage, ChangesQuery
from ...shards.model.versions import UNKNOWN
from ..query.directory import RETRY_AFTER_S, KnownShards
from ..query.routing import Routing

T = TypeVar("T")

WAIT_S: Final = 3.0
"""How long a shard waits for a version that is still to come before it says so; then it is asked again."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How shards are asked."""

    routing: Routing
    shards: KnownShards
    timeout_s: float

    def shard_of(self, partition: PartitionId) -> ShardId:
        """Who serves a partition now.

        Raises:
            NotServed: nobody; it has moved into another division, or its resource is gone.
        """
        index = self.routing.index
        route = index.route(partition)
        if route is None:
            raise NotServed(partition, index.epoch)
        return route.shard

    async def ask(self, shard: ShardId, call: Callable[[ShardHandle], Awaitable[T]]) -> T:
        """What `call` makes the shard answer. Raises as `KnownShards.ask`."""
        return await self.shards.ask(shard, call, self.timeout_s + WAIT_S)


class ChangesCursor:
    """The changes of one partition, page by page."""

    def __init__(self, asking: Asking, query: ChangesQuery) -> None:
        self.query = query
        self.partition = query.partition
        self._asking = asking
        self._pages: AsyncIterator[ChangesPage] | None = None
        self._shard = ShardId("")
        self.frontier = UNKNOWN
        """Of the whole answer; known after the first page."""
        self.page: Sequence[Change] = ()
        """The page that was asked for last, whole."""
        self.more = True
        """There are pages after it."""
        self._buffered: Iterator[Change] = iter(())

    async def next(self) -> None:
        """Buffers the next page. Raises as `ShardHandle.changes`."""
        if not self._shard:
            self._shard = self._asking.shard_of(self.partition)
        try:
            page = await self._asking.ask(self._shard, self._next_page)
        except StopAsyncIteration:
            raise NotReady(
                f"shard {self._shard} ended the changes of {self.partition} early",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        self.frontier, self.more, self.page = page.frontier, page.more, page.changes
        self._buffered = iter(page.changes)

    def _next_page(self, handle: ShardHandle) -> Awaitable[ChangesPage]:
        if self._pages is None:
            self._pages = handle.changes(self.query)
        return anext(self._pages)

    async def change(self) -> Change | None:
        """The next change; None after the last."""
        while True:
            change = next(self._buffered, None)
            if change is not None or not self.more:
                return change
            await self.next()

    async def aclose(self) -> None:
        """Lets the shard forget the answer."""
        close = getattr(self._pages, "aclose", None)
        if close is not None:
            try:
                await close()
            except ShoalError:
                return
