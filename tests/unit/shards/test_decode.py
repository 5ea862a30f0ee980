"""Lines and pages, decoded: exact bodies, the fast path and the general one, garbage, and long lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.observed import (
    CONFIG_MAPS,
    POD,
    PODS,
    WIDGETS,
    WIRE,
    changed,
    cluster_objects,
    compact,
    line,
    only,
    wire,
    wire_lines,
    without_managed_fields,
)

from shoal.shards.api.decode import Decoder
from shoal.shards.model.fields import SELECTABLE_FIELDS, field_value
from shoal.shards.model.observations import Bookmark, ErrorLine, GarbageLine, Observation
from shoal.shards.model.resources import Resource, ResourceType


@pytest.fixture
def no_rebuild(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where the fast path is left."""

    def refuse(_: Decoder, raw: bytes, *, deleted: bool) -> Observation:
        raise AssertionError(f"slow path for {raw[:100]!r}")

    monkeypatch.setattr(Decoder, "_rebuild", refuse)


def _streams_objects(name: str) -> bool:
    recorded = wire(name)
    return (
        recorded["response"].get("status") == 200
        and "lines" in recorded["response"]
        and "as=" not in recorded["request"]["headers"].get("Accept", "")
    )


# -- recorded ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_rebuild")
def test_every_recorded_object_keeps_all_but_managed_fields_on_the_fast_path() -> None:
    for resource_type, document in cluster_objects():
        decoder = Decoder(resource_type)
        found = only(decoder, line(document))
        assert json.loads(found.body) == without_managed_fields(document)
        assert b'"managedFields"' not in found.body or "customresourcedefinition" in str(
            resource_type.resource
        )
        assert (found.key, found.uid) == (
            "/".join(filter(None, (document["metadata"].get("namespace"), document["metadata"]["name"]))),
            document["metadata"]["uid"],
        )
        assert json.loads(found.labels or b"{}") == document["metadata"].get("labels", {})
        name = resource_type.resource.qualified_name
        assert found.fields == tuple(field_value(document, name, field) for field in decoder.fields)


def test_every_recorded_object_in_a_list_gets_kind_and_api_version_in_front() -> None:
    for resource_type, document in cluster_objects():
        item = document
        if not resource_type.custom:
            item = {name: value for name, value in document.items() if name not in ("kind", "apiVersion")}
        body = compact(
            {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": [item]}
        )
        (found,) = Decoder(resource_type).page(body).observations
        expected = without_managed_fields(document)
        assert list(json.loads(found.body).items()) == list(expected.items())


def test_fast_and_general_path_agree_on_every_recorded_object() -> None:
    for resource_type, document in cluster_objects()[::7]:
        decoder = Decoder(resource_type)
        text = line(document)
        general = only(decoder, text.replace(b'"object":{', b'"object": {', 1))
        assert general == only(decoder, text)


@pytest.mark.parametrize(
    "name", sorted(filter(_streams_objects, (path.stem for path in WIRE.glob("*.json"))))
)
def test_recorded_watches(name: str) -> None:
    recorded = wire(name)
    widgets = "widgets" in recorded["request"]["path"]
    decoder = Decoder(WIDGETS if widgets else CONFIG_MAPS)
    for text in wire_lines(name):
        (found,) = decoder.lines(text + b"\n")
        event = json.loads(text)
        match found:
            case Observation():
                assert event["type"] in ("ADDED", "MODIFIED", "DELETED")
                assert found.deleted == (event["type"] == "DELETED")
                assert json.loads(found.body) == without_managed_fields(event["object"])
                assert found.version == int(event["object"]["metadata"]["resourceVersion"])
            case Bookmark():
                assert event["type"] == "BOOKMARK"
                assert found.version == int(event["object"]["metadata"]["resourceVersion"])
                annotations = event["object"]["metadata"].get("annotations", {})
                assert found.initial_events_end == ("k8s.io/initial-events-end" in annotations)
            case ErrorLine():
                assert event["type"] == "ERROR"
                assert (found.code, found.reason) == (event["object"]["code"], event["object"]["reason"])
                assert found.status == event["object"]
            case _:
                pytest.fail(f"{found}")


@pytest.mark.parametrize("name", ["list-page-1", "list-page-2", "list-sharded-uid-low", "list-full"])
def test_recorded_lists(name: str) -> None:
    body = wire(name)["response"]["body"]
    document = json.loads(body)
    page = Decoder(CONFIG_MAPS).page(body.encode())
    assert page.version == int(document["metadata"]["resourceVersion"])
    assert page.continue_token == document["metadata"].get("continue", "")
    assert page.shard_selector == document["metadata"].get("shardInfo", {}).get("selector", "")
    found_all = list(page.observations)
    assert [json.loads(found.body) for found in found_all] == [
        {"kind": "ConfigMap", "apiVersion": "v1"} | without_managed_fields(item) for item in document["items"]
    ]
    assert all(found.body.startswith(b'{"kind":"ConfigMap","apiVersion":"v1",') for found in found_all)


def test_custom_resources_stay_as_they_are() -> None:
    found = only(Decoder(WIDGETS), wire_lines("crd-deleted-while-watched")[2] + b"\n")
    assert found.deleted
    assert found.key == "alpha/w-0"
    assert found.fields == ("0", "")
    assert found.body.startswith(
        b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"creationTimestamp"'
    )


# -- the cut -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(POD, id="plain"),
        pytest.param(changed(POD, managedFields=[]), id="empty"),
        pytest.param(changed(POD, managedFields=None), id="null"),
        pytest.param(changed(POD, managedFields=-1), id="a number"),
        pytest.param(changed(POD, managedFields=0) | {"spec": {"managedFields": [1], "a": 1}}, id="both"),
        pytest.param(
            changed(POD, managedFields=[{"fieldsV1": {'v:"x]},\\"s"': {}, "k:{[]}": {}}}]), id="brackets"
        ),
        pytest.param(changed(POD, managedFields=[{"a": [1, [2]]}, {"b": []}]), id="nested arrays"),
        pytest.param({"kind": "Pod", "apiVersion": "v1", "metadata": POD["metadata"]}, id="metadata only"),
        pytest.param(POD | {"spec": {"managedFields": [1], "a": 1}}, id="same key deeper"),
        pytest.param(
            POD | {"spec": {"copy": POD["metadata"], "managedFields": [{}], "z": 1}}, id="same bytes twice"
        ),
        pytest.param(
            without_managed_fields(POD) | {"spec": {"x": {"y": 1, "managedFields": [1], "z": 2}}},
            id="only deeper",
        ),
        pytest.param(
            changed(POD, annotations={"a": ',"managedFields":[', "b": ']},"spec":'}), id="in a text"
        ),
        pytest.param(
            POD | {"metadata": {"managedFields": [1], **without_managed_fields(POD)["metadata"]}}, id="first"
        ),
        pytest.param(
            {"metadata": POD["metadata"], "spec": {}, "kind": "Pod", "apiVersion": "v1"}, id="kind last"
        ),
        pytest.param(POD | {"spec": None, "status": None}, id="nulls"),
        pytest.param(POD | {"spec": {"nodeName": 5, "hostNetwork": "yes"}}, id="odd types"),
        pytest.param(changed(POD, labels=None), id="no labels"),
        pytest.param(changed(POD, annotations={"ä": "日本 \u2028 😀"}), id="not ascii"),
    ],
)
@pytest.mark.parametrize("form", ["watch", "list"])
def test_the_body_is_the_object_without_its_own_managed_fields(document: dict[str, Any], form: str) -> None:
    decoder = Decoder(PODS)
    if form == "watch":
        found = only(decoder, line(document))
    else:
        item = {name: value for name, value in document.items() if name not in ("kind", "apiVersion")}
        body = compact({"metadata": {"resourceVersion": "9"}, "items": [item]})
        (found,) = decoder.page(body).observations
    assert json.loads(found.body) == without_managed_fields(document)
    assert found.body.startswith(b'{"kind":"Pod","apiVersion":"v1",')
    assert found.fields == tuple(field_value(document, "pods", field) for field in decoder.fields)
    assert (found.key, found.namespace, found.uid, found.version) == ("n/a", "n", "u", 7)
    assert found.labels == (b"" if document["metadata"].get("labels") is None else b'{"app":"web"}')


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"type": "MODIFIED", "object": POD}, indent=None).encode(),
        json.dumps({"object": POD, "type": "MODIFIED"}).encode(),
        line(POD).strip().replace(b'"managedFields"', rb'"managed\u0046ields"'),
        line(POD).strip() + b"\r",
    ],
)
def test_any_layout_is_understood(text: bytes) -> None:
    found = only(Decoder(PODS), text + b"\n")
    assert json.loads(found.body) == without_managed_fields(POD)


def test_managed_fields_can_be_kept() -> None:
    decoder = Decoder(PODS, keep_managed_fields=True)
    assert json.loads(only(decoder, line(POD)).body) == POD
    spaced = json.dumps({"type": "MODIFIED", "object": POD}).encode() + b"\n"
    assert json.loads(only(decoder, spaced).body) == POD


# -- fields --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "document", "expected"),
    [
        ("pods", POD, ("node-1", "Always", "", "", "false", "Running", "10.0.0.1", "", "")),
        (
            "pods",
            POD | {"spec": {"hostNetwork": True}},
            ("", "", "", "", "true", "Running", "10.0.0.1", "", ""),
        ),
        ("nodes", POD | {"spec": {"unschedulable": True}}, ("true",)),
        ("nodes", POD, ("false",)),
        ("replicasets.apps", POD | {"status": {"replicas": 3}}, ("3",)),
        ("replicasets.apps", POD, ("0",)),
        ("jobs.batch", POD | {"status": {"succeeded": 2}}, ("2",)),
    ],
)
def test_field_values_are_kube_apiservers(
    resource: str, document: dict[str, Any], expected: tuple[str, ...]
) -> None:
    name, _, group = resource.partition(".")
    resource_type = ResourceType(
        resource=Resource(group, "v1", name),
        kind="Pod",
        namespaced=True,
        selectable_fields=SELECTABLE_FIELDS[resource],
    )
    document = document | {"apiVersion": resource_type.resource.api_version}
    assert only(Decoder(resource_type), line(document)).fields == expected
    assert only(Decoder(resource_type), line(document).replace(b":", b": ")).fields == expected


@pytest.mark.parametrize(
    ("event", "source"),
    [
        ({"source": {"component": "kubelet"}, "reportingComponent": "other"}, "kubelet"),
        ({"source": {}, "reportingComponent": "other"}, "other"),
        ({"reportingComponent": "other"}, "other"),
        ({}, ""),
    ],
)
def test_the_source_of_an_event_falls_back_to_its_reporter(event: dict[str, Any], source: str) -> None:
    events = ResourceType(
        resource=Resource("", "v1", "events"),
        kind="Event",
        namespaced=True,
        selectable_fields=SELECTABLE_FIELDS["events"],
    )
    document = {"kind": "Event", "apiVersion": "v1", "metadata": POD["metadata"]} | event
    found = only(Decoder(events), line(document))
    assert found.fields[SELECTABLE_FIELDS["events"].index("source")] == source


@pytest.mark.usefixtures("no_rebuild")
@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (True, "true"), (False, "false"), (None, ""), ("x", "x")]
)
def test_custom_fields_of_any_scalar_type_take_the_fast_path(value: object, text: str) -> None:
    document = {"apiVersion": "example.com/v1", "kind": "Widget"} | {"metadata": POD["metadata"]}
    found = only(Decoder(WIDGETS), line(document | {"spec": {"size": value}}))
    assert found.fields == (text, "")


@pytest.mark.parametrize("depth", [1_500, 9_000])
def test_an_object_nested_as_deeply_as_the_server_takes_them_is_followed(depth: int) -> None:
    """It used to be garbage, and kept its whole resource from ever being synced."""
    nested = b'{"a":' * depth + b"1" + b"}" * depth
    item = (
        b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"deep","namespace":"a",'
        b'"resourceVersion":"7","uid":"u"},"spec":' + nested + b"}"
    )
    assert only(Decoder(WIDGETS), b'{"type":"ADDED","object":' + item + b"}\n").body == item
    page = b'{"apiVersion":"example.com/v1","items":[' + item + b'],"metadata":{"resourceVersion":"9"}}'
    (found,) = Decoder(WIDGETS).page(page).observations
    assert (found.key, found.body) == ("a/deep", item)


def test_a_version_of_thousands_of_digits_is_garbage_and_nothing_worse() -> None:
    """Python refuses to make a number of so many digits; that used to end the reflector."""
    text = compact(changed(POD, resourceVersion="9" * 5_000))
    (found,) = Decoder(PODS).lines(b'{"type":"MODIFIED","object":' + text + b"}\n")
    assert isinstance(found, GarbageLine)
