"""Elections when things fail: renewals refused or unanswered, races, meddling, and all of it at random."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from support.apiserver import in_virtual_time
from support.candidates import LEASE, Candidate, Contest

from shoal.cluster.controller.election import Election, ElectionTimes
from shoal.cluster.controller.lease import LeaseRecord
from shoal.cluster.simulator.faults import Fault
from shoal.shards.model.errors import ConnectionFailed

LEASES = "leases.coordination.k8s.io"


def virtually(main: Coroutine[Any, Any, None]) -> None:
    in_virtual_time(main)


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("state", ["cut", "deaf", "mute"])
def test_a_leader_that_cannot_renew_ends_before_anybody_else_begins(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        contest = Contest()
        first, second = contest.candidate("a").start(), contest.candidate("b").start()
        await asyncio.sleep(61)
        first.link.state = state
        await first.ended()
        [term] = contest.terms.all
        assert 70 <= term.ended <= 72, "it tries for the renew deadline from its next try on"
        assert not first.elector.is_leader
        assert first.lost is not None
        assert "a no longer leads by the lease default/demo: it could not be renewed" in first.lost.message
        await asyncio.sleep(60)
        assert [one.identity for one in contest.terms.all] == ["a", "b"]
        await second.stop()

    virtually(main())
    assert not [record for record in caplog.records if record.levelname == "ERROR"], (
        "it ended when it was told to"
    )


def test_renewals_that_the_server_refuses_end_a_term() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(21)
        contest.app.faults.arm(Fault(kind="status-500", resource=LEASES, verb="update", count=None))
        await first.ended()
        assert contest.terms.all[0].ended == 32
        assert first.lost is not None
        assert "fault injected" in first.lost.message

    virtually(main())


def test_a_server_that_fails_for_less_than_the_deadline_costs_nothing() -> None:
    async def main() -> None:
        contest = Contest()
        first, second = contest.candidate("a").start(), contest.candidate("b").start()
        await asyncio.sleep(21)
        number = contest.app.faults.arm(Fault(kind="status-503", resource=LEASES, count=None))
        await asyncio.sleep(9)
        contest.app.faults.disarm(number)
        await asyncio.sleep(60)
        assert contest.terms.brief == [("a", 0.0, float("inf"))]
        assert first.elector.is_leader
        await second.stop()
        await first.stop()

    virtually(main())


def test_one_request_that_hangs_does_not_take_the_leadership_along() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(21)
        first.link.state = "deaf"
        await asyncio.sleep(2)
        first.link.state = "good"
        await asyncio.sleep(60)
        assert contest.terms.brief == [("a", 0.0, float("inf"))]
        await first.stop()

    virtually(main())


def test_a_renewal_that_arrived_and_was_not_answered_is_found_again() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(21)
        first.link.state = "mute"
        await asyncio.sleep(2)
        first.link.state = "good"
        await asyncio.sleep(60)
        assert contest.terms.brief == [("a", 0.0, float("inf"))]
        assert first.elector.statistics().slow_paths == 1
        await first.stop()

    virtually(main())


def test_somebody_elses_change_of_the_lease_is_kept_and_the_term_goes_on() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a", labels={"mine": "yes"}).start()
        await asyncio.sleep(5)
        await contest.patch(
            {"metadata": {"labels": {"mine": "no", "theirs": "yes"}, "annotations": {"x": "y"}}}
        )
        await asyncio.sleep(5)
        assert first.elector.is_leader
        metadata = (await contest.server.get(LEASE))["metadata"]
        assert metadata["labels"] == {"mine": "yes", "theirs": "yes"}
        assert metadata["annotations"] == {"x": "y"}
        statistics = first.elector.statistics()
        assert (statistics.failures, statistics.slow_paths) == (1, 1)
        await first.stop()

    virtually(main())


def test_a_leader_that_sees_another_name_has_lost_at_once() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(5)
        await contest.patch({"spec": {"holderIdentity": "usurper"}})
        await first.ended()
        assert contest.terms.all[0].ended == 6
        assert first.lost is not None
        assert first.lost.message.endswith("usurper does")
        assert (await contest.spec())["holderIdentity"] == "usurper", "what is not ours is not given back"
        assert first.seen == ["a", "usurper"]

    virtually(main())


def test_a_lease_that_is_deleted_is_made_again() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(5)
        status, _ = await contest.server.ask("DELETE", LEASE)
        assert status == 200
        await asyncio.sleep(5)
        assert first.elector.is_leader
        assert (await contest.spec())["holderIdentity"] == "a"
        await first.stop()

    virtually(main())


def test_what_ignores_its_cancellation_does_not_hide_the_loss() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        first.wind_down_s = 1000.0
        await asyncio.sleep(21)
        first.link.state = "cut"
        await first.ended()
        assert first.lost is not None
        assert now() == 33.75, "asked for its end twice, well before the lease ends at 35"
        assert not first.elector.is_leader

    virtually(main())


def test_a_release_finds_its_way_past_a_change_in_between() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(5)
        await contest.patch({"metadata": {"labels": {"x": "y"}}})
        await first.stop()
        assert (await contest.spec())["holderIdentity"] == ""

    virtually(main())


def test_a_release_does_not_take_the_lease_from_somebody_else() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(5)
        await contest.patch({"spec": {"holderIdentity": "usurper"}})
        assert first.elector.is_leader, "it has not seen it yet"
        await first.stop()
        assert (await contest.spec())["holderIdentity"] == "usurper"

    virtually(main())


def test_a_release_that_is_not_answered_ends_with_the_lease() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(5)
        first.link.state = "deaf"
        await first.stop()
        assert now() == 10, "one request, half of the renew deadline"

    virtually(main())


# -- at random ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_two_never_lead_at_a_time_whatever_fails(seed: int) -> None:
    """Three candidates for an hour; `Terms` fails the test as soon as two lead."""
    rng = Random(seed)

    async def trouble(contest: Contest, candidates: dict[str, Candidate]) -> None:
        while now() < 3600:
            await asyncio.sleep(rng.uniform(0.5, 30.0))
            identity = rng.choice(list(candidates))
            candidate = candidates[identity]
            match rng.choice(["link", "link", "mend", "mend", "crash", "stop", "server", "touch"]):
                case "link":
                    candidate.link.state = rng.choice(["cut", "deaf", "mute", "late"])
                    candidate.link.late_s = rng.uniform(0.1, 4.9)
                case "mend":
                    candidate.link.state = "good"
                case "crash":
                    candidate.link.state = "cut"
                    await candidate.stop()
                case "stop":
                    await candidate.stop()
                case "server":
                    kind = rng.choice(["status-500", "status-503", "drop"])
                    verb = rng.choice(["get", "update", ""])
                    contest.app.faults.arm(
                        Fault(kind=kind, resource=LEASES, verb=verb, count=rng.randint(1, 8))
                    )
                case _:
                    with suppress(ConnectionFailed):
                        await contest.server.ask(
                            "PATCH",
                            LEASE,
                            {"metadata": {"labels": {"x": str(now())}}},
                            headers={"Content-Type": "application/merge-patch+json"},
                        )
            for one, other in tuple(candidates.items()):
                if other.task is not None and other.task.done():
                    candidates[one] = started(contest, one)

    def started(contest: Contest, identity: str) -> Candidate:
        candidate = contest.candidate(
            identity, skew_s=rng.uniform(-1e6, 1e6), release_on_cancel=rng.random() < 0.7
        )
        candidate.wind_down_s = rng.choice([0.0, 0.0, 1.0])
        return candidate.start()

    async def main() -> None:
        contest = Contest()
        candidates = {identity: started(contest, identity) for identity in "abc"}
        await trouble(contest, candidates)
        contest.app.faults.disarm()
        for candidate in candidates.values():
            candidate.link.state = "good"
        await asyncio.sleep(60)
        for candidate in candidates.values():
            assert candidate.task is not None
            if candidate.task.done():
                await candidate.task
        assert len(contest.terms.all) > 10
        assert sum(candidate.elector.is_leader for candidate in candidates.values()) <= 1
        for candidate in candidates.values():
            await candidate.stop()

    virtually(main())


# -- the rules without a server -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"lease_duration_s": 10}, "lease_duration_s is 10: expected more than renew_deadline_s, 10"),
        ({"lease_duration_s": 0}, "lease_duration_s is 0: expected at least 1"),
        ({"lease_duration_s": 15.5}, "lease_duration_s is 15.5: expected whole seconds"),
        ({"renew_deadline_s": 2.4}, "renew_deadline_s is 2.4: expected more than 1.2 times"),
        ({"retry_period_s": 0.0}, "retry_period_s is 0: expected more than 0"),
        ({"retry_period_s": -1.0}, "retry_period_s is -1: expected more than 0"),
    ],
)
def test_periods_that_contradict_each_other_are_refused(times: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        ElectionTimes(**times)


def test_a_candidate_needs_an_identity() -> None:
    with pytest.raises(ValueError, match="identity"):
        Election("", ElectionTimes())


def test_only_a_change_begins_the_time_of_a_record_anew() -> None:
    election = Election("a", ElectionTimes())
    record = LeaseRecord("b", 15, "t0", "t0", 1)
    election.observe(record, 100.0)
    election.observe(LeaseRecord("b", 15, "t0", "t0", 1), 110.0)
    assert election.taken(114.9)
    assert not election.taken(115.0)
    election.observe(LeaseRecord("b", 15, "t0", "t1", 1), 115.0)
    assert election.taken(129.9)
    assert not election.holds
    assert election.bid("t2") == LeaseRecord("a", 15, "t2", "t2", 2)
