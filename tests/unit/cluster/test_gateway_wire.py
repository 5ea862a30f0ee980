"""The gateway against the recorded answers of a real kube-apiserver: the same bytes for the same objects."""

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from support.local_shards import CONFIG_MAPS, PODS, LocalInstallation

from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace
from shoal.shards.model.resources import PrinterColumn, Resource, ResourceType

WIRE = Path(__file__).parents[2] / "wire"
RECORDED_AT = datetime(2026, 11, 20, 9, 1, 8, tzinfo=UTC)
"""When the recorded Tables were made: their ages say 4s."""
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def recorded(name):
    return json.loads((WIRE / f"{name}.json").read_text())


def items(name):
    return msgspec.json.decode(recorded(name)["response"]["body"], type=_List).items


class _List(msgspec.Struct):
    items: list[msgspec.Raw]


def bodies(resource_type, *names):
    """The items of recorded lists as a store keeps them: with kind and apiVersion in front."""
    prefix = f'{{"kind":"{resource_type.kind}","apiVersion":"{resource_type.resource.api_version}",'.encode()
    return [prefix + bytes(item)[1:] for name in names for item in items(name)]


def installation(version=220, *, divided=True):
    """What the recorded server held; the ConfigMaps divided over two shards."""
    made = LocalInstallation(2, now=lambda: RECORDED_AT)
    alpha = bodies(CONFIG_MAPS, "list-full")
    if divided:
        made.hold(CONFIG_MAPS, alpha, cover=OneNamespace("alpha"), shard=0, version=version)
        made.hold(CONFIG_MAPS, cover=ExceptNamespaces(("alpha",)), shard=1, version=version)
    else:
        made.hold(CONFIG_MAPS, alpha, version=version)
    made.hold(PODS, bodies(PODS, "list-field-selector-pods"), version=version)
    made.server_version = recorded("version")["response"]["body"].encode()
    made.publish()
    return made


async def replay(name, version=220, **options):
    exchange = recorded(name)
    request = exchange["request"]
    path, mark, query = request["path"].partition("?")
    target = path + mark + quote(query, safe="=&%,!()")
    reply = await installation(version, **options).ask(
        target, method=request["method"], accept=request["headers"]["Accept"]
    )
    return reply, exchange["response"]


SAME_HEADERS = ("content-type", "cache-control", "retry-after", "x-content-type-options")


def check_head(reply, response):
    assert reply.status == response["status"]
    headers = {name.lower(): value for name, value in response["headers"].items()}
    for name in SAME_HEADERS:
        assert reply.headers.get(name) == headers.get(name), name
    assert reply.complete


@pytest.mark.parametrize("divided", [True, False])
@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("get", 220),
        ("get-missing", 220),
        ("get-partial-metadata", 220),
        ("list-full", 74),
        ("list-exact", 74),
        ("list-not-older-than", 74),
        ("list-limit-rv0", 74),
        ("list-negative-limit", 220),
        ("list-label-selector", 220),
        ("list-missing-namespace", 220),
        ("list-field-selector-pods", 220),
        ("list-bad-field-selector", 220),
        ("list-bad-label-selector", 220),
        ("list-bad-limit", 220),
        ("list-bad-rv", 220),
        ("list-unknown-group", 220),
        ("list-unknown-resource", 220),
        ("crd-gone-list", 220),
        ("not-acceptable", 220),
        ("version", 220),
    ],
)
async def test_the_answer_has_the_recorded_bytes(name, version, divided):
    reply, response = await replay(name, version, divided=divided)
    check_head(reply, response)
    assert reply.body.decode() == response["body"]


@pytest.mark.parametrize("name", ["list-page-1", "list-partial-metadata", "list-table-configmaps"])
async def test_a_first_page_differs_in_its_token_only(name):
    version = json.loads(recorded(name)["response"]["body"])["metadata"]["resourceVersion"]
    reply, response = await replay(name, int(version))
    check_head(reply, response)
    token = reply.json["metadata"]["continue"]
    recorded_token = json.loads(response["body"])["metadata"]["continue"]
    assert token != recorded_token
    assert reply.body.decode().replace(token, recorded_token) == response["body"]


async def test_the_second_page_follows_the_first_with_our_token():
    made = installation(74)
    response = recorded("list-page-2")["response"]
    first = await made.ask("/api/v1/namespaces/alpha/configmaps?limit=2")
    token = first.json["metadata"]["continue"]
    reply = await made.ask(f"/api/v1/namespaces/alpha/configmaps?limit=2&continue={token}")
    check_head(reply, response)
    ours, theirs = reply.json["metadata"]["continue"], json.loads(response["body"])["metadata"]["continue"]
    assert reply.body.decode().replace(ours, theirs) == response["body"]


@pytest.mark.parametrize(
    "name", ["list-bad-continue", "list-continue-expired", "list-exact-expired", "list-future-rv"]
)
async def test_an_error_has_the_recorded_status(name, monkeypatch):
    monkeypatch.setattr("shoal.cluster.query.fanout.WAIT_S", 0.01)
    made = installation(220)
    request, response = recorded(name)["request"], recorded(name)["response"]
    target = request["path"]
    if name == "list-continue-expired":
        page = await made.ask("/api/v1/namespaces/alpha/configmaps?limit=2")
        target = f"/api/v1/namespaces/alpha/configmaps?limit=2&continue={page.json['metadata']['continue']}"
    for shard in made.shards.values():
        for partition in shard.partitions.values():
            partition.put(version=221)
            partition.forget(before=221)
    reply = await made.ask(target)
    check_head(reply, response)
    ours, theirs = reply.json, json.loads(response["body"])
    match name:
        case "list-continue-expired":
            assert ours["metadata"].pop("continue")
            assert theirs["metadata"].pop("continue")
        case "list-bad-continue":
            assert ours["message"].startswith("invalid continue token: ")
        case "list-future-rv":
            assert ours["message"] == theirs["message"].replace("220", "221")
            ours["message"] = theirs["message"]
    assert list(ours) == list(theirs)
    assert ours == theirs
    assert reply.body.endswith(b"\n")


async def test_a_write_is_refused_as_the_api_server_refuses_methods():
    response = recorded("method-not-allowed")["response"]
    reply = await installation().ask("/api/v1/configmaps", method="PUT")
    check_head(reply, response)
    ours, theirs = reply.json, json.loads(response["body"])
    assert ours.pop("message").startswith(theirs.pop("message"))
    assert list(ours) == list(theirs)
    assert ours == theirs


WIDGETS = ResourceType(
    resource=Resource("example.com", "v1", "widgets"),
    kind="Widget",
    namespaced=True,
    singular="widget",
    verbs=("get", "list", "watch"),
    custom=True,
    printer_columns=(PrinterColumn(name="Size", type="string", json_path=".spec.size"),),
)


async def test_a_table_of_custom_resources_has_the_recorded_columns():
    response = recorded("crd-list-table")["response"]
    theirs = json.loads(response["body"])
    made = LocalInstallation(1)
    objects = [
        {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "metadata": row["object"]["metadata"],
            "spec": {"size": row["cells"][1]},
        }
        for row in theirs["rows"]
    ]
    made.hold(WIDGETS, [msgspec.json.encode(one) for one in objects], version=252)
    made.publish()
    reply = await made.ask("/apis/example.com/v1/namespaces/alpha/widgets", accept=TABLE)
    check_head(reply, response)
    assert reply.json["columnDefinitions"] == theirs["columnDefinitions"]
    assert [row["cells"] for row in reply.json["rows"]] == [row["cells"] for row in theirs["rows"]]
    assert reply.json["metadata"] == theirs["metadata"]
