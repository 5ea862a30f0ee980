"""A partition that was handed over stands still, is read on, and follows again: when told to, or by itself."""

from __future__ import annotations

import asyncio

import pytest
from support.moving import WHOLE, A, B, Bench, on

from shoal.cluster.simulator.faults import Fault
from shoal.shards.freezing import ROUTES_S
from shoal.shards.model.errors import NotReady, NotServed, TooLargeVersion
from shoal.shards.model.partitions import Epoch
from shoal.shards.model.transfers import HandedOver, Taken
from shoal.shards.model.versions import UNKNOWN, Version

THAW_S = 15.0


def now() -> float:
    return asyncio.get_running_loop().time()


def test_it_says_how_far_it_is_and_applies_nothing_more_but_goes_on_answering() -> None:
    async def main(bench: Bench) -> None:
        version = bench.create("a")
        await bench.follow(A)
        await bench.overtake(A, Version(version + 40))
        stood = await bench.hand_over(A, WHOLE)
        assert stood == {WHOLE.id: HandedOver(Version(version + 40), version)}
        for name in "bcd":
            bench.create(name)
        await asyncio.sleep(5)
        assert await bench.keys(A) == ["default/a"]
        held = bench.statistics(A)
        assert (held.frontier, held.state, held.handed_over, held.frozen) == (version, "synced", True, True)
        with pytest.raises(NotServed):
            await bench.overtake(A, Version(version + 50))

    on(main)


def test_events_that_had_come_are_in_what_it_says_and_in_its_feeds() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        feed = bench.feed(A)
        await anext(feed)
        version = bench.create("a")
        await asyncio.sleep(0.2)
        stood = await bench.hand_over(A, WHOLE)
        assert stood[WHOLE.id].frontier == version
        batch = await anext(feed)
        assert ([event.key for event in batch.events], batch.frontier) == (["default/a"], version)
        bench.create("b")
        assert (await anext(feed)).events == [], "it beats, so that nobody takes it for dead"
        await feed.aclose()

    on(main)


def test_adopted_again_it_follows_on_without_a_list() -> None:
    async def main(bench: Bench) -> None:
        bench.create("a")
        await bench.follow(A)
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        missed = bench.create("b")
        await bench.follow(A)
        assert await bench.keys(A) == ["default/a", "default/b"]
        held = bench.statistics(A)
        assert (held.handed_over, held.frozen, held.frontier) == (False, False, missed)
        assert bench.lists == 1
        assert await bench.overtake(A, missed) == missed
        assert await bench.changes(A, stood.frontier) == [("default/b", missed)]

    on(main)


def test_told_nothing_more_it_follows_again_by_itself_and_gives_no_leave() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        await bench.hand_over(A, WHOLE)
        version = bench.create("a")
        await asyncio.sleep(THAW_S - 1)
        assert bench.statistics(A).frontier < version
        await asyncio.sleep(2)
        held = bench.statistics(A)
        assert (held.frontier, held.handed_over, held.frozen) == (version, True, False)
        with pytest.raises(NotServed):
            await bench.overtake(A, version)
        assert bench.lists == 1

    on(main)


def test_it_follows_again_by_itself_also_if_nobody_waits_for_its_answer_any_more() -> None:
    """A caller's deadline may cut the call at any of its steps."""

    async def main(bench: Bench) -> None:
        await bench.follow(A)
        for turns in range(5):
            call = asyncio.ensure_future(bench.hand_over(A, WHOLE))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
            version = bench.create(f"cut-off-after-{turns}")
            await asyncio.sleep(THAW_S + 1)
            assert bench.statistics(A).frontier == version, f"cut off after {turns} turns"
            assert not bench.statistics(A).frozen

    on(main)


def test_handed_over_again_it_stands_still_for_as_long_again() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        first = await bench.hand_over(A, WHOLE)
        version = bench.create("a")
        await asyncio.sleep(THAW_S - 1)
        assert await bench.hand_over(A, WHOLE) == first
        await asyncio.sleep(THAW_S - 1)
        assert bench.statistics(A).frontier < version
        await asyncio.sleep(2)
        assert bench.statistics(A).frontier == version
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        assert stood.frontier == version
        assert bench.statistics(A).frozen

    on(main)


def test_released_it_is_forgotten_and_does_not_come_back() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        await bench.hand_over(A, WHOLE)
        await bench.release(A, WHOLE)
        assert bench.holds(A) == []
        await asyncio.sleep(THAW_S + 1)
        assert bench.holds(A) == []
        assert [task for task in asyncio.all_tasks() if "reflector" in task.get_name()] == []

    on(main)


# -- who wants more than it has ------------------------------------------------------------------------------


def test_who_waits_when_it_stops_is_sent_to_the_successor_at_once() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        waiting = asyncio.create_task(bench.get(A, "default/a", not_older_than=Version(bench.revision + 1)))
        await asyncio.sleep(1)
        began = now()
        await bench.hand_over(A, WHOLE)
        with pytest.raises(NotServed) as caught:
            await waiting
        assert caught.value.epoch == bench.epoch, "so that newer routes are asked for"
        assert now() - began < 0.1

    on(main)


def test_who_comes_meanwhile_is_sent_on_too_and_is_never_told_that_there_is_no_such_version() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        await bench.hand_over(A, WHOLE)
        newer = bench.create("a")
        began = now()
        with pytest.raises(NotServed):
            await bench.get(A, "default/a", not_older_than=newer)
        with pytest.raises(NotServed):
            await anext(bench.feed(A, since=newer))
        with pytest.raises(NotServed):
            await bench.changes(A, newer)
        with pytest.raises(NotServed):
            await bench.keys(A, at=newer)
        assert now() == began
        await asyncio.sleep(ROUTES_S)
        with pytest.raises(NotServed):
            await bench.get(A, "default/a", not_older_than=newer)
        assert now() - began == pytest.approx(ROUTES_S + 3.0), "by then it may be the second time"

    on(main)


def test_who_is_kept_waiting_is_answered_when_it_follows_again() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        await bench.hand_over(A, WHOLE)
        newer = bench.create("a")
        await asyncio.sleep(ROUTES_S)
        waiting = asyncio.create_task(bench.get(A, "default/a", not_older_than=newer))
        await asyncio.sleep(1)
        await bench.shard(A).adopt(bench.assignments(WHOLE), Epoch(9))
        assert await waiting is not None
        await bench.hand_over(A, WHOLE)
        await asyncio.sleep(ROUTES_S)
        too_new = Version(newer + 100)
        waiting = asyncio.create_task(bench.get(A, "default/a", not_older_than=too_new))
        began = now()
        await asyncio.sleep(1)
        await bench.shard(A).adopt(bench.assignments(WHOLE), Epoch(10))
        with pytest.raises(TooLargeVersion):
            await waiting
        assert now() - began == pytest.approx(3.0)

    on(main)


def test_who_is_kept_waiting_is_sent_on_when_it_is_released() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        await bench.hand_over(A, WHOLE)
        await asyncio.sleep(ROUTES_S)
        newer = Version(bench.revision + 1)
        waiting = asyncio.create_task(bench.get(A, "default/a", not_older_than=newer))
        await asyncio.sleep(1)
        await bench.release(A, WHOLE)
        with pytest.raises(NotServed):
            await waiting

    on(main)


def test_a_proof_that_is_under_way_changes_nothing_any_more() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        frontier = bench.revision
        newer = bench.other()
        waiting = asyncio.create_task(bench.get(A, "default/a", not_older_than=newer))
        await asyncio.sleep(0.5)
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        with pytest.raises(NotServed):
            await waiting
        await asyncio.sleep(5)
        assert (stood.frontier, bench.statistics(A).frontier) == (frontier, frontier)

    on(main)


# -- in other states -----------------------------------------------------------------------------------------


def test_one_that_is_being_listed_stops_and_lists_when_it_is_adopted_again() -> None:
    async def main(bench: Bench) -> None:
        bench.create("a")
        bench.app.faults.arm(Fault(kind="slow", seconds=5, count=1))
        await bench.follow(A)
        assert await bench.hand_over(A, WHOLE) == {}
        await asyncio.sleep(8)
        assert bench.statistics(A).state == "pending"
        with pytest.raises(NotReady):
            await bench.keys(A)
        await bench.follow(A)
        assert await bench.keys(A) == ["default/a"]

    on(main)


def test_one_that_is_listed_anew_after_a_gap_keeps_what_it_had() -> None:
    async def main(bench: Bench) -> None:
        bench.create("a")
        await bench.follow(A)
        await asyncio.sleep(1)
        bench.app.faults.arm(Fault(kind="slow", verb="watch", seconds=5))
        bench.app.faults.arm(Fault(kind="line-410", immediate=True))
        await asyncio.sleep(1)
        assert bench.shard(A)._followed[WHOLE.id].store.listing
        version = bench.create("b")
        await bench.hand_over(A, WHOLE)
        await asyncio.sleep(8)
        assert await bench.keys(A) == ["default/a"]
        await bench.follow(A)
        assert bench.statistics(A).frontier == version
        assert await bench.keys(A) == ["default/a", "default/b"]

    on(main)


def test_what_stands_still_takes_nothing_over_and_what_is_not_here_cannot() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        (stood,) = (await bench.hand_over(A, WHOLE)).values()
        with pytest.raises(NotReady, match="stands still"):
            await bench.take_over(A, WHOLE, stood)
        with pytest.raises(NotServed):
            await bench.take_over(B, WHOLE, stood)
        await bench.shard(B).take_over({WHOLE.id: Taken(None, UNKNOWN)})

    on(main)


def test_who_takes_over_catches_up_first_or_says_that_it_cannot() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        await bench.follow(B)
        newer = bench.other()
        began = now()
        await bench.take_over(B, WHOLE, HandedOver(UNKNOWN, newer))
        assert bench.statistics(B).frontier >= newer, "proved, because nothing came"
        assert now() - began < 2
        with pytest.raises(TooLargeVersion):
            await bench.take_over(B, WHOLE, HandedOver(UNKNOWN, Version(newer + 1000)))
        assert now() - began < 8

    on(main)
