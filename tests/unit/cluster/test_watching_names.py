"""Watches over ranges of uid, where the name of an object that is deleted and made again moves to another partition."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import run_virtual
from support.watched_shards import PODS, Way, Written
from support.watching import POD, STREAMING, gateway, settled

from shoal.cluster.watching import replay
from shoal.cluster.watching.clearing import REACH_AFTER_S
from shoal.cluster.watching.names import siblings_of
from shoal.coordinator.cuts import WHOLE, even_bounds
from shoal.shards.feeds import PartitionFeeds
from shoal.shards.model.covers import share_names
from shoal.shards.model.partitions import HASH_END, HashRange, Partition, fnv1a64
from shoal.shards.model.queries import CountQuery, OvertakeQuery, PageQuery
from shoal.shards.settings import FeedSettings, StoreSettings
from shoal.shards.store.objects import PartitionStore

FIRST, SECOND = fnv1a64("uid-1"), fnv1a64("uid-2")
MIDDLE = max(FIRST, SECOND)
LOW, HIGH = Partition(POD, HashRange("uid", 0, MIDDLE)), Partition(POD, HashRange("uid", MIDDLE, HASH_END))
OLD, NEW = (LOW, HIGH) if SECOND == MIDDLE else (HIGH, LOW)
"""Where the first object that is written goes, and where the second one."""


def asked(gate, partition, kind):
    return [call for call in gate.ways[partition.id].calls if isinstance(call, kind)]


def fresh(part, states, version):
    """A shard that has listed the partition a moment ago."""
    part.store = PartitionStore(
        part.partition,
        PODS,
        settings=StoreSettings(settling_s=1000.0),
        clock=asyncio.get_running_loop().time,
    )
    part.feeds = PartitionFeeds(part.store, FeedSettings())
    part.store.subscribe(part._moved)
    part.list(states, version)


def again(written, *, heard=True, **labels):
    """a/x is deleted and made again; the deletion is heard of or not."""
    written.delete("a", "x", heard=heard)
    written.put("a", "x", **labels)


def told(before, write, **parameters):
    """What a watch is told, live."""

    async def main():
        written = Written(OLD, NEW)
        before(written)
        for part in written.parts.values():
            part.store.advance(written.revision)
        async with gateway(written) as gate:
            reader = await gate.watch(resourceVersion=written.revision, **parameters)
            await write(written, gate, reader)
            return reader.told

    return run_virtual(main())


# -- live --------------------------------------------------------------------------------------------------------


def test_the_new_object_is_told_after_the_deletion_of_the_old_one_however_late_that_is_heard():
    async def write(written, gate, reader):
        again(written, heard=False)
        written.parts[NEW.id].hear()
        await settled(1.0)
        assert reader.told == []
        written.parts[OLD.id].hear()
        written.parts[OLD.id].store.advance(103)
        await settled(1.0)

    lines = told(lambda written: written.put("a", "x"), write)
    assert lines == ["DELETED a/x 102", "ADDED a/x 103"]


def test_a_deletion_that_only_a_list_revealed_is_told_before_the_new_object_too():
    """Nobody knows when it was; the list is from after the creation."""

    async def write(written, gate, reader):
        old = written.parts[OLD.id]
        again(written, heard=False)
        written.parts[NEW.id].hear()
        written.put("a", "x", heard=False)
        written.parts[NEW.id].hear()
        await settled(1.0)
        old.to_hear.clear()
        old.list((), written.revision)
        await settled(1.0)

    lines = told(lambda written: written.put("a", "x"), write)
    assert lines == ["DELETED a/x 102", "ADDED a/x 103", "MODIFIED a/x 104"]


def test_ranges_of_uid_are_not_overtaken_but_asked_how_far_they_are():
    async def write(written, gate, reader):
        written.put("a", "y")
        await settled(REACH_AFTER_S + 0.05)
        assert reader.told == []
        assert not asked(gate, OLD, OvertakeQuery)
        assert [query.not_older_than for query in asked(gate, OLD, CountQuery)] == [102]
        assert not asked(gate, NEW, CountQuery)
        written.parts[OLD.id].store.advance(102)  # as the proof of its frontier does
        await settled()
        assert reader.told == ["ADDED a/y 102"]
        await settled(5.0)
        assert len(asked(gate, OLD, CountQuery)) == 1
        assert gate.router.statistics.proofs == 1

    told(lambda written: written.put("a", "x"), write)


def test_a_range_whose_feed_tells_in_time_is_not_asked():
    async def write(written, gate, reader):
        written.put("a", "y")
        await settled(REACH_AFTER_S / 2)
        written.put("a", "x")
        await settled(REACH_AFTER_S / 4)
        assert reader.told[0] == "ADDED a/y 102"
        written.parts[NEW.id].store.advance(written.revision)
        await settled(1.0)
        assert not asked(gate, OLD, CountQuery)
        assert not asked(gate, NEW, CountQuery)
        assert reader.told == ["ADDED a/y 102", "MODIFIED a/x 103"]

    told(lambda written: written.put("a", "x"), write)


def test_what_is_no_range_of_uid_is_overtaken_beside_them():
    async def main():
        cut = WHOLE.split_namespace("a", even_bounds(2))
        *ranges, rest = cut.partitions(POD)
        written = Written(*ranges, rest)
        async with gateway(written) as gate:
            reader = await gate.watch(resourceVersion=100)
            written.put("a", "x")
            for partition in ranges:
                written.parts[partition.id].store.advance(101)
            await settled()
            assert reader.told == ["ADDED a/x 101"]
            assert [query.version for query in asked(gate, rest, OvertakeQuery)] == [101]
            written.put("b", "x")
            for partition in ranges:
                assert not asked(gate, partition, OvertakeQuery)
                written.parts[partition.id].store.advance(102)
            await settled()
            assert reader.told == ["ADDED a/x 101", "ADDED b/x 102"]

    run_virtual(main())


def test_a_range_that_never_gets_there_ends_its_watches_in_order():
    class Behind(Way):
        async def count(self, query):
            self.calls.append(query)
            await asyncio.sleep(query.wait_s)
            return await super().count(query)

    async def main():
        written = Written(OLD, NEW)
        written.put("a", "x")
        directory = written.directory
        written.directory = lambda way=None: directory(Behind)
        async with gateway(written, patience_s=5.0) as gate:
            reader = await gate.watch(resourceVersion=101)
            written.put("a", "y")
            await settled(30.0)
            assert gate.running[0].done()
            assert reader.told == []
            assert gate.router.statistics.lost == 1

    run_virtual(main())


# -- the past ----------------------------------------------------------------------------------------------------


def resumed(write, version, **parameters):
    """What a watch from that version is told of what was written before."""

    async def main():
        written = Written(OLD, NEW)
        write(written)
        async with gateway(written) as gate:
            reader = await gate.watch(resourceVersion=version, **parameters)
            for part in written.parts.values():
                part.hear()
                part.store.advance(written.revision)
            await settled(5.0)
            return reader.told

    return run_virtual(main())


def test_of_two_states_of_one_name_the_newer_is_told():
    def write(written):
        written.put("a", "x")
        again(written)

    assert resumed(write, 100) == ["ADDED a/x 103"]
    assert resumed(write, 101) == ["ADDED a/x 103"]
    assert resumed(write, 102) == ["ADDED a/x 103"]
    assert resumed(write, 103) == []


def test_a_deletion_that_is_heard_of_while_the_past_is_told_does_not_take_the_new_object_back():
    def write(written):
        written.put("a", "x")
        again(written, heard=False)

    assert resumed(write, 101) == ["ADDED a/x 103"]


def test_a_name_that_comes_and_goes_in_both_ends_as_it_is():
    def write(written):
        written.put("a", "x")
        again(written)
        written.delete("a", "x")

    assert resumed(write, 101) == ["DELETED a/x 104"]


def test_a_deletion_is_told_if_the_new_object_is_not_selected():
    def write(written):
        written.put("a", "x", tier="front")
        again(written, tier="back")

    assert resumed(write, 101, labelSelector="tier=front") == ["DELETED a/x 102"]


@pytest.fixture
def one_a_page(monkeypatch):
    """Each page of changes has one of them."""
    monkeypatch.setattr(replay, "PAGES_BYTES", 1)
    monkeypatch.setattr(replay, "PAGE_BYTES_MIN", 1)


def test_answers_of_many_pages_are_looked_through_before_anything_is_told(one_a_page):
    def write(written):
        written.put("a", "x")
        written.put("a", "y")
        for number in range(5):
            written.put("a", f"z-{number}")
        written.delete("a", "x")
        written.delete("a", "y")
        for number in range(5):
            written.put("a", f"z-{number}")
        written.put("a", "y")
        written.put("a", "x")

    lines = resumed(write, 107)
    assert len(lines) == len({line.split()[1] for line in lines})
    assert [line for line in lines if "x" in line or "y" in line] == ["ADDED a/y 115", "ADDED a/x 116"]


def test_a_list_that_has_the_newer_object_is_not_followed_by_the_deletion_of_the_older_one():
    """The lower range is behind when it is listed; the watch goes on from its state."""

    async def main():
        written = Written(OLD, NEW)
        written.put("a", "x")
        again(written, heard=False)
        async with gateway(written) as gate:
            reader = await gate.watch(**STREAMING)
            written.parts[OLD.id].hear()
            written.parts[OLD.id].store.advance(written.revision)
            await settled(5.0)
            assert reader.told[0] == "ADDED a/x 103"
            assert not [line for line in reader.told if line.startswith("DELETED")]

    run_virtual(main())


@pytest.mark.parametrize("forgotten", [False, True], ids=["remembered", "forgotten"])
@pytest.mark.parametrize("goes", [False, True], ids=["is there", "has gone"])
def test_a_repeated_deletion_does_not_take_back_what_was_made_again(goes, forgotten):
    """The range was listed a moment ago, so its shard repeats all that came since; and perhaps the other one was,
    too."""

    async def main():
        written = Written(OLD, NEW)
        old, new = written.parts[OLD.id], written.parts[NEW.id]
        written.put("a", "x", tier="front")
        fresh(old, written.objects.values(), 101)
        again(written, tier="back")
        if forgotten:
            fresh(new, written.objects.values(), 103)
        if goes:
            written.delete("a", "x")
        for part in (old, new):
            part.store.advance(written.revision)
        async with gateway(written) as gate:
            everything = await gate.watch(resourceVersion=written.revision)
            back = await gate.watch(resourceVersion=written.revision, labelSelector="tier=back")
            front = await gate.watch(resourceVersion=written.revision, labelSelector="tier=front")
            await settled(1.0)
            repeated = ["DELETED a/x 104"] if goes and forgotten else []
            assert everything.told == back.told == repeated
            assert front.told == ["DELETED a/x 102"], "it may have been missed, and nothing newer is seen"
            assert {query.fields for query in asked(gate, NEW, PageQuery)} == (
                {"metadata.name=x"} if forgotten else set()
            )

    run_virtual(main())


# -- who has siblings --------------------------------------------------------------------------------------------

bounds = st.lists(st.integers(1, HASH_END - 1), max_size=3, unique=True).map(sorted)


@given(bounds, bounds, st.sampled_from(("uid", "namespace")))
def test_siblings_are_those_that_share_names(of_a, of_rest, field):
    partitions = WHOLE.split_namespace("a", of_a).split_rest(field, of_rest).partitions(POD)
    found = siblings_of(partitions)
    for one in partitions:
        others = {other.id for other in partitions if other != one and share_names(one.cover, other.cover)}
        assert found.get(one.id, frozenset()) == others


def test_siblings_of_unlike_ranges_are_found_too():
    low, middle, high = 0, HASH_END // 2, HASH_END
    covers = [
        HashRange("uid", low, middle, "a"),
        HashRange("uid", low, middle, None, ("a",)),
        HashRange("uid", middle, high),
    ]
    one, other, both = (Partition(POD, cover).id for cover in covers)
    found = siblings_of([Partition(POD, cover) for cover in covers])
    assert found == {one: {both}, other: {both}, both: {one, other}}
