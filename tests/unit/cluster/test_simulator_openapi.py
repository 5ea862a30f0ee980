"""The embedded API server's OpenAPI documents: what kubectl finds in them, and fields that no schema has."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from support.apiserver import Caller, in_virtual_time, virtual_apiserver

from shoal.cluster.simulator import openapi_models as models
from shoal.cluster.simulator.builtin import builtin_types
from shoal.cluster.simulator.openapi_custom import component, custom_schemas
from shoal.cluster.simulator.openapi_protobuf import swagger_protobuf
from shoal.cluster.simulator.openapi_strict import duplicate_fields, unknown_fields
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.resources import Resource, ResourceType

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
WIDGET_SCHEMA = {
    "type": "object",
    "description": "Widget is a thing.",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "string", "enum": ["S", "M"]},
                "port": {
                    "x-kubernetes-int-or-string": True,
                    "anyOf": [{"type": "integer"}, {"type": "string"}],
                },
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "parts": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"a": {"type": "integer"}}},
                },
                "template": {
                    "type": "object",
                    "x-kubernetes-embedded-resource": True,
                    "properties": {"spec": {}},
                },
            },
        }
    },
}
WIDGETS = ResourceType(
    resource=Resource("shop.example.com", "v1", "widgets"),
    kind="Widget",
    namespaced=True,
    verbs=("create", "get", "list", "patch"),
    custom=True,
)


def definition(schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.shop.example.com"},
        "spec": {
            "group": "shop.example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema or WIDGET_SCHEMA},
                }
            ],
        },
    }


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Client(Caller):
    """Asks with headers and tells those of the answer."""

    def __init__(self) -> None:
        super().__init__(virtual_apiserver())

    async def create_definition(self) -> None:
        status, answer = await self.ask("POST", DEFINITIONS, definition())
        assert status == 201, answer

    async def fetch(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        bare, _, query = path.partition("?")
        pairs = tuple(tuple(pair.split("=", 1)) for pair in query.split("&") if pair)
        given = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        async with self.connection.open(ApiRequest("GET", bare, pairs, given)) as response:
            return response.status, dict(response.headers), await response.read()


def schema_of(document: dict[str, Any], group: str, kind: str) -> dict[str, Any]:
    """The schema that says it is of this kind, as ``kubectl explain`` looks for it."""
    found = [
        schema
        for schema in document["components"]["schemas"].values()
        if any(
            entry["kind"] == kind and entry["group"] == group
            for entry in schema.get("x-kubernetes-group-version-kind", ())
        )
    ]
    assert len(found) == 1, kind
    return found[0]


def every_reference(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(every_reference, value.values())) if value else own
    if isinstance(value, list):
        return set().union(*map(every_reference, value)) if value else set()
    return set()


# -- documents --------------------------------------------------------------------------------------


def test_every_group_and_version_has_a_document_whose_references_all_lead_somewhere() -> None:
    async def main() -> None:
        client = Client()
        await client.create_definition()
        index = (await client.get("/openapi/v3"))["paths"]
        assert set(index) == {known.resource.root.lstrip("/") for known in builtin_types()} | {
            "apis/shop.example.com/v1"
        }
        for root, entry in index.items():
            document = await client.get(entry["serverRelativeURL"])
            assert document["openapi"] == "3.0.0"
            schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
            assert every_reference(document) <= schemas, root
            assert f"/{root}/" in document["paths"]

    in_virtual_time(main())


def test_components_are_named_as_the_api_server_names_them() -> None:
    async def main() -> None:
        client = Client()
        core = (await client.get("/openapi/v3/api/v1"))["components"]["schemas"]
        apps = (await client.get("/openapi/v3/apis/apps/v1"))["components"]["schemas"]
        batch = (await client.get("/openapi/v3/apis/batch/v1"))["components"]["schemas"]
        assert {"io.k8s.api.core.v1.Pod", "io.k8s.api.core.v1.Event", "io.k8s.api.core.v1.PodList"} <= set(
            core
        )
        assert {"io.k8s.api.policy.v1.Eviction", "io.k8s.api.autoscaling.v1.Scale"} <= set(core)
        # What other groups share with the core group is the core group's, and what all share is meta's.
        for document in (apps, batch):
            assert "io.k8s.api.core.v1.PodTemplateSpec" in document
            assert "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" in document
        assert "io.k8s.api.apps.v1.DeploymentSpec" in apps
        assert "io.k8s.api.apps.v1.PodSpec" not in apps
        limits = core["io.k8s.api.core.v1.ResourceRequirements"]["properties"]["limits"]
        assert limits["additionalProperties"] == {
            "$ref": "#/components/schemas/io.k8s.apimachinery.pkg.api.resource.Quantity"
        }
        port = core["io.k8s.api.core.v1.ServicePort"]["properties"]["targetPort"]
        assert port["allOf"] == [
            {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString"}
        ]
        containers = core["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
        assert containers["x-kubernetes-patch-merge-key"] == "name"
        assert core["io.k8s.api.core.v1.PodSpec"]["required"] == ["containers"]

    in_virtual_time(main())


def test_a_model_belongs_to_one_component_in_every_group() -> None:
    core = models.core_models(
        tuple(known.kind for known in builtin_types() if known.resource.api_version == "v1")
    )
    owners: dict[str, str] = {}
    by_place: dict[tuple[str, str], list[ResourceType]] = {}
    for known in builtin_types():
        by_place.setdefault((known.resource.group, known.resource.version), []).append(known)
    for place, resources in by_place.items():
        named = models.Components(*place, core)
        wanted = {name for kind in models.kinds(resources) if (name := models.model_of(*kind))}
        for model in models.closure(wanted):
            assert owners.setdefault(model, named.name(model)) == named.name(model)
    assert len(set(owners.values())) == len(owners)


def test_a_custom_kind_is_explained_and_its_list_too() -> None:
    async def main() -> None:
        client = Client()
        await client.create_definition()
        document = await client.get("/openapi/v3/apis/shop.example.com/v1")
        schema = schema_of(document, "shop.example.com", "Widget")
        assert schema["properties"]["spec"]["properties"]["size"]["enum"] == ["S", "M"]
        assert schema["properties"]["spec"]["properties"]["port"]["x-kubernetes-int-or-string"]
        assert schema["properties"]["metadata"]["allOf"][0]["$ref"].endswith("meta.v1.ObjectMeta")
        assert schema_of(document, "shop.example.com", "WidgetList")["properties"]["items"]["type"] == "array"
        assert "com.example.shop.v1.Widget" in document["components"]["schemas"]

    in_virtual_time(main())


def test_patch_says_that_the_server_validates_fields() -> None:
    async def main() -> None:
        client = Client()
        document = await client.get("/openapi/v3/apis/apps/v1")
        patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
        assert {"dryRun", "fieldValidation", "fieldManager"} <= {one["name"] for one in patch["parameters"]}
        assert patch["x-kubernetes-group-version-kind"] == {
            "group": "apps",
            "version": "v1",
            "kind": "Deployment",
        }
        assert patch["x-kubernetes-action"] == "patch"
        assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]
        identities = [
            operation["operationId"]
            for item in document["paths"].values()
            for operation in item.values()
            if isinstance(operation, dict)
        ]
        assert "patchAppsV1NamespacedDeployment" in identities
        assert "listAppsV1DeploymentForAllNamespaces" in identities
        assert len(set(identities)) == len(identities)

    in_virtual_time(main())


def test_what_is_not_served_is_not_described() -> None:
    async def main() -> None:
        client = Client()
        for path in ("/openapi/v3/apis/nope/v1", "/openapi/v3/api/v2", "/openapi/v4", "/openapi"):
            assert (await client.fetch(path))[0] == 404, path

    in_virtual_time(main())


# -- hashes and forms -------------------------------------------------------------------------------


def test_a_hash_makes_a_document_immutable_and_an_old_one_is_redirected() -> None:
    async def main() -> None:
        client = Client()
        await client.create_definition()
        url = (await client.get("/openapi/v3"))["paths"]["apis/shop.example.com/v1"]["serverRelativeURL"]
        status, headers, body = await client.fetch(url)
        assert status == 200
        assert headers["cache-control"] == "public, immutable"
        assert headers["expires"].endswith("GMT")
        assert headers["etag"] == f'"{url.partition("hash=")[2]}"'
        assert (await client.fetch(url, If_None_Match=headers["etag"]))[0] == 304
        bare = url.partition("?")[0]
        assert (await client.fetch(bare))[1]["cache-control"] == "no-cache, private"

        changed = definition({"type": "object", "properties": {"other": {"type": "string"}}})
        stored = await client.get(f"{DEFINITIONS}/widgets.shop.example.com")
        changed["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"]
        status, answer = await client.ask("PUT", f"{DEFINITIONS}/widgets.shop.example.com", changed)
        assert status == 200, answer
        status, headers, _ = await client.fetch(url)
        assert status == 301
        assert headers["location"].startswith(f"{bare}?hash=")
        assert headers["location"] != url
        status, _, fresh = await client.fetch(headers["location"])
        assert status == 200
        assert fresh != body
        assert b'"other"' in fresh

    in_virtual_time(main())


def test_hashes_do_not_depend_on_the_process() -> None:
    program = (
        "from shoal.cluster.simulator.server import build_app\n"
        "app = build_app()\n"
        "print(app.openapi._index()['apis/apps/v1']['serverRelativeURL'])\n"
        "import sys\n"
        "assert not [name for name in sys.modules if name.startswith('kubernetes.client')], 'imported early'\n"
    )
    texts = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(texts) == 1


def test_version_2_is_json_or_the_protobuf_clients_ask_for() -> None:
    async def main() -> None:
        client = Client()
        await client.create_definition()
        status, headers, body = await client.fetch("/openapi/v2", Accept="application/json")
        assert (status, headers["content-type"]) == (200, "application/json")
        swagger = json.loads(body)
        references = {f"#/definitions/{name}" for name in swagger["definitions"]}
        assert every_reference(swagger) <= references
        assert b'"oneOf":[' not in body
        assert swagger["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"] == "string"
        patch = swagger["paths"]["/apis/shop.example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"]
        assert patch["parameters"][0]["in"] == "body"
        assert "application/strategic-merge-patch+json" not in patch["consumes"]
        status, headers, encoded = await client.fetch("/openapi/v2", Accept=V2_PROTOBUF)
        assert status == 200
        assert headers["content-type"] == V2_PROTOBUF.replace("v2@", "v2.")
        assert encoded == swagger_protobuf(swagger)
        assert (await client.fetch("/openapi/v2", Accept="text/html"))[0] == 406
        assert (await client.fetch("/openapi/v3/api/v1", Accept="text/html"))[0] == 406

    in_virtual_time(main())


def test_protobuf_is_what_gnostic_reads() -> None:
    document = {
        "swagger": "2.0",
        "info": {"title": "T", "version": "v1"},
        "paths": {
            "/a": {
                "get": {"operationId": "x", "parameters": [{"name": "q", "in": "query", "type": "string"}]}
            }
        },
        "definitions": {"d": {"type": "object", "additionalProperties": {"$ref": "#/definitions/d"}}},
    }
    assert decoded(swagger_protobuf(document)) == {
        1: [b"2.0"],
        2: [{1: [b"T"], 2: [b"v1"]}],
        8: [{2: [{1: [b"/a"], 2: [{2: [{5: [b"x"], 8: [{1: [{2: [{3: [QUERY]}]}]}]}]}]}]}],
        9: [{1: [{1: [b"d"], 2: [{22: [{1: [b"object"]}], 21: [{1: [{1: [b"#/definitions/d"]}]}]}]}]}],
    }


QUERY = {4: [b"q"], 2: [b"query"], 6: [b"string"]}
_TEXTS = {b"2.0", b"T", b"v1", b"/a", b"x", b"q", b"query", b"string", b"d", b"object", b"#/definitions/d"}


def decoded(message: bytes) -> dict[int, list[Any]]:
    """Length-delimited fields; a text of the test's own stays one, anything else is a message."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(message):
        tag, length = message[at], message[at + 1]
        assert tag & 7 == 2 or tag > 127
        number, at = (tag >> 3, at + 1)
        if tag > 127:
            number, at = (tag & 0x7F | message[at] << 7) >> 3, at + 1
        length, at = message[at], at + 1
        content = message[at : at + length]
        at += length
        fields.setdefault(number, []).append(content if content in _TEXTS else decoded(content))
    return fields


# -- custom schemas ---------------------------------------------------------------------------------


def test_what_version_2_cannot_say_is_left_out() -> None:
    found = custom_schemas(WIDGETS, WIDGET_SCHEMA, version=2)[component("shop.example.com", "v1", "Widget")]
    spec = found["properties"]["spec"]["properties"]
    assert spec["port"] == {"x-kubernetes-int-or-string": True}
    assert "properties" not in spec["template"]
    nullable = {
        "type": "object",
        "properties": {"a": {"type": "string", "nullable": True, "description": "d"}},
    }
    found = custom_schemas(WIDGETS, nullable, version=2)[component("shop.example.com", "v1", "Widget")]
    assert found["properties"]["a"] == {"description": "d"}


def test_a_kind_without_a_schema_is_an_object() -> None:
    found = custom_schemas(WIDGETS, None, version=2)[component("shop.example.com", "v1", "Widget")]
    assert "properties" not in found
    found = custom_schemas(WIDGETS, None, version=3)[component("shop.example.com", "v1", "Widget")]
    assert found["x-kubernetes-preserve-unknown-fields"] is True
    assert set(found["properties"]) == {"apiVersion", "kind", "metadata"}


# -- unknown fields ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "unknown"),
    [
        ({"size": "S"}, []),
        ({"sise": "S"}, ["spec.sise"]),
        ({"open": {"anything": {"goes": 1}}}, []),
        ({"labels": {"any": "x"}}, []),
        ({"parts": [{"a": 1}, {"a": 1, "b": 2}]}, ["spec.parts[1].b"]),
        (
            {"template": {"apiVersion": "v1", "kind": "X", "metadata": {"nam": "y"}}},
            ["spec.template.metadata.nam"],
        ),
        ({"size": None, "$patch": "replace"}, []),
        ("not an object", []),
    ],
)
def test_unknown_fields_of_a_custom_resource(spec: Any, unknown: list[str]) -> None:
    name = component("shop.example.com", "v1", "Widget")
    schemas = custom_schemas(WIDGETS, WIDGET_SCHEMA, version=3) | {
        models.OBJECT_META: {"type": "object", "properties": {"name": {"type": "string"}}}
    }
    document = {
        "apiVersion": "shop.example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "x"},
        "spec": spec,
    }
    assert unknown_fields(document, name, schemas) == [f'unknown field "{path}"' for path in unknown]


def test_fields_named_twice() -> None:
    assert duplicate_fields(b'{"a":1,"b":{"c":1,"c":2,"c":3},"d":[{"e":1},{"e":1,"e":2}]}') == [
        'duplicate field "b.c"',
        'duplicate field "d[1].e"',
    ]
    assert duplicate_fields(b"a: 1") == []


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "label": {}},
    "spec": {"containers": [{"name": "c", "imag": "x", "resources": {"limits": {"cpu": "1"}}}]},
}
PODS = "/api/v1/namespaces/default/pods"
FOUND = 'unknown field "metadata.label", unknown field "spec.containers[0].imag"'


def test_strict_validation_refuses_what_no_schema_has() -> None:
    async def main() -> None:
        client = Client()
        status, answer = await client.ask("POST", f"{PODS}?fieldValidation=Strict", POD)
        assert status == 400
        assert answer["message"] == (
            f'Pod in version "v1" cannot be handled as a Pod: strict decoding error: {FOUND}'
        )
        status, answer = await client.ask("POST", f"{PODS}?fieldValidation=Sloppy", POD)
        assert status == 422
        assert 'supported values: "Ignore", "Strict", "Warn"' in answer["message"]
        assert (await client.ask("POST", f"{PODS}?fieldValidation=Ignore", POD))[0] == 201
        patch = {"spec": {"nodName": "x"}}
        headers = {"Content-Type": "application/merge-patch+json"}
        status, answer = await client.ask("PATCH", f"{PODS}/a?fieldValidation=Strict", patch, headers=headers)
        assert status == 400
        assert 'unknown field "spec.nodName"' in answer["message"]

    in_virtual_time(main())


def test_warnings_come_with_the_answer() -> None:
    async def main() -> None:
        client = Client()
        body = json.dumps(POD).encode()
        request = ApiRequest(
            "POST", PODS, (("fieldValidation", "Warn"),), (("Content-Type", "application/json"),), body
        )
        async with client.connection.open(request) as response:
            assert response.status == 201
            assert response.headers["warning"] == '299 - "unknown field \\"spec.containers[0].imag\\""'

    in_virtual_time(main())
