"""Which shard each partition belongs on: every one placed, evenly by weight, with the fewest moves. Pure.

Four steps. What is where it may stay, stays. What has no shard (new, or its shard is gone or to be emptied) goes,
heaviest first, to the shard that weighs least of those that do not refuse it. What is too much for the memory of a
shard goes to others. Then, if the caller allows moves and a heavy shard weighs too much, partitions move from the
heaviest to the lightest, each time the one whose weight is nearest to half their difference: that is the move that
evens out most, so the fewest are needed. Every such move makes the sum of squared loads smaller, so this ends; it
depends on nothing but its arguments and the order of names, so it is stable.

Bounds. Afterwards (with enough moves allowed) the difference between the heaviest and the lightest shard is within the
tolerance, or not worth a move, or every partition on the heaviest weighs more than three quarters of it, rests or is
refused. Memory is never exceeded by what is placed here, and where no partition takes more than a part m of a shard's
room and all take at most 1 - m of all rooms together, none is left without a place.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..shards.model.partitions import PartitionId, ShardId
from .planning.seating import NO_RULES, Rules, Seating
from .settings import PlacementSettings

_MOVABLE = 0.75
"""Of a difference, the most a partition may weigh that is moved for it. More, and the two shards would almost
change places; with this, the difference at least halves or loses twice the partition's weight."""
_LIGHTS_TRIED = 8
"""Light shards that a heavy one tries to give something to, where the lightest refuse all it has."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A shard that was considered for a partition and not taken."""

    shard: ShardId
    reason: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """The shards a partition could have gone to, as they were at that moment: what rejections are made of."""

    shards: tuple[ShardId, ...]
    loads: tuple[int, ...]
    refusals: Mapping[ShardId, str]
    """Of those that were lighter, or no candidates at all."""
    giver: ShardId | None = None
    """Which it left for the balance."""


@dataclass(frozen=True, slots=True)
class Placing:
    """One decision: a partition that was put somewhere or moved."""

    partition: PartitionId
    weight: int
    shard: ShardId
    before: ShardId | None
    """Where it was; None if nowhere, or on a shard that is gone."""
    reason: str
    candidates: Candidates
    for_balance: bool = False
    """It could have stayed where it was."""

    @property
    def is_move(self) -> bool:
        """Whether it had a shard that could have kept it."""
        return self.before is not None

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        """Every other shard, and why it was not taken."""
        found = self.candidates
        loads = dict(zip(found.shards, found.loads, strict=True))
        chosen = loads[self.shard]

        def reason(shard: ShardId, load: int) -> str:
            if shard in found.refusals:
                return found.refusals[shard]
            if shard == found.giver:
                return f"weighs {load - chosen} more than {self.shard}"
            if load > chosen or found.giver is not None:
                return f"weighs {load}, {self.shard} only {chosen}"
            return f"weighs as little as {self.shard}, which holds fewer partitions or comes first"

        others = [
            Rejection(shard, reason(shard, load)) for shard, load in loads.items() if shard != self.shard
        ]
        return (
            *others,
            *(Rejection(shard, why) for shard, why in found.refusals.items() if shard not in loads),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement and how it came about."""

    placement: Mapping[PartitionId, ShardId]
    placings: tuple[Placing, ...]
    loads: Mapping[ShardId, int]
    """Weight on each shard under the placement."""
    uneven: bool
    """The loads would justify moves: none were allowed, or not enough."""
    unplaced: Mapping[PartitionId, str] = field(default_factory=dict)
    """Partitions that no shard takes, with the reason."""
    overfull: Mapping[ShardId, str] = field(default_factory=dict)
    """Shards with more than they have memory for, which nobody can relieve, with the reason."""

    def explain(self) -> tuple[str, ...]:
        """The plan for people, one decision a line, each followed by its rejected candidates."""
        lines = []
        for placing in self.placings:
            origin = f" from {placing.before}" if placing.before else ""
            lines.append(
                f"{placing.partition} (weight {placing.weight}){origin} -> {placing.shard}: {placing.reason}"
            )
            lines += [f"  not {rejection.shard}: {rejection.reason}" for rejection in placing.rejected]
        lines += [f"{partition} has no place: {why}" for partition, why in self.unplaced.items()]
        lines += [f"{shard} weighs {load}" for shard, load in self.loads.items()]
        return tuple(lines)


def place(
    weights: Mapping[PartitionId, int],
    shards: Sequence[ShardId],
    current: Mapping[PartitionId, ShardId],
    settings: PlacementSettings,
    *,
    moves: int,
    unavailable: Mapping[ShardId, str] | None = None,
    rules: Rules = NO_RULES,
) -> Plan:
    """Places every partition of `weights` on one of `shards`.

    Args:
        weights: weight of each partition, at least 1.
        shards: those that may get partitions; with none, nothing is placed.
        current: where partitions are now; entries for other partitions or shards count as absent.
        settings: tolerance and worth of a move.
        moves: how many partitions may leave a shard that could keep them.
        unavailable: shards that may not get any, with the reason, for the explanation.
        rules: memory, copies that keep apart, and what may not move or go somewhere.
    """
    if not shards:
        return Plan({}, (), {}, uneven=False)
    work = _Work(shards, unavailable or {}, settings, rules)
    staying: list[tuple[PartitionId, int, ShardId]] = []
    coming: list[tuple[PartitionId, int, ShardId]] = []
    homeless: list[PartitionId] = []
    for partition in sorted(weights):
        shard = current.get(partition)
        if shard is not None and shard in work.seating.loads:
            (coming if partition in rules.coming else staying).append((partition, weights[partition], shard))
        else:
            homeless.append(partition)
    work.seating.put_all(staying)
    for partition, weight, shard in coming:
        if work.seating.refusal(partition, shard):
            homeless.append(partition)
        else:
            work.seating.put(partition, weight, shard)
    for partition in sorted(homeless, key=lambda partition: (-weights[partition], partition)):
        work.settle(partition, weights[partition])
    work.relieve(weights)
    uneven = work.even_out(moves)
    return Plan(
        dict(sorted(work.seating.placement.items())),
        tuple(work.decisions.values()),
        dict(work.seating.loads),
        uneven,
        work.unplaced,
        work.overfull,
    )


class _Work:
    """A placement being made."""

    def __init__(
        self,
        shards: Sequence[ShardId],
        unavailable: Mapping[ShardId, str],
        settings: PlacementSettings,
        rules: Rules,
    ) -> None:
        self.seating = Seating(shards, rules)
        self.decisions: dict[PartitionId, Placing] = {}
        self.unplaced: dict[PartitionId, str] = {}
        self.overfull: dict[ShardId, str] = {}
        self._unavailable = dict(unavailable)
        self._settings = settings
        self._rules = rules
        self._balanced = 0
        """Decisions that are moves for the balance."""

    # -- what has no place -----------------------------------------------------------------------------------

    def settle(self, partition: PartitionId, weight: int) -> None:
        """Puts a partition without a shard on the lightest one that takes it, if possible on a node without another
        copy of it.
        """
        refusals: dict[ShardId, str] = {}
        shard = self._kept_by_origin(partition) or self._taker(partition, refusals)
        if shard is None:
            shard = self._cleared(partition)
        if shard is None:
            self.unplaced[partition] = _summed_up(refusals)
            return
        origin = self._rules.origins.get(partition)
        reason = f"the lightest, at {self.seating.loads[shard]} before it"
        if refusals:
            reason += ", of those that take it"
        if shard == origin:
            reason = "where the most of it is already"
        before = None if partition in self._rules.stay else origin
        self.decisions[partition] = Placing(
            partition, weight, shard, before, reason, self._candidates(refusals, None)
        )
        self.seating.put(partition, weight, shard)

    def _kept_by_origin(self, partition: PartitionId) -> ShardId | None:
        """The shard that has most of what the partition is made of, unless it weighs too much more than others."""
        origin = self._rules.origins.get(partition)
        if partition not in self._rules.stay or origin not in self.seating.loads:
            return None
        if self.seating.refusal(partition, origin) or self.seating.crowds(partition, origin):
            return None
        loads = self.seating.loads
        difference = loads[origin] - loads[next(self.seating.lightest())]
        limit = max(self._settings.worth_weight, self._settings.tolerance * sum(loads.values()) / len(loads))
        return origin if difference <= limit else None

    def _taker(self, partition: PartitionId, refusals: dict[ShardId, str]) -> ShardId | None:
        """The lightest that takes it; those that do not are noted."""
        crowded: ShardId | None = None
        for shard in self.seating.lightest():
            refusal = self.seating.refusal(partition, shard)
            if refusal:
                refusals[shard] = refusal
            elif self.seating.crowds(partition, shard):
                refusals[shard] = "is on a node that has a copy of it already"
                crowded = crowded or shard
            else:
                return shard
        if crowded is not None:
            del refusals[crowded]
        return crowded

    def _cleared(self, partition: PartitionId) -> ShardId | None:
        """A shard where there is room once another partition has left it for a third."""
        needed = self._rules.memory.get(partition, 0)
        for shard in self.seating.lightest():
            room = self.seating.room(shard)
            if room is None or room >= needed:
                continue  # what it refuses is not memory
            leaving = self._leaver(shard, needed - room)
            if leaving is None:
                continue
            weight, other, to = leaving
            self._move(other, weight, to, f"makes room for {partition} on {shard}")
            if not self.seating.refusal(partition, shard):
                return shard
        return None

    # -- what is too much ------------------------------------------------------------------------------------

    def relieve(self, weights: Mapping[PartitionId, int]) -> None:
        """Takes off shards what they have no memory for."""
        for shard in self.seating.names:
            room = self.seating.room(shard)
            while room is not None and room < 0:
                leaving = self._leaver(shard, -room, partly=True)
                if leaving is None:
                    self.overfull[shard] = (
                        f"holds {-room / (1 << 20):,.0f} MiB more than it has memory for, and no other shard has room"
                    )
                    break
                _, partition, to = leaving
                self._move(partition, weights[partition], to, f"{shard} has not enough memory")
                room = self.seating.room(shard)

    def _leaver(
        self, shard: ShardId, excess: int, *, partly: bool = False
    ) -> tuple[int, PartitionId, ShardId] | None:
        """What leaves a shard to free so many bytes, and where to: the smallest that does. If nothing alone does and
        `partly`, the largest that can go anywhere.
        """
        memory = self._rules.memory
        held = sorted(
            (memory.get(partition, 0), partition, weight) for weight, partition in self.seating.held(shard)
        )
        enough = bisect_left(held, (excess,))
        less = [entry for entry in reversed(held[:enough]) if entry[0] > 0] if partly else []
        for _, partition, weight in (*held[enough:], *less):
            for to in self.seating.lightest():
                if to == shard or self.seating.refusal(partition, to) or self.seating.crowds(partition, to):
                    continue
                return weight, partition, to
        return None

    # -- what is uneven --------------------------------------------------------------------------------------

    def even_out(self, moves: int) -> bool:
        """Moves up to `moves` partitions; True if more would be in order."""
        while True:
            step = self._step()
            if step is None:
                return False
            if self._balanced >= moves:
                # What has been decided about already may still change: that costs no further move.
                step = self._step(self.decisions)
                if step is None:
                    return True
            partition, weight, heavy, light = step
            difference = self.seating.loads[heavy] - self.seating.loads[light]
            self._move(
                partition, weight, light, f"{heavy} weighs {difference} more than {light}", for_balance=True
            )

    def _step(
        self, among: Mapping[PartitionId, Placing] | None = None
    ) -> tuple[PartitionId, int, ShardId, ShardId] | None:
        """The move that evens out most: from the heaviest that can give something to the lightest that takes it."""
        seating, settings = self.seating, self._settings
        average = sum(seating.loads.values()) / len(seating.loads)
        lights = [light for _, light in zip(range(_LIGHTS_TRIED), seating.lightest(), strict=False)]
        for heavy in seating.heaviest():
            for light in lights:
                difference = seating.loads[heavy] - seating.loads[light]
                fills_empty = not seating.held(light) and len(seating.held(heavy)) > 1
                if difference <= average * settings.tolerance:
                    break
                if difference < settings.worth_weight and not fills_empty:
                    break
                found = self._fitting(heavy, light, difference, among)
                if found is not None:
                    return found[1], found[0], heavy, light
            if seating.loads[heavy] - seating.loads[lights[0]] <= average * settings.tolerance:
                return None  # and so for all that weigh less
        return None

    def _fitting(
        self,
        heavy: ShardId,
        light: ShardId,
        difference: int,
        among: Mapping[PartitionId, Placing] | None,
    ) -> tuple[int, PartitionId] | None:
        """Of what the heavy one may give, what weighs nearest to half the difference; of equals the first by name."""
        for weight, partition in _nearest(self.seating.held(heavy), difference):
            if among is not None and partition not in among:
                continue
            if partition in self._rules.resting or self.seating.refusal(partition, light):
                continue
            if self.seating.crowds(partition, light) and not self.seating.crowds(partition, heavy):
                continue
            return weight, partition
        return None

    # -- decisions -------------------------------------------------------------------------------------------

    def _move(
        self, partition: PartitionId, weight: int, to: ShardId, reason: str, *, for_balance: bool = False
    ) -> None:
        candidates = self._candidates({}, self.seating.placement[partition])
        giver = self.seating.remove(partition, weight)
        decided = self.decisions.pop(partition, None)
        origin: ShardId | None = giver
        if decided is not None:
            origin, for_balance = decided.before, decided.for_balance
            self._balanced -= decided.for_balance
        if to != origin:
            self.decisions[partition] = Placing(
                partition, weight, to, origin, reason, candidates, for_balance
            )
            self._balanced += for_balance
        self.seating.put(partition, weight, to)

    def _candidates(self, refusals: Mapping[ShardId, str], giver: ShardId | None) -> Candidates:
        return Candidates(
            self.seating.names,
            tuple(self.seating.loads.values()),
            {**refusals, **self._unavailable} if refusals else self._unavailable,
            giver,
        )


def _nearest(held: Sequence[tuple[int, PartitionId]], difference: int) -> Iterator[tuple[int, PartitionId]]:
    """What weighs at most `_MOVABLE` of a difference, nearest to its half first."""
    most = difference * _MOVABLE
    movable = [entry for entry in held[: bisect_left(held, (int(most) + 1,))] if entry[0] <= most]
    if len(movable) > 1:
        movable.sort(key=lambda entry: (abs(2 * entry[0] - difference), entry[1]))
    return iter(movable)


def _summed_up(refusals: Mapping[ShardId, str]) -> str:
    """Why nobody takes it: the most frequent kind of reason, with an example."""
    if not refusals:
        return "there is no shard that could take it"
    shard, why = next(iter(refusals.items()))
    more = f", and {len(refusals) - 1} more refuse it" if len(refusals) > 1 else ""
    return f"{shard} {why}{more}"
