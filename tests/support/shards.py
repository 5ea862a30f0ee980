"""Shards in memory that behave like real ones as far as a coordinator can tell, and fail on demand.

`MemoryShard` is the state, driven by any clock; `MemoryHandle` makes it a `ShardHandle`; `MemoryProvider` starts and
retires them. A shard lists for `sync_s`, or receives from its peers for `transfer_s`, reports its own newest epoch for
all partitions as `Shard` does, and starts empty under a new incarnation after `crash`. What it let be shown and what
it knows of that is modelled as versions. Every adoption is written down, for checks of the epochs.
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
from shoal.shards.model.transfers import HandedOver, Source, Sources, Taken
from shoal.shards.model.versions import Version

NOTHING = Epoch(0)
THAW_S = 15.0


@dataclass
class Held:
    """One partition a shard holds."""

    assignment: Assignment
    epoch: Epoch
    """The epoch it was last adopted at."""
    since: float
    gone: bool = False
    sources: tuple[Source, ...] = ()
    """Where it is, or was, received from; empty: it is listed."""
    arrived: bool = False
    stranded: str = ""
    frozen_at: float | None = None
    """Since when it stands still, handed over."""
    frozen_version: int = 0
    shown: int = 0
    """The newest version that was shown by this copy's leave."""
    knows: int | None = 0
    """What it knows of what others let be shown; None: it has to ask."""


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
    """Every start of following with a list, in order."""
    received: list[PartitionId] = field(default_factory=list)
    """Every start of receiving, in order."""
    peers: Callable[[ShardId], MemoryShard | None] = lambda _: None
    version: Callable[[], int] = lambda: 2000
    """Where the API server is."""
    transfer_s: float = 0.5
    """How long receiving a partition takes."""

    def adopt(
        self,
        assignments: Sequence[Assignment],
        epoch: Epoch,
        sources: Mapping[PartitionId, Sources] | None = None,
    ) -> None:
        self.epoch = max(self.epoch, epoch)
        for assignment in assignments:
            partition = assignment.partition.id
            origin = tuple((sources or {}).get(partition, ()))
            held = self.held.get(partition)
            state = self.state(partition) if held else ""
            under_way = state == "arriving" and held is not None and held.sources == origin
            if (
                held is None
                or held.assignment != assignment
                or state in ("gone", "stranded")
                or (state == "arriving" and not under_way)
            ):
                # What was shown before a list began is in it, and whoever was shown it has to list again.
                knows = 0 if origin else self.version()
                self.held[partition] = Held(assignment, epoch, self.clock(), sources=origin, knows=knows)
                (self.received if origin else self.listed).append(partition)
            else:
                held.epoch = max(held.epoch, epoch)
                held.frozen_at = None

    def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        self.epoch = max(self.epoch, epoch)
        for partition in partitions:
            self.held.pop(partition, None)

    def hand_over(self, partitions: Sequence[PartitionId], epoch: Epoch) -> dict[PartitionId, HandedOver]:
        self.epoch = max(self.epoch, epoch)
        answers = {}
        for partition in partitions:
            held = self.held.get(partition)
            if held is None:
                continue
            if held.frozen_at is None:
                held.frozen_at, held.frozen_version = self.clock(), self.version()
            if self.synced(partition):
                shown = max(held.shown, held.knows or 0)
                answers[partition] = HandedOver(Version(shown), Version(self.frontier(partition)))
        return answers

    def take_over(self, taken: Mapping[PartitionId, Taken]) -> None:
        for partition, said in taken.items():
            held = self.held.get(partition)
            if held is None:
                continue
            if held.frozen_at is not None:
                raise NotReady(f"{partition} stands still")
            if said.frontier and not self.synced(partition):
                raise NotReady(f"{partition} is not synced")
            known = None if said.shown is None or held.knows is None else max(held.knows, said.shown)
            held.knows = known

    def crash(self) -> None:
        """The process ends and another takes its place."""
        self.process += 1
        self.held.clear()
        self.epoch = Epoch(0)

    def synced(self, partition: PartitionId) -> bool:
        return self.state(partition) == "synced"

    def frontier(self, partition: PartitionId) -> int:
        held = self.held[partition]
        still = held.frozen_at is not None and self.clock() - held.frozen_at < THAW_S
        return held.frozen_version if still else self.version()

    def show(self, partition: PartitionId) -> bool:
        """A reader asks for leave to show what is new; whether it gets it."""
        if (
            partition not in self.held
            or not self.synced(partition)
            or self.held[partition].frozen_at is not None
        ):
            return False
        self.held[partition].shown = self.version()
        return True

    def state(self, partition: PartitionId) -> str:
        held = self.held[partition]
        if held.gone:
            return "gone"
        if partition in self.refused:
            return "refused"
        if held.sources and not held.arrived:
            return self._receive(held)
        return "synced" if held.arrived or self.clock() - held.since >= self.sync_s else "pending"

    def _receive(self, held: Held) -> str:
        if held.stranded:
            return "stranded"
        for source in held.sources:
            peer = self.peers(source.shard)
            if peer is None or source.partition not in peer.held or not peer.synced(source.partition):
                held.stranded = f"{source.shard} does not send {source.partition}"
                return "stranded"
        if self.clock() - held.since < self.transfer_s:
            return "arriving"
        held.arrived = True
        past = [peer.held[one.partition].knows for one in held.sources if (peer := self.peers(one.shard))]
        held.knows = None if None in past else max(known for known in past if known is not None)
        return "synced"

    def statistics(self) -> ShardStatistics:
        return ShardStatistics(
            shard=self.shard_id,
            incarnation=f"{self.shard_id}/{self.process}",
            pid=1000 + self.process,
            partitions=[self._statistics(partition, held) for partition, held in self.held.items()],
        )

    def _statistics(self, partition: PartitionId, held: Held) -> PartitionStatistics:
        state = self.state(partition)
        objects = self.objects.get(partition, 10) if state == "synced" else 0
        return PartitionStatistics(
            partition=partition,
            epoch=self.epoch,
            state=state,
            message="forbidden" if partition in self.refused else held.stranded,
            objects=objects,
            handed_over=held.frozen_at is not None,
            frozen=held.frozen_at is not None and self.clock() - held.frozen_at < THAW_S,
            source_shards=tuple(source.shard for source in held.sources),
            transferred_objects=objects if held.sources else 0,
            transferred_bytes=100 * objects if held.sources else 0,
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
        self.taken_over: dict[PartitionId, Taken] = {}

    async def _reached(self, call: str) -> None:
        self.calls.append(call)
        if self.away or call in self.refuses:
            raise NotReady(f"shard {self.shard_id} is away")
        if self.hangs:
            await asyncio.Event().wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)

    async def adopt(
        self,
        assignments: Sequence[Assignment],
        epoch: Epoch,
        sources: Mapping[PartitionId, Sources] | None = None,
    ) -> None:
        await self._reached("adopt")
        self.shard.adopt(assignments, epoch, sources)

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        await self._reached("release")
        self.shard.release(partitions, epoch)

    async def hand_over(
        self, partitions: Sequence[PartitionId], epoch: Epoch
    ) -> dict[PartitionId, HandedOver]:
        await self._reached("hand_over")
        for partition in partitions:
            self.shard.show(partition)  # a reader got leave for the newest version a moment ago
        return self.shard.hand_over(partitions, epoch)

    async def take_over(self, taken: Mapping[PartitionId, Taken]) -> None:
        await self._reached("take_over")
        self.shard.take_over(taken)
        self.taken_over.update(taken)

    async def statistics(self, acknowledged: int | None = None) -> ShardStatistics:
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
                MemoryShard(shard_id, clock, sync_s=self.sync_s, objects=self.objects, peers=self.peer)
            )
        return self.handles[shard_id]

    def peer(self, shard_id: ShardId) -> MemoryShard | None:
        handle = self.handles.get(shard_id)
        return None if handle is None or handle.away or handle.hangs else handle.shard

    async def existing(self) -> tuple[ShardId, ...]:
        return tuple(self.handles)

    async def retire(self, shard_id: ShardId) -> None:
        handle = self.handles.pop(shard_id, None)
        if handle is not None:
            await handle.stop()
            self.retired.append(shard_id)

    def holders(self, partition: PartitionId) -> list[ShardId]:
        return [shard for shard, handle in self.handles.items() if partition in handle.shard.held]
