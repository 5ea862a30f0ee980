"""The monitor over informers, straight from the embedded API server, in virtual time, on part of a recorded cluster."""

import asyncio

import msgspec
from gateway_monitor.findings import Subject
from gateway_monitor.settings import Checks, Rollback
from support.gateway_objects import GROUP, LIMITS, ROUTES
from unit.examples.monitored import (
    DEFINITIONS,
    NAMESPACE,
    POLICY,
    ROUTE,
    SETTINGS,
    WithToken,
    only_without,
    world,
)

from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.filling import fill


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
    async def scenario(world):
        await asyncio.sleep(60)
        assert world.happened() == [("Opened", "resource_unreadable", "pods")]
        [finding] = world.monitor.model.findings.values()
        assert "forbidden" in finding.details[0]
        assert finding.severity == "critical"
        # The others are followed all the same.
        assert world.monitor.ready.is_set()

    world(scenario, recorded, server=only_without("pods"), connection=WithToken)


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
