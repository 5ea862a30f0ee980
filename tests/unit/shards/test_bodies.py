"""Bodies packed and unpacked: dictionary generations, retraining, bodies no dictionary can be trained on."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
import weakref

import pytest
from support.observed import cluster_objects, compact

from shoal.shards.settings import StoreSettings
from shoal.shards.store.bodies import REVIEW_BODIES, SAMPLE_BYTES_MAX, SETTLING_REVIEWS, BodyCodec, Generation

SETTINGS = StoreSettings(dictionary_samples=50)


def pods() -> list[bytes]:
    return [
        compact(document)
        for resource_type, document in cluster_objects()
        if resource_type.resource.qualified_name == "pods"
    ]


def test_bodies_come_back_whatever_generation_packed_them() -> None:
    codec = BodyCodec(SETTINGS)
    bodies = [*pods()[:200], b"", b"{}", b"x" * 300_000]
    packed = [codec.pack(body) for body in bodies]
    assert codec.generation.number == 1
    assert {generation.number for _, generation in packed} == {0, 1}
    assert [generation.unpack(data) for data, generation in packed] == bodies


def test_a_trained_dictionary_makes_pods_small() -> None:
    codec = BodyCodec(StoreSettings())
    bodies = [body for at, body in enumerate(pods()) if at % 4 == 0]
    for body in bodies[:300]:
        codec.pack(body)
    rest = [body for at, body in enumerate(pods()) if at % 4]
    size = sum(len(codec.pack(body)[0]) for body in rest)
    # Measured: 4.7 % of the bytes with managedFields.
    assert size < 0.08 * sum(map(len, rest))


def test_a_packed_body_takes_no_more_room_than_its_length() -> None:
    # The buffers python-zstandard hands out are as large as the plain body.
    codec = BodyCodec(SETTINGS)
    bodies = pods()[:300]
    for body in bodies:
        codec.pack(body)
    tracemalloc.start()
    try:
        packed = [codec.pack(body)[0] for body in bodies]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.5 * sum(map(sys.getsizeof, packed))


def test_few_objects_are_packed_without_dictionary() -> None:
    codec = BodyCodec(SETTINGS)
    for body in pods()[:49]:
        assert codec.pack(body)[1].number == 0


@pytest.mark.parametrize("useless", [[b"", b"{}"], [b"x" * 64], [b"0123456789" * 7, b"{" * 100]])
def test_bodies_nothing_can_be_learnt_from_do_not_stop_the_codec(useless: list[bytes]) -> None:
    # zstd's trainer crashes the process on samples that are few and tiny.
    codec = BodyCodec(StoreSettings(dictionary_samples=1))
    bodies = useless * 100 + pods()[:600] + useless
    packed = [codec.pack(body) for body in bodies]
    assert [generation.unpack(data) for data, generation in packed] == bodies
    assert codec.generation.number >= 1


def test_samples_of_giants_are_cut() -> None:
    codec = BodyCodec(SETTINGS)
    codec.pack(b"a" * 1_000_000)
    assert sum(map(len, codec._samples)) == SAMPLE_BYTES_MAX


def test_it_is_trained_again_once_bodies_stop_resembling_the_dictionary() -> None:
    codec = BodyCodec(SETTINGS)
    first = pods()
    for at in range((2 * SETTLING_REVIEWS + 1) * REVIEW_BODIES):
        codec.pack(first[at % len(first)])
    assert codec.generation.number == 1
    old = codec.generation
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnop", k=12)) for _ in range(400)]
    other = [compact({"spec": [rng.choice(words) for _ in range(200)]}) for _ in range(500)]
    before = sum(len(old.pack(body)) for body in other)
    for at in range(6 * REVIEW_BODIES):
        codec.pack(other[at % len(other)])
    assert codec.generation.number == 2
    assert sum(len(codec.generation.pack(body)) for body in other) < 0.8 * before


def test_it_is_not_trained_again_while_nothing_changes() -> None:
    codec = BodyCodec(StoreSettings())
    bodies = pods()
    rng = random.Random(3)
    for _ in range(10 * REVIEW_BODIES):
        codec.pack(rng.choice(bodies))
    assert codec.generation.number == 1


def test_a_generation_lives_as_long_as_somebody_needs_it() -> None:
    codec = BodyCodec(SETTINGS)
    generation = Generation(5, b"", 1)
    codec.generation = generation
    kept = codec.pack(b"{}")
    codec.generation = Generation(6, b"", 1)
    watched = weakref.ref(generation)
    del generation
    gc.collect()
    assert watched() is not None
    del kept
    gc.collect()
    assert watched() is None
