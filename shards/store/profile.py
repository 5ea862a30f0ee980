"""Where the load of a partition is, counted piece by piece: what cuts of it are chosen by. Pure.

Objects and bytes are those of the moment it began, events those that history holds then. Each piece is short
(`PIECE_OBJECTS`), so that who counts can let others run in between. Namespaces are counted exactly. Of large
partitions only every n-th object is weighed by its hash, n-fold: a hash takes 4 us, and cut points need no more than a
few thousand objects. The hash of one that had many events is remembered.

Limits: history is bounded in bytes, so of a busy partition the window is short; `Profile.seconds` says how short.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

from ..model.partitions import PartitionId, fnv1a64
from ..model.refs import Key, ref_of
from ..model.transfers import PROFILE_NAMESPACES, NamespaceLoad, Profile
from .entries import Entry
from .moving import MovableObjects
from .past import Event

PIECE_OBJECTS: Final = 2000
"""Objects, or events, counted without a pause: about 10 ms if all of them are hashed."""
HASHED_OBJECTS: Final = 20_000
"""So many objects, and so many events, are weighed by their hashes at the most."""
BUCKETS: Final = 256


class _Load:
    """What is known of a namespace so far."""

    __slots__ = ("bytes", "events", "objects", "top")

    def __init__(self, top: int) -> None:
        self.objects = self.bytes = self.events = 0
        self.top = top
        """The top byte of the namespace's hash."""

    def named(self, name: str) -> NamespaceLoad:
        return NamespaceLoad(name, self.objects, self.bytes, self.events)


def profiling(store: MovableObjects) -> Generator[None, None, Profile]:
    """The profile of what a store holds now, made in steps between which others may be let work.

    Raises:
        NotReady: no list was complete yet.
    """
    counted = _Counted()
    taken = store.extract()
    entries, events = taken.entries, taken.past.events
    every = -(-len(entries) // HASHED_OBJECTS) or 1
    for start in range(0, len(entries), PIECE_OBJECTS):
        counted.objects(start, entries[start : start + PIECE_OBJECTS], every)
        yield
    every = -(-len(events) // HASHED_OBJECTS) or 1
    for start in range(0, len(events), PIECE_OBJECTS):
        counted.events(start, events[start : start + PIECE_OBJECTS], every)
        yield
    seconds = max(0.0, taken.past.taken_at - events[0].at) if events else 0.0
    return counted.profile(store.partition.id, len(entries), seconds)


class _Counted:
    """What was counted so far."""

    def __init__(self) -> None:
        self._bytes = 0
        self._loads: dict[str, _Load] = {}
        self._uids: dict[str, int] = {}
        self._uid_weights = [0] * BUCKETS
        self._namespace_weights = [0] * BUCKETS

    def profile(self, partition: PartitionId, objects: int, seconds: float) -> Profile:
        ordered = sorted(self._loads.items(), key=lambda load: (-load[1].events, -load[1].objects, load[0]))
        named, rest = ordered[:PROFILE_NAMESPACES], ordered[PROFILE_NAMESPACES:]
        other = NamespaceLoad(
            "",
            sum(load.objects for _, load in rest),
            sum(load.bytes for _, load in rest),
            sum(load.events for _, load in rest),
        )
        for _, load in ordered:
            self._namespace_weights[load.top] += load.objects + load.events
        return Profile(
            partition=partition,
            objects=objects,
            bytes=self._bytes,
            seconds=seconds,
            namespaces=[load.named(name) for name, load in named],
            other=other,
            uid_weights=self._uid_weights,
            namespace_weights=self._namespace_weights,
        )

    def objects(self, start: int, entries: Sequence[Entry], every: int) -> None:
        for position, entry in enumerate(entries, start):
            load = self._load(entry.key)
            load.objects += 1
            load.bytes += len(entry.packed)
            self._bytes += len(entry.packed)
            if position % every == 0:
                self._uid_weights[_top(entry.uid)] += every

    def events(self, start: int, events: Sequence[Event], every: int) -> None:
        for position, event in enumerate(events, start):
            self._load(event.key).events += 1
            state = event.after or event.before
            if position % every == 0 and state is not None:
                top = self._uids.get(state.uid)
                if top is None:
                    top = self._uids[state.uid] = _top(state.uid)
                self._uid_weights[top] += every

    def _load(self, key: Key) -> _Load:
        namespace = ref_of(key).namespace
        load = self._loads.get(namespace)
        if load is None:
            load = self._loads[namespace] = _Load(_top(namespace))
        return load


def _top(text: str) -> int:
    return fnv1a64(text) >> 56
