"""How hot a partition is: what it takes of what one shard is to be used for. Pure.

Of CPU, events and memory the one it takes most of counts. 1.0 is a whole shard's worth at the target utilisation, not
at its limit: the settings of `CutSettings` are fractions of this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from ..settings import CutSettings, ScalingSettings
from .dividing import Share
from .measures import Load


class Heat(NamedTuple):
    """A fraction, and of what."""

    value: float
    of: str
    """``CPU``, ``events`` or ``memory``."""

    def __str__(self) -> str:
        return f"{self.value:.0%} of a shard's {self.of}"


COLD = Heat(0.0, "CPU")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one shard is to be used for."""

    cpu: float
    """Cores."""
    events: float
    """A second."""
    memory: float
    """Bytes of partitions; infinite where memory is not looked at."""
    dropped_cost: float

    @classmethod
    def of(cls, scaling: ScalingSettings, cutting: CutSettings) -> Limits:
        """At the target of the settings."""
        room = room_bytes(scaling)
        return cls(
            scaling.target,
            scaling.target * scaling.events_per_shard,
            scaling.target * room if room is not None else float("inf"),
            cutting.dropped_cost,
        )

    def times(self, factor: float) -> Limits:
        """So many times as much."""
        return replace(self, cpu=self.cpu * factor, events=self.events * factor, memory=self.memory * factor)

    def now(self, load: Load) -> Heat:
        """By the faster averages: what growing and splitting go by."""
        return self._heat(load, load.cpu_now, load.events_now)

    def high(self, load: Load) -> Heat:
        """By the higher of both averages: what shrinking and merging go by."""
        return self._heat(load, max(load.cpu, load.cpu_now), max(load.events_per_s, load.events_now))

    def _heat(self, load: Load, cpu: float, events: float) -> Heat:
        cores = cpu / self.cpu
        followed = (events + self.dropped_cost * load.dropped_per_s) / self.events
        memory = load.memory_bytes / self.memory
        if memory > cores and memory > followed:
            return Heat(memory, "memory")
        return Heat(cores, "CPU") if cores >= followed else Heat(followed, "events")


def room_bytes(scaling: ScalingSettings) -> int | None:
    """Bytes of partitions a shard may hold; None: memory is not looked at."""
    return None if scaling.memory_bytes is None else scaling.memory_bytes - scaling.process_bytes


def part_of(load: Load, share: Share) -> Load:
    """What a part of a partition will take that is sent nothing but its own."""
    return replace(
        load,
        objects=round(load.objects * share.objects),
        body_bytes=round(load.body_bytes * share.bytes),
        events_per_s=load.events_per_s * share.events,
        events_now=load.events_now * share.events,
        queries_per_s=load.queries_per_s * share.events,
        cpu=load.cpu * share.events,
        cpu_now=load.cpu_now * share.events,
        memory_bytes=round(load.memory_bytes * (share.objects + share.bytes) / 2),
        dropped_per_s=load.dropped_per_s * share.events,
    )


def filtered_part(load: Load, share: Share, cost: float) -> Load:
    """What a part of a partition will take that is sent all the partition is, and drops what is not its own; what the
    partition drops already, each of its parts will. `cost`: of a dropped event, compared with one that is kept.
    """
    part = part_of(load, share)
    received = load.events_now + load.dropped_per_s
    dropped = max(received - part.events_now, 0.0)
    done = load.events_now + cost * load.dropped_per_s
    factor = (part.events_now + cost * dropped) / done if done else share.events
    return replace(part, cpu=load.cpu * factor, cpu_now=load.cpu_now * factor, dropped_per_s=dropped)
