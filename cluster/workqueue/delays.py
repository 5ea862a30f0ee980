"""Items that come into the queue later: a heap by the time they are ready. Pure.

An item waits here once. Added again, the earlier of the two times counts, as in client-go's delaying queue, and
the higher of the two priorities. Waiting here has nothing to do with waiting in the queue: an item that is added
at once while it waits here is worked on now and once more when its time comes.
"""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T", bound=Hashable)

LEFTOVERS_MAX = 16
"""Leftovers the heap may have beyond as many as it has items, before it is swept."""


class Delayed(msgspec.Struct, Generic[T]):
    """An item, when it is ready, and where it goes then."""

    item: T
    group: Hashable
    priority: int
    ready_at: float
    moved: bool = False
    """A leftover: the item is ready earlier, or not at all."""


class Delays(Generic[T]):
    """Every item whose time has not come."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Delayed[T]]] = []
        self._known: dict[T, Delayed[T]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def next_at(self) -> float | None:
        """When the next item is ready; None if there is none."""
        heap = self._heap
        while heap and heap[0][2].moved:
            heappop(heap)
        return heap[0][0] if heap else None

    def add(self, delayed: Delayed[T]) -> None:
        """An item becomes ready at a time, or earlier if it was to be ready earlier already."""
        known = self._known.get(delayed.item)
        if known is not None:
            known.priority = delayed.priority = max(known.priority, delayed.priority)
            if known.ready_at <= delayed.ready_at:
                return
            known.moved = True
        self._known[delayed.item] = delayed
        # NB: the count keeps items of one moment in order and never lets the heap compare items.
        self._count += 1
        heappush(self._heap, (delayed.ready_at, self._count, delayed))
        self._sweep()

    def _sweep(self) -> None:
        if len(self._heap) > 2 * len(self._known) + LEFTOVERS_MAX:
            self._heap = [entry for entry in self._heap if not entry[2].moved]
            heapify(self._heap)

    def due(self, now: float) -> list[Delayed[T]]:
        """Takes the items that are ready at `now`, in the order of their times."""
        found = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            delayed = heappop(heap)[2]
            if not delayed.moved:
                del self._known[delayed.item]
                found.append(delayed)
        return found

    def discard(self, item: T) -> None:
        """The item does not become ready, if it was to."""
        known = self._known.pop(item, None)
        if known is not None:
            known.moved = True
            self._sweep()

    def clear(self) -> None:
        """Forgets all of them."""
        self._heap.clear()
        self._known.clear()
