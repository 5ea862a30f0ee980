"""What a partition and a shard take, as numbers: the values that `loads` measures and everything else goes by. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class Average:
    """One rate, averaged twice."""

    slow: float = 0.0
    fast: float = 0.0

    def take(self, rate: float, slow_share: float, fast_share: float) -> None:
        """Takes a rate in that held during some interval."""
        self.slow += slow_share * (rate - self.slow)
        self.fast += fast_share * (rate - self.fast)

    @property
    def high(self) -> float:
        """The higher of both: what was, or has begun."""
        return max(self.slow, self.fast)


@dataclass(frozen=True, slots=True)
class Load:
    """What is known about one partition."""

    objects: int
    body_bytes: int
    events_per_s: float
    """Smoothed, as all rates that are not said to be of now."""
    events_now: float = 0.0
    """The faster average."""
    queries_per_s: float = 0.0
    cpu: float = 0.0
    """Cores."""
    cpu_now: float = 0.0
    memory_bytes: int = 0
    lag_s: float = 0.0
    """How old its frontier is; partitions where nothing happens are old without being late."""
    backlog: int = 0
    """Lines received and not applied yet."""
    dropped_per_s: float = 0.0
    """Events received that are not its own."""


def together(loads: Iterable[Load]) -> Load:
    """What several take as one."""
    loads = tuple(loads)
    return Load(
        objects=sum(load.objects for load in loads),
        body_bytes=sum(load.body_bytes for load in loads),
        events_per_s=sum(load.events_per_s for load in loads),
        events_now=sum(load.events_now for load in loads),
        queries_per_s=sum(load.queries_per_s for load in loads),
        cpu=sum(load.cpu for load in loads),
        cpu_now=sum(load.cpu_now for load in loads),
        memory_bytes=sum(load.memory_bytes for load in loads),
        lag_s=max((load.lag_s for load in loads), default=0.0),
        backlog=sum(load.backlog for load in loads),
        dropped_per_s=sum(load.dropped_per_s for load in loads),
    )


class ShardLoad(NamedTuple):
    """What one shard takes."""

    cpu: float
    """Cores; measured if it can be, and the sum over its partitions otherwise."""
    cpu_now: float
    resident_bytes: int
    """0: not known, or shared with another shard."""
    heard_at: float


NO_SHARD_LOAD = ShardLoad(0.0, 0.0, 0, -math.inf)
