"""Storage: revisions, the log, states of the past, compaction."""

from __future__ import annotations

import pytest

from shoal.cluster.simulator.storage import Collection, Compacted, Storage, Stored
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version


def stored(key: str, version: int, body: bytes = b"{}") -> Stored:
    namespace, _, name = key.rpartition("/")
    return Stored(Key(key), namespace, name, f"uid-{key}", Version(version), {}, (), body)


def put(storage: Storage, collection: Collection, key: str, body: bytes = b"{}") -> Version:
    return storage.write(collection, lambda version: stored(key, version, body)).version


def remove(storage: Storage, collection: Collection, key: str) -> Version:
    return storage.delete(collection, Key(key), lambda _, version: stored(key, version)).version


def keys(collection: Collection, version: int | None = None) -> list[str]:
    return [one.key for one in collection.page(version=None if version is None else Version(version)).objects]


def test_one_revision_for_all_collections() -> None:
    storage = Storage()
    pods, nodes = storage.collection("pods"), storage.collection("nodes")
    assert [put(storage, pods, "a/x"), put(storage, nodes, "n"), put(storage, pods, "a/x")] == [2, 3, 4]
    assert [event.type for event in pods.events] == ["ADDED", "MODIFIED"]
    assert pods.events[1].previous == stored("a/x", 2)


def test_objects_are_in_the_order_of_their_keys() -> None:
    storage = Storage()
    pods = storage.collection("pods")
    for key in ("b/a", "a/x", "a-b/x", "a/a"):
        put(storage, pods, key)
    assert keys(pods) == ["a-b/x", "a/a", "a/x", "b/a"]
    assert [one.key for one in pods.page(namespace="a").objects] == ["a/a", "a/x"]


def test_every_state_of_the_past_can_be_read() -> None:
    storage = Storage()
    pods = storage.collection("pods")
    states: dict[int, list[str]] = {1: []}
    for step in range(40):
        key = f"a/{step % 7}"
        if step % 3 == 2 and Key(key) in pods.objects:
            version = remove(storage, pods, key)
        else:
            version = put(storage, pods, key, str(step).encode())
        states[version] = [f"{one.key}={one.body!r}" for one in pods.page().objects]
    for version, expected in states.items():
        page = pods.page(version=Version(version))
        assert [f"{one.key}={one.body!r}" for one in page.objects] == expected


def test_pages_of_an_old_state_count_what_is_left_of_it() -> None:
    storage = Storage()
    pods = storage.collection("pods")
    for name in "abcde":
        version = put(storage, pods, f"n/{name}")
    remove(storage, pods, "n/e")
    put(storage, pods, "other/a")
    page = pods.page(version=version, namespace="n", limit=2)
    assert ([one.name for one in page.objects], page.more, page.remaining) == (["a", "b"], True, 3)
    page = pods.page(version=version, namespace="n", after="n/b\0", limit=3)
    assert ([one.name for one in page.objects], page.more, page.remaining) == (["c", "d", "e"], False, 0)


def test_compaction_forgets_events_and_keeps_objects() -> None:
    storage = Storage()
    pods = storage.collection("pods")
    for name in "abc":
        put(storage, pods, name)
    cursor = pods.position_after(Version(2))
    storage.compact(Version(3))
    assert keys(pods) == ["a", "b", "c"]
    assert pods.oldest == 3
    assert [event.version for event in pods.since(pods.position_after(Version(3)), 10)] == [4]
    with pytest.raises(Compacted):
        pods.position_after(Version(2))
    with pytest.raises(Compacted):
        pods.page(version=Version(2))
    with pytest.raises(Compacted):
        pods.since(cursor, 10)


def test_history_is_bounded_by_events_and_by_bytes() -> None:
    storage = Storage(history_events=10, history_bytes=1 << 20)
    pods = storage.collection("pods")
    for step in range(100):
        put(storage, pods, f"{step}")
    assert len(pods.events) <= 10
    assert pods.oldest == pods.events[0].version - 1
    storage = Storage(history_bytes=1000)
    pods = storage.collection("pods")
    for _ in range(100):
        put(storage, pods, "a", b"x" * 100)
    assert sum(len(event.stored.body) for event in pods.events) <= 1000


def test_a_restart_forgets_the_past_and_goes_on_counting() -> None:
    storage = Storage()
    pods = storage.collection("pods")
    put(storage, pods, "a")
    storage.restart(revision=100)
    assert (storage.revision, storage.incarnation, pods.oldest) == (100, 1, 100)
    with pytest.raises(Compacted):
        pods.position_after(Version(99))
    assert put(storage, pods, "b") == 101
    assert storage.collection("nodes").oldest == 100, "unused collections have no past either"


def test_a_collection_that_begins_later_has_no_earlier_past() -> None:
    storage = Storage()
    put(storage, storage.collection("pods"), "a")
    assert storage.open("widgets.example.com").oldest == 2
    assert storage.collection("nodes").oldest == 1


def test_a_dropped_collection_is_closed_and_its_subscribers_told() -> None:
    storage = Storage()
    pods = storage.collection("pods")
    told: list[bool] = []
    pods.subscribers.add(lambda: told.append(pods.closed))
    storage.drop("pods")
    assert told == [True]
    assert storage.collection("pods") is not pods


def test_restored_objects_come_in_the_order_of_their_versions() -> None:
    storage = Storage()
    pods = storage.collection("pods")
    storage.restore(pods, stored("a", 64))
    assert storage.revision == 64
    with pytest.raises(ValueError, match="not newer than revision 64"):
        storage.restore(pods, stored("b", 64))


@pytest.mark.parametrize("revision", range(1, 9))
def test_a_restored_backup_is_the_state_of_its_revision(revision: int) -> None:
    storage = Storage()
    pods, nodes = storage.collection("pods"), storage.collection("nodes")
    states = {1: ([], [])}
    for step, (collection, key, gone) in enumerate(
        (
            (pods, "a", False),
            (nodes, "n", False),
            (pods, "b", False),
            (pods, "a", False),
            (pods, "b", True),
            (nodes, "n", True),
            (pods, "c", False),
        )
    ):
        (remove if gone else put)(storage, collection, key)
        states[step + 2] = tuple(
            [(one.key, one.version) for one in each.page().objects] for each in (pods, nodes)
        )
    storage.restart(revision=revision)
    found = tuple([(one.key, one.version) for one in each.page().objects] for each in (pods, nodes))
    assert found == states[revision]
    assert (storage.revision, pods.oldest, nodes.oldest, pods.observed) == (revision,) * 4
    assert put(storage, pods, "d") == revision + 1, "versions are given again"
    assert pods.since(pods.position_after(Version(revision)), 10)[0].stored.key == "d"
    if revision > 1:
        with pytest.raises(Compacted):
            pods.position_after(Version(revision - 1))


def test_a_backup_older_than_the_log_keeps_what_is_old_enough() -> None:
    storage = Storage()
    pods = storage.collection("pods")
    for key in ("a", "b", "a", "c"):  # a@4, b@3, c@5
        put(storage, pods, key)
    storage.compact()
    put(storage, pods, "b")
    storage.restart(revision=3)
    assert [(one.key, one.version) for one in pods.page().objects] == [("b", 3)]
    storage.restart(revision=-5)
    assert (storage.revision, len(pods)) == (1, 0)
