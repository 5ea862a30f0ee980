"""What the monitor does when it cannot see everything: kinds that may not be read, groups that do not answer."""

import asyncio
import json
from contextlib import asynccontextmanager

import msgspec
import pytest
from gateway_monitor.settings import Restore, Rollback
from support.apiserver import InProcessConnection, in_virtual_time
from support.gateway_objects import GROUP, LIMITS, ROUTES
from unit.examples.monitored import (
    NAMESPACE,
    POLICY,
    ROUTE,
    SETTINGS,
    WithToken,
    World,
    only_without,
    world,
)

from shoal.cluster.simulator.faults import Fault


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch):
    """There are none in virtual time."""

    async def here(function, *arguments):
        return function(*arguments)

    monkeypatch.setattr(asyncio, "to_thread", here)


@pytest.mark.parametrize("kind", ["pods", "securitypolicies"])
def test_a_kind_that_may_not_be_read_does_not_keep_good_states_from_being_saved(recorded, tmp_path, kind):
    state = tmp_path / "state.json"
    keeping = msgspec.structs.replace(SETTINGS, state_file=str(state))
    objects = list(recorded)

    async def first(world):
        await asyncio.sleep(30)
        places = {(one["resource"], one["place"]["name"]) for one in json.loads(state.read_text())["states"]}
        assert (LIMITS, "api-svc") in places
        assert (ROUTES, "api-svc") in places

    server = only_without(kind)
    world(first, objects, server=server, settings=keeping, connection=WithToken)

    async def changed_before():
        made = World(objects, server)
        await made.patch(POLICY, {"spec": {"requestsPerSecond": 4000}})
        async with made.monitored(keeping, WithToken):
            await asyncio.sleep(30)
            assert ("Opened", "policy_relaxed", "api-svc") in made.happened()

    in_virtual_time(changed_before())


def test_what_is_remembered_of_kinds_that_were_not_seen_is_kept(recorded, tmp_path):
    state = tmp_path / "state.json"
    keeping = msgspec.structs.replace(SETTINGS, state_file=str(state))

    def resources():
        return {one["resource"] for one in json.loads(state.read_text())["states"]}

    async def looked(world):
        await asyncio.sleep(30)

    world(looked, recorded, settings=keeping)
    before = resources()
    fewer = [one for one in recorded if one[0].name != "securitypolicies"]
    more = msgspec.json.decode(next(body for one, body in recorded if one.name == "ratelimitpolicies"))
    more["metadata"]["name"] = "another"
    kind = next(one for one, _ in recorded if one.name == "ratelimitpolicies")
    world(looked, [*fewer, (kind, msgspec.json.encode(more))], server=only_without("securitypolicies"),
          settings=keeping, connection=WithToken)  # fmt: skip
    assert "another" in state.read_text()
    assert resources() == before


class _Away:
    status, headers = 503, {}

    async def read(self, limit=0):
        return b'{"kind":"Status","message":"away"}'


class GroupAway(InProcessConnection):
    """A server without aggregated discovery, of which the gateway's group does not answer for a while."""

    until = 50.0

    @asynccontextmanager
    async def open(self, request):
        away = asyncio.get_running_loop().time() < self.until
        if away and request.path.startswith(f"/apis/{GROUP}"):
            yield _Away()
            return
        if request.path in ("/api", "/apis"):
            request = msgspec.structs.replace(request, headers=(("Accept", "application/json"),))
        async with super().open(request) as response:
            yield response


def test_a_group_whose_discovery_fails_at_start_is_one_finding_and_no_removed_routes(recorded, tmp_path):
    keeping = msgspec.structs.replace(SETTINGS, state_file=str(tmp_path / "state.json"))

    async def looked(world):
        await asyncio.sleep(30)

    async def away(world):
        await asyncio.sleep(40)
        assert world.happened() == [("Opened", "resource_unreadable", GROUP)]
        [finding] = world.monitor.model.findings.values()
        assert finding.severity == "critical"
        assert "503" in finding.details[0]
        await asyncio.sleep(110)
        assert world.happened() == [("Resolved", "resource_unreadable", GROUP)]
        await world.delete(ROUTE)
        await asyncio.sleep(10)
        assert world.happened() == [("Opened", "production_route_removed", "api-svc")]

    world(looked, recorded, settings=keeping)
    world(away, recorded, settings=keeping, connection=GroupAway)


def test_a_remembered_group_that_is_not_there_is_one_finding(recorded, tmp_path):
    keeping = msgspec.structs.replace(SETTINGS, state_file=str(tmp_path / "state.json"))

    async def looked(world):
        await asyncio.sleep(30)

    async def gone(world):
        await asyncio.sleep(60)
        assert world.happened() == [("Opened", "resource_unreadable", GROUP)]

    world(looked, recorded, settings=keeping)
    gateway = [one for one in recorded if one[0].group == GROUP or one[0].name == "customresourcedefinitions"]
    world(gone, [one for one in recorded if one not in gateway], settings=keeping)


def test_a_kind_that_was_taken_out_of_a_group_while_nobody_looked_is_found(recorded, tmp_path):
    keeping = msgspec.structs.replace(SETTINGS, state_file=str(tmp_path / "state.json"))

    async def looked(world):
        await asyncio.sleep(30)

    async def without(world):
        await asyncio.sleep(60)
        assert {check for _, check, _ in world.happened()} == {"production_route_removed"}

    world(looked, recorded, settings=keeping)

    def is_of_routes(one):
        return one[0].name == "apiroutes" or (
            one[0].name == "customresourcedefinitions" and b'"name":"apiroutes' in one[1].replace(b" ", b"")
        )

    world(without, [one for one in recorded if not is_of_routes(one)], settings=keeping)


@pytest.mark.parametrize("kind", ["pods", "services"])
def test_an_outage_is_found_without_permission_for_pods_or_services(recorded, kind):
    async def scenario(world):
        await asyncio.sleep(20)
        world.happened()
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
        found = await world.somebody.get(f"{slices}?labelSelector=kubernetes.io/service-name%3Dapi-svc")
        for one in found["items"]:
            for endpoint in one["endpoints"]:
                endpoint["conditions"]["ready"] = False
            await world.patch(f"{slices}/{one['metadata']['name']}", {"endpoints": one["endpoints"]})
        await asyncio.sleep(10)
        assert world.happened() == [("Opened", "route_down", "api-svc")]
        down = next(one for one in world.monitor.model.findings.values() if one.check == "route_down")
        assert any(f"{kind} cannot be read" in line for line in down.details)

    world(scenario, recorded, server=only_without(kind), connection=WithToken)


def test_settings_that_name_kinds_which_are_not_served_are_warned_of(recorded, caplog):
    wrong = msgspec.structs.replace(
        SETTINGS, rollback=Rollback(restore={"ratelimitpolicy": Restore(fields=("/spec",))})
    )

    async def scenario(world):
        await asyncio.sleep(20)
        warned = [one for one in caplog.records if one.message == "settings name a kind that is not served"]
        assert [(one.kind, one.setting) for one in warned] == [("ratelimitpolicy", "rollback.restore")]

    world(scenario, recorded, settings=wrong)


def test_links_lead_to_the_version_that_is_served(recorded):
    async def scenario(world):
        await world.monitor.ready.wait()
        await world.delete(ROUTE)
        await asyncio.sleep(10)
        [finding] = world.monitor.model.findings.values()
        assert finding.api_version == f"{GROUP}/v1"

    world(scenario, recorded)


def test_a_quiet_resource_is_not_taken_for_one_that_cannot_be_seen(recorded):
    """Nothing proves that it is up to date for as long as nothing changes."""

    async def main(world):
        await asyncio.sleep(1800)
        assert not [one for one in world.happened() if one[1] == "resource_unreadable"]
        for fault in (Fault(kind="drop", count=None), Fault(kind="cut", immediate=True, count=None)):
            world.app.faults.arm(fault)
        await asyncio.sleep(400)
        assert ("Opened", "resource_unreadable") in {one[:2] for one in world.happened()}

    world(main, list(recorded))
