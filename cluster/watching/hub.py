"""All watches of one resource in one gateway: a feed from each partition's shard, a lane for each set of partitions.

::

    shard --feed--> PartitionFeed --> Lane (what may be shown) --> Audience (who sees it) --> sinks
    shard --feed--> PartitionFeed --^

What a watcher is promised, and why it holds:

- *No gap, no going back*, from the version it began with to the last line it gets: `lanes` argues for one stream and
  for clients that come back anywhere; `audience` for the seam between a watcher's replay and what comes after it;
  `feeds` for a feed that is lost and found. Over several partitions a line may repeat what its client was shown before
  it came back, or what a replay that broke off had told. Where none of these arguments holds any more (a position is
  forgotten) the watches concerned end with 410, and where a shard stays away, without an error.
- *Nobody waits for others*: feeds are taken as they come and given out at once; a sink never blocks, and who takes
  no more is dropped. A watcher depends only on the partitions its selectors can match (`CollectionQuery.concerns`).
- *Bounded*: events that wait for a partition to be cleared are bounded in number, bytes and time, as is what is kept
  for a watcher that is told the past.

What arrives together is given out together: news only mark the hub, and one pass over its lanes follows once the
event loop has taken what was there, or a little later (`pace`). No task is woken for a live event.

A hub is for one division of its resource into partitions and for one past of the API server; with another one it ends
as a whole, and the router makes a new one. With another past the versions all its lanes stand at mean nothing any
more: watches end with 410. With another division they end in order, as at their deadline, and clients come back with
the version they were shown: the past has moved with the partitions (`replay` says why that is enough), and where it
has not, shards say so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from random import Random
from typing import Final

from ...shards.model.errors import Expired, NotReady, NotServed, PastLost, ShoalError
from ...shards.model.partitions import Partition, PartitionId
from ...shards.model.queries import FeedBatch
from ...shards.model.resources import ResourceType
from ...shards.model.versions import UNKNOWN, Version
from ..query.directory import RETRY_AFTER_S, KnownShards
from ..query.routing import Routing
from .audience import Audience, Member
from .feeds import FeedEnd, PartitionFeed
from .lanes import Lane
from .names import siblings_of
from .pace import Pace
from .selection import LiveEvent
from .settings import WatchServingSettings
from .statistics import WatchStatistics

log = logging.getLogger("shoal.cluster.watching")

PENDING_EVENTS: Final = 100_000
PENDING_BYTES: Final = 128 << 20
"""Events held back in one lane for a partition that does not acknowledge; with more its watches end."""
FLUSH_BYTES: Final = 1 << 20
"""News are given out without waiting for more once their bodies are larger than this."""
EARLY_PART: Final = 0.85
"""Bookmarks go out after this part of their period, and up to that much earlier again by chance (`JITTER`)."""
JITTER: Final = 0.15


class Channel:
    """A lane, its audience, and when its bookmarks are due."""

    __slots__ = ("audience", "bookmarks", "bytes", "lane")

    def __init__(self, lane: Lane[LiveEvent], audience: Audience) -> None:
        self.lane = lane
        self.audience = audience
        self.bytes = 0
        """Of bodies offered since nothing was pending."""
        self.bookmarks: asyncio.TimerHandle | None = None


class Hub:
    """The watches of one resource. Made for the first of them, closed some time after the last."""

    def __init__(
        self,
        resource_type: ResourceType,
        partitions: Collection[Partition],
        *,
        routing: Routing,
        shards: KnownShards,
        settings: WatchServingSettings,
        rng: Random,
        statistics: WatchStatistics,
    ) -> None:
        self.resource_type = resource_type
        self.partitions = frozenset(partition.id for partition in partitions)
        self.siblings = siblings_of(partitions)
        """Of partitions whose names move, where to."""
        self.closed = False
        """Not to be used for new watches."""
        self.over = False
        """All watches have ended; one that is still told the past is to end as well."""
        self.used_at = asyncio.get_running_loop().time()
        """Loop time when somebody last came or went."""
        self._routing = routing
        self._shards = shards
        self._settings = settings
        self._rng = rng
        self._statistics = statistics
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[PartitionId, PartitionFeed] = {}
        self._channels: dict[tuple[PartitionId, ...], Channel] = {}
        self._waiting: list[tuple[Collection[PartitionId], Version, asyncio.Future[None]]] = []
        self._pace = Pace(self._give_out)
        self._unflushed = 0
        self._leaving: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Watchers."""
        return sum(len(channel.audience) for channel in self._channels.values())

    # -- for watches -----------------------------------------------------------------------------------------

    async def ready(self, partitions: Collection[PartitionId]) -> None:
        """Waits until these partitions are followed.

        Raises:
            NotReady: the shard of one is away, or has not listed it yet.
        """
        self._used()
        for partition in partitions:
            if partition not in self._feeds and not self.closed:
                self._feeds[partition] = self._feed(partition)
        feeds = [self._of(partition) for partition in partitions]
        try:
            async with asyncio.timeout(self._settings.patience_s):
                for feed in feeds:
                    await feed.opened()
        except TimeoutError:
            names = ", ".join(partitions)
            raise NotReady(f"not all of {names} can be followed", retry_after_s=RETRY_AFTER_S) from None
        except (Expired, NotServed) as error:
            raise NotReady(str(error), retry_after_s=RETRY_AFTER_S) from error

    def newest(self, partitions: Iterable[PartitionId]) -> Version:
        """The newest version any of them has told."""
        return max((self._of(partition).clearance.fed for partition in partitions), default=UNKNOWN)

    def oldest(self, partitions: Iterable[PartitionId]) -> Version:
        """The version all of them have told."""
        return min((self._of(partition).clearance.fed for partition in partitions), default=UNKNOWN)

    def followed(self, partition: PartitionId) -> PartitionFeed:
        """The feed of a partition that is ready. Raises NotReady if it is over."""
        return self._of(partition)

    async def clear(self, partitions: Collection[PartitionId], version: Version) -> None:
        """Has these partitions cleared to `version`, which one of them has told.

        Raises:
            NotReady: one did not acknowledge in time, or is lost.
        """
        for partition in partitions:
            self._of(partition).want(version)
        if self._cleared(partitions, version):
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        entry = (partitions, version, waiter)
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(self._settings.patience_s):
                await waiter
        except TimeoutError:
            raise NotReady(
                f"a shard of {self.resource_type.resource} did not acknowledge version {version} in time",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)

    def join(self, partitions: tuple[PartitionId, ...], member: Member) -> Audience:
        """Adds a watcher: what is given out from now on is kept for it until it goes live.

        Raises:
            NotReady: a partition is lost.
        """
        feeds = [self._of(name) for name in partitions]
        ahead = [LiveEvent(feed.partition, event) for feed in feeds for event in feed.ahead.events]
        if ahead:
            self._pace.now()  # then each of them is either held back in a lane or was given out
        channel = self._channels.get(partitions)
        if channel is None:
            lane: Lane[LiveEvent] = Lane({feed.partition: feed.clearance for feed in feeds})
            lane.offer(ahead)
            channel = self._channels[partitions] = Channel(
                lane, Audience(self.resource_type, self._statistics)
            )
            self._bookmark_later(channel)
            channel.audience.collect(member)
        else:
            channel.audience.collect(member)
            channel.audience.keep(member, channel.lane.given_out(ahead))
        self._used()
        return channel.audience

    def go_live(self, partitions: tuple[PartitionId, ...], member: Member) -> None:
        """The watcher has been told everything up to `Member.positions`, and what was kept for it."""
        channel = self._channels[partitions]
        channel.audience.go_live(member)
        self._settle(channel)

    def leave(self, partitions: tuple[PartitionId, ...], member: Member) -> None:
        """The watcher has gone. Safe to repeat."""
        channel = self._channels.get(partitions)
        if channel is not None:
            channel.audience.discard(member)
            self._used()
            self._tidy()

    def shown(self, partitions: tuple[PartitionId, ...], member: Member) -> Version:
        """What a bookmark for this watcher says now."""
        lane = self._channels[partitions].lane
        return max(lane.shown, min(member.positions.values(), default=UNKNOWN))

    # -- the routes, and the end -----------------------------------------------------------------------------

    def rerouted(self) -> None:
        """New routes were published: feeds move; another division of the resource ends all watches, in order."""
        index = self._routing.index
        if index.resource_type(self.resource_type.resource) is not None:
            now = frozenset(route.partition.id for route in index.of(self.resource_type.resource))
            if now and now != self.partitions:
                self.end(None)
                return
        for feed in tuple(self._feeds.values()):
            feed.rerouted()

    def end(self, error: ShoalError | None) -> None:
        """Ends all watches, with `error` as their last line if there is one, and follows nothing any more."""
        if self._pace.waiting and not isinstance(error, PastLost):
            self._pace.now()
        self.closed = self.over = True
        for partitions in tuple(self._channels):
            self._end_channel(partitions, error)
        self._fail(self.partitions, error or NotReady("the watches are ending", retry_after_s=RETRY_AFTER_S))
        for feed in tuple(self._feeds.values()):
            self._drop(feed)
        self._pace.stop()

    async def aclose(self) -> None:
        """Ends everything and waits for it."""
        self.end(None)
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _used(self) -> None:
        self.used_at = self._loop.time()

    # -- feeds: `feeds.Follower` -----------------------------------------------------------------------------

    def _feed(self, partition: PartitionId) -> PartitionFeed:
        return PartitionFeed(
            self.resource_type.resource,
            partition,
            routing=self._routing,
            shards=self._shards,
            follower=self,
            roams=partition in self.siblings,
            patience_s=self._settings.patience_s,
            statistics=self._statistics,
        )

    def _of(self, partition: PartitionId) -> PartitionFeed:
        feed = self._feeds.get(partition)
        if feed is None:
            raise NotReady(f"partition {partition} is not followed any more", retry_after_s=RETRY_AFTER_S)
        return feed

    def took(self, feed: PartitionFeed, batch: FeedBatch) -> None:
        """As `feeds.Follower`."""
        partition = feed.partition
        if batch.events:
            size = sum(len(event.body) for event in batch.events)
            events = [LiveEvent(partition, event) for event in batch.events]
            for partitions, channel in self._channels.items():
                if partition in partitions:
                    channel.lane.offer(events)
                    channel.bytes += size
            self._unflushed += size
        feed.clearance.told(batch.frontier)
        self._flush_later()

    def cleared(self, feed: PartitionFeed) -> None:  # noqa: ARG002 - as `feeds.Follower`
        """As `feeds.Follower`."""
        self._flush_later()

    def ended(self, feed: PartitionFeed, end: FeedEnd) -> None:
        """As `feeds.Follower`."""
        log.info(
            "partition lost",
            extra={"partition": feed.partition, "reason": end.kind, "problem": str(end.error)},
        )
        if isinstance(end.error, PastLost):
            # No lane may overtake anybody by the versions that there were.
            self.end(end.error)
            return
        if end.kind == "divided":
            self.end(None)
            return
        self._pace.now()
        error = end.error if end.kind == "expired" else None
        for partitions in tuple(self._channels):
            if feed.partition in partitions:
                self._statistics.lost += len(self._channels[partitions].audience) if end.kind == "away" else 0
                self._end_channel(partitions, error)
        self._fail({feed.partition}, end.error)
        self._drop(feed)
        if end.kind == "gone":
            self.closed = True

    def _drop(self, feed: PartitionFeed) -> None:
        if self._feeds.get(feed.partition) is feed:
            del self._feeds[feed.partition]
        task = self._loop.create_task(feed.aclose(), name=f"closing the feed of {feed.partition}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _end_channel(self, partitions: tuple[PartitionId, ...], error: ShoalError | None) -> None:
        channel = self._channels.pop(partitions)
        if channel.bookmarks is not None:
            channel.bookmarks.cancel()
        for member in channel.audience:
            channel.audience.discard(member)
            member.end(error)

    def _fail(self, partitions: Collection[PartitionId], error: ShoalError) -> None:
        """Those who wait for one of the partitions to be cleared wait in vain."""
        for concerned, _, waiter in self._waiting:
            if not waiter.done() and not set(partitions).isdisjoint(concerned):
                waiter.set_exception(
                    error if isinstance(error, Expired) else NotReady(str(error), retry_after_s=RETRY_AFTER_S)
                )

    # -- giving out ------------------------------------------------------------------------------------------

    def _flush_later(self) -> None:
        if self._unflushed >= FLUSH_BYTES:
            self._pace.now()
        else:
            self._pace.soon()

    def _give_out(self) -> None:
        """Gives out what may be shown, and asks for what is lacking."""
        self._unflushed = 0
        for partitions, channel in tuple(self._channels.items()):
            events = channel.lane.release()
            try:
                channel.audience.deliver(events)
            except Exception:
                # A bug. Who got which lines is not known any more, so nobody may go on as if nothing were missing.
                log.exception(
                    "events could not be given out", extra={"resource": str(self.resource_type.resource)}
                )
                self._end_channel(partitions, None)
                continue
            self._settle(channel)
            self._lack(partitions, channel)
        self._tidy()
        for concerned, version, waiter in self._waiting:
            if not waiter.done() and self._cleared(concerned, version):
                waiter.set_result(None)

    def _lack(self, partitions: tuple[PartitionId, ...], channel: Channel) -> None:
        """Asks for the overtakings that a lane waits for, or gives it up if it holds too much back."""
        lane = channel.lane
        if not lane:
            channel.bytes = 0
        elif len(lane) > PENDING_EVENTS or channel.bytes > PENDING_BYTES:
            log.warning("too many events held back", extra={"partitions": sorted(partitions)})
            self._end_channel(partitions, None)
            return
        if len(partitions) > 1:
            for partition in partitions:
                self._of(partition).want(lane.wanted)

    def _settle(self, channel: Channel) -> None:
        if not channel.audience.unsettled:
            return
        fed = {partition: self._of(partition).clearance.fed for partition in channel.lane.partitions}
        channel.audience.settle(fed, channel.lane.oldest_pending)

    def _cleared(self, partitions: Iterable[PartitionId], version: Version) -> bool:
        return all(self._of(partition).clearance.cleared >= version for partition in partitions)

    def _tidy(self) -> None:
        """Lets go of lanes nobody watches."""
        for partitions, channel in tuple(self._channels.items()):
            if not len(channel.audience):
                self._end_channel(partitions, None)
                self._used()

    # -- bookmarks -------------------------------------------------------------------------------------------

    def _bookmark_later(self, channel: Channel) -> None:
        after_s = self._settings.bookmark_s * (EARLY_PART - JITTER * self._rng.random())
        channel.bookmarks = self._loop.call_later(after_s, self._bookmark, channel)

    def _bookmark(self, channel: Channel) -> None:
        channel.audience.bookmark(channel.lane.shown)
        self._bookmark_later(channel)
        self._tidy()
