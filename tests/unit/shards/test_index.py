"""Label and field indexes: what they find, and that nothing is left behind."""

from __future__ import annotations

from typing import Any

import pytest
from support.observed import compact

from shoal.shards.model.refs import Key
from shoal.shards.model.selectors import EVERY_FIELD, EVERY_LABEL, FieldSelector, LabelSelector
from shoal.shards.model.versions import Version
from shoal.shards.store.bodies import Generation
from shoal.shards.store.entries import (
    Entry,
    LabelSet,
    bucket_members,
    bucket_size,
    bucket_with,
    bucket_without,
)
from shoal.shards.store.index import Index

PLAIN = Generation(0, b"", 1)
FIELDS = ("spec.nodeName", "status.phase", "status.podIP")
NOTHING = {"label_sets": 0, "pairs": 0, "values": 0}


def entry(
    index: Index, name: str, labels: dict[str, Any] | None = None, node: str = "n", ip: str = ""
) -> Entry:
    raw = compact(labels) if labels else b""
    fields = (node, "Running", ip)
    return Entry(Key(name), name, Version(1), index.label_set(raw), fields, b"", PLAIN)


def found(index: Index, labels: str = "", fields: str = "") -> set[str] | None:
    label_selector = LabelSelector.parse(labels) if labels else EVERY_LABEL
    field_selector = FieldSelector.parse(fields) if fields else EVERY_FIELD
    candidates = index.candidates(label_selector, field_selector)
    if candidates is None:
        return None
    keys = set(candidates)
    assert candidates.size == len(keys)
    return keys


@pytest.fixture
def index() -> Index:
    index = Index(FIELDS)
    index.add(entry(index, "a", {"app": "web", "tier": "1"}, "n1", "10.0.0.1"))
    index.add(entry(index, "b", {"app": "web", "tier": "1"}, "n2", "10.0.0.2"))
    index.add(entry(index, "c", {"app": "db"}, "n1", "10.0.0.3"))
    index.add(entry(index, "d", None, "n1"))
    return index


@pytest.mark.parametrize(
    ("selector", "keys"),
    [
        ("app=web", "ab"),
        ("app==db", "c"),
        ("app in (web,db)", "abc"),
        ("app", "abc"),
        ("!app", "d"),
        ("app!=web", "cd"),
        ("app notin (web,db)", "d"),
        ("app,tier notin (1)", "c"),
        ("app=web,tier=1", "ab"),
        ("app=web,tier=2", ""),
        ("app=db,tier", ""),
        ("app=db,app", "c"),
        ("app,!tier,app!=web", "c"),
        ("tier>0", "ab"),
        ("tier<1", ""),
        ("none=x", ""),
        ("none", ""),
    ],
)
def test_label_selectors(index: Index, selector: str, keys: str) -> None:
    assert found(index, selector) == set(keys)


@pytest.mark.parametrize(
    ("selector", "keys"),
    [
        ("spec.nodeName=n1", "acd"),
        ("status.podIP=10.0.0.2", "b"),
        ("status.podIP=10.9.9.9", ""),
        ("spec.nodeName=n1,status.podIP=10.0.0.3", "c"),
        ("status.phase=Running,spec.nodeName=n2", "b"),
    ],
)
def test_field_selectors_of_indexed_fields(index: Index, selector: str, keys: str) -> None:
    assert found(index, fields=selector) == set(keys)


@pytest.mark.parametrize("selector", ["status.phase=Running", "spec.nodeName!=n1", "metadata.name=a"])
def test_no_index_knows_these(index: Index, selector: str) -> None:
    assert found(index, fields=selector) is None


def test_the_smaller_set_is_taken(index: Index) -> None:
    for number in range(20):
        index.add(entry(index, f"x{number}", {"app": "db"}, "n1"))
    assert found(index, "app=web", "spec.nodeName=n1") == {"a", "b"}
    assert found(index, "app=db", "spec.nodeName=n2") == {"b"}
    assert found(index, "app=db", "status.podIP=10.0.0.3") == {"c"}


def test_pods_of_one_replica_set_share_a_label_set(index: Index) -> None:
    assert index.sizes() == {"label_sets": 3, "pairs": 3, "values": 6}


def test_a_change_moves_the_object(index: Index) -> None:
    old = entry(index, "a", {"app": "web", "tier": "1"}, "n1", "10.0.0.1")
    new = entry(index, "a", {"app": "db"}, "n3", "10.0.0.1")
    index.replace(old, new)
    assert found(index, "app=db") == {"a", "c"}
    assert found(index, "app=web") == {"b"}
    assert found(index, fields="spec.nodeName=n1") == {"c", "d"}
    assert found(index, fields="spec.nodeName=n3") == {"a"}
    assert found(index, fields="status.podIP=10.0.0.1") == {"a"}


def test_nothing_is_left_behind() -> None:
    index = Index(FIELDS)
    entries = [
        entry(index, f"x{n}", {"app": str(n % 3), "one": str(n)}, f"n{n % 2}", str(n)) for n in range(9)
    ]
    for held in entries:
        index.add(held)
    for held in entries:
        index.remove(held)
    assert index.sizes() == NOTHING
    assert not index._pairs


def test_label_sets_of_entries_that_never_came_are_swept() -> None:
    index = Index(FIELDS)
    entry(index, "a", {"app": "web"})
    assert index.sizes()["label_sets"] == 1
    assert found(index, "app=web") == set()
    index.sweep()
    assert index.sizes() == NOTHING


def test_a_label_set_that_empties_during_a_list_stays_the_only_one_of_its_bytes() -> None:
    index = Index(FIELDS)
    first = entry(index, "a", {"app": "web"})
    index.add(first)
    index.building = True
    index.remove(first)
    again = entry(index, "b", {"app": "web"})
    assert again.labels is first.labels
    index.building = False
    index.add(again)
    index.sweep()
    assert found(index, "app=web") == {"b"}
    index.remove(again)
    assert index.sizes() == NOTHING


@pytest.mark.parametrize("raw", [b"5", b"[]", b'{"a":5}', b'"x"', b"\xff", b"{"])
def test_labels_that_are_no_map_of_texts_are_none(raw: bytes) -> None:
    assert LabelSet(raw).labels() == {}


def test_buckets() -> None:
    bucket = bucket_with(None, "a")
    assert (bucket_with(bucket, "a"), bucket_size(bucket), set(bucket_members(bucket))) == ("a", 1, {"a"})
    assert bucket_without(bucket, "b") == "a"
    assert bucket_without(bucket, "a") is None
    both = bucket_with(bucket, "b")
    assert (bucket_size(both), set(bucket_members(both))) == (2, {"a", "b"})
    one = bucket_without(both, "a")
    assert set(bucket_members(one)) == {"b"}
    assert bucket_without(one, "b") is None
    assert (bucket_size(None), list(bucket_members(None))) == (0, [])
