"""How much each partition and each shard takes, measured and smoothed. Pure; time is passed in.

Shards report counters; here they become averages. A counter belongs to one life of one copy of a partition: a shard
that restarted, a partition that moved and a counter that goes back begin a new difference and lose nothing of the
average, which is the partition's. So a load survives moves, restarts, and the shard it was measured on. Of several
copies the busiest counts, and queries are added up.

The CPU of a shard's process is divided over its partitions by what they did in the same interval, weighed by the size
of their objects. It is not looked at while a partition is listed or received, which costs much and says nothing of the
time after, nor for shards that share a process (`ScalingSettings.cpu`).

Each average exists twice: `slow`, and `fast` for what must not wait. Parts that a cut will make are `expect`ed: they
begin with what a profile says is theirs, and are measured from there on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ...shards.model.partitions import Partition, PartitionId, ShardId
from ...shards.model.queries import PartitionStatistics, ShardStatistics
from ...shards.model.transfers import Profile
from ..settings import CutSettings, PlacementSettings, ScalingSettings
from .dividing import Share, share_of
from .measures import NO_SHARD_LOAD, Average, Load, ShardLoad, together

OBJECT_BYTES = 1200
"""What an object takes beside its compressed body: keys, indexes, entry (`make bench`: 1 642 bytes in all)."""
_CALIBRATED_BYTES = 64 << 20
"""Shards that should hold less than this say nothing about how far the estimate of memory is off."""
_IDLE_WORK = 0.02
"""Events a second that a watch costs where nothing happens: its bookmarks and bookkeeping."""
_BODY_BYTES = 400
"""A compressed body of this size costs as much again as the event itself."""
_QUERY_WORK = 5.0
"""A query costs as much as so many events."""
_STALE_S = 15.0
"""A copy that nobody has heard of for so long counts no more beside one that somebody has."""
_BUSY = 0.85
"""Of a core: a shard that takes more and has a backlog would take still more if it could."""


@dataclass(slots=True)
class _Copy:
    """Counters of a partition on a shard, and what was learnt from their differences."""

    incarnation: str
    events: int
    queries: int
    dropped: int
    at: float
    events_rate: Average
    queries_rate: Average
    cpu: Average
    dropped_rate: Average


class _Work(NamedTuple):
    """What a copy did in an interval."""

    copy: _Copy
    done: float
    """In events of common size."""
    passed_s: float
    backlog: int


@dataclass(slots=True)
class _Part:
    """One partition."""

    objects: int = 0
    body_bytes: int = 0
    history_bytes: int = 0
    lag_s: float = 0.0
    backlog: int = 0
    events: Average = field(default_factory=Average)
    queries: Average = field(default_factory=Average)
    cpu: Average = field(default_factory=Average)
    dropped: Average = field(default_factory=Average)
    copies: dict[ShardId, _Copy] = field(default_factory=dict)
    known: Load | None = None
    """The same for others, until something new is heard."""


@dataclass(slots=True)
class _Process:
    """A shard's process."""

    incarnation: str
    cpu_seconds: float
    at: float
    where: tuple[str, int]
    """Node and process id."""
    cpu: Average = field(default_factory=Average)
    resident_bytes: int = 0
    settled: bool = False
    """Nothing was being listed or received when it last answered."""
    held: frozenset[PartitionId] = frozenset()


class Loads:
    """Loads of all partitions and shards."""

    def __init__(
        self,
        placement: PlacementSettings,
        scaling: ScalingSettings | None = None,
        cutting: CutSettings | None = None,
    ) -> None:
        self._slow_s = placement.smoothing_s
        self._scaling = scaling or ScalingSettings()
        self._dropped_cost = (cutting or CutSettings()).dropped_cost
        self._parts: dict[PartitionId, _Part] = {}
        self._processes: dict[ShardId, _Process] = {}
        self._profiles: dict[PartitionId, tuple[Profile, float]] = {}
        self._memory_factor = 1.0
        """How much more memory shards take than objects and bodies explain."""
        self._sharing: dict[tuple[str, int], set[ShardId]] = {}

    # -- what is known ---------------------------------------------------------------------------------------

    def load(self, partition: PartitionId) -> Load | None:
        """The last load measured, or expected; None before the first."""
        part = self._parts.get(partition)
        if part is None:
            return None
        if part.known is None:
            part.known = self._known(part)
        return part.known

    def total(self) -> Load:
        """What all partitions take together, each counted once; parts that are expected count as those they are of."""
        found = [self.load(name) for name, part in self._parts.items() if part.copies]
        return together(load for load in found if load is not None)

    def _known(self, part: _Part) -> Load:
        return Load(
            part.objects,
            part.body_bytes,
            part.events.slow,
            part.events.fast,
            part.queries.high,
            part.cpu.slow,
            part.cpu.fast,
            self._memory(part),
            part.lag_s,
            part.backlog,
            part.dropped.slow,
        )

    def shard(self, shard: ShardId) -> ShardLoad:
        """The last load measured of a shard."""
        known = self._processes.get(shard)
        if known is None:
            return NO_SHARD_LOAD
        if not self._alone(known):
            held = [self._parts[partition] for partition in known.held if partition in self._parts]
            slow, fast = sum(part.cpu.slow for part in held), sum(part.cpu.fast for part in held)
            return ShardLoad(slow, fast, 0, known.at)
        return ShardLoad(known.cpu.slow, known.cpu.fast, known.resident_bytes, known.at)

    def profile(self, partition: PartitionId) -> tuple[Profile, float] | None:
        """The last profile taken, and when."""
        return self._profiles.get(partition)

    # -- what is heard ---------------------------------------------------------------------------------------

    def take(self, statistics: ShardStatistics, now: float) -> None:
        """Takes in what one shard reports. A partition that is not complete yet says nothing about its load."""
        shard = ShardId(statistics.shard)
        cores = self._take_process(statistics, shard, now)
        work: list[_Work] = []
        for entry in statistics.partitions:
            if entry.state == "synced":
                done = self._take_copy(entry, shard, statistics.incarnation, now)
                if done is not None:
                    work.append(done)
        self._divide(cores, work)
        held = frozenset(entry.partition for entry in statistics.partitions)
        before, self._processes[shard].held = self._processes[shard].held, held
        for gone in before - held:
            self._drop(gone, shard)
        for name in held:
            part = self._parts.get(name)
            if part is not None and shard in part.copies:
                self._combine(part, shard, now)

    def take_profile(self, profile: Profile, now: float) -> None:
        """Takes in where the load of a partition is."""
        if profile.partition in self._parts:
            self._profiles[profile.partition] = (profile, now)

    def expect(self, made: Iterable[Partition], sources: Mapping[Partition, PartitionId]) -> None:
        """Makes known what a cut will make of `sources`; what has a load already keeps it."""
        for partition in made:
            if partition.id not in self._parts:
                self._parts[partition.id] = self._estimated(partition, sources)

    def keep_only(self, partitions: Iterable[PartitionId]) -> None:
        """Forgets all other partitions."""
        kept = set(partitions)
        for gone in [known for known in self._parts if known not in kept]:
            del self._parts[gone]
            self._profiles.pop(gone, None)

    def keep_shards(self, shards: Iterable[ShardId]) -> None:
        """Forgets all other shards."""
        kept = set(shards)
        for gone in [known for known in self._processes if known not in kept]:
            process = self._processes.pop(gone)
            self._sharing.get(process.where, set()).discard(gone)
            for partition in process.held:
                self._drop(partition, gone)

    # -- inside ----------------------------------------------------------------------------------------------

    def _shares(self, passed_s: float) -> tuple[float, float]:
        return -math.expm1(-passed_s / self._slow_s), -math.expm1(-passed_s / self._scaling.rise_s)

    def _take_process(self, statistics: ShardStatistics, shard: ShardId, now: float) -> float | None:
        """Cores that the shard took since it last answered; None: that says nothing of it alone, negative: nothing is
        to be learnt from this interval.
        """
        where = (statistics.node, statistics.pid)
        settled = not any(entry.state in ("pending", "arriving") for entry in statistics.partitions)
        known = self._processes.get(shard)
        if known is None or known.incarnation != statistics.incarnation:
            carried = known.cpu if known is not None else Average()
            if known is not None:
                self._sharing[known.where].discard(shard)
            self._sharing.setdefault(where, set()).add(shard)
            held = known.held if known is not None else frozenset()
            known = _Process(statistics.incarnation, statistics.cpu_seconds, now, where, carried, held=held)
            self._processes[shard] = known
        passed_s, used_s = now - known.at, statistics.cpu_seconds - known.cpu_seconds
        calm, known.settled = known.settled and settled, settled
        known.resident_bytes = statistics.resident_bytes
        known.at, known.cpu_seconds = now, statistics.cpu_seconds
        if passed_s <= 0 or used_s < 0:
            return -1.0
        known.cpu.take(used_s / passed_s, *self._shares(passed_s))
        if not self._alone(known):
            return None
        if settled:
            self._calibrate(statistics, passed_s)
        return used_s / passed_s if calm else -1.0

    def _divide(self, cores: float | None, work: list[_Work]) -> None:
        """Divides what a shard took over what it did, or estimates it by that."""
        if cores is not None and cores < 0:
            return
        total = sum(one.done for one in work)
        for one in work:
            rate = one.done / one.passed_s
            if cores is None:
                taken = rate / self._scaling.events_per_shard
            else:
                taken = cores * one.done / total
                if cores > _BUSY and one.backlog:
                    taken *= 1.0 + min(one.backlog / max(5.0 * rate, 100.0), 1.0)
            one.copy.cpu.take(taken, *self._shares(one.passed_s))

    def _alone(self, process: _Process) -> bool:
        """Whether the process is measured, and is one shard's."""
        return self._scaling.cpu == "measured" and len(self._sharing.get(process.where, ())) < 2

    def _calibrate(self, statistics: ShardStatistics, passed_s: float) -> None:
        explained = sum(
            entry.objects * OBJECT_BYTES + entry.body_bytes + entry.history_bytes
            for entry in statistics.partitions
        )
        if explained < _CALIBRATED_BYTES or not statistics.resident_bytes:
            return
        ratio = max(statistics.resident_bytes - self._scaling.process_bytes, 0) / explained
        share = self._shares(passed_s)[0] / max(len(self._processes), 1)
        self._memory_factor += share * (min(max(ratio, 0.7), 2.5) - self._memory_factor)

    def _memory(self, part: _Part) -> int:
        explained = part.objects * OBJECT_BYTES + part.body_bytes + part.history_bytes
        return round(explained * self._memory_factor)

    def _take_copy(
        self, entry: PartitionStatistics, shard: ShardId, incarnation: str, now: float
    ) -> _Work | None:
        """What a copy did since it was last heard of; None: nothing is known of that."""
        part = self._parts.setdefault(entry.partition, _Part())
        events = sum(count for kind, count in entry.events.items() if kind != "bookmark")
        copy = part.copies.get(shard)
        if copy is None:
            queries = Average() if part.copies else part.queries
            part.copies[shard] = _Copy(
                *(incarnation, events, entry.queries, entry.dropped, now),
                *(_same(part.events), _same(queries), _same(part.cpu), _same(part.dropped)),
            )
            self._measure(part, entry)
            return None
        passed_s = now - copy.at
        happened, asked, dropped = (
            events - copy.events,
            entry.queries - copy.queries,
            entry.dropped - copy.dropped,
        )
        same = copy.incarnation == incarnation and min(happened, asked, dropped) >= 0
        if same and passed_s <= 0:
            return None
        copy.incarnation, copy.events, copy.queries, copy.dropped, copy.at = (
            *(incarnation, events, entry.queries, entry.dropped, now),
        )
        self._measure(part, entry)
        if not same:
            return None
        shares = self._shares(passed_s)
        copy.events_rate.take(happened / passed_s, *shares)
        copy.queries_rate.take(asked / passed_s, *shares)
        copy.dropped_rate.take(dropped / passed_s, *shares)
        size = 1.0 + (entry.body_bytes / entry.objects if entry.objects else 0.0) / _BODY_BYTES
        work = (
            (happened + dropped * self._dropped_cost) * size / 2 + asked * _QUERY_WORK + _IDLE_WORK * passed_s
        )
        return _Work(copy, work, passed_s, entry.backlog)

    def _measure(self, part: _Part, entry: PartitionStatistics) -> None:
        part.objects, part.body_bytes, part.history_bytes = (
            entry.objects,
            entry.body_bytes,
            entry.history_bytes,
        )
        part.lag_s, part.backlog = entry.frontier_age_s, entry.backlog

    def _combine(self, part: _Part, heard: ShardId, now: float) -> None:
        part.known = None
        copies = part.copies
        if len(copies) > 1:
            for shard in [
                shard for shard, copy in copies.items() if shard != heard and now - copy.at > _STALE_S
            ]:
                self._let_go(part, shard)
        if len(copies) == 1:
            copy = copies[heard]
            part.events, part.queries = copy.events_rate, copy.queries_rate
            part.cpu, part.dropped = copy.cpu, copy.dropped_rate
            return
        all_copies = list(copies.values())
        part.events = _busiest(copy.events_rate for copy in all_copies)
        part.cpu = _busiest(copy.cpu for copy in all_copies)
        part.dropped = _busiest(copy.dropped_rate for copy in all_copies)
        part.queries = Average(
            sum(copy.queries_rate.slow for copy in all_copies),
            sum(copy.queries_rate.fast for copy in all_copies),
        )

    def _drop(self, partition: PartitionId, shard: ShardId) -> None:
        part = self._parts.get(partition)
        if part is not None and shard in part.copies:
            self._let_go(part, shard)

    def _let_go(self, part: _Part, shard: ShardId) -> None:
        """A copy is no more: who asked it asks others."""
        gone = part.copies.pop(shard)
        heir = next(iter(part.copies.values()), None)
        if heir is not None:
            heir.queries_rate.slow += gone.queries_rate.slow
            heir.queries_rate.fast += gone.queries_rate.fast

    def _estimated(self, partition: Partition, sources: Mapping[Partition, PartitionId]) -> _Part:
        made = _Part()
        for source, name in sources.items():
            part = self._parts.get(name)
            if part is None or source.resource != partition.resource:
                continue
            profile = self._profiles.get(name)
            share = share_of(source.cover, profile[0] if profile else None, partition.cover)
            _add(made, part, share)
        return made


def _add(made: _Part, part: _Part, share: Share) -> None:
    made.objects += round(part.objects * share.objects)
    made.body_bytes += round(part.body_bytes * share.bytes)
    made.history_bytes += round(part.history_bytes * share.events)
    made.backlog += round(part.backlog * share.events)
    made.lag_s = max(made.lag_s, part.lag_s)
    for mine, theirs in ((made.events, part.events), (made.queries, part.queries), (made.cpu, part.cpu)):
        mine.slow += theirs.slow * share.events
        mine.fast += theirs.fast * share.events


def _same(average: Average) -> Average:
    return Average(average.slow, average.fast)


def _busiest(averages: Iterable[Average]) -> Average:
    found = list(averages)
    return Average(max(one.slow for one in found), max(one.fast for one in found))
