"""Frames on their way: whatever happens to them is found, and nothing is made of what is not whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.moved_stores import OBJECTS, Clock, answers, differences, moved, new_store, pod, sent

from shoal.shards.model.errors import Garbage
from shoal.shards.model.partitions import EVERYTHING
from shoal.shards.model.versions import Version
from shoal.shards.store.objects import PartitionStore
from shoal.shards.store.transfer import Arrival, Extract

PICK = st.integers(0, 10**6)


def filled(objects: int = 40, changes: int = 25, *, seed: int = 1) -> PartitionStore:
    """A store of several frames of each kind."""
    rng = random.Random(seed)
    store = new_store(Clock(50.0), history_bytes=1 << 20)

    def wanted(number: int) -> dict[str, Any]:
        return {
            "namespace": rng.choice(["a", "b"]),
            "name": f"p{number:03}",
            "uid": f"uid-{number}",
            "labels": {"app": rng.choice(["web", "db"])},
            "node": f"node-{number % 3}",
        }

    made = [wanted(number) for number in range(objects)]
    store.begin()
    for version, one in enumerate(made, 20):
        store.put(pod(one, version))
    store.finish(Version(100))
    store.overtake(Version(110))
    for version in range(101, 101 + changes):
        store.apply(pod(rng.choice(made), version, deleted=rng.random() < 0.3))
    return store


FRAMES = list(filled().extract().frames(1500))
OTHERS = list(filled(seed=2).extract().frames(1500))


def taken(frames: list[bytes]) -> Extract:
    arrival = Arrival()
    for frame in frames:
        arrival.take(frame)
    return arrival.finish()


def test_there_is_something_to_damage() -> None:
    kinds = [frame[5] for frame in FRAMES]
    assert all(kinds.count(kind) > 1 for kind in (3, 4, 5)), kinds
    assert len(taken(FRAMES)) == len(filled()) > 30


@settings(max_examples=400, deadline=None)
@given(which=PICK, where=PICK, bits=st.integers(1, 255))
def test_every_byte_counts(which: int, where: int, bits: int) -> None:
    which %= len(FRAMES)
    frame = bytearray(FRAMES[which])
    frame[where % len(frame)] ^= bits
    with pytest.raises(Garbage, match=f"^transfer, frame {which}: "):
        taken([*FRAMES[:which], bytes(frame), *FRAMES[which + 1 :]])


@pytest.mark.parametrize("which", range(len(FRAMES)))
def test_every_frame_counts(which: int) -> None:
    """One that lacks, comes twice, is cut short, has more than it should, or is of another transfer."""
    before, frame, after = FRAMES[:which], FRAMES[which], FRAMES[which + 1 :]
    for damaged in (
        [*before, *after],
        [*before, frame, frame, *after],
        [*before, frame[:-1], *after],
        [*before, frame[:10], *after],
        [*before, b"", *after],
        [*before, frame + b"\0", *after],
        [*before, OTHERS[which % len(OTHERS)], *after],
        [*before, *OTHERS[which:]],
        [*before, *after, frame],
    ):
        if damaged not in (FRAMES, OTHERS):
            with pytest.raises(Garbage, match="^transfer"):
                taken(damaged)


@settings(max_examples=200, deadline=None)
@given(one=PICK, other=PICK)
def test_their_order_counts(one: int, other: int) -> None:
    one, other = one % len(FRAMES), other % len(FRAMES)
    swapped = list(FRAMES)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    if swapped == FRAMES:
        return
    with pytest.raises(Garbage, match=r"^transfer, frame \d+: frame \d+ came in its place$"):
        taken(swapped)


@settings(max_examples=200, deadline=None)
@given(which=PICK, garbage=st.binary(max_size=200))
def test_garbage_is_none_of_them(which: int, garbage: bytes) -> None:
    which %= len(FRAMES) + 1
    with pytest.raises(Garbage, match=f"^transfer, frame {which}: "):
        taken([*FRAMES[:which], garbage, *FRAMES[which:]])


def test_nothing_is_taken_after_garbage() -> None:
    arrival = Arrival()
    arrival.take(FRAMES[0])
    with pytest.raises(Garbage):
        arrival.take(b"x")
    again: tuple[Callable[[], object], ...] = (lambda: arrival.take(FRAMES[1]), arrival.finish)
    for act in again:
        with pytest.raises(Garbage, match=r"^transfer, frame 1: 1 bytes are no frame"):
            act()
    assert len(arrival) == 0


@pytest.mark.parametrize("count", range(len(FRAMES)))
def test_some_of_them_are_nothing(count: int) -> None:
    arrival = Arrival()
    for frame in FRAMES[:count]:
        arrival.take(frame)
    with pytest.raises(Garbage, match=f"^transfer: cut off after {count} frames"):
        arrival.finish()


@settings(max_examples=60, deadline=None)
@given(objects=st.lists(OBJECTS, max_size=20), max_bytes=st.integers(1, 5000))
def test_frames_are_as_small_as_they_can_be(objects: list[dict[str, Any]], max_bytes: int) -> None:
    store = new_store(Clock(), history_bytes=1 << 20)
    store.begin()
    store.finish(Version(10))
    for version, wanted in enumerate(objects, 11):
        store.apply(pod(wanted, version))
    extract = store.extract()
    frames = list(extract.frames(max_bytes))
    # Nothing here is longer than that by itself.
    assert all(len(frame) <= max(max_bytes, 700) for frame in frames)
    target = moved([sent(extract, max_bytes=max_bytes)], Clock(3.0), EVERYTHING, history_bytes=1 << 20)
    assert not differences(answers(store), answers(target))
