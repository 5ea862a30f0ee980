"""Electing a leader on a Lease of the embedded API server, in virtual time. Times are client-go's: 15, 10 and 2 s."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from support.apiserver import in_virtual_time
from support.candidates import LEASE, LEASES, Candidate, Contest
from support.scripted_connection import Answer, ScriptedConnection, declined

from shoal.cluster.controller.errors import LeadershipLost
from shoal.cluster.controller.leader import LeaderElector
from shoal.cluster.controller.metrics import LeaderCollector
from shoal.cluster.simulator.faults import Fault
from shoal.shards.api.requests import JSON

RETRY_MAX_S = 2 + 1.2 * 2
"""A candidate asks again after at most this."""


def virtually(main: Coroutine[Any, Any, None]) -> None:
    in_virtual_time(main)


def now() -> float:
    return asyncio.get_running_loop().time()


async def crashed(candidate: Candidate) -> None:
    """The end of a process: nothing more comes from it."""
    candidate.link.state = "cut"
    await candidate.stop()


# -- becoming leader ------------------------------------------------------------------------------------------


def test_the_first_candidate_makes_the_lease_and_leads_at_once() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a", labels={"app": "demo"}).start()
        await asyncio.sleep(1)
        assert first.elector.is_leader
        assert first.elector.leader == "a"
        assert await contest.spec() == {
            "holderIdentity": "a",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-11-20T09:00:00.000000Z",
            "renewTime": "2026-11-20T09:00:00.000000Z",
            "leaseTransitions": 0,
        }
        assert (await contest.server.get(LEASE))["metadata"]["labels"] == {"app": "demo"}
        await asyncio.sleep(4)
        spec = await contest.spec()
        assert (spec["acquireTime"], spec["renewTime"]) == (
            "2026-11-20T09:00:00.000000Z",
            "2026-11-20T09:00:04.000000Z",
        )
        await first.stop()

    virtually(main())


def test_of_candidates_that_begin_together_one_leads() -> None:
    async def main() -> None:
        contest = Contest()
        candidates = [contest.candidate(identity).start() for identity in "abc"]
        await asyncio.sleep(120)
        assert contest.terms.brief == [("a", 0.0, float("inf"))]
        assert [one.elector.is_leader for one in candidates] == [True, False, False]
        assert [one.elector.leader for one in candidates] == ["a", "a", "a"]
        assert [one.seen for one in candidates] == [["a"], ["a"], ["a"]]
        for one in reversed(candidates):
            await one.stop()

    virtually(main())


def test_a_leader_that_crashed_is_followed_after_its_lease_and_not_before() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        others = [contest.candidate(identity).start() for identity in "bc"]
        await asyncio.sleep(61)
        await crashed(first)
        await asyncio.sleep(60)
        [_, second] = contest.terms.all
        assert 60 + 15 <= second.began <= 60 + RETRY_MAX_S + 15 + RETRY_MAX_S
        spec = await contest.spec()
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == (second.identity, 1)
        assert others[0].seen == others[1].seen == ["a", second.identity]
        for one in others:
            await crashed(one)

    virtually(main())


@pytest.mark.parametrize("skew", [-86_400.0, -20.0, 20.0, 86_400.0])
def test_other_clocks_make_no_difference(skew: float) -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a", skew_s=skew).start()
        second = contest.candidate("b", skew_s=-skew).start()
        await asyncio.sleep(300)
        assert [term.identity for term in contest.terms.all] == ["a"]
        await crashed(first)
        crash = now()
        await asyncio.sleep(60)
        assert crash + 15 - 2 <= contest.terms.all[1].began <= crash + 15 + 2 * RETRY_MAX_S
        await second.stop()

    virtually(main())


def test_a_record_is_waited_for_since_it_was_first_seen_however_old_it_says_it_is() -> None:
    async def main() -> None:
        contest = Contest()
        spec = {
            "holderIdentity": "dead for a year",
            "leaseDurationSeconds": 30,
            "acquireTime": "2025-11-20T09:00:00.000000Z",
            "renewTime": "2025-11-20T09:00:00.000000Z",
            "leaseTransitions": 7,
        }
        await contest.server.create(LEASES, "demo", spec=spec)
        await asyncio.sleep(100)
        candidate = contest.candidate("a").start()
        await asyncio.sleep(60)
        assert 130 <= contest.terms.all[0].began <= 130 + RETRY_MAX_S, "the record's own duration counts"
        assert (await contest.spec())["leaseTransitions"] == 8
        await candidate.stop()

    virtually(main())


@pytest.mark.parametrize(
    "spec", [{"holderIdentity": "", "leaseTransitions": 3}, {"leaseTransitions": 3}, None]
)
def test_a_lease_that_nobody_holds_is_taken_at_once(spec: dict[str, Any] | None) -> None:
    async def main() -> None:
        contest = Contest()
        await contest.server.create(LEASES, "demo", **({} if spec is None else {"spec": spec}))
        candidate = contest.candidate("a").start()
        await asyncio.sleep(1)
        assert contest.terms.brief == [("a", 0.0, float("inf"))]
        assert (await contest.spec())["leaseTransitions"] == (4 if spec else 1)
        await candidate.stop()

    virtually(main())


def test_who_comes_back_under_its_own_name_goes_on_at_once() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(9)
        await crashed(first)
        again = contest.candidate("a").start()
        await asyncio.sleep(1)
        assert [term.identity for term in contest.terms.all] == ["a", "a"]
        spec = await contest.spec()
        assert (spec["leaseTransitions"], spec["acquireTime"]) == (0, "2026-11-20T09:00:00.000000Z")
        await again.stop()

    virtually(main())


# -- the end of a term ----------------------------------------------------------------------------------------


def test_a_lease_given_back_is_taken_at_the_next_try() -> None:
    async def main() -> None:
        contest = Contest()
        first, second = contest.candidate("a").start(), contest.candidate("b").start()
        await asyncio.sleep(30)
        await first.stop()
        assert not first.elector.is_leader
        spec = await contest.spec()
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("", 1, 0)
        await asyncio.sleep(RETRY_MAX_S)
        assert [term.identity for term in contest.terms.all] == ["a", "b"]
        assert (await contest.spec())["leaseTransitions"] == 1
        await second.stop()

    virtually(main())


def test_without_release_the_lease_stays() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a", release_on_cancel=False).start()
        await asyncio.sleep(5)
        await first.stop()
        assert (await contest.spec())["holderIdentity"] == "a"

    virtually(main())


def test_a_withheld_release_leaves_the_lease_to_expire() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(5)
        first.elector.withhold_release()
        await first.stop()
        assert (await contest.spec())["holderIdentity"] == "a"

    virtually(main())


def test_the_lease_is_renewed_while_what_was_led_winds_down() -> None:
    async def main() -> None:
        contest = Contest()
        first, second = contest.candidate("a").start(), contest.candidate("b").start()
        first.wind_down_s = 50
        await asyncio.sleep(10)
        await first.stop()
        assert now() == 60
        await asyncio.sleep(RETRY_MAX_S)
        [leaving, following] = contest.terms.all
        assert leaving.ended == 60
        assert 60 <= following.began <= 60 + RETRY_MAX_S
        await second.stop()

    virtually(main())


def test_what_does_not_wind_down_in_time_keeps_the_lease_until_it_expires() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a", wind_down_s=20.0).start()

        async def stubborn() -> None:
            while now() < 300:
                try:
                    await asyncio.sleep(300 - now())
                except asyncio.CancelledError:
                    continue

        first.lead = stubborn  # type: ignore[method-assign]
        await asyncio.sleep(1)
        await first.stop()
        assert now() == 1 + 20 + 5, "and once more as long as a lease outlasts a leader"
        assert (await contest.spec())["holderIdentity"] == "a"
        await asyncio.sleep(300)

    virtually(main())


def test_run_returns_and_raises_what_is_led_does() -> None:
    async def main() -> None:
        contest = Contest()
        elector = contest.candidate("a").elector

        async def brief() -> None:
            await asyncio.sleep(3)

        async def broken() -> None:
            raise ZeroDivisionError

        await elector.run(brief)
        assert now() == 3
        assert (await contest.spec())["holderIdentity"] == ""
        with pytest.raises(ZeroDivisionError):
            await elector.run(broken)
        assert (await contest.spec())["holderIdentity"] == ""
        assert elector.statistics().terms == 2

    virtually(main())


def test_a_candidate_runs_once_at_a_time() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="'a' runs already"):
            await first.elector.run(first.lead)
        assert first.elector.is_leader
        await first.stop()

    virtually(main())


# -- what is told ---------------------------------------------------------------------------------------------


def test_a_callback_that_fails_ends_nothing() -> None:
    async def main() -> None:
        contest = Contest()

        def broken(identity: str) -> None:
            raise ZeroDivisionError(identity)

        first = contest.candidate("a", on_new_leader=broken).start()
        await asyncio.sleep(30)
        assert first.elector.is_leader
        await first.stop()

    virtually(main())


def test_missing_permission_is_said_once_with_what_to_grant(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        connection = ScriptedConnection(*[declined(403, "no way") for _ in range(4)])
        elector = LeaderElector(
            connection, namespace="default", name="demo", identity="a", uniform=lambda: 0.0
        )
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await elector.run(asyncio.Event().wait)  # type: ignore[arg-type]
        assert connection.times == [0.0, 2.0, 4.0, 6.0]
        assert elector.statistics().failures == 4

    virtually(main())
    [problem] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "grant get, create and update of leases" in problem.problem  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"spec":{"holderIdentity":7}}', b'{"spec":[]}'])
def test_an_answer_that_is_no_lease_is_a_failure(body: bytes) -> None:
    async def main() -> None:
        connection = ScriptedConnection(Answer([body], headers={"content-type": JSON}))
        elector = LeaderElector(connection, namespace="default", name="demo", identity="a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await elector.run(asyncio.Event().wait)  # type: ignore[arg-type]
        assert elector.statistics().failures == 1
        assert elector.statistics().terms == 0

    virtually(main())


def test_metrics() -> None:
    async def main() -> None:
        contest = Contest()
        first, second = contest.candidate("a").start(), contest.candidate("b").start()
        await asyncio.sleep(1)
        contest.app.faults.arm(Fault(kind="status-500", resource="leases.coordination.k8s.io", verb="update"))
        await asyncio.sleep(10)
        registry = CollectorRegistry()
        registry.register(LeaderCollector([first.elector]))
        text = generate_latest(registry).decode()
        assert 'leader_election_master_status{name="default/demo"} 1.0' in text
        assert 'leader_election_slowpath_total{name="default/demo"} 1.0' in text
        assert 'shoal_leader_renewals_total{name="default/demo"} 6.0' in text
        assert 'shoal_leader_failures_total{name="default/demo"} 1.0' in text
        assert second.elector.statistics().leading is False
        await second.stop()
        await first.stop()

    virtually(main())


@pytest.mark.parametrize(("namespace", "name"), [("", "x"), ("x", ""), ("a/b", "x"), ("x", "a/b")])
def test_a_name_that_cannot_be_one_is_refused(namespace: str, name: str) -> None:
    with pytest.raises(ValueError, match="expected the name of an object"):
        LeaderElector(ScriptedConnection(), namespace=namespace, name=name, identity="a")


def test_the_error_of_a_lost_leadership_survives_pickling() -> None:
    import pickle

    lost = pickle.loads(pickle.dumps(LeadershipLost("a no longer leads")))
    assert isinstance(lost, LeadershipLost)
    assert lost.message == "a no longer leads"
