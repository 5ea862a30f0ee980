"""Shards in this process: `LocalShardHandle` around a `Shard`, and a provider that starts them.

Used wherever no Ray is wanted: tests, simulations in virtual time, and programs that run everything in one process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from .handle import Assignment
from .model.errors import NotReady
from .model.partitions import Epoch, PartitionId, ShardId
from .model.queries import (
    ChangesPage,
    ChangesQuery,
    CountQuery,
    FeedBatch,
    FeedQuery,
    GetAnswer,
    GetQuery,
    OvertakeQuery,
    PageAnswer,
    PageQuery,
    PartitionCount,
    ShardStatistics,
)
from .model.transfers import ExportPiece, ExportQuery, HandedOver, Profile, Sources, Taken
from .model.versions import Version
from .shard import Shard


class LocalShardHandle:
    """`ShardHandle` of a shard in this process."""

    def __init__(self, shard: Shard) -> None:
        self.shard_id = shard.shard_id
        self._shard: Shard | None = shard

    @property
    def shard(self) -> Shard:
        """The shard itself.

        Raises:
            NotReady: it was stopped.
        """
        if self._shard is None:
            raise NotReady(f"shard {self.shard_id} was stopped", retry_after_s=1)
        return self._shard

    async def adopt(
        self,
        assignments: Sequence[Assignment],
        epoch: Epoch,
        sources: Mapping[PartitionId, Sources] | None = None,
    ) -> None:
        """As `ShardHandle.adopt`."""
        await self.shard.adopt(assignments, epoch, sources)

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        """As `ShardHandle.release`."""
        await self.shard.release(partitions, epoch)

    async def hand_over(
        self, partitions: Sequence[PartitionId], epoch: Epoch
    ) -> dict[PartitionId, HandedOver]:
        """As `ShardHandle.hand_over`."""
        return await self.shard.hand_over(partitions, epoch)

    async def take_over(self, taken: Mapping[PartitionId, Taken]) -> None:
        """As `ShardHandle.take_over`."""
        await self.shard.take_over(taken)

    async def get(self, query: GetQuery) -> GetAnswer:
        """As `ShardHandle.get`."""
        return await self.shard.get(query)

    async def page(self, query: PageQuery) -> PageAnswer:
        """As `ShardHandle.page`."""
        return await self.shard.page(query)

    def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        """As `ShardHandle.stream`."""
        return self.shard.stream(query)

    async def count(self, query: CountQuery) -> PartitionCount:
        """As `ShardHandle.count`."""
        return await self.shard.count(query)

    def changes(self, query: ChangesQuery) -> AsyncIterator[ChangesPage]:
        """As `ShardHandle.changes`."""
        return self.shard.changes(query)

    def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        """As `ShardHandle.feed`."""
        return self.shard.feed(query)

    async def overtake(self, query: OvertakeQuery) -> Version:
        """As `ShardHandle.overtake`."""
        return await self.shard.overtake(query)

    def export(self, query: ExportQuery) -> AsyncIterator[ExportPiece]:
        """As `ShardHandle.export`."""
        return self.shard.export(query)

    async def profile(self, partition: PartitionId) -> Profile:
        """As `ShardHandle.profile`."""
        return await self.shard.profile(partition)

    async def statistics(self, acknowledged: int | None = None) -> ShardStatistics:
        """As `ShardHandle.statistics`."""
        return self.shard.statistics(acknowledged)

    async def stop(self) -> None:
        """As `ShardHandle.stop`."""
        if self._shard is not None:
            shard, self._shard = self._shard, None
            await shard.stop()


class LocalShardProvider:
    """Starts shards in this process; `make` builds one (with its connection, permits and settings)."""

    def __init__(self, make: Callable[[ShardId], Shard]) -> None:
        self._make = make
        self.handles: dict[ShardId, LocalShardHandle] = {}

    async def ensure(self, shard_id: ShardId) -> LocalShardHandle:
        """As `ShardProvider.ensure`."""
        handle = self.handles.get(shard_id)
        if handle is None:
            handle = self.handles[shard_id] = LocalShardHandle(self._make(shard_id))
        return handle

    def peer(self, shard_id: ShardId) -> LocalShardHandle:
        """A `PeerDirectory` of its shards.

        Raises:
            NotReady: there is none of that name.
        """
        handle = self.handles.get(shard_id)
        if handle is None:
            raise NotReady(f"shard {shard_id} is not running", retry_after_s=1)
        return handle

    async def retire(self, shard_id: ShardId) -> None:
        """As `ShardProvider.retire`."""
        handle = self.handles.pop(shard_id, None)
        if handle is not None:
            await handle.stop()

    async def existing(self) -> tuple[ShardId, ...]:
        """As `ShardProvider.existing`."""
        return tuple(self.handles)
