"""The bounded window of a partition's past: events in version order, each with the state it replaced.

What it keeps true: for every version V from `oldest_version` on, the state at V is the newest state with the
events after V taken back (`changes_since`). Events leave at the old end when they are older than `history_s`
or when the window outgrows `history_bytes`; the floor rises with them. A version below the floor is
`Expired`.

A list made anew (after a 410) is entered as its difference to what was held. What happened between the last
version seen and the list's was never observed, so versions strictly between the two are a *gap*, and expired
as well, although older ones are not.

*Late* events are remembered as such: those that arrived with a version which readers of other partitions of the
resource had been shown already (`mark`, see `model.queries.OvertakeQuery`). Who resumes at such a version may have
missed them, so `window` repeats them. A late event that has left the window makes these versions expire. In the first
`settling_s` after a history began nobody here knows what another owner of the partition let be shown meanwhile: all
events of that time are *unsettled*, and count as late for every version that may have been shown by its end (`settle`).

A *correction* is an event at a version that was the frontier already: a deletion reported with the version of the last
state, a list that differs at an unchanged version. Who stands at that very version is told it again.

Sizes count what an event really holds on to: the packed body of the replaced state and `EVENT_BYTES` for the
rest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

from ..model.errors import Expired
from ..model.refs import Key
from ..model.versions import UNKNOWN, Version
from ..settings import StoreSettings
from .entries import Entry
from .past import EVENT_BYTES, Event, Late, Past

__all__ = ["EVENT_BYTES", "Event", "History", "HistoryStatistics"]

REMEMBERED_STATES: Final = 8
"""Past states whose differences are kept ready: each paged list that is under way asks for one again and
again.
"""

NEEDED_PART: Final = 4
"""A window takes up to so many times its bytes while without its oldest event nobody could begin anywhere."""

EVICTED_PART: Final = 32
"""A window that outgrew its bytes gives up one part of so many."""

STAMP_S: Final = 1.0
"""Events share a time stamp for so long; a float an event would be 32 bytes each."""

EXPIRED_TEXT: Final = "The resourceVersion for the provided list is too old."
"""kube-apiserver's text for a LIST at an exact version."""


class HistoryStatistics(NamedTuple):
    """How much past is held."""

    events: int
    bytes: int
    late: int = 0


class History:
    """Events of one partition. Single writer."""

    def __init__(self, settings: StoreSettings) -> None:
        self.oldest_version = UNKNOWN
        """The floor: the oldest version whose state is known."""
        self.bytes = 0
        self._seconds = settings.history_s
        self._bytes_max = settings.history_bytes
        self.settled_at = float("-inf")
        """By the store's clock: events from before this count as late."""
        self._events: deque[Event] = deque()
        self._late: deque[Late] = deque()
        self._late_floor = self._correction_floor = UNKNOWN
        self._settled = UNKNOWN
        """What may have been shown by the end of the settling time; `UNKNOWN` until somebody has to know."""
        self._unsettled_lost = False
        """Unsettled events left the window before the settling time was over."""
        self._gaps: deque[tuple[Version, Version]] = deque()
        self._added = 0
        self._brought: int | None = None
        """How many of the events added came with a past from elsewhere; None if the past began here."""
        self._skipped: Version | None = None
        """From where on a list took the place of events, the first time after the past had come from elsewhere."""
        self._stamp = float("-inf")
        self._states: OrderedDict[Version, tuple[int, dict[Key, Entry | None]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    # -- writing ---------------------------------------------------------------------------------------------

    def restart(self, version: Version) -> None:
        """Forgets everything; history begins with the state at `version`."""
        self._events.clear()
        self._late.clear()
        self._late_floor = self._correction_floor = self._settled = UNKNOWN
        self._unsettled_lost = False
        self._gaps.clear()
        self._states.clear()
        self.bytes = 0
        self._brought = self._skipped = None
        self.oldest_version = version

    def append(
        self,
        version: Version,
        key: Key,
        before: Entry | None,
        after: Entry | None,
        now: float,
        *,
        frontier: Version = UNKNOWN,
        mark: Version = UNKNOWN,
    ) -> Event:
        """Enters a change; `version` is not below the last one's.

        `frontier` is the partition's before the change, `mark` the newest version shown from other partitions.
        """
        if now - self._stamp > STAMP_S:
            self._stamp = now
        events = self._events
        event = Event(version, key, before, after, self._stamp)
        events.append(event)
        if version <= mark or version <= frontier:
            self._late.append(Late(event, max(mark, frontier), version <= frontier))
        self._added += 1
        self.bytes += EVENT_BYTES if before is None else EVENT_BYTES + len(before.packed)
        if self.bytes > self._bytes_max or events[0].at < now - self._seconds:
            self.evict(now, version, mark)
        return event

    def gap(self, seen: Version, listed: Version) -> None:
        """Notes that the versions strictly between were not observed."""
        if listed - seen > 1:
            self._gaps.append((seen, listed))
            if self.travelled and self._skipped is None:
                self._skipped = seen

    def settle(self, version: Version) -> None:
        """The settling time is over, and nothing newer than `version` had been shown by its end."""
        if self._settled == UNKNOWN:
            self._settled = version
            if self._unsettled_lost:
                self._late_floor = max(self._late_floor, version)

    def settle_due(self, now: float) -> bool:
        """Whether it is time to find out what may have been shown by the end of the settling time."""
        events = self._events
        return (
            self._settled == UNKNOWN
            and now >= self.settled_at
            and bool(events)
            and events[0].at < self.settled_at
        )

    def refute(self, version: Version) -> None:
        """Nothing newer than `version` was ever shown: what was believed to be is of a past that the server lost."""
        self._late = deque(late._replace(shown=min(late.shown, version)) for late in self._late)
        self._late_floor = min(self._late_floor, version)
        self._settled = min(self._settled, version)

    def taken(self, now: float) -> Past:
        """All of it as it is now, to be resumed elsewhere."""
        return Past(
            now,
            self.oldest_version,
            tuple(self._events),
            tuple(self._late),
            self._late_floor,
            self._correction_floor,
            tuple(self._gaps),
            self._settled,
            self.settled_at,
            self._unsettled_lost,
            self._stamp,
        )

    def resume(self, past: Past) -> None:
        """Goes on from `past`, whose times are of this history's clock, in place of what is held."""
        self.restart(past.oldest_version)
        self._events.extend(past.events)
        self._late.extend(past.late)
        self._late_floor, self._correction_floor = past.late_floor, past.correction_floor
        self._gaps.extend(past.gaps)
        self._settled, self.settled_at = past.settled, past.settled_at
        self._unsettled_lost = past.unsettled_lost
        self._stamp = past.stamp
        self._added = self._brought = len(past.events)
        self.bytes = sum([event.weight for event in past.events])

    @property
    def travelled(self) -> bool:
        """Whether the past came from elsewhere, and goes on."""
        return self._brought is not None

    def skipped(self, frontier: Version) -> bool:
        """Whether states up to `frontier`, which whoever had this past before had seen, may have been skipped here."""
        return self._skipped is not None and self._skipped < frontier

    def overtaken_elsewhere(self, shown: Version) -> None:
        """Versions up to `shown` may have been shown by the leave of whoever had this past before, and before what came
        here since was known here: it counts as late.
        """
        count = self._added - (self._brought or 0)
        if count > len(self._events):
            count = len(self._events)
            self._late_floor = max(self._late_floor, shown)
        own = list(islice(self._events, len(self._events) - count, None))
        known = {id(late.event): late for late in self._late}
        for event in own:
            late = known.pop(id(event), None)
            if late is not None or event.version <= shown:
                late = late or Late(event, shown, correction=False)
                known[id(event)] = late._replace(shown=max(late.shown, shown))
        self._late = deque(known.values())

    def evict(self, now: float, frontier: Version, mark: Version = UNKNOWN) -> None:
        """Drops what is outside the window, and raises the floor to the newest version dropped.

        A late event outlives its time until the frontier has passed what had been shown when it came: the versions it
        makes expire must be no longer the newest, or who lists and goes on from there would be told to list again. So
        does an unsettled one.
        """
        events, shown = self._events, max(frontier, mark)
        oldest, bytes_left = now - self._seconds, self._bytes_max
        if now >= self.settled_at and (self._unsettled_lost or self._ages_unsettled(now)):
            self.settle(shown)
        if self.bytes > bytes_left:
            # Some at once, so that a full window is not tidied up after every event (3 us each).
            bytes_left -= bytes_left // EVICTED_PART
        while events and (self.bytes > bytes_left or events[0].at < oldest):
            if self.bytes <= bytes_left and self._needed(events[0], frontier):
                break
            if self.bytes <= NEEDED_PART * self._bytes_max and self._shown_last(frontier):
                break
            self.oldest_version = max(self.oldest_version, self._drop_oldest(shown))
        # Events of one version (a list's deletions) go together: half of them taken back is no state that ever was.
        # What has to be repeated stays: it belongs to the state of its version, or of the floor of a joined past.
        late = self._late
        while (
            events
            and events[0].version <= self.oldest_version
            and events[0].at >= self.settled_at
            and not (late and late[0].event is events[0])
        ):
            self._drop_oldest(shown)
        while self._gaps and self._gaps[0][1] <= self.oldest_version:
            self._gaps.popleft()
        for version in [version for version in self._states if version < self.oldest_version]:
            del self._states[version]

    def _ages_unsettled(self, now: float) -> bool:
        """Whether an unsettled event has used up half its time. What it makes expire is settled on well before it goes,
        so that nobody is sent there meanwhile (`resumable`).
        """
        events = self._events
        return bool(events) and events[0].at < min(self.settled_at, now - self._seconds / 2)

    def _needed(self, event: Event, frontier: Version) -> bool:
        """Whether the oldest event is the only thing that keeps the newest versions from expiring."""
        if event.at < self.settled_at and (self._settled == UNKNOWN or self._settled >= frontier):
            return True
        late = self._late
        return bool(late) and late[0].event is event and late[0].shown >= frontier

    def _shown_last(self, frontier: Version) -> bool:
        """Whether without the oldest event the newest version of all would expire: nobody could begin anywhere."""
        late = self._late
        return bool(late) and late[0].event is self._events[0] and late[0].shown >= frontier

    def _drop_oldest(self, newest_shown: Version) -> Version:
        event = self._events.popleft()
        self.bytes -= event.weight
        if event.at < self.settled_at:
            self._unsettled_lost = self._unsettled_lost or self._settled == UNKNOWN
            self._late_floor = max(self._late_floor, self._settled or newest_shown)
        if self._late and self._late[0].event is event:
            _, shown, correction = self._late.popleft()
            self._late_floor = max(self._late_floor, shown)
            if correction:
                self._correction_floor = max(self._correction_floor, event.version)
        return event.version

    # -- reading ---------------------------------------------------------------------------------------------

    def changes_since(self, version: Version) -> Mapping[Key, Entry | None]:
        """What is different at `version` from now: for each key changed since, the state it had (None: not
        there).

        Costs the events since the last call for the same version. The mapping is valid until the next write.

        Raises:
            Expired: the version is older than the window, or lies in a gap.
        """
        self._require(version, EXPIRED_TEXT)
        seen, changes = self._states.pop(version, (None, {}))
        if seen is None:
            for event in reversed(self._events):
                if event.version <= version:
                    break
                # Going back, the last one written is the oldest: the state at the version.
                changes[event.key] = event.before
        elif seen < self._added:
            # The window may have lost events since, but none that is newer than the version.
            news = min(self._added - seen, len(self._events))
            for event in islice(self._events, len(self._events) - news, None):
                if event.version > version:
                    changes.setdefault(event.key, event.before)
        self._states[version] = (self._added, changes)
        if len(self._states) > REMEMBERED_STATES:
            self._states.popitem(last=False)
        return changes

    def replay(self, since: Version) -> list[Event]:
        """Every event after `since`, in order; corrections of `since` first.

        Raises:
            Expired: the version is older than the window, or lies in a gap.
        """
        self._require_resumable(since, self._correction_floor)
        found = self._newer(since)
        found += [
            late.event for late in reversed(self._late) if late.correction and late.event.version == since
        ]
        found.reverse()
        return found

    def corrected(self, version: Version) -> bool:
        """Whether there was a correction at this version: who has been told it may have missed one."""
        return version <= self._correction_floor or any(
            late.correction and late.event.version == version for late in self._late
        )

    def window(self, since: Version) -> list[Event]:
        """The events that who resumes at `since` may have missed, in order: all after `since`, those that came when
        `since` had been shown already, and whatever came later about the objects of these.

        Raises:
            Expired: the version is older than the window, lies in a gap, or a late event has left the window.
        """
        self._require_resumable(since, self._late_floor)
        events = self._events
        # What is newer than that was shown after it, with everything that had arrived by then.
        settled = self._settled != UNKNOWN and since > self._settled
        settled_at = float("-inf") if settled else self.settled_at
        found = self._newer(since)
        found.reverse()
        missed = {id(late.event) for late in self._late if late.event.version <= since <= late.shown}
        unsettled = bool(events) and events[0].at < settled_at
        if not missed and not unsettled:
            return found
        keys: set[Key] = set()
        again: list[Event] = []
        for event in islice(events, len(events) - len(found)):
            if event.key in keys or event.at < settled_at or id(event) in missed:
                keys.add(event.key)
                again.append(event)
        return again + found

    def resumable(self, now: float, frontier: Version) -> Version:
        """The oldest version that `window` answers for now and for some time to come: a client that is told of a
        version needs time to come back with it. So of a window that is about to lose events it is the middle.

        It may be just above `frontier`: then nobody can begin where this partition is now.
        """
        events, version = self._events, self.oldest_version
        if self._late_floor:
            version = max(version, Version(self._late_floor + 1))
        if self._gaps:
            version = max(version, self._gaps[-1][1])
        aged = now - self._seconds / 2
        if not events or (self.bytes <= self._bytes_max // 2 and events[0].at >= aged):
            return version
        middle = events[len(events) // 2].version
        version = max(version, middle)
        # What goes with the older half makes versions expire up to those that had been shown.
        shown = self._settled if events[0].at < self.settled_at else UNKNOWN
        going = bisect_right(self._late, middle, key=lambda late: late.event.version)
        if going:
            shown = max(shown, self._late[going - 1].shown)
        return max(version, min(Version(shown + 1), frontier))

    def in_gap(self, version: Version) -> bool:
        """Whether a list was made anew across this version, so that nobody knows the state it had."""
        return any(low < version < high for low, high in self._gaps)

    def _newer(self, version: Version) -> list[Event]:
        """Events after a version, the newest first."""
        found: list[Event] = []
        for event in reversed(self._events):
            if event.version <= version:
                break
            found.append(event)
        return found

    def _require(self, version: Version, text: str) -> None:
        if version < self.oldest_version or self.in_gap(version):
            raise Expired(text)

    def _require_resumable(self, since: Version, floor: Version) -> None:
        text = f"too old resource version: {since} ({max(self.oldest_version, floor)})"
        self._require(since, text)
        if since <= floor:
            raise Expired(text)

    def statistics(self) -> HistoryStatistics:
        """Events held, bytes they hold on to, and how many came late."""
        return HistoryStatistics(len(self._events), self.bytes, len(self._late))
