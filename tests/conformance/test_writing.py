"""Create, update, patch, delete and definitions, against what is written to directly."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from conformance.backends import PATIENCE_S, Backend

JSON_PATCH = "application/json-patch+json"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def test_create_twice(written: Backend) -> None:
    await written.create("configmaps", "a")
    answer = await written.writer.ask("POST", written.path("configmaps"), {"metadata": {"name": "a"}})
    assert (answer.status, answer.document["reason"]) == (409, "AlreadyExists")


async def test_create_what_cannot_be(written: Backend) -> None:
    path = written.path("configmaps")
    for document, status in (
        ({"kind": "ConfigMap"}, 422),
        ({"metadata": {"name": "No_Good"}}, 422),
        ([1], 400),
        ({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}, 400),
    ):
        assert (await written.writer.ask("POST", path, document)).status == status
    nowhere = "/api/v1/namespaces/there-is-none/configmaps"
    assert (await written.writer.ask("POST", nowhere, {"metadata": {"name": "a"}})).status == 404


async def test_an_update_of_an_old_version_is_refused(written: Backend) -> None:
    made = await written.create("configmaps", "a", data={"k": "1"})
    path = written.path("configmaps", "a")
    answer = await written.writer.ask("PUT", path, {**made, "data": {"k": "2"}})
    assert (answer.status, answer.document["data"]) == (200, {"k": "2"})
    assert answer.document["metadata"]["uid"] == made["metadata"]["uid"]
    answer = await written.writer.ask("PUT", path, {**made, "data": {"k": "3"}})
    assert (answer.status, answer.document["reason"]) == (409, "Conflict")


async def test_patches(written: Backend) -> None:
    await written.create("configmaps", "a", data={"k": "1", "l": "2"})
    patched = await written.patch("configmaps", "a", {"data": {"k": None, "m": "3"}})
    assert patched["data"] == {"l": "2", "m": "3"}
    path = written.path("configmaps", "a")
    operations = [{"op": "replace", "path": "/data/m", "value": "4"}]
    answer = await written.writer.ask("PATCH", path, operations, content_type=JSON_PATCH)
    assert answer.document["data"] == {"l": "2", "m": "4"}
    operations = [{"op": "test", "path": "/data/m", "value": "5"}]
    assert (await written.writer.ask("PATCH", path, operations, content_type=JSON_PATCH)).status == 422
    same = await written.patch("configmaps", "a", {"data": {"m": "4"}})
    assert same["metadata"]["resourceVersion"] == answer.document["metadata"]["resourceVersion"]


async def test_delete(written: Backend) -> None:
    made = await written.create("configmaps", "a")
    answer = await written.writer.ask("DELETE", written.path("configmaps", "a"))
    assert (answer.status, answer.document["status"]) == (200, "Success")
    assert answer.document["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert (await written.writer.ask("DELETE", written.path("configmaps", "a"))).status == 404


async def test_the_status_subresource(written: Backend) -> None:
    spec = {
        "selector": {"matchLabels": {"a": "b"}},
        "replicas": 0,
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "main", "image": "registry.example.com/app:1"}]},
        },
    }
    await written.create("apps/v1/deployments", "d", spec=spec)
    change = {"spec": {"replicas": 7}, "status": {"observedGeneration": 5}}
    path = written.path("apps/v1/deployments", "d/status")
    answer = await written.writer.ask("PATCH", path, change, content_type="application/merge-patch+json")
    assert (answer.document["spec"]["replicas"], answer.document["status"]["observedGeneration"]) == (0, 5)


async def test_methods_there_are_not(written: Backend) -> None:
    answer = await written.writer.ask("PUT", "/api/v1/configmaps", {})
    assert (answer.status, answer.document["reason"]) == (405, "MethodNotAllowed")


async def test_a_custom_resource_comes_and_goes(written: Backend) -> None:
    # A definition belongs to the whole cluster: its group is one that nobody else can have.
    group = f"shoal-conformance-{secrets.token_hex(8)}.example.com"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    document: dict[str, Any] = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    widgets = written.path(f"{group}/v1/widgets")
    try:
        # Within the try: an answer that is lost on its way may have been a 201.
        assert (await written.writer.ask("POST", DEFINITIONS, document)).status == 201
        async with asyncio.timeout(PATIENCE_S):
            while (await written.writer.ask("GET", widgets)).status != 200:
                await asyncio.sleep(0.1)
        widget = {
            "apiVersion": f"{group}/v1",
            "kind": "Widget",
            "metadata": {"name": "w"},
            "spec": {"size": 1},
        }
        assert (await written.writer.ask("POST", widgets, widget)).status == 201
        listed = await written.writer.get(widgets)
        assert (listed["kind"], listed["items"][0]["kind"]) == ("WidgetList", "Widget")

        async def undefine() -> None:
            await written.writer.ask("DELETE", f"{DEFINITIONS}/widgets.{group}")

        events = await written.writer.events(widgets, during=undefine, resourceVersion="0")
        assert [kind for kind, _ in events][0 :: len(events) - 1] == ["ADDED", "DELETED"]
    finally:
        left = await written.writer.ask("DELETE", f"{DEFINITIONS}/widgets.{group}")
    assert left.status in (200, 404), left.document
    async with asyncio.timeout(PATIENCE_S):
        while (await written.writer.ask("GET", widgets)).status != 404:
            await asyncio.sleep(0.1)
