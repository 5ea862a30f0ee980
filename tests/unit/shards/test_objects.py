"""The store of a partition: lists that replace at once, events that never go back, covers, who is told."""

from __future__ import annotations

import itertools

import pytest
from support.observed import PODS, cluster_objects, compact, observed, query

from shoal.shards.model.errors import Broken, Expired, NotReady
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import (
    EVERYTHING,
    Cover,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    fnv1a64,
)
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.audit import digest
from shoal.shards.store.objects import PartitionStore


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def new(*, cover: Cover = EVERYTHING, clock: Clock | None = None, **wanted: int) -> PartitionStore:
    return PartitionStore(
        Partition(PODS.resource, cover), PODS, settings=StoreSettings(**wanted), clock=clock or Clock()
    )


def pod(
    name: str, version: int, *, namespace: str = "default", deleted: bool = False, uid: str = ""
) -> Observation:
    fields = ("",) * len(PODS.selectable_fields)
    return observed(name, version, namespace=namespace, fields=fields, deleted=deleted, uid=uid)


def listed(store: PartitionStore, version: int, *objects: Observation) -> PartitionStore:
    store.begin()
    for held in objects:
        store.put(held)
    store.finish(Version(version))
    return store


def state(store: PartitionStore, at: int | None = None) -> dict[str, int]:
    """Key -> version, read from the bodies."""
    page = store.page(query(limit=1000, at=None if at is None else Version(at)))
    return {
        key: int(body.split(b'"resourceVersion":"')[1].split(b'"')[0])
        for key, body in zip(page.keys, page.bodies, strict=True)
    }


# -- lists ---------------------------------------------------------------------------------------------------


def test_nothing_can_be_read_before_the_first_list_is_complete() -> None:
    store = new()
    store.begin()
    store.put(pod("a", 5))
    for read in (
        lambda: store.get(Key("default/a")),
        lambda: store.page(query()),
        lambda: store.capture(query()),
        lambda: store.count(query()),
    ):
        with pytest.raises(NotReady, match="v1/pods is not synced yet"):
            read()
    assert not store.synced
    store.finish(Version(9))
    assert store.synced
    assert state(store) == {"default/a": 5}


def test_an_empty_list_is_a_complete_one() -> None:
    store = listed(new(), 9)
    assert (store.synced, store.frontier, len(store), store.oldest_version) == (True, 9, 0, 9)
    assert store.page(query()).keys == []


def test_a_relist_is_seen_as_changes_at_its_end_and_not_before() -> None:
    store = listed(new(), 10, pod("a", 5), pod("b", 6), pod("c", 7))
    kept = store._entries[Key("default/a")]
    store.begin()
    store.put(pod("a", 5))
    store.put(pod("b", 15))
    store.put(pod("d", 12))
    assert state(store) == {"default/a": 5, "default/b": 6, "default/c": 7}
    store.finish(Version(20))
    assert state(store) == {"default/a": 5, "default/b": 15, "default/d": 12}
    assert store._entries[Key("default/a")] is kept
    assert store.events == {"added": 1, "modified": 1, "deleted": 1, "bookmark": 0}
    assert [(event.version, event.key) for event in store._history] == [
        (12, "default/d"),
        (15, "default/b"),
        (19, "default/c"),  # below the list: see `store.difference`
    ]
    assert state(store, at=10) == {"default/a": 5, "default/b": 6, "default/c": 7}
    with pytest.raises(Expired):
        state(store, at=15)


def test_a_list_that_breaks_off_changes_nothing() -> None:
    store = listed(new(), 10, pod("a", 5))
    store.begin()
    store.put(pod("b", 15))
    store.abandon()
    assert state(store) == {"default/a": 5}
    assert store.frontier == 10
    listed(store, 20, pod("c", 16))
    assert state(store) == {"default/c": 16}


def test_a_list_begun_again_starts_from_nothing() -> None:
    store = new()
    store.begin()
    store.put(pod("a", 5))
    listed(store, 10, pod("b", 6))
    assert state(store) == {"default/b": 6}


def test_of_an_object_listed_twice_the_newer_state_counts() -> None:
    assert state(listed(new(), 10, pod("a", 5), pod("a", 7), pod("a", 6))) == {"default/a": 7}


def test_an_object_deleted_before_the_list_is_complete_is_not_in_it() -> None:
    store = listed(new(), 10, pod("a", 5), pod("b", 6))
    listed(store, 20, pod("a", 5), pod("b", 6), pod("c", 11), pod("b", 12, deleted=True))
    assert state(store) == {"default/a": 5, "default/c": 11}
    listed(store, 30, pod("d", 25), pod("d", 26, deleted=True), pod("d", 27), pod("e", 1, deleted=True))
    assert state(store) == {"default/d": 27}


def test_a_recreated_object_of_the_same_version_is_another() -> None:
    store = listed(new(), 10, pod("a", 5, uid="first"))
    listed(store, 11, pod("a", 5, uid="second"))
    body = store.get(Key("default/a"))
    assert body is not None
    assert b'"uid":"second"' in body


def test_a_list_at_the_same_version_corrects_what_is_held() -> None:
    store = listed(new(), 10, pod("a", 5))
    listed(store, 10, pod("b", 7))
    assert state(store) == state(store, at=10) == {"default/b": 7}


def test_what_a_list_of_mixed_ages_knows_newer_is_kept() -> None:
    # A paged list whose token expired goes on at a newer version; the watch then starts at the older one.
    store = listed(new(), 10, pod("a", 14), pod("b", 9))
    store.apply(pod("b", 12))
    store.apply(pod("a", 13))
    assert state(store) == {"default/a": 14, "default/b": 12}
    listed(store, 13, pod("b", 12))
    assert state(store) == {"default/a": 14, "default/b": 12}
    listed(store, 13, pod("b", 12), pod("a", 11))
    assert state(store) == {"default/a": 14, "default/b": 12}
    assert store.events == {"added": 0, "modified": 1, "deleted": 0, "bookmark": 0}


def test_an_old_object_that_only_a_relist_reveals_was_not_there_before() -> None:
    store = listed(new(), 10, pod("a", 5))
    listed(store, 20, pod("a", 5), pod("b", 7))
    assert state(store, at=10) == {"default/a": 5}
    assert state(store, at=20) == state(store) == {"default/a": 5, "default/b": 7}
    assert [event.version for event in store._history] == [11]


def test_a_list_leaves_no_label_sets_that_nothing_carries() -> None:
    store = new()
    store.begin()
    for version, app in ((5, "web"), (7, "db")):
        fields = ("",) * len(PODS.selectable_fields)
        store.put(observed("a", version, labels={"app": app}, fields=fields))
    store.finish(Version(10))
    assert store._index.sizes()["label_sets"] == 1


def test_a_list_older_than_the_frontier_is_a_server_that_lost_its_past() -> None:
    store = listed(new(), 100, pod("a", 50), pod("b", 60))
    store.apply(pod("b", 110))
    listed(store, 30, pod("a", 20), pod("c", 25))
    assert state(store) == {"default/a": 20, "default/c": 25}
    assert (store.frontier, store.oldest_version) == (30, 30)
    assert store.history_statistics().events == 0
    store.apply(pod("c", 31))
    assert state(store)["default/c"] == 31
    assert store.audit == digest([("uid-default-a", Version(20)), ("uid-default-c", Version(31))])


def test_put_and_finish_outside_of_a_list_are_bugs() -> None:
    store = new()
    with pytest.raises(Broken):
        store.put(pod("a", 5))
    with pytest.raises(Broken):
        store.finish(Version(5))
    with pytest.raises(Broken):
        store.apply(pod("a", 5))


def test_objects_listed_before_the_dictionary_are_packed_with_it() -> None:
    recorded = [
        (document["metadata"], compact(document))
        for resource_type, document in cluster_objects()
        if resource_type.resource.qualified_name == "pods"
    ][:100]
    fields = ("",) * len(PODS.selectable_fields)
    store = new(dictionary_samples=50)
    store.begin()
    for metadata, body in recorded:
        key, uid = Key(f"{metadata['namespace']}/{metadata['name']}"), metadata["uid"]
        store.put(Observation(False, key, metadata["namespace"], uid, Version(5), b"", fields, body))
    store.finish(Version(10))
    assert {entry.generation.number for entry in store._entries.values()} == {1}
    assert dict(zip(*_page(store), strict=True)) == {
        f"{metadata['namespace']}/{metadata['name']}": body for metadata, body in recorded
    }
    assert store.body_bytes == sum(len(entry.packed) for entry in store._entries.values())


def _page(store: PartitionStore) -> tuple[list[Key], list[bytes]]:
    page = store.page(query(limit=1000))
    return page.keys, page.bodies


# -- live events ---------------------------------------------------------------------------------------------


def test_events_are_applied_and_counted() -> None:
    store = listed(new(), 10, pod("a", 5))
    store.apply(pod("b", 11))
    store.apply(pod("a", 12))
    store.apply(pod("b", 13, deleted=True))
    store.advance(Version(20))
    assert state(store) == {"default/a": 12}
    assert store.events == {"added": 1, "modified": 1, "deleted": 1, "bookmark": 1}
    assert store.frontier == 20
    assert [state(store, at=version) for version in (10, 11, 12, 13)] == [
        {"default/a": 5},
        {"default/a": 5, "default/b": 11},
        {"default/a": 12, "default/b": 11},
        {"default/a": 12},
    ]


def test_an_object_never_goes_back() -> None:
    store = listed(new(), 10, pod("a", 5))
    store.apply(pod("a", 12))
    for late in (pod("a", 11), pod("a", 12), pod("a", 9, deleted=True)):
        store.apply(late)
    assert state(store) == {"default/a": 12}
    assert store.ignored == 3


def test_a_late_event_does_not_bring_a_deleted_object_back() -> None:
    store = listed(new(), 10, pod("a", 5))
    store.apply(pod("a", 12, deleted=True))
    store.apply(pod("a", 11))
    assert state(store) == {}
    store.apply(pod("a", 13))
    assert state(store) == {"default/a": 13}


def test_a_deletion_reported_with_the_last_states_version_counts() -> None:
    store = listed(new(), 10, pod("a", 5), pod("b", 10))
    store.apply(pod("c", 12))
    store.apply(pod("a", 5, deleted=True))
    assert state(store) == {"default/b": 10, "default/c": 12}
    assert store.frontier == 12
    store.apply(pod("b", 10, deleted=True, uid="another"))
    assert "default/b" in state(store)


def test_a_deletion_of_what_is_not_held_moves_the_frontier_only() -> None:
    store = listed(new(), 10)
    store.apply(pod("a", 12, deleted=True))
    assert (store.frontier, store.events["deleted"], store.history_statistics().events) == (12, 0, 0)


def test_an_object_deleted_and_made_again_unseen_is_one_change() -> None:
    store = listed(new(), 10, pod("a", 5, uid="first"))
    store.apply(pod("a", 12, uid="second"))
    assert store.events["modified"] == 1
    assert store.audit == digest([("second", Version(12))])


def test_a_bookmark_never_moves_the_frontier_back() -> None:
    store = listed(new(), 10)
    store.advance(Version(15))
    store.advance(Version(12))
    assert store.frontier == 15


def test_a_bookmark_before_the_first_list_proves_nothing() -> None:
    store = new()
    store.advance(Version(15))
    assert (store.frontier, store.synced) == (0, False)


def test_unchanged_labels_and_fields_are_held_once() -> None:
    store = listed(new(), 10, pod("a", 5))
    before = store._entries[Key("default/a")]
    store.apply(pod("a", 12))
    after = store._entries[Key("default/a")]
    assert after is not before
    assert after.labels is before.labels
    assert after.fields is before.fields
    assert after.key is before.key
    assert after.uid is before.uid


# -- covers --------------------------------------------------------------------------------------------------

LOW = HashRange("namespace", 0, fnv1a64("b"))


@pytest.mark.parametrize(
    ("cover", "inside", "outside"),
    [
        (OneNamespace("a"), "a", "b"),
        (ExceptNamespaces(("a",)), "b", "a"),
        (LOW, next(n for n in "acdefgh" if fnv1a64(n) < fnv1a64("b")), "b"),
    ],
)
def test_what_is_outside_the_cover_is_dropped_and_counted(cover: Cover, inside: str, outside: str) -> None:
    store = listed(new(cover=cover), 10, pod("p", 5, namespace=inside), pod("p", 6, namespace=outside))
    store.apply(pod("q", 11, namespace=outside))
    store.apply(pod("q", 12, namespace=inside))
    assert set(state(store)) == {f"{inside}/p", f"{inside}/q"}
    assert store.dropped == 2
    assert store.frontier == 12


# -- telling -------------------------------------------------------------------------------------------------


def test_subscribers_are_called_once_the_change_can_be_read() -> None:
    store, seen = new(), []
    store.subscribe(lambda: seen.append((store.frontier, len(store))))
    listed(store, 10, pod("a", 5))
    store.apply(pod("b", 11))
    store.advance(Version(15))
    store.advance(Version(14))
    assert seen == [(10, 1), (11, 2), (15, 2)]


def test_the_age_of_the_frontier_is_the_time_since_it_was_proved() -> None:
    clock = Clock()
    store = new(clock=clock)
    assert store.frontier_age_s == 0.0
    listed(store, 10)
    clock.now += 30
    assert store.frontier_age_s == 30.0
    store.advance(Version(10))
    assert store.frontier_age_s == 0.0


def test_the_audit_depends_on_uid_and_version_and_on_no_order() -> None:
    objects = [("uid-default-a", 5), ("uid-default-b", 6), ("0c2a1f2e-0000-4000-8000-000000000001", 6)]
    digests = {digest((uid, Version(v)) for uid, v in order) for order in itertools.permutations(objects)}
    assert len(digests) == 1
    swapped = digest([("uid-default-a", Version(6)), ("uid-default-b", Version(5))])
    assert swapped != digest([("uid-default-a", Version(5)), ("uid-default-b", Version(6))])
    assert digest([]) == 0
    assert listed(new(), 9, pod("a", 5), pod("b", 6)).audit == digest((u, Version(v)) for u, v in objects[:2])
    # A fixed value: digests are compared between processes.
    assert digest([("0c2a1f2e-0000-4000-8000-000000000001", Version(6))]) == 646875109726623012


# -- marks ---------------------------------------------------------------------------------------------------


def test_a_list_of_an_older_past_forgets_what_had_been_shown() -> None:
    store = listed(new(), 500, pod("a", 400))
    store.overtake(Version(100_000))
    listed(store, 90, pod("a", 80))
    assert store.overtaken == 0
    store.apply(pod("a", 91))
    assert store.history_statistics().late == 0


def test_a_consistent_list_refutes_what_cannot_have_been_shown_and_what_was_late_for_it() -> None:
    clock = Clock()
    store = listed(new(clock=clock, history_bytes=1, settling_s=0.0), 500)
    clock.now += 10
    store.overtake(Version(100_000))
    store.apply(pod("a", 501))  # late, and out of the window at once
    assert store.resumable == 100_001
    asked = store.moment
    store.told(Version(400), asked)
    assert store.overtaken == 100_000, "the server is behind the frontier: the next list says what that means"
    store.told(Version(510), asked)
    assert (store.overtaken, store.resumable) == (510, 511)


def test_a_list_made_again_refutes_what_had_been_shown_when_it_began() -> None:
    store = listed(new(), 500)
    store.overtake(Version(100_000))
    store.begin()
    store.overtake(Version(700))
    store.finish(Version(600))
    assert store.overtaken == 700
