"""Profiles say where the load of a partition is, exactly by namespace, and by hash as far as cut points need it."""

from __future__ import annotations

import json
import uuid

import pytest
from support.watched_shards import PODS

from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import Partition, fnv1a64
from shoal.shards.model.refs import key_of
from shoal.shards.model.transfers import PROFILE_NAMESPACES, NamespaceLoad, Profile
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.objects import PartitionStore
from shoal.shards.store.profile import HASHED_OBJECTS, PIECE_OBJECTS, profiling
from shoal.shards.store.transfer import finished


def uid_of(namespace: str, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{name}"))


class Written:
    """A store that a test writes to, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.version = 0
        settings = StoreSettings(settling_s=0.0)
        self.store = PartitionStore(Partition(PODS.resource), PODS, settings=settings, clock=lambda: self.now)

    def observation(self, namespace: str, name: str, *, deleted: bool = False) -> Observation:
        self.version += 1
        body = json.dumps({"metadata": {"namespace": namespace, "name": name}, "spec": {"x": "y" * 100}})
        return Observation(
            deleted=deleted,
            key=key_of(namespace, name),
            namespace=namespace,
            uid=uid_of(namespace, name),
            version=Version(self.version),
            labels=b"",
            fields=("", ""),
            body=body.encode(),
        )

    def list(self, *names: tuple[str, str]) -> None:
        self.store.begin()
        for namespace, name in names:
            self.store.put(self.observation(namespace, name))
        self.version += 1
        self.store.finish(Version(self.version))

    def profile(self) -> Profile:
        return finished(profiling(self.store))


def test_namespaces_are_counted_and_ordered_by_their_load() -> None:
    written = Written()
    written.list(*[("big", f"pod-{number}") for number in range(10)], ("busy", "a"), ("idle", "b"))
    for _ in range(5):
        written.now += 10
        written.store.apply(written.observation("busy", "a"))
    written.store.apply(written.observation("big", "pod-3", deleted=True))
    found = written.profile()
    sizes = {load.name: load.bytes for load in found.namespaces}
    assert [(load.name, load.objects, load.events) for load in found.namespaces] == [
        ("busy", 1, 5),
        ("big", 9, 1),
        ("idle", 1, 0),
    ]
    assert found.other == NamespaceLoad("", 0, 0, 0)
    assert (found.partition, found.objects, found.seconds) == ("v1/pods", 11, pytest.approx(40, abs=1))
    assert found.bytes == sum(sizes.values()) == written.store.body_bytes
    assert sum(found.uid_weights) == sum(found.namespace_weights) == 11 + 6
    assert found.namespace_weights[fnv1a64("busy") >> 56] >= 6
    assert found.uid_weights[fnv1a64(uid_of("busy", "a")) >> 56] >= 6


def test_of_many_namespaces_the_largest_are_named() -> None:
    written = Written()
    names = [f"ns-{number:03}" for number in range(PROFILE_NAMESPACES + 20)]
    written.list(*[(name, "a") for name in names], ("ns-000", "b"))
    found = written.profile()
    assert len(found.namespaces) == PROFILE_NAMESPACES
    assert (found.namespaces[0].name, found.namespaces[0].objects) == ("ns-000", 2)
    assert found.other.objects == 20
    assert found.bytes == found.other.bytes + sum(load.bytes for load in found.namespaces)
    assert sum(found.namespace_weights) == found.objects == len(names) + 1


def test_nothing_recorded_says_so() -> None:
    written = Written()
    written.list()
    found = written.profile()
    assert (found.objects, found.bytes, found.seconds, found.namespaces) == (0, 0, 0.0, [])
    assert sum(found.uid_weights) == 0


def test_it_is_of_the_moment_it_began_and_made_in_pieces() -> None:
    written = Written()
    written.list(*[("a", f"pod-{number}") for number in range(3 * PIECE_OBJECTS)])
    steps = profiling(written.store)
    pieces = 0
    try:
        while True:
            next(steps)
            written.store.apply(written.observation("later", f"pod-{pieces}"))
            pieces += 1
    except StopIteration as end:
        found = end.value
    assert pieces == 3
    assert [load.name for load in found.namespaces] == ["a"]
    assert found.objects == 3 * PIECE_OBJECTS


def test_large_partitions_are_weighed_by_some_of_their_objects() -> None:
    written = Written()
    count = 2 * HASHED_OBJECTS + 5
    written.list(*[("a", f"pod-{number}") for number in range(count)])
    found = written.profile()
    assert found.objects == count
    assert sum(found.uid_weights) == pytest.approx(count, abs=3)
    assert max(found.uid_weights) < 3 * count / 256
