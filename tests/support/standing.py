"""A planner of settings alone, for tests of what carries plans out: resources cut as the settings carve them or people
ordered it, partitions placed by `place`, moves only after an imbalance has lasted. It cuts nothing by load and wants
neither more nor fewer shards.
"""

from collections.abc import Callable, Mapping

from shoal.coordinator.cuts import Cut
from shoal.coordinator.placement import Plan, place
from shoal.coordinator.planning.orders import Divisible, Orders, Situation
from shoal.coordinator.planning.seating import Rules
from shoal.coordinator.settings import PlacementSettings
from shoal.coordinator.wanting import settled_cut
from shoal.shards.model.covers import disjoint
from shoal.shards.model.partitions import Partition, PartitionId, ShardId
from shoal.shards.model.resources import Resource


class StandingPlanner:
    """Orders by settings and weights."""

    def __init__(self, settings: PlacementSettings, weigh: Callable[[Partition], int]) -> None:
        """`weigh` tells the weight of a partition, at least 1."""
        self._settings = settings
        self._weigh = weigh
        self._goal: dict[PartitionId, ShardId] = {}
        self._uneven_since: float | None = None
        self._hurried = False

    def orders(self, situation: Situation) -> Orders:
        if not any(seat.takes for seat in situation.seats):
            # Without any candidate what is placed stays as it is.
            return Orders(cuts=self._cuts(situation), placement={**situation.placement, **self._goal})
        under_way = sum(
            self._goal.get(partition, shard) != shard for partition, shard in situation.placement.items()
        )
        moves = 0 if self._waits(situation) else max(self._settings.moves_at_once - under_way, 0)
        plan = self._plan(situation, moves)
        if not plan.uneven:
            self._uneven_since = None
        elif self._uneven_since is None:
            self._uneven_since = situation.now
        self._hurried = False
        return self._ordered(situation, plan, keep=True)

    def rebalanced(self, situation: Situation) -> Orders:
        return self._ordered(situation, self._plan(situation, len(situation.partitions)), keep=False)

    def hurry(self) -> None:
        self._hurried = True

    def _waits(self, situation: Situation) -> bool:
        if situation.unsettled:
            return True
        if self._hurried:
            return False
        since = self._uneven_since
        return since is None or situation.now - since < self._settings.settle_s

    def _cuts(self, situation: Situation) -> dict[Resource, Cut]:
        present: dict[Resource, set[Partition]] = {}
        for partition in situation.partitions:
            present.setdefault(partition.resource, set()).add(partition)
        cuts = {one.resource: _cut(one, situation) for one in situation.resources}
        return {
            resource: cut
            for resource, cut in cuts.items()
            if present.get(resource) != set(cut.partitions(resource))
        }

    def _plan(self, situation: Situation, moves: int) -> Plan:
        """Where everything that is wanted, and what is there until then, should be."""
        seats = {seat.shard: seat for seat in situation.seats}
        wanted = self._wanted(situation)
        inherited = self._heirs(situation, wanted)
        current: dict[PartitionId, ShardId] = {}
        fixed: dict[PartitionId, ShardId] = {}
        for partition in (*wanted, *(old for old in situation.partitions if old not in wanted)):
            barred = situation.barred.get(partition.id, {})
            for shard in (
                self._goal.get(partition.id) if partition in wanted else None,
                situation.promised.get(partition.id),
                situation.placement.get(partition.id),
                inherited.get(partition.id),
            ):
                seat = seats.get(shard) if shard is not None and shard not in barred else None
                if seat is None or seat.leaving or seat.state not in ("healthy", "suspect"):
                    continue
                if seat.state == "suspect":
                    fixed[partition.id] = seat.shard
                else:
                    current[partition.id] = seat.shard
                break
        weights = {partition.id: self._weigh(partition) for partition in wanted if partition.id not in fixed}
        for old in situation.partitions:
            if old not in wanted and old.id not in current and old.id not in fixed:
                weights[old.id] = self._weigh(old)  # its shard is gone before its parts are made of it
        plan = place(
            weights,
            [seat.shard for seat in situation.seats if seat.takes],
            current,
            self._settings,
            moves=moves,
            unavailable={seat.shard: seat.refusal for seat in situation.seats if not seat.takes},
            rules=Rules(barred=situation.barred),
        )
        placement = {
            **{old: shard for old, shard in current.items() if old not in weights},
            **plan.placement,
            **fixed,
        }
        for partition_id, shard in plan.placement.items():
            owner = situation.placement.get(partition_id)
            owned = seats.get(owner) if owner is not None else None
            if shard in situation.barred.get(partition_id, {}) and owned is not None and owned.takes:
                placement[partition_id] = owned.shard  # rather where it is than where it cannot get to
        return Plan(placement, plan.placings, plan.loads, plan.uneven)

    def _wanted(self, situation: Situation) -> tuple[Partition, ...]:
        return tuple(
            partition
            for divisible in situation.resources
            for partition in _cut(divisible, situation).partitions(divisible.resource)
        )

    def _heirs(self, situation: Situation, wanted: tuple[Partition, ...]) -> Mapping[PartitionId, ShardId]:
        """Of what is cut anew, where the heaviest part of each partition stays: on its shard."""
        heirs: dict[PartitionId, ShardId] = {}
        there = {partition.id for partition in situation.partitions}
        new = [partition for partition in wanted if partition.id not in there]
        olds = [old for old in situation.partitions if old not in wanted and old.id in situation.placement]
        for old in sorted(olds, key=lambda old: (self._weigh(old), old.id)):
            parts = [
                part for part in new if part.resource == old.resource and not disjoint(part.cover, old.cover)
            ]
            if parts:
                heir = max(parts, key=lambda part: (self._weigh(part), part.id))
                heirs[heir.id] = situation.placement[old.id]
        return heirs

    def _ordered(self, situation: Situation, plan: Plan, *, keep: bool) -> Orders:
        if keep:
            self._goal = {
                partition.id: plan.placement[partition.id]
                for partition in self._wanted(situation)
                if partition.id in plan.placement
            }
        return Orders(
            cuts=self._cuts(situation),
            placement=plan.placement,
            urgency=tuple(placing.partition for placing in plan.placings),
            plan=plan,
        )


def _cut(divisible: Divisible, situation: Situation) -> Cut:
    return situation.pinned.get(divisible.resource) or settled_cut(divisible)
