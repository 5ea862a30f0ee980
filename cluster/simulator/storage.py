"""What etcd and the watch cache are to kube-apiserver: objects, one revision for all, and the recent
past.

Every write takes the next revision, which becomes the object's resource version. A `Collection` holds the
objects of one resource in etcd's key order and a log of its events; from the log it rebuilds the state at
any version not yet compacted, which is how exact lists and the pages of one list are answered. Watchers
are cursors into the log: nothing is queued for each of them.

Invariants: versions in a log grow strictly; an `Event` and a `Stored` never change once written (only the
rendered lines are added to an event); a version at or above `Collection.oldest` can be watched from and
listed. Pure and single-threaded: whoever writes calls `Collection.notify` afterwards through
`Storage.write`, and subscribers only set flags. Validation is in `verbs`, the rules of lists in
`listing`, streams in `watching`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

import msgspec
from sortedcontainers import SortedDict

from ...shards.model.refs import Key, namespace_range
from ...shards.model.versions import Version

EventType: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED"]

HISTORY_EVENTS = 100_000
"""Events a collection remembers; kube-apiserver's watch cache grows to 102 400 entries a resource."""
HISTORY_BYTES = 128 << 20
"""Bodies remembered a collection, in bytes. Bounds the memory of a churned simulator; etcd bounds time."""
_SNAPSHOTS = 4
"""Rebuilt states kept, so that the pages of a list do not each undo the log again."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """One version of one object, with what selectors look at computed once."""

    key: Key
    namespace: str
    name: str
    uid: str
    version: Version
    labels: Mapping[str, str]
    fields: tuple[str, ...]
    """Values of the collection's selectable fields, in their declared order."""
    body: bytes
    """JSON of the storage version, kind and apiVersion included, without a trailing newline."""


class Event(msgspec.Struct):
    """One change. `lines` holds its rendered watch lines by form; see `watching`."""

    version: Version
    type: EventType
    stored: Stored
    """After a deletion: the last state, at the version of the deletion."""
    previous: Stored | None
    lines: dict[object, bytes] = msgspec.field(default_factory=dict)


class Page(NamedTuple):
    """Objects of one state in key order."""

    objects: list[Stored]
    more: bool
    remaining: int
    """Objects of the namespace (or of all) after the last one, whether or not they match a selector."""


class Callbacks:
    """Callbacks, each once, called in the order they came: that of a set would differ between processes."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: dict[Callable[[], None], None] = {}

    def __len__(self) -> int:
        return len(self._callbacks)

    def __iter__(self) -> Iterator[Callable[[], None]]:
        return iter(self._callbacks)

    def add(self, callback: Callable[[], None]) -> None:
        """Called from now on; once, however often it is added."""
        self._callbacks[callback] = None

    def discard(self, callback: Callable[[], None]) -> None:
        """Not called any more."""
        self._callbacks.pop(callback, None)


class Compacted(Exception):  # noqa: N818 - a fact about the version, which callers turn into their own 410
    """The version is older than what is remembered."""


class _State:
    """The objects at one version, rebuilt."""

    def __init__(self, objects: Mapping[Key, Stored]) -> None:
        self.objects = objects
        self.keys = sorted(objects)


class Collection:
    """The objects of one resource, whatever versions it is served in."""

    def __init__(self, name: str, *, oldest: Version, history_events: int, history_bytes: int) -> None:
        self.name = name
        self.objects: SortedDict[Key, Stored] = SortedDict()
        self.events: list[Event] = []
        self.first_position = 0
        """Position of ``events[0]``; positions only grow, so a cursor survives compaction (or sees it)."""
        self.oldest = oldest
        """Watches may start, and lists may ask exactly, from this version on."""
        self.last = Version(0)
        """Version of the newest event, 0 before the first; what bookmarks carry."""
        self.observed = oldest
        """Version the watch cache is known to have reached; lists at any version answer it."""
        self.closed = False
        """Its resource is no longer served: streams end once they have sent what there was."""
        self.subscribers = Callbacks()
        self._history_events = history_events
        self._history_bytes = history_bytes
        self._bytes = 0
        self._states: OrderedDict[int, _State] = OrderedDict()

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def end_position(self) -> int:
        """Where the next event will be."""
        return self.first_position + len(self.events)

    def position_after(self, version: Version) -> int:
        """Cursor to the first event newer than `version`.

        Raises:
            Compacted: events after that version have been forgotten.
        """
        if version < self.oldest:
            raise Compacted
        return self.first_position + bisect_right(self.events, version, key=lambda event: event.version)

    def since(self, position: int, limit: int) -> list[Event]:
        """At most `limit` events from a cursor on.

        Raises:
            Compacted: the cursor fell behind what is remembered.
        """
        start = position - self.first_position
        if start < 0:
            raise Compacted
        return self.events[start : start + limit]

    def notify(self) -> None:
        """Wakes every stream of the collection."""
        for wake in tuple(self.subscribers):
            wake()

    def record(self, event: Event) -> None:
        """Applies one event. Only `Storage` calls it."""
        if event.type == "DELETED":
            self.objects.pop(event.stored.key, None)
        else:
            self.objects[event.stored.key] = event.stored
        self.events.append(event)
        self.last = self.observed = event.version
        self._bytes += len(event.stored.body)
        while len(self.events) > self._history_events or self._bytes > self._history_bytes:
            # In slices: removing the head of a list one by one is quadratic.
            self._forget(max(1, len(self.events) // 8))

    def compact(self, version: Version) -> None:
        """Forgets the events up to and including `version`; the objects stay."""
        self._forget(bisect_right(self.events, version, key=lambda event: event.version))
        self.oldest = max(self.oldest, version)

    def begin_anew(self, version: Version, *, back: bool) -> None:
        """Forgets every event: what there is was always there, as of `version`. Only `Storage` calls it.

        `back`: there may be objects newer than that. They are back at their last state that is not, as far as the
        log knows it; otherwise they are gone.
        """
        if back:
            state = self.state(max(version, self.oldest))
            objects = (self.objects if state is None else state.objects).items()
            kept = {key: stored for key, stored in objects if stored.version <= version}
            self.objects.clear()
            self.objects.update(kept)
        self._forget(len(self.events))
        self._states.clear()
        self.oldest = self.observed = version
        self.last = Version(0)

    def _forget(self, count: int) -> None:
        if not count:
            return
        gone = self.events[:count]
        del self.events[:count]
        self.first_position += count
        self.oldest = max(self.oldest, gone[-1].version)
        self._bytes -= sum(len(event.stored.body) for event in gone)

    # -- reading ------------------------------------------------------------------------------------

    def state(self, version: Version | None) -> _State | None:
        """The state at `version`, or None for the newest.

        Raises:
            Compacted: the version is older than what is remembered.
        """
        if version is not None and version < self.oldest:
            raise Compacted
        if version is None or version >= self.last:
            return None
        position = self.position_after(version)
        state = self._states.get(position)
        if state is None:
            objects = dict(self.objects)
            for event in reversed(self.events[position - self.first_position :]):
                if event.previous is None:
                    objects.pop(event.stored.key, None)
                else:
                    objects[event.stored.key] = event.previous
            state = self._states[position] = _State(objects)
            while len(self._states) > _SNAPSHOTS:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(position)
        return state

    def page(
        self,
        *,
        version: Version | None = None,
        namespace: str | None = None,
        after: str = "",
        limit: int = 0,
        matches: Callable[[Stored], bool] | None = None,
    ) -> Page:
        """Objects with keys from `after` on (inclusive), in key order, from the state at `version` (None:
        newest).

        Raises:
            Compacted: the version is older than what is remembered.
        """
        low, high = namespace_range(namespace) if namespace else ("", None)
        low = max(low, after)
        state = self.state(version)
        found: list[Stored] = []
        more, last = False, low
        for one in self._range(state, low, high):
            if matches is not None and not matches(one):
                continue
            if limit and len(found) == limit:
                more = True
                break
            found.append(one)
            last = one.key
        remaining = self._count_after(state, last, high) if more else 0
        return Page(found, more, remaining)

    def _range(self, state: _State | None, low: str, high: str | None) -> Iterator[Stored]:
        if state is None:
            objects = self.objects
            for key in objects.irange(low, high, inclusive=(True, False)):
                yield objects[key]
            return
        start = bisect_left(state.keys, low)
        end = len(state.keys) if high is None else bisect_left(state.keys, high)
        for key in state.keys[start:end]:
            yield state.objects[key]

    def _count_after(self, state: _State | None, last: str, high: str | None) -> int:
        if state is None:
            end = len(self.objects) if high is None else self.objects.bisect_left(high)
            return int(end - self.objects.bisect_right(last))
        end = len(state.keys) if high is None else bisect_left(state.keys, high)
        return end - bisect_right(state.keys, last)


class Storage:
    """All collections and the revision they share."""

    def __init__(
        self, *, revision: int = 1, history_events: int = HISTORY_EVENTS, history_bytes: int = HISTORY_BYTES
    ) -> None:
        self.revision = Version(revision)
        """Version of the newest write; etcd starts at 1."""
        self.incarnation = 0
        """Grows when the past is forgotten by `restart`; streams of an older one end."""
        self.collections: dict[str, Collection] = {}
        self.subscribers = Callbacks()
        """Called after every write to any collection."""
        self.went_back = Callbacks()
        """Called when `restart` has put older objects in the place of newer ones, without events."""
        self._floor = self.revision
        """Compacted for collections as well that do not exist yet."""
        self._history_events = history_events
        self._history_bytes = history_bytes

    def collection(self, name: str) -> Collection:
        """The collection of that name (`Resource.qualified_name` of its storage), made if there is none."""
        found = self.collections.get(name)
        return self._new(name, self._floor) if found is None else found

    def open(self, name: str) -> Collection:
        """A collection that begins now: watches and exact lists from before its time are too old."""
        return self._new(name, self.revision)

    def _new(self, name: str, oldest: Version) -> Collection:
        made = self.collections[name] = Collection(
            name, oldest=oldest, history_events=self._history_events, history_bytes=self._history_bytes
        )
        return made

    def write(self, collection: Collection, make: Callable[[Version], Stored]) -> Event:
        """Stores what `make` builds for the next revision: ADDED or MODIFIED by whether the key is there."""
        version = Version(self.revision + 1)
        stored = make(version)
        previous = collection.objects.get(stored.key)
        return self._commit(
            collection, Event(version, "ADDED" if previous is None else "MODIFIED", stored, previous)
        )

    def delete(self, collection: Collection, key: Key, make: Callable[[Stored, Version], Stored]) -> Event:
        """Removes an object; `make` gives its last state the version of the deletion.

        Raises:
            KeyError: there is no such object.
        """
        previous = collection.objects[key]
        version = Version(self.revision + 1)
        return self._commit(collection, Event(version, "DELETED", make(previous, version), previous))

    def restore(self, collection: Collection, stored: Stored) -> Event:
        """Puts an object with the version it already has, which must be newer than the revision.

        Raises:
            ValueError: the version is not newer.
        """
        if stored.version <= self.revision:
            raise ValueError(
                f"{collection.name} {stored.key}: version {stored.version} is not newer than revision "
                f"{self.revision}; restore objects in the order of their versions"
            )
        previous = collection.objects.get(stored.key)
        kind: EventType = "ADDED" if previous is None else "MODIFIED"
        return self._commit(collection, Event(stored.version, kind, stored, previous))

    def advance(self, revision: int) -> None:
        """Moves the revision forward without a write that anybody watches, as writes elsewhere in etcd do."""
        self.revision = max(self.revision, Version(revision))
        self._notify()

    def compact(self, version: Version | None = None) -> None:
        """Forgets events up to `version` (None: all) in every collection."""
        upto = self.revision if version is None else min(version, self.revision)
        self._floor = max(self._floor, upto)
        for collection in self.collections.values():
            collection.compact(upto)

    def restart(self, *, revision: int | None = None) -> None:
        """What a server that comes back with an empty watch cache is like: objects stay, the log is
        forgotten.

        With `revision`, versions continue from there: above the present one as after a restore of etcd with a
        bumped revision, below it (not below 1) as after a restore without, from an old backup. Then the objects are
        those of that revision, as far as the logs reach back: what was written later is undone, and what is newer
        than that revision with an older state nobody knows is gone. Versions that were given once are given again.
        """
        back = revision is not None and revision < self.revision
        if revision is not None:
            self.revision = Version(max(1, revision))
        self.incarnation += 1
        self._floor = self.revision
        for collection in self.collections.values():
            collection.begin_anew(self.revision, back=back)
        if back:
            for follow in tuple(self.went_back):
                follow()
        for collection in tuple(self.collections.values()):
            collection.notify()
        self._notify()

    def drop(self, name: str) -> None:
        """Ends a collection whose resource is gone; its streams finish."""
        collection = self.collections.pop(name, None)
        if collection is not None:
            collection.closed = True
            collection.notify()

    def _commit(self, collection: Collection, event: Event) -> Event:
        self.revision = event.version
        collection.record(event)
        collection.notify()
        self._notify()
        return event

    def _notify(self) -> None:
        for wake in tuple(self.subscribers):
            wake()
