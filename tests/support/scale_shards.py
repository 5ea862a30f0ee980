"""Virtual shards for `support.scale_world`: what takes time, CPU and memory in a real one, as numbers. Virtual time in
steps.

A shard has one core. Each partition that is followed, listed, sent or received is a task of its event loop; who wants
less than an equal part of the core gets it, and the others share the rest. What is followed too slowly lags, and a copy
that lags further back than the API server remembers lists again. A process that takes more memory than it may is killed
and begins again with nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from support.scale_load import Costs, Kind

from shoal.coordinator.permits import Holder, PermitBook
from shoal.shards.handle import Assignment
from shoal.shards.model.partitions import Epoch, Partition, PartitionId, ShardId
from shoal.shards.model.queries import PartitionStatistics, ShardStatistics
from shoal.shards.model.resources import Resource
from shoal.shards.model.transfers import Source
from shoal.shards.settings import TransferSettings

TRANSFER = TransferSettings()
CORES = 1.0
NOTHING = Epoch(0)


@dataclass(slots=True)
class Held:
    """A partition on a shard."""

    assignment: Assignment
    name: PartitionId
    kind: Kind
    epoch: Epoch
    state: str
    began: float
    sources: tuple[Source, ...] = ()
    message: str = ""
    progress: float = 0.0
    """Objects listed or received so far."""
    listing: bool = False
    expected: float = 0.0
    """States that will have been received in the end."""
    captured_at: float | None = None
    capture_lag_s: float = 0.0
    lag_s: float = 0.0
    """How far behind the API server its state is."""
    frozen_at: float | None = None
    events: float = 0.0
    dropped: float = 0.0
    queries: float = 0.0
    received_bytes: float = 0.0
    history: float = 0.0
    """Events."""

    @property
    def partition(self) -> Partition:
        return self.assignment.partition

    def objects(self) -> float:
        return self.kind.part(self.partition.cover).objects


Task: TypeAlias = tuple[str, ShardId, PartitionId]
"""``follow``, ``answer``, ``list``, ``take`` or ``send``, for whom, and what."""


class Core:
    """One core in one step, shared fairly."""

    def __init__(self) -> None:
        self.wanted: dict[Task, float] = {}
        """Seconds."""
        self._most = 0.0

    def want(self, task: Task, seconds: float) -> None:
        self.wanted[task] = self.wanted.get(task, 0.0) + seconds

    def share(self, seconds: float) -> float:
        """Divides so many seconds; how many are used."""
        left, self._most = seconds, math.inf
        in_order = sorted(self.wanted.values())
        for at, wanted in enumerate(in_order):
            equal = left / (len(in_order) - at)
            if wanted > equal:
                self._most = equal
                return seconds
            left -= wanted
        return seconds - left

    def fraction(self, task: Task) -> float:
        """Of what a task wants, what it gets."""
        wanted = self.wanted.get(task, 0.0)
        return min(self._most / wanted, 1.0) if wanted > 0 else 1.0


@dataclass
class VirtualShard:
    """One shard."""

    name: ShardId
    node: str
    ready_at: float
    costs: Costs
    memory_bytes: float
    pid: int
    held: dict[PartitionId, Held] = field(default_factory=dict)
    routed: frozenset[PartitionId] = frozenset()
    """What it is asked for."""
    epoch: Epoch = NOTHING
    lost: bool = False
    """Its node is gone, or it hangs."""
    cpu_s: float = 0.0
    used: float = 0.0
    """Cores in the last step."""
    due: float = 0.0
    """Cores that following and answering take at the rates, without what is behind: above 1.0 it cannot last."""
    resident: float = 0.0
    relists: int = 0
    """Of what lagged too far behind, since they were counted last."""
    core: Core = field(default_factory=Core)

    @property
    def incarnation(self) -> str:
        return f"{self.name}/{self.pid}"

    # -- what it is told -------------------------------------------------------------------------------------

    def adopt(
        self,
        assignments: Iterable[Assignment],
        epoch: Epoch,
        sources: Mapping[PartitionId, Sequence[Source]],
        kinds: Mapping[Resource, Kind],
        now: float,
    ) -> None:
        self.epoch = max(self.epoch, epoch)
        for assignment in assignments:
            name = assignment.partition.id
            origin = tuple(sources.get(name, ()))
            held = self.held.get(name)
            stands = held is not None and held.assignment == assignment and held.state != "stranded"
            if held is not None and stands and (held.state != "arriving" or held.sources == origin):
                held.epoch, held.frozen_at = max(held.epoch, epoch), None
                continue
            self.held[name] = Held(
                assignment,
                name,
                kinds[assignment.partition.resource],
                epoch,
                "arriving" if origin else "pending",
                now,
                origin,
            )

    def release(self, partitions: Iterable[PartitionId]) -> None:
        for name in partitions:
            self.held.pop(name, None)

    def begin_again(self, pid: int, ready_at: float) -> None:
        """The process ended and another takes its place."""
        self.held.clear()
        self.pid, self.ready_at, self.epoch, self.cpu_s = pid, ready_at, Epoch(0), 0.0
        self.used = self.due = 0.0

    # -- a step ----------------------------------------------------------------------------------------------

    def want(self, now: float, passed_s: float, permits: PermitBook) -> None:
        """Counts what it would do in this step, transfers left out (`Transfers`)."""
        costs, core = self.costs, Core()
        self.core, self.due = core, costs.idle_s
        for held in self.held.values():
            if held.state == "synced" and held.frozen_at is None:
                events, received = held.kind.rates(held.partition.cover)
                due_s = held.lag_s + passed_s
                each_s = events * costs.event_s + max(received - events, 0.0) * costs.dropped_s
                core.want(("follow", self.name, held.name), due_s * (each_s + 0.0002))
                self.due += each_s + 0.0002
                asked = (
                    held.kind.part(held.partition.cover).queries_per_s if held.name in self.routed else 0.0
                )
                if asked:
                    self.due += asked * costs.query_s
                    core.want(("answer", self.name, held.name), asked * costs.query_s * passed_s)
            elif held.state == "pending":
                held.listing = held.listing or self._permitted(held, now, permits)
            if held.listing:
                core.want(("list", self.name, held.name), self._list_rate(held) * passed_s * costs.listed_s)

    def _permitted(self, held: Held, now: float, permits: PermitBook) -> bool:
        holder = Holder(self.name, held.name)
        permits.ask(holder, now)
        return permits.lease_of(holder, now) is not None

    def _list_rate(self, held: Held) -> float:
        part = held.kind.part(held.partition.cover)
        sent = max(part.received_objects, 1.0)
        return self.costs.listed_per_s * (part.objects + (sent - part.objects) * 0.4) / sent

    def work(self, now: float, passed_s: float, list_share: float, permits: PermitBook) -> None:
        """Does so much of it as there is CPU for."""
        idle_s = self.costs.idle_s * passed_s
        used = self.core.share(CORES * passed_s - idle_s) + idle_s
        self.used = used / passed_s
        self.cpu_s += used
        for held in list(self.held.values()):
            if held.state == "synced":
                fraction = self.core.fraction(("follow", self.name, held.name))
                self._follow(held, now, passed_s, fraction, permits)
                if held.name in self.routed:
                    asked = held.kind.part(held.partition.cover).queries_per_s
                    held.queries += asked * passed_s * self.core.fraction(("answer", self.name, held.name))
            if held.listing:
                fraction = self.core.fraction(("list", self.name, held.name)) * list_share
                self._list(held, passed_s, fraction, now, permits)
        self._weigh()

    def _follow(self, held: Held, now: float, passed_s: float, fraction: float, permits: PermitBook) -> None:
        events, received = held.kind.rates(held.partition.cover)
        if held.frozen_at is not None:
            held.lag_s += passed_s
            if now - held.frozen_at > TRANSFER.thaw_s:
                held.frozen_at = None
            return
        due_s = held.lag_s + passed_s
        done_s = due_s * fraction
        held.lag_s = due_s - done_s if received > 1.0 else 0.0
        held.events += events * done_s
        held.dropped += max(received - events, 0.0) * done_s
        held.received_bytes += received * done_s * held.kind.load.line_bytes
        costs = self.costs
        held.history = min(
            held.history + events * done_s,
            costs.history_bytes / costs.event_bytes,
            events * costs.history_s + 1,
        )
        if held.lag_s * held.kind.rate() > costs.remembered_events and not held.listing:
            held.listing = self._permitted(held, now, permits)
            held.progress = 0.0
            self.relists += held.listing

    def _list(self, held: Held, passed_s: float, fraction: float, now: float, permits: PermitBook) -> None:
        part = held.kind.part(held.partition.cover)
        came = self.costs.listed_per_s * passed_s * fraction
        held.progress += came
        held.received_bytes += came * held.kind.load.line_bytes
        if held.progress < part.received_objects:
            return
        if held.state == "pending":
            # It goes on from the version of its list, which is as old as the list took.
            held.lag_s = part.received_objects / max(self.costs.listed_per_s * fraction, 1.0)
        else:
            held.lag_s = min(held.lag_s, part.received_objects / max(self.costs.listed_per_s * fraction, 1.0))
        held.state, held.listing, held.progress = "synced", False, 0.0
        lease = permits.lease_of(Holder(self.name, held.name), now)
        if lease is not None:
            permits.release(lease.lease_id, now)

    def _weigh(self) -> None:
        costs, resident = self.costs, float(self.costs.process_bytes)
        for held in self.held.values():
            objects = held.objects()
            if held.state != "synced":
                part = held.kind.part(held.partition.cover)
                objects = min(objects, held.progress * part.objects / max(part.received_objects, 1.0))
                if held.state == "arriving":
                    objects = min(part.objects, held.progress)
            resident += objects * (costs.object_bytes + held.kind.load.body_bytes)
            resident += held.history * costs.event_bytes
        self.resident = resident

    # -- what it says ----------------------------------------------------------------------------------------

    def statistics(self) -> ShardStatistics:
        return ShardStatistics(
            shard=self.name,
            incarnation=self.incarnation,
            pid=self.pid,
            node=self.node,
            cpu_seconds=self.cpu_s,
            resident_bytes=round(self.resident),
            partitions=[self._entry(held) for held in self.held.values()],
        )

    def _entry(self, held: Held) -> PartitionStatistics:
        if held.state != "synced":
            return PartitionStatistics(
                partition=held.name,
                epoch=self.epoch,
                state=held.state,
                message=held.message,
                source_shards=tuple(source.shard for source in held.sources),
                transferred_objects=round(held.progress) if held.sources else 0,
            )
        objects = held.objects()
        return PartitionStatistics(
            partition=held.name,
            epoch=self.epoch,
            state="synced",
            objects=round(objects),
            body_bytes=round(objects * held.kind.load.body_bytes),
            history_events=round(held.history),
            history_bytes=round(held.history * self.costs.event_bytes),
            frontier_age_s=held.lag_s,
            events={"modified": round(held.events)},
            dropped=round(held.dropped),
            queries=round(held.queries),
            backlog=round(held.lag_s * held.kind.rates(held.partition.cover)[1]),
            handed_over=held.frozen_at is not None,
            source_shards=tuple(source.shard for source in held.sources),
        )
