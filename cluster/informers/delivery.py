"""What one handler is still to be told: a bounded queue that begins to merge when it is full. Pure.

Changes wait in the order they happened. Once `limit` of them wait, whatever else happens is *merged*: of each object
there is one pending change more at most, from the state the queue before it leads to, to the newest one. So a slow
handler holds back nobody and costs memory for the number of objects, not of changes; what it misses are states in
between. When it has caught up with everything, changes are queued one by one again::

    queued, one by one, at most `limit`  ->  merged, one an object, in the order of their first change

Merging: add and update are an add of the newest state; update and update are one from the oldest state to the newest;
update and delete are a delete; add and delete are nothing at all; delete and add are an update, or if the uid is
another one a delete followed by an add. An object told of again (resync, an update to the very same state) is swallowed
by whatever else is pending.

What it keeps true, of each object, for what `take` gives out: the state before is the one given out last; adds and
deletes alternate; an object under another uid is another object; and once everything is taken the last state given out
is the newest one offered. *Proof:* a merged change begins at the state that the queued ones lead to, since each change
offered begins where the one before it ended, and merging keeps the first beginning and the last end.

`initial` changes are counted until they were delivered (`done`) or merged away, which is how a registration knows that
its handler has been told of everything there was at first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

import msgspec

from ...shards.model.refs import Key
from ...shards.model.versions import Version
from ...shards.store.entries import Entry

FRESH_MAX: Final = 64
FRESH_BYTES_MAX: Final = 16 << 10
"""A change keeps the body it came with, unless a handler has so many waiting, or it is longer than that: who is told
at once need not unpack what was packed a moment ago (1.4 us; 6 us with cold caches). It bounds the bytes as well."""


class End(msgspec.Struct, gc=False, eq=False):
    """How an object ended that the handler knows."""

    version: Version
    """Of the deletion; without meaning if it is not known."""
    known: bool
    """The server told of it, so that the last state is known."""
    last: Entry | None = None
    """The last state, where it is newer than what the handler was told."""


class Change(msgspec.Struct, gc=False, eq=False):
    """From one state of an object to another, or of one object to another of the same name."""

    key: Key
    before: Entry | None
    """What the handler was told last; None: nothing, or that it is gone."""
    after: Entry | None
    """None: it is gone."""
    at: float
    """When it was observed, seconds of the loop's clock."""
    initial: bool = False
    """An add of what was there at first."""
    end: End | None = None
    """Set where the object `before` is gone: after a deletion, or replaced by another one."""
    body: bytes | None = None
    """That of `after`, if it has just arrived and is likely to be read before it is in the way."""


class DeliveryQueue:
    """The pending changes of one handler. Changes of one object have to be offered in order, without a gap."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"queue_max is {limit}: expected 1 or more")
        self.limit = limit
        self.coalesced = 0
        """Changes that were merged into another, or away."""
        self.initial_pending = 0
        """Initial changes that were neither delivered nor merged away."""
        self._queued: deque[Change] = deque()
        self._merged: OrderedDict[Key, Change] = OrderedDict()
        self._second: Change | None = None

    def __len__(self) -> int:
        return len(self._queued) + len(self._merged) + (self._second is not None)

    @property
    def merging(self) -> bool:
        """The handler has fallen behind so far that it will not see every state."""
        return bool(self._merged)

    @property
    def oldest_at(self) -> float | None:
        """When the change that is next was observed; None if nothing is pending."""
        if self._second is not None:
            return self._second.at
        if self._queued:
            return self._queued[0].at
        return next(iter(self._merged.values())).at if self._merged else None

    def offer(self, change: Change) -> None:
        """Takes the next change of an object."""
        if change.initial:
            self.initial_pending += 1
        if not self._merged and len(self._queued) < self.limit:
            self._queued.append(change)
            return
        pending = self._merged.get(change.key)
        if pending is None:
            self._merged[change.key] = change
            return
        self.coalesced += 1
        if change.before is change.after:
            return
        merged = _merge(pending, change)
        if merged is None:
            # Both are gone: the one that waited and the one that undid it.
            self.coalesced += 1
            del self._merged[change.key]
        else:
            self._merged[change.key] = merged
        # What is not told as initial any more is not waited for as such.
        self.initial_pending -= pending.initial + change.initial - (merged is not None and merged.initial)

    def take(self) -> Change | None:
        """The next change to be told; None if there is none."""
        second = self._second
        if second is not None:
            self._second = None
            return second
        if self._queued:
            change = self._queued.popleft()
        elif self._merged:
            _, change = self._merged.popitem(last=False)
        else:
            return None
        if change.end is None or change.after is None:
            return change
        self._second = Change(change.key, None, change.after, change.at)
        return Change(change.key, change.before, None, change.at, end=change.end)

    def done(self, change: Change) -> None:
        """A change that was taken has been told."""
        if change.initial:
            self.initial_pending -= 1

    def clear(self) -> None:
        """Forgets everything pending."""
        self._queued.clear()
        self._merged.clear()
        self._second = None
        self.initial_pending = 0


def _merge(first: Change, then: Change) -> Change | None:
    """Both as one; None if nothing is left to be told."""
    before, between, after = first.before, then.before, then.after
    if before is None:
        initial = first.initial or then.initial
        return None if after is None else Change(first.key, None, after, first.at, initial)
    if after is not None and after.uid == before.uid:
        # Also if it was gone meanwhile: it had left the selectors, and has come back.
        return Change(first.key, before, after, first.at)
    if between is None or between.uid != before.uid:
        end = first.end
    else:
        end = then.end
        if end is not None and end.last is None and between is not before:
            end = End(end.version, end.known, between)
    return Change(first.key, before, after, first.at, end=end)
