"""Merge patch, JSON patch and strategic merge patch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shoal.cluster.simulator.patches import (
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
    Patch,
    apply_patch,
    merge,
    strategic_merge,
)
from shoal.shards.model.errors import BadRequest, Invalid, UnsupportedMediaType
from shoal.shards.model.resources import Resource, ResourceType

PODS = ResourceType(resource=Resource("", "v1", "pods"), kind="Pod", namespaced=True)
WIDGETS = ResourceType(
    resource=Resource("x.io", "v1", "widgets"), kind="Widget", namespaced=True, custom=True
)


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        # The test cases of RFC 7386, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, expected: Any) -> None:
    assert merge(target, patch) == expected


CONTAINERS = [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ([{"name": "b", "image": "2"}], [CONTAINERS[0], {"name": "b", "image": "2"}]),
        ([{"name": "c", "image": "3"}], [*CONTAINERS, {"name": "c", "image": "3"}]),
        ([{"name": "a", "$patch": "delete"}], [CONTAINERS[1]]),
        ([{"$patch": "replace"}, {"name": "z"}], [{"name": "z"}]),
    ],
)
def test_strategic_lists_are_merged_by_their_key(patch: Any, expected: Any) -> None:
    merged = strategic_merge({"containers": CONTAINERS}, {"containers": patch})
    assert merged == {"containers": expected}


def test_strategic_lists_deep_inside() -> None:
    patch = {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]}
    merged = strategic_merge({"containers": CONTAINERS}, patch)
    assert merged["containers"][0]["env"] == [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]


def test_strategic_lists_without_key_are_replaced() -> None:
    merged = strategic_merge({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]})
    assert merged == {"tolerations": [{"key": "b"}]}


def test_strategic_directives() -> None:
    assert strategic_merge({"finalizers": ["a"]}, {"finalizers": ["b", "a"]}) == {"finalizers": ["a", "b"]}
    removed = {"$deleteFromPrimitiveList/finalizers": ["a"]}
    assert strategic_merge({"finalizers": ["a", "b"]}, removed) == {"finalizers": ["b"]}
    ordered = {"containers": [{"name": "c"}], "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}]}
    names = [one["name"] for one in strategic_merge({"containers": CONTAINERS}, ordered)["containers"]]
    assert names == ["c", "b", "a"]
    retained = {"$retainKeys": ["type"], "type": "Recreate"}
    assert strategic_merge({"type": "Rolling", "rolling": {}}, retained) == {"type": "Recreate"}
    assert strategic_merge({"a": {"b": 1}}, {"a": {"$patch": "replace", "c": 2}}) == {"a": {"c": 2}}
    with pytest.raises(BadRequest, match="Unknown patch type"):
        strategic_merge({}, {"$patch": "nonsense"})


def apply(document: dict[str, Any], patch: Any, content_type: str, known: ResourceType = PODS) -> Any:
    return apply_patch(document, Patch(json.dumps(patch).encode(), content_type), known)


def test_json_patch_leaves_the_original_alone() -> None:
    document = {"a": {"b": [1, 2]}}
    operations = [{"op": "test", "path": "/a/b/0", "value": 1}, {"op": "remove", "path": "/a/b/0"}]
    assert apply(document, operations, JSON_PATCH) == {"a": {"b": [2]}}
    assert document == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize(
    "operations",
    [[{"op": "test", "path": "/a", "value": 2}], [{"op": "remove", "path": "/nope"}]],
)
def test_a_json_patch_that_does_not_apply_is_422(operations: Any) -> None:
    with pytest.raises(Invalid):
        apply({"a": 1}, operations, JSON_PATCH)


@pytest.mark.parametrize("operations", [{"op": "add"}, [{"op": "nonsense", "path": "/a"}], [{"path": "/a"}]])
def test_a_json_patch_that_is_none_is_400(operations: Any) -> None:
    with pytest.raises(BadRequest):
        apply({"a": 1}, operations, JSON_PATCH)


def test_patches_that_are_no_documents() -> None:
    with pytest.raises(BadRequest):
        apply_patch({}, Patch(b"{{", MERGE_PATCH), PODS)
    with pytest.raises(BadRequest):
        apply({}, [1], MERGE_PATCH)
    assert apply_patch({}, Patch(b"a: 1\n", f"{MERGE_PATCH}; charset=utf-8"), PODS) == {"a": 1}


def test_formats_that_are_not_offered_are_415() -> None:
    with pytest.raises(UnsupportedMediaType, match="strategic-merge-patch"):
        apply({}, {}, "application/apply-patch+yaml")
    with pytest.raises(UnsupportedMediaType):
        apply({}, {}, STRATEGIC_PATCH, WIDGETS)
    assert apply({"a": 1}, {"a": None}, STRATEGIC_PATCH) == {}
