"""The monitor over informers, straight from the embedded API server, in virtual time, on part of a recorded cluster."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest
from gateway_monitor.findings import Subject
from gateway_monitor.monitor import Monitor
from gateway_monitor.settings import Alerts, Checks, Rollback, Settings
from support.apiserver import EPOCH, Caller, InProcessConnection, in_virtual_time, virtual_apiserver
from support.gateway_objects import GROUP, LIMITS, ROUTES

import shoal
from shoal.cluster.simulator.cluster_file import read_cluster
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.filling import fill
from shoal.cluster.simulator.settings import Rule, SimulatorSettings, User

NAMESPACE = "payments"
KINDS = (
    "services",
    "endpointslices",
    "pods",
    "apiroutes",
    "ratelimitpolicies",
    "authnpolicies",
    "securitypolicies",
)
SETTINGS = Settings(alerts=Alerts(group_wait_s=1), rollback=Rollback(delay_s=1))
PATCH = {"Content-Type": "application/merge-patch+json"}
POLICY = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/ratelimitpolicies/api-svc"
ROUTE = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/apiroutes/api-svc"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def recorded():
    """Of one namespace, what the monitor follows; and the definitions."""
    found = []
    for resource, body in read_cluster():
        if resource.name == "customresourcedefinitions":
            found.append((resource, body))
        elif resource.name in KINDS:
            metadata = msgspec.json.decode(body)["metadata"]
            if metadata.get("namespace") == NAMESPACE:
                found.append((resource, body))
    return found


class Told(list):
    """A receiver."""

    name = "told"

    async def tell(self, notification):
        self.append(notification)


class WithToken(InProcessConnection):
    def open(self, request):
        return super().open(
            msgspec.structs.replace(request, headers=(*request.headers, ("Authorization", "Bearer t")))
        )


class World:
    """A server, a monitor over it, and somebody who writes."""

    def __init__(self, objects, server=None):
        self.app = virtual_apiserver(server)
        fill(self.app.verbs, objects)
        self.somebody = Caller(self.app)
        self.transitions, self.audit, self.told = [], [], Told()
        self.monitor = None

    @asynccontextmanager
    async def monitored(self, settings=SETTINGS, connection=InProcessConnection):
        loop = asyncio.get_running_loop()
        async with shoal.Client(connection(self.app), where="here") as client:
            self.monitor = Monitor(
                client, settings, now=lambda: EPOCH.timestamp() + loop.time(), receivers=[self.told],
                on_transitions=self.transitions.extend, on_audit=self.audit.append,
            )  # fmt: skip
            running = asyncio.create_task(self.monitor.run())
            yield
            assert not running.done()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def patch(self, path, document):
        status, answer = await self.somebody.ask("PATCH", path, document, headers=PATCH)
        assert status == 200, answer

    async def delete(self, path):
        status, answer = await self.somebody.ask("DELETE", path)
        assert status == 200, answer

    def happened(self):
        told = [(type(one).__name__, one.finding.check, one.finding.subject.name) for one in self.transitions]
        self.transitions.clear()
        return told


def world(scenario, objects, *, server=None, settings=SETTINGS, connection=InProcessConnection):
    async def main():
        made = World(objects, server)
        async with made.monitored(settings, connection):
            await scenario(made)

    in_virtual_time(main())


def test_a_healthy_cluster_and_then_an_outage(recorded):
    async def scenario(world):
        await asyncio.wait_for(world.monitor.ready.wait(), 60)
        assert world.monitor.objects == len(recorded) - 4
        assert len(world.monitor.followed) == 7
        assert world.happened() == []
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
        found = await world.somebody.get(f"{slices}?labelSelector=kubernetes.io/service-name%3Dapi-svc")
        for one in found["items"]:
            await world.patch(f"{slices}/{one['metadata']['name']}", {"endpoints": []})
        await asyncio.sleep(1)
        assert world.happened() == [("Opened", "route_down", "api-svc")]
        assert not world.told
        await asyncio.sleep(10)
        [notification] = world.told
        assert "has no endpoints" in notification.firing[0].summary
        for one in found["items"]:
            await world.patch(f"{slices}/{one['metadata']['name']}", {"endpoints": one["endpoints"]})
        await asyncio.sleep(10)
        assert world.happened() == [("Resolved", "route_down", "api-svc")]
        assert [len(one.resolved) for one in world.told] == [0, 1]

    world(scenario, recorded)


def test_a_relaxed_policy_is_shown_and_with_enforce_put_back(recorded):
    async def shown(world):
        await world.monitor.ready.wait()
        await world.patch(POLICY, {"spec": {"requestsPerSecond": 4000}})
        await asyncio.sleep(5)
        assert [line.outcome for line in world.audit] == ["would"]
        assert (await world.somebody.get(POLICY))["spec"]["requestsPerSecond"] == 4000

    async def enforced(world):
        await world.monitor.ready.wait()
        before = await world.somebody.get(POLICY)
        await world.patch(POLICY, {"spec": {"requestsPerSecond": 4000}})
        await asyncio.sleep(5)
        assert sorted(world.happened()) == [
            ("Opened", "policy_relaxed", "api-svc"),
            ("Opened", "rollback_done", "api-svc"),
            ("Resolved", "policy_relaxed", "api-svc"),
        ]
        assert "rollback_done" in {one.check for told in world.told for one in told.firing}
        after = await world.somebody.get(POLICY)
        assert after["spec"] == before["spec"]
        [line] = world.audit
        assert (line.outcome, line.new_version) == ("done", after["metadata"]["resourceVersion"])
        assert after["metadata"]["managedFields"][-1]["manager"] == "shoal-gateway-monitor"

    world(shown, recorded)
    enforce = msgspec.structs.replace(SETTINGS, rollback=Rollback(enforce=True, delay_s=1))
    world(enforced, recorded, settings=enforce)


def test_the_gateway_may_come_later_and_go(recorded):
    definitions = [one for one in recorded if one[0].name == "customresourcedefinitions"]
    gateway = [one for one in recorded if one[0].group == GROUP]
    rest = [one for one in recorded if one not in definitions and one not in gateway]

    async def scenario(world):
        await world.monitor.ready.wait()
        assert len(world.monitor.followed) == 3
        fill(world.app.verbs, [*definitions, *gateway])
        await asyncio.sleep(10)
        assert len(world.monitor.followed) == 7
        assert world.happened() == []
        production = [one for one in gateway if one[0].name == "apiroutes" and b'"production"' in one[1]]
        await world.delete(f"{DEFINITIONS}/{ROUTES}")
        await asyncio.sleep(10)
        removed = world.happened()
        assert len(removed) == len(production) > 2
        assert {(kind, check) for kind, check, _ in removed} == {("Opened", "production_route_removed")}
        # All of it in one message.
        assert [len(one.firing) for one in world.told] == [len(production)]
        fill(world.app.verbs, [*definitions, *gateway])
        await asyncio.sleep(60)
        assert {(kind, check) for kind, check, _ in world.happened()} == {
            ("Resolved", "production_route_removed")
        }

    world(scenario, rest)


def test_a_backup_that_is_restored_brings_back_what_was_deleted(recorded):
    async def scenario(world):
        await world.monitor.ready.wait()
        await asyncio.sleep(5)
        revision = world.app.storage.revision
        await world.patch(POLICY, {"spec": {"requestsPerSecond": 4000}})
        await world.delete(ROUTE)
        await asyncio.sleep(5)
        assert {check for _, check, _ in world.happened()} == {
            "policy_relaxed",
            "production_route_removed",
            "rollback_proposed",
        }
        world.app.faults.arm(Fault(kind="restart", jump=revision - world.app.storage.revision))
        await asyncio.sleep(120)
        assert {(kind, check) for kind, check, _ in world.happened()} == {
            ("Resolved", "policy_relaxed"),
            ("Resolved", "production_route_removed"),
            ("Resolved", "rollback_proposed"),
        }
        facts = world.monitor.model.view.facts(Subject(LIMITS, NAMESPACE, "api-svc"))
        assert facts.spec["requestsPerSecond"] == 100

    world(scenario, recorded)


def test_a_resource_that_may_not_be_read_is_a_finding_and_no_outage(recorded):
    allowed = Rule(resources=(*(kind for kind in KINDS if kind != "pods"), "customresourcedefinitions"))
    server = SimulatorSettings(seed=1, users=(User(name="monitor", token="t", rules=(allowed,)),))

    async def scenario(world):
        await asyncio.sleep(60)
        assert world.happened() == [("Opened", "resource_unreadable", "pods")]
        [finding] = world.monitor.model.findings.values()
        assert "forbidden" in finding.details[0]
        assert finding.severity == "critical"
        assert not world.monitor.ready.is_set()

    world(scenario, recorded, server=server, connection=WithToken)


def test_an_api_server_that_is_away_for_a_while_raises_no_false_alarm(recorded):
    async def scenario(world):
        await world.monitor.ready.wait()
        for kind in ("cut", "status-503"):
            world.app.faults.arm(Fault(kind=kind, count=20, immediate=kind == "cut"))
        await asyncio.sleep(60)
        assert world.happened() == []
        await world.delete(ROUTE)
        await asyncio.sleep(30)
        assert world.happened() == [("Opened", "production_route_removed", "api-svc")]

    world(scenario, recorded)


def test_another_group_is_another_gateway(recorded):
    other = msgspec.structs.replace(SETTINGS, checks=Checks(group="other.example.com"))

    async def scenario(world):
        await asyncio.wait_for(world.monitor.ready.wait(), 60)
        assert len(world.monitor.followed) == 3
        await world.delete(ROUTE)
        await asyncio.sleep(10)
        assert world.happened() == []

    world(scenario, recorded, settings=other)
