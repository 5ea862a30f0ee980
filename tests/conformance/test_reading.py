"""Get and list, as every backend must answer them."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.backends import Backend

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


def names(document: Any) -> list[str]:
    """Of a list's items, without what clusters put into every namespace."""
    return [
        one["metadata"]["name"] for one in document["items"] if one["metadata"]["name"] != "kube-root-ca.crt"
    ]


async def fill(backend: Backend) -> None:
    await backend.create("configmaps", "a", labels={"app": "web", "n": "1"}, data={"k": "1"})
    await backend.create("configmaps", "b", labels={"app": "web", "tier": "x"}, data={"k": "2"})
    await backend.create("configmaps", "c", labels={"app": "db"})
    await backend.create("configmaps", "d")


async def test_get(backend: Backend) -> None:
    made = await backend.create("configmaps", "a", data={"k": "<&>"})
    version = made["metadata"]["resourceVersion"]
    found = await backend.reader.get(backend.path("configmaps", "a"), resourceVersion=version)
    made["metadata"].pop("managedFields", None)
    found["metadata"].pop("managedFields", None)
    assert found == made
    assert list(found)[:3] == ["kind", "apiVersion", "metadata"]


async def test_get_what_is_not_there(backend: Backend) -> None:
    answer = await backend.reader.ask("GET", backend.path("configmaps", "nope"))
    assert (answer.status, answer.document) == (
        404,
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": 'configmaps "nope" not found',
            "reason": "NotFound",
            "details": {"name": "nope", "kind": "configmaps"},
            "code": 404,
        },
    )


async def test_list(backend: Backend) -> None:
    await fill(backend)
    listed = await backend.reader.get(backend.path("configmaps"), **await backend.newest())
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert names(listed) == ["a", "b", "c", "d"]
    assert all("kind" not in item for item in listed["items"])
    newest = max(int(item["metadata"]["resourceVersion"]) for item in listed["items"])
    assert int(listed["metadata"]["resourceVersion"]) >= newest


async def test_list_across_namespaces_is_in_key_order(backend: Backend) -> None:
    await fill(backend)
    listed = await backend.reader.get("/api/v1/configmaps", **await backend.newest())
    keys = [f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in listed["items"]]
    assert keys == sorted(keys)
    assert f"{backend.space}/a" in keys


async def test_list_of_an_empty_namespace(backend: Backend) -> None:
    listed = await backend.reader.get("/api/v1/namespaces/there-is-none/configmaps")
    assert listed["items"] == []
    assert int(listed["metadata"]["resourceVersion"]) > 0


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"labelSelector": "app"}, "abc"),
        ({"labelSelector": "!app"}, "d"),
        ({"labelSelector": "app=web"}, "ab"),
        ({"labelSelector": "app==web,tier"}, "b"),
        ({"labelSelector": "app!=web"}, "cd"),
        ({"labelSelector": "app in (web, db)"}, "abc"),
        ({"labelSelector": "app notin (web)"}, "cd"),
        ({"labelSelector": "n>0"}, "a"),
        ({"fieldSelector": "metadata.name=a"}, "a"),
        ({"fieldSelector": "metadata.name!=a,metadata.name!=b"}, "cd"),
        ({"labelSelector": "app=web", "fieldSelector": "metadata.name=b"}, "b"),
    ],
)
async def test_selectors(backend: Backend, selector: dict[str, str], expected: str) -> None:
    await fill(backend)
    listed = await backend.reader.get(backend.path("configmaps"), **selector, **await backend.newest())
    assert "".join(names(listed)) == expected


async def test_namespaces_can_be_excluded(backend: Backend) -> None:
    await fill(backend)
    excluded = await backend.reader.get(
        "/api/v1/configmaps", fieldSelector=f"metadata.namespace!={backend.space}", **await backend.newest()
    )
    assert backend.space not in {one["metadata"]["namespace"] for one in excluded["items"]}


async def test_fields_of_a_kind(backend: Backend) -> None:
    container = {"name": "main", "image": "registry.example.com/app:1"}
    answer = await backend.writer.ask(
        "POST",
        backend.path("secrets"),
        {"metadata": {"name": "s"}, "type": "example.com/one", "stringData": {"k": "v"}},
    )
    assert answer.status == 201, container
    listed = await backend.writer.get(backend.path("secrets"), fieldSelector="type=example.com/one")
    assert names(listed) == ["s"]
    assert names(await backend.writer.get(backend.path("secrets"), fieldSelector="type=other")) == []


@pytest.mark.parametrize(
    ("query", "status", "fragment"),
    [
        ({"labelSelector": "app===x!"}, 400, "unable to parse requirement: found '=', expected: identifier"),
        ({"fieldSelector": "data.k=v"}, 400, '"data.k" is not a known field selector'),
        ({"limit": "x"}, 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ({"resourceVersion": "abc"}, 400, "invalid resource version"),
        ({"continue": "garbage"}, 400, "continue key is not valid"),
        ({"resourceVersionMatch": "Exact"}, 422, "forbidden unless resourceVersion is provided"),
    ],
)
async def test_what_a_list_refuses(
    backend: Backend, query: dict[str, str], status: int, fragment: str
) -> None:
    answer = await backend.reader.ask("GET", backend.path("configmaps"), **query)
    assert answer.status == status
    assert answer.document["kind"] == "Status"
    assert fragment in answer.document["message"]


async def test_a_version_that_is_far_off(backend: Backend) -> None:
    version = str(int(await backend.version()) + 1_000_000)
    answer = await backend.reader.ask(
        "GET", backend.path("configmaps"), resourceVersion=version, resourceVersionMatch="NotOlderThan"
    )
    assert (answer.status, answer.headers.get("retry-after")) == (504, "1")
    assert answer.document["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_pages_are_one_snapshot(backend: Backend) -> None:
    await fill(backend)
    path = backend.path("configmaps")
    first = await backend.reader.get(path, limit="2", **await backend.newest())
    found = names(first)
    await backend.create("configmaps", "aa")
    await backend.delete("configmaps", "d")
    token, version = first["metadata"]["continue"], first["metadata"]["resourceVersion"]
    while token:
        page = await backend.reader.get(path, limit="2", **{"continue": token})
        assert page["metadata"]["resourceVersion"] == version
        found += names(page)
        token = page["metadata"].get("continue", "")
    assert found == ["a", "b", "c", "d"]


async def test_a_page_says_how_many_follow(backend: Backend) -> None:
    await fill(backend)
    path, newest = backend.path("configmaps"), await backend.newest()
    every = await backend.reader.get(path, **newest)
    page = await backend.reader.get(path, limit="1", **newest)
    assert page["metadata"]["remainingItemCount"] == len(every["items"]) - 1
    selected = await backend.reader.get(path, limit="1", labelSelector="app", **newest)
    assert "remainingItemCount" not in selected["metadata"]
    assert selected["metadata"]["continue"]


async def test_tables(backend: Backend) -> None:
    await fill(backend)
    table = await backend.reader.get(backend.path("configmaps"), accept=TABLE, **await backend.newest())
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    rows = {row["cells"][0]: row for row in table["rows"]}
    assert (rows["a"]["cells"][1], rows["d"]["cells"][1]) == (1, 0)
    assert rows["a"]["object"]["kind"] == "PartialObjectMetadata"
    made = await backend.create("configmaps", "e")
    version = made["metadata"]["resourceVersion"]
    one = await backend.reader.get(backend.path("configmaps", "e"), accept=TABLE, resourceVersion=version)
    assert [row["cells"][0] for row in one["rows"]] == ["e"]


async def test_metadata_only(backend: Backend) -> None:
    await fill(backend)
    newest = await backend.newest()
    listed = await backend.reader.get(backend.path("configmaps"), accept=PARTIAL_LIST, **newest)
    assert listed["kind"] == "PartialObjectMetadataList"
    assert {item["kind"] for item in listed["items"]} == {"PartialObjectMetadata"}
    assert all(set(item) == {"kind", "apiVersion", "metadata"} for item in listed["items"])
    one = await backend.reader.get(backend.path("configmaps", "a"), accept=PARTIAL)
    assert (one["kind"], one["metadata"]["labels"]["app"]) == ("PartialObjectMetadata", "web")


async def test_forms_nobody_has(backend: Backend) -> None:
    answer = await backend.reader.ask("GET", backend.path("configmaps"), accept="application/xml")
    assert answer.status == 406


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/api/v1/nothings", "the server could not find the requested resource"),
        ("/apis/none.example.com/v1/x", ""),
    ],
)
async def test_resources_there_are_not(backend: Backend, path: str, text: str) -> None:
    answer = await backend.reader.ask("GET", path)
    assert answer.status == 404
    if text:
        assert answer.document["message"] == text
    else:
        assert answer.body == b"404 page not found\n"


async def test_discovery_names_what_is_served(backend: Backend) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    for root in ("/api", "/apis"):
        answer = await backend.reader.ask("GET", root, accept=accept)
        assert answer.document["kind"] == "APIGroupDiscoveryList"
        assert answer.headers["etag"]
    core = await backend.reader.get("/api/v1")
    assert "configmaps" in {one["name"] for one in core["resources"]}
    assert "apps" in {group["name"] for group in (await backend.reader.get("/apis"))["groups"]}
