"""A partition passes from shard to shard: step by step as whoever moves it has them do, and what readers see of it."""

from __future__ import annotations

import asyncio

import pytest
from support.moving import WHOLE, A, B, Bench, on, part

from shoal.cluster.simulator.faults import Fault
from shoal.shards.model.errors import Expired, NotServed, TooLargeVersion
from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace
from shoal.shards.model.transfers import HandedOver, Taken
from shoal.shards.model.versions import UNKNOWN, Version

HOT = part(OneNamespace("hot"))
REST = part(ExceptNamespaces(("hot",)))


async def moved(bench: Bench) -> HandedOver:
    """The whole partition from A to B; where A stood."""
    held = await bench.receive(B, WHOLE, (A, WHOLE))
    assert held.state == "synced", held.message
    (stood,) = (await bench.hand_over(A, WHOLE)).values()
    await bench.take_over(B, WHOLE, stood)
    assert bench.statistics(B).frontier >= stood.frontier
    return stood


def test_a_move_under_changes_loses_nothing_doubles_nothing_and_lists_nothing() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled(30)
        began = bench.revision
        churn = asyncio.create_task(bench.churned())
        await asyncio.sleep(3)
        feed = bench.feed(A)
        told = [(await anext(feed)).frontier]
        stood = await moved(bench)
        while told[-1] < stood.frontier:
            told.append((await anext(feed)).frontier)
        assert told[-1] == stood.frontier, "nothing newer was told here"
        on_with = bench.feed(B, since=stood.frontier)
        events = []
        async with asyncio.timeout(5):
            while len(events) < 20:
                events += (await anext(on_with)).events
        churn.cancel()
        await bench.release(A, WHOLE)
        with pytest.raises(NotServed):
            await anext(feed)
        await asyncio.sleep(1)
        versions = [event.version for event in events]
        assert versions == sorted(set(versions))
        assert versions[0] > stood.frontier
        changes = await bench.changes(B, began)
        assert [version for _, version in changes] == list(range(began + 1, bench.revision + 1))
        bench.sound((B, WHOLE))
        assert bench.lists == 1
        await on_with.aclose()

    on(main)


def test_nobody_reads_backwards_when_the_successor_was_behind() -> None:
    """What proves the frontier of an idle partition comes to one of two shards first."""

    async def main(bench: Bench) -> None:
        await bench.filled(3)
        await bench.receive(B, WHOLE, (A, WHOLE))
        newer = bench.other()
        assert await bench.get(A, "default/map-001", not_older_than=newer) is not None
        assert bench.statistics(B).frontier < newer
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        assert stood.frontier >= newer
        await bench.take_over(B, WHOLE, stood)
        assert bench.statistics(B).frontier >= newer

    on(main)


def test_an_idle_part_of_a_busy_partition_hears_from_it_how_far_it_is() -> None:
    """Its own watch brings nothing, and a proof takes a second in which nobody follows."""

    async def main(bench: Bench) -> None:
        await bench.filled(10)
        await bench.receive(B, HOT, (A, WHOLE))
        await bench.receive(A, REST, (A, WHOLE))
        for number in range(5):
            newest = bench.create(f"busy-{number}")
        bench.create("kept", "hot")
        await asyncio.sleep(1)
        bench.app.faults.arm(Fault(kind="stall", namespace="hot", seconds=30))
        bench.create("a", "hot")
        bench.change("kept", "hot", color="red")
        gone = bench.delete("a", "hot")
        newest = bench.create("more")
        await asyncio.sleep(1)
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        assert stood.frontier == newest > gone
        began = asyncio.get_running_loop().time()
        await bench.take_over(B, HOT, stood)
        await bench.take_over(A, REST, stood)
        assert asyncio.get_running_loop().time() - began < 0.05
        for name, partition in ((B, HOT), (A, REST)):
            held = bench.statistics(name, partition)
            assert (held.frontier, held.proofs) == (newest, {})
        bench.sound((B, HOT), (A, REST))
        await asyncio.sleep(60)
        bench.create("b", "hot")
        await asyncio.sleep(1)
        bench.sound((B, HOT))
        assert await bench.changes(B, newest, HOT) == [("hot/b", bench.revision)]

    on(main)


def test_a_source_that_is_gone_by_then_is_not_needed() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled(3)
        await bench.receive(B, HOT, (A, WHOLE))
        newest = bench.create("busy")
        await asyncio.sleep(1)
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        assert stood.frontier == newest
        bench.away.add(A)
        await bench.take_over(B, HOT, stood)
        held = bench.statistics(B, HOT)
        assert (held.frontier, held.proofs) == (newest, {"proved": 1})

    on(main)


def test_who_cannot_get_as_far_says_so_and_the_old_one_goes_on() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled(3)
        await bench.receive(B, WHOLE, (A, WHOLE))
        version = bench.create("a")
        await asyncio.sleep(1)
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        bench.connections[B].lists.clear()
        wanted = HandedOver(stood.shown, Version(version + 100))
        with pytest.raises(TooLargeVersion):
            await bench.take_over(B, WHOLE, wanted)
        await bench.release(B, WHOLE)
        await bench.follow(A)
        later = bench.create("b")
        await asyncio.sleep(1)
        assert bench.statistics(A).frontier == later
        assert await bench.overtake(A, later) == later
        bench.sound((A, WHOLE))
        assert bench.lists == 1

    on(main)


def test_what_came_to_both_while_more_was_shown_is_told_again_by_the_new_one() -> None:
    """The leave was given by the old shard, which alone knew that the event was late."""

    async def main(bench: Bench) -> None:
        await bench.follow(A, HOT)
        await asyncio.sleep(20)
        await bench.overtake(A, bench.revision, HOT)
        await asyncio.sleep(5)
        held = await bench.receive(B, HOT, (A, HOT))
        bench.app.faults.arm(Fault(kind="stall", resource="configmaps", seconds=2, count=2))
        late = bench.create("late", "hot")
        shown = bench.other()
        assert await bench.overtake(A, shown, HOT) < late
        await asyncio.sleep(3)
        (stood,) = (await bench.hand_over(A, HOT)).values()
        assert stood == HandedOver(shown, late)
        await bench.take_over(B, HOT, stood)
        assert held.state == "synced"
        told = await bench.changes(B, shown, HOT, exact=False)
        assert told == [("hot/late", late)]
        assert bench.statistics(B, HOT).late_events == 1
        newest = bench.create("later", "hot")
        await asyncio.sleep(1)
        assert await bench.changes(B, newest, HOT, exact=False) == []

    on(main)


def test_without_its_past_who_resumes_below_what_was_shown_lists_again() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A, HOT)
        await bench.follow(B, HOT)
        shown = Version(bench.revision + 10)
        await bench.overtake(A, shown, HOT)
        since = bench.statistics(B, HOT).frontier
        (stood,) = (await bench.hand_over(A, HOT)).values()
        await bench.take_over(B, HOT, stood)
        with pytest.raises(Expired):
            await bench.changes(B, since, HOT, exact=False)

    on(main)


def test_what_was_shown_after_the_capture_by_one_that_died_is_asked_of_the_api_server() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A, HOT)
        await asyncio.sleep(20)
        await bench.overtake(A, bench.revision, HOT)
        await asyncio.sleep(5)
        await bench.receive(B, HOT, (A, HOT))
        late = bench.create("late", "hot")
        shown = bench.other()
        await asyncio.sleep(1)
        await bench.shard(A).stop()
        await bench.shard(B).take_over({HOT.id: Taken(None, UNKNOWN)})
        assert await bench.changes(B, shown, HOT, exact=False) == [("hot/late", late)]
        assert bench.lists == 1

    on(main)


def test_a_partition_is_split_and_made_one_again() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled(20)
        began = bench.revision
        churn = asyncio.create_task(bench.churned())
        await asyncio.sleep(2)
        for name, partition in ((B, HOT), (A, REST)):
            assert (await bench.receive(name, partition, (A, WHOLE))).state == "synced"
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        await bench.take_over(B, HOT, stood)
        await bench.take_over(A, REST, stood)
        await bench.release(A, WHOLE)
        assert bench.holds(A) == [REST.id]
        await asyncio.sleep(2)
        told = [
            version
            for name, partition in ((B, HOT), (A, REST))
            for _, version in await bench.changes(name, began, partition)
        ]
        newest = min(bench.statistics(B, HOT).frontier, bench.statistics(A, REST).frontier)
        assert sorted(version for version in told if version <= newest) == list(range(began + 1, newest + 1))
        held = await bench.receive(A, WHOLE, (B, HOT), (A, REST), wait_s=4)
        assert held.state == "synced", held.message
        hot, rest = await bench.hand_over(B, HOT), await bench.hand_over(A, REST)
        await bench.take_over(A, WHOLE, *hot.values(), *rest.values())
        await bench.release(A, REST)
        await bench.release(B, HOT)
        await asyncio.sleep(2)
        churn.cancel()
        await asyncio.sleep(1)
        bench.sound((A, WHOLE))
        assert bench.holds(B) == []
        assert bench.lists == 1

    on(main)


def test_a_partition_goes_back_and_forth() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled(5)
        began = bench.revision
        churn = asyncio.create_task(bench.churned())
        names = [A, B]
        for _ in range(6):
            await asyncio.sleep(1)
            held = await bench.receive(names[1], WHOLE, (names[0], WHOLE))
            assert held.state == "synced"
            (stood,) = (await bench.hand_over(names[0], WHOLE)).values()
            await bench.take_over(names[1], WHOLE, stood)
            await bench.release(names[0], WHOLE)
            names.reverse()
        churn.cancel()
        await asyncio.sleep(1)
        bench.sound((names[0], WHOLE))
        changes = await bench.changes(names[0], began)
        assert [version for _, version in changes] == list(range(began + 1, bench.revision + 1))
        assert bench.lists == 1

    on(main)


def test_a_frozen_source_can_still_be_received_from() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled(5)
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        bench.create("later")
        held = await bench.receive(B, WHOLE, (A, WHOLE))
        assert (held.state, held.frontier) == ("synced", bench.revision)
        assert bench.statistics(A).frontier == stood.frontier
        bench.sound((B, WHOLE))

    on(main)


def test_a_profile_is_of_what_is_held() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled(5)
        bench.create("a", "hot")
        bench.change("a", "hot", color="red")
        await asyncio.sleep(1)
        found = await bench.shard(A).profile(WHOLE.id)
        assert [(load.name, load.objects, load.events) for load in found.namespaces] == [
            ("hot", 1, 2),
            ("default", 5, 0),
        ]
        assert (found.objects, sum(found.uid_weights)) == (6, 8)
        with pytest.raises(NotServed):
            await bench.shard(A).profile(HOT.id)

    on(main)
