"""What the embedded API server refuses: objects of wrong types, bodies nested too deeply, and its own accidents."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from support.apiserver import Caller, in_virtual_time, virtual_apiserver

from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.cluster.simulator.watching import Watch
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import ConnectionFailed

MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
DEFINITION = {
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {}}],
    },
}
WRONG = [
    ({"metadata": {"name": 5}}, "number into Go struct field ObjectMeta.metadata.name of type string"),
    (
        {"metadata": {"generateName": 5}},
        "number into Go struct field ObjectMeta.metadata.generateName of type string",
    ),
    (
        {"metadata": {"name": "a", "labels": {"a": 1}}},
        "number into Go struct field ObjectMeta.metadata.labels of type string",
    ),
    (
        {"metadata": {"name": "a", "labels": ["a"]}},
        "array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
    ),
    (
        {"metadata": {"name": "a", "annotations": {"a": {}}}},
        "object into Go struct field ObjectMeta.metadata.annotations of type string",
    ),
    (
        {"metadata": {"name": "a", "finalizers": "x"}},
        "string into Go struct field ObjectMeta.metadata.finalizers of type []string",
    ),
    (
        {"metadata": {"name": "a", "finalizers": [True]}},
        "bool into Go struct field ObjectMeta.metadata.finalizers of type string",
    ),
    (
        {"metadata": {"name": "a", "ownerReferences": {}}},
        "object into Go struct field ObjectMeta.metadata.ownerReferences of type []v1.OwnerReference",
    ),
    (
        {"metadata": {"name": "a", "ownerReferences": [{"uid": 7}]}},
        "number into Go struct field OwnerReference.metadata.ownerReferences.uid of type types.UID",
    ),
    (
        {"metadata": {"name": "a", "generation": "1"}},
        "string into Go struct field ObjectMeta.metadata.generation of type int64",
    ),
    ({"metadata": 5}, "number into Go struct field ConfigMap.metadata of type v1.ObjectMeta"),
]
WRONG_DATA = [
    ({"data": 5}, "number into Go struct field ConfigMap.data of type map[string]string"),
    ({"data": {"a": 1}}, "number into Go struct field ConfigMap.data of type string"),
    ({"data": {"a": ["b"]}}, "array into Go struct field ConfigMap.data of type string"),
    ({"binaryData": {"a": 1}}, "number into Go struct field ConfigMap.binaryData of type []uint8"),
    ({"immutable": "yes"}, "string into Go struct field ConfigMap.immutable of type bool"),
]


def caller() -> Caller:
    return Caller(virtual_apiserver(SimulatorSettings(seed=1)))


def refusal(kind: str, problem: str) -> str:
    return f'{kind} in version "v1" cannot be handled as a {kind}: json: cannot unmarshal {problem}'


def nested(levels: int) -> bytes:
    """A ConfigMap whose spec is nested so deeply, made by hand because encoders have limits of their own."""
    inside = b'{"z":' * levels + b"1" + b"}" * levels
    return b'{"metadata":{"name":"deep"},"spec":' + inside + b"}"


async def send(
    server: Caller,
    method: str,
    path: str,
    body: bytes,
    media: str = "application/json",
    *,
    accept: str = "application/json",
) -> tuple[int, bytes]:
    """Status and the raw answer to a body that is sent as it is."""
    request = ApiRequest(method, path, (), (("Accept", accept), ("Content-Type", media)), body)
    async with server.connection.open(request) as response:
        return response.status, await response.read()


# -- types ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "problem"), WRONG + [({"metadata": {"name": "a"}} | d, p) for d, p in WRONG_DATA]
)
def test_an_object_of_wrong_types_is_not_created(members: dict[str, Any], problem: str) -> None:
    async def main() -> None:
        server = caller()
        status, answer = await server.ask("POST", MAPS, members)
        assert (status, answer["reason"]) == (400, "BadRequest")
        assert answer["message"] == refusal("ConfigMap", problem)
        assert not len(server.app.storage.collection("configmaps"))

    in_virtual_time(main())


@pytest.mark.parametrize(("members", "problem"), WRONG)
def test_an_object_does_not_get_wrong_types_later(members: dict[str, Any], problem: str) -> None:
    async def main() -> None:
        server = caller()
        made = await server.create(MAPS, "a")
        status, answer = await server.ask("PUT", f"{MAPS}/a", members)
        assert (status, answer["message"]) == (400, refusal("ConfigMap", problem))
        for media in ("merge-patch", "strategic-merge-patch"):
            kind = {"Content-Type": f"application/{media}+json"}
            status, answer = await server.ask("PATCH", f"{MAPS}/a", members, headers=kind)
            assert (status, answer["reason"]) == (422, "Invalid"), (media, answer)
        operations = [
            {"op": "add", "path": f"/metadata/{name}", "value": value}
            for name, value in (members["metadata"].items() if isinstance(members["metadata"], dict) else ())
        ]
        operations = operations or [{"op": "replace", "path": "/metadata", "value": members["metadata"]}]
        kind = {"Content-Type": "application/json-patch+json"}
        status, answer = await server.ask("PATCH", f"{MAPS}/a", operations, headers=kind)
        assert (status, answer["reason"]) == (422, "Invalid")
        assert problem in answer["message"]
        assert await server.get(f"{MAPS}/a") == made

    in_virtual_time(main())


def test_secrets_hold_base64() -> None:
    async def main() -> None:
        server = caller()
        for data, problem in (
            ({"a": 1}, refusal("Secret", "number into Go struct field Secret.data of type []uint8")),
            (
                {"a": "not base64"},
                'Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte 3',
            ),
        ):
            status, answer = await server.ask("POST", SECRETS, {"metadata": {"name": "s"}, "data": data})
            assert (status, answer["message"]) == (400, problem)
        wrong = {"metadata": {"name": "s"}, "stringData": {"a": 1}}
        assert (await server.ask("POST", SECRETS, wrong))[0] == 400
        made = await server.create(SECRETS, "s", data={"a": "Yg=="}, stringData={"c": "d"})
        assert made["data"] == {"a": "Yg==", "c": "ZA=="}

    in_virtual_time(main())


def test_custom_resources_have_typed_metadata_too() -> None:
    async def main() -> None:
        server = caller()
        assert (await server.ask("POST", DEFINITIONS, DEFINITION))[0] == 201
        for metadata in ({"name": 5}, {"name": "w", "labels": {"a": 1}}, {"name": "w", "finalizers": "x"}):
            status, answer = await server.ask("POST", WIDGETS, {"metadata": metadata, "data": 5})
            assert (status, answer["reason"]) == (400, "BadRequest"), answer
        assert (await server.ask("POST", WIDGETS, {"metadata": {"name": "w"}, "data": 5}))[0] == 201

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"metadata": {"name": "a", "labels": None, "finalizers": None}, "data": None}, None),
        ({"metadata": {"name": "a", "creationTimestamp": None, "ownerReferences": []}}, None),
        ({"metadata": {"name": "a", "creationTimestamp": "yesterday"}}, 'parsing time "yesterday"'),
        ({"metadata": {"name": "a", "somethingNew": 5}}, None),
        ({"kind": 5, "metadata": {"name": "a"}}, "of type string"),
        ({"apiVersion": [], "metadata": {"name": "a"}}, "of type string"),
    ],
)
def test_nulls_unknown_fields_and_times(members: dict[str, Any], problem: str | None) -> None:
    async def main() -> None:
        status, answer = await caller().ask("POST", MAPS, members)
        if problem is None:
            assert status == 201, answer
        else:
            assert (status, problem in answer["message"]) == (400, True), answer

    in_virtual_time(main())


def test_times_in_yaml_are_text() -> None:
    async def main() -> None:
        server = caller()
        body = b"metadata: {name: a, annotations: {day: 2026-11-20}}\ndata: {1: x}\n"
        status, answer = await send(server, "POST", MAPS, body, "application/yaml")
        assert (status, json.loads(answer)["metadata"]["annotations"]) == (201, {"day": "2026-11-20"})
        assert json.loads(answer)["data"] == {"1": "x"}

    in_virtual_time(main())


# -- depth ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("custom", [False, True])
def test_deep_objects_are_stored_changed_and_served(custom: bool) -> None:
    async def main() -> None:
        server = caller()
        if custom:
            assert (await server.ask("POST", DEFINITIONS, DEFINITION))[0] == 201
        path = WIDGETS if custom else MAPS
        body = nested(3_000)
        status, created = await send(server, "POST", path, body)
        assert (status, created.count(b'{"z":')) == (201, 3_000)
        for media, change in (
            ("application/merge-patch+json", b'{"metadata":{"labels":{"a":"b"}}}'),
            ("application/json-patch+json", b'[{"op":"add","path":"/metadata/labels/c","value":"d"}]'),
        ):
            status, patched = await send(server, "PATCH", f"{path}/deep", change, media)
            assert (status, patched.count(b'{"z":')) == (200, 3_000), patched[:300]
        version = server.app.storage.collections["widgets.example.com" if custom else "configmaps"].last
        again = body.replace(b'"name":"deep"', b'"name":"deep","resourceVersion":"%d"' % version)
        status, replaced = await send(server, "PUT", f"{path}/deep", again)
        assert (status, replaced.count(b'{"z":')) == (200, 3_000), replaced[:300]
        for accept in (
            "application/json",
            "application/json;as=Table;g=meta.k8s.io;v=v1",
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        ):
            assert (await send(server, "GET", path, b"", accept=accept))[0] == 200
        async with server.watch(f"{path}?resourceVersion=0&timeoutSeconds=1") as lines:
            line = await lines.raw()
        assert line is not None
        assert line.count(b'{"z":') == 3_000
        assert (await send(server, "DELETE", f"{path}/deep", b""))[0] == 200

    in_virtual_time(main())


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_an_object_nested_too_deeply_is_refused(method: str) -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "deep")
        path = MAPS if method == "POST" else f"{MAPS}/deep"
        media = "application/merge-patch+json" if method == "PATCH" else "application/json"
        for levels in (10_001, 60_000):
            status, answer = await send(server, method, path, nested(levels), media)
            found = json.loads(answer)
            assert (status, found["kind"], found["reason"]) == (400, "Status", "BadRequest"), levels
            assert "max depth" in found["message"]

    in_virtual_time(main())


# -- patches and accidents --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [5, "text", None, [1], []])
def test_a_patch_that_leaves_no_object_is_refused(value: object) -> None:
    async def main() -> None:
        server = caller()
        made = await server.create(MAPS, "a")
        headers = {"Content-Type": "application/json-patch+json"}
        for operations in (
            [{"op": "replace", "path": "", "value": value}],
            [{"op": "add", "path": "", "value": value}],
        ):
            status, answer = await server.ask("PATCH", f"{MAPS}/a", operations, headers=headers)
            assert (status, answer["kind"], answer["reason"]) == (422, "Status", "Invalid")
        assert await server.get(f"{MAPS}/a") == made

    in_virtual_time(main())


@pytest.mark.parametrize(
    "operations", [[5], [{"op": "add", "path": 5}], [{}], [{"op": "move", "path": "/a"}]]
)
def test_what_is_no_json_patch_is_refused(operations: object) -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        headers = {"Content-Type": "application/json-patch+json"}
        status, answer = await server.ask("PATCH", f"{MAPS}/a", operations, headers=headers)
        assert (status, answer["kind"]) in ((400, "Status"), (422, "Status"))

    in_virtual_time(main())


@pytest.mark.parametrize("options", [{"preconditions": 5}, {"preconditions": {"uid": 5}}, 5])
def test_what_are_no_delete_options_is_refused(options: object) -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a")
        status, answer = await server.ask("DELETE", f"{MAPS}/a", options)
        assert (status, answer["kind"]) == (400, "Status")
        await server.get(f"{MAPS}/a")

    in_virtual_time(main())


def test_an_accident_is_a_status(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("nobody expected this")

    async def main() -> None:
        server = caller()
        monkeypatch.setattr(server.app.verbs, "get", fail)
        status, answer = await server.ask("GET", f"{MAPS}/a")
        assert (status, answer["reason"], answer["code"]) == (500, "InternalError", 500)
        assert answer["message"] == "Internal error occurred: nobody expected this"
        (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
        assert record.exc_info is not None
        assert record.__dict__["path"] == f"{MAPS}/a"

    in_virtual_time(main())


def test_an_accident_in_the_middle_of_an_answer_breaks_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        monkeypatch.setattr(Watch, "run", fail)
        async with caller().watch(f"{MAPS}?timeoutSeconds=5") as lines:
            assert lines.response.status == 200
            with pytest.raises(ConnectionFailed):
                await lines.raw()
        assert [one.levelno for one in caplog.records].count(logging.ERROR) == 1

    in_virtual_time(main())
