"""A shard: some partitions of some resources, each followed by a reflector and held in a store. No Ray.

What it keeps true: each adopted partition is followed (`following`), or on its way here from other shards (`receiving`)
and then followed; a released one is forgotten. Queries name a partition; one that is not held answers `NotServed`, one
that has not been listed or received yet `NotReady`: an empty answer always means that there is nothing. Who holds what
is decided elsewhere (the coordinator), merging over partitions as well (the query router).

Everything runs on one event loop; queries read a store between two batches of its reflector, so each answer is one
state of the partition.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import msgspec
import psutil

from .api.client import ApiConnection
from .counters import QueryCounts
from .following import Followed, Received
from .handle import Assignment, ShardHandle
from .leasing import Lease
from .model.covers import contains, parse_cover
from .model.errors import Expired, NoLeave, NotReady, NotServed
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
from .model.versions import UNKNOWN, Version
from .receiving import Reception, in_turns, restored
from .receptions import Receptions
from .resuming import Loading
from .settings import ShardSettings
from .snapshots import Snapshots
from .store.bodies import BodyCodec
from .store.objects import PartitionStore
from .store.profile import profiling
from .store.transfer import Extract
from .upkeep import Upkeep
from .waiting import ProofSlots
from .watch.permits import Permits

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
        snapshots: Snapshots | None = None,
        peers: Callable[[ShardId], ShardHandle] | None = None,
        rest: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`peers` finds other shards, to receive partitions from them; None: there is no way to any. `rest` is called
        whenever nothing more is to be asked of any for now.
        """
        self.shard_id = shard_id
        self.incarnation = incarnation
        self._connection = connection
        self._permits = permits
        self._settings = settings
        self._rng = rng
        self._epoch = Epoch(0)
        self._lease = Lease(settings.lease_s, incarnation)
        self._followed: dict[PartitionId, Followed] = {}
        self._receptions = Receptions(
            self, peers=peers, rest=rest, settings=settings.transfer, install=self._install
        )
        self._changing = asyncio.Lock()
        self._exports = asyncio.Semaphore(settings.transfer.exports_max)
        self._codecs: dict[str, BodyCodec] = {}
        self._upkeep = Upkeep(
            shard_id,
            incarnation,
            connection=connection,
            permits=permits,
            settings=settings,
            followed=self._followed.values,
            snapshots=snapshots,
        )
        self._proof_slots = ProofSlots(asyncio.Semaphore(PROOFS_MAX), asyncio.Semaphore(UNASKED_PROOFS_MAX))
        self._counts = QueryCounts()
        self._process = psutil.Process()

    @property
    def epoch(self) -> Epoch:
        """The newest epoch the coordinator has told this shard of; never goes back."""
        return self._epoch

    # -- lifecycle --------------------------------------------------------------------------------------------

    async def adopt(
        self,
        assignments: Sequence[Assignment],
        epoch: Epoch,
        sources: Mapping[PartitionId, Sources] | None = None,
    ) -> None:
        """As `ShardHandle.adopt`. One that is held with an equal assignment goes on undisturbed, and so does one that
        is arriving from the same sources; one whose assignment changed (a new selectable field, redaction) is followed
        anew.
        """
        self._epoch = max(self._epoch, epoch)
        async with self._changing:
            for assignment in assignments:
                await self._adopt(assignment, (sources or {}).get(assignment.partition.id, ()))

    async def _adopt(self, assignment: Assignment, sources: Sources) -> None:
        partition = assignment.partition.id
        held = self._followed.get(partition)
        if held is not None and held.assignment == assignment and held.running:
            await held.keep()
            return
        if self._receptions.under_way(assignment, sources):
            return
        await self._forget(partition)
        if sources:
            self._receptions.begin(assignment, sources)
        elif self._upkeep.snapshots is not None:
            self._receptions.expect(Loading(assignment, self._upkeep.snapshots, self._resume))
        else:
            self._follow(assignment)

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        """Stops following these partitions and forgets their objects; unknown ones are ignored."""
        self._epoch = max(self._epoch, epoch)
        async with self._changing:
            for partition in partitions:
                held = self._followed.get(partition)
                await self._forget(partition)
                if held is not None:
                    await self._upkeep.released(held.assignment.partition)

    async def hand_over(
        self, partitions: Sequence[PartitionId], epoch: Epoch
    ) -> dict[PartitionId, HandedOver]:
        """As `ShardHandle.hand_over`. Of one that is not synced nobody had any leave."""
        self._epoch = max(self._epoch, epoch)
        held = [self._followed[partition] for partition in partitions if partition in self._followed]
        stood = await asyncio.gather(*(one.hand_over(self._refusal(one)) for one in held))
        return {one.store.partition.id: where for one, where in zip(held, stood, strict=True) if one.serving}

    def _refusal(self, held: Followed) -> Callable[[], NotServed]:
        partition = held.assignment.partition.id
        return lambda: NotServed(partition, self._epoch)

    async def take_over(self, taken: Mapping[PartitionId, Taken]) -> None:
        """As `ShardHandle.take_over`."""
        for partition, what in taken.items():
            if what.frontier != UNKNOWN:
                self._held(partition)
        calls = [
            self._take_over(held, what) for name, what in taken.items() if (held := self._followed.get(name))
        ]
        # Each ends in its own time, so all of them are waited for: none is left behind under way.
        for result in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _take_over(self, held: Followed, taken: Taken) -> None:
        sources = held.received.sources if held.received is not None else ()
        async with self._receptions.hearing(held.store, sources, taken.frontier):
            await held.take_over(taken)

    async def stop(self) -> None:
        """Stops everything and closes the connection to the API server."""
        await self._upkeep.stop()
        await self._receptions.stop()
        await asyncio.gather(*(self._stop(partition) for partition in list(self._followed)))
        await self._connection.aclose()

    def _codec(self, assignment: Assignment) -> BodyCodec:
        resource = str(assignment.partition.resource)
        codec = self._codecs.get(resource)
        if codec is None:
            codec = self._codecs[resource] = BodyCodec(self._settings.store)
        return codec

    async def _install(self, reception: Reception, extract: Extract) -> None:
        """Follows what was received."""
        assignment, objects, size = reception.assignment, reception.objects, reception.bytes
        store = await restored(assignment, extract, self._settings.store, self._codec(assignment))
        # NB: nothing is waited for from here on, so that it is either received or given up.
        self._receptions.over(reception)
        self._follow(assignment, store, Received(reception.sources, objects, size))

    async def _resume(self, loading: Loading, extract: Extract | None) -> None:
        """Follows what a snapshot has, or lists."""
        store = None
        if extract is not None:
            codec = self._codec(loading.assignment)
            store = await restored(loading.assignment, extract, self._settings.store, codec)
            store.resume()
        # NB: as above.
        self._receptions.over(loading)
        self._follow(loading.assignment, store, resumed=store is not None)

    def _follow(
        self,
        assignment: Assignment,
        store: PartitionStore | None = None,
        received: Received | None = None,
        *,
        resumed: bool = False,
    ) -> None:
        self._followed[assignment.partition.id] = Followed(
            assignment,
            connection=self._connection,
            permits=self._permits,
            settings=self._settings,
            codec=self._codec(assignment),
            proof_slots=self._proof_slots,
            rng=self._rng,
            store=store,
            received=received,
            resumed=resumed,
        )
        self._upkeep.start()

    async def _forget(self, partition: PartitionId) -> None:
        await self._receptions.give_up(partition)
        if partition in self._followed:
            await self._stop(partition)

    async def _stop(self, partition: PartitionId) -> None:
        held = self._followed.pop(partition)
        await held.stop(self._refusal(held))
        resource = held.assignment.partition.resource
        if not any(other.assignment.partition.resource == resource for other in self._followed.values()):
            self._codecs.pop(str(resource), None)

    # -- queries ----------------------------------------------------------------------------------------------

    async def get(self, query: GetQuery) -> GetAnswer:
        """One object at the newest state held. Raises NotServed, NotReady, TooLargeVersion."""
        with self._counts.counted("get"):
            store = await self._reached(query.partition, query.not_older_than, query.wait_s)
            return GetAnswer(body=store.get(query.key), frontier=store.frontier, age_s=store.frontier_age_s)

    async def page(self, query: PageQuery) -> PageAnswer:
        """One page of one state. Raises NotServed, NotReady, TooLargeVersion, Expired, BadRequest."""
        with self._counts.counted("list"):
            store = await self._ready_for(query)
            page = store.page(query)
            return msgspec.structs.replace(page, age_s=store.frontier_age_s, resumable=store.resumable)

    async def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        """All pages of the state at the first call, whatever happens meanwhile. Raises as `page`, before the first."""
        with self._counts.counted("list"):
            store = await self._ready_for(query)
            age_s, resumable = store.frontier_age_s, store.resumable
            for page in store.capture(query):
                yield msgspec.structs.replace(page, age_s=age_s, resumable=resumable)
                # A list of everything is long: others get their turn between two pages.
                await asyncio.sleep(0)

    async def count(self, query: CountQuery) -> PartitionCount:
        """As `ShardHandle.count`."""
        with self._counts.counted("count"):
            store = await self._reached(query.partition, query.not_older_than, query.wait_s)
            return msgspec.structs.replace(store.tally(query), age_s=store.frontier_age_s)

    async def changes(self, query: ChangesQuery) -> AsyncIterator[ChangesPage]:
        """As `ShardHandle.changes`."""
        with self._counts.counted("changes"):
            held = self._synced(query.partition)
            held.queries += 1
            await held.know_the_past()
            held.waiters.asked()
            store = held.store
            if query.since > store.answerable(query):
                await held.reached(query.since, query.wait_s)
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
        if not self._lease.valid(asyncio.get_running_loop().time()):
            raise NoLeave(
                f"shard {self.shard_id} has not heard of its coordinator for too long", retry_after_s=1
            )
        return held.overtake(query.version)

    # -- for other shards, and for who moves partitions -------------------------------------------------------

    async def export(self, query: ExportQuery) -> AsyncIterator[ExportPiece]:
        """As `ShardHandle.export`. What is sent is the state at the first call, whatever happens meanwhile."""
        with self._counts.counted("export"):
            try:
                async with asyncio.timeout(query.wait_s):
                    await self._exports.acquire()
            except TimeoutError:
                raise NotReady(
                    f"shard {self.shard_id} sends too much at once already", retry_after_s=1
                ) from None
            try:
                captured = await self.extract(query)
                held = self._followed.get(query.partition)
                for frame in captured.frames(query.max_bytes):
                    yield ExportPiece(frame, len(captured))
                    await asyncio.sleep(0)
                    if self._followed.get(query.partition) is not held:
                        raise Expired(f"{query.partition} was let go of while it was sent")
            finally:
                self._exports.release()

    async def extract(self, query: ExportQuery) -> Extract:
        """As `receiving.Receiver.extract`."""
        held = self._synced(query.partition)
        held.require_equal_form(query)
        await held.know_the_past()
        await held.reached(query.not_older_than, query.wait_s)
        cover, whole = parse_cover(query.cover), held.store.extract()
        if contains(cover, held.store.partition.cover):
            return whole
        return await in_turns(whole.restricting(cover))

    async def profile(self, partition: PartitionId) -> Profile:
        """As `ShardHandle.profile`."""
        return await in_turns(profiling(self._synced(partition).store))

    # -- what is held -----------------------------------------------------------------------------------------

    def _held(self, partition: PartitionId) -> Followed:
        held = self._followed.get(partition)
        if held is None:
            raise self._receptions.refusal(partition) or NotServed(partition, self._epoch)
        return held

    def _synced(self, partition: PartitionId) -> Followed:
        held = self._held(partition)
        held.require_synced()
        return held

    async def _ready_for(self, query: PageQuery) -> PartitionStore:
        wanted = query.not_older_than if query.at is None else max(query.at, query.not_older_than)
        return await self._reached(query.partition, wanted, query.wait_s)

    async def _reached(self, partition: PartitionId, version: Version, wait_s: float) -> PartitionStore:
        """The partition's store once its frontier has reached a version."""
        held = self._synced(partition)
        held.queries += 1
        await held.reached(version, wait_s)
        return held.store

    # -- statistics -------------------------------------------------------------------------------------------

    def statistics(self, acknowledged: int | None = None) -> ShardStatistics:
        """As `ShardHandle.statistics`. May be called from the loop of another thread: it only reads counters."""
        now = asyncio.get_running_loop().time()
        used = self._process.cpu_times()
        followed = list(self._followed.values())
        return ShardStatistics(
            shard=self.shard_id,
            incarnation=self.incarnation,
            pid=os.getpid(),
            cpu_seconds=used.user + used.system,
            resident_bytes=self._process.memory_info().rss,
            queries=dict(self._counts.queries),
            query_seconds=dict(self._counts.seconds),
            queries_in_progress=self._counts.in_progress,
            answer=0 if acknowledged is None else self._lease.answered(acknowledged, now),
            lease_s=self._lease.left_s(now),
            waiting_for_permit=sum(held.reflector.status.waiting_for_permit for held in followed),
            snapshots=self._upkeep.snapshot_outcomes,
            partitions=[
                *(held.statistics(self._epoch) for held in followed),
                *self._receptions.statistics(self._epoch),
            ],
        )
