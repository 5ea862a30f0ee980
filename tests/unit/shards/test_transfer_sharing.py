"""What a partition that was moved holds once: texts, label sets, states, times and dictionaries."""

from __future__ import annotations

from support.moved_stores import Clock, apply, listed, moved, new_store, pod, sent, thing
from support.observed import PODS, cluster_objects, compact, observed, query

from shoal.shards.model.partitions import EVERYTHING, HASH_END, HashRange, Partition
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.bodies import BodyCodec
from shoal.shards.store.objects import PartitionStore
from shoal.shards.store.transfer import extract


def test_what_repeats_is_held_once() -> None:
    source = listed(new_store(Clock()), 10, "p", "q", "r")
    for version in (11, 12, 13):
        apply(source, "p", version)
    store = moved([sent(extract(source, EVERYTHING), max_bytes=300)], Clock(), EVERYTHING)
    first, *others = store._entries.values()
    assert all(other.labels is first.labels for other in others)
    assert all(other.fields[0] is first.fields[0] for other in others)
    events = list(store._history)
    assert events[-1].after is first
    for event, following in zip(events, events[1:], strict=False):
        assert event.after is following.before
        assert event.at is following.at
    for event in events:
        assert event.before is not None
        assert event.before.key is first.key
        assert event.before.uid is first.uid
        assert event.before.fields is first.fields
        assert event.before.labels is first.labels


def test_label_sets_of_states_that_are_gone_are_in_no_index() -> None:
    source = listed(new_store(Clock()), 10)
    source.apply(pod(thing("p", labels={"app": "old"}), 11))
    source.apply(pod(thing("p", labels={"app": "new"}), 12))
    store = moved([extract(source, EVERYTHING)], Clock(), EVERYTHING)
    assert store._index.sizes() == source._index.sizes()
    assert store._index.sizes()["label_sets"] == 1
    source.apply(pod(thing("p", labels={"app": "old"}), 13))
    assert source.count(query(labels="app=old")) == 1
    assert store.count(query(labels="app=old")) == 0


# -- dictionaries --------------------------------------------------------------------------------------------


def trained(samples: int = 40, *, codec: BodyCodec | None = None) -> PartitionStore:
    store = PartitionStore(
        Partition(PODS.resource),
        PODS,
        settings=StoreSettings(dictionary_samples=samples),
        clock=Clock(),
        codec=codec,
    )
    store.begin()
    fields = ("",) * len(PODS.selectable_fields)
    pods = [document for known, document in cluster_objects() if known.kind == "Pod"]
    for version, document in enumerate(pods, 1):
        seen = observed(f"p{version}", version, fields=fields)
        seen.body = compact(document)
        store.put(seen)
    store.finish(Version(1000))
    return store


def test_a_dictionary_that_comes_is_gone_on_with() -> None:
    source = trained()
    assert source._codec.generation.number == 1
    codec = BodyCodec(StoreSettings(dictionary_samples=40))
    store = PartitionStore(
        Partition(PODS.resource), PODS, settings=StoreSettings(), clock=Clock(), codec=codec
    )
    store.restore(sent(extract(source, EVERYTHING)))
    assert codec.generation.dictionary == source._codec.generation.dictionary
    assert all(entry.generation is codec.generation for entry in store._entries.values())
    body = source.get(Key("default/p1"))
    assert body is not None
    assert codec.pack(body)[0] == source._codec.pack(body)[0]
    for _ in range(100):
        codec.pack(body)
    assert codec.generation.number == 1, "nothing is trained again"


def test_one_dictionary_is_held_once_however_many_partitions_bring_it() -> None:
    source = trained()
    own = BodyCodec(StoreSettings(dictionary_samples=16))
    trained(codec=own)
    assert own.generation.number == 1
    stores = []
    for cover in (HashRange("uid", 0, HASH_END // 2), HashRange("uid", HASH_END // 2, HASH_END)):
        store = PartitionStore(
            Partition(PODS.resource, cover), PODS, settings=StoreSettings(), clock=Clock(), codec=own
        )
        store.restore(sent(extract(source, cover)))
        stores.append(store)
    used = {id(entry.generation): entry.generation for store in stores for entry in store._entries.values()}
    assert len(used) == 1
    (foreign,) = used.values()
    assert foreign is not own.generation
    assert foreign.dictionary == source._codec.generation.dictionary
    for store in stores:
        for key in store._entries:
            assert store.get(key) == source.get(key)
    assert sum(map(len, stores)) == len(source)


def test_a_partition_divided_in_its_own_shard_goes_on_with_the_same_dictionary() -> None:
    source = trained()
    half = HashRange("uid", 0, HASH_END // 2)
    store = PartitionStore(
        Partition(PODS.resource, half), PODS, settings=StoreSettings(), clock=Clock(), codec=source._codec
    )
    store.restore(extract(source, half))
    assert {id(entry.generation) for entry in store._entries.values()} == {id(source._codec.generation)}
