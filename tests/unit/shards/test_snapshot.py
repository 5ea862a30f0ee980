"""Pages of one state: order, limits, exact counts, positions, and captured lists that outlive changes."""

from __future__ import annotations

import pytest
from support.observed import NODES, PODS, observed, query

from shoal.shards.model.errors import BadRequest, Expired, TooLargeVersion
from shoal.shards.model.partitions import Partition
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.objects import PartitionStore

NODE_NAME = PODS.selectable_fields.index("spec.nodeName")


def fields(node: str) -> tuple[str, ...]:
    return tuple(node if at == NODE_NAME else "" for at in range(len(PODS.selectable_fields)))


@pytest.fixture
def store() -> PartitionStore:
    """a/p0..p9, a-b/p0..p9, b/p0..p9 at version 100; even ones are app=web on node-0."""
    store = PartitionStore(Partition(PODS.resource), PODS, settings=StoreSettings(), clock=lambda: 0.0)
    store.begin()
    for namespace in ("b", "a-b", "a"):
        for number in range(10):
            store.put(
                observed(
                    f"p{number}",
                    10 + number,
                    namespace=namespace,
                    labels={"app": "db" if number % 2 else "web"},
                    fields=fields(f"node-{number % 2}"),
                )
            )
    store.finish(Version(100))
    return store


def keys(store: PartitionStore, **wanted: object) -> list[str]:
    return [*store.page(query(**wanted)).keys]


def test_order_is_the_api_servers(store: PartitionStore) -> None:
    found = keys(store)
    assert found == sorted(found)
    assert found.index("a-b/p0") < found.index("a/p0") < found.index("b/p0")


def test_pages_by_position(store: PartitionStore) -> None:
    first = store.page(query(limit=12))
    assert (len(first.keys), first.more, first.remaining) == (12, True, 18)
    second = store.page(query(limit=12, after=first.keys[-1]))
    third = store.page(query(limit=12, after=second.keys[-1]))
    assert (third.more, third.remaining) == (False, 0)
    assert [*first.keys, *second.keys, *third.keys] == keys(store)


def test_a_position_need_not_be_an_object(store: PartitionStore) -> None:
    assert keys(store, after="a/p5x", namespace="a") == ["a/p6", "a/p7", "a/p8", "a/p9"]
    assert keys(store, after="a-b/zzz", namespace="a")[0] == "a/p0"
    assert keys(store, after="b/p0", namespace="a") == []


def test_a_page_ends_early_when_it_is_large_enough_but_holds_one_object(store: PartitionStore) -> None:
    tiny = store.page(query(max_bytes=1))
    assert (len(tiny.keys), tiny.more, tiny.remaining) == (1, True, 29)
    size = len(tiny.bodies[0])
    assert len(store.page(query(max_bytes=3 * size)).keys) == 4


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"namespace": "a"}, 10),
        ({"namespace": "c"}, 0),
        ({"labels": "app=web"}, 15),
        ({"labels": "app=web", "namespace": "b"}, 5),
        ({"labels": "app!=web,app!=db"}, 0),
        ({"fields": "spec.nodeName=node-1"}, 15),
        ({"fields": "spec.nodeName=node-1", "labels": "app=web"}, 0),
        ({"fields": "metadata.name=p3"}, 3),
        ({"fields": "metadata.name=p3", "namespace": "a-b"}, 1),
        ({"fields": "metadata.name=p3,metadata.namespace=a"}, 1),
        ({"fields": "metadata.name=p3,metadata.namespace=b", "namespace": "a"}, 0),
        ({"fields": "metadata.name=none", "namespace": "a"}, 0),
        ({"fields": "metadata.name=p3,metadata.name=p4"}, 0),
        ({"fields": "metadata.namespace!=a,metadata.namespace!=b"}, 10),
        ({"fields": "status.phase="}, 30),
        ({"fields": "status.podIPs="}, 30),
    ],
)
def test_counts_are_exact(store: PartitionStore, wanted: dict[str, str], expected: int) -> None:
    assert len(keys(store, **wanted)) == expected
    assert store.count(query(**wanted)) == expected
    short = store.page(query(limit=2, **wanted))
    assert short.remaining == max(0, expected - 2)


def test_a_field_that_is_not_selectable_is_refused(store: PartitionStore) -> None:
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.none"):
        store.page(query(fields="spec.none=1"))
    with pytest.raises(BadRequest):
        store.page(query(labels="a in b"))


def test_a_past_state_is_paged_while_the_present_moves_on(store: PartitionStore) -> None:
    truth = keys(store)
    version = 100
    seen: list[str] = []
    after = ""
    for number in range(10):
        page = store.page(query(at=Version(100), after=after, limit=3))
        assert page.version == 100
        assert page.remaining == 30 - len(seen) - 3
        seen += page.keys
        after = page.keys[-1]
        version += 1
        store.apply(observed(f"p{number}", version, namespace="a", fields=fields("x"), deleted=True))
        version += 1
        store.apply(observed(f"new{number}", version, namespace="a", fields=fields("x")))
    assert seen == truth
    assert store.page(query(at=Version(100), limit=100)).bodies == [
        body for page in store.capture(query(at=Version(100), limit=7)) for body in page.bodies
    ]
    assert keys(store, at=Version(100), labels="app=web", namespace="a") == [
        f"a/p{n}" for n in range(0, 10, 2)
    ]
    assert keys(store, namespace="a") == [f"a/new{n}" for n in range(10)]


def test_versions_out_of_reach(store: PartitionStore) -> None:
    with pytest.raises(Expired):
        store.page(query(at=Version(99)))
    with pytest.raises(TooLargeVersion, match=r"Too large resource version: 101, current: 100$"):
        store.page(query(at=Version(101)))


def test_a_captured_list_stays_what_it_was(store: PartitionStore) -> None:
    truth = store.page(query(limit=100))
    pages = store.capture(query(limit=7))
    store.apply(observed("p0", 101, namespace="a", fields=fields("x"), deleted=True))
    store.apply(observed("p1", 102, namespace="a", fields=fields("x"), text="changed"))
    store.begin()
    store.finish(Version(200))
    got = list(pages)
    assert [key for page in got for key in page.keys] == truth.keys
    assert [body for page in got for body in page.bodies] == truth.bodies
    assert [page.remaining for page in got] == [23, 16, 9, 2, 0]
    assert [page.more for page in got] == [True, True, True, True, False]
    assert {page.version for page in got} == {100}


def test_a_captured_list_without_hits_is_one_empty_page(store: PartitionStore) -> None:
    (page,) = store.capture(query(labels="none"))
    assert (page.keys, page.more, page.version) == ([], False, 100)


def test_a_captured_selection_starts_after_its_position(store: PartitionStore) -> None:
    pages = list(store.capture(query(labels="app=web", after="b/p2", limit=2)))
    assert [page.keys for page in pages] == [["b/p4", "b/p6"], ["b/p8"]]


def test_cluster_scoped_objects() -> None:
    store = PartitionStore(Partition(NODES.resource), NODES, settings=StoreSettings(), clock=lambda: 0.0)
    store.begin()
    for number in range(5):
        store.put(observed(f"node-{number}", number + 1, namespace="", fields=("false",)))
    store.finish(Version(10))
    assert keys(store, fields="metadata.name=node-3") == ["node-3"]
    assert keys(store, fields="metadata.namespace=") == [f"node-{n}" for n in range(5)]
    assert keys(store, fields="spec.unschedulable=true") == []
    assert store.get(Key("node-9")) is None
