"""What a partition's past is made of: events, which of them came late, and all of it as one value that can travel.

A `Past` is taken and resumed by `history.History`. Its times are of the clock of whoever took it; `taken_at` says when
that was by the same clock, so that only ages need to cross between processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from ..model.refs import Key
from ..model.versions import UNKNOWN, Version
from .entries import Entry

EVENT_BYTES: Final = 240
"""Measured: the event (64 bytes), its place in the window (8), the replaced entry (72), two numbers and the
bytes object's head and rounding."""


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
    """By the store's clock, seconds, up to `history.STAMP_S` early."""

    @property
    def weight(self) -> int:
        """Bytes the event holds on to."""
        return EVENT_BYTES if self.before is None else EVENT_BYTES + len(self.before.packed)


class Late(NamedTuple):
    """An event that came after its version had been shown."""

    event: Event
    shown: Version
    """The newest version shown by then."""
    correction: bool


class Past(NamedTuple):
    """The window of a partition's past, as `history.History` holds it; see there what each part means."""

    taken_at: float
    oldest_version: Version
    events: Sequence[Event] = ()
    """In the order of their versions, and of their times."""
    late: Sequence[Late] = ()
    """In the order of `events`."""
    late_floor: Version = UNKNOWN
    correction_floor: Version = UNKNOWN
    gaps: Sequence[tuple[Version, Version]] = ()
    settled: Version = UNKNOWN
    settled_at: float = float("-inf")
    unsettled_lost: bool = False
    stamp: float = float("-inf")
    """The time that the next event may share."""

    def in_gap(self, version: Version) -> bool:
        """Whether a list was made anew across this version, so that nobody knows the state it had."""
        return any(low < version < high for low, high in self.gaps)
