"""Counts and groups, from indexes where there are any, against counting by hand."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from support.observed import observed

from shoal.shards.model.errors import BadRequest, BadShardSelector
from shoal.shards.model.partitions import Epoch, Partition, fnv1a64
from shoal.shards.model.queries import CountQuery, PageQuery, PartitionCount
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.entries import Entry
from shoal.shards.store.objects import PartitionStore

FIELDS = ("spec.nodeName", "status.phase", "spec.priorityClassName")
TYPE = ResourceType(
    resource=Resource("", "v1", "pods"),
    kind="Pod",
    namespaced=True,
    selectable_fields=FIELDS,
    indexed_fields=("spec.priorityClassName",),
)
OBJECTS = [
    (f"ns-{number % 3}", f"p{number}", {"app": "web" if number % 2 else ""} if number % 5 else {}, number)
    for number in range(60)
]


def fields(number: int) -> tuple[str, ...]:
    return (f"node-{number % 7}", ("Running", "Pending")[number % 2], ("", "high", "low")[number % 3])


@pytest.fixture
def store() -> PartitionStore:
    made = PartitionStore(Partition(TYPE.resource), TYPE, settings=StoreSettings(), clock=lambda: 0.0)
    made.begin()
    for namespace, name, labels, number in OBJECTS:
        made.put(observed(name, 10 + number, namespace=namespace, labels=labels, fields=fields(number)))
    made.finish(Version(100))
    return made


def tally(store: PartitionStore, **wanted: Any) -> PartitionCount:
    return store.tally(CountQuery(partition=store.partition.id, epoch=Epoch(1), **wanted))


GROUPS = {
    "metadata.namespace": lambda namespace, labels, number: namespace,
    "metadata.labels[app]": lambda namespace, labels, number: labels.get("app", ""),
    "metadata.labels['app']": lambda namespace, labels, number: labels.get("app", ""),
    "metadata.labels[none/such]": lambda namespace, labels, number: "",
    "spec.nodeName": lambda namespace, labels, number: fields(number)[0],
    "status.phase": lambda namespace, labels, number: fields(number)[1],
    "spec.priorityClassName": lambda namespace, labels, number: fields(number)[2],
}


@pytest.mark.parametrize("group_by", GROUPS)
@pytest.mark.parametrize("namespace", [None, "ns-1", "none"])
@pytest.mark.parametrize("labels", ["", "app=web", "!app"])
@pytest.mark.parametrize("selected", ["", "spec.priorityClassName=high", "metadata.namespace=ns-2"])
def test_groups_are_what_counting_by_hand_gives(
    store: PartitionStore, group_by: str, namespace: str | None, labels: str, selected: str
) -> None:
    kept = [
        (where, carried, number)
        for where, _, carried, number in OBJECTS
        if namespace in (None, where)
        and {"": True, "app=web": carried.get("app") == "web", "!app": "app" not in carried}[labels]
        and {"": True, "metadata.namespace=ns-2": where == "ns-2"}.get(selected, fields(number)[2] == "high")
    ]
    wanted = Counter(GROUPS[group_by](*kept_one) for kept_one in kept)
    found = tally(store, namespace=namespace, labels=labels, fields=selected, group_by=group_by)
    assert (found.groups, found.count, found.version) == (dict(wanted), len(kept), 100)
    assert tally(store, namespace=namespace, labels=labels, fields=selected).count == len(kept)


def test_no_body_is_unpacked_for_a_count(store: PartitionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Entry, "body", None)
    for group_by in GROUPS:
        assert tally(store, group_by=group_by, labels="app").count > 0


def test_a_count_without_groups_has_none(store: PartitionStore) -> None:
    assert tally(store).groups == {}
    assert tally(store).count == len(OBJECTS)


@pytest.mark.parametrize("group_by", ["spec.none", "metadata.labels[]", "metadata.labels", "metadata.uid"])
def test_what_cannot_be_grouped_by_is_refused(store: PartitionStore, group_by: str) -> None:
    with pytest.raises(BadRequest, match="cannot group by"):
        tally(store, group_by=group_by)


def test_cluster_scoped_objects_have_the_empty_namespace() -> None:
    known = ResourceType(resource=Resource("", "v1", "nodes"), kind="Node", namespaced=False)
    store = PartitionStore(Partition(known.resource), known, settings=StoreSettings(), clock=lambda: 0.0)
    store.begin()
    store.put(observed("a", 5, namespace=""))
    store.finish(Version(6))
    assert tally(store, group_by="metadata.namespace").groups == {"": 1}


@pytest.mark.parametrize("field", ["uid", "namespace"])
def test_shard_selectors_divide_lists_and_counts(store: PartitionStore, field: str) -> None:
    def value(namespace: str, name: str) -> int:
        return fnv1a64(namespace if field == "namespace" else f"uid-{namespace}-{name}")

    middle = sorted(value(namespace, name) for namespace, name, _, _ in OBJECTS)[30]
    keys: list[str] = []
    for low, high in ((0, middle), (middle, 1 << 64)):
        shards = f"shardRange(object.metadata.{field}, '0x{low:016x}', '0x{high:016x}')"
        page = store.page(
            PageQuery(partition=store.partition.id, epoch=Epoch(1), shards=shards, labels="app", limit=500)
        )
        wanted = sorted(
            f"{namespace}/{name}"
            for namespace, name, labels, _ in OBJECTS
            if "app" in labels and low <= value(namespace, name) < high
        )
        assert page.keys == wanted
        assert tally(store, shards=shards, labels="app").count == len(wanted)
        keys += wanted
    assert len(keys) == sum("app" in labels for _, _, labels, _ in OBJECTS)
    with pytest.raises(BadShardSelector):
        tally(store, shards="garbage")
