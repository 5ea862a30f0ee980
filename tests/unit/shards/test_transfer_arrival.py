"""Frames that are undamaged and still wrong: made by hand, each with one thing in it that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import zstandard as zstd
from support.moved_stores import Clock, apply, listed, new_store

from shoal.shards.model.errors import Garbage
from shoal.shards.store import frames
from shoal.shards.store.transfer import Arrival, Extract

Contents = list[tuple[int, Any, list[bytes] | None]]
"""Kind, payload, and bodies where there are any."""

TYPES: dict[int, Any] = {
    frames.OPENING: frames.Opening,
    frames.DICTIONARY: frames.Dictionary,
    frames.END: frames.End,
}
_encode = msgspec.msgpack.encode


def contents() -> Contents:
    """A small transfer, taken apart: two objects now, two past states, three events of which one is late."""
    store = listed(new_store(Clock(9.0)), 10, "a/p", "a/q")
    store.overtake(store.frontier + 1)
    apply(store, "a/p", 11)
    apply(store, "b/r", 12)
    apply(store, "b/r", 13, deleted=True)
    found: Contents = []
    for raw in store.extract().frames(1 << 20):
        frame = frames.unframed(raw)
        if frame.kind in TYPES:
            found.append((frame.kind, msgspec.msgpack.decode(frame.payload, type=TYPES[frame.kind]), None))
            continue
        payload = msgspec.msgpack.decode(frame.payload)
        columns = zstd.ZstdDecompressor().decompress(payload[1])
        if frame.kind == frames.EVENTS:
            found.append((frame.kind, msgspec.msgpack.decode(columns, type=frames.Events), None))
        else:
            found.append((frame.kind, msgspec.msgpack.decode(columns, type=frames.States), payload[2]))
    return found


def sent(parts: Contents) -> Extract:
    """The frames of these contents, taken."""
    arrival, checked = Arrival(), 0
    for number, (kind, payload, bodies) in enumerate(parts):
        packed = _encode(payload)
        if kind in (frames.STATES, frames.PAST_STATES, frames.EVENTS):
            rest = [] if bodies is None else [bodies]
            packed = _encode([len(packed), zstd.ZstdCompressor().compress(packed), *rest])
        frame, checked = frames.framed(kind, number, checked, packed)
        arrival.take(frame)
    return arrival.finish()


def test_what_is_put_together_again_is_the_same() -> None:
    made = sent(contents())
    assert [entry.key for entry in made.entries] == ["a/p", "a/q"]
    assert [event.version for event in made.past.events] == [11, 12, 13]
    assert [late.event.version for late in made.past.late] == [11]


def changed(which: int, **values: Any) -> Callable[[], Contents]:
    """The contents with other values in one frame: of each a value, or what makes one of the old one."""

    def make() -> Contents:
        parts = contents()
        kind, payload, bodies = parts[which]
        made = {name: new(getattr(payload, name)) if callable(new) else new for name, new in values.items()}
        parts[which] = kind, msgspec.structs.replace(payload, **made), bodies
        return parts

    return make


def reordered(*order: int) -> Callable[[], Contents]:
    return lambda: [contents()[at] for at in order]


def replaced(which: int, payload: Any) -> Callable[[], Contents]:
    def make() -> Contents:
        parts = contents()
        parts[which] = parts[which][0], payload, parts[which][2]
        return parts

    return make


OPENING, DICTIONARY, STATES, PAST, EVENTS, END = range(6)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (reordered(STATES, DICTIONARY, END), "frame 0: kind 3 after 1"),
        (reordered(OPENING, OPENING), "frame 1: kind 1 after 1"),
        (reordered(OPENING, STATES), "frame 1: it names 0 of 0"),
        (reordered(OPENING, DICTIONARY, EVENTS, STATES), "frame 2: it names"),
        (reordered(OPENING, DICTIONARY, STATES, PAST, STATES), "frame 4: kind 3 after 4"),
        (reordered(OPENING, DICTIONARY, STATES, PAST, EVENTS), "cut off after 5 frames"),
        (
            reordered(OPENING, DICTIONARY, STATES, PAST, EVENTS, END, END),
            "frame 6: the transfer was complete",
        ),
        (
            reordered(OPENING, DICTIONARY, STATES, PAST, END),
            r"End\(.*events=0.*\) came, expected End\(.*events=3",
        ),
        (reordered(OPENING, DICTIONARY, STATES, STATES), "frame 3: key 'a/p' after 'a/q'"),
        (changed(OPENING, covers=("[x",)), r"frame 0: '\[x' is not a partition"),
        (changed(OPENING, covers=("[uid:02-01]",)), "frame 0: "),
        (changed(OPENING, fields=("one",)), "frame 2: it has not 2 values of each of 1 fields"),
        (changed(OPENING, settled_age_s=float("nan")), "frame 0: an age that is no number"),
        (changed(OPENING, frontier_age_s=float("nan")), "frame 0: Expected `float`"),
        (changed(OPENING, frontier=-1), "frame 0: Expected `int` >= 0"),
        (changed(OPENING, frontier=12), "event 13 of b/r comes before 12"),
        (replaced(OPENING, ["x"]), "frame 0: Expected `array`"),
        (replaced(OPENING, [[]] * 10_000), "frame 0: "),
        (changed(STATES, keys=["a/p"]), "frame 2: columns of "),
        (changed(STATES, keys=["a/q", "a/p"]), "frame 2: its keys are out of order"),
        (changed(STATES, keys=["a/p", "a/p"]), "frame 2: its keys are out of order"),
        (changed(STATES, labels=[0, 9]), "frame 2: it names 9 of 1"),
        (changed(STATES, labels=[0, -1]), "frame 2: Expected `int` >= 0"),
        (changed(STATES, dictionaries=[0, 1]), "frame 2: it names 1 of 1"),
        (changed(STATES, shared=lambda columns: columns[1:]), "frame 2: it has not 2 values"),
        (changed(STATES, shared=lambda columns: [*columns, [0, 0]]), "frame 2: it has not 2 values"),
        (changed(STATES, distinct=lambda columns: [["x"], *columns[1:]]), "frame 2: it has not 2 values"),
        (changed(STATES, shared=lambda columns: [[99, 0], *columns[1:]]), "frame 2: it names 99 of"),
        (changed(STATES, versions=[1, 11]), r"audit=\d+\) came, expected"),
        (changed(STATES, uids=["x", "y"]), r"audit=\d+\) came, expected"),
        (changed(EVENTS, before=[9, 0, 4]), "frame 4: it names 9 of 5"),
        (changed(EVENTS, before=[0, 0, 0], after=[0, 0, 0]), "frame 4: an event of nothing at version 11"),
        (changed(EVENTS, before=[0, 0]), "frame 4: "),
        (changed(EVENTS, versions=[11, 13, 12]), "event 13 of b/r comes before 12"),
        (changed(EVENTS, after=lambda states: [2, *states[1:]]), "event 11 of a/p does not lead"),
        (changed(EVENTS, before=lambda states: [0, *states[1:]]), "^$"),
        (changed(EVENTS, before=lambda states: [1, *states[1:]]), "event 11 of a/p is none"),
        (changed(EVENTS, late=[(3, 11, False)]), "frame 4: a late event 3 of 3"),
        (changed(EVENTS, late=[(1, 12, False), (0, 11, False)]), "late=2.* came, expected"),
        (changed(EVENTS, ages=[float("inf")] * 3), "frame 4: Expected `float`"),
        (changed(END, audit=1), "came, expected"),
        (changed(END, body_bytes=1), "came, expected"),
    ],
)
def test_what_cannot_be_is_garbage(make: Callable[[], Contents], text: str) -> None:
    if text == "^$":
        # An object may be there for the first time although history once had it: nothing contradicts that.
        assert len(sent(make()).past.events) == 3
        return
    with pytest.raises(Garbage, match=f"^transfer.*{text}"):
        sent(make())


def test_columns_are_not_longer_than_was_said() -> None:
    """A small frame must not take all memory there is."""
    opening = contents()[OPENING]
    plain = b"\0" * (1 << 20)
    for said in (10, 1 << 20, (1 << 20) + 1):
        arrival = Arrival()
        frame, checked = frames.framed(frames.OPENING, 0, 0, _encode(opening[1]))
        arrival.take(frame)
        packed = _encode([said, zstd.ZstdCompressor().compress(plain), []])
        with pytest.raises(Garbage, match="^transfer, frame 1: "):
            arrival.take(frames.framed(frames.STATES, 1, checked, packed)[0])


def test_a_bomb_is_not_unpacked() -> None:
    size = frames.FRAME_BYTES_MAX + 1
    bomb = zstd.ZstdCompressor().compress(b"\0" * size)
    assert len(bomb) < 100_000
    with pytest.raises(Garbage, match=f"columns of {size} bytes"):
        frames.unpacked(zstd.ZstdDecompressor(), size, bomb)


def test_another_format_is_named() -> None:
    frame = bytearray(frames.framed(frames.OPENING, 0, 0, b"")[0])
    frame[4] = 2
    with pytest.raises(Garbage, match="format 2, expected 1: written by another version of Shoal"):
        Arrival().take(bytes(frame))


def test_how_much_there_will_be_is_known_from_the_first_frame() -> None:
    store = listed(new_store(Clock()), 10, *(f"a/p{number:03}" for number in range(50)))
    arrival = Arrival()
    assert arrival.expected == 0
    seen = []
    for frame in store.extract().frames(1000):
        arrival.take(frame)
        seen.append(len(arrival))
        assert arrival.expected == 50
    assert seen == sorted(seen)
    assert seen[-1] == 50
    assert len(set(seen)) > 5
