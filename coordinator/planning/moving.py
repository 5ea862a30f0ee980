"""Where every unit belongs, and in which order what is elsewhere should get there. Pure; time is passed in.

Around `coordinator.placement`, which is asked afresh in every look, this keeps what looks have to know of each other:
the goal, so that plans do not waver and what was promised counts as done; since when the balance is off; what was moved
a short while ago; and which shards take almost all the memory they may.

Where a unit counts as being: where a hand-off under way takes it, else where the last look wanted it, else where it is.
What is on a suspect shard stays there and is not looked at; what is on one that leaves goes; what is on a dead one, or
nowhere, goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ...shards.model.partitions import PartitionId, ShardId
from ..placement import Placing, Plan, place
from ..settings import PlacementSettings, ScalingSettings
from .heat import room_bytes
from .loads import Loads
from .orders import Seat
from .resting import Rest
from .seating import Rules
from .units import Units, copy_of, seats_by_name

_FULL_ABOVE, _FULL_BELOW = 0.95, 0.85
"""Of its memory: a shard that really takes more gets nothing, whatever explains it, until it takes less than that."""
_GONE = ("dead", "starting")


class Mover:
    """Places units; remembers where they are to be."""

    def __init__(self, placement: PlacementSettings, scaling: ScalingSettings, loads: Loads) -> None:
        self.goal: dict[PartitionId, ShardId] = {}
        """Where every unit should be, by the last look."""
        self.full: dict[ShardId, str] = {}
        """Shards that get nothing because of what their processes really take."""
        self.story: dict[PartitionId, tuple[float, Placing]] = {}
        """The last decision about each unit, and when it was made."""
        self.hurried = False
        """Nothing has to last or to rest in this look."""
        self._settings = placement
        self._memory = scaling.memory_bytes
        self._room = room_bytes(scaling)
        self._loads = loads
        self._rest = Rest(placement)
        self._uneven_since: float | None = None

    def plan(self, units: Units, seats: Sequence[Seat]) -> Plan:
        """One look."""
        by_name = seats_by_name(seats)
        candidates = [seat.shard for seat in seats if seat.takes]
        for name in units.promoted:
            self.goal.pop(name, None)
        current: dict[PartitionId, ShardId] = {}
        fixed: dict[PartitionId, ShardId] = {}
        origins: dict[PartitionId, ShardId] = {}
        made: set[PartitionId] = set()
        coming: set[PartitionId] = set()
        taken: set[tuple[PartitionId, ShardId]] = set()
        for unit, name in units.names.items():
            shard = self._standing(units, unit, by_name)
            if shard is not None and units.copies and (name, shard) in taken:
                shard = None  # a copy that came to be where another is already: it goes somewhere else
            seat = by_name.get(shard) if shard is not None else None
            if shard is not None:
                taken.add((name, shard))
            if shard is None or seat is None or seat.state in _GONE:
                origin = self._source(units, unit)
                if origin is not None:
                    origins[unit] = origin
                    made.add(unit)
            elif seat.takes:
                current[unit] = shard
                if unit not in units.where and unit not in units.situation.promised:
                    coming.add(unit)
            elif seat.leaving:
                origins[unit] = shard
            else:
                fixed[unit] = shard
        weights = {unit: weight for unit, weight in units.weights.items() if unit not in fixed}
        outgoing = self._outgoing(units, by_name, weights)
        plan = place(
            weights,
            candidates,
            current,
            self._settings,
            moves=self._moves_allowed(units, by_name),
            unavailable={seat.shard: seat.refusal for seat in seats if not seat.takes},
            rules=replace(
                self._rules(units, seats, candidates),
                origins=origins,
                stay=frozenset(made),
                coming=frozenset(coming),
            ),
        )
        self._remember(units, plan, {**fixed, **outgoing}, kept=not candidates)
        return plan

    def urgency(self, units: Units, seats: Sequence[Seat]) -> tuple[PartitionId, ...]:
        """What is not where it should be, as `Orders.urgency` says."""
        by_name = seats_by_name(seats)
        ranked = []
        for unit, shard in self.goal.items():
            owner = units.where.get(unit)
            if owner == shard or unit in units.outgoing:
                continue
            seat = by_name.get(owner) if owner is not None else None
            if unit in units.sources:
                rank = 3
            elif seat is None or seat.state in _GONE:
                rank = 0
            elif seat.shard in self.full:
                rank = 1
            else:
                rank = 2 if seat.leaving else 4
            ranked.append((rank, -units.weights.get(unit, 0), unit))
        return tuple(unit for _, _, unit in sorted(ranked))

    def resting(self, now: float) -> Mapping[PartitionId, str]:
        """What does not move for the balance, and why."""
        return self._rest.resting(now)

    def waiting(self, now: float) -> str:
        """Why the balance is not mended although it is off; empty if it is mended, or not off."""
        if self._uneven_since is None:
            return ""
        lasts_s = now - self._uneven_since
        if lasts_s < self._settings.settle_s:
            return f"it is off for {lasts_s:.0f} s, waits {self._settings.settle_s:g} s (placement.settle_s)"
        return f"{self._settings.moves_at_once} are on their way already (placement.moves_at_once)"

    # -- where units count as being --------------------------------------------------------------------------

    def _standing(self, units: Units, unit: PartitionId, seats: Mapping[ShardId, Seat]) -> ShardId | None:
        situation, owner = units.situation, units.where.get(unit)
        promised = situation.promised.get(unit)
        barred = situation.barred.get(unit)
        for shard in (promised, self.goal.get(unit), owner):
            seat = seats.get(shard) if shard is not None else None
            if seat is None or seat.state in _GONE:
                continue
            if barred is not None and shard in barred and shard not in (promised, owner):
                continue
            if seat.takes or shard == owner:
                return shard
        return owner

    def _source(self, units: Units, unit: PartitionId) -> ShardId | None:
        source = units.sources.get(unit)
        return None if source is None else self.goal.get(source, units.situation.placement.get(source))

    def _outgoing(
        self, units: Units, seats: Mapping[ShardId, Seat], weights: dict[PartitionId, int]
    ) -> dict[PartitionId, ShardId]:
        """Where partitions stay until their resource is cut otherwise; those without a living shard are weighed, to be
        placed until then.
        """
        stay = {}
        for unit in units.outgoing:
            shard = units.situation.placement.get(unit)
            seat = seats.get(shard) if shard is not None else None
            if shard is not None and seat is not None and seat.state not in _GONE:
                stay[unit] = shard
            else:
                weights[unit] = 1  # what it will be made into is weighed already
        return stay

    # -- what a placement has to respect ---------------------------------------------------------------------

    def _rules(
        self,
        units: Units,
        seats: Sequence[Seat],
        candidates: Sequence[ShardId],
    ) -> Rules:
        situation = units.situation
        room = self._room
        self.full = self._too_full(candidates)
        return Rules(
            memory=units.memory if room is not None else {},
            room=dict.fromkeys(candidates, room) if room is not None else {},
            group={
                unit: name
                for unit, name in units.names.items()
                if unit != name or copy_of(unit, 1) in units.partitions
            }
            if units.copies
            else {},
            nodes={seat.shard: seat.node for seat in seats if seat.node},
            barred=situation.barred,
            resting={} if self.hurried else self._rest.resting(situation.now),
            full=self.full,
        )

    def _too_full(self, shards: Iterable[ShardId]) -> dict[ShardId, str]:
        most = self._memory
        if most is None:
            return {}
        found = {}
        for shard in shards:
            resident = self._loads.shard(shard).resident_bytes
            if resident > (_FULL_BELOW if shard in self.full else _FULL_ABOVE) * most:
                found[shard] = f"takes {resident >> 20:,} of its {most >> 20:,} MiB"
        return found

    def _moves_allowed(self, units: Units, seats: Mapping[ShardId, Seat]) -> int:
        settings, now = self._settings, units.situation.now
        if units.situation.unsettled:
            return 0
        if self.hurried:
            return len(units.partitions)
        if self._uneven_since is None or now - self._uneven_since < settings.settle_s:
            return 0
        under_way = sum(
            1
            for unit, shard in units.where.items()
            if self.goal.get(unit, shard) != shard
            and (seat := seats.get(shard)) is not None
            and seat.state != "dead"
        )
        return max(settings.moves_at_once - under_way, 0)

    def _remember(
        self, units: Units, plan: Plan, others: Mapping[PartitionId, ShardId], *, kept: bool
    ) -> None:
        now = units.situation.now
        if not plan.uneven:
            self._uneven_since = None
        elif self._uneven_since is None:
            self._uneven_since = now
        for placing in plan.placings:
            self.story[placing.partition] = (now, placing)
            if placing.for_balance:
                self._rest.moved(placing.partition, now)
        self._rest.keep_only(units.partitions)
        for gone in [unit for unit in self.story if unit not in units.partitions]:
            del self.story[gone]
        # Without any candidate what is placed stays as it is.
        before = (
            {unit: shard for unit, shard in self.goal.items() if unit in units.partitions} if kept else {}
        )
        self.goal = {**before, **plan.placement, **others}
