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
history restarts; what gateways had said of versions shown (`marks`) is forgotten.

Not kept here: how the objects get here (`watch.reflector`), waiting for a version (`shard`, through
`subscribe`), order over several partitions (the query router). Not safe for use by several threads, but for
the counters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol

from ..model.covers import names_roam
from ..model.errors import Broken
from ..model.observations import Observation
from ..model.partitions import Everything, Partition
from ..model.refs import Key
from ..model.resources import ResourceType
from ..model.versions import UNKNOWN, Version
from ..settings import StoreSettings
from .bodies import BodyCodec
from .difference import difference
from .entries import Entry, shared_fields
from .history import Event
from .marks import Moment
from .moving import MovableObjects


class Recorder(Protocol):
    """Takes note of events for feeds."""

    def record(self, event: Event) -> None:
        """One event, before the frontier moves to it."""

    def restarted(self) -> None:
        """A list older than the frontier became the truth: the past is void."""


class PartitionStore(MovableObjects):
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
        super().__init__(partition, resource_type, settings=settings, clock=clock, codec=codec)
        self.events = {"added": 0, "modified": 0, "deleted": 0, "bookmark": 0}
        self.dropped = 0
        """Objects outside the cover."""
        self.ignored = 0
        """Live events that told nothing new."""
        self.recorder: Recorder | None = None
        """Told of every event; None while nobody reads a feed."""
        self._admits = None if isinstance(partition.cover, Everything) else partition.cover.admits
        self._interned = shared_fields(resource_type.selectable_fields)
        self._fresh: dict[Key, Entry] | None = None
        self._doubted = False
        self._settling_s = settings.settling_s
        self._listed_from = self.moment

    @property
    def listing(self) -> bool:
        """A list is under way."""
        return self._fresh is not None

    @property
    def moment(self) -> Moment:
        """Now: what the API server is asked after it knows all that had been shown."""
        return Moment(self._marks.noted, self._clock())

    # -- writing: a list -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A list begins. What an earlier one had collected and not finished is forgotten."""
        self.abandon()
        self.turn += 1
        self._listed_from = self.moment
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
        if held is None or not self._unchanged(held, observation):
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
            self._begin_past(version, now)
        if not self.synced:
            self._pack_again(fresh)
        keep_newer = follows and not self._doubted
        changes = difference(
            self._entries,
            fresh,
            version,
            seen=seen,
            keep_newer=keep_newer,
            roams=names_roam(self.partition.cover),
        )
        self._doubted = False
        self._entries = fresh
        self._keys.update([key for _, key, before, _ in changes if before is None])
        if follows:
            self._history.gap(seen, version)
        for at, key, before, after in changes:
            if after is None:
                self._keys.remove(key)
            self._account(before, after)
            if follows:
                self._enter(at, key, before, after, now)
            if self.synced:
                self.events[_type_of(before, after)] += 1
        self._index.sweep()
        self.turn += 1
        self.synced = True
        self.frontier = version
        if not follows and self.recorder is not None:
            self.recorder.restarted()
        self.told(version, self._listed_from)
        self._prove(version, now)

    def resume(self) -> None:
        """What was restored is from before this process: its past begins now, as after a first list."""
        self._begin_past(self.frontier, self._clock())

    def doubt(self) -> None:
        """What is held was found to differ from the API server: the next list is right about everything."""
        self._doubted = True

    def abandon(self) -> None:
        """The list broke off; what is held stays."""
        if self._fresh is not None:
            self._fresh = None
            self._index.building = False
            self._index.sweep()

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

    def _begin_past(self, version: Version, now: float) -> None:
        """History begins with the state at `version`; what there was before, if anything, is void."""
        self._history.restart(version)
        self._history.settled_at = now + self._settling_s
        self._marks.clear()
        if self.synced:
            self.shown_before = UNKNOWN

    def apply(self, observation: Observation) -> None:
        """A live event. One that tells nothing new is ignored, but its version still moves the frontier."""
        if not self.synced:
            raise Broken(f"{self.partition.id}: live event before the first list")
        version, now = observation.version, self._clock()
        key, deleted = observation.key, observation.deleted
        held = self._entries.get(key)
        if (version <= self.frontier and not self._late(key, version)) or (
            held is not None and version <= held.version
        ):
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
            self._enter(version, key, held, entry, now)
            self.events["added" if held is None else "modified"] += 1
        elif held is not None:
            del self._entries[key]
            self._keys.remove(key)
            self._account(held, None)
            self._enter(version, held.key, held, None, now)
            self.events["deleted"] += 1
        self._prove(version, now)

    def advance(self, version: Version) -> None:
        """A bookmark: everything up to `version` has been sent."""
        self.events["bookmark"] += 1
        if self.synced:
            self._prove(version, self._clock())

    def proven(self, version: Version) -> None:
        """Everything up to `version` has been seen, as a proof has it that began in this `turn`."""
        self._prove(version, self._clock())

    def overtake(self, version: Version) -> None:
        """Readers of other partitions are about to be shown `version`: what comes later and is not newer is late."""
        self._marks.note(version)

    def told(self, version: Version, asked: Moment) -> None:
        """The API server said that it is at `version`, in a consistent list that was asked for at `asked`: nothing
        newer had been shown by then. An older version than the frontier says nothing of marks: whether the past is lost
        is for the next list to say.
        """
        if version >= self.frontier and self._marks.refute(asked.mark, version):
            self._history.refute(version)
        if asked.at >= self._history.settled_at:
            self._history.settle(max(version, self.frontier))

    @property
    def settle_due(self) -> bool:
        """Whether the API server is to be asked where it is (`told`): until then whoever resumes is told again what
        came soon after the first list.
        """
        return self._history.settle_due(self._clock())

    def expire(self) -> None:
        """Lets go of history that is older than the window: of use where nothing arrives that would."""
        self._history.evict(self._clock(), self.frontier, self.overtaken)

    def subscribe(self, callback: Callable[[], object]) -> None:
        """Has `callback` called whenever the frontier was proved anew, after the change is readable."""
        self._subscribers = (*self._subscribers, callback)

    def _enter(
        self, version: Version, key: Key, before: Entry | None, after: Entry | None, now: float
    ) -> None:
        event = self._history.append(
            version, key, before, after, now, frontier=self.frontier, mark=self.overtaken
        )
        if self.recorder is not None:
            self.recorder.record(event)

    def _unchanged(self, held: Entry, observation: Observation) -> bool:
        """Whether a list shows an object as it is held."""
        return held.version == observation.version and held.uid == observation.uid

    def _late(self, key: Key, version: Version) -> bool:  # noqa: ARG002 - of a server that tells in order
        """Whether a live event at or below the frontier may be news all the same."""
        return False

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


def _type_of(before: Entry | None, after: Entry | None) -> str:
    if before is None:
        return "added"
    return "deleted" if after is None else "modified"
