"""One adopted partition: its reflector, its store, who reads its feed and who waits for its frontier.

What it keeps true: while it is followed there is one reflector task feeding one store. What can go wrong outside has
its place in the reflector's machine. A failure that has none is a bug; it must neither stay unseen nor stop the
partition for good, so it shows in the state, is counted, and a new reflector goes on where the store stands.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping

from .api.client import ApiConnection
from .api.decode import Decoder
from .feeds import PartitionFeeds
from .handle import Assignment
from .model.errors import NotReady, ShoalError, TooLargeVersion
from .model.partitions import Epoch
from .model.queries import PartitionStatistics
from .model.versions import Version
from .settings import ShardSettings
from .store.bodies import BodyCodec
from .store.objects import PartitionStore
from .waiting import FrontierWaiters, ProofSlots
from .watch.permits import Permits
from .watch.proof import FrontierProof
from .watch.reflector import Reflector

log = logging.getLogger("shoal.shards.following")

FEED_WAIT_S = 3.0
"""How long a feed that begins beyond the frontier waits for it."""
FAILED_RETRY_S = 10.0
"""Before a reflector that failed in a way nobody foresaw is replaced. Slow: it may well fail again."""


class Followed:
    """One partition from its adoption to its release. Belongs to the event loop it was made on."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        connection: ApiConnection,
        permits: Permits,
        settings: ShardSettings,
        codec: BodyCodec,
        proof_slots: ProofSlots,
        rng: random.Random,
    ) -> None:
        loop = asyncio.get_running_loop()
        partition = assignment.partition
        self.assignment = assignment
        self._connection = connection
        self._permits = permits
        self._settings = settings
        self._rng = rng
        self.store = PartitionStore(
            partition, assignment.resource_type, settings=settings.store, clock=loop.time, codec=codec
        )
        self.reflector = self._make_reflector()
        self.feeds = PartitionFeeds(self.store, settings.feeds)
        self.waiters = FrontierWaiters(
            self.store,
            FrontierProof(partition, connection, self.store, self._decoder),
            slots=proof_slots,
            followed=lambda: self.running and not self.failure and self.reflector.status.state == "synced",
            read=lambda: self.feeds.readers > 0,
        )
        self.failure = ""
        """Why there is no reflector just now; what is held is served meanwhile, and grows old."""
        self.failures = 0
        self.handed_over = False
        """Another shard is about to serve it, so nobody may be shown anything by this one's leave."""
        self._past_unknown = False
        """Nobody can say what was shown by the leave of the shard that served it before."""
        self._earlier: dict[str, Counter[str]] = {
            name: Counter() for name in ("lists", "watch_restarts", "errors")
        }
        self.store.subscribe(self._moved)
        self._task = loop.create_task(self._keep_following(), name=f"reflector {partition.id}")

    @property
    def running(self) -> bool:
        """Whether it is followed, or will be again."""
        return not self._task.done()

    async def stop(self, error: Callable[[], ShoalError]) -> None:
        """Ends it; whoever reads or waits gets an error of their own."""
        self.feeds.end(error)
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.waiters.end(error)

    def require_synced(self) -> None:
        """Raises NotReady before the first complete list."""
        if not self.store.synced:
            status = self.reflector.status
            partition = self.assignment.partition.id
            raise NotReady(
                f"{partition} is not synced yet: {status.message or status.state}", retry_after_s=1
            )

    def overtake(self, version: Version) -> Version:
        """As `ShardHandle.overtake`."""
        self.feeds.flush()
        self.store.overtake(version)
        self.waiters.overtaken()
        return self.store.frontier

    def take_over(self, shown: Version | None) -> None:
        """As `ShardHandle.take_over`."""
        self.handed_over = False
        if shown is None:
            self._past_unknown = True
        else:
            self.store.take_over(shown)

    async def know_the_past(self) -> None:
        """Finds out what may have been shown by another shard's leave, if that is not known.

        Raises:
            NotReady: the API server does not answer.
        """
        if not self._past_unknown:
            return
        version = await self.waiters.ask()
        if version is None:
            partition = self.assignment.partition.id
            raise NotReady(f"what was shown of {partition} before it moved is not known yet", retry_after_s=1)
        if self._past_unknown:
            self._past_unknown = False
            self.store.take_over(version)

    async def reach(self, since: Version | None) -> None:
        """Returns when a feed can go on from `since`, which another shard's feed had told.

        Raises:
            PastLost: the API server says that it is not there: it was restored from a backup, say, and what it said
                before is void.
            NotReady: whether it is could not be found out in time.
        """
        if since is None:
            return
        try:
            await self.waiters.reached(since, FEED_WAIT_S, existed=True)
        except TooLargeVersion as error:
            raise NotReady(
                f"{self.assignment.partition.id} has not come to {since} yet", retry_after_s=1
            ) from error

    def _moved(self) -> None:
        self.waiters.moved()
        self.feeds.moved()

    # -- the reflector ----------------------------------------------------------------------------------------

    def _decoder(self) -> Decoder:
        return Decoder(
            self.assignment.resource_type,
            keep_managed_fields=self._settings.store.keep_managed_fields,
            redact=self.assignment.redact,
            line_bytes_max=self._settings.watch.line_bytes_max,
        )

    def _make_reflector(self) -> Reflector:
        return Reflector(
            partition=self.assignment.partition,
            resource_type=self.assignment.resource_type,
            connection=self._connection,
            store=self.store,
            decoder=self._decoder(),
            permits=self._permits,
            settings=self._settings.watch,
            rng=random.Random(self._rng.getrandbits(64)),
        )

    async def _keep_following(self) -> None:
        """Runs the partition's reflector until its resource is gone."""
        while True:
            try:
                await self.reflector.run()
            except Exception as error:
                log.exception("reflector failed", extra={"partition": self.assignment.partition.id})
                self.failures += 1
                self.failure = f"{type(error).__name__}: {error}; starts again in {FAILED_RETRY_S:.0f} s"
            else:
                return
            self.store.abandon()
            await asyncio.sleep(FAILED_RETRY_S)
            status = self.reflector.status
            for name, counter in self._earlier.items():
                counter.update(getattr(status, name))
            self.reflector = self._make_reflector()
            self.failure = ""

    # -- statistics -------------------------------------------------------------------------------------------

    def _counted(self, name: str, now: Mapping[str, int]) -> dict[str, int]:
        """A counter over all reflectors of the partition."""
        return dict(self._earlier[name] + Counter(now))

    def statistics(self, epoch: Epoch) -> PartitionStatistics:
        """Now. May be called from another thread: it only reads counters."""
        store, status = self.store, self.reflector.status
        past = store.history_statistics()
        return PartitionStatistics(
            partition=self.assignment.partition.id,
            epoch=epoch,
            state="failed" if self.failure else status.state,
            message=self.failure or status.message,
            objects=len(store),
            body_bytes=store.body_bytes,
            history_events=past.events,
            history_bytes=past.bytes,
            oldest_version=store.oldest_version,
            frontier=store.frontier,
            frontier_age_s=store.frontier_age_s,
            events=dict(store.events),
            lists=self._counted("lists", status.lists),
            watch_restarts=self._counted("watch_restarts", status.watch_restarts),
            errors=self._counted("errors", status.errors)
            | ({"failed": self.failures} if self.failures else {}),
            dropped=store.dropped,
            backlog=status.backlog,
            audit=store.audit,
            feeds=self.feeds.readers,
            feeds_cut_off=self.feeds.cut_off,
            late_events=past.late,
            overtaken=store.overtaken,
            proofs=dict(self.waiters.proofs),
            proofs_unasked=self.waiters.unasked,
        )
