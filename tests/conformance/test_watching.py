"""Watch, as every backend that serves it must."""

from __future__ import annotations

from typing import Any

import pytest
from conformance.backends import Backend

STREAMING = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}


def brief(events: list[tuple[str, Any]]) -> list[str]:
    """``TYPE name`` of every event but bookmarks, without what clusters put into every namespace."""
    return [
        f"{kind} {found['metadata']['name']}"
        for kind, found in events
        if kind != "BOOKMARK" and found["metadata"].get("name") != "kube-root-ca.crt"
    ]


async def test_a_watch_replays_and_goes_on(watched: Backend) -> None:
    version = await watched.version()
    await watched.create("configmaps", "a", data={"k": "1"})

    async def live() -> None:
        await watched.patch("configmaps", "a", {"data": {"k": "2"}})
        await watched.delete("configmaps", "a")

    events = await watched.reader.events(
        watched.path("configmaps"), during=live, resourceVersion=version, timeoutSeconds="3"
    )
    assert brief(events) == ["ADDED a", "MODIFIED a", "DELETED a"]
    versions = [int(found["metadata"]["resourceVersion"]) for _, found in events]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("query", [{}, {"resourceVersion": "0"}])
async def test_a_watch_without_version_begins_with_what_there_is(
    watched: Backend, query: dict[str, str]
) -> None:
    for name in "ba":
        await watched.create("configmaps", name)
    events = await watched.reader.events(watched.path("configmaps"), timeoutSeconds="2", **query)
    assert sorted(brief(events)) == ["ADDED a", "ADDED b"]


async def test_a_streaming_list(watched: Backend) -> None:
    for name in "ba":
        await watched.create("configmaps", name)

    async def live() -> None:
        await watched.create("configmaps", "c")

    events = await watched.reader.events(
        watched.path("configmaps"), during=live, timeoutSeconds="3", **STREAMING
    )
    ends = [
        at
        for at, (kind, found) in enumerate(events)
        if kind == "BOOKMARK" and "k8s.io/initial-events-end" in found["metadata"].get("annotations", {})
    ]
    assert len(ends) == 1
    assert {"ADDED a", "ADDED b"} <= set(brief(events[: ends[0]])) <= {"ADDED a", "ADDED b", "ADDED c"}
    assert sorted(brief(events)) == ["ADDED a", "ADDED b", "ADDED c"]


async def test_objects_that_enter_and_leave_the_selector(watched: Backend) -> None:
    version = await watched.version()
    await watched.create("configmaps", "a", labels={"app": "db"})
    for app in ("web", "db", "web"):
        await watched.patch("configmaps", "a", {"metadata": {"labels": {"app": app}}})
    await watched.delete("configmaps", "a")
    events = await watched.reader.events(
        watched.path("configmaps"), labelSelector="app=web", resourceVersion=version, timeoutSeconds="2"
    )
    assert brief(events) == ["ADDED a", "DELETED a", "ADDED a", "DELETED a"]
    versions = [int(found["metadata"]["resourceVersion"]) for _, found in events]
    assert versions == sorted(set(versions)), "each at the version of its change"


async def test_other_namespaces_stay_out(watched: Backend) -> None:
    version = await watched.version()
    await watched.create("configmaps", "a")
    events = await watched.reader.events(
        "/api/v1/configmaps",
        fieldSelector=f"metadata.namespace!={watched.space}",
        resourceVersion=version,
        timeoutSeconds="2",
    )
    assert all(found["metadata"]["namespace"] != watched.space for _, found in events)


async def test_a_bookmark_before_the_end(watched: Backend) -> None:
    version = await watched.version()

    async def live() -> None:
        await watched.create("configmaps", "a")

    events = await watched.reader.events(
        watched.path("configmaps"),
        during=live,
        resourceVersion=version,
        allowWatchBookmarks="true",
        timeoutSeconds="5",
    )
    kind, last = events[-1]
    assert kind == "BOOKMARK"
    assert int(last["metadata"]["resourceVersion"]) >= int(events[0][1]["metadata"]["resourceVersion"])
    assert set(last) == {"kind", "apiVersion", "metadata"}


async def test_tables_and_metadata(watched: Backend) -> None:
    version = await watched.version()
    await watched.create("configmaps", "a", data={"k": "1"})
    await watched.create("configmaps", "b")
    for kind in ("Table", "PartialObjectMetadata"):
        events = await watched.reader.events(
            watched.path("configmaps"),
            accept=f"application/json;as={kind};v=v1;g=meta.k8s.io",
            resourceVersion=version,
            timeoutSeconds="2",
        )
        assert [found["kind"] for _, found in events] == [kind, kind]


@pytest.mark.parametrize(
    ("query", "status", "fragment"),
    [
        ({"resourceVersion": "abc"}, 500, 'Invalid value: "abc"'),
        ({"sendInitialEvents": "true"}, 422, "requires setting resourceVersionMatch to NotOlderThan"),
        ({"labelSelector": "=="}, 400, "found '=='"),
    ],
)
async def test_what_a_watch_refuses(
    watched: Backend, query: dict[str, str], status: int, fragment: str
) -> None:
    answer = await watched.reader.ask(
        "GET", watched.path("configmaps"), watch="1", timeoutSeconds="2", **query
    )
    assert (answer.status, fragment in answer.document["message"]) == (status, True), answer.document
