"""What a queue counts, and the frozen picture of it that exporters read. Pure.

The meaning of each figure is that of client-go's metric of the same name (``util/workqueue/metrics.go``): an add
that is swallowed by an earlier one does not count, depth holds what is to be worked on (also what waits for its
own present round to end), latency runs from the first add until the item is taken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import msgspec

BUCKETS_S = tuple(10.0**exponent for exponent in range(-8, 4))
"""Upper bounds in seconds, as those of Kubernetes' own components: ten nanoseconds to 1 000 seconds."""


class Distribution(msgspec.Struct, frozen=True):
    """Seconds that were observed: how many up to each bound, and their sum."""

    counts: tuple[int, ...]
    """Observations up to and including each of `BUCKETS_S`, not those of the bucket before; the last is beyond."""
    sum_s: float

    @property
    def count(self) -> int:
        """All observations."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """Bounds as Prometheus writes them, with all observations up to each."""
        found, total = [], 0
        for bound, count in zip((*(str(bound) for bound in BUCKETS_S), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class Seconds:
    """Observations as they are made."""

    __slots__ = ("_counts", "_sum_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def distribution(self) -> Distribution:
        """All up to now."""
        return Distribution(tuple(self._counts), self._sum_s)


class QueueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A queue at one moment."""

    depth: Mapping[int, int]
    """Items to be worked on, by priority: those that wait, and those added again while they are worked on."""
    delayed: int
    """Items whose time has not come."""
    processing: int
    """Items being worked on."""
    adds: int
    """Items that came into the queue, from the beginning. Adds of what is in it already do not count."""
    retries: int
    """Calls of `add_after` and `add_rate_limited`."""
    queue_s: Distribution
    """Seconds from the add until an item was taken."""
    work_s: Distribution
    """Seconds from there until it was done."""
    unfinished_work_s: float
    """Seconds that the items being worked on have taken so far, together."""
    longest_running_s: float
    """Seconds that the one taken first has taken so far."""
