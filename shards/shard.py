"""A shard: some partitions of some resources, each followed by a reflector and held in a store. No Ray.

What it keeps true: for each adopted partition there is one reflector task feeding one store; a released partition
has neither. Queries name a partition; one that is not held answers `NotServed`, one that has not been listed yet
`NotReady`: an empty answer always means that there is nothing. Who holds what is decided elsewhere (the
coordinator), merging over partitions as well (the query router).

Everything runs on one event loop; queries read a store between two batches of its reflector, so each answer is one
state of the partition.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import psutil

from .api.client import ApiConnection
from .api.decode import Decoder
from .handle import Assignment
from .model.errors import NotReady, NotServed, TooLargeVersion
from .model.partitions import Epoch, PartitionId, ShardId
from .model.queries import (
    GetAnswer,
    GetQuery,
    PageAnswer,
    PageQuery,
    PartitionStatistics,
    ShardStatistics,
)
from .model.versions import Version
from .settings import ShardSettings
from .store.bodies import BodyCodec
from .store.objects import PartitionStore
from .watch.permits import Permits
from .watch.reflector import Reflector

log = logging.getLogger("shoal.shards.shard")


FAILED_RETRY_S = 10.0
"""Before a reflector that failed in a way nobody foresaw is replaced. Slow: it may well fail again."""
EXPIRY_S = 30.0
"""How often history is aged in partitions where nothing arrives."""


@dataclass(slots=True)
class _Followed:
    """One adopted partition."""

    assignment: Assignment
    store: PartitionStore
    reflector: Reflector
    task: asyncio.Task[None] | None = None
    failure: str = ""
    """Why there is no reflector just now; what is held is served meanwhile, and grows old."""
    failures: int = 0
    earlier: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in ("lists", "watch_restarts", "errors")}
    )
    """Counters of the reflectors before this one."""

    @property
    def running(self) -> bool:
        """Whether it is followed, or will be again."""
        return self.task is not None and not self.task.done()

    def counted(self, name: str, now: Mapping[str, int]) -> dict[str, int]:
        """A counter over all reflectors of the partition."""
        return dict(self.earlier[name] + Counter(now))


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
        self._followed: dict[PartitionId, _Followed] = {}
        self._codecs: dict[str, BodyCodec] = {}
        self._ageing: asyncio.Task[None] | None = None
        self._waiters: dict[PartitionId, list[tuple[Version, asyncio.Future[None]]]] = {}
        self._queries: Counter[str] = Counter()
        self._query_seconds: defaultdict[str, float] = defaultdict(float)
        self._in_progress = 0
        self._process = psutil.Process()

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
        loop = asyncio.get_running_loop()
        codec = self._codecs.get(str(partition.resource))
        if codec is None:
            codec = self._codecs[str(partition.resource)] = BodyCodec(self._settings.store)
        store = PartitionStore(
            partition,
            assignment.resource_type,
            settings=self._settings.store,
            clock=loop.time,
            codec=codec,
        )
        store.subscribe(functools.partial(self._wake, partition.id, store))
        held = _Followed(assignment, store, self._reflector(assignment, store))
        held.task = loop.create_task(self._keep_following(held), name=f"reflector {partition.id}")
        self._followed[partition.id] = held
        if self._ageing is None:
            self._ageing = loop.create_task(self._age(), name=f"{self.shard_id} history")

    def _reflector(self, assignment: Assignment, store: PartitionStore) -> Reflector:
        return Reflector(
            partition=assignment.partition,
            resource_type=assignment.resource_type,
            connection=self._connection,
            store=store,
            decoder=Decoder(
                assignment.resource_type,
                keep_managed_fields=self._settings.store.keep_managed_fields,
                redact=assignment.redact,
                line_bytes_max=self._settings.watch.line_bytes_max,
            ),
            permits=self._permits,
            settings=self._settings.watch,
            rng=random.Random(self._rng.getrandbits(64)),
        )

    async def _keep_following(self, held: _Followed) -> None:
        """Runs the partition's reflector until its resource is gone.

        Everything that can go wrong outside has its place in the reflector's machine. A failure that has none is a
        bug; it must neither stay unseen nor stop the partition for good, so it shows in the state, is counted, and a
        new reflector goes on where the store stands.
        """
        while True:
            try:
                await held.reflector.run()
            except Exception as error:
                partition = held.assignment.partition.id
                log.exception("reflector failed", extra={"partition": partition})
                held.failures += 1
                held.failure = f"{type(error).__name__}: {error}; starts again in {FAILED_RETRY_S:.0f} s"
            else:
                return
            held.store.abandon()
            await asyncio.sleep(FAILED_RETRY_S)
            status = held.reflector.status
            for name, counter in held.earlier.items():
                counter.update(getattr(status, name))
            held.reflector = self._reflector(held.assignment, held.store)
            held.failure = ""

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_S)
            for held in list(self._followed.values()):
                held.store.expire()
                await asyncio.sleep(0)

    async def _stop(self, partition: PartitionId) -> None:
        held = self._followed.pop(partition)
        if held.task is not None:
            held.task.cancel()
            await asyncio.wait([held.task])
        for _, waiter in self._waiters.pop(partition, []):
            if not waiter.done():
                waiter.set_exception(NotServed(partition, self._epoch))
        if not any(
            other.assignment.partition.resource == held.assignment.partition.resource
            for other in self._followed.values()
        ):
            self._codecs.pop(str(held.assignment.partition.resource), None)

    # -- queries ----------------------------------------------------------------------------------------------

    async def get(self, query: GetQuery) -> GetAnswer:
        """One object at the newest state held. Raises NotServed, NotReady, TooLargeVersion."""
        with self._counted("get"):
            store = await self._ready(query)
            return GetAnswer(body=store.get(query.key), frontier=store.frontier, age_s=store.frontier_age_s)

    async def page(self, query: PageQuery) -> PageAnswer:
        """One page of one state. Raises NotServed, NotReady, TooLargeVersion, Expired, BadRequest."""
        with self._counted("list"):
            store = await self._ready(query)
            return msgspec.structs.replace(store.page(query), age_s=store.frontier_age_s)

    async def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        """All pages of the state at the first call, whatever happens meanwhile. Raises as `page`, before the first."""
        with self._counted("list"):
            store = await self._ready(query)
            age_s = store.frontier_age_s
            for page in store.capture(query):
                yield msgspec.structs.replace(page, age_s=age_s)
                # A list of everything is long: others get their turn between two pages.
                await asyncio.sleep(0)

    async def _ready(self, query: GetQuery | PageQuery) -> PartitionStore:
        held = self._followed.get(query.partition)
        if held is None:
            raise NotServed(query.partition, self._epoch)
        if not held.store.synced:
            status = held.reflector.status
            raise NotReady(
                f"{query.partition} is not synced yet: {status.message or status.state}", retry_after_s=1
            )
        if query.not_older_than > held.store.frontier:
            await self._reached(held, query.not_older_than, query.wait_s)
        return held.store

    async def _reached(self, held: _Followed, version: Version, wait_s: float) -> None:
        partition = held.assignment.partition.id
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (version, waiter)
        waiting = self._waiters.setdefault(partition, [])
        waiting.append(entry)
        try:
            await asyncio.wait_for(waiter, wait_s)
        except TimeoutError:
            raise TooLargeVersion(version, held.store.frontier) from None
        finally:
            if entry in waiting:
                waiting.remove(entry)

    def _wake(self, partition: PartitionId, store: PartitionStore) -> None:
        waiting = self._waiters.get(partition)
        if not waiting:
            return
        for version, waiter in waiting:
            if version <= store.frontier and not waiter.done():
                waiter.set_result(None)

    def _counted(self, verb: str) -> _Counted:
        return _Counted(self, verb)

    # -- statistics -------------------------------------------------------------------------------------------

    def statistics(self) -> ShardStatistics:
        """What the shard holds and costs, now. May be called from another thread: it only reads counters."""
        used = self._process.cpu_times()
        partitions = [self._partition_statistics(held) for held in list(self._followed.values())]
        return ShardStatistics(
            shard=self.shard_id,
            incarnation=self.incarnation,
            pid=os.getpid(),
            cpu_seconds=used.user + used.system,
            resident_bytes=self._process.memory_info().rss,
            queries=dict(self._queries),
            query_seconds=dict(self._query_seconds),
            queries_in_progress=self._in_progress,
            waiting_for_permit=sum(
                held.reflector.status.waiting_for_permit for held in list(self._followed.values())
            ),
            partitions=partitions,
        )

    def _partition_statistics(self, held: _Followed) -> PartitionStatistics:
        store, status = held.store, held.reflector.status
        held_events = store.history_statistics()
        return PartitionStatistics(
            partition=held.assignment.partition.id,
            epoch=self._epoch,
            state="failed" if held.failure else status.state,
            message=held.failure or status.message,
            objects=len(store),
            body_bytes=store.body_bytes,
            history_events=held_events.events,
            history_bytes=held_events.bytes,
            oldest_version=store.oldest_version,
            frontier=store.frontier,
            frontier_age_s=store.frontier_age_s,
            events=dict(store.events),
            lists=held.counted("lists", status.lists),
            watch_restarts=held.counted("watch_restarts", status.watch_restarts),
            errors=held.counted("errors", status.errors)
            | ({"failed": held.failures} if held.failures else {}),
            dropped=store.dropped,
            backlog=status.backlog,
            audit=store.audit,
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
