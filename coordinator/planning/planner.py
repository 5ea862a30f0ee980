"""The planner: what is so and how much everything takes, in; shards, cuts and places that should be, out. Pure.

One look goes from the outside in: how each resource should be cut (`cutting`), how many shards what is made of that
takes (`scaling`), and where each copy belongs (`moving`, `coordinator.placement`). What was promised counts as done in
all three, so that nothing is ordered twice. By constant load, shards and answers looks come to rest: after a while all
of them want the same. What came of a look, and what would change it, is told by `explaining`.

Implements `coordinator.standing.Planner`. Whoever owns it tells it what shards say (`take`), and the profiles it wants.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...shards.model.partitions import PartitionId, ShardId
from ...shards.model.queries import ShardStatistics
from ...shards.model.transfers import Profile
from ..census import Census
from ..placement import Plan
from ..settings import CoordinatorSettings
from .cutting import Cutter
from .heat import Limits, room_bytes
from .moving import Mover
from .orders import Orders, Seat, Situation
from .scaling import Demand, Scale, Scaler
from .units import Units, units_of

_PROFILES_AT_ONCE = 4
_HELP = "raise scaling.memory_bytes or scaling.max_shards, or follow less"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look came to."""

    units: Units
    seats: tuple[Seat, ...]
    """With what makes each shard leave."""
    demands: tuple[Demand, ...]
    scale: Scale
    plan: Plan
    orders: Orders


class LoadPlanner:
    """Plans by load. Belongs to one coordinator."""

    def __init__(self, settings: CoordinatorSettings, shards: int, census: Census | None = None) -> None:
        """`shards`: how many there are to be where ``scaling`` names no bounds, and to begin with."""
        self.settings = settings
        self.census = census or Census(settings.placement, settings.scaling, settings.cutting)
        self.limits = Limits.of(settings.scaling, settings.cutting)
        self.scaler = Scaler(settings.scaling, shards)
        self.cutter = Cutter(settings.cutting, self.limits, self.census.loads)
        self.mover = Mover(settings.placement, settings.scaling, self.census.loads)
        self.last: Look | None = None
        """The last look."""
        self._short_bytes = 0
        self._hurried = False

    # -- what it is told -------------------------------------------------------------------------------------

    def take(self, statistics: ShardStatistics, now: float) -> None:
        """Takes in what one shard reports."""
        self.census.take(statistics, now)

    def take_profile(self, profile: Profile, now: float) -> None:
        """Takes in a profile, as `Orders.profiles` asks for."""
        self.census.loads.take_profile(profile, now)

    def resize(self, shards: int) -> None:
        """Changes the number in ``shards``; where ``scaling`` names bounds it is kept within them."""
        self.scaler.resize(shards)

    # -- what it says ----------------------------------------------------------------------------------------

    def orders(self, situation: Situation) -> Orders:
        """What should be so, given what is."""
        hurried, self._hurried = self._hurried, False
        self.last = self._look(situation, hurried=hurried)
        return self.last.orders

    def rebalanced(self, situation: Situation) -> Orders:
        """What would be wanted if nothing had to last or to rest first; changes nothing."""
        return self.rehearsed(situation).orders

    def rehearsed(self, situation: Situation) -> Look:
        """The same, with all that led to it."""
        shared = (self.census, self.census.loads, self.settings, self.limits, self.last)
        other = copy.deepcopy(self, {id(one): one for one in shared})
        other._short_bytes = 0  # noqa: SLF001 - another of this class
        return other._look(situation, hurried=True, expecting=False)  # noqa: SLF001

    def hurry(self) -> None:
        """The next orders are such that nothing has to last or to rest first."""
        self._hurried = True

    # -- a look ----------------------------------------------------------------------------------------------

    def _look(self, situation: Situation, *, hurried: bool, expecting: bool = True) -> Look:
        self.cutter.hurried = self.scaler.hurried = self.mover.hurried = hurried
        self.cutter.begin(self._spread())
        units = units_of(situation, self.cutter, self.census)
        demands = self._demands(units)
        scale = self._scaled(units, demands)
        seats = tuple(
            replace(seat, leaving=scale.leaving[seat.shard]) if seat.shard in scale.leaving else seat
            for seat in situation.seats
        )
        plan = self.mover.plan(units, seats)
        self._short_bytes = self._short(units, plan)
        if expecting:
            self._forget(units)
        return Look(units, seats, demands, scale, plan, self._ordered(units, seats, scale, plan))

    def _demands(self, units: Units) -> tuple[Demand, ...]:
        """What all units take together."""
        scaling, dropped_cost = self.settings.scaling, self.settings.cutting.dropped_cost
        cpu_now = cpu = events_now = events = 0.0
        for name in units.names.values():
            load = self.census.load(name)
            if load is None:
                continue
            dropped = load.dropped_per_s * dropped_cost
            of_it = (
                (load.cpu_now, max(load.cpu, load.cpu_now)),
                (
                    load.events_now + dropped,
                    max(load.events_per_s, load.events_now) + dropped,
                ),
            )
            if name in self.cutter.stuck:
                # More shards cannot help who cannot be cut: it fills one, however much it would take.
                of_it = _at_most(of_it[0], self.limits.cpu), _at_most(of_it[1], self.limits.events)
            cpu_now, cpu = cpu_now + of_it[0][0], cpu + of_it[0][1]
            events_now, events = events_now + of_it[1][0], events + of_it[1][1]
        found = [
            Demand("CPU", cpu_now, cpu, 1.0),
            Demand("events", events_now, events, scaling.events_per_shard),
        ]
        room = room_bytes(scaling)
        if room is not None:
            memory = float(sum(units.memory.values()))
            found.append(Demand("memory", memory, memory, float(room)))
        return tuple(found)

    def _spread(self) -> float:
        """How hot each shard would be if there were as many as there may be; at least 1.0. One shard has no use for
        parts, however hot it is.
        """
        if self.scaler.bounds[1] == 1:
            return math.inf
        return max(self.limits.now(self.census.loads.total()).value / self.scaler.bounds[1], 1.0)

    def _scaled(self, units: Units, demands: tuple[Demand, ...]) -> Scale:
        situation, scaling = units.situation, self.settings.scaling
        on: dict[ShardId, int] = {}
        for unit, weight in units.weights.items():
            shard = self.mover.goal.get(unit, units.where.get(unit))
            if shard is not None:
                on[shard] = on.get(shard, 0) + weight
        room = room_bytes(scaling)
        starting = sum(seat.state == "starting" for seat in situation.seats)
        missing = self._short_bytes - starting * scaling.target * (room or 0)
        return self.scaler.decide(
            situation.now,
            demands,
            situation.seats,
            on,
            missing_bytes=max(missing, 0.0),
            room_bytes=room or math.inf,
        )

    def _short(self, units: Units, plan: Plan) -> int:
        """Bytes for which no shard has room, and one more shard would."""
        room = room_bytes(self.settings.scaling)
        if room is None:
            return 0
        short = sum(units.memory.get(unit, 0) for unit in plan.unplaced if units.memory.get(unit, 0) <= room)
        for shard in plan.overfull:
            held = [
                units.memory[unit]
                for unit, on in plan.placement.items()
                if on == shard and unit in units.memory
            ]
            short += max(sum(size for size in held if size <= room) - room, 0)
        return short

    def _forget(self, units: Units) -> None:
        self.census.keep_only(units.all_names())
        self.census.loads.keep_shards(seat.shard for seat in units.situation.seats)
        self.cutter.keep_only(units.cuts)

    # -- orders ----------------------------------------------------------------------------------------------

    def _ordered(self, units: Units, seats: tuple[Seat, ...], scale: Scale, plan: Plan) -> Orders:
        placement: dict[PartitionId, ShardId] = {}
        replicas: dict[PartitionId, tuple[ShardId, ...]] = {}
        for unit, shard in self.mover.goal.items():
            name = units.names.get(unit, unit)
            if unit != name:
                replicas[name] = (*replicas.get(name, ()), shard)
            else:
                placement[unit] = shard
        wanted = sorted(self.cutter.profiles, key=lambda pair: (-pair[0], pair[1]))
        return Orders(
            cuts=units.recut,
            placement=placement,
            replicas=replicas,
            urgency=self.mover.urgency(units, seats),
            shards=len(scale.members),
            members=scale.members,
            profiles=tuple(name for _, name in wanted[:_PROFILES_AT_ONCE]),
            reasons=self._reasons(units, scale, plan),
            warnings=self._warnings(units, scale, plan),
            plan=plan,
        )

    def _reasons(self, units: Units, scale: Scale, plan: Plan) -> tuple[str, ...]:
        found = list(scale.reasons)
        found += [f"{shard} is emptied: it {why}" for shard, why in scale.leaving.items()]
        found += [f"{resource} {self.cutter.verdicts(resource)[0]}" for resource in units.recut]
        for placing in plan.placings:
            origin = f" from {placing.before}" if placing.before else ""
            found.append(f"{placing.partition}{origin} to {placing.shard}: {placing.reason}")
        if plan.uneven:
            why = units.situation.unsettled or self.mover.waiting(units.situation.now)
            found.append(f"the balance is off and not mended yet: {why}")
        return tuple(found)

    def _warnings(self, units: Units, scale: Scale, plan: Plan) -> tuple[str, ...]:
        found = list(scale.warnings)
        found += [f"{name} {why}" for name, why in self.cutter.stuck.items()]
        found += [f"{unit} is served by nobody: {why}; {_HELP}" for unit, why in plan.unplaced.items()]
        found += [f"{shard} {why}: the kernel may end it; {_HELP}" for shard, why in plan.overfull.items()]
        for shard, why in sorted(self.mover.full.items()):
            held = sum(units.memory.get(unit, 0) for unit, on in self.mover.goal.items() if on == shard)
            found.append(
                f"{shard} {why} and gets nothing more; what it holds explains {held >> 20:,} MiB of it"
            )
        return tuple(found)

    def loads_on(self, units: Units) -> Mapping[ShardId, int]:
        """What each shard weighs where everything is where it should be."""
        found: dict[ShardId, int] = {}
        for unit, shard in self.mover.goal.items():
            found[shard] = found.get(shard, 0) + units.weights.get(unit, 0)
        return found


def _at_most(amounts: tuple[float, float], most: float) -> tuple[float, float]:
    return min(amounts[0], most), min(amounts[1], most)
