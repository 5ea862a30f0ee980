"""What may be shown to watchers of several partitions, and when: the order of events over partitions. Pure.

A client that has seen version V of a resource may come back anywhere and say "I know everything up to V". With
one partition that is true by itself: its events come in the order of their versions. With several it has to be
made true, because partition *b* may tell of version 7 after partition *a* has told of 10. Waiting until *b*
has reached 10 would make every busy partition as late as the most idle one. So *b* is told instead that 10 is
about to be shown (`ShardHandle.overtake`). From its acknowledgement on, whatever of *b* is still to come up to
version 10 is *late*, and `ShardHandle.changes` repeats it to whoever resumes at a version that had been shown by
then.

A partition is *cleared* to V when its feed has told its frontier V, or when it has acknowledged an overtaking
by V and its feed has told everything up to the frontier that the acknowledgement carries. The second half
matters: what had arrived at the shard before it acknowledged is not late, so it has to be here first, and an
answer may reach us before a feed's batch that was sent earlier.

A `Lane` holds the events of a set S of partitions until every partition of S is cleared to their versions, and
gives them out in the order of versions.

*No gap.* Let a client have been shown V, and let e be an event of partition p in S with a version up to V that
the client was not shown. When V was given out p was cleared to V. Had e arrived at its shard before that, it
would have been fed before (by the frontier told, or by the frontier of the acknowledgement), would have been
pending, and given out before V: the lane's order. So it arrived after the acknowledgement of an overtaking by V or
more. Then it is late, and repeated to this client wherever it resumes, at V or any other version it was shown.

*No going back.* The events of one object come from one partition, in order, and keep it: of one partition nothing is
given out before what it told earlier. A name, though, that is deleted and made again may change its partition where
these are ranges of uids. So a partition whose names move is never overtaken (`feeds`): it is cleared to V by its
frontier alone, none of its events is ever late, and the lane has the deletion, at 7, when it gives out the new object,
at 9. Who waits then waits for the slowest of these ranges; they are made of busy resources, where all move on within
milliseconds.

The same holds for what a bookmark says: the floor is a version to which all of S are cleared and up to which
everything is given out. With one partition the floor is its frontier and events pass straight through.

*Another division.* With other partitions there are other lanes. A client that was shown V by the old ones goes on with
the new ones through a replay (`replay`), and all that the argument above needs of the past has moved with the
partitions: which events are late, and the newest version that was let be shown. Old lanes show nothing new meanwhile
that a shard which has handed over would have to give leave for: it acknowledges no overtaking any more.

When a feed had to be opened anew the shard may be another one, which knows nothing of the overtakings its
predecessor acknowledged: they are asked for again (`Clearance.reopened`, `Lane.wanted`).
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

from ...shards.model.partitions import PartitionId
from ...shards.model.versions import UNKNOWN, Version


class Versioned(Protocol):
    """What a lane needs to know of an event."""

    @property
    def version(self) -> Version:
        """Its resource version."""


E = TypeVar("E", bound=Versioned)


def _version(event: Versioned) -> Version:
    return event.version


class Clearance:
    """How far one partition is known: by its feed, and by overtakings it acknowledged."""

    __slots__ = ("_overtaken", "_promised", "cleared", "fed")

    def __init__(self, fed: Version = UNKNOWN) -> None:
        self.fed = fed
        """The frontier its feed has told; everything up to it is in the lanes, or through them."""
        self.cleared = fed
        """Versions up to this one may be shown."""
        self._overtaken = UNKNOWN
        self._promised: list[tuple[Version, Version]] = []

    @property
    def promised(self) -> Version:
        """What it will be cleared to once its feed has caught up with its acknowledgements."""
        return max((version for version, _ in self._promised), default=self.cleared)

    def told(self, frontier: Version) -> None:
        """The feed has told everything up to `frontier`."""
        self.fed = max(self.fed, frontier)
        self._settle()

    def acknowledged(self, version: Version, frontier: Version) -> None:
        """An overtaking by `version` was acknowledged at `frontier`."""
        self._promised.append((version, frontier))
        self._settle()

    def reopened(self) -> None:
        """The shard behind the feed may be another one."""
        self._overtaken = UNKNOWN
        self._promised.clear()
        self.cleared = self.fed

    def _settle(self) -> None:
        if self._promised:
            kept = [promise for promise in self._promised if promise[1] > self.fed]
            kept_back = [version for version, frontier in self._promised if frontier <= self.fed]
            self._overtaken = max(self._overtaken, *kept_back) if kept_back else self._overtaken
            self._promised = kept
        self.cleared = max(self.fed, self._overtaken)


class Lane(Generic[E]):
    """Events of a set of partitions on their way to watchers."""

    def __init__(self, clearances: Mapping[PartitionId, Clearance]) -> None:
        self._clearances = tuple(clearances.values())
        self._pending: list[tuple[Version, int, E]] = []
        self._count = 0
        self._newest = UNKNOWN
        self.partitions: KeysView[PartitionId] = clearances.keys()
        """What it is about."""
        self.shown = self.floor
        """The newest version that may have been shown; what a bookmark says. Everything up to it was given out."""

    def __len__(self) -> int:
        """Events held back."""
        return len(self._pending)

    @property
    def floor(self) -> Version:
        """The version to which all partitions are cleared now.

        Of one partition it is what its feed has told, however far lanes of more partitions had it cleared: who watches
        it alone need not wait for the others. A bookmark that said more than its feed has told would let a client come
        back with a version this partition is not at, and wait for nothing.
        """
        if len(self._clearances) == 1:
            return self._clearances[0].fed
        return min([clearance.cleared for clearance in self._clearances])

    @property
    def oldest_pending(self) -> Version | None:
        """The version of the next event to be given out; None if there is none."""
        return self._pending[0][0] if self._pending else None

    @property
    def wanted(self) -> Version:
        """The version all partitions should be cleared to: that of the newest event held back, and all that was
        shown (which changes something only after a feed was opened anew).
        """
        return max(self.shown, self._newest) if self._pending else self.shown

    def offer(self, events: Iterable[E]) -> None:
        """Takes events of one partition, in order, before its clearance is told of them."""
        for event in events:
            version = event.version
            self._count += 1
            heappush(self._pending, (version, self._count, event))
            self._newest = max(self._newest, version)

    def given_out(self, events: Iterable[E]) -> list[E]:
        """Those of events offered that are not held back any more, if nothing was offered since the last `release`."""
        return sorted((event for event in events if event.version <= self.shown), key=_version)

    def release(self) -> list[E]:
        """What may be shown now and was not yet, in order."""
        floor = self.floor
        self.shown = max(self.shown, floor)
        pending = self._pending
        if not pending or pending[0][0] > floor:
            return []
        if self._newest <= floor:
            pending.sort()
            released = [event for _, _, event in pending]
            pending.clear()
            return released
        released = []
        while pending and pending[0][0] <= floor:
            released.append(heappop(pending)[2])
        return released
