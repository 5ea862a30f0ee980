"""`Extract`: everything a successor of a partition needs to answer as the partition does, as one value.

It refers to entries and events, which never change; taking one copies nothing but references. Its times are of the
clock of whoever took it, and `past.taken_at` says when that was by this clock: only ages have a meaning elsewhere.

*Restricted* to a narrower cover it is the past of that part alone. A name that is deleted and made again gets another
uid, and so may change its side of a range of uids: then the event is an addition on one side, a deletion on the other.
Of an object's events those on this side are repeated to whoever missed one on the other, as they would have been there:
a deletion that is told late must be followed by what came after it.

Neighbours: `objects.PartitionStore` makes and takes them, `joining` makes one of several, `sending` and `arrival` carry
them between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from ..model.covers import contains
from ..model.partitions import Cover, HashRange
from ..model.refs import Key
from ..model.resources import Resource
from ..model.versions import UNKNOWN, Version
from .entries import Entry
from .past import Event, Late, Past
from .sending import frames_of

SLICE: Final = 1000
"""Objects worked on in one step where the work can be done in steps: 1 to 5 ms."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Extract:
    """One partition, or several joined, or a part of one, at `frontier`."""

    resource: Resource
    fields: tuple[str, ...]
    """The names of the selectable fields whose values `Entry.fields` has."""
    covers: tuple[Cover, ...]
    """It is complete for what is in all of these."""
    frontier: Version
    frontier_at: float
    """When the API server last proved it, by the clock of `past.taken_at`."""
    entries: Sequence[Entry]
    """In the order of their keys."""
    past: Past
    marks: tuple[Version, ...]
    """What readers of siblings may have been shown, each newer than those that were noted after it."""
    shown_before: Version
    divided_until: Version
    joined: bool = False
    """It was made of several partitions here, which are shown to clients until they are taken over from."""

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def name(self) -> str:
        """For people: ``v1/pods[a]``; of what was restricted where from as well: ``v1/pods[a][uid:LOW-HIGH]``."""
        return f"{self.resource}{''.join(map(str, self.covers))}"

    @property
    def shown(self) -> Version:
        """The newest version that may have been shown by the leave of whoever it was taken from."""
        return max(self.marks, default=UNKNOWN)

    def aged(self, seconds: float) -> Extract:
        """The same after it was on its way for so long: everything in it is older."""
        return replace(self, past=self.past._replace(taken_at=self.past.taken_at + seconds))

    def frames(self, max_bytes: int) -> Iterator[bytes]:
        """All of it in pieces for `arrival.Arrival`, made one by one while they are taken.

        None is longer than `max_bytes`, but for an object, or a dictionary, that is longer by itself.
        """
        return frames_of(self, max_bytes)

    def restricted(self, cover: Cover) -> Extract:
        """The part of it that is in `cover`; itself if all of it is."""
        return finished(self.restricting(cover))

    def restricting(self, cover: Cover) -> Generator[None, None, Extract]:
        """As `restricted`, in steps between which others may be let work."""
        if any(contains(cover, own) for own in self.covers):
            return self
        covers = tuple(own for own in self.covers if not contains(own, cover))
        holds = _holder(cover)
        entries: list[Entry] = []
        for start in range(0, len(self.entries), SLICE):
            entries += [entry for entry in self.entries[start : start + SLICE] if holds(entry)]
            yield
        past = yield from _restricting(self.past, holds, max(self.frontier, self.shown))
        return replace(self, covers=(*covers, cover), entries=entries, past=past)


def finished(steps: Generator[None, None, T]) -> T:
    """The result of work in steps, done at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def _holder(cover: Cover) -> Callable[[Entry], bool]:
    """Whether a state is in the cover. All but ranges of uid are decided once for each namespace."""
    admits = cover.admits
    if isinstance(cover, HashRange) and cover.field == "uid":
        return lambda entry: admits(entry.key.rpartition("/")[0], entry.uid)
    known: dict[str, bool] = {}

    def holds(entry: Entry) -> bool:
        namespace = entry.key.rpartition("/")[0]
        found = known.get(namespace)
        if found is None:
            found = known[namespace] = admits(namespace, entry.uid)
        return found

    return holds


def _restricting(past: Past, holds: Callable[[Entry], bool], shown: Version) -> Generator[None, None, Past]:
    """The past of one side. `shown` is the newest version anybody may have been shown."""
    noted = {id(late.event): late for late in past.late}
    events: list[Event] = []
    marked: list[Late] = []
    missed: dict[Key, Version] = {}
    """Of objects with late events on the other side only: up to what had been shown then."""
    for number, event in enumerate(past.events, 1):
        late = noted.get(id(event))
        before = event.before if event.before is not None and holds(event.before) else None
        after = event.after if event.after is not None and holds(event.after) else None
        unsettled = event.at < past.settled_at
        if before is None and after is None:
            until = max(late.shown if late else UNKNOWN, (past.settled or shown) if unsettled else UNKNOWN)
            if until:
                missed[event.key] = max(until, missed.get(event.key, UNKNOWN))
        else:
            mine = event
            if before is not event.before or after is not event.after:
                mine = Event(event.version, event.key, before, after, event.at)
            events.append(mine)
            until = missed.pop(event.key, UNKNOWN)
            if late is not None:
                marked.append(Late(mine, max(late.shown, until), late.correction))
            elif event.version <= until and not unsettled:
                marked.append(Late(mine, until, correction=False))
        if number % SLICE == 0:
            yield
    return past._replace(events=events, late=marked)
