"""A shard: some partitions of some resources, each followed by a reflector and held in a store. No Ray.

What it keeps true: each adopted partition is followed (`following`), a released one is forgotten. Queries name a
partition; one that is not held answers `NotServed`, one that has not been listed yet `NotReady`: an empty answer always
means that there is nothing. Who holds what is decided elsewhere (the coordinator), merging over partitions as well (the
query router).

Everything runs on one event loop; queries read a store between two batches of its reflector, so each answer is one
state of the partition.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec
import psutil

from .api.client import ApiConnection
from .following import Followed
from .handle import Assignment
from .model.errors import NotServed
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
from .model.versions import Version
from .settings import ShardSettings
from .store.bodies import BodyCodec
from .store.objects import PartitionStore
from .waiting import ProofSlots
from .watch.permits import Permits

EXPIRY_S = 30.0
"""How often history is aged in partitions where nothing arrives."""
PROOFS_MAX = 64
"""Proofs of frontiers under way at once in one shard; each takes a connection and about a second."""
UNASKED_PROOFS_MAX = 16
"""Of these, those that nobody waits for."""


class Shard:
    """Follows and holds the partitions it is told to, and answers queries about them.

    All methods belong to the event loop `start` was called on, except `statistics`, which only reads.
    """

    def __init__(
        self,
        shard_id: ShardId,
        *,
        connection: ApiConnection,
        permits: Permits,
        settings: ShardSettings,
        incarnation: str,
        rng: random.Random,
    ) -> None:
        self.shard_id = shard_id
        self.incarnation = incarnation
        self._connection = connection
        self._permits = permits
        self._settings = settings
        self._rng = rng
        self._epoch = Epoch(0)
        self._followed: dict[PartitionId, Followed] = {}
        self._codecs: dict[str, BodyCodec] = {}
        self._ageing: asyncio.Task[None] | None = None
        self._proof_slots = ProofSlots(asyncio.Semaphore(PROOFS_MAX), asyncio.Semaphore(UNASKED_PROOFS_MAX))
        self._queries: Counter[str] = Counter()
        self._query_seconds: defaultdict[str, float] = defaultdict(float)
        self._in_progress = 0
        self._process = psutil.Process()

    @property
    def epoch(self) -> Epoch:
        """The newest epoch the coordinator has told this shard of; never goes back."""
        return self._epoch

    # -- lifecycle --------------------------------------------------------------------------------------------

    async def adopt(self, assignments: Sequence[Assignment], epoch: Epoch) -> None:
        """Starts following these partitions. One that is held with an equal assignment goes on undisturbed;
        one whose assignment changed (a new selectable field, redaction) is followed anew.
        """
        self._epoch = max(self._epoch, epoch)
        for assignment in assignments:
            partition = assignment.partition.id
            held = self._followed.get(partition)
            if held is not None and held.assignment == assignment and held.running:
                held.handed_over = False
                continue
            if held is not None:
                await self._stop(partition)
            self._follow(assignment)

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        """Stops following these partitions and forgets their objects; unknown ones are ignored."""
        self._epoch = max(self._epoch, epoch)
        for partition in partitions:
            if partition in self._followed:
                await self._stop(partition)

    async def hand_over(self, partitions: Sequence[PartitionId], epoch: Epoch) -> dict[PartitionId, Version]:
        """As `ShardHandle.hand_over`. Of one that is not synced nobody had any leave."""
        self._epoch = max(self._epoch, epoch)
        held = [self._followed[partition] for partition in partitions if partition in self._followed]
        for one in held:
            one.handed_over = True
        return {one.store.partition.id: one.store.overtaken for one in held if one.store.synced}

    async def take_over(self, shown: Mapping[PartitionId, Version | None]) -> None:
        """As `ShardHandle.take_over`."""
        for partition, version in shown.items():
            held = self._followed.get(partition)
            if held is not None:
                held.take_over(version)

    async def stop(self) -> None:
        """Stops everything and closes the connection to the API server."""
        await asyncio.gather(*(self._stop(partition) for partition in list(self._followed)))
        if self._ageing is not None:
            self._ageing.cancel()
            await asyncio.wait([self._ageing])
            self._ageing = None
        await self._connection.aclose()

    def _follow(self, assignment: Assignment) -> None:
        partition = assignment.partition
        codec = self._codecs.get(str(partition.resource))
        if codec is None:
            codec = self._codecs[str(partition.resource)] = BodyCodec(self._settings.store)
        self._followed[partition.id] = Followed(
            assignment,
            connection=self._connection,
            permits=self._permits,
            settings=self._settings,
            codec=codec,
            proof_slots=self._proof_slots,
            rng=self._rng,
        )
        if self._ageing is None:
            name = f"{self.shard_id} history"
            self._ageing = asyncio.get_running_loop().create_task(self._age(), name=name)

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_S)
            for held in list(self._followed.values()):
                held.store.expire()
                await asyncio.sleep(0)

    async def _stop(self, partition: PartitionId) -> None:
        held = self._followed.pop(partition)
        await held.stop(lambda: NotServed(partition, self._epoch))
        resource = held.assignment.partition.resource
        if not any(other.assignment.partition.resource == resource for other in self._followed.values()):
            self._codecs.pop(str(resource), None)

    # -- queries ----------------------------------------------------------------------------------------------

    async def get(self, query: GetQuery) -> GetAnswer:
        """One object at the newest state held. Raises NotServed, NotReady, TooLargeVersion."""
        with self._counted("get"):
            store = await self._reached(query.partition, query.not_older_than, query.wait_s)
            return GetAnswer(body=store.get(query.key), frontier=store.frontier, age_s=store.frontier_age_s)

    async def page(self, query: PageQuery) -> PageAnswer:
        """One page of one state. Raises NotServed, NotReady, TooLargeVersion, Expired, BadRequest."""
        with self._counted("list"):
            store = await self._ready_for(query)
            page = store.page(query)
            return msgspec.structs.replace(page, age_s=store.frontier_age_s, resumable=store.resumable)

    async def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        """All pages of the state at the first call, whatever happens meanwhile. Raises as `page`, before the first."""
        with self._counted("list"):
            store = await self._ready_for(query)
            age_s, resumable = store.frontier_age_s, store.resumable
            for page in store.capture(query):
                yield msgspec.structs.replace(page, age_s=age_s, resumable=resumable)
                # A list of everything is long: others get their turn between two pages.
                await asyncio.sleep(0)

    async def count(self, query: CountQuery) -> PartitionCount:
        """As `ShardHandle.count`."""
        with self._counted("count"):
            store = await self._reached(query.partition, query.not_older_than, query.wait_s)
            return msgspec.structs.replace(store.tally(query), age_s=store.frontier_age_s)

    async def changes(self, query: ChangesQuery) -> AsyncIterator[ChangesPage]:
        """As `ShardHandle.changes`."""
        with self._counted("changes"):
            held = self._synced(query.partition)
            await held.know_the_past()
            store = held.store
            if query.since > store.answerable(query):
                await self._reached(query.partition, query.since, query.wait_s)
            age_s = store.frontier_age_s
            for page in store.changes(query):
                yield msgspec.structs.replace(page, age_s=age_s)
                await asyncio.sleep(0)

    async def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        """As `ShardHandle.feed`; all readers of a partition get the same batch objects."""
        held = self._synced(query.partition)
        await held.reach(query.since)
        batches = held.feeds.read(query)
        try:
            async for batch in batches:
                yield batch
        finally:
            await batches.aclose()

    async def overtake(self, query: OvertakeQuery) -> Version:
        """As `ShardHandle.overtake`."""
        held = self._synced(query.partition)
        if held.handed_over:
            raise NotServed(query.partition, self._epoch)
        return held.overtake(query.version)

    def _synced(self, partition: PartitionId) -> Followed:
        held = self._followed.get(partition)
        if held is None:
            raise NotServed(partition, self._epoch)
        held.require_synced()
        return held

    async def _ready_for(self, query: PageQuery) -> PartitionStore:
        wanted = query.not_older_than if query.at is None else max(query.at, query.not_older_than)
        return await self._reached(query.partition, wanted, query.wait_s)

    async def _reached(self, partition: PartitionId, version: Version, wait_s: float) -> PartitionStore:
        """The partition's store once its frontier has reached a version."""
        held = self._synced(partition)
        await held.waiters.reached(version, wait_s)
        return held.store

    def _counted(self, verb: str) -> _Counted:
        return _Counted(self, verb)

    # -- statistics -------------------------------------------------------------------------------------------

    def statistics(self) -> ShardStatistics:
        """What the shard holds and costs, now. May be called from another thread: it only reads counters."""
        used = self._process.cpu_times()
        followed = list(self._followed.values())
        return ShardStatistics(
            shard=self.shard_id,
            incarnation=self.incarnation,
            pid=os.getpid(),
            cpu_seconds=used.user + used.system,
            resident_bytes=self._process.memory_info().rss,
            queries=dict(self._queries),
            query_seconds=dict(self._query_seconds),
            queries_in_progress=self._in_progress,
            waiting_for_permit=sum(held.reflector.status.waiting_for_permit for held in followed),
            partitions=[held.statistics(self._epoch) for held in followed],
        )


class _Counted:
    """Counts one query and the seconds it took, whatever its end."""

    __slots__ = ("_began", "_shard", "_verb")

    def __init__(self, shard: Shard, verb: str) -> None:
        self._shard = shard
        self._verb = verb
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._shard._in_progress += 1  # noqa: SLF001 - a part of Shard, apart only to be a context

    def __exit__(self, *_: object) -> None:
        shard = self._shard
        shard._in_progress -= 1  # noqa: SLF001
        shard._queries[self._verb] += 1  # noqa: SLF001
        shard._query_seconds[self._verb] += asyncio.get_running_loop().time() - self._began  # noqa: SLF001
