"""A made-up installation that does what a planner orders: shards, resources with namespaces, hand-offs that take time.
Virtual time in steps, everything from a seed; no event loop.

What everything takes is exact (`planned_loads`); shards report it as counters, as real ones do. `World.check` tests
what has to be so at every moment; the texts are the sentences.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from support.planned_loads import Kind, Namespace, Truth, kind

from shoal.coordinator.cuts import WHOLE, Cut
from shoal.coordinator.planning.orders import Orders, Seat, Situation
from shoal.coordinator.planning.planner import LoadPlanner
from shoal.coordinator.settings import CoordinatorSettings
from shoal.shards.model.partitions import Partition, PartitionId, ShardId
from shoal.shards.model.queries import PartitionStatistics, ShardStatistics
from shoal.shards.model.resources import Resource
from shoal.shards.model.transfers import Profile

__all__ = ["Kind", "Namespace", "World", "kind"]

IDLE_CPU = 0.01


@dataclass
class Copy:
    """A partition on a shard, with its counters."""

    partition: Partition
    ready_at: float
    events: float = 0.0
    queries: float = 0.0
    dropped: float = 0.0


@dataclass
class Process:
    """One shard."""

    node: str
    started_at: float
    pid: int
    dead: bool = False
    cpu_s: float = 0.0
    copies: dict[PartitionId, Copy] = field(default_factory=dict)


@dataclass
class HandOver:
    """Copies that replace others when the time has come."""

    resource: Resource
    leaving: tuple[tuple[Partition, ShardId], ...]
    arriving: tuple[tuple[Partition, ShardId], ...]
    done_at: float
    cut: Cut | None


class World:
    """Everything."""

    def __init__(
        self,
        kinds: Iterable[Kind],
        settings: CoordinatorSettings,
        *,
        shards: int = 2,
        nodes: int = 4,
        seed: int = 0,
        start_s: float = 15.0,
        shards_possible: int = 10_000,
        step_s: float = 1.0,
    ) -> None:
        self.step_s = step_s
        self.now = 1000.0
        self.kinds = {kind.divisible.resource: kind for kind in kinds}
        self.settings = settings
        self.planner = LoadPlanner(settings, shards)
        self.rng = random.Random(seed)
        self.nodes = [f"node-{number}" for number in range(nodes)]
        self.start_s = start_s
        self.shards_possible = shards_possible
        self.processes: dict[ShardId, Process] = {}
        self.served: dict[PartitionId, tuple[Partition, ShardId]] = {}
        self.replicas: dict[PartitionId, tuple[ShardId, ...]] = {}
        self.under_way: list[HandOver] = []
        self.drained: set[ShardId] = set()
        self.orders = Orders()
        self.moved = 0
        """Copies that went to another shard."""
        self.recut = 0
        self.changes = 0
        """Hand-offs begun, shards started or ended."""
        self.checks: list[Callable[[World], None]] = [World.check]
        self._pids = 0
        self._truths: dict[tuple[PartitionId, float, int], Truth] = {}
        for number in range(shards):
            self._start(ShardId(f"shard-{number}"), at=self.now - 100)

    # -- the truth -------------------------------------------------------------------------------------------

    def truth(self, partition: Partition) -> Truth:
        kind = self.kinds[partition.resource]
        key = (partition.id, kind.burst, len(kind.namespaces))
        if key not in self._truths:
            self._truths[key] = kind.truth(partition.cover)
        return self._truths[key]

    def profile(self, partition: PartitionId) -> Profile | None:
        held = self.served.get(partition)
        return None if held is None else self.kinds[held[0].resource].profile(held[0])

    # -- what happens ----------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        for _ in range(math.ceil(seconds / self.step_s)):
            self.step()

    def settle(self, quiet_s: float = 900.0, within_s: float = 7200.0) -> float:
        """Runs until nothing was begun for `quiet_s`; how long that took. Fails if it never comes to rest."""
        began, last = self.now, self.now
        while self.now - last < quiet_s:
            before = self.changes
            self.step()
            if self.changes != before:
                last = self.now
            assert self.now - began < within_s, f"it comes to rest; it did not, {self.changes} changes"
        return last - began

    def step(self) -> None:
        self.now += self.step_s
        for shard, process in self.processes.items():
            if not process.dead and self.now >= process.started_at:
                self._work(shard, process)
        for name in self.orders.profiles:
            profile = self.profile(name)
            if profile is not None:
                self.planner.take_profile(profile, self.now)
        self.orders = self.planner.orders(self.situation())
        self._scale()
        self._place_at_once()
        self._begin()
        self._finish()
        for check in self.checks:
            check(self)

    def _work(self, shard: ShardId, process: Process) -> None:
        entries, used, resident = [], IDLE_CPU, self.settings.scaling.process_bytes
        for name, copy in process.copies.items():
            truth = self.truth(copy.partition)
            ready = self.now >= copy.ready_at
            if ready:
                copy.events += truth.events_per_s * self.step_s
                served = self.served.get(name, (None, ""))[1] == shard
                copy.queries += truth.queries_per_s * self.step_s * served
                copy.dropped += max(truth.received_per_s - truth.events_per_s, 0.0) * self.step_s
                used += truth.cpu
                resident += round(truth.memory)
            entries.append(
                PartitionStatistics(
                    partition=name,
                    state="synced" if ready else "arriving",
                    objects=round(truth.objects) if ready else 0,
                    body_bytes=round(truth.body_bytes) if ready else 0,
                    events={"modified": round(copy.events)},
                    queries=round(copy.queries),
                    dropped=round(copy.dropped),
                )
            )
        process.cpu_s += min(used, 1.0) * self.step_s
        self.planner.take(
            ShardStatistics(
                shard=shard,
                incarnation=f"{shard}/{process.pid}",
                pid=process.pid,
                node=process.node,
                cpu_seconds=process.cpu_s,
                resident_bytes=resident,
                partitions=entries,
            ),
            self.now,
        )

    def situation(self) -> Situation:
        return Situation(
            now=self.now,
            resources=tuple(kind.divisible for kind in self.kinds.values()),
            partitions=tuple(partition for partition, _ in self.served.values()),
            placement={name: shard for name, (_, shard) in self.served.items()},
            seats=tuple(self.seat(shard) for shard in self.processes),
            promised={
                partition.id: shard for handover in self.under_way for partition, shard in handover.arriving
            },
            recutting={one.resource: one.cut for one in self.under_way if one.cut is not None},
            replicas=self.replicas,
        )

    def seat(self, shard: ShardId) -> Seat:
        process = self.processes[shard]
        state = "dead" if process.dead else "healthy" if self.now >= process.started_at else "starting"
        leaving = "is drained" if shard in self.drained else ""
        if not leaving and self.orders.members and shard not in self.orders.members:
            leaving = "is leaving"
        return Seat(shard, state, process.node, leaving)

    def _start(self, shard: ShardId, at: float) -> None:
        self._pids += 1
        usage = dict.fromkeys(self.nodes, 0)
        for process in self.processes.values():
            if process.node in usage:
                usage[process.node] += 1
        node = min(usage, key=lambda name: (usage[name], name))
        self.processes[shard] = Process(node, at, self._pids)

    def _scale(self) -> None:
        for shard in self.orders.members:
            if shard not in self.processes and len(self.processes) < self.shards_possible:
                self._start(shard, self.now + self.start_s)
                self.changes += 1
        for shard in [name for name in self.processes if name not in self.orders.members]:
            process = self.processes[shard]
            if not process.copies or process.dead:
                del self.processes[shard]
                self.drained.discard(shard)
                self.changes += 1

    def _alive(self, shard: ShardId | None) -> bool:
        process = self.processes.get(shard) if shard is not None else None
        return process is not None and not process.dead

    def _place_at_once(self) -> None:
        """What nobody has is listed where it should be."""
        for one in self.kinds.values():
            resource = one.divisible.resource
            here = [part for part, _ in self.served.values() if part.resource == resource]
            if not here:
                here = list(self.orders.cuts.get(resource, self._settled(one)).partitions(resource))
            for partition in here:
                shard = self.orders.placement.get(partition.id)
                held = self.served.get(partition.id)
                if shard is None or not self._alive(shard) or (held is not None and self._alive(held[1])):
                    continue
                if (
                    held is not None
                    and self.replicas.get(partition.id)
                    and shard in self.replicas[partition.id]
                ):
                    self.replicas[partition.id] = tuple(s for s in self.replicas[partition.id] if s != shard)
                    self.served[partition.id] = (partition, shard)
                    continue
                self.under_way = [
                    one for one in self.under_way if all(p.id != partition.id for p, _ in one.leaving)
                ]
                self.served[partition.id] = (partition, shard)
                self.processes[shard].copies[partition.id] = Copy(partition, self.now + 3)
                self.changes += 1
            for partition in here:
                wanted = self.orders.replicas.get(partition.id, ())
                if wanted == self.replicas.get(partition.id, ()) or not all(self._alive(s) for s in wanted):
                    continue
                owner = self.served.get(partition.id, (partition, None))[1]
                for old in self.replicas.get(partition.id, ()):
                    if old not in wanted and old != owner and old in self.processes:
                        self.processes[old].copies.pop(partition.id, None)
                for new in wanted:
                    self.processes[new].copies.setdefault(partition.id, Copy(partition, self.now + 3))
                self.replicas[partition.id] = wanted
                self.changes += 1

    def _settled(self, kind: Kind) -> Cut:
        cut = WHOLE
        for name in kind.divisible.carved:
            cut = cut.carve(name)
        return cut

    def _begin(self) -> None:
        at_once = self.settings.placement.moves_at_once
        busy = {one.resource for one in self.under_way}
        for resource, cut in self.orders.cuts.items():
            if resource in busy or len(self.under_way) >= at_once:
                continue
            here = [held for held in self.served.values() if held[0].resource == resource]
            wanted = cut.partitions(resource)
            leaving = tuple(held for held in here if held[0] not in wanted)
            arriving = tuple(
                (one, self.orders.placement.get(one.id)) for one in wanted if one.id not in self.served
            )
            if not here or any(not self._alive(shard) for _, shard in (*leaving, *arriving)):
                continue
            self._hand_over(resource, leaving, arriving, cut)
            busy.add(resource)
            self.recut += 1
        for name in self.orders.urgency:
            held = self.served.get(name)
            to = self.orders.placement.get(name)
            if held is None or held[0].resource in busy or len(self.under_way) >= at_once:
                continue
            if to is None or to == held[1] or not self._alive(to) or not self._alive(held[1]):
                continue
            if to in self.replicas.get(name, ()):
                continue
            self._hand_over(held[0].resource, (held,), ((held[0], to),), None)
            busy.add(held[0].resource)
            self.moved += 1

    def _hand_over(self, resource, leaving, arriving, cut) -> None:
        lasts_s = 1.0 + max(self.truth(partition).objects for partition, _ in arriving) / 20_000
        for partition, shard in arriving:
            copies = self.processes[shard].copies
            copies[partition.id] = Copy(partition, self.now + lasts_s)
        self.under_way.append(HandOver(resource, leaving, arriving, self.now + lasts_s + 1, cut))
        self.changes += 1

    def _finish(self) -> None:
        for handover in list(self.under_way):
            involved = [shard for _, shard in (*handover.leaving, *handover.arriving)]
            if not all(self._alive(shard) for shard in involved):
                self.under_way.remove(handover)
                for partition, shard in handover.arriving:
                    if self._alive(shard) and self.served.get(partition.id, (None, None))[1] != shard:
                        self.processes[shard].copies.pop(partition.id, None)
                continue
            if self.now < handover.done_at:
                continue
            self.under_way.remove(handover)
            for partition, shard in handover.leaving:
                self.served.pop(partition.id, None)
                self.processes[shard].copies.pop(partition.id, None)
                for other in self.replicas.pop(partition.id, ()) if handover.cut is not None else ():
                    self.processes[other].copies.pop(partition.id, None)
            for partition, shard in handover.arriving:
                self.served[partition.id] = (partition, shard)
                self.processes[shard].copies.setdefault(partition.id, Copy(partition, self.now))

    def kill(self, shard: ShardId) -> None:
        process = self.processes[shard]
        process.dead = True
        process.copies.clear()

    def revive(self, shard: ShardId) -> None:
        """The process is started again, with nothing."""
        process = self.processes[shard]
        self._pids += 1
        self.processes[shard] = Process(process.node, self.now + self.start_s, self._pids)

    # -- what has to be so -----------------------------------------------------------------------------------

    def check(self) -> None:
        orders, settings = self.orders, self.settings
        low, high = self.planner.scaler.bounds
        assert low <= orders.shards <= high, f"there are {low} to {high} shards wanted, not {orders.shards}"
        assert len(set(orders.members)) == orders.shards, "members are as many as are wanted, each once"
        for name, copies in orders.replicas.items():
            on = [shard for shard in (orders.placement.get(name), *copies) if shard is not None]
            assert len(set(on)) == len(on), f"two copies of {name} are on one shard: {on}"
        for resource, cut in orders.cuts.items():
            covers = cut.covers()
            assert Cut.of(covers) == cut, f"{resource} is not divided by {cut}"
            for partition in cut.partitions(resource):
                if partition.id not in orders.placement:
                    assert orders.warnings, f"{partition.id} has no place and nobody is told"
        if settings.scaling.memory_bytes is not None:
            self._check_memory()

    def _check_memory(self) -> None:
        scaling, look = self.settings.scaling, self.planner.last
        room = scaling.memory_bytes - scaling.process_bytes
        holds: dict[ShardId, int] = {}
        for unit, shard in self.planner.mover.goal.items():
            holds[shard] = holds.get(shard, 0) + look.units.memory.get(unit, 0)
        for placing in look.plan.placings:
            if placing.shard != self.served.get(placing.partition, (None, None))[1]:
                assert holds[placing.shard] <= room, (
                    f"{placing.shard} gets {placing.partition} and would hold more than it has memory for"
                )

    def imbalance(self) -> float:
        """The heaviest shard over the average, by true CPU."""
        used = {
            shard: sum(self.truth(copy.partition).cpu for copy in process.copies.values())
            for shard, process in self.processes.items()
        }
        mean = sum(used.values()) / len(used)
        return max(used.values()) / mean if mean else 1.0
