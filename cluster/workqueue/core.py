"""The queue itself, without waiting: what is to be worked on, what is, and what comes later. Pure.

An item is in one of these states, or in the last beside one of the others::

    (unknown) --add--> waiting --get--> processing --done--> (unknown)
                                        |        ^    |
                                        | add    |    | done
                                        v        |    v
                                        processing, dirty --> waiting
    delayed --its time comes--> as by add

The invariant is client-go's (``util/workqueue/queue.go``): an item is worked on by one worker at a time, and what
is added after it was taken is worked on once more. Two things differ on purpose: `done` of an item that nobody
works on is an error (client-go would put it into the queue twice), and an empty queue is drained only when
nothing waits either (client-go's ``ShutDownWithDrain`` looks at items being worked on alone, and so returns while
others wait for a worker).

There is no bound on the number of items: it is that of different items, and an item that is dropped would be lost
for good, because nobody adds it again. Time is passed in, in seconds of one clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import msgspec

from .delays import Delayed, Delays
from .lanes import Lanes, Waiting
from .limiters import RateLimiter
from .statistics import QueueStatistics, Seconds

T = TypeVar("T", bound=Hashable)


class _Round(msgspec.Struct, Generic[T]):
    """An item being worked on."""

    taken_at: float
    dirty: Waiting[T] | None = None
    """It was added again: what will wait once the round is done."""
    by_delay: bool = False
    """It was so only because a delay was over."""


class QueueCore(Generic[T]):
    """The state of a queue. `fair_by` names the group of an item; groups of equal priority take turns."""

    def __init__(self, limiter: RateLimiter[T], fair_by: Callable[[T], Hashable] | None = None) -> None:
        self._limiter = limiter
        self._fair_by = fair_by
        self._waiting: dict[T, Waiting[T]] = {}
        self._lanes: Lanes[T] = Lanes()
        self._rounds: dict[T, _Round[T]] = {}
        self._delays: Delays[T] = Delays()
        self._adds = 0
        self._retries = 0
        self._queue_s = Seconds()
        self._work_s = Seconds()
        self.shutting_down = False
        """Adds are ignored; what is in the queue is still to be worked on."""

    # -- what waits ------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Items that wait for a worker."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is worked on. Delayed items do not count."""
        return not self._waiting and not self._rounds

    @property
    def next_ready_at(self) -> float | None:
        """When `advance` has to be called: the time of the next delayed item, or None."""
        return self._delays.next_at

    def add(self, item: T, now: float, priority: int = 0) -> bool:
        """The item is to be worked on. True if there is one more item for a worker now.

        An item that waits already stays where it is, unless `priority` is higher than what it waits with; one
        that is worked on waits again once it is done.
        """
        if self.shutting_down:
            return False
        group = None if self._fair_by is None else self._fair_by(item)
        return self._add(item, group, now, priority)

    def add_after(self, item: T, delay_s: float, now: float, priority: int = 0) -> bool:
        """The item is to be worked on in `delay_s` seconds; at once if that is not positive. True as `add`.

        Raises:
            ValueError: the delay is not a finite number.
        """
        if not math.isfinite(delay_s):
            raise ValueError(
                f"{item!r} cannot be added after {delay_s} s: expected a finite number of seconds"
            )
        if self.shutting_down:
            return False
        group = None if self._fair_by is None else self._fair_by(item)
        self._retries += 1
        if delay_s <= 0:
            return self._add(item, group, now, priority)
        self._delays.add(Delayed(item, group, priority, now + delay_s))
        return False

    def add_rate_limited(self, item: T, now: float, priority: int = 0) -> bool:
        """`add_after` the delay that the limiter asks for. True as `add`."""
        if self.shutting_down:
            return False
        return self.add_after(item, self._limiter.delay_s(item, now), now, priority)

    def forget(self, item: T) -> None:
        """The limiter forgets the item's failures. A delay it waits for stays."""
        self._limiter.forget(item)

    def discard_delayed(self, item: T) -> None:
        """The item does not come because of a delay, be that over or not. Only if it is not waiting for a worker yet:
        what waits stays, and so does what was added without a delay.
        """
        self._delays.discard(item)
        current = self._rounds.get(item)
        if current is not None and current.by_delay:
            current.dirty, current.by_delay = None, False

    def requeues(self, item: T) -> int:
        """Failures that the limiter counts for the item."""
        return self._limiter.requeues(item)

    def advance(self, now: float) -> int:
        """Adds what has become ready; how many items more there are for workers."""
        ready = self._delays.due(now)
        return sum(self._add(one.item, one.group, now, one.priority, by_delay=True) for one in ready)

    def _add(self, item: T, group: Hashable, now: float, priority: int, *, by_delay: bool = False) -> bool:
        known = self._waiting.get(item)
        if known is not None:
            if priority > known.priority:
                self._waiting[item] = self._lanes.lift(known, priority)
            return False
        current = self._rounds.get(item)
        if current is not None:
            current.by_delay = by_delay and (current.by_delay or current.dirty is None)
            if current.dirty is None:
                self._adds += 1
                current.dirty = Waiting(item, group, priority, now)
            elif priority > current.dirty.priority:
                current.dirty.priority = priority
            return False
        self._adds += 1
        entry = Waiting(item, group, priority, now)
        self._waiting[item] = entry
        self._lanes.push(entry)
        return True

    # -- what is worked on -----------------------------------------------------------------------------------

    def get(self, now: float) -> Waiting[T] | None:
        """Takes the next item, or None if nothing waits. `done` has to follow."""
        entry = self._lanes.pop()
        if entry is None:
            return None
        del self._waiting[entry.item]
        self._rounds[entry.item] = _Round(now)
        self._queue_s.observe(now - entry.added_at)
        return entry

    def done(self, item: T, now: float) -> bool:
        """The round of an item is over. True if it was added meanwhile and waits now.

        Raises:
            ValueError: nobody works on the item.
        """
        finished = self._rounds.pop(item, None)
        if finished is None:
            raise ValueError(f"{item!r} is not being worked on: done() has to follow get(), once")
        self._work_s.observe(now - finished.taken_at)
        if finished.dirty is None:
            return False
        self._waiting[item] = finished.dirty
        self._lanes.push(finished.dirty)
        return True

    def shut_down(self) -> None:
        """From now on adds are ignored, and delayed items never come. What waits can still be taken."""
        self.shutting_down = True
        self._delays.clear()

    # -- what is told ----------------------------------------------------------------------------------------

    def statistics(self, now: float) -> QueueStatistics:
        """The queue at this moment. Takes time in proportion to the items being worked on."""
        depth = Counter(self._lanes.depths())
        taken = []
        for current in self._rounds.values():
            taken.append(current.taken_at)
            if current.dirty is not None:
                depth[current.dirty.priority] += 1
        return QueueStatistics(
            depth=dict(depth),
            delayed=len(self._delays),
            processing=len(taken),
            adds=self._adds,
            retries=self._retries,
            queue_s=self._queue_s.distribution(),
            work_s=self._work_s.distribution(),
            unfinished_work_s=sum(now - at for at in taken),
            longest_running_s=max((now - at for at in taken), default=0.0),
        )
