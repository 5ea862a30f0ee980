"""One adopted partition: its reflector, its store, who reads its feed and who waits for its frontier.

What it keeps true: while it is followed there is one reflector task feeding one store. What can go wrong outside has
its place in the reflector's machine. A failure that has none is a bug; it must neither stay unseen nor stop the
partition for good, so it shows in the state, is counted, and a new reflector goes on where the store stands.

Handed over it is *frozen*: there is no reflector and no proof, so the store does not change; it is read as before. It
*thaws* when it is adopted again, or by itself after a while: a coordinator that died in between must not leave readers
with what grows old. A new reflector then goes on where the store stands, with a watch.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping

import msgspec

from .api.client import ApiConnection
from .api.decode import Decoder
from .feeds import PartitionFeeds
from .freezing import Frozen
from .handle import Assignment
from .model.errors import NotReady, ShoalError, TooLargeVersion
from .model.partitions import Epoch, ShardId
from .model.queries import PartitionStatistics
from .model.transfers import ExportQuery, HandedOver, Source, Taken
from .model.versions import UNKNOWN, Version
from .resuming import CatchingUp
from .settings import ShardSettings
from .store.bodies import BodyCodec
from .store.comparing import AuditCounts
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


class Received(msgspec.Struct, frozen=True):
    """How a partition came here that was not listed."""

    sources: tuple[Source, ...] = ()
    objects: int = 0
    bytes: int = 0
    """From other processes."""

    @property
    def shards(self) -> tuple[ShardId, ...]:
        """Where it came from, each once."""
        return tuple(dict.fromkeys(source.shard for source in self.sources))


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
        store: PartitionStore | None = None,
        received: Received | None = None,
        resumed: bool = False,
    ) -> None:
        """With a `store` that is synced already, it goes on from there; `resumed`: from a time before this process."""
        loop = asyncio.get_running_loop()
        partition = assignment.partition
        self.assignment = assignment
        self._connection = connection
        self._permits = permits
        self._settings = settings
        self._rng = rng
        self.store = (
            store
            if store is not None
            else PartitionStore(
                partition, assignment.resource_type, settings=settings.store, clock=loop.time, codec=codec
            )
        )
        self.received = received
        self.queries = 0
        """Gets, lists, counts and replays."""
        self.reflector = self._make_reflector(old=resumed)
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
        self.audits = AuditCounts(loop.time)
        self.handed_over = False
        """Another shard is about to serve it, so nobody may be shown anything by this one's leave."""
        self._past_unknown = False
        """Nobody can say what was shown by the leave of the shard that served it before."""
        self._earlier: dict[str, Counter[str]] = {
            name: Counter() for name in ("lists", "watch_restarts", "errors")
        }
        self.frozen: Frozen | None = None
        """It stands still, because it was handed over."""
        self._thawing: asyncio.TimerHandle | None = None
        self._changing = asyncio.Lock()
        self._stopped = False
        self.store.subscribe(self._moved)
        self._task = self._start()
        self.catching_up = CatchingUp(self.store, self.waiters) if resumed else None

    @property
    def serving(self) -> bool:
        """Whether there is a state to be shown."""
        return self.store.synced and not (self.catching_up is not None and self.catching_up.message)

    @property
    def running(self) -> bool:
        """Whether it is followed, or will be again when it thaws; false when its resource is gone."""
        return self.frozen is not None or not self._task.done()

    async def stop(self, error: Callable[[], ShoalError]) -> None:
        """Ends it; whoever reads or waits gets an error of their own."""
        self._stopped = True
        if self._thawing is not None:
            self._thawing.cancel()
        if self.frozen is not None:
            self.frozen.end(released=True)
        self.feeds.end(error)
        self._task.cancel()
        await asyncio.wait([self._task])
        if self.catching_up is not None:
            await self.catching_up.stop()
        await self.waiters.end(error)

    # -- handing over -----------------------------------------------------------------------------------------

    async def hand_over(self, refusal: Callable[[], ShoalError]) -> HandedOver:
        """As `ShardHandle.hand_over`; whoever waits for more than there is gets a refusal of their own. Repeated, it
        stands still for as long again.

        Raises:
            NotReady: what was shown by the leave of its predecessor is not known, and the API server does not answer.
        """
        if self.store.synced:
            await self.know_the_past()
        self.handed_over = True
        async with self._changing:
            if self._thawing is not None:
                self._thawing.cancel()
            try:
                if self.running and self.frozen is None and not self._stopped:
                    await self._stand_still(refusal)
            finally:
                # Also if nobody waits for the answer any more: what stands still goes on by itself.
                if self.frozen is not None and not self._stopped:
                    self._thawing = asyncio.get_running_loop().call_later(
                        self._settings.transfer.thaw_s, self._thaw
                    )
        self.feeds.flush()
        return HandedOver(max(self.store.overtaken, self.store.shown_before), self.store.frontier)

    async def _stand_still(self, refusal: Callable[[], ShoalError]) -> None:
        self.frozen = Frozen(refusal)
        self._task.cancel()
        try:
            await asyncio.wait([self._task])
            self.store.abandon()
            await self.waiters.end(refusal)
        finally:
            self._replace_reflector()

    async def keep(self) -> None:
        """It was adopted again: it is followed on, and versions may be shown by its leave."""
        async with self._changing:
            self._thaw()
            self.handed_over = False

    def _thaw(self) -> None:
        if self._thawing is not None:
            self._thawing.cancel()
            self._thawing = None
        frozen, self.frozen = self.frozen, None
        if frozen is None or self._stopped:
            return
        self._task = self._start()
        frozen.end(released=False)

    def require_synced(self) -> None:
        """Raises NotReady before the first complete list, or before what was resumed has caught up."""
        if self.serving:
            return
        status = self.reflector.status
        why = status.message or (self.catching_up.message if self.catching_up is not None else status.state)
        raise NotReady(f"{self.assignment.partition.id} is not synced yet: {why}", retry_after_s=1)

    def require_equal_form(self, query: ExportQuery) -> None:
        """Raises NotReady where what is held here is not of the form that is asked for: the definition of the resource
        has changed, or what is shown of it, and one of both sides has not heard of it yet.
        """
        here = self.assignment
        if (here.resource_type.selectable_fields, here.redact) != (query.selectable_fields, query.redact):
            raise NotReady(f"{here.partition.id} is held in another form here", retry_after_s=1)

    def overtake(self, version: Version) -> Version:
        """As `ShardHandle.overtake`."""
        self.feeds.flush()
        self.store.overtake(version)
        self.waiters.overtaken()
        return self.store.frontier

    async def take_over(self, taken: Taken) -> None:
        """As `ShardHandle.take_over`."""
        partition = self.assignment.partition.id
        if self.frozen is not None:
            raise NotReady(f"{partition} stands still here, because it was handed over", retry_after_s=1)
        if taken.frontier != UNKNOWN:
            self.require_synced()
            await self.waiters.reached(taken.frontier, self._settings.transfer.catch_up_timeout_s)
        self.handed_over = False
        if taken.shown is None:
            self._past_unknown = True
        else:
            self.store.take_over(taken.shown, taken.frontier)

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
            # A snapshot may be from before the partition was divided, and made one again, elsewhere.
            self.store.take_over(version, divided=self.catching_up is not None)

    async def reached(self, version: Version, wait_s: float, *, existed: bool = False) -> None:
        """Returns when the frontier has reached `version`. Raises as `FrontierWaiters.reached`, and NotServed while it
        stands still.
        """
        if version > self.store.frontier and self.frozen is not None:
            wait_s = await self.frozen.outlasted(wait_s)
        await self.waiters.reached(version, wait_s, existed=existed)

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
            await self.reached(since, FEED_WAIT_S, existed=True)
        except TooLargeVersion as error:
            raise NotReady(
                f"{self.assignment.partition.id} has not come to {since} yet", retry_after_s=1
            ) from error

    def _moved(self) -> None:
        self.waiters.moved()
        self.feeds.moved()

    # -- the audit -------------------------------------------------------------------------------------------

    @property
    def comparable(self) -> bool:
        """Whether what is held can be compared with the API server now: nothing replaces or moves it."""
        followed = self.running and self.frozen is None and not self.handed_over and not self.failure
        complete = self.serving and not self.store.listing
        return followed and complete and self.reflector.status.state == "synced"

    def distrust(self, reason: str) -> None:
        """What is held was found to differ from the API server: it is listed as a difference."""
        self.store.doubt()
        self.reflector.distrust(reason)

    # -- the reflector ----------------------------------------------------------------------------------------

    def _decoder(self) -> Decoder:
        return Decoder(
            self.assignment.resource_type,
            keep_managed_fields=self._settings.store.keep_managed_fields,
            redact=self.assignment.redact,
            line_bytes_max=self._settings.watch.line_bytes_max,
        )

    def _make_reflector(self, *, old: bool = False) -> Reflector:
        return Reflector(
            partition=self.assignment.partition,
            resource_type=self.assignment.resource_type,
            connection=self._connection,
            store=self.store,
            decoder=self._decoder(),
            permits=self._permits,
            settings=self._settings.watch,
            rng=random.Random(self._rng.getrandbits(64)),
            old=old,
        )

    def _start(self) -> asyncio.Task[None]:
        name = f"reflector {self.assignment.partition.id}"
        return asyncio.get_running_loop().create_task(self._keep_following(), name=name)

    def _replace_reflector(self) -> None:
        status = self.reflector.status
        for name, counter in self._earlier.items():
            counter.update(getattr(status, name))
        self.reflector = self._make_reflector()
        self.failure = ""

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
            self._replace_reflector()

    # -- statistics -------------------------------------------------------------------------------------------

    def _counted(self, name: str, now: Mapping[str, int]) -> dict[str, int]:
        """A counter over all reflectors of the partition."""
        return dict(self._earlier[name] + Counter(now))

    def statistics(self, epoch: Epoch) -> PartitionStatistics:
        """Now. May be called from another thread: it only reads counters."""
        store, status = self.store, self.reflector.status
        past = store.history_statistics()
        state: str = status.state
        message = self.failure or status.message
        if state in ("pending", "synced"):
            # What can be read counts: a reflector that is about to begin, or to end a list, is elsewhere.
            state = "synced" if store.synced else "pending"
        if self.frozen is not None:
            message = "stands still, because it was handed over"
        if state == "synced" and not self.serving:
            state, message = "pending", message or (self.catching_up.message if self.catching_up else "")
        received = self.received or Received()
        return PartitionStatistics(
            partition=self.assignment.partition.id,
            epoch=epoch,
            state="failed" if self.failure else state,
            message=message,
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
            audits=dict(self.audits.outcomes),
            audited_objects=self.audits.compared,
            audited_age_s=self.audits.age_s,
            divergence=dict(self.audits.divergence),
            handed_over=self.handed_over,
            frozen=self.frozen is not None,
            queries=self.queries,
            source_shards=received.shards,
            transferred_objects=received.objects,
            transferred_bytes=received.bytes,
        )
