"""Which shard each partition belongs on: every one placed, evenly by weight, with the fewest moves. Pure.

Three steps. What is where it may stay, stays. What has no shard (new, or its shard is gone) goes, heaviest
first, to the shard that weighs least. Then, if the caller allows moves and the heaviest shard weighs too
much, partitions move from the heaviest to the lightest, each time the one whose weight is nearest to half
their difference: that is the move that evens out most, so the fewest are needed. Every such move makes the
sum of squared loads smaller, so this ends; it depends on nothing but its arguments and the order of names, so
it is stable.

Bound: afterwards (with enough moves allowed) the difference between the heaviest and the lightest shard is
within the tolerance, or not worth a move, or every partition on the heaviest weighs more than three quarters
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..shards.model.partitions import PartitionId, ShardId
from .settings import PlacementSettings

_MOVABLE = 0.75
"""Of a difference, the most a partition may weigh that is moved for it. More, and the two shards would almost
change places; with this, the difference at least halves or loses twice the partition's weight."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A shard that was considered for a partition and not taken."""

    shard: ShardId
    reason: str


@dataclass(frozen=True, slots=True)
class Placing:
    """One decision: a partition that was put somewhere or moved."""

    partition: PartitionId
    weight: int
    shard: ShardId
    before: ShardId | None
    """Where it was; None if nowhere, or on a shard that is gone."""
    reason: str
    rejected: tuple[Rejection, ...] = ()

    @property
    def is_move(self) -> bool:
        """Whether it had a shard that could have kept it."""
        return self.before is not None


@dataclass(frozen=True, slots=True)
class Plan:
    """A placement and how it came about."""

    placement: Mapping[PartitionId, ShardId]
    placings: tuple[Placing, ...]
    loads: Mapping[ShardId, int]
    """Weight on each shard under the placement."""
    uneven: bool
    """The loads would justify moves: none were allowed, or not enough."""

    def explain(self) -> tuple[str, ...]:
        """The plan for people, one decision a line, each followed by its rejected candidates."""
        lines = []
        for placing in self.placings:
            origin = f" from {placing.before}" if placing.before else ""
            lines.append(
                f"{placing.partition} (weight {placing.weight}){origin} -> {placing.shard}: {placing.reason}"
            )
            lines += [f"  not {rejection.shard}: {rejection.reason}" for rejection in placing.rejected]
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
) -> Plan:
    """Places every partition of `weights` on one of `shards`.

    Args:
        weights: weight of each partition, at least 1.
        shards: those that may get partitions; with none, nothing is placed.
        current: where partitions are now; entries for other partitions or shards count as absent.
        settings: tolerance and worth of a move.
        moves: how many partitions may leave a shard that could keep them.
        unavailable: shards that may not get any, with the reason, for the explanation.
    """
    work = _Work(shards, unavailable or {})
    homeless = []
    for partition in sorted(weights):
        shard = current.get(partition)
        if shard is not None and shard in work.loads:
            work.put(partition, weights[partition], shard)
        else:
            homeless.append(partition)
    if not work.loads:
        return Plan({}, (), {}, uneven=False)
    for partition in sorted(homeless, key=lambda partition: (-weights[partition], partition)):
        work.settle(partition, weights[partition])
    uneven = work.even_out(settings, moves)
    return Plan(
        dict(sorted(work.placement.items())), tuple(work.decisions.values()), dict(work.loads), uneven
    )


class _Work:
    """A placement being made."""

    def __init__(self, shards: Iterable[ShardId], unavailable: Mapping[ShardId, str]) -> None:
        self.loads: dict[ShardId, int] = dict.fromkeys(shards, 0)
        self.placement: dict[PartitionId, ShardId] = {}
        self.decisions: dict[PartitionId, Placing] = {}
        self._held: dict[ShardId, dict[PartitionId, int]] = {shard: {} for shard in self.loads}
        self._order = {shard: at for at, shard in enumerate(self.loads)}
        self._unavailable = unavailable

    def put(self, partition: PartitionId, weight: int, shard: ShardId) -> None:
        """Puts a partition somewhere, without reason."""
        self.placement[partition] = shard
        self.loads[shard] += weight
        self._held[shard][partition] = weight

    def settle(self, partition: PartitionId, weight: int) -> None:
        """Puts a partition without a shard on the lightest one."""
        shard = self._lightest()
        load = self.loads[shard]

        def why_not(other: ShardId) -> str:
            if self.loads[other] > load:
                return f"weighs {self.loads[other]}, {shard} only {load}"
            return f"weighs as little as {shard}, which holds fewer partitions or comes first"

        reason = f"the lightest, at {load} before it"
        self.decisions[partition] = Placing(
            partition, weight, shard, None, reason, self._rejections(shard, why_not)
        )
        self.put(partition, weight, shard)

    def even_out(self, settings: PlacementSettings, moves: int) -> bool:
        """Moves up to `moves` partitions; True if more would be in order."""
        average = sum(self.loads.values()) / len(self.loads)
        while True:
            heavy, light = self._heaviest(), self._lightest()
            difference = self.loads[heavy] - self.loads[light]
            fills_empty = not self._held[light] and len(self._held[heavy]) > 1
            if difference <= average * settings.tolerance:
                return False
            if difference < settings.worth_weight and not fills_empty:
                return False
            most = difference * _MOVABLE
            movable = {partition: weight for partition, weight in self._held[heavy].items() if weight <= most}
            if not movable:
                return False
            if sum(decision.is_move for decision in self.decisions.values()) >= moves:
                # What has been decided about already may still change: that costs no further move.
                movable = {
                    partition: weight for partition, weight in movable.items() if partition in self.decisions
                }
                if not movable:
                    return True
            chosen = min(movable, key=lambda partition: (abs(2 * movable[partition] - difference), partition))
            self._move(chosen, heavy, light)

    def _move(self, partition: PartitionId, heavy: ShardId, light: ShardId) -> None:
        difference = self.loads[heavy] - self.loads[light]
        weight = self._held[heavy].pop(partition)
        decided = self.decisions.pop(partition, None)
        origin = decided.before if decided else heavy

        def why_not(other: ShardId) -> str:
            if other == heavy:
                return f"weighs {difference} more than {light}"
            return f"weighs {self.loads[other]}, {light} only {self.loads[light]}"

        rejected = self._rejections(light, why_not)
        self.loads[heavy] -= weight
        if light != origin:
            reason = f"{heavy} weighs {difference} more than {light}"
            self.decisions[partition] = Placing(partition, weight, light, origin, reason, rejected)
        self.put(partition, weight, light)

    def _lightest(self) -> ShardId:
        return min(
            self.loads, key=lambda shard: (self.loads[shard], len(self._held[shard]), self._order[shard])
        )

    def _heaviest(self) -> ShardId:
        return max(
            self.loads, key=lambda shard: (self.loads[shard], len(self._held[shard]), -self._order[shard])
        )

    def _rejections(self, chosen: ShardId, reason: Callable[[ShardId], str]) -> tuple[Rejection, ...]:
        considered = [Rejection(shard, reason(shard)) for shard in self.loads if shard != chosen]
        considered += [Rejection(shard, why) for shard, why in self._unavailable.items()]
        return tuple(considered)
