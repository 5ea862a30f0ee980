"""Feeds against history: whoever begins anywhere is told every event after it, once, in order, and nothing is claimed
that was not told."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.clock import run_virtual
from support.observed import CONFIG_MAPS, observed

from shoal.shards.feeds import PartitionFeeds
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import Epoch, Partition
from shoal.shards.model.queries import FeedQuery
from shoal.shards.model.versions import Version
from shoal.shards.settings import FeedSettings, StoreSettings
from shoal.shards.store.history import Event
from shoal.shards.store.objects import PartitionStore

NAMES = st.sampled_from(["a", "b", "c", "d"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), NAMES, st.integers(1, 3)),
        st.tuples(st.just("delete"), NAMES, st.integers(1, 3)),
        st.tuples(st.just("bookmark"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("relist"), NAMES, st.integers(1, 5)),
        st.tuples(st.just("turn"), st.just(""), st.integers(1, 2)),
        st.tuples(st.just("begin"), st.sampled_from(["now", "past", "ahead"]), st.integers(0, 4)),
    ),
    max_size=40,
)


class Reading:
    """One reader: what it was told, checked as it comes."""

    def __init__(self, store: PartitionStore, feeds: PartitionFeeds, since: int | None) -> None:
        self.since = since
        self.ahead = since is not None and since > store.frontier
        self.told: list[tuple[int, str, str]] = []
        self.frontier = 0
        self.task = asyncio.ensure_future(self._read(store, feeds))

    async def _read(self, store: PartitionStore, feeds: PartitionFeeds) -> None:
        query = FeedQuery(
            partition=store.partition.id,
            epoch=Epoch(1),
            since=None if self.since is None else Version(self.since),
        )
        async for batch in feeds.read(query):
            if self.since is None:
                self.since = batch.frontier
            assert batch.frontier >= self.frontier
            self.frontier = batch.frontier
            for event in batch.events:
                assert len(batch.events) <= 3
                self.told.append((event.version, event.type, event.key))


class Everything:
    """Every event of the store, as a second recorder would have it."""

    def __init__(self, store: PartitionStore) -> None:
        self.events: list[tuple[int, str, str]] = []
        append = store._history.append

        def noted(*what: Any, **more: Any) -> Event:
            event = append(*what, **more)
            kind = "ADDED" if event.before is None else "DELETED" if event.after is None else "MODIFIED"
            self.events.append((event.version, kind, event.key))
            return event

        store._history.append = noted  # type: ignore[method-assign]


async def play(steps: list[tuple[str, str, int]]) -> None:
    store = PartitionStore(
        Partition(CONFIG_MAPS.resource),
        CONFIG_MAPS,
        settings=StoreSettings(settling_s=0.0),
        clock=asyncio.get_running_loop().time,
    )
    feeds = PartitionFeeds(store, FeedSettings(batch_events=3))
    store.subscribe(feeds.moved)
    store.begin()
    store.finish(Version(10))
    everything = Everything(store)
    version, readings = 10, []
    for what, name, number in steps:
        match what:
            case "change" | "delete":
                version += number
                store.apply(observed(name, version, deleted=what == "delete"))
            case "bookmark":
                version += number
                store.advance(Version(version))
            case "relist":
                store.begin()
                store.put(observed(name, version + 1))
                version += number
                store.finish(Version(version))
            case "turn":
                for _ in range(number):
                    await asyncio.sleep(0)
            case "begin":
                since = {"now": None, "past": _resumable(store, number), "ahead": version + number}[name]
                readings.append(Reading(store, feeds, since))
                await asyncio.sleep(0)
    await asyncio.sleep(1)
    for reading in readings:
        if reading.ahead:
            # Nothing is claimed that is not reached: it has to come again.
            assert isinstance(reading.task.exception(), NotReady)
            continue
        assert not reading.task.done(), reading.task
        assert reading.since is not None
        assert reading.told == [event for event in everything.events if event[0] > reading.since]
        assert reading.frontier == version
        reading.task.cancel()
    await asyncio.gather(*(reading.task for reading in readings), return_exceptions=True)
    assert feeds.readers == 0
    assert store.recorder is None


def _resumable(store: PartitionStore, back: int) -> int:
    """A version not too far back that history can be told from."""
    for since in range(int(store.frontier) - back, int(store.frontier)):
        if since >= store.oldest_version and not any(
            low < since < high for low, high in store._history._gaps
        ):
            return since
    return int(store.frontier)


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_every_event_once_and_in_order(steps: list[tuple[str, str, int]]) -> None:
    run_virtual(play(steps))
