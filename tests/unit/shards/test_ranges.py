"""The probe of ``shardSelector``: against the embedded API server with the gate on and off, and against odd answers."""

import asyncio

import pytest
from support.apiserver import Caller, InProcessConnection, virtual_apiserver
from support.clock import run_virtual
from support.scripted_connection import Answer, ScriptedConnection, config_map, declined, encode

from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.api.requests import list_request, watch_request
from shoal.shards.model.errors import Upstream
from shoal.shards.model.partitions import HASH_END, HashRange, Partition, fnv1a64
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.watch.ranges import FORGOTTEN_S, REMEMBERED_S, RangeSupport, honours_shard_selector

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
EVENTS = ResourceType(resource=Resource("", "v1", "events"), kind="Event", namespaced=True)
MIDDLE = HASH_END // 2
LOW, HIGH = HashRange("uid", 0, MIDDLE), HashRange("uid", MIDDLE, HASH_END)


async def filled(*, gate):
    app = virtual_apiserver(SimulatorSettings(shard_selector=gate))
    caller = Caller(app)
    for number in range(8):
        for namespace in ("default", "kube-system"):
            await caller.create(f"/api/v1/namespaces/{namespace}/configmaps", f"c-{number}")
    return app


@pytest.mark.parametrize("gate", [True, False])
def test_the_gate_of_the_embedded_server_is_found_out(gate):
    async def main():
        connection = InProcessConnection(await filled(gate=gate))
        assert await honours_shard_selector(connection, CONFIG_MAPS) is gate

    run_virtual(main())


def test_an_empty_resource_is_judged_by_the_echo():
    async def main():
        connection = InProcessConnection(virtual_apiserver(SimulatorSettings(shard_selector=True)))
        empty = ResourceType(resource=Resource("", "v1", "secrets"), kind="Secret", namespaced=True)
        assert await honours_shard_selector(connection, empty)

    run_virtual(main())


def page(part, *objects, echo=None):
    metadata = {"resourceVersion": "7", "shardInfo": {"selector": part.selector if echo is None else echo}}
    return Answer(
        [encode({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": list(objects)})]
    )


def known(uid):
    found = config_map("a", 3)
    found["metadata"]["uid"] = uid
    return found


IN_LOW = next(text for text in map(str, range(100)) if fnv1a64(text) < MIDDLE)
IN_HIGH = next(text for text in map(str, range(100)) if fnv1a64(text) >= MIDDLE)


@pytest.mark.parametrize(
    ("answers", "honoured"),
    [
        ([page(LOW, known(IN_LOW)), page(HIGH, known(IN_HIGH))], True),
        ([page(LOW, echo=LOW.selector.replace(" ", "")), page(HIGH)], True),
        ([page(LOW, known(IN_HIGH))], False),
        ([page(LOW, known(IN_LOW)), page(HIGH, known(IN_LOW))], False),
        ([page(LOW, echo="")], False),
        ([page(LOW, echo="everything")], False),
        ([page(LOW, echo=HIGH.selector)], False),
        ([page(LOW, echo=LOW.selector.replace("uid", "namespace"))], False),
    ],
)
def test_the_echo_and_the_objects_have_to_be_of_the_range(answers, honoured):
    async def main():
        assert await honours_shard_selector(ScriptedConnection(*answers), CONFIG_MAPS) is honoured

    run_virtual(main())


def test_events_are_not_asked_for_because_their_watches_are_not_filtered():
    async def main():
        connection = ScriptedConnection()
        assert not await honours_shard_selector(connection, EVENTS)
        assert not connection.asked

    run_virtual(main())


def test_a_refusal_is_an_error_of_the_probe_and_nothing_known_for_a_while():
    async def main():
        with pytest.raises(Upstream):
            await honours_shard_selector(ScriptedConnection(declined(403)), CONFIG_MAPS)
        support = RangeSupport(ScriptedConnection(declined(403), page(LOW), page(HIGH)))
        assert not await support.honours(CONFIG_MAPS)
        await asyncio.sleep(FORGOTTEN_S - 1)
        assert not await support.honours(CONFIG_MAPS)
        await asyncio.sleep(1)
        assert await support.honours(CONFIG_MAPS)

    run_virtual(main())


def test_what_was_found_is_asked_for_once_and_again_after_a_while():
    async def main():
        connection = ScriptedConnection(page(LOW), page(HIGH), page(LOW, echo=""), page(LOW), page(HIGH))
        support = RangeSupport(connection)
        assert support.known(CONFIG_MAPS.resource) is None
        assert await asyncio.gather(*(support.honours(CONFIG_MAPS) for _ in range(3))) == [True] * 3
        assert support.known(CONFIG_MAPS.resource)
        await asyncio.sleep(REMEMBERED_S)
        assert support.known(CONFIG_MAPS.resource) is None
        assert not await support.honours(CONFIG_MAPS)
        assert support.known(CONFIG_MAPS.resource) is False
        support.forget()
        assert await support.honours(CONFIG_MAPS)
        assert len(connection.asked) == 5

    run_virtual(main())


PARTS = (
    HashRange("uid", 0, MIDDLE, "default"),
    HashRange("uid", MIDDLE, HASH_END, "default"),
    HashRange("uid", 0, MIDDLE, None, ("default",)),
    HashRange("uid", MIDDLE, HASH_END, None, ("default",)),
    HashRange("namespace", 0, MIDDLE),
    HashRange("namespace", MIDDLE, HASH_END, None, ("kube-system",)),
)


@pytest.mark.parametrize("cover", PARTS, ids=str)
@pytest.mark.parametrize("gate", [True, False])
def test_the_embedded_server_honours_a_range_beside_a_namespace_or_field_selector(cover, gate):
    """Lists and watches; with the gate off all but the range, as a real server."""

    async def main():
        app = await filled(gate=gate)
        caller = Caller(app)
        partition = Partition(CONFIG_MAPS.resource, cover)
        whole = (await caller.get("/api/v1/configmaps"))["items"]

        def meant(one):
            namespace, uid = one["metadata"]["namespace"], one["metadata"]["uid"]
            if gate:
                return cover.admits(namespace, uid)
            if cover.field == "namespace":
                return namespace not in cover.excluded
            return partition.may_hold(namespace)

        wanted = [one["metadata"]["uid"] for one in whole if meant(one)]
        document = await caller.get(list_request(partition).target)
        assert [one["metadata"]["uid"] for one in document["items"]] == wanted
        assert document["metadata"].get("shardInfo") == ({"selector": cover.selector} if gate else None)
        async with caller.watch(watch_request(partition, version=1, timeout_s=1).target) as lines:
            told = [event["metadata"]["uid"] for kind, event in await lines.rest() if kind == "ADDED"]
        assert sorted(told) == sorted(wanted)

    run_virtual(main())
