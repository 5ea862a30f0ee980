"""The bounded window of a partition's past: events in version order, each with the state it replaced.

What it keeps true: for every version V from `oldest_version` on, the state at V is the newest state with the
events after V taken back (`changes_since`). Events leave at the old end when they are older than `history_s`
or when the window outgrows `history_bytes`; the floor rises with them. A version below the floor is
`Expired`.

A list made anew (after a 410) is entered as its difference to what was held. What happened between the last
version seen and the list's was never observed, so versions strictly between the two are a *gap*, and expired
as well, although older ones are not.

Sizes count what an event really holds on to: the packed body of the replaced state and `EVENT_BYTES` for the
rest.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from ..model.errors import Expired
from ..model.refs import Key
from ..model.versions import UNKNOWN, Version
from ..settings import StoreSettings
from .entries import Entry

EVENT_BYTES: Final = 240
"""Measured: the event (64 bytes), its place in the window (8), the replaced entry (72), two numbers and the
bytes object's head and rounding."""

REMEMBERED_STATES: Final = 8
"""Past states whose differences are kept ready: each paged list that is under way asks for one again and
again.
"""

EVICTED_PART: Final = 32
"""A window that outgrew its bytes gives up one part of so many."""

STAMP_S: Final = 1.0
"""Events share a time stamp for so long; a float an event would be 32 bytes each."""

EXPIRED_TEXT: Final = "The resourceVersion for the provided list is too old."
"""kube-apiserver's text for a LIST at an exact version."""


class Event(msgspec.Struct, gc=False, eq=False):
    """One change of one object."""

    version: Version
    """When: of the state it led to, of the deletion, or of the list that revealed it."""
    key: Key
    before: Entry | None
    """The state it replaced; None for an object that was not there."""
    after: Entry | None
    """The state it led to; None for a deletion."""
    at: float
    """By the store's clock, seconds, up to `STAMP_S` early."""

    @property
    def weight(self) -> int:
        """Bytes the event holds on to."""
        return EVENT_BYTES if self.before is None else EVENT_BYTES + len(self.before.packed)


class HistoryStatistics(NamedTuple):
    """How much past is held."""

    events: int
    bytes: int


class History:
    """Events of one partition. Single writer."""

    def __init__(self, settings: StoreSettings) -> None:
        self.oldest_version = UNKNOWN
        """The floor: the oldest version whose state is known."""
        self.bytes = 0
        self._seconds = settings.history_s
        self._bytes_max = settings.history_bytes
        self._events: deque[Event] = deque()
        self._gaps: deque[tuple[Version, Version]] = deque()
        self._added = 0
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
        self._gaps.clear()
        self._states.clear()
        self.bytes = 0
        self.oldest_version = version

    def append(
        self, version: Version, key: Key, before: Entry | None, after: Entry | None, now: float
    ) -> None:
        """Enters a change; `version` is not below the last one's."""
        if now - self._stamp > STAMP_S:
            self._stamp = now
        events = self._events
        events.append(Event(version, key, before, after, self._stamp))
        self._added += 1
        self.bytes += EVENT_BYTES if before is None else EVENT_BYTES + len(before.packed)
        if self.bytes > self._bytes_max or events[0].at < now - self._seconds:
            self.evict(now)

    def gap(self, seen: Version, listed: Version) -> None:
        """Notes that the versions strictly between were not observed."""
        if listed - seen > 1:
            self._gaps.append((seen, listed))

    def evict(self, now: float) -> None:
        """Drops what is outside the window, and raises the floor to the newest version dropped."""
        events, oldest = self._events, now - self._seconds
        bytes_left = self._bytes_max
        if self.bytes > bytes_left:
            # Some at once, so that a full window is not tidied up after every event (3 us each).
            bytes_left -= bytes_left // EVICTED_PART
        while events and (self.bytes > bytes_left or events[0].at < oldest):
            event = events.popleft()
            self.bytes -= event.weight
            self.oldest_version = event.version
        # Events of one version (a list's deletions) go together: half of them taken back is no state that
        # ever was.
        while events and events[0].version == self.oldest_version:
            event = events.popleft()
            self.bytes -= event.weight
        while self._gaps and self._gaps[0][1] <= self.oldest_version:
            self._gaps.popleft()
        for version in [version for version in self._states if version < self.oldest_version]:
            del self._states[version]

    # -- reading ---------------------------------------------------------------------------------------------

    def changes_since(self, version: Version) -> Mapping[Key, Entry | None]:
        """What is different at `version` from now: for each key changed since, the state it had (None: not
        there).

        Costs the events since the last call for the same version. The mapping is valid until the next write.

        Raises:
            Expired: the version is older than the window, or lies in a gap.
        """
        if version < self.oldest_version or any(low < version < high for low, high in self._gaps):
            raise Expired(EXPIRED_TEXT)
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

    def statistics(self) -> HistoryStatistics:
        """Events held and bytes they hold on to."""
        return HistoryStatistics(len(self._events), self.bytes)
