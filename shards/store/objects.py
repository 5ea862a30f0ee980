"""`PartitionStore`: the objects of one partition, written by one reflector and read by everybody in the
process.

What it keeps true, once `synced`:

- Readers see one state: all of it belongs to `frontier`, the version up to which the API server has told
  everything.
- An object never goes back. A live event at or below the frontier tells nothing new and is ignored
  (`ignored`), which also keeps a late one from bringing a deleted object back: the frontier has passed its
  deletion.
- A list made anew is collected next to what is held (`begin`, `put`) and takes its place at once (`finish`):
  readers see its differences as changes, never an empty moment. Objects whose uid and version are unchanged
  keep their entries, so a relist costs no second copy.
- What lies outside the partition's cover is dropped on arrival and counted: a server may ignore a selector.

A list *older* than the frontier is the one way back. The reflector asks for lists that are not older, so an
older one means that the server lost its past (etcd restored from a backup): then the list is the truth, and
history restarts.

Not kept here: how the objects get here (`watch.reflector`), waiting for a version (`shard`, through
`subscribe`), order over several partitions (the query router). Not safe for use by several threads, but for
the counters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Final

from sortedcontainers import SortedList

from ..model.errors import Broken, NotReady, TooLargeVersion
from ..model.fields import INDEXED_FIELDS
from ..model.observations import Observation
from ..model.partitions import Everything, Partition
from ..model.queries import PageAnswer, PageQuery
from ..model.refs import Key
from ..model.resources import ResourceType
from ..model.versions import UNKNOWN, Version
from ..settings import StoreSettings
from .audit import digest_of, seed_of
from .bodies import BodyCodec
from .entries import Entry
from .history import History, HistoryStatistics
from .index import Index
from .snapshot import Selection, Snapshot

_DISTINCT_FIELDS: Final = (INDEXED_FIELDS - {"spec.nodeName"}) | {"involvedObject.resourceVersion"}
"""Fields whose values hardly two objects share: interning them would cost memory instead of saving it."""


class PartitionStore:
    """Objects, indexes and history of one partition. `clock` gives seconds that never go back."""

    def __init__(
        self,
        partition: Partition,
        resource_type: ResourceType,
        *,
        settings: StoreSettings,
        clock: Callable[[], float],
        codec: BodyCodec | None = None,
    ) -> None:
        self.partition = partition
        self.resource_type = resource_type
        self.synced = False
        """True from the first complete list on."""
        self.frontier = UNKNOWN
        """Everything up to this version has been seen."""
        self.frontier_at = float("-inf")
        """When the API server last proved the frontier, by the clock."""
        self.events = {"added": 0, "modified": 0, "deleted": 0, "bookmark": 0}
        self.dropped = 0
        """Objects outside the cover."""
        self.ignored = 0
        """Live events that told nothing new."""
        self.audit = 0
        """See `store.audit`."""
        self.body_bytes = 0
        self._clock = clock
        self._codec = codec or BodyCodec(settings)
        self._admits = None if isinstance(partition.cover, Everything) else partition.cover.admits
        self._entries: dict[Key, Entry] = {}
        self._keys: SortedList[Key] = SortedList()
        self._index = Index(resource_type.selectable_fields)
        self._history = History(settings)
        self._interned = tuple(field not in _DISTINCT_FIELDS for field in resource_type.selectable_fields)
        self._fresh: dict[Key, Entry] | None = None
        self._subscribers: tuple[Callable[[], object], ...] = ()

    def __len__(self) -> int:
        return len(self._entries)

    # -- writing: a list -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A list begins. What an earlier one had collected and not finished is forgotten."""
        self.abandon()
        self._fresh = {}
        self._index.building = True

    def put(self, observation: Observation) -> None:
        """An object of the list; of two states of one object the newer counts.

        A streaming list may go on to tell of changes before its end: a deleted object is taken out again.
        """
        if self._fresh is None:
            raise Broken(f"{self.partition.id}: object put outside of a list")
        if self._admits is not None and not self._admits(observation.namespace, observation.uid):
            self.dropped += 1
            return
        key, version = observation.key, observation.version
        twice = self._fresh.get(key)
        if twice is not None and twice.version >= version:
            return
        if observation.deleted:
            self._fresh.pop(key, None)
            return
        held = self._entries.get(key)
        if held is None or held.version != version or held.uid != observation.uid:
            held = self._entry(observation, held)
        self._fresh[held.key] = held

    def finish(self, version: Version) -> None:
        """The list is complete and is the state at `version`: it takes the place of what is held."""
        fresh = self._fresh
        if fresh is None:
            raise Broken(f"{self.partition.id}: list finished that was never begun")
        self._fresh = None
        self._index.building = False
        now, seen = self._clock(), self.frontier
        follows = self.synced and version >= seen
        if not follows:
            self._history.restart(version)
        if not self.synced:
            self._pack_again(fresh)
        changes = self._difference(fresh, version, keep_newer=follows)
        self._entries = fresh
        self._keys.update([key for _, key, before, _ in changes if before is None])
        if follows:
            self._history.gap(seen, version)
        for at, key, before, after in changes:
            if after is None:
                self._keys.remove(key)
            self._account(before, after)
            if follows:
                self._history.append(at, key, before, after, now)
            if self.synced:
                self.events[_type_of(before, after)] += 1
        self._index.sweep()
        self.synced = True
        self.frontier = version
        self._prove(version, now)

    def abandon(self) -> None:
        """The list broke off; what is held stays."""
        if self._fresh is not None:
            self._fresh = None
            self._index.building = False
            self._index.sweep()

    def _difference(
        self, fresh: dict[Key, Entry], version: Version, *, keep_newer: bool
    ) -> list[tuple[Version, Key, Entry | None, Entry | None]]:
        """What `fresh` changes: version, key, state before and after, in version order.

        With `keep_newer`, what is held in a newer state than the list has stays, and is put into `fresh`.
        """
        first = Version(self.frontier + 1)
        changes: list[tuple[Version, Key, Entry | None, Entry | None]] = []
        for key, held in self._entries.items():
            if key not in fresh:
                if keep_newer and held.version > version:
                    fresh[key] = held
                else:
                    changes.append((version, key, held, None))
        for key, entry in fresh.items():
            before = self._entries.get(key)
            if before is entry:
                continue
            if before is not None and keep_newer and before.version > entry.version:
                fresh[key] = before
            else:
                # Readers of the old frontier must not see the change, readers of the list's version must.
                changes.append((min(max(entry.version, first), version), key, before, entry))
        changes.sort(key=_version_of)
        return changes

    def _pack_again(self, fresh: dict[Key, Entry]) -> None:
        """Packs objects that came before there was a dictionary; without, they take four times the room."""
        if not self._codec.generation.number:
            return
        for key, entry in fresh.items():
            if not entry.generation.number:
                packed, generation = self._codec.pack(entry.body())
                fresh[key] = Entry(
                    key, entry.uid, entry.version, entry.labels, entry.fields, packed, generation
                )

    # -- writing: live ---------------------------------------------------------------------------------------

    def apply(self, observation: Observation) -> None:
        """A live event. One that tells nothing new is ignored, but its version still moves the frontier."""
        if not self.synced:
            raise Broken(f"{self.partition.id}: live event before the first list")
        version, now = observation.version, self._clock()
        key, deleted = observation.key, observation.deleted
        held = self._entries.get(key)
        if version <= self.frontier or (held is not None and version <= held.version):
            # An object cannot be there and deleted at one version, so this is a server that reports a
            # deletion with the version of the last state (kube-apiserver before 1.17, some aggregated ones),
            # and not a late event.
            if not (deleted and held is not None and held.version == version and held.uid == observation.uid):
                self.ignored += 1
                self._prove(version, now)
                return
            version = max(version, self.frontier)
        if self._admits is not None and not self._admits(observation.namespace, observation.uid):
            self.dropped += 1
        elif not deleted:
            entry = self._entry(observation, held)
            key = entry.key
            self._entries[key] = entry
            if held is None:
                self._keys.add(key)
            self._account(held, entry)
            self._history.append(version, key, held, entry, now)
            self.events["added" if held is None else "modified"] += 1
        elif held is not None:
            del self._entries[key]
            self._keys.remove(key)
            self._account(held, None)
            self._history.append(version, held.key, held, None, now)
            self.events["deleted"] += 1
        self._prove(version, now)

    def advance(self, version: Version) -> None:
        """A bookmark: everything up to `version` has been sent."""
        self.events["bookmark"] += 1
        if self.synced:
            self._prove(version, self._clock())

    def expire(self) -> None:
        """Lets go of history that is older than the window: of use where nothing arrives that would."""
        self._history.evict(self._clock())

    def subscribe(self, callback: Callable[[], object]) -> None:
        """Has `callback` called whenever the frontier was proved anew, after the change is readable."""
        self._subscribers = (*self._subscribers, callback)

    def _prove(self, version: Version, now: float) -> None:
        if version < self.frontier:
            return
        self.frontier = version
        self.frontier_at = now
        for callback in self._subscribers:
            callback()

    def _entry(self, observation: Observation, held: Entry | None) -> Entry:
        """The observed state, sharing with the held one all that is equal."""
        packed, generation = self._codec.pack(observation.body)
        if held is None:
            return Entry(
                observation.key,
                observation.uid,
                observation.version,
                self._index.label_set(observation.labels),
                self._shared(observation.fields),
                packed,
                generation,
            )
        labels, fields = observation.labels, observation.fields
        return Entry(
            held.key,
            held.uid if held.uid == observation.uid else observation.uid,
            observation.version,
            held.labels if held.labels.raw == labels else self._index.label_set(labels),
            held.fields if held.fields == fields else self._shared(fields),
            packed,
            generation,
        )

    def _shared(self, fields: tuple[str, ...]) -> tuple[str, ...]:
        """Field values; one that many objects have is one text: a phase is held once, not 20 000 times."""
        if not fields:
            return fields
        return tuple(
            [
                sys.intern(value) if shared else value
                for value, shared in zip(fields, self._interned, strict=True)
            ]
        )

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

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def oldest_version(self) -> Version:
        """A list at an exact version may ask for this one or a later one."""
        return self._history.oldest_version

    @property
    def frontier_age_s(self) -> float:
        """Seconds since the API server last proved the frontier; 0 before the first list."""
        return max(0.0, self._clock() - self.frontier_at) if self.synced else 0.0

    def get(self, key: Key) -> bytes | None:
        """The newest state of one object.

        Raises:
            NotReady: no list was complete yet.
        """
        self._require_synced()
        entry = self._entries.get(key)
        return None if entry is None else entry.body()

    def page(self, query: PageQuery) -> PageAnswer:
        """One page of one state.

        Raises:
            NotReady: no list was complete yet.
            Expired: `PageQuery.at` is older than history reaches.
            TooLargeVersion: `PageQuery.at` has not been reached.
            BadRequest: a selector that cannot be parsed, or a field that is not selectable.
        """
        selection = self._select(query)
        return self._snapshot(query.at).page(selection, limit=query.limit, max_bytes=query.max_bytes)

    def capture(self, query: PageQuery) -> Iterator[PageAnswer]:
        """All pages of the state now, whatever is written meanwhile. Raises as `page`, at once."""
        selection = self._select(query)
        return self._snapshot(query.at).capture(selection, limit=query.limit, max_bytes=query.max_bytes)

    def count(self, query: PageQuery) -> int:
        """How many objects the query means; `after` counts, `limit` does not. Raises as `page`."""
        selection = self._select(query)
        return self._snapshot(query.at).size(selection)

    def history_statistics(self) -> HistoryStatistics:
        """What history holds."""
        return self._history.statistics()

    def _select(self, query: PageQuery) -> Selection:
        self._require_synced()
        return Selection(
            query, self.resource_type.selectable_fields, namespaced=self.resource_type.namespaced
        )

    def _snapshot(self, at: Version | None) -> Snapshot:
        frontier = self.frontier
        if at is not None and at > frontier:
            raise TooLargeVersion(at, frontier)
        changes: Mapping[Key, Entry | None] = {}
        if at is not None and at < frontier:
            changes = self._history.changes_since(at)
        return Snapshot(
            frontier if at is None else at,
            entries=self._entries,
            keys=self._keys,
            index=self._index,
            namespaced=self.resource_type.namespaced,
            changes=changes,
        )

    def _require_synced(self) -> None:
        if not self.synced:
            raise NotReady(f"{self.partition.id} is not synced yet", retry_after_s=1)


_version_of = itemgetter(0)


def _type_of(before: Entry | None, after: Entry | None) -> str:
    if before is None:
        return "added"
    return "deleted" if after is None else "modified"
