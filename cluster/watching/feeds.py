"""One partition as a hub follows it: the feed of whichever shard serves it, found again when it is lost.

::

    first batch --> following -- lost --> looking for it -- same position --> following
                        |                      |
                        |                      +-- patience is over --> ends: away
                        +-- position forgotten --> ends: expired
                        +-- resource divided anew --> ends: divided
                        +-- resource gone --> ends: gone

A feed that is lost (its shard died, let the partition go, was silent for three beats, or the connection broke) is
opened again at the position reached, wherever the routes say. What is missing is then told, or the position is
forgotten and the follower is told so: there is no third way. How long that may take is bounded.

The position is the frontier told. Events of one version may take several batches, of which only the last one tells the
frontier (a shard that lists anew has many changes of one version): a feed that is lost between them tells the first of
them again when it is opened at its position, so they are remembered and left out (`Ahead`).

While it is open, the partition is cleared to what its lanes want (`clearing`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import msgspec

from ...shards.handle import FEED_BEAT_S, ShardHandle
from ...shards.model.errors import Expired, NotReady, NotServed, ShoalError
from ...shards.model.partitions import Epoch, PartitionId, ShardId
from ...shards.model.queries import FeedBatch, FeedEvent, FeedQuery
from ...shards.model.refs import Key
from ...shards.model.resources import Resource
from ...shards.model.versions import UNKNOWN, Version
from ..query.directory import RETRY_AFTER_S, KnownShards
from ..query.routing import Routing
from .clearing import Clearing
from .lanes import Clearance
from .statistics import WatchStatistics

log = logging.getLogger("shoal.cluster.watching")

SILENCE_S: Final = 3 * FEED_BEAT_S
"""A feed that says nothing for so long is dead."""
HEALTHY_S: Final = 5.0
"""A feed that was open for so long is looked for without delay when it is lost."""
RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
REFRESH_S: Final = 1.0
"""How long newer routes are waited for when a shard says that ours are old."""
BURST_EVENTS: Final = 500
"""Events taken in one go before others get their turn."""


@dataclass(frozen=True, slots=True)
class FeedEnd:
    """Why a partition is followed no more."""

    kind: Literal["away", "expired", "divided", "gone"]
    error: ShoalError


class Follower(Protocol):
    """Whom a feed tells."""

    def took(self, feed: PartitionFeed, batch: FeedBatch) -> None:
        """News, in order; none is told twice."""

    def cleared(self, feed: PartitionFeed) -> None:
        """The partition's clearance may have changed."""

    def ended(self, feed: PartitionFeed, end: FeedEnd) -> None:
        """The feed is over; it is not to be used any more."""


def _version(event: FeedEvent) -> Version:
    return event.version


class Ahead:
    """The events a feed has told above the frontier it has told; nearly always none. Pure."""

    __slots__ = ("_known", "_repeated", "events")

    def __init__(self) -> None:
        self.events: list[FeedEvent] = []
        """In the order of their versions."""
        self._known: set[tuple[Version, Key]] = set()
        self._repeated = False

    def reopened(self) -> None:
        """From now on what is known may be told again."""
        self._repeated = bool(self._known)

    def new(self, batch: FeedBatch) -> FeedBatch:
        """The batch without what is known already; what it tells above its frontier is known from now on."""
        told = batch.events
        if self._repeated:
            told = [event for event in told if (event.version, event.key) not in self._known]
        frontier = batch.frontier
        if self._known and frontier >= self.events[0].version:
            self.events = [event for event in self.events if event.version > frontier]
            self._known = {(event.version, event.key) for event in self.events}
            self._repeated = self._repeated and bool(self._known)
        if told and told[-1].version > frontier:
            ahead = [event for event in told if event.version > frontier]
            self.events += ahead
            if self._repeated:
                self.events.sort(key=_version)  # another shard may tell older ones after newer ones
            self._known.update((event.version, event.key) for event in ahead)
        return batch if told is batch.events else msgspec.structs.replace(batch, events=told)


class PartitionFeed:
    """Follows one partition from the start to `aclose`, or until it tells its follower that it has ended."""

    def __init__(
        self,
        resource: Resource,
        partition: PartitionId,
        *,
        routing: Routing,
        shards: KnownShards,
        follower: Follower,
        patience_s: float,
        statistics: WatchStatistics,
        roams: bool = False,
    ) -> None:
        self.partition = partition
        self.clearance = Clearance()
        self.age_s: float | None = None
        """As the shard said with its last batch."""
        self.shard = ShardId("")
        """Who serves it; empty before the first batch."""
        self.ahead = Ahead()
        self._resource = resource
        self._routing = routing
        self._shards = shards
        self._follower = follower
        self._patience_s = patience_s
        self._statistics = statistics
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._open_since: float | None = None
        self._lost_at: float | None = None
        self._given_up: ShoalError | None = None
        self._clearing = Clearing(
            partition,
            self.clearance,
            roams=roams,
            routing=routing,
            shards=shards,
            patience_s=patience_s,
            statistics=statistics,
            cleared=lambda: follower.cleared(self),
            given_up=self._give_up,
        )
        self._following: asyncio.Task[None] | None = None
        self._task = self._loop.create_task(self._run(), name=f"feed of {partition}")

    async def opened(self) -> None:
        """Waits until the feed is open, for the first time or again.

        Raises:
            ShoalError: why it is over.
        """
        await asyncio.shield(self._opened)

    def want(self, version: Version) -> None:
        """Has the partition cleared to `version`, unless it is anyhow."""
        self._clearing.want(version)

    def rerouted(self) -> None:
        """The routes may name another shard: if so it is asked now, whether or not the old one has let go.

        A partition that is in the routes no more has a last word to say: its resource may be gone, and its objects.
        """
        route = self._routing.index.route(self.partition)
        if self._following is not None and self.shard and route is not None and route.shard != self.shard:
            self._following.cancel()

    async def aclose(self) -> None:
        """Ends the feed; nobody is told. Safe to repeat."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._opened.done():
            self._fail_opening(
                NotReady(f"{self.partition} is not followed any more", retry_after_s=RETRY_AFTER_S)
            )

    # -- following -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        retry_s = RETRY_FIRST_S
        while True:
            epoch = self._routing.table.epoch
            self._following = self._loop.create_task(self._follow(), name=f"following {self.partition}")
            try:
                await asyncio.wait((self._following,))
                error = self._problem(self._following)
                if self._open_since is not None and self._loop.time() - self._open_since > HEALTHY_S:
                    retry_s = RETRY_FIRST_S
            finally:
                await self._stop()
            end = self._over(error)
            if end is not None:
                if not self._opened.done():
                    self._fail_opening(end.error)
                self._follower.ended(self, end)
                return
            log.info("feed lost", extra={"partition": self.partition, "problem": str(error)})
            if isinstance(error, NotServed):
                await self._routing.refresh(max(epoch, Epoch(error.epoch - 1)), retry_s)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, RETRY_MAX_S)

    def _fail_opening(self, error: ShoalError) -> None:
        self._opened.set_exception(error)
        self._opened.exception()  # whether or not somebody waits

    def _problem(self, following: asyncio.Task[None]) -> ShoalError:
        """Why the feed is not followed any more."""
        if self._given_up is not None:
            return self._given_up
        if following.cancelled():
            return NotServed(self.partition, self._routing.table.epoch)  # it has moved
        problem = following.exception()
        if problem is None:
            return NotReady(f"the feed of {self.partition} ended", retry_after_s=RETRY_AFTER_S)
        if isinstance(problem, ShoalError):
            return problem
        if not isinstance(problem, Exception):
            raise problem
        log.error("feed failed", exc_info=problem, extra={"partition": self.partition})
        return NotReady(f"following {self.partition} failed", retry_after_s=RETRY_AFTER_S)

    def _over(self, error: ShoalError) -> FeedEnd | None:
        """What the loss means, if not that the feed is to be looked for."""
        if isinstance(error, Expired):
            return FeedEnd("expired", error)
        now = self._loop.time()
        if self._lost_at is None:
            self._lost_at = now
        index = self._routing.index
        if index.epoch and index.route(self.partition) is None:
            if index.resource_type(self._resource) is None:
                return FeedEnd("gone", error)
            if index.of(self._resource):
                return FeedEnd("divided", error)
        patience_s = self._patience_s
        if self.clearance.fed == UNKNOWN:
            # Whoever waits for it can come again; only routes that are just being published are waited for.
            patience_s = REFRESH_S if isinstance(error, NotServed) else 0.0
        if self._given_up is not None or now - self._lost_at >= patience_s:
            return FeedEnd("away", error)
        return None

    async def _follow(self) -> None:
        index = self._routing.index
        route = index.route(self.partition)
        if route is None:
            raise NotServed(self.partition, index.epoch)
        since = self.clearance.fed
        query = FeedQuery(partition=self.partition, epoch=index.epoch, since=since or None)
        batches: AsyncIterator[FeedBatch] | None = None

        def begin(handle: ShardHandle) -> Awaitable[FeedBatch]:
            nonlocal batches
            batches = handle.feed(query)
            return anext(batches)

        try:
            batch = await self._shards.ask(route.shard, begin, self._patience_s)
            assert batches is not None
            self._begin(route.shard)
            self._took(batch, since)
            if not self._opened.done():
                self._opened.set_result(None)
            taken = 0
            while True:
                async with asyncio.timeout(SILENCE_S):
                    batch = await anext(batches)
                self._took(batch, since)
                taken += len(batch.events)
                if taken >= BURST_EVENTS:
                    taken = 0
                    await asyncio.sleep(0)
        except StopAsyncIteration:
            raise NotReady(
                f"shard {route.shard} ended the feed of {self.partition}", retry_after_s=RETRY_AFTER_S
            ) from None
        except TimeoutError:
            raise NotReady(
                f"shard {route.shard} was silent about {self.partition} for {SILENCE_S:g} s",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        finally:
            await _closed(batches)

    def _begin(self, shard: ShardId) -> None:
        if self._lost_at is not None:
            self._statistics.feeds_reopened += self.clearance.fed != UNKNOWN
            self._lost_at = None
        self.shard = shard
        self._open_since = self._loop.time()
        self._statistics.feeds_open += 1
        self.clearance.reopened()
        self.ahead.reopened()
        self._clearing.begin(shard)

    def _took(self, batch: FeedBatch, since: Version) -> None:
        self.age_s = batch.age_s
        if batch.events and batch.events[0].version <= since:
            # A shard that is behind the one before it tells again what that one told.
            news = [event for event in batch.events if event.version > since]
            batch = msgspec.structs.replace(batch, events=news)
        self._follower.took(self, self.ahead.new(batch))
        self._clearing.resume()

    def _give_up(self, error: ShoalError) -> None:
        """The shard does not clear the partition: it is taken for lost."""
        self._given_up = error
        if self._following is not None:
            self._following.cancel()

    async def _stop(self) -> None:
        """The feed is not open any more."""
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.wait((following,))
        await self._clearing.stop()
        if self._open_since is not None:
            self._open_since = None
            self._statistics.feeds_open -= 1
            self._opened = self._loop.create_future()


async def _closed(batches: Any) -> None:
    """Lets the shard forget the feed."""
    close = getattr(batches, "aclose", None)
    if close is None:
        return
    try:
        await close()
    except ShoalError:
        log.debug("a feed was lost while it was closed")
