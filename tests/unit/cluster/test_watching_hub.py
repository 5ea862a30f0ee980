"""What a hub makes of feeds that break in the middle, of a past that is lost, and of time that passes."""

from __future__ import annotations

import asyncio

import pytest
from support.clock import run_virtual
from support.watched_shards import Way, Written
from support.watching import IN_A, NOT_A, WHOLE, Reader, gateway, settled

from shoal.cluster.watching.feeds import Ahead
from shoal.cluster.watching.pace import PAUSE_MAX_S, pause_s
from shoal.shards.model.errors import Expired, NotReady
from shoal.shards.model.queries import ChangesPage, FeedBatch, FeedEvent
from shoal.shards.settings import FeedSettings


class Costly(Reader):
    """Every write takes time."""

    def __init__(self, cost_s):
        super().__init__()
        self.cost_s = cost_s

    def write(self, frame):
        asyncio.get_running_loop().now += self.cost_s
        return super().write(frame)


# -- a past that is lost -------------------------------------------------------------------------------------


def test_versions_that_went_back_at_one_shard_end_all_watches_of_the_resource():
    async def main():
        written = Written(IN_A, NOT_A)
        async with gateway(written) as gate:
            everything = await gate.watch(resourceVersion=100, reader=Costly(0.01))
            of_a = await gate.watch("a", resourceVersion=100)
            of_b = await gate.watch("b", resourceVersion=100)
            written.put("a", "one")
            lost = written.parts[NOT_A.id]
            while not everything.told:
                await asyncio.sleep(0.0001)
            assert lost.overtaken == [101]
            written.put("a", "one")  # which waits for a pause
            for _ in range(20):
                await asyncio.sleep(0)
            lost.list((), 50)
            await settled()
            assert everything.told == ["ADDED a/one 101", "ERROR 410"]
            assert of_a.told == ["ADDED a/one 101", "ERROR 410"]
            assert of_b.told == ["ERROR 410"]
            assert all(task.done() for task in gate.running)
            assert gate.router.statistics.expired == 3
            # Nobody is overtaken any more by a version from before.
            assert lost.overtaken == [101]
            written.parts[IN_A.id].list((), 50)
            written.revision = 50
            again = await gate.watch(resourceVersion=50)
            written.put("b", "two")
            await settled()
            assert again.told == ["ADDED b/two 51"]
            assert written.parts[IN_A.id].overtaken[-1] == 51

    run_virtual(main())


def test_another_end_of_a_feed_concerns_only_those_who_watch_its_partition():
    async def main():
        written = Written(IN_A, NOT_A)
        async with gateway(written) as gate:
            everything = await gate.watch(resourceVersion=100)
            of_a = await gate.watch("a", resourceVersion=100)
            written.parts[NOT_A.id].feeds.end(lambda: Expired("read too slowly"))
            await settled()
            assert everything.told == ["ERROR 410"]
            written.put("a", "one")
            await settled()
            assert of_a.told == ["ADDED a/one 101"]

    run_virtual(main())


# -- feeds that break within a version -----------------------------------------------------------------------


def event(version, name="one"):
    return FeedEvent(version, "MODIFIED", f"a/{name}", "", b"{}", b"", ())


def batch(frontier, *events):
    return FeedBatch(NOT_A.id, frontier, list(events))


def test_what_is_ahead_of_the_frontier_is_left_out_once_when_it_is_told_again():
    ahead = Ahead()
    assert ahead.new(batch(5, event(4), event(5))).events == [event(4), event(5)]
    assert ahead.events == []
    ahead.new(batch(5, event(7, "x"), event(7, "y")))
    assert ahead.events == [event(7, "x"), event(7, "y")]
    # Within one feed nothing is told twice: the object has changed twice.
    assert ahead.new(batch(5, event(7, "x"))).events == [event(7, "x")]
    ahead.reopened()
    assert ahead.new(batch(5, event(6), event(7, "x"))).events == [event(6)]
    assert [one.version for one in ahead.events] == [6, 7, 7, 7]
    assert ahead.new(batch(7, event(7, "y"), event(7, "z"))).events == [event(7, "z")]
    assert ahead.events == []
    assert ahead.new(batch(8, event(8, "x"))).events == [event(8, "x")]


class Halved(Way):
    """Its feed breaks after the first batch that is ahead of its frontier; then it is away while `hidden`."""

    halved = False
    hidden = False
    stale: int | None = None
    """Changes are answered by a shard that has only reached this version, without any."""

    async def feed(self, query):
        if self.hidden:
            raise NotReady("away")
        async for told in super().feed(query):
            yield told
            if told.events and told.events[-1].version > told.frontier and not self.halved:
                self.halved = self.hidden = True
                raise NotReady("the connection broke")

    async def changes(self, query):
        if self.stale is None or query.partition != NOT_A.id:
            async for page in super().changes(query):
                yield page
        else:
            yield ChangesPage(frontier=self.stale, changes=[], more=False)


def halved(written):
    """The way to the partition that lists anew."""
    ways = {}

    def way(shard, part):
        part.feeds._settings = FeedSettings(batch_events=2)
        ways[part.partition.id] = Halved(shard, part)
        return ways[part.partition.id]

    directory = written.directory
    written.directory = lambda _: directory(way)
    return ways


NAMES = ("p", "q", "r", "s", "t")
GONE = [f"DELETED b/{name} 199" for name in NAMES]
"""Found out by a list at version 200, which may not be the version of what it does not tell."""


@pytest.mark.parametrize("parts", [(WHOLE,), (NOT_A,)])
def test_a_feed_that_breaks_within_a_version_tells_each_event_once(parts):
    async def main():
        written = Written(*parts)
        for name in NAMES:
            written.put("b", name)
        ways = halved(written)
        async with gateway(written) as gate:
            reader = await gate.watch(resourceVersion=105)
            (part,) = written.parts.values()
            part.list((), 200)
            await settled()
            way = ways[part.partition.id]
            assert way.halved
            assert reader.told == []  # held back: the version is not complete
            way.hidden = False
            await settled(5.0)
            assert sorted(reader.told) == GONE

    run_virtual(main())


@pytest.mark.parametrize("namespace", [None, "b"])
def test_who_joins_while_a_feed_is_broken_within_a_version_misses_nothing(namespace):
    async def main():
        written = Written(IN_A, NOT_A)
        for name in NAMES:
            written.put("b", name)
        ways = halved(written)
        async with gateway(written) as gate:
            everything = await gate.watch(resourceVersion=105)
            opened = await gate.open(namespace, resourceVersion=105)
            written.revision = 204
            written.put(
                "a", "one"
            )  # for which the other partition is overtaken: its events are shown as they come
            await settled()
            written.parts[NOT_A.id].list((), 200)
            await settled()
            way = ways[NOT_A.id]
            assert way.halved
            assert everything.told == ["ADDED a/one 205", *GONE[:2]]
            # Meanwhile another shard serves the partition, and is behind.
            way.stale = 105
            reader = Reader()
            gate.running.append(asyncio.create_task(opened.run(reader)))
            await settled()
            way.hidden = False
            await settled(5.0)
            assert everything.told == ["ADDED a/one 205", *GONE]
            assert sorted(line for line in reader.told if "b/" in line) == GONE

    run_virtual(main())


# -- time ----------------------------------------------------------------------------------------------------


def test_a_pause_is_as_long_as_what_was_before_it_and_bounded():
    assert pause_s(0.0) == 0.0
    assert pause_s(-1.0) == 0.0
    assert pause_s(0.004) == 0.004
    assert pause_s(3.0) == PAUSE_MAX_S


def test_events_share_writes_while_writing_takes_long():
    async def main():
        written = Written(WHOLE)
        async with gateway(written) as gate:
            cheap, costly = Reader(), Costly(0.004)
            await gate.watch(resourceVersion=100, reader=cheap)
            await gate.watch(resourceVersion=100, reader=costly)
            for _ in range(3):
                written.put("a", "one")
                await settled(0.001)
            # The first at once, the others after a pause of 4 ms.
            assert [frame.events for frame in costly.frames] == [1]
            await settled()
            assert [frame.events for frame in costly.frames] == [1, 2]
            assert cheap.told == costly.told == [
                "ADDED a/one 101", "MODIFIED a/one 102", "MODIFIED a/one 103"
            ]  # fmt: skip

    run_virtual(main())


def test_events_are_written_at_once_while_writing_takes_no_time():
    async def main():
        written = Written(WHOLE)
        loop = asyncio.get_running_loop()
        async with gateway(written) as gate:
            reader = await gate.watch(resourceVersion=100)
            began = loop.time()
            for number in range(3):
                written.put("a", "one")
                while len(reader.frames) <= number:
                    await asyncio.sleep(0)
            assert loop.time() == began

    run_virtual(main())


def test_what_waits_for_a_pause_is_given_out_before_watches_end():
    async def main():
        for ending in ("router", "feed"):
            written = Written(WHOLE)
            async with gateway(written) as gate:
                reader = Costly(0.01)
                await gate.watch(resourceVersion=100, reader=reader)
                written.put("a", "one")
                await settled(0.0001)
                written.put("a", "one")
                for _ in range(20):
                    await asyncio.sleep(0)
                assert reader.told == ["ADDED a/one 101"]
                if ending == "router":
                    await gate.router.aclose()
                    expected = []
                else:
                    written.parts[WHOLE.id].feeds.end(lambda: Expired("read too slowly"))
                    for _ in range(20):
                        await asyncio.sleep(0)
                    expected = ["ERROR 410"]
                assert reader.told == ["ADDED a/one 101", "MODIFIED a/one 102", *expected]

    run_virtual(main())


def test_much_is_given_out_without_waiting_for_a_pause(monkeypatch):
    async def main():
        monkeypatch.setattr("shoal.cluster.watching.hub.FLUSH_BYTES", 1)
        written = Written(WHOLE)
        async with gateway(written) as gate:
            reader = Costly(0.01)
            await gate.watch(resourceVersion=100, reader=reader)
            for number in range(2):
                written.put("a", "one")
                for _ in range(20):
                    await asyncio.sleep(0)
                assert len(reader.frames) == number + 1

    run_virtual(main())
