"""The parts of watches by themselves: feeds that come back behind, and what members of an audience are given."""

from __future__ import annotations

import asyncio

import pytest
from support.clock import run_virtual
from support.watched_shards import PODS, Written, body_of
from support.watching import IN_A, NOT_A, WHOLE, Reader, form, settled

from shoal.cluster.query.directory import KnownShards
from shoal.cluster.query.routing import Routing
from shoal.cluster.watching.audience import COLLECTED_BYTES, Audience, Member
from shoal.cluster.watching.feeds import PartitionFeed
from shoal.cluster.watching.lanes import Clearance
from shoal.cluster.watching.selection import LiveEvent, Selector
from shoal.cluster.watching.statistics import WatchStatistics
from shoal.shards.model.queries import FeedBatch, FeedEvent
from shoal.shards.model.refs import key_of
from shoal.shards.model.versions import Version

# -- feeds ---------------------------------------------------------------------------------------------------


def event(version: int, name: str = "one", *, namespace: str = "a", size: int = 0) -> FeedEvent:
    body = body_of(namespace, name, "uid-1", version, {})
    return FeedEvent(
        Version(version), "MODIFIED", key_of(namespace, name), "uid-1", body + b" " * size, b"", ("", "")
    )


class Retelling:
    """A shard whose feeds are the test's: each opening tells its batches, and ends."""

    def __init__(self, *openings):
        self.openings = list(openings)
        self.since = []

    async def feed(self, query):
        self.since.append(query.since)
        if not self.openings:
            await asyncio.Event().wait()
        for frontier, versions in self.openings.pop(0):
            yield FeedBatch(query.partition, Version(frontier), [event(version) for version in versions], 0.0)


class Follower:
    def __init__(self):
        self.told = []

    def took(self, feed, batch):
        self.told += [told.version for told in batch.events]
        feed.clearance.told(batch.frontier)

    def cleared(self, feed):
        pass

    def ended(self, feed, end):
        raise AssertionError(end)


@pytest.mark.parametrize(
    "again",
    [
        [(103, [101, 102, 103])],
        [(102, [102]), (103, [103])],
        [(101, [101]), (102, []), (102, [102]), (103, [103])],
    ],
)
def test_a_feed_that_comes_back_behind_tells_nothing_twice(again):
    async def main():
        written = Written(WHOLE)
        routing = Routing(written, poll_s=1.0)
        routing.take(written.table)
        shard, follower = Retelling([(100, []), (101, [101]), (102, [102])], again), Follower()
        feed = PartitionFeed(
            PODS.resource,
            WHOLE.id,
            routing=routing,
            shards=KnownShards(lambda _: shard),
            follower=follower,
            patience_s=10.0,
            statistics=WatchStatistics(),
        )
        await feed.opened()
        await settled(1.0)
        assert shard.since[:2] == [None, 102]
        assert follower.told == [101, 102, 103]
        assert feed.clearance.fed == 103
        await feed.aclose()

    run_virtual(main())


def test_an_acknowledgement_waits_for_the_last_version_before_it():
    clearance = Clearance(Version(6))
    clearance.acknowledged(Version(10), Version(7))
    assert (clearance.cleared, clearance.promised) == (6, 10)
    clearance.told(Version(7))
    assert (clearance.cleared, clearance.promised) == (10, 10)


# -- the watchers of a lane ----------------------------------------------------------------------------------


class Watcher(Reader):
    """A member of an audience."""

    def __init__(self, audience: Audience, **positions: int) -> None:
        super().__init__()
        self.ends: list[object] = []
        self.member = Member(Selector(), form(), self.write, self.ends.append, bookmarks=True)
        audience.collect(self.member)
        self.member.positions = {
            {"a": IN_A.id, "b": NOT_A.id}[name]: Version(at) for name, at in positions.items()
        }


def given_out(*versions: int, size: int = 0) -> list[LiveEvent]:
    return [LiveEvent(IN_A.id, event(version, size=size)) for version in versions]


def test_a_bookmark_for_who_is_ahead_of_the_feeds_says_what_it_was_told_of_every_partition():
    audience = Audience(PODS, WatchStatistics())
    ahead, collecting = Watcher(audience, a=107, b=104), Watcher(audience, a=107, b=104)
    audience.go_live(ahead.member)
    audience.settle({IN_A.id: Version(103), NOT_A.id: Version(102)}, None)
    audience.bookmark(Version(102))
    assert ahead.told == ["BOOKMARK 104"]
    assert collecting.told == []
    audience.bookmark(Version(106))
    assert ahead.told[1:] == ["BOOKMARK 106"]


def test_who_was_told_an_event_in_its_replay_does_not_get_it_from_the_feed():
    audience = Audience(PODS, WatchStatistics())
    watcher = Watcher(audience, a=105, b=100)
    audience.go_live(watcher.member)
    audience.settle({IN_A.id: Version(104), NOT_A.id: Version(100)}, None)
    assert audience.unsettled, "105 is still to come"
    audience.deliver(given_out(105, 106))
    assert watcher.told == ["MODIFIED a/one 106"]
    audience.settle({IN_A.id: Version(105), NOT_A.id: Version(100)}, Version(105))
    assert audience.unsettled, "105 is held back"
    audience.settle({IN_A.id: Version(106), NOT_A.id: Version(100)}, None)
    assert not audience.unsettled
    audience.deliver(given_out(107))
    assert watcher.told[1:] == ["MODIFIED a/one 107"]


def test_what_is_kept_for_who_is_told_the_past_is_bounded_in_bytes():
    audience = Audience(PODS, WatchStatistics())
    watcher = Watcher(audience, a=100)
    half = COLLECTED_BYTES // 2
    audience.deliver(given_out(101, size=half))
    taken = audience.take(watcher.member)
    assert taken is not None
    assert [sight.event.version for sight in taken] == [101]
    audience.deliver(given_out(102, size=half))
    audience.deliver(given_out(103, size=half))
    assert audience.take(watcher.member) is None
    audience.deliver(given_out(104))
    assert audience.take(watcher.member) is None, "nothing is kept behind a gap"
    audience.collect(watcher.member)
    audience.deliver(given_out(105))
    assert len(audience.take(watcher.member) or ()) == 1
