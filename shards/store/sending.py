"""An `extracts.Extract` as frames, made one by one while they are taken. `frames` has the format.

Limits: a frame is made in one go, up to `max_bytes` or `FRAME_OBJECTS_MAX` objects, about 10 ms. A body that is longer
than `max_bytes` is a frame of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import zstandard as zstd

from . import frames
from .audit import digest_of, seed_of
from .bodies import Generation
from .entries import Entry, shared_fields
from .past import Event, Late

if TYPE_CHECKING:
    from .extracts import Extract

FRAME_OBJECTS_MAX: Final = 2000
FRAME_EVENTS_MAX: Final = 10_000
FRAME_BYTES: Final = frames.HEAD_BYTES + 128
"""What a frame takes beside its objects, at most."""
STATE_BYTES: Final = 64
"""The numbers of an object, and the lengths of its texts."""
EVENT_BYTES: Final = 40 + 21
"""The numbers of an event, and those of its being late."""

_encode: Final = msgspec.msgpack.Encoder().encode
T = TypeVar("T", str, bytes)


def frames_of(extract: Extract, max_bytes: int) -> Iterator[bytes]:
    """As `Extract.frames`."""
    return _Sending(extract, max_bytes).all()


class _Table(dict[T, int]):
    """Values named by number: which are new since they were last asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: list[T] = []

    def __missing__(self, value: T) -> int:
        number = self[value] = len(self)
        self.fresh.append(value)
        return number

    def taken(self) -> list[T]:
        """The new ones, in the order of their numbers."""
        fresh, self.fresh = self.fresh, []
        return fresh


class _Sending:
    """One extract on its way."""

    def __init__(self, extract: Extract, max_bytes: int) -> None:
        self._extract = extract
        self._max_bytes = max_bytes
        self._number = self._sum = 0
        self._packer = zstd.ZstdCompressor(level=1, write_content_size=True)
        self._texts: _Table[str] = _Table()
        self._label_sets: _Table[bytes] = _Table()
        self._shared = shared_fields(extract.fields)
        # NB: events name states, and states are told apart by identity: entries never change.
        self._named = {
            id(entry): entry
            for event in extract.past.events
            for entry in (event.before, event.after)
            if entry is not None
        }
        self._numbers: dict[int, int] = {}
        self._dictionaries: dict[int, int] = {}
        self._sent = self._body_bytes = self._audit = 0

    def all(self) -> Iterator[bytes]:
        """All frames, in order."""
        entries, events = self._extract.entries, self._extract.past.events
        now = {id(entry) for entry in entries if id(entry) in self._named}
        past = [entry for name, entry in self._named.items() if name not in now]
        yield self._frame(frames.OPENING, _encode(self._opening(len(past))))
        for generation in self._generations((*entries, *past)):
            self._dictionaries[id(generation)] = len(self._dictionaries)
            dictionary = frames.Dictionary(generation.number, generation.dictionary)
            yield self._frame(frames.DICTIONARY, _encode(dictionary))
        for some in self._portions(entries):
            yield self._states(frames.STATES, some)
            for entry in some:
                self._audit ^= digest_of(seed_of(entry.uid), entry.version)
        for some in self._portions(past):
            yield self._states(frames.PAST_STATES, some)
        yield from self._events(events)
        late = len(self._extract.past.late)
        end = frames.End(len(entries), len(past), len(events), late, self._body_bytes, self._audit)
        yield self._frame(frames.END, _encode(end))

    def _frame(self, kind: int, payload: bytes) -> bytes:
        frame, self._sum = frames.framed(kind, self._number, self._sum, payload)
        self._number += 1
        return frame

    def _opening(self, past_states: int) -> frames.Opening:
        extract, past = self._extract, self._extract.past
        resource, now = extract.resource, past.taken_at
        return frames.Opening(
            resource=(resource.group, resource.version, resource.name),
            covers=tuple(map(str, extract.covers)),
            fields=extract.fields,
            objects=len(extract.entries),
            past_states=past_states,
            events=len(past.events),
            frontier=extract.frontier,
            frontier_age_s=now - extract.frontier_at,
            marks=extract.marks,
            shown_before=extract.shown_before,
            divided_until=extract.divided_until,
            oldest_version=past.oldest_version,
            late_floor=past.late_floor,
            correction_floor=past.correction_floor,
            gaps=tuple(past.gaps),
            settled=past.settled,
            settled_age_s=now - past.settled_at,
            unsettled_lost=past.unsettled_lost,
            stamp_age_s=now - past.stamp,
        )

    def _generations(self, entries: Iterable[Entry]) -> list[Generation]:
        """Those that are in use, the oldest first."""
        found = {id(entry.generation): entry.generation for entry in entries}
        return sorted(found.values(), key=lambda generation: generation.number)

    # -- states ----------------------------------------------------------------------------------------------

    def _portions(self, entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
        """What makes one frame each."""
        room = self._max_bytes - FRAME_BYTES
        start = size = 0
        fresh: set[bytes] = set()
        for position, entry in enumerate(entries):
            weight = STATE_BYTES + len(entry.packed) + _text_bytes(entry.key, entry.uid, *entry.fields)
            labels = entry.labels.raw
            if labels not in self._label_sets and labels not in fresh:
                weight += len(labels)
            if position > start and (size + weight > room or position - start == FRAME_OBJECTS_MAX):
                yield entries[start:position]
                start, size = position, 0
                fresh.clear()
            fresh.add(labels)
            size += weight
        if start < len(entries):
            yield entries[start:]

    def _states(self, kind: int, entries: Sequence[Entry]) -> bytes:
        for number, entry in enumerate(entries, self._sent + 1):
            if id(entry) in self._named:
                self._numbers[id(entry)] = number
        self._sent += len(entries)
        label_sets, texts, dictionaries = self._label_sets, self._texts, self._dictionaries
        columns = list(zip(*[entry.fields for entry in entries], strict=True))
        both = list(zip(columns, self._shared, strict=True))
        shared = [[texts[value] for value in column] for column, repeats in both if repeats]
        labels = [label_sets[entry.labels.raw] for entry in entries]
        states = frames.States(
            texts=texts.taken(),
            label_sets=label_sets.taken(),
            keys=[entry.key for entry in entries],
            uids=[entry.uid for entry in entries],
            versions=[entry.version for entry in entries],
            labels=labels,
            dictionaries=[dictionaries[id(entry.generation)] for entry in entries],
            shared=shared,
            distinct=[list(column) for column, repeats in both if not repeats],
        )
        plain = _encode(states)
        bodies = [entry.packed for entry in entries]
        self._body_bytes += sum(map(len, bodies))
        return self._frame(kind, _encode((len(plain), self._packer.compress(plain), bodies)))

    # -- events ----------------------------------------------------------------------------------------------

    def _events(self, events: Sequence[Event]) -> Iterator[bytes]:
        late = {id(late.event): late for late in self._extract.past.late}
        count = max(1, min(FRAME_EVENTS_MAX, (self._max_bytes - FRAME_BYTES) // EVENT_BYTES))
        for start in range(0, len(events), count):
            columns = self._event_columns(events[start : start + count], late)
            plain = _encode(columns)
            yield self._frame(frames.EVENTS, _encode((len(plain), self._packer.compress(plain))))

    def _event_columns(self, events: Sequence[Event], noted: dict[int, Late]) -> frames.Events:
        numbers, now = self._numbers, self._extract.past.taken_at
        late: list[tuple[int, int, bool]] = [
            (position, found.shown, found.correction)
            for position, event in enumerate(events)
            if (found := noted.get(id(event))) is not None
        ]
        return frames.Events(
            versions=[event.version for event in events],
            before=[0 if event.before is None else numbers[id(event.before)] for event in events],
            after=[0 if event.after is None else numbers[id(event.after)] for event in events],
            ages=[now - event.at for event in events],
            late=late,
        )


def _text_bytes(*texts: str) -> int:
    """Of all of them in UTF-8, at most."""
    size = sum(map(len, texts))
    return size if all(map(str.isascii, texts)) else 4 * size
