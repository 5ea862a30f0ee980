"""Shards in memory that behave like real ones as far as a coordinator can tell, and fail on demand.

`MemoryShard` is the state, driven by any clock; `MemoryHandle` makes it a `ShardHandle`; `MemoryProvider`
starts and retires them. A shard lists for `sync_s`, reports its own newest epoch for all partitions as
`Shard` does, and starts empty under a new incarnation after `crash`. Every adoption is written down, for
checks of the epochs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from shoal.shards.handle import Assignment
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import Epoch, PartitionId, ShardId
from shoal.shards.model.queries import (
    ChangesPage,
    ChangesQuery,
    CountQuery,
    FeedBatch,
    FeedQuery,
    GetQuery,
    OvertakeQuery,
    PageAnswer,
    PageQuery,
    PartitionStatistics,
    ShardStatistics,
)
from shoal.shards.model.versions import Version

NOTHING = Epoch(0)


@dataclass
class Held:
    """One partition a shard holds."""

    assignment: Assignment
    epoch: Epoch
    """The epoch it was last adopted at."""
    since: float
    gone: bool = False


@dataclass
class MemoryShard:
    """One shard."""

    shard_id: ShardId
    clock: Callable[[], float]
    sync_s: float = 1.0
    objects: dict[PartitionId, int] = field(default_factory=dict)
    """How many objects a partition has; 10 unless named."""
    refused: set[PartitionId] = field(default_factory=set)
    process: int = 0
    epoch: Epoch = NOTHING
    held: dict[PartitionId, Held] = field(default_factory=dict)
    listed: list[PartitionId] = field(default_factory=list)
    """Every start of following, in order."""

    def adopt(self, assignments: Sequence[Assignment], epoch: Epoch) -> None:
        self.epoch = max(self.epoch, epoch)
        for assignment in assignments:
            partition = assignment.partition.id
            held = self.held.get(partition)
            if held is None or held.assignment != assignment or held.gone:
                self.held[partition] = Held(assignment, epoch, self.clock())
                self.listed.append(partition)
            else:
                held.epoch = max(held.epoch, epoch)

    def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        self.epoch = max(self.epoch, epoch)
        for partition in partitions:
            self.held.pop(partition, None)

    def crash(self) -> None:
        """The process ends and another takes its place."""
        self.process += 1
        self.held.clear()
        self.epoch = Epoch(0)

    def synced(self, partition: PartitionId) -> bool:
        return self.state(partition) == "synced"

    def state(self, partition: PartitionId) -> str:
        held = self.held[partition]
        if held.gone:
            return "gone"
        if partition in self.refused:
            return "refused"
        return "synced" if self.clock() - held.since >= self.sync_s else "pending"

    def statistics(self) -> ShardStatistics:
        return ShardStatistics(
            shard=self.shard_id,
            incarnation=f"{self.shard_id}/{self.process}",
            pid=1000 + self.process,
            partitions=[
                PartitionStatistics(
                    partition=partition,
                    epoch=self.epoch,
                    state=self.state(partition),
                    message="forbidden" if partition in self.refused else "",
                    objects=self.objects.get(partition, 10) if self.synced(partition) else 0,
                )
                for partition in self.held
            ],
        )


class MemoryHandle:
    """`ShardHandle` of a `MemoryShard`; `away`, `hangs` and `delay_s` say how it fails."""

    def __init__(self, shard: MemoryShard) -> None:
        self.shard_id = shard.shard_id
        self.shard = shard
        self.away = False
        """Calls fail at once."""
        self.hangs = False
        """Calls are never answered; what they ask for is not done."""
        self.delay_s = 0.0
        self.calls: list[str] = []
        self.refuses: set[str] = set()
        """Calls that fail, by name."""
        self.taken_over: dict[PartitionId, Version | None] = {}

    async def _reached(self, call: str) -> None:
        self.calls.append(call)
        if self.away or call in self.refuses:
            raise NotReady(f"shard {self.shard_id} is away")
        if self.hangs:
            await asyncio.Event().wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    async def adopt(self, assignments: Sequence[Assignment], epoch: Epoch) -> None:
        await self._reached("adopt")
        self.shard.adopt(assignments, epoch)

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        await self._reached("release")
        self.shard.release(partitions, epoch)

    async def hand_over(self, partitions: Sequence[PartitionId], epoch: Epoch) -> dict[PartitionId, Version]:
        await self._reached("hand_over")
        return {partition: Version(1000) for partition in partitions if partition in self.shard.held}

    async def take_over(self, shown: Mapping[PartitionId, Version | None]) -> None:
        await self._reached("take_over")
        self.taken_over.update(shown)

    async def statistics(self) -> ShardStatistics:
        await self._reached("statistics")
        return self.shard.statistics()

    async def stop(self) -> None:
        self.away = True
        self.shard.held.clear()

    async def get(self, query: GetQuery) -> NoReturn:
        raise NotImplementedError("these shards hold no objects")

    async def page(self, query: PageQuery) -> NoReturn:
        raise NotImplementedError("these shards hold no objects")

    def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        raise NotImplementedError("these shards hold no objects")

    async def count(self, query: CountQuery) -> NoReturn:
        raise NotImplementedError("these shards hold no objects")

    def changes(self, query: ChangesQuery) -> AsyncIterator[ChangesPage]:
        raise NotImplementedError("these shards hold no objects")

    def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        raise NotImplementedError("these shards hold no objects")

    async def overtake(self, query: OvertakeQuery) -> NoReturn:
        raise NotImplementedError("these shards hold no objects")


class MemoryProvider:
    """Starts shards in memory, on the clock of the running loop; they outlive a coordinator."""

    def __init__(self, *, sync_s: float = 1.0, objects: dict[PartitionId, int] | None = None) -> None:
        self.sync_s = sync_s
        self.objects = dict(objects or {})
        self.handles: dict[ShardId, MemoryHandle] = {}
        self.starts_after_s = 0.0
        self.refuses = False
        """Starting fails."""
        self.retired: list[ShardId] = []

    async def ensure(self, shard_id: ShardId) -> MemoryHandle:
        if self.starts_after_s:
            await asyncio.sleep(self.starts_after_s)
        if self.refuses:
            raise NotReady("no room for another shard")
        if shard_id not in self.handles:
            clock = asyncio.get_running_loop().time
            self.handles[shard_id] = MemoryHandle(
                MemoryShard(shard_id, clock, sync_s=self.sync_s, objects=self.objects)
            )
        return self.handles[shard_id]

    async def retire(self, shard_id: ShardId) -> None:
        handle = self.handles.pop(shard_id, None)
        if handle is not None:
            await handle.stop()
            self.retired.append(shard_id)

    def holders(self, partition: PartitionId) -> list[ShardId]:
        return [shard for shard, handle in self.handles.items() if partition in handle.shard.held]
