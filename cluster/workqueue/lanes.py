"""The order in which waiting items are taken: by priority, then in turn over groups, then as they came. Pure.

One *lane* a priority; in it one *line* for each group (a namespace, say), and a turn that goes round the lines
which have items. Without groups everything is one line, so the order is that of arrival.

An item whose priority is raised moves to the higher lane and keeps its place in the order of arrival, as in
controller-runtime's priority queue (``pkg/controller/priorityqueue``: ``AddedCounter`` does not change). What it
leaves behind in its old line is marked and skipped; a line that consists mostly of such leftovers is swept, so
that an item which is lifted again and again costs no memory.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T", bound=Hashable)

LEFTOVERS_MAX = 16
"""Leftovers a line may have beyond as many as it has items, before it is swept."""


class Waiting(msgspec.Struct, Generic[T]):
    """An item that is to be taken, or that will be once its present round is done."""

    item: T
    group: Hashable
    priority: int
    added_at: float
    """When it was first added since it was last taken: its time in the queue counts from here."""
    order: int = 0
    """Place in the order of arrival, over all lanes."""
    moved: bool = False
    """A leftover: the item stands in a higher lane now."""


class _Line(Generic[T]):
    """Items of one group in one lane. Those that were lifted into it are kept beside, by their older order."""

    __slots__ = ("arrived", "lifted", "live")

    def __init__(self) -> None:
        self.arrived: deque[Waiting[T]] = deque()
        self.lifted: list[tuple[int, Waiting[T]]] = []
        self.live = 0

    def pop(self) -> Waiting[T]:
        """The oldest item; there has to be one."""
        arrived, lifted = self.arrived, self.lifted
        while arrived and arrived[0].moved:
            arrived.popleft()
        while lifted and lifted[0][1].moved:
            heappop(lifted)
        self.live -= 1
        if lifted and (not arrived or lifted[0][0] < arrived[0].order):
            return heappop(lifted)[1]
        return arrived.popleft()

    def left(self) -> None:
        """One of the items has become a leftover."""
        self.live -= 1
        if len(self.arrived) > 2 * self.live + LEFTOVERS_MAX:
            self.arrived = deque(entry for entry in self.arrived if not entry.moved)
        if len(self.lifted) > 2 * self.live + LEFTOVERS_MAX:
            # NB: a sorted list is a heap.
            self.lifted = sorted(pair for pair in self.lifted if not pair[1].moved)


class _Lane(Generic[T]):
    """All items of one priority."""

    __slots__ = ("lines", "live", "turn")

    def __init__(self) -> None:
        self.lines: dict[Hashable, _Line[T]] = {}
        self.turn: deque[Hashable] = deque()
        """Groups whose line is in `lines`, each once; the first is next."""
        self.live = 0

    def line(self, group: Hashable) -> _Line[T]:
        """The line of a group; a new one has its turn after all others."""
        line = self.lines.get(group)
        if line is None:
            line = self.lines[group] = _Line()
            self.turn.append(group)
        return line

    def pop(self) -> Waiting[T]:
        """The next item; there has to be one."""
        turn, lines = self.turn, self.lines
        while not lines[turn[0]].live:
            # Everything in it was lifted out.
            del lines[turn.popleft()]
        line = lines[turn[0]]
        entry = line.pop()
        self.live -= 1
        if not line.live:
            del lines[turn.popleft()]
        else:
            turn.rotate(-1)
        return entry


class Lanes(Generic[T]):
    """Every waiting item, in the order in which they are to be taken."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane[T]] = {}
        self._priorities: list[int] = []
        """Of `_lanes`, ascending."""
        self._arrivals = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, entry: Waiting[T]) -> None:
        """Puts an item behind all others of its priority and group."""
        self._arrivals += 1
        entry.order = self._arrivals
        lane = self._lane(entry.priority)
        line = lane.line(entry.group)
        line.arrived.append(entry)
        line.live += 1
        lane.live += 1
        self._size += 1

    def lift(self, entry: Waiting[T], priority: int) -> Waiting[T]:
        """Moves an item that stands here to a higher priority; returns what stands for it from now on."""
        entry.moved = True
        old = self._lanes[entry.priority]
        old.line(entry.group).left()
        old.live -= 1
        if not old.live:
            self._drop(entry.priority)
        lifted = Waiting(entry.item, entry.group, priority, entry.added_at, entry.order)
        lane = self._lane(priority)
        line = lane.line(entry.group)
        heappush(line.lifted, (lifted.order, lifted))
        line.live += 1
        lane.live += 1
        return lifted

    def pop(self) -> Waiting[T] | None:
        """Takes the next item, or None if nothing waits."""
        if not self._size:
            return None
        priority = self._priorities[-1]
        lane = self._lanes[priority]
        entry = lane.pop()
        self._size -= 1
        if not lane.live:
            self._drop(priority)
        return entry

    def depths(self) -> dict[int, int]:
        """Items waiting, by priority; only priorities that have some."""
        return {priority: self._lanes[priority].live for priority in self._priorities}

    def _lane(self, priority: int) -> _Lane[T]:
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = _Lane()
            insort(self._priorities, priority)
        return lane

    def _drop(self, priority: int) -> None:
        del self._lanes[priority]
        self._priorities.remove(priority)
