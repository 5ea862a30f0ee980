"""Putting changes back: what would be sent, how often, and the embedded API server's answers to it."""

import asyncio
import json

import msgspec
import pytest
from gateway_monitor.correlation import Model
from gateway_monitor.findings import Identity, Subject
from gateway_monitor.rollback import Answer, ClientWriter, Rollbacks
from gateway_monitor.settings import Checks, Restore, Rollback
from gateway_monitor.undoing import Budget, plan
from support.apiserver import Caller, InProcessConnection, in_virtual_time, virtual_apiserver
from support.gateway_objects import GROUP, LIMITS, ROUTES, limit, route

import shoal

SUBJECT = Subject(LIMITS, "shop", "web")
SETTINGS = Rollback(delay_s=1, per_hour_max=2, attempts_max=3)
ENFORCE = msgspec.structs.replace(SETTINGS, enforce=True)


def model_with(good, now, resource=LIMITS):
    model = Model(Checks())
    model.added(ROUTES, route(), 0)
    model.added(resource, good, 0)
    if now is not None:
        model.updated(resource, good, now, 0)
    model.evaluate(0)
    return model


# -- what is sent --------------------------------------------------------------------------------------------


def test_only_declared_fields_that_differ_are_sent_with_the_version_that_was_looked_at():
    model = model_with(limit(version=1), limit(version=7, rate=9000, burst=60, labels={"a": "b"}))
    made = plan(
        model.view,
        SUBJECT,
        Rollback(restore={"ratelimitpolicies": Restore(fields=("/spec/requestsPerSecond",))}),
    )
    assert (made.method, made.path) == ("PATCH", f"/apis/{GROUP}/v1/namespaces/shop/ratelimitpolicies/web")
    assert json.loads(made.body) == {"spec": {"requestsPerSecond": 100}, "metadata": {"resourceVersion": "7"}}
    assert [str(change) for change in made.changes] == ["/spec/requestsPerSecond: 9000 -> 100"]
    both = plan(
        model.view,
        SUBJECT,
        Rollback(restore={"ratelimitpolicies": Restore(fields=("/spec", "/metadata/labels"))}),
    )
    assert json.loads(both.body) == {
        "spec": {"requestsPerSecond": 100, "burst": 50},
        "metadata": {"labels": {"a": None}, "resourceVersion": "7"},
    }


def test_nothing_is_sent_where_nothing_is_declared_or_differs():
    assert plan(model_with(limit(), None).view, SUBJECT, SETTINGS) is None
    changed = model_with(limit(version=1), limit(version=2, rate=9000))
    assert plan(changed.view, SUBJECT, Rollback(restore={})) is None
    assert plan(changed.view, Subject("ratelimitpolicies.other.example.com", "shop", "web"), SETTINGS) is None


def test_what_was_deleted_is_made_again_only_if_that_is_declared():
    good = limit(
        version=1, labels={"a": "b"}, annotations={"shoal.dev/removal-approved": "false", "note": "x"}
    )
    model = model_with(good, None)
    model.deleted(LIMITS, {**good, "metadata": {**good["metadata"], "resourceVersion": "9"}}, 1)
    assert plan(model.view, SUBJECT, SETTINGS) is None
    made = plan(
        model.view,
        SUBJECT,
        Rollback(restore={"ratelimitpolicies": Restore(fields=("/spec",), recreate=True)}),
    )
    assert (made.method, made.path) == ("POST", f"/apis/{GROUP}/v1/namespaces/shop/ratelimitpolicies")
    assert json.loads(made.body) == {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RateLimitPolicy",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}, "annotations": {"note": "x"}},
        "spec": good["spec"],
    }


@pytest.mark.parametrize("path", ["/status", "/metadata/annotations", "/metadata/ownerReferences", "spec"])
def test_other_fields_cannot_be_declared(path):
    with pytest.raises(ValueError, match="only fields of /spec|has to begin with /"):
        Restore(fields=(path,))


def test_a_budget_is_of_an_hour_and_an_object():
    budget, other = Budget(2), Subject(LIMITS, "shop", "other")
    assert [budget.spend(SUBJECT, at) for at in (0, 60)] == [1, 2]
    assert budget.free_at(SUBJECT, 100) == 3600
    assert budget.free_at(other, 100) == 100
    assert budget.free_at(SUBJECT, 3600) == 3600
    assert budget.spend(other, 10_000) == 1
    assert budget.free_at(SUBJECT, 10_000) == 10_000


# -- when it is sent -----------------------------------------------------------------------------------------


class Writes:
    """A server that answers as it is told."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def write(self, wanted, query):
        self.asked.append((asyncio.get_running_loop().time(), wanted.version, dict(query).get("dryRun")))
        return self.answers.pop(0) if self.answers else Answer(200, version="100")


class Bench:
    """Rollbacks over a model whose policy is relaxed, at the loop's time."""

    def __init__(self, writes, settings=ENFORCE):
        self.model, self.version = model_with(limit(version=1), None), 1
        self.lines, self.notes = [], 0
        self.rollbacks = Rollbacks(
            settings, self.model, writes,
            now=asyncio.get_running_loop().time, noted=self.noted, audited=self.lines.append,
        )  # fmt: skip
        self.running = asyncio.create_task(self.rollbacks.run())

    def noted(self):
        self.notes += 1

    def becomes(self, rate):
        self.version += 1
        self.model.added(LIMITS, limit(version=self.version, rate=rate), 0)
        self.rollbacks.consider(self.model.evaluate(asyncio.get_running_loop().time()))

    @property
    def outcomes(self):
        return [line.outcome for line in self.lines]

    async def end(self):
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


def benched(scenario, *answers, settings=ENFORCE):
    async def main():
        writes = Writes(*answers)
        bench = Bench(writes, settings)
        await scenario(bench, writes)
        await bench.end()

    in_virtual_time(main())


def test_without_enforce_the_server_is_only_asked_whether_it_would():
    async def scenario(bench, writes):
        bench.becomes(9000)
        await asyncio.sleep(50)
        assert writes.asked == [(1, "2", "All")]
        assert bench.outcomes == ["would"]
        bench.model.evaluate(0)
        proposed = bench.model.findings[Identity("rollback_proposed", SUBJECT)]
        assert proposed.details[0] == "because of policy_relaxed, limit_out_of_bounds"
        assert [str(change) for change in proposed.changes] == ["/spec/requestsPerSecond: 9000 -> 100"]
        bench.becomes(9001)
        await asyncio.sleep(50)
        assert [version for _, version, _ in writes.asked] == ["2", "3"]
        bench.becomes(100)
        bench.model.evaluate(0)
        assert [one for one in bench.model.findings if one.subject == SUBJECT] == []

    benched(scenario, settings=SETTINGS)


def test_a_forbidden_change_is_put_back_after_the_delay():
    async def scenario(bench, writes):
        bench.becomes(9000)
        await asyncio.sleep(1.1)
        bench.becomes(100)
        await asyncio.sleep(50)
        assert writes.asked == [(1, "2", None)]
        [line] = bench.lines
        assert (line.outcome, line.checks, line.version, line.new_version) == (
            "done",
            ("policy_relaxed", "limit_out_of_bounds"),
            "2",
            "100",
        )
        assert str(line.changes[0]) == "/spec/requestsPerSecond: 9000 -> 100"
        # The change is over, and people hear of it all the same.
        bench.model.evaluate(0)
        assert Identity("rollback_done", SUBJECT) in bench.model.findings
        await asyncio.sleep(900)
        bench.model.evaluate(0)
        assert [one for one in bench.model.findings if one.subject == SUBJECT] == []

    benched(scenario)


def test_what_is_over_before_is_left_alone():
    async def scenario(bench, writes):
        bench.becomes(9000)
        bench.becomes(100)
        await asyncio.sleep(50)
        assert writes.asked == []

    benched(scenario)


def test_a_change_that_is_not_forbidden_is_left_alone():
    async def scenario(bench, writes):
        bench.becomes(150)
        await asyncio.sleep(50)
        assert {identity.check for identity in bench.model.findings} >= {"field_changed"}
        assert writes.asked == []

    benched(scenario)


def test_a_conflict_is_looked_at_again():
    async def scenario(bench, writes):
        bench.becomes(9000)
        await asyncio.sleep(1.1)
        bench.becomes(9001)
        await asyncio.sleep(0.5)
        bench.becomes(100)
        assert [version for _, version, _ in writes.asked] == ["2", "3"]
        assert bench.outcomes == ["conflict", "done"]
        await asyncio.sleep(50)

    benched(scenario, Answer(409, "the object has been modified"))


def test_it_gives_up_and_says_so():
    async def scenario(bench, writes):
        bench.becomes(9000)
        await asyncio.sleep(500)
        assert bench.outcomes == ["refused"] * 3
        bench.model.evaluate(0)
        noted = bench.model.findings[Identity("rollback_suspended", SUBJECT)]
        assert noted.details == ("it was tried 3 times: 403: may not",)
        assert bench.notes == 1
        bench.becomes(100)
        bench.model.evaluate(0)
        assert Identity("rollback_suspended", SUBJECT) not in bench.model.findings

    benched(scenario, *(Answer(403, "may not") for _ in range(9)))


def test_after_giving_up_it_looks_again_from_time_to_time():
    async def scenario(bench, writes):
        bench.becomes(9000)
        await asyncio.sleep(2000)
        assert bench.outcomes[:4] == ["refused", "refused", "refused", "done"]
        assert 900 <= writes.asked[3][0] < 1000

    benched(scenario, *(Answer(403, "may not") for _ in range(3)))


@pytest.mark.parametrize("status", [0, 409, 429, 500, 503])
def test_a_write_path_that_fails_for_long_is_not_a_refusal(status):
    async def scenario(bench, writes):
        bench.becomes(9000)
        await asyncio.sleep(1000)
        bench.model.evaluate(0)
        assert "done" not in bench.outcomes
        # It is tried at least every minute, and people know.
        assert 15 < len(writes.asked) < 40
        assert Identity("rollback_suspended", SUBJECT) in bench.model.findings
        writes.answers.clear()
        await asyncio.sleep(61)
        assert "done" in bench.outcomes
        bench.becomes(100)
        bench.model.evaluate(0)
        assert Identity("rollback_suspended", SUBJECT) not in bench.model.findings

    benched(scenario, *(Answer(status, "away") for _ in range(100)))


def test_failures_before_do_not_count_as_refusals():
    async def scenario(bench, writes):
        bench.becomes(9000)
        await asyncio.sleep(300)
        assert bench.outcomes[:7] == ["refused"] * 6 + ["done"]

    benched(scenario, *(Answer(503) for _ in range(5)), Answer(403, "may not"))


def test_what_the_server_quotes_does_not_reach_audit_or_log(caplog):
    said = 'web is invalid: spec.x: Invalid value: "hunter2\\"hunter3": too short, \'hunter4\' or hunter5="hunter6'

    async def scenario(bench, writes):
        bench.becomes(9000)
        await asyncio.sleep(100)
        bench.model.evaluate(0)
        told = str([*bench.lines, *bench.model.findings.values(), *(vars(one) for one in caplog.records)])
        assert "hunter" not in told.replace("hunter5", "")
        assert bench.lines[0].message.startswith("422 Invalid: web is invalid: spec.x: Invalid value: ")

    benched(scenario, *(Answer(422, said, reason="Invalid") for _ in range(9)))


def test_it_does_not_fight_for_ever_and_begins_again_after_an_hour():
    async def scenario(bench, writes):
        bench.becomes(9000)
        await asyncio.sleep(60)
        assert bench.outcomes == ["done", "done", "suspended"]
        bench.rollbacks.consider(bench.model.evaluate(60))
        assert Identity("rollback_suspended", SUBJECT) in bench.model.findings
        await asyncio.sleep(3600)
        assert bench.outcomes[:5] == ["done", "done", "suspended", "done", "done"]
        assert writes.asked[2][0] == 3601
        bench.becomes(100)
        bench.model.evaluate(4000)
        assert [one.check for one in bench.model.findings if one.subject == SUBJECT] == ["rollback_done"]

    benched(scenario)


def test_a_server_that_does_not_answer_is_asked_again():
    class Silent(Writes):
        async def write(self, wanted, query):
            await super().write(wanted, query)
            if len(self.asked) == 1:
                await asyncio.sleep(10_000)
            return Answer(200)

    async def main():
        bench = Bench(Silent())
        bench.becomes(9000)
        await asyncio.sleep(20)
        assert bench.outcomes[:2] == ["refused", "done"]
        assert bench.lines[0].message == "no answer within 10 s"
        await bench.end()

    in_virtual_time(main())


# -- with the embedded API server ----------------------------------------------------------------------------

DEFINITION = {
    "metadata": {"name": f"ratelimitpolicies.{GROUP}"},
    "spec": {
        "group": GROUP,
        "names": {"plural": "ratelimitpolicies", "kind": "RateLimitPolicy"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}
POLICIES = f"/apis/{GROUP}/v1/namespaces/default/ratelimitpolicies"


def test_the_api_server_takes_it_once_and_refuses_what_is_based_on_the_past():
    async def main():
        app = virtual_apiserver()
        caller = Caller(app)
        status, _ = await caller.ask(
            "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION
        )
        assert status == 201
        status, good = await caller.ask(
            "POST", POLICIES, limit("web", namespace="default") | {"metadata": {"name": "web"}}
        )
        assert status == 201
        status, now = await caller.ask(
            "PATCH",
            f"{POLICIES}/web",
            {"spec": {"requestsPerSecond": 90000}},
            headers={"Content-Type": "application/merge-patch+json"},
        )
        assert status == 200
        wanted = plan(model_with(good, now).view, Subject(LIMITS, "default", "web"), ENFORCE)
        async with shoal.Client(InProcessConnection(app), where="here") as client:
            writer = ClientWriter(client)
            dry = await writer.write(wanted, (("dryRun", "All"),))
            assert dry.status == 200
            assert (await caller.get(f"{POLICIES}/web"))["spec"]["requestsPerSecond"] == 90000
            done = await writer.write(wanted, ())
            assert done.status == 200
            assert int(done.version) > int(wanted.version)
            assert (await caller.get(f"{POLICIES}/web"))["spec"] == good["spec"]
            again = await writer.write(wanted, ())
            assert again.status == 409
            assert "modified" in again.message
        closed = await writer.write(wanted, ())
        assert closed.status == 0

    in_virtual_time(main())
