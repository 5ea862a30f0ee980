"""When a lease ends, by the leader's own clock: from when a write was sent, whatever its answer took."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from support.apiserver import in_virtual_time
from support.candidates import Contest
from support.clock import VirtualLoop

from shoal.cluster.controller.election import Election, ElectionTimes
from shoal.cluster.controller.lease import LeaseRecord


def virtually(main: Coroutine[Any, Any, None]) -> None:
    in_virtual_time(main)


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


def stand_still(seconds: float) -> None:
    """As a process that is stopped and goes on: everything is due at once."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now += seconds


@pytest.mark.parametrize("late_s", [0.5, 2.0, 4.7, 4.99])
@pytest.mark.parametrize("wind_down_s", [0.0, 1.2, 1000.0])
def test_an_answer_that_comes_late_makes_no_lease_longer(late_s: float, wind_down_s: float) -> None:
    async def main() -> None:
        contest = Contest()
        first, second = contest.candidate("a").start(), contest.candidate("b").start()
        first.wind_down_s = wind_down_s
        await asyncio.sleep(21)
        first.link.state, first.link.late_s = "late", late_s
        await asyncio.sleep(1 + late_s + 0.001)
        first.link.state = "deaf"
        await first.ended()
        assert contest.terms.all[0].ended < 22 + 15, "the server took the write at 22"
        await asyncio.sleep(60)
        assert [one.identity for one in contest.terms.all] == ["a", "b"], "and `Terms` saw no two at a time"
        await second.stop()

    virtually(main())


@pytest.mark.parametrize("late_s", [0.0, 4.9])
@pytest.mark.parametrize("deadline_s", [5.0, 10.0, 14.0])
def test_what_is_led_is_told_to_end_before_the_lease_does(late_s: float, deadline_s: float) -> None:
    async def main() -> None:
        contest = Contest()
        times = ElectionTimes(lease_duration_s=15, renew_deadline_s=deadline_s, retry_period_s=2.0)
        first = contest.candidate("a", times=times)
        first.link.state, first.link.late_s = "late", min(late_s, deadline_s / 2 - 0.1)
        first.start()
        await asyncio.sleep(first.link.late_s + 0.001)
        first.link.state = "deaf"
        await first.ended()
        sent_at = first.link.late_s  # after it was seen that there is no Lease
        assert contest.terms.all[0].ended <= sent_at + 15 - times.margin_s

    virtually(main())


def test_a_leader_that_stood_still_for_its_lease_ends_when_it_wakes() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(21)
        stand_still(21)
        first.link.state = "deaf"
        assert not first.elector.is_leader
        await first.ended()
        assert now() == 42
        assert contest.terms.brief == [("a", 0, 42)]
        assert first.lost is not None
        assert "stood still" in first.lost.message

    virtually(main())


def test_a_leader_that_stood_still_while_it_was_answered_has_not_renewed() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(21)
        first.link.state, first.link.late_s = "late", 1.0
        await asyncio.sleep(1.5)
        stand_still(16)
        first.link.state = "deaf"
        await first.ended()
        assert contest.terms.all[0].ended == 38.5

    virtually(main())


def test_who_stood_still_while_it_was_elected_does_not_lead() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a")
        first.link.state, first.link.late_s = "late", 1.0
        first.start()
        await asyncio.sleep(0.5)
        stand_still(20)
        await asyncio.sleep(10)
        assert [term.began >= 21 for term in contest.terms.all] == [True]
        await first.stop()

    virtually(main())


def test_a_lease_that_is_lost_cuts_the_wind_down_short() -> None:
    async def main() -> None:
        contest = Contest()
        first, second = contest.candidate("a").start(), contest.candidate("b").start()
        first.wind_down_s = 50.0
        await asyncio.sleep(21)
        first.link.state = "deaf"
        await first.stop()
        assert contest.terms.all[0].ended < 35
        await asyncio.sleep(30)
        assert [one.identity for one in contest.terms.all] == ["a", "b"]
        await second.stop()

    virtually(main())


def test_a_wind_down_as_leader_takes_its_time() -> None:
    async def main() -> None:
        first = Contest().candidate("a").start()
        first.wind_down_s = 50.0
        await asyncio.sleep(21)
        await first.stop()
        assert now() == 71

    virtually(main())


def test_an_own_record_that_is_found_is_no_younger_than_the_last_answer() -> None:
    election = Election("a", ElectionTimes())
    election.wrote(LeaseRecord("a", 15, "t0", "t0", 1), 100.0)
    election.observe(LeaseRecord("a", 15, "t0", "t1", 1), 110.0)
    assert election.seen.renew_time == "t1"
    assert election.valid(114.9)
    assert not election.valid(115.0), "when the server took it is not known"
    election.observe(LeaseRecord("b", 15, "t2", "t2", 2), 116.0)
    assert election.taken(130.9)
    election.observe(LeaseRecord("a", 15, "t3", "t3", 3), 131.0)
    assert election.valid(145.9), "of an earlier process of that name: it counts as anybody's"
