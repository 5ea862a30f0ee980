"""What came from elsewhere made the store's own: states that share its label sets and its dictionaries.

Entries never change, but the label sets they refer to belong to one index, and a dictionary to one codec. So each state
is made anew with those, once, however many events name it; keys, uids, fields and bodies are shared with the extract.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

from .bodies import BodyCodec, Generation
from .entries import Entry, LabelSet
from .extracts import SLICE, Extract
from .past import Event, Late, Past


class Restored:
    """The states and events of one extract, as a store with this index and codec holds them."""

    def __init__(self, extract: Extract, label_set: Callable[[bytes], LabelSet], codec: BodyCodec) -> None:
        self._label_set = label_set
        self._made: dict[int, Entry] = {}
        self._named = {id(state) for event in extract.past.events for state in (event.before, event.after)}
        # The newest is what a codec that has none goes on with.
        used = {id(generation): generation for generation in _generations(extract)}
        newest_first = sorted(used.values(), key=lambda generation: generation.number, reverse=True)
        self._generations = {id(generation): codec.adopt(generation) for generation in newest_first}

    def entry(self, entry: Entry) -> Entry:
        """A state."""
        made = self._made.get(id(entry))
        if made is None:
            made = Entry(
                entry.key,
                entry.uid,
                entry.version,
                self._label_set(entry.labels.raw),
                entry.fields,
                entry.packed,
                self._generations[id(entry.generation)],
            )
            if id(entry) in self._named:
                self._made[id(entry)] = made
        return made

    def past(self, past: Past, now: float) -> Generator[None, None, Past]:
        """The past, by a clock that says `now`; in steps."""
        later = now - past.taken_at
        events: dict[int, Event] = {}
        times: dict[float, float] = {}
        for number, event in enumerate(past.events, 1):
            before = None if event.before is None else self.entry(event.before)
            after = None if event.after is None else self.entry(event.after)
            key = (after or before or event).key
            at = times.setdefault(event.at, event.at + later)
            events[id(event)] = Event(event.version, key, before, after, at)
            if number % SLICE == 0:
                yield
        return past._replace(
            taken_at=now,
            events=list(events.values()),
            late=[Late(events[id(late.event)], late.shown, late.correction) for late in past.late],
            settled_at=past.settled_at + later,
            stamp=past.stamp + later,
        )


def _generations(extract: Extract) -> Iterable[Generation]:
    for entry in extract.entries:
        yield entry.generation
    for event in extract.past.events:
        if event.before is not None:
            yield event.before.generation
        if event.after is not None:
            yield event.after.generation
