"""Why shards, cuts and places are as they are, and what would change them: sentences for people. Pure.

Told of the planner's last look: of everything, of a resource, of a partition, or of a shard. What is so comes first,
with its numbers, then what was decided and what was rejected, then the thresholds that would change it, each with the
name of the setting it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from ...shards.model.errors import NotFound
from ...shards.model.partitions import PartitionId, ShardId
from .heat import Heat, room_bytes
from .measures import Load
from .planner import LoadPlanner, Look

_SHOWN = 8
"""Of what there may be hundreds of, so many are named."""


def explain(planner: LoadPlanner, about: str = "") -> tuple[str, ...]:
    """The last look; about a resource, a partition or a shard only the part that concerns it.

    Raises:
        NotFound: nothing of that name is known.
    """
    look = planner.last
    if look is None:
        return ("nothing has been planned yet",)
    teller = _Teller(planner, look)
    if not about:
        return tuple(teller.everything())
    if any(seat.shard == about for seat in look.seats):
        return tuple(teller.shard(ShardId(about), every=True))
    names = sorted(
        name
        for name in {*look.units.names.values(), *look.units.outgoing}
        if name == about or name.partition("[")[0] == about
    )
    if not names:
        raise NotFound(
            f"there is no partition, resource or shard {about}; `shoal status --all` lists what there is"
        )
    return tuple(teller.resource(about, names))


class _Teller:
    """One explanation."""

    def __init__(self, planner: LoadPlanner, look: Look) -> None:
        self._planner = planner
        self._look = look
        self._limits = planner.limits
        self._weights = planner.loads_on(look.units)
        self._now = look.units.situation.now
        self._seats = {seat.shard: seat for seat in look.seats}

    # -- everything ------------------------------------------------------------------------------------------

    def everything(self) -> Iterator[str]:
        """The whole installation."""
        yield from self._scaling()
        for seat in self._look.seats:
            yield from self.shard(seat.shard)
        yield from self._hottest()
        if waiting := self._waiting():
            yield "waited for:"
            yield from (f"  {line}" for line in waiting)
        if self._look.orders.warnings:
            yield "warnings:"
            yield from (f"  {line}" for line in self._look.orders.warnings)

    def _scaling(self) -> Iterator[str]:
        settings = self._planner.settings.scaling
        low, high = self._planner.scaler.bounds
        bounds = f"{low} to {high}" if low != high else "fixed"
        yield f"{self._look.orders.shards} shards wanted ({bounds}), {len(self._look.seats)} there"
        for demand in self._look.demands:
            amount = _amount(demand.what, demand.now)
            capacity = _amount(demand.what, demand.capacity)
            yield (
                f"  {demand.what}: {amount} in all, {demand.used(demand.now, max(self._look.orders.shards, 1)):.0%} of "
                f"{self._look.orders.shards} times {capacity}; aim {settings.target:.0%} (scaling.target)"
            )
        yield from (f"  {line}" for line in self._look.scale.reasons)

    def shard(self, shard: ShardId, *, every: bool = False) -> Iterator[str]:
        """One shard against its target; with all it has, if asked for."""
        seat = self._seats[shard]
        units = [unit for unit, on in self._planner.mover.goal.items() if on == shard]
        loads = [load for unit in units if (load := self._load(unit)) is not None]
        measured = self._planner.census.loads.shard(shard)
        cpu = measured.cpu_now if measured.heard_at > -math.inf else sum(load.cpu_now for load in loads)
        parts = [
            f"{cpu:.2f} of {self._limits.cpu:g} cores",
            f"{sum(load.events_now for load in loads):,.0f} of {self._limits.events:,.0f} events/s",
        ]
        room = room_bytes(self._planner.settings.scaling)
        if room is not None:
            held = sum(self._look.units.memory.get(unit, 0) for unit in units)
            parts.append(f"{_size(held)} of {_size(room)} for objects")
        if measured.resident_bytes:
            parts.append(f"process {_size(measured.resident_bytes)}")
        state = seat.state + (f" on {seat.node}" if seat.node else "")
        leaving = f"; it {seat.leaving}" if seat.leaving else ""
        yield (
            f"{shard} ({state}): {', '.join(parts)}; {len(units)} partitions, weight "
            f"{self._weights.get(shard, 0):,}{leaving}"
        )
        if shard in self._planner.mover.full:
            yield f"  gets nothing more: it {self._planner.mover.full[shard]}"
        if every:
            ordered = sorted(units, key=lambda unit: (-self._look.units.weights.get(unit, 0), unit))
            for unit in ordered:
                yield f"  {unit}: {self._summary(unit)}"
            yield from (f"  {line}" for line in self._balance(shard))

    def _hottest(self) -> Iterator[str]:
        ranked = sorted(
            set(self._look.units.names.values()),
            key=lambda name: (-self._heat(name).value, name),
        )
        yield f"hottest partitions ({min(_SHOWN, len(ranked))} of {len(ranked)}):"
        for name in ranked[:_SHOWN]:
            yield f"  {name} on {self._planner.mover.goal.get(name, 'no shard')}: {self._summary(name)}"
            yield from (f"    {line}" for line in self._verdicts(name))

    def _waiting(self) -> list[str]:
        found = []
        for unit in self._look.orders.urgency[:_SHOWN]:
            owner = self._look.units.where.get(unit)
            found.append(
                f"{unit} is to go {f'from {owner} ' if owner else ''}to {self._planner.mover.goal[unit]}"
            )
        if len(self._look.orders.urgency) > _SHOWN:
            found.append(f"and {len(self._look.orders.urgency) - _SHOWN} more partitions are to move")
        found += [
            f"{resource} {self._planner.cutter.verdicts(resource)[0]}" for resource in self._look.units.recut
        ]
        if self._look.plan.uneven:
            why = self._look.units.situation.unsettled or self._planner.mover.waiting(self._now)
            found.append(f"the balance: {why}")
        return found

    # -- partitions ------------------------------------------------------------------------------------------

    def resource(self, about: str, names: Sequence[PartitionId]) -> Iterator[str]:
        """A resource, or one partition of it."""
        for resource, cut in self._look.units.cuts.items():
            if names and names[0].partition("[")[0] == str(resource):
                so = "is to be" if resource in self._look.units.recut else "is"
                yield f"{resource} {so} {'whole' if cut.whole else f'cut into {cut}'}"
                yield from (f"  {line}" for line in self._planner.cutter.story(resource, self._now))
                verdict = self._planner.cutter.verdicts(resource)[0]
                if verdict:
                    yield f"  {verdict}"
        for name in names:
            if name == about or "[" not in about:
                yield from self._partition(name)

    def _partition(self, name: PartitionId) -> Iterator[str]:
        where, goal = self._look.units.where.get(name), self._planner.mover.goal.get(name)
        if name in self._look.units.outgoing:
            yield f"{name} on {goal}: it is served until its resource is cut otherwise"
            return
        moving = f", to go to {goal}" if where is not None and goal != where else ""
        yield f"{name} on {where or goal or 'no shard'}{moving}: {self._summary(name)}"
        replicas = self._look.orders.replicas.get(name, ())
        if replicas:
            yield f"  followed by {', '.join(replicas)} as well"
        if name in self._look.plan.unplaced:
            yield f"  has no place: {self._look.plan.unplaced[name]}"
        yield from (f"  {line}" for line in self._verdicts(name))
        yield from (f"  {line}" for line in self._thresholds(name))
        yield from (f"  {line}" for line in self._story(name))
        if goal is not None and goal in self._seats:
            yield from (f"  {line}" for line in self._balance(goal, name))

    def _story(self, name: PartitionId) -> Iterator[str]:
        known = self._planner.mover.story.get(name)
        if known is None:
            yield "is where it was found"
            return
        at, placing = known
        ago_s = self._now - at
        origin = f" from {placing.before}" if placing.before else ""
        yield f"went{origin} to {placing.shard} {ago_s:.0f} s ago: {placing.reason}"
        rejected = placing.rejected
        yield from (f"  not {one.shard}: {one.reason}" for one in rejected[:_SHOWN])
        if len(rejected) > _SHOWN:
            yield f"  and {len(rejected) - _SHOWN} other shards were not better"

    def _thresholds(self, name: PartitionId) -> Iterator[str]:
        """What would cut it, in numbers."""
        load = self._load(name)
        cutting, limits = self._planner.settings.cutting, self._limits.times(self._planner.cutter.spread)
        if load is None:
            yield "nothing has been measured of it yet; its weight is a guess by its kind"
            return
        if not cutting.automatic:
            return
        if math.isinf(self._planner.cutter.spread):
            yield "is not cut by load: there is one shard only, and no more may be (scaling.max_shards)"
            return
        part = cutting.split_above
        above = [
            f"{part * limits.events:,.0f} events/s (has {load.events_now:,.0f})",
            f"{part * limits.cpu:.2f} cores (has {load.cpu_now:.2f})",
        ]
        if limits.memory < math.inf:
            above.append(f"{_size(part * limits.memory)} (has {_size(load.memory_bytes)})")
        yield f"would be cut above {_either(above)}: {part:.0%} of what a shard is used for (cutting.split_above)"

    def _balance(self, shard: ShardId, name: PartitionId | None = None) -> Iterator[str]:
        """Whether and when something would move for the balance."""
        settings = self._planner.settings.placement
        takes = [seat for seat in self._look.seats if seat.takes]
        if len(takes) < 2 or shard not in {seat.shard for seat in takes}:
            return
        weights = {seat.shard: self._weights.get(seat.shard, 0) for seat in takes}
        lightest = min(weights, key=lambda one: (weights[one], one))
        average = sum(weights.values()) / len(weights)
        difference = weights[shard] - weights[lightest]
        limit = max(settings.tolerance * average, settings.worth_weight)
        what = f"the lightest, {lightest}, {weights[lightest]:,}" if shard != lightest else "as little as any"
        sentence = (
            f"{shard} weighs {weights[shard]:,}, {what}: nothing leaves it for the "
            f"balance below a difference of {limit:,.0f} (placement.tolerance, worth_weight)"
        )
        if difference > limit:
            sentence = (
                f"{shard} weighs {difference:,} more than the lightest, {lightest}, above the {limit:,.0f} that are "
                "tolerated (placement.tolerance, worth_weight)"
            )
            if name is not None:
                sentence += f"; {self._why_it_stays(name, difference, lightest)}"
        yield sentence

    def _why_it_stays(self, name: PartitionId, difference: int, lightest: ShardId) -> str:
        weight = self._look.units.weights.get(name, 0)
        resting = self._planner.mover.resting(self._now).get(name)
        if resting:
            return f"it does not move: {resting} (placement.rest_s)"
        barred = self._look.units.situation.barred.get(name, {}).get(lightest)
        if barred:
            return f"it does not move there: {barred}"
        if weight > 0.75 * difference:
            return f"it does not move: it weighs {weight:,}, and {lightest} would become the heavy one"
        waiting = self._planner.mover.waiting(self._now)
        return f"it could move: {waiting}" if waiting else "others are moved before it"

    # -- numbers ---------------------------------------------------------------------------------------------

    def _verdicts(self, name: PartitionId) -> tuple[str, ...]:
        partition = self._look.units.partitions.get(name)
        if partition is None:
            return ()
        return self._planner.cutter.verdicts(partition.resource)[1].get(name, ())

    def _load(self, unit: PartitionId) -> Load | None:
        return self._planner.census.load(self._look.units.names.get(unit, unit))

    def _heat(self, name: PartitionId) -> Heat:
        load = self._load(name)
        return self._limits.now(load) if load is not None else Heat(0.0, "CPU")

    def _summary(self, unit: PartitionId) -> str:
        load = self._load(unit)
        if load is None:
            return "not measured yet"
        parts = [
            f"{load.objects:,} objects",
            f"{load.events_now:,.0f} events/s",
            f"{load.cpu_now:.2f} cores",
            _size(load.memory_bytes),
        ]
        if load.queries_per_s >= 0.05:
            parts.append(f"{load.queries_per_s:,.1f} queries/s")
        if load.dropped_per_s >= 1:
            parts.append(f"{load.dropped_per_s:,.0f} events/s of others dropped")
        if load.backlog:
            parts.append(f"{load.backlog:,} lines behind")
        return f"{', '.join(parts)}: {self._heat(unit)}"


def _amount(what: str, value: float) -> str:
    match what:
        case "CPU":
            return f"{value:.2f} cores"
        case "memory":
            return _size(value)
    return f"{value:,.0f} a second"


def _size(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 10 << 30 else f"{count / (1 << 20):,.0f} MiB"


def _either(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} or {last}" if most else last
