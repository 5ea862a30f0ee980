"""What one partition holds, on its way from one store to another: taken, restored, and what was shown meanwhile.

A store that was restored answers every question as the one its past came from would, and goes on as that one would
have: states, history, late events, floors, marks and times are the same. What is different is when things happened by
the clock here, and which dictionary new bodies are packed with.

Between the moment the past was taken and the moment this store takes over, readers were shown more by the leave of
whoever had it before. Nobody here knew of that when events came, so those are made late when it is known
(`MovableObjects.take_over`).

Neighbours: `extracts` is what travels, `joining` makes one of several, `restoring` makes its states the store's own,
`objects` is the writing side.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from ..model.errors import Broken
from ..model.partitions import Partition
from ..model.resources import ResourceType
from ..model.versions import UNKNOWN, Version
from ..settings import StoreSettings
from .audit import digest_of, seed_of
from .bodies import BodyCodec
from .entries import Entry
from .extracts import SLICE, Extract, finished
from .reading import HeldObjects
from .restoring import Restored


class MovableObjects(HeldObjects):
    """Objects, indexes and history of one partition that can come from another store."""

    def __init__(
        self,
        partition: Partition,
        resource_type: ResourceType,
        *,
        settings: StoreSettings,
        clock: Callable[[], float],
        codec: BodyCodec | None = None,
    ) -> None:
        super().__init__(partition, resource_type, settings=settings, clock=clock)
        self.audit = 0
        """See `store.audit`."""
        self.body_bytes = 0
        self.turn = 0
        """Grows when a list begins and when it is complete: what was asked before is no continuation then."""
        self._codec = codec or BodyCodec(settings)
        self._joined = False
        """What was restored were several partitions."""
        self._subscribers: tuple[Callable[[], object], ...] = ()

    def extract(self) -> Extract:
        """Everything that a successor needs, as it is now; by reference, 0.2 us an object.

        Raises:
            NotReady: no list was complete yet.
        """
        self._require_synced()
        return Extract(
            resource=self.partition.resource,
            fields=self.resource_type.selectable_fields,
            covers=(self.partition.cover,),
            frontier=self.frontier,
            frontier_at=self.frontier_at,
            entries=[self._entries[key] for key in self._keys],
            past=self._history.taken(self._clock()),
            marks=self._marks.kept,
            shown_before=self.shown_before,
            divided_until=self.divided_until,
        )

    def restore(self, extract: Extract) -> None:
        """Goes on where the store was that `extract` was taken from, as far as it is about this partition.

        Raises:
            Broken: it is about another one, or this store has been written to.
        """
        finished(self.restoring(extract))

    def restoring(self, extract: Extract) -> Generator[None, None, None]:
        """As `restore`, in steps between which others may be let work. Nothing can be read before the last one, and
        nothing else written; a store that was left in between is to be forgotten.
        """
        wanted = (self.partition.resource, (self.partition.cover,), self.resource_type.selectable_fields)
        if (extract.resource, extract.covers, extract.fields) != wanted:
            raise Broken(f"{self.partition.id} is not what {extract.name} can become")
        if self.turn or self._entries:
            raise Broken(f"{self.partition.id} is in use and cannot become another")
        # What the steps take is time that passes: at the beginning things were as old as the extract says.
        now = self._clock()
        restored = Restored(extract, self._index.label_set, self._codec)
        for number, state in enumerate(extract.entries, 1):
            entry = restored.entry(state)
            self._entries[entry.key] = entry
            self._account(None, entry)
            if number % SLICE == 0:
                yield
        past = yield from restored.past(extract.past, now)
        self._keys.update(self._entries)
        self._history.resume(past)
        self._index.sweep()
        for mark in extract.marks:
            self._marks.note(mark)
        self.shown_before, self.divided_until = extract.shown_before, extract.divided_until
        self._joined = extract.joined
        self.turn += 1
        self.synced = True
        self.frontier = extract.frontier
        self.frontier_at = now - (extract.past.taken_at - extract.frontier_at)
        for callback in self._subscribers:
            callback()

    def take_over(self, shown: Version, frontier: Version = UNKNOWN, *, divided: bool = False) -> None:
        """Versions up to `shown` were shown by the leave of shards that held these objects before, and all that they
        served was up to `frontier`. `divided`: in several partitions, which are one now.

        With their past we are told only now what came late meanwhile. Without, nobody knows what it was; nor if we had
        to list since it travelled: then readers may have been shown states that we have never seen.
        """
        if divided or self._joined:
            self.divided_until = max(self.divided_until, shown, frontier)
        history = self._history
        if not history.travelled:
            self.shown_before = max(self.shown_before, shown)
            return
        if history.skipped(frontier or shown):
            # These versions themselves were shown, and without all that our list has of them.
            self.shown_before = max(self.shown_before, Version(max(shown, frontier) + 1))
        if shown:
            history.overtaken_elsewhere(shown)
            self._marks.note(shown)

    def _account(self, before: Entry | None, after: Entry | None) -> None:
        """Keeps index, audit and sizes in step with one change."""
        if before is None:
            if after is not None:
                self._index.add(after)
                self.audit ^= digest_of(seed_of(after.uid), after.version)
                self.body_bytes += len(after.packed)
            return
        seed = seed_of(before.uid)
        self.audit ^= digest_of(seed, before.version)
        self.body_bytes -= len(before.packed)
        if after is None:
            self._index.remove(before)
            return
        if before.labels is not after.labels or before.fields is not after.fields:
            self._index.replace(before, after)
        self.audit ^= digest_of(seed if after.uid is before.uid else seed_of(after.uid), after.version)
        self.body_bytes += len(after.packed)
