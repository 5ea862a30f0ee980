"""What an informer holds: a `PartitionStore` that keeps no history and tells each change to one listener instead.

What it keeps true beyond `shards.store.objects`:

- The listener is told every difference between two states, in order: live changes, what a list made anew revealed,
  and what is different after the server lost its past. It is told after the new state can be read.
- Only objects that meet the selectors are held, whether or not the server looks at them. One that leaves them is gone.
- A relist that shows an object under the version it is held in, but with other contents, changes it: a server that
  was restored from a backup gives out its versions a second time.
- An object is not shown older than it was, except after such a restore (`went_back`).

Servers that tell in order send no event at or below the frontier. Shoal's gateway does, where a resource is held in
several partitions: such events are late, not old (see `cluster.watching.lanes`). So behind a gateway an event counts
by what is held of its object alone, and deletions are remembered for a while, lest a late event undo one.

Not kept here: who is told (`informer`), how observations get here (`following`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, Protocol

import msgspec

from ...shards.model.observations import Observation
from ...shards.model.partitions import Epoch, Partition
from ...shards.model.queries import PageQuery
from ...shards.model.refs import Key
from ...shards.model.resources import ResourceType
from ...shards.model.versions import UNKNOWN, Version
from ...shards.settings import StoreSettings
from ...shards.store.difference import difference
from ...shards.store.entries import Entry
from ...shards.store.objects import PartitionStore
from ...shards.store.stamps import stamped
from .narrowing import Narrowing
from .objects import KubeObject
from .transforms import Reshaping

DELETIONS_REMEMBERED: Final = 4096
"""Behind a gateway. A late event is late by seconds."""

consistent: Final = threading.RLock()
"""Held while an informer's store or indexes are written, or read by its lister. Taken before `_unpacking`, for 0.1 us.
One for all: each is written by its event loop alone, so that only readers in other threads ever wait for it."""

_unpacking = threading.Lock()
"""Decompressors must not be used by two threads at once, and objects are read in whichever thread their handler runs.
Taken for 1.4 us, and 0.1 us for taking it."""


def _body(entry: Entry) -> bytes:
    with _unpacking:
        return entry.body()


def _last_body(entry: Entry, version: Version) -> bytes:
    return stamped(_body(entry), entry.version, version)


def object_of(entry: Entry) -> KubeObject:
    """The object in this state; its body is unpacked when it is read."""
    return KubeObject(partial(_body, entry), entry.key, uid=entry.uid, version=entry.version)


def fresh_object(entry: Entry, body: bytes) -> KubeObject:
    """The same, with the body at hand."""
    return KubeObject(body, entry.key, uid=entry.uid, version=entry.version)


def deleted_object(entry: Entry, version: Version) -> KubeObject:
    """The object in its last state, carrying the version of its deletion."""
    return KubeObject(partial(_last_body, entry, version), entry.key, uid=entry.uid, version=version)


class Listener(Protocol):
    """Who is told of changes."""

    def changed(  # noqa: PLR0917 - called for every event: names would cost as much as the call
        self,
        key: Key,
        before: Entry | None,
        after: Entry | None,
        at: float,
        gone: Version | None,
        body: bytes | None = None,
    ) -> None:
        """One change, observed at `at`. `gone`: the version of a deletion that the server told of. `body`: that of the
        state after, where it is at hand.
        """

    def listed(self) -> None:
        """A list is complete, and all it changed was told."""

    def went_back(self, objects: int) -> None:
        """The server lost its past; so many objects are older than they were."""


class InformerStore(PartitionStore):
    """The objects of one informer. `reshape` changes bodies before they are packed."""

    def __init__(
        self,
        partition: Partition,
        resource_type: ResourceType,
        *,
        settings: StoreSettings,
        clock: Callable[[], float],
        narrowing: Narrowing,
        reshape: Reshaping | None,
        listener: Listener,
    ) -> None:
        super().__init__(partition, resource_type, settings=settings, clock=clock)
        self.behind_gateway = False
        """The server may tell late events."""
        self.late = 0
        """Such events that were news."""
        self.last_event_at: float | None = None
        """When the newest change was observed, by the clock."""
        self._listener = listener
        self._selects = narrowing.tester(resource_type)
        self._reshape = reshape
        self._live = True
        self._arrived = b""
        self._deletions: OrderedDict[Key, Version] = OrderedDict()

    # -- writing ---------------------------------------------------------------------------------------------

    def put(self, observation: Observation) -> None:
        """As `PartitionStore.put`; what does not meet the selectors is left out."""
        with consistent:
            super().put(self._wanted(observation))

    def apply(self, observation: Observation) -> None:
        """As `PartitionStore.apply`; what does not meet the selectors any more is gone."""
        with consistent:
            if self._selects is not None or self._reshape is not None:
                observation = self._wanted(observation)
            self._arrived = observation.body
            super().apply(observation)

    def finish(self, version: Version) -> None:
        """As `PartitionStore.finish`."""
        with consistent:
            self._finish(version)

    def _finish(self, version: Version) -> None:
        held, synced, seen = self._entries, self.synced, self.frontier
        self._live = False
        try:
            super().finish(version)
        finally:
            self._live = True
        self._history.restart(version)
        now, changed = self._clock(), self._listener.changed
        if not synced:
            for key, entry in self._entries.items():
                changed(key, None, entry, now, None)
            self.last_event_at = now if self._entries else None
        elif version < seen:
            self._deletions.clear()
            older = 0
            for _, key, before, after in difference(
                held, self._entries, version, seen=seen, keep_newer=False
            ):
                older += before is not None and after is not None and after.version < before.version
                changed(key, before, after, now, None)
                self.last_event_at = now
            if older or not self.behind_gateway:
                self._listener.went_back(older)
        self._listener.listed()

    def clear(self) -> None:
        """The resource has vanished, and with it all objects."""
        with consistent:
            self._clear()

    def _clear(self) -> None:
        if not self.synced:
            self.abandon()
            return
        held, now = list(self._entries.items()), self._clock()
        self.begin()
        self.synced = False
        super().finish(self.frontier)
        self._history.restart(self.frontier)
        for key, entry in held:
            self._listener.changed(key, entry, None, now, None)
        if held:
            self.last_event_at = now

    def _enter(
        self, version: Version, key: Key, before: Entry | None, after: Entry | None, now: float
    ) -> None:
        self.last_event_at = now
        if not self._live:
            self._listener.changed(key, before, after, now, None)
            return
        if after is not None:
            self._listener.changed(key, before, after, now, None, self._arrived)
            return
        if self.behind_gateway:
            self._deletions[key] = version
            if len(self._deletions) > DELETIONS_REMEMBERED:
                self._deletions.popitem(last=False)
        self._listener.changed(key, before, None, now, version)

    def _wanted(self, observation: Observation) -> Observation:
        """The observation as it is to be held; a deletion if it does not meet the selectors."""
        if observation.deleted:
            return observation
        if self._selects is not None and not self._selects(observation):
            self.dropped += observation.key not in self._entries
            return msgspec.structs.replace(observation, deleted=True)
        if self._reshape is None:
            return observation
        body = self._reshape(observation)
        return observation if body is observation.body else msgspec.structs.replace(observation, body=body)

    def _unchanged(self, held: Entry, observation: Observation) -> bool:
        return super()._unchanged(held, observation) and _body(held) == observation.body

    def _late(self, key: Key, version: Version) -> bool:
        if not self.behind_gateway or version <= self._deletions.get(key, UNKNOWN):
            return False
        held = self._entries.get(key)
        self.late += held is None or version > held.version
        return True

    # -- reading ---------------------------------------------------------------------------------------------

    def entry(self, key: Key) -> Entry | None:
        """What is held of one object."""
        return self._entries.get(key)

    def entries(self) -> Iterator[Entry]:
        """All that is held, in no order; not to be used across a write."""
        return iter(self._entries.values())

    def found(self, *, namespace: str | None, labels: str, fields: str) -> Iterator[Entry]:
        """What meets the selectors, in the API server's order; not to be used across a write.

        Raises:
            NotReady: no list was complete yet.
            BadRequest: a selector that cannot be parsed, or a field that is not selectable.
        """
        selection = self._select(self._query(namespace, labels, fields))
        return self._snapshot(None).found(selection)

    def size(self, *, namespace: str | None, labels: str, fields: str) -> int:
        """How many objects meet the selectors. Raises as `found`."""
        return self.count(self._query(namespace, labels, fields))

    def _query(self, namespace: str | None, labels: str, fields: str) -> PageQuery:
        return PageQuery(
            partition=self.partition.id, epoch=Epoch(0), namespace=namespace, labels=labels, fields=fields
        )
