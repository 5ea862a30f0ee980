"""Writing: create, update, patch, delete, definitions, namespaces, over the application."""

from __future__ import annotations

from typing import Any

import pytest
from support.apiserver import Caller, brief, in_virtual_time, virtual_apiserver

from shoal.cluster.simulator.settings import SimulatorSettings

MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
MERGE = {"Content-Type": "application/merge-patch+json"}


def caller() -> Caller:
    return Caller(virtual_apiserver(SimulatorSettings(seed=1)))


def definition(**spec: Any) -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "schema": {}, **spec.pop("version", {})}
    names = {"plural": "widgets", "kind": "Widget", **spec.pop("names", {})}
    return {
        "metadata": {"name": f"{names['plural']}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": names,
            "versions": [version, *spec.pop("more", ())],
            **spec,
        },
    }


def test_a_seeded_server_repeats_itself_to_the_byte() -> None:
    async def main() -> list[bytes]:
        server = caller()
        await server.ask("POST", MAPS, {"metadata": {"generateName": "a-"}})
        await server.create(MAPS, "b", data={"k": "<&>"})
        return [one.body for one in server.app.storage.collection("configmaps").page().objects]

    first, second = in_virtual_time(main()), in_virtual_time(main())
    assert first == second
    assert rb"\u003c\u0026\u003e" in first[1]


def test_generate_name() -> None:
    async def main() -> None:
        status, made = await caller().ask("POST", MAPS, {"metadata": {"generateName": "a-"}})
        assert status == 201
        name = made["metadata"]["name"]
        assert name.startswith("a-")
        assert len(name) == len("a-") + 5

    in_virtual_time(main())


@pytest.mark.parametrize(
    ("path", "document", "status", "fragment"),
    [
        (MAPS, {"metadata": {"name": "A_b"}}, 422, "lowercase RFC 1123 subdomain"),
        (MAPS, {"metadata": {"name": "a", "namespace": "other"}}, 400, "does not match the namespace sent"),
        (MAPS, {"kind": "Pod", "metadata": {"name": "a"}}, 400, "cannot be handled as a ConfigMap"),
        (
            MAPS,
            {"apiVersion": "v2", "metadata": {"name": "a"}},
            400,
            "does not match the expected API version",
        ),
        (MAPS, {"metadata": {"name": "a", "resourceVersion": "1"}}, 500, "should not be set on objects"),
        (MAPS, {"metadata": 1}, 400, "ObjectMeta"),
        (
            "/api/v1/namespaces/nope/configmaps",
            {"metadata": {"name": "a"}},
            404,
            'namespaces "nope" not found',
        ),
        ("/api/v1/namespaces", {"metadata": {"name": "a.b"}}, 422, "RFC 1123 label"),
        (DEFINITIONS, {"metadata": {"name": "a"}}, 422, "spec: Required value"),
        (DEFINITIONS, definition(scope="Galaxy"), 422, 'Unsupported value: "Galaxy"'),
        (DEFINITIONS, definition(group="other.com"), 422, 'must be spec.names.plural+"."+spec.group'),
        (DEFINITIONS, definition(version={"storage": False}), 422, "exactly one version"),
    ],
)
def test_objects_that_cannot_be_created(path: str, document: Any, status: int, fragment: str) -> None:
    async def main() -> None:
        server = caller()
        revision = server.app.storage.revision
        answered, found = await server.ask("POST", path, document)
        assert (answered, fragment in found["message"]) == (status, True), found
        assert server.app.storage.revision == revision

    in_virtual_time(main())


def test_bodies_that_are_no_objects() -> None:
    async def main() -> None:
        server = caller()
        status, found = await server.ask("POST", MAPS, 5)
        assert (status, "cannot unmarshal number" in found["message"]) == (400, True)
        status, found = await server.ask("POST", MAPS, {}, headers={"Content-Type": "text/html"})
        assert (status, found["reason"]) == (415, "UnsupportedMediaType")

    in_virtual_time(main())


def test_updates_need_the_present_version() -> None:
    async def main() -> None:
        server = caller()
        made = await server.create(MAPS, "a", data={"k": "1"})
        status, changed = await server.ask("PUT", f"{MAPS}/a", {**made, "data": {"k": "2"}})
        assert (status, changed["metadata"]["resourceVersion"]) == (200, "7")
        assert changed["metadata"]["uid"] == made["metadata"]["uid"]
        status, found = await server.ask("PUT", f"{MAPS}/a", made)
        assert (status, found["reason"]) == (409, "Conflict")
        del made["metadata"]["resourceVersion"]
        status, changed = await server.ask("PUT", f"{MAPS}/a", made)
        assert (status, changed["data"]) == (200, {"k": "1"})
        made["metadata"]["uid"] = "another"
        status, found = await server.ask("PUT", f"{MAPS}/a", made)
        assert (status, "Precondition failed: UID" in found["message"]) == (409, True)
        status, found = await server.ask("PUT", f"{MAPS}/b", made)
        assert (status, "does not match the name on the URL" in found["message"]) == (400, True)

    in_virtual_time(main())


def test_a_write_that_changes_nothing_is_none() -> None:
    async def main() -> None:
        server = caller()
        await server.create(MAPS, "a", data={"k": "1"})
        status, same = await server.ask("PATCH", f"{MAPS}/a", {"data": {"k": "1"}}, headers=MERGE)
        assert (status, same["metadata"]["resourceVersion"]) == (200, "6")
        assert server.app.storage.revision == 6

    in_virtual_time(main())


def test_generations_count_changes_of_the_spec() -> None:
    async def main() -> None:
        server = caller()
        await server.create(DEPLOYMENTS, "d", spec={"replicas": 1})
        generations = []
        for patch in ({"metadata": {"labels": {"a": "b"}}}, {"spec": {"replicas": 2}}):
            _, found = await server.ask("PATCH", f"{DEPLOYMENTS}/d", patch, headers=MERGE)
            generations.append(found["metadata"]["generation"])
        assert generations == [1, 2]
        assert "generation" not in (await server.create(MAPS, "a"))["metadata"]

    in_virtual_time(main())


def test_status_and_the_rest_are_written_separately() -> None:
    async def main() -> None:
        server = caller()
        await server.create(DEPLOYMENTS, "d", spec={"replicas": 1})
        both = {"spec": {"replicas": 5}, "status": {"readyReplicas": 3}}
        _, found = await server.ask("PATCH", f"{DEPLOYMENTS}/d/status", both, headers=MERGE)
        assert (found["spec"]["replicas"], found["status"]) == (1, {"readyReplicas": 3})
        assert found["metadata"]["generation"] == 1
        both["status"]["readyReplicas"] = 9
        _, found = await server.ask("PATCH", f"{DEPLOYMENTS}/d", both, headers=MERGE)
        assert (found["spec"]["replicas"], found["status"]) == (5, {"readyReplicas": 3})
        status, _ = await server.ask("GET", f"{MAPS}/a/status")
        assert status == 404

    in_virtual_time(main())


def test_scale() -> None:
    async def main() -> None:
        server = caller()
        await server.create(DEPLOYMENTS, "d", spec={"replicas": 1, "selector": {"matchLabels": {"a": "b"}}})
        status, scale = await server.ask("GET", f"{DEPLOYMENTS}/d/scale")
        assert (status, scale["kind"], scale["status"]["selector"]) == (200, "Scale", "a=b")
        scale["spec"]["replicas"] = 4
        status, _ = await server.ask("PUT", f"{DEPLOYMENTS}/d/scale", scale)
        assert status == 200
        assert (await server.get(f"{DEPLOYMENTS}/d"))["spec"]["replicas"] == 4
        status, found = await server.ask(
            "PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": -1}}, headers=MERGE
        )
        assert (status, "greater than or equal to 0" in found["message"]) == (422, True)

    in_virtual_time(main())


def test_dry_runs_store_nothing() -> None:
    async def main() -> None:
        server = caller()
        status, _ = await server.ask("POST", f"{MAPS}?dryRun=All", {"metadata": {"name": "a"}})
        assert status == 201
        await server.create(MAPS, "b", data={"k": "1"})
        revision = server.app.storage.revision
        _, found = await server.ask("PATCH", f"{MAPS}/b?dryRun=All", {"data": {"k": "2"}}, headers=MERGE)
        assert found["data"] == {"k": "2"}
        assert (await server.ask("DELETE", f"{MAPS}/b?dryRun=All"))[0] == 200
        assert [one["metadata"]["name"] for one in (await server.get(MAPS))["items"]] == ["b"]
        assert server.app.storage.revision == revision
        assert (await server.ask("DELETE", f"{MAPS}/b?dryRun=Some"))[0] == 422

    in_virtual_time(main())


def test_finalizers_hold_a_deletion_up() -> None:
    async def main() -> None:
        server = caller()
        await server.ask("POST", MAPS, {"metadata": {"name": "a", "finalizers": ["x/y"]}})
        status, found = await server.ask("DELETE", f"{MAPS}/a")
        assert (status, "deletionTimestamp" in found["metadata"]) == (200, True)
        assert (await server.get(f"{MAPS}/a"))["metadata"]["finalizers"] == ["x/y"]
        await server.ask("PATCH", f"{MAPS}/a", {"metadata": {"finalizers": None}}, headers=MERGE)
        assert (await server.ask("GET", f"{MAPS}/a"))[0] == 404

    in_virtual_time(main())


def test_preconditions_of_a_deletion() -> None:
    async def main() -> None:
        server = caller()
        made = await server.create(MAPS, "a")
        status, found = await server.ask("DELETE", f"{MAPS}/a", {"preconditions": {"uid": "another"}})
        assert (status, found["reason"]) == (409, "Conflict")
        uid = made["metadata"]["uid"]
        assert (await server.ask("DELETE", f"{MAPS}/a", {"preconditions": {"uid": uid}}))[0] == 200
        assert (await server.ask("DELETE", f"{MAPS}/a"))[0] == 404

    in_virtual_time(main())


def test_options_of_a_deletion_in_its_body_count() -> None:
    async def main() -> None:
        server = caller()
        made = await server.create(MAPS, "a")
        assert (await server.ask("DELETE", f"{MAPS}/a", {"dryRun": ["All"]}))[0] == 200
        assert (await server.ask("DELETE", MAPS, {"dryRun": ["All"]}))[0] == 200
        assert (await server.ask("DELETE", f"{MAPS}/a", {"dryRun": ["Some"]}))[0] == 422
        assert (await server.get(f"{MAPS}/a"))["metadata"] == made["metadata"]
        status, found = await server.ask("DELETE", f"{MAPS}/a", {"preconditions": {"resourceVersion": "1"}})
        assert (status, found["reason"]) == (409, "Conflict")
        assert "ResourceVersion in precondition: 1, ResourceVersion in object meta" in found["message"]
        version = made["metadata"]["resourceVersion"]
        options = {"preconditions": {"resourceVersion": version, "uid": made["metadata"]["uid"]}}
        assert (await server.ask("DELETE", f"{MAPS}/a", options))[0] == 200
        assert (await server.ask("GET", f"{MAPS}/a"))[0] == 404

    in_virtual_time(main())


def test_a_collection_is_deleted_by_selector() -> None:
    async def main() -> None:
        server = caller()
        for name in "abc":
            await server.create(MAPS, name, labels={"app": "x" if name != "b" else "y"})
        assert (await server.ask("DELETE", f"{MAPS}?labelSelector=app%3Dx"))[0] == 200
        assert [one["metadata"]["name"] for one in (await server.get(MAPS))["items"]] == ["b"]

    in_virtual_time(main())


def test_a_namespace_takes_its_objects_along() -> None:
    async def main() -> None:
        server = caller()
        await server.create("/api/v1/namespaces", "n")
        await server.create("/api/v1/namespaces/n/configmaps", "a")
        await server.create(MAPS, "b")
        async with (
            server.watch("/api/v1/namespaces?resourceVersion=8&timeoutSeconds=2") as spaces,
            server.watch("/api/v1/configmaps?resourceVersion=8&timeoutSeconds=2") as maps,
        ):
            status, found = await server.ask("DELETE", "/api/v1/namespaces/n")
            assert (status, found["status"]["phase"]) == (200, "Terminating")
            assert await spaces.brief() == ["MODIFIED n@9", "DELETED n@11"]
            assert await maps.brief() == ["DELETED a@10"]
        status, found = await server.ask("DELETE", "/api/v1/namespaces/default")
        assert (status, "may not be deleted" in found["message"]) == (403, True)

    in_virtual_time(main())


# -- definitions ------------------------------------------------------------------------------------


def test_a_definition_is_served_at_once_and_goes_with_its_objects() -> None:
    async def main() -> None:
        server = caller()
        assert (await server.ask("GET", WIDGETS))[0] == 404
        status, made = await server.ask("POST", DEFINITIONS, definition())
        assert (status, made["status"]["conditions"]) == (201, None)
        found = await server.get(f"{DEFINITIONS}/widgets.example.com")
        assert {one["type"]: one["status"] for one in found["status"]["conditions"]} == {
            "NamesAccepted": "True",
            "Established": "True",
        }
        resources = await server.get("/apis/example.com/v1")
        assert [one["name"] for one in resources["resources"]] == ["widgets"]
        await server.create(WIDGETS, "w", spec={"size": 1})
        async with server.watch("/apis/example.com/v1/widgets?resourceVersion=0") as lines:
            assert brief(await lines.next()) == "ADDED w@8"
            assert (await server.ask("DELETE", f"{DEFINITIONS}/widgets.example.com"))[0] == 200
            assert await lines.brief() == ["DELETED w@10"], "and the stream ends"
        assert await server.ask("GET", WIDGETS) == (404, "404 page not found\n")
        assert (await server.ask("GET", "/apis/example.com/v1"))[0] == 404
        groups = await server.get("/apis")
        assert "example.com" not in [group["name"] for group in groups["groups"]]

    in_virtual_time(main())


def test_a_definition_made_again_has_no_past() -> None:
    async def main() -> None:
        server = caller()
        await server.ask("POST", DEFINITIONS, definition())
        await server.create(WIDGETS, "w")
        version = server.app.storage.revision
        await server.ask("DELETE", f"{DEFINITIONS}/widgets.example.com")
        await server.ask("POST", DEFINITIONS, definition())
        async with server.watch(f"{WIDGETS}?resourceVersion={version}") as lines:
            assert (await lines.next())[0] == "ERROR"

    in_virtual_time(main())


def test_several_versions_serve_one_object() -> None:
    async def main() -> None:
        server = caller()
        more = [
            {"name": "v2", "served": True, "storage": False, "schema": {}},
            {"name": "v3", "served": False, "storage": False, "schema": {}},
        ]
        await server.ask("POST", DEFINITIONS, definition(more=more))
        second = WIDGETS.replace("/v1/", "/v2/")
        await server.create(second, "w", spec={"size": 1})
        assert (await server.get(f"{WIDGETS}/w"))["apiVersion"] == "example.com/v1"
        (item,) = (await server.get(second))["items"]
        assert (item["apiVersion"], item["spec"]) == ("example.com/v2", {"size": 1})
        assert (await server.ask("GET", WIDGETS.replace("/v1/", "/v3/")))[0] == 404
        async with server.watch(f"{second}?resourceVersion=0") as lines:
            assert (await lines.next())[1]["apiVersion"] == "example.com/v2"

    in_virtual_time(main())


def test_a_changed_definition_changes_what_is_served() -> None:
    async def main() -> None:
        server = caller()
        await server.ask("POST", DEFINITIONS, definition())
        found = await server.get(f"{DEFINITIONS}/widgets.example.com")
        found["spec"]["names"]["shortNames"] = ["wd"]
        found["spec"]["versions"].append({"name": "v2", "served": True, "storage": False, "schema": {}})
        status, changed = await server.ask("PUT", f"{DEFINITIONS}/widgets.example.com", found)
        assert (status, changed["metadata"]["generation"]) == (200, 2)
        assert (await server.get("/apis/example.com/v2"))["resources"][0]["shortNames"] == ["wd"]

    in_virtual_time(main())


def test_custom_resources_by_field_and_without_namespace() -> None:
    async def main() -> None:
        server = caller()
        version = {"selectableFields": [{"jsonPath": ".spec.color"}], "subresources": {"status": {}}}
        await server.ask("POST", DEFINITIONS, definition(scope="Cluster", version=version))
        path = "/apis/example.com/v1/widgets"
        await server.create(path, "r", spec={"color": "red"}, status={"x": 1})
        await server.create(path, "b", spec={"color": "blue"})
        (item,) = (await server.get(f"{path}?fieldSelector=spec.color%3Dred"))["items"]
        assert item["metadata"]["name"] == "r"
        assert "status" not in item, "the status subresource alone writes it"
        assert (await server.ask("GET", f"{path}?fieldSelector=spec.size%3D1"))[0] == 400
        assert (await server.ask("GET", WIDGETS))[0] == 404, "a cluster-scoped resource has no namespaces"
        status, found = await server.ask("PUT", f"{path}/r", {"metadata": {"name": "r"}})
        assert (status, "must be specified for an update" in found["message"]) == (422, True)

    in_virtual_time(main())
