"""Feeds of a partition, in virtual time: batches, replay and live without a seam, and how feeds end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.clock import run_virtual
from support.observed import CONFIG_MAPS, observed

from shoal.shards.feeds import PartitionFeeds
from shoal.shards.handle import FEED_BEAT_S
from shoal.shards.model.errors import Expired, NotReady, NotServed
from shoal.shards.model.partitions import Epoch, Partition
from shoal.shards.model.queries import FeedBatch, FeedQuery
from shoal.shards.model.versions import Version
from shoal.shards.settings import FeedSettings, StoreSettings
from shoal.shards.store.objects import PartitionStore


class Bench:
    """A store with a list of version 10, its feeds, and the loop's clock."""

    def __init__(self, **settings: Any) -> None:
        self.store = PartitionStore(
            Partition(CONFIG_MAPS.resource),
            CONFIG_MAPS,
            settings=StoreSettings(settling_s=0.0),
            clock=asyncio.get_running_loop().time,
        )
        self.feeds = PartitionFeeds(self.store, FeedSettings(**settings))
        self.store.subscribe(self.feeds.moved)
        self.list(version=10)

    def list(self, *listed: Any, version: int) -> None:
        self.store.begin()
        for observation in listed:
            self.store.put(observation)
        self.store.finish(Version(version))

    def apply(self, name: str, version: int, **more: Any) -> None:
        self.store.apply(observed(name, version, **more))

    def read(self, since: int | None = None) -> Any:
        query = FeedQuery(
            partition=self.store.partition.id,
            epoch=Epoch(1),
            since=None if since is None else Version(since),
        )
        return self.feeds.read(query)


def on(main: Callable[[Bench], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        await main(Bench(**settings))

    run_virtual(whole())


def versions(batch: FeedBatch) -> list[int]:
    return [event.version for event in batch.events]


async def soon(feed: Any) -> FeedBatch:
    """A batch that has to come before any beat."""
    async with asyncio.timeout(FEED_BEAT_S / 2):
        return await anext(feed)


def test_the_first_batch_says_where_the_feed_begins_and_beats_that_it_lives() -> None:
    async def main(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        feed = bench.read()
        first = await anext(feed)
        assert (first.frontier, first.events, loop.time()) == (10, [], 0.0)
        for number in (1, 2):
            beat = await anext(feed)
            assert (beat.frontier, beat.events) == (10, [])
            assert loop.time() == pytest.approx(number * FEED_BEAT_S)
            assert beat.age_s == pytest.approx(number * FEED_BEAT_S)

    on(main)


def test_events_of_one_turn_are_one_batch_and_the_same_for_all() -> None:
    async def main(bench: Bench) -> None:
        feeds = [bench.read() for _ in range(3)]
        for feed in feeds:
            await anext(feed)
        for version in (11, 12, 13):
            bench.apply("a", version)
        first, second, third = [await soon(feed) for feed in feeds]
        assert first is second is third
        assert (versions(first), first.frontier) == ([11, 12, 13], 13)
        assert [event.type for event in first.events] == ["ADDED", "MODIFIED", "MODIFIED"]
        bench.store.advance(Version(20))
        assert {(batch.frontier, len(batch.events)) for batch in [await soon(feed) for feed in feeds]} == {
            (20, 0)
        }

    on(main)


def test_bodies_and_states_before_are_those_a_selector_needs() -> None:
    async def main(bench: Bench) -> None:
        feed = bench.read()
        await anext(feed)
        bench.apply("a", 11, labels={"app": "web"})
        bench.apply("a", 12, labels={"app": "web"}, text="more")
        bench.apply("a", 13, labels={"app": "db"})
        bench.apply("a", 14, labels={"app": "db"}, uid="another")
        bench.apply("a", 15, deleted=True)
        events = (await soon(feed)).events
        assert [event.before is not None for event in events] == [False, False, True, True, False]
        assert [json.loads(event.body)["metadata"]["resourceVersion"] for event in events] == [
            "11", "12", "13", "14", "15",
        ]  # fmt: skip
        body, labels, fields = events[2].before or (b"", b"", ())
        assert json.loads(body)["metadata"]["resourceVersion"] == "13"
        assert (json.loads(body)["text"], labels, fields) == ("more", b'{"app":"web"}', ())
        assert (events[4].type, events[4].labels, events[4].uid) == ("DELETED", b'{"app":"db"}', "another")

    on(main)


def test_a_replay_goes_on_live_without_gap_or_double() -> None:
    async def main(bench: Bench) -> None:
        other = bench.read()
        await anext(other)
        bench.apply("a", 11)
        bench.apply("a", 12)
        feed = bench.read(since=11)
        # Applied and not handed out yet when the feed begins.
        seen = await soon(feed)
        assert (versions(seen), seen.frontier) == ([12], 12)
        bench.apply("a", 13)
        assert versions(await soon(feed)) == [13]
        assert versions(await soon(other)) == [11, 12]
        assert versions(await soon(other)) == [13]

    on(main, batch_events=2)


def test_no_feed_begins_beyond_the_frontier() -> None:
    """It would be silent, whatever happened, until there were as many versions again."""

    async def main(bench: Bench) -> None:
        feed = bench.read(since=13)
        with pytest.raises(NotReady, match="is at 10, not yet at 13"):
            await soon(feed)
        assert bench.feeds.readers == 0
        bench.apply("a", 13)
        bench.apply("b", 14)
        feed = bench.read(since=13)
        batch = await soon(feed)
        assert (versions(batch), batch.frontier) == ([14], 14)
        beat = await anext(feed)
        assert (beat.frontier, beat.events) == (14, [])

    on(main)


def test_what_a_list_changed_flows_into_feeds() -> None:
    async def main(bench: Bench) -> None:
        feed = bench.read()
        await anext(feed)
        bench.apply("a", 11)
        bench.apply("b", 12)
        bench.list(observed("a", 15), version=20)
        batch = await soon(feed)
        assert [(event.type, event.version) for event in batch.events] == [
            ("ADDED", 11),
            ("ADDED", 12),
            ("MODIFIED", 15),
            ("DELETED", 19),
        ]
        assert batch.frontier == 20

    on(main)


def test_a_batch_claims_no_version_of_which_something_is_left() -> None:
    async def main(bench: Bench) -> None:
        feed = bench.read()
        await anext(feed)
        for number in range(5):
            bench.apply(f"a{number}", 11 + number)
        bench.list(version=20)
        told, frontiers = [], []
        while len(told) < 10:
            batch = await soon(feed)
            assert len(batch.events) <= 2
            told += versions(batch)
            frontiers.append(int(batch.frontier))
        assert told == [11, 12, 13, 14, 15, 19, 19, 19, 19, 19]
        # Five deletions of one version: no batch but the last may claim it, or more.
        assert frontiers == [12, 14, 15, 15, 20]

    on(main, batch_events=2)


def test_whoever_is_too_slow_is_cut_off_and_nobody_else() -> None:
    async def main(bench: Bench) -> None:
        slow, quick = bench.read(), bench.read()
        await anext(slow)
        await anext(quick)
        seen = []
        for version in range(11, 40):
            bench.apply("a", version)
            seen += versions(await soon(quick))
        assert seen == list(range(11, 40))
        with pytest.raises(Expired, match="too slowly"):
            await anext(slow)
        assert (bench.feeds.cut_off, bench.feeds.readers) == (1, 1)

    on(main, queue_events=20)


def test_bytes_that_wait_count_as_well() -> None:
    async def main(bench: Bench) -> None:
        slow = bench.read()
        await anext(slow)
        for version in range(11, 40):
            bench.apply("a", version)
            await asyncio.sleep(0)
        with pytest.raises(Expired, match="too slowly"):
            await anext(slow)

    on(main, queue_bytes=2000)


def test_a_past_that_was_lost_ends_every_feed() -> None:
    async def main(bench: Bench) -> None:
        feed = bench.read()
        await anext(feed)
        bench.apply("a", 30)
        bench.list(version=25)
        with pytest.raises(Expired, match="lost its past"):
            await anext(feed)
        with pytest.raises(NotReady):
            await soon(bench.read(since=30))
        with pytest.raises(Expired):
            await anext(bench.read(since=24))

    on(main)


def test_a_correction_of_what_was_told_ends_every_feed() -> None:
    """Its version was claimed as complete: a reader that skips what it has been told would miss it."""

    async def main(bench: Bench) -> None:
        feed = bench.read()
        await anext(feed)
        bench.apply("a", 11)
        await soon(feed)
        bench.apply("a", 11, deleted=True)
        with pytest.raises(Expired, match="corrected"):
            await anext(feed)
        with pytest.raises(Expired):
            await anext(bench.read(since=11))

    on(main)


def test_a_release_ends_every_feed() -> None:
    async def main(bench: Bench) -> None:
        feed = bench.read()
        await anext(feed)
        waiting = asyncio.ensure_future(anext(feed))
        await asyncio.sleep(1)
        bench.feeds.end(lambda: NotServed("v1/configmaps", 3))
        with pytest.raises(NotServed):
            await waiting

    on(main)


def test_before_the_first_list_there_is_no_feed() -> None:
    async def main() -> None:
        store = PartitionStore(
            Partition(CONFIG_MAPS.resource), CONFIG_MAPS, settings=StoreSettings(), clock=lambda: 0.0
        )
        feeds = PartitionFeeds(store, FeedSettings())
        with pytest.raises(NotReady):
            await anext(feeds.read(FeedQuery(partition=store.partition.id, epoch=Epoch(1), since=Version(3))))
        assert store.recorder is None

    run_virtual(main())


def test_while_nobody_reads_nothing_is_kept() -> None:
    async def main(bench: Bench) -> None:
        feed = bench.read()
        await anext(feed)
        assert bench.store.recorder is bench.feeds
        await feed.aclose()
        assert (bench.store.recorder, bench.feeds.readers) == (None, 0)
        for version in range(11, 20):
            bench.apply("a", version)
        assert bench.feeds._gathered == []
        again = bench.read(since=15)
        assert versions(await soon(again)) == [16, 17, 18, 19]

    on(main)


def test_what_arrived_before_an_overtaking_is_fed_before_its_answer() -> None:
    async def main(bench: Bench) -> None:
        feed = bench.read()
        await anext(feed)
        bench.apply("a", 11)
        bench.feeds.flush()
        bench.store.overtake(Version(50))
        (reader,) = bench.feeds._readers
        assert [parcel.frontier for parcel in reader.parcels] == [11]
        bench.apply("a", 12)
        assert versions(await soon(feed)) == [11]
        assert versions(await soon(feed)) == [12]

    on(main)
