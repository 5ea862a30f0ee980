"""Writers, the same for a Shoal that passes writes on and an API server, asynchronous and blocking; and the others."""

import asyncio
import random

import pytest
from support.apiserver import in_virtual_time
from support.client_faces import FACES, SPACE, Face, cluster
from support.gateway_installation import Thread
from support.scripted_connection import Answer, ScriptedConnection

import shoal
from shoal import errors
from shoal.cluster.client.connect import Client
from shoal.cluster.informers.errors import UnknownResource

MAPS = "v1/configmaps"


@pytest.fixture(scope="module")
def shared():
    with cluster() as found:
        yield found


@pytest.fixture(params=FACES)
async def client(request, shared):
    found = Face(await asyncio.to_thread(shared.client, request.param))
    yield found
    await found.aclose()


@pytest.fixture
def maps(client):
    return client.writer(MAPS, SPACE)


@pytest.fixture
def name(request):
    """A name that no other test uses."""
    return f"written-{random.Random(request.node.name).getrandbits(32):x}"


# -- what is written is there --------------------------------------------------------------------------------


async def test_an_object_is_made_changed_replaced_and_deleted(client, maps, name):
    made = await maps.create({"metadata": {"name": name}, "data": {"a": "1", "b": "2"}})
    assert (made.key, made.kind, made.apiVersion) == (f"{SPACE}/{name}", "ConfigMap", "v1")
    assert made.uid
    changed = await maps.patch(made, {"data": {"a": None, "c": "3"}})
    assert changed.data == {"b": "2", "c": "3"}
    assert changed.uid == made.uid
    replaced = await maps.replace({"metadata": {"name": name}, "data": {"d": "4"}})
    assert replaced.data == {"d": "4"}
    lister = client.lister(MAPS, SPACE)
    assert (await lister.get(name, not_older_than=replaced.resource_version)).data == {"d": "4"}
    await maps.delete(replaced)
    with pytest.raises(errors.NotFound, match=f'configmaps "{name}" not found'):
        await maps.delete(name)
    await maps.delete(name, missing_ok=True)


async def test_names_are_taken_as_listers_take_them(client, name):
    everywhere = client.writer("configmaps")
    for place in ({"namespace": SPACE}, {}):
        await everywhere.create({"metadata": {"name": name, **place}}, None if place else SPACE)
        assert (await everywhere.patch(f"{SPACE}/{name}", {"data": {"a": "1"}})).data == {"a": "1"}
        await everywhere.delete(name, SPACE)
    made = await client.writer(MAPS, SPACE).create({"metadata": {"generateName": "made-up-"}})
    assert made.name.startswith("made-up-")
    await everywhere.delete(made)
    node = await client.writer("nodes").create({"metadata": {"name": name}})
    assert node.key == name
    await client.writer("nodes").delete(node)


async def test_an_object_that_was_read_is_a_document_and_so_are_its_parts(maps, name):
    made = await maps.create({"metadata": {"name": name, "labels": {"a": "b"}}, "data": {"x": "y"}})
    again = await maps.replace(made)
    assert again.resource_version == made.resource_version, "nothing was changed"
    other = await maps.create(
        {"metadata": {"name": f"{name}-2", "labels": made.metadata.labels}, "data": made.data}
    )
    assert (other.labels, other.data.to_dict()) == ({"a": "b"}, {"x": "y"})


async def test_a_patch_has_one_of_three_forms(client, maps, name):
    made = await maps.create({"metadata": {"name": name}, "data": {"a": "1"}})
    operations = [{"op": "replace", "path": "/data/a", "value": "2"}]
    assert (await maps.patch(made, operations, form="json")).data == {"a": "2"}
    assert (await maps.patch(made, {"data": {"b": "3"}}, form="strategic")).data == {"a": "2", "b": "3"}
    with pytest.raises(errors.BadRequest, match="form is 'yaml': expected one of merge, strategic, json"):
        await maps.patch(made, {}, form="yaml")


async def test_a_dry_run_does_nothing(client, maps, name):
    made = await maps.create({"metadata": {"name": name}, "data": {"a": "1"}}, dry_run=True)
    assert made.data == {"a": "1"}
    assert await client.lister(MAPS, SPACE).get(name, default=None) is None
    made = await maps.create({"metadata": {"name": name}}, field_manager="tests")
    await maps.delete(made, dry_run=True)
    assert made.metadata.managedFields[0]["manager"] == "tests"
    assert await client.lister(MAPS, SPACE).get(name, not_older_than=made.resource_version)


async def test_a_subresource_is_written_under_its_name(client, name):
    pods = client.writer("pods", SPACE)
    spec = {"containers": [{"name": "main", "image": "nginx"}]}
    pod = await pods.create({"metadata": {"name": name}, "spec": spec})
    told = await pods.patch(pod, {"status": {"message": "so it is"}}, subresource="status")
    assert told.status.message == "so it is"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    assert (await pods.create(eviction, subresource="eviction")).status == "Success"


# -- what is refused -----------------------------------------------------------------------------------------


async def test_refusals_are_errors_by_their_reason(client, maps, name):
    made = await maps.create({"metadata": {"name": name}, "data": {"a": "1"}})
    with pytest.raises(errors.AlreadyExists, match=f'configmaps "{name}" already exists'):
        await maps.create({"metadata": {"name": name}})
    await maps.patch(made, {"data": {"a": "2"}})
    with pytest.raises(errors.Conflict, match="has been modified"):
        await maps.replace(made)
    with pytest.raises(errors.Invalid, match="metadata.name") as found:
        await maps.create({"metadata": {"name": "No Name"}})
    assert found.value.details["causes"][0]["field"] == "metadata.name"
    with pytest.raises(errors.UnsupportedMediaType):
        await maps.apply({"metadata": {"name": name}}, field_manager="tests")
    with pytest.raises(errors.NotFound, match='namespaces "nowhere" not found'):
        await client.writer(MAPS).create({"metadata": {"name": name}}, "nowhere")


async def test_an_object_that_took_the_name_is_not_deleted_in_the_place_of_the_one_that_was_read(maps, name):
    before = await maps.create({"metadata": {"name": name}})
    await maps.delete(before)
    await maps.create({"metadata": {"name": name}})
    with pytest.raises(errors.Conflict, match="UID in precondition"):
        await maps.delete(before)


async def test_what_makes_no_sense_is_not_sent(client, maps):
    refusals = (
        ({}, None, "the document has no metadata.name"),
        ({"metadata": {"name": "a", "namespace": "b"}}, "c", "is of namespace 'b', and 'c' was given"),
        (
            {"metadata": {"name": "a"}, "kind": "Pod"},
            None,
            "kind is 'Pod': the writer of v1/configmaps writes 'ConfigMap'",
        ),
        ({"metadata": {"name": "../pods"}}, None, "'../pods' is not the name of an object"),
        ({"metadata": {"name": "a", "namespace": ".."}}, None, "'..' is not the name of a namespace"),
    )
    for document, namespace, message in refusals:
        for write in (maps.create, maps.replace):
            with pytest.raises(errors.BadRequest, match=message):
                await write(document, namespace)
    with pytest.raises(errors.BadRequest, match="are in namespaces: say in which 'a' is"):
        await client.writer(MAPS).create({"metadata": {"name": "a"}})
    with pytest.raises(errors.BadRequest, match="are not in namespaces: leave 'shop' out"):
        await client.writer("nodes").delete("a", SPACE)
    with pytest.raises(TypeError, match="no parameter is called dryrun; there are dry_run, field_manager"):
        await maps.create({"metadata": {"name": "a"}}, dryrun=True)
    with pytest.raises(TypeError, match="a document cannot hold"):
        await maps.create({"metadata": {"name": "a"}, "data": {"x": object()}})
    with pytest.raises(UnknownResource, match="did you mean v1/configmaps"):
        await client.writer("v1/configmapz").create({"metadata": {"name": "a"}}, SPACE)


def test_a_gateway_that_is_read_only_says_what_to_do():
    with Thread() as installation, shoal.sync.connect(installation.url) as client:
        maps = client.writer(MAPS, "default")
        writes = (
            lambda: maps.create({"metadata": {"name": "a"}}),
            lambda: maps.patch("a", {"data": {}}),
            lambda: maps.delete("a", missing_ok=True),
        )
        for write in writes:
            with pytest.raises(errors.MethodNotAllowed) as found:
                write()
            assert found.value.message.endswith(
                "Shoal is read-only: write to the API server itself (a client of shoal.local), or have the gateway "
                "pass writes on with their writer's own credentials (gateway.writes: forward)"
            )
            assert found.value.code == 405


# -- once ----------------------------------------------------------------------------------------------------

KIND = b'{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"configmaps","singularName":"configmap",'
KIND += b'"namespaced":true,"kind":"ConfigMap","verbs":["create","list","watch"]}]}'
MADE = b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"shop"}}'
DOCUMENT = {"metadata": {"name": "a"}}


def status(code, reason):
    return f'{{"kind":"Status","status":"Failure","message":"m","reason":"{reason}","code":{code}}}'.encode()


def writing(*answers, timeout_s=30.0):
    """What a create ended with, and the times at which it was sent."""
    connection = ScriptedConnection(Answer([KIND]), *answers)

    async def write():
        client = Client(connection, where="there", rng=random.Random(1), timeout_s=timeout_s)
        try:
            return await client.writer(MAPS, "shop").create(DOCUMENT)
        except errors.ShoalError as error:
            return error
        finally:
            await client.aclose()

    ended = in_virtual_time(write())
    sent = [asked for asked in connection.asked if asked.request.method == "POST"]
    return ended, [asked.at - sent[0].at for asked in sent]


def test_only_who_is_told_when_to_come_again_writes_again():
    busy = Answer([status(429, "TooManyRequests")], 429, {"retry-after": "4"})
    made, times = writing(busy, busy, Answer([MADE], 201))
    assert (made.key, times) == ("shop/a", [0, 4, 8])
    refused, times = writing(busy, busy, busy, timeout_s=9.0)
    assert isinstance(refused, errors.TooManyRequests)
    assert times == [0, 4, 8]
    refused, times = writing(Answer([status(429, "TooManyRequests")], 429))
    assert isinstance(refused, errors.TooManyRequests)
    assert times == [0]


def test_a_write_that_may_have_been_done_is_not_sent_again_and_says_so():
    refused, times = writing(Answer([status(503, "ServiceUnavailable")], 503, {"retry-after": "1"}))
    assert isinstance(refused, errors.NotReady)
    assert times == [0]
    lost, times = writing(errors.ConnectionFailed("the connection broke"))
    assert lost.__notes__ == ["POST /api/v1/namespaces/shop/configmaps may have been done"]
    assert times == [0]
    never = errors.ConnectionFailed("nobody listens")
    never.sent = False
    assert not hasattr(writing(never)[0], "__notes__")
    silent, times = writing(Answer([MADE], 201, head_after_s=60))
    assert isinstance(silent, errors.TimedOut)
    assert silent.message.endswith("within 30 s: it may have been done")


def test_what_apply_asks():
    connection = ScriptedConnection(Answer([KIND]), Answer([MADE], 201), Answer([MADE]))

    async def apply():
        client = Client(connection, where="there", rng=random.Random(1))
        maps = client.writer(MAPS, "shop")
        await maps.apply({**DOCUMENT, "data": {"x": "y"}}, field_manager="tests")
        await maps.apply(DOCUMENT, field_manager="tests", force=True, dry_run=True)
        await client.aclose()

    in_virtual_time(apply())
    first, second = (asked.request for asked in connection.asked[1:])
    assert (first.method, first.path) == ("PATCH", "/api/v1/namespaces/shop/configmaps/a")
    assert first.query == (("fieldManager", "tests"),)
    assert dict(first.headers)["Content-Type"] == "application/apply-patch+yaml"
    assert b'"apiVersion":"v1","kind":"ConfigMap"' in first.body
    assert dict(second.query) == {"force": "true", "dryRun": "All", "fieldManager": "tests"}
