"""Frames taken, one after the other, until an `extracts.Extract` is complete: or `Garbage`, and nothing.

Whatever is not as `frames` says ends it: it cannot be half of something. That nothing is damaged, missing, doubled or
out of order is known frame by frame; that the whole means something, that is that every event leads from the state
before it to the one after it, up to what is held, is looked at in `finish`.

What came once is held once: texts and label sets, a state that several events name, and what a past state has in common
with the newest one of its object. Times are ages, by a clock that says 0.

Limits: bodies are not unpacked. Their sender packed them, and the checksum says that they are what was sent.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NoReturn

import msgspec
import zstandard as zstd

from ..model.covers import parse_cover
from ..model.errors import BadRequest, Garbage
from ..model.partitions import Cover
from ..model.refs import Key
from ..model.resources import Resource
from ..model.versions import Version
from . import frames
from .audit import digest_of, seed_of
from .bodies import Generation
from .entries import Entry, LabelSet, shared_fields
from .extracts import Extract
from .past import Event, Late, Past

_LEVEL: Final = 1
"""Of dictionaries as they come; nothing is packed with these, see `bodies.BodyCodec.adopt`."""

_opening: Final = msgspec.msgpack.Decoder(frames.Opening).decode
_dictionary: Final = msgspec.msgpack.Decoder(frames.Dictionary).decode
_packed_states: Final = msgspec.msgpack.Decoder(tuple[int, bytes, list[bytes]]).decode
_states: Final = msgspec.msgpack.Decoder(frames.States).decode
_packed_events: Final = msgspec.msgpack.Decoder(tuple[int, bytes]).decode
_events: Final = msgspec.msgpack.Decoder(frames.Events).decode
_end: Final = msgspec.msgpack.Decoder(frames.End).decode


class Arrival:
    """One extract on its way here."""

    def __init__(self) -> None:
        self._number = self._sum = 0
        self._kind = frames.OPENING
        self._problem = ""
        self._covers: tuple[Cover, ...] = ()
        self._opening: frames.Opening | None = None
        self._end: frames.End | None = None
        self._unpacker = zstd.ZstdDecompressor()
        self._shared: tuple[bool, ...] = ()
        self._texts: list[str] = []
        self._label_sets: list[LabelSet] = []
        self._generations: list[Generation] = []
        self._states: list[Entry] = []
        """All, numbered from 0: those of now, then those of the past."""
        self._now = 0
        self._by_key: dict[Key, Entry] = {}
        """For each object a state whose texts others may share; filled once there are past ones."""
        self._events: list[Event] = []
        self._late: list[Late] = []
        self._body_bytes = self._audit = 0

    def __len__(self) -> int:
        """Objects that have come so far."""
        return self._now

    @property
    def expected(self) -> int:
        """How many there will be; 0 before the first frame."""
        return self._opening.objects if self._opening is not None else 0

    def take(self, frame: bytes) -> None:
        """The next frame.

        Raises:
            Garbage: it is not; nothing else is taken after that.
        """
        if self._problem:
            raise Garbage(self._problem)
        try:
            self._take(frame)
        except (msgspec.MsgspecError, zstd.ZstdError, BadRequest, Garbage, ValueError) as error:
            self._fail(f"transfer, frame {self._number}: {error}", error)
        self._number += 1

    def finish(self) -> Extract:
        """All of it.

        Raises:
            Garbage: frames are missing, or it does not fit together.
        """
        if self._problem:
            raise Garbage(self._problem)
        opening, end = self._opening, self._end
        if opening is None or end is None:
            self._fail(f"transfer: cut off after {self._number} frames, without its end")
        extract = self._extract(opening)
        states, events, late = len(self._states) - self._now, len(self._events), len(self._late)
        came = frames.End(self._now, states, events, late, self._body_bytes, self._audit)
        if came != end:
            self._fail(f"transfer: {came} came, expected {end}")
        problem = contradiction(extract)
        if problem:
            self._fail(f"transfer: {problem}")
        return extract

    def _fail(self, problem: str, cause: BaseException | None = None) -> NoReturn:
        """Forgets all."""
        self._problem = problem
        self._states, self._events, self._late = [], [], []
        self._by_key.clear()
        self._now = 0
        raise Garbage(problem) from cause

    # -- frames ----------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        frame = frames.unframed(data)
        if self._end is not None:
            raise Garbage("the transfer was complete before it")
        if frame.number != self._number:
            raise Garbage(f"frame {frame.number} came in its place")
        if frame.follows != self._sum:
            raise Garbage("it follows another frame than the last one: it is of another transfer")
        # The opening is the first, and nothing else is.
        if frame.kind < self._kind or (frame.kind == frames.OPENING) != (self._number == 0):
            raise Garbage(f"kind {frame.kind} after {self._kind}")
        match frame.kind:
            case frames.OPENING:
                self._begin(_opening(frame.payload))
            case frames.DICTIONARY:
                came = _dictionary(frame.payload)
                self._generations.append(Generation(came.number, came.content, _LEVEL))
            case frames.STATES | frames.PAST_STATES:
                self._take_states(frame)
            case frames.EVENTS:
                plain_bytes, packed = _packed_events(frame.payload)
                self._take_events(_events(frames.unpacked(self._unpacker, plain_bytes, packed)))
            case frames.END:
                self._end = _end(frame.payload)
            case _:
                raise Garbage(f"kind {frame.kind} is not known")
        self._kind, self._sum = frame.kind, frame.sum

    def _begin(self, opening: frames.Opening) -> None:
        self._covers = tuple(map(parse_cover, opening.covers))
        if opening.settled_age_s != opening.settled_age_s or opening.stamp_age_s != opening.stamp_age_s:
            raise Garbage("an age that is no number")
        self._opening = opening
        self._shared = shared_fields(opening.fields)

    def _take_states(self, frame: frames.Frame) -> None:
        plain_bytes, packed, bodies = _packed_states(frame.payload)
        states = _states(frames.unpacked(self._unpacker, plain_bytes, packed))
        self._texts += map(sys.intern, states.texts)
        self._label_sets += map(LabelSet, states.label_sets)
        count = len(bodies)
        fields = self._fields(states, count)
        columns = (states.keys, states.uids, states.versions, states.labels, states.dictionaries)
        if any(len(column) != count for column in columns):
            raise Garbage(f"columns of {[len(column) for column in columns]} objects, and {count} bodies")
        labels = [self._label_sets[number] for number in _within(states.labels, self._label_sets)]
        dictionaries = _within(states.dictionaries, self._generations)
        generations = [self._generations[number] for number in dictionaries]
        rows = zip(
            states.keys, states.uids, states.versions, labels, fields, bodies, generations, strict=True
        )
        if frame.kind == frames.STATES:
            last = self._states[-1].key if self._states else ""
            if count and not (last < states.keys[0] or not self._states):
                raise Garbage(f"key {states.keys[0]!r} after {last!r}")
            if any(one >= other for one, other in pairwise(states.keys)):
                raise Garbage("its keys are out of order")
            self._states += [
                Entry(Key(key), uid, Version(version), *rest) for key, uid, version, *rest in rows
            ]
            self._now += count
            for uid, version in zip(states.uids, states.versions, strict=True):
                self._audit ^= digest_of(seed_of(uid), Version(version))
        else:
            if not self._by_key:
                self._by_key = {entry.key: entry for entry in self._states}
            self._states += [
                self._past_state(Entry(Key(key), uid, Version(version), *rest))
                for key, uid, version, *rest in rows
            ]
        self._body_bytes += sum(map(len, bodies))

    def _fields(self, states: frames.States, count: int) -> Sequence[tuple[str, ...]]:
        """The columns of fields as a tuple for each object."""
        shared, distinct = iter(states.shared), iter(states.distinct)
        columns: list[list[str]] = []
        texts = self._texts
        for repeats in self._shared:
            if repeats:
                columns.append([texts[number] for number in _within(next(shared, []), texts)])
            else:
                columns.append(next(distinct, []))
        if any(len(column) != count for column in columns) or next(shared, None) or next(distinct, None):
            raise Garbage(f"it has not {count} values of each of {len(self._shared)} fields")
        return list(zip(*columns, strict=True)) if columns else [()] * count

    def _past_state(self, entry: Entry) -> Entry:
        """The state, sharing what it can with a later one of its object."""
        like = self._by_key.setdefault(entry.key, entry)
        if like is entry:
            return entry
        return Entry(
            like.key,
            like.uid if like.uid == entry.uid else entry.uid,
            entry.version,
            entry.labels,
            like.fields if like.fields == entry.fields else entry.fields,
            entry.packed,
            entry.generation,
        )

    def _take_events(self, events: frames.Events) -> None:
        states: list[Entry | None] = [None, *self._states]
        first = len(self._events)
        befores = [states[number] for number in _within(events.before, states)]
        afters = [states[number] for number in _within(events.after, states)]
        # One number for all events that came within a second.
        times = {age: -age for age in events.ages}
        for version, before, after, age in zip(events.versions, befores, afters, events.ages, strict=True):
            state = before or after
            if state is None:
                raise Garbage(f"an event of nothing at version {version}")
            at = Version(version) if after is None or after.version != version else after.version
            self._events.append(Event(at, state.key, before, after, times[age]))
        for position, shown, correction in events.late:
            if first + position >= len(self._events):
                raise Garbage(f"a late event {position} of {len(self._events) - first}")
            self._late.append(Late(self._events[first + position], Version(shown), correction))

    # -- the whole -------------------------------------------------------------------------------------------

    def _extract(self, opening: frames.Opening) -> Extract:
        past = Past(
            0.0,
            Version(opening.oldest_version),
            self._events,
            self._late,
            Version(opening.late_floor),
            Version(opening.correction_floor),
            [(Version(low), Version(high)) for low, high in opening.gaps],
            Version(opening.settled),
            -opening.settled_age_s,
            opening.unsettled_lost,
            -opening.stamp_age_s,
        )
        return Extract(
            resource=Resource(*opening.resource),
            fields=opening.fields,
            covers=self._covers,
            frontier=Version(opening.frontier),
            frontier_at=-opening.frontier_age_s,
            entries=self._states[: self._now],
            past=past,
            marks=tuple(map(Version, opening.marks)),
            shown_before=Version(opening.shown_before),
            divided_until=Version(opening.divided_until),
        )


def contradiction(extract: Extract) -> str:
    """What in it does not fit together; empty if nothing."""
    state: dict[Key, Entry | None] = {entry.key: entry for entry in extract.entries}
    newer = extract.frontier
    for event in reversed(extract.past.events):
        before, after, key = event.before, event.after, event.key
        if event.version > newer:
            return f"event {event.version} of {key} comes before {newer}"
        if state.get(key) is not after:
            return f"event {event.version} of {key} does not lead to the state after it"
        if (before is not None and before.key != key) or before is after:
            return f"event {event.version} of {key} is none"
        state[key] = before
        newer = event.version
    late = iter(extract.past.late)
    pending = next(late, None)
    for event in extract.past.events:
        if pending is not None and pending.event is event:
            pending = next(late, None)
    return "late events are out of order" if pending is not None else ""


def _within(numbers: list[int], of: Sequence[object]) -> list[int]:
    """The numbers, if all of them name something. They are not negative, see `frames`."""
    if numbers and max(numbers) >= len(of):
        raise Garbage(f"it names {max(numbers)} of {len(of)}")
    return numbers
