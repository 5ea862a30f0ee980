"""What people ordered, kept above what planning says: pinned partitions, pinned cuts, drained shards. Pure.

Level-triggered like planning: it is put on top of the orders of every pass. A pin whose shard cannot take the
partition (it is away, or drained) waits without effect. Of a pinned cut the parts go where planning has them; those it
does not know yet go, the rest ahead, to where their source is and then to the shards with the fewest parts of that
resource.

Nothing of it outlives the coordinator: where things are and how they are cut is learnt from the shards by a successor,
but not that somebody wanted it so.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

from ..shards.model.covers import disjoint
from ..shards.model.partitions import Everything, ExceptNamespaces, HashRange, Partition, PartitionId, ShardId
from ..shards.model.resources import Resource
from .cuts import Cut
from .planning.orders import Orders, Seat, Situation

DRAINED = "is drained"


class ByHand:
    """The pins there are."""

    def __init__(self) -> None:
        self.partitions: dict[PartitionId, ShardId] = {}
        self.cuts: dict[Resource, Cut] = {}
        self.drained: set[ShardId] = set()

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> tuple[str, ...]:
        """For people, one pin a line."""
        return (
            *(f"{partition} is pinned to {shard}" for partition, shard in self.partitions.items()),
            *(f"{resource} is pinned to the cut: {cut}" for resource, cut in self.cuts.items()),
            *(f"{shard} {DRAINED}" for shard in sorted(self.drained)),
        )

    def clear(self) -> None:
        """Forgets all pins; drained shards stay drained."""
        self.partitions.clear()
        self.cuts.clear()

    def reason(self, partitions: Iterable[Partition]) -> str:
        """Why these come about, if by an order; else empty."""
        for partition in partitions:
            cut = self.cuts.get(partition.resource)
            if partition.id in self.partitions:
                return "moved by hand"
            if cut is not None and partition.cover in cut.covers():
                return f"cut by hand: {cut}"
        return ""

    # -- what planning is told, and what is made of its answer -----------------------------------------------

    def situated(self, situation: Situation) -> Situation:
        """What planning is told: drained shards are to be left, pinned partitions go nowhere else."""
        seats = self.seats(situation.seats)
        takes = {seat.shard for seat in seats if seat.takes}
        barred = {partition: dict(shards) for partition, shards in situation.barred.items()}
        for partition, shard in self.partitions.items():
            if shard in takes:
                others = {
                    seat.shard: f"{partition} is pinned to {shard}" for seat in seats if seat.shard != shard
                }
                barred[partition] = others | barred.get(partition, {})
        followed = {divisible.resource for divisible in situation.resources}
        pinned = {resource: cut for resource, cut in self.cuts.items() if resource in followed}
        return dataclasses.replace(situation, seats=seats, barred=barred, pinned=pinned)

    def seats(self, seats: Iterable[Seat]) -> tuple[Seat, ...]:
        """With those to be left that are drained."""
        return tuple(
            dataclasses.replace(seat, leaving=seat.leaving or DRAINED) if seat.shard in self.drained else seat
            for seat in seats
        )

    def applied(self, orders: Orders, situation: Situation) -> Orders:
        """The orders with everything that was ordered by hand instead of what planning says of it."""
        followed = {divisible.resource for divisible in situation.resources}
        self.cuts = {resource: cut for resource, cut in self.cuts.items() if resource in followed}
        self._forget(orders, situation)
        if not self.cuts and not self.partitions:
            return orders
        takes = {seat.shard for seat in situation.seats if seat.takes}
        cuts = {**orders.cuts, **self.cuts}
        placement = dict(orders.placement)
        for resource, cut in self.cuts.items():
            parts = cut.partitions(resource)
            placement |= self._placed(parts, placement, situation)
        for partition, shard in self.partitions.items():
            if shard in takes:
                placement[partition] = shard
        return dataclasses.replace(
            orders, cuts=cuts, placement=placement, urgency=(*self.partitions, *orders.urgency)
        )

    def _forget(self, orders: Orders, situation: Situation) -> None:
        """Drops pins of partitions that neither are there nor are to be, and shards that have ended: another may get
        the name.
        """
        self.drained.intersection_update(seat.shard for seat in situation.seats)
        cuts = {**orders.cuts, **self.cuts}
        known = {partition.id for partition in situation.partitions if partition.resource not in self.cuts}
        known |= set(situation.promised)
        known |= {part.id for resource, cut in cuts.items() for part in cut.partitions(resource)}
        self.partitions = {
            partition: shard for partition, shard in self.partitions.items() if partition in known
        }

    def _placed(
        self, parts: Sequence[Partition], placement: dict[PartitionId, ShardId], situation: Situation
    ) -> dict[PartitionId, ShardId]:
        """Shards for those parts of a cut that have none."""
        placed = {
            part.id: situation.promised[part.id]
            for part in parts
            if part.id not in placement and part.id in situation.promised
        }
        new = [part for part in parts if part.id not in placement and part.id not in placed]
        takes = [seat.shard for seat in situation.seats if seat.takes]
        if not new or not takes:
            return placed
        counts: Counter[ShardId] = Counter()
        for part in parts:
            shard = placement.get(part.id) or placed.get(part.id)
            if shard is not None:
                counts[shard] += 1
        for part in sorted(new, key=_stays):
            sources = {
                situation.placement[old.id]: None
                for old in situation.partitions
                if old.id in situation.placement
                and old.resource == part.resource
                and not disjoint(old.cover, part.cover)
            }
            free = [shard for shard in sources if shard in takes and not counts[shard]]
            shard = free[0] if free else min(takes, key=lambda shard: (counts[shard], takes.index(shard)))
            placed[part.id] = shard
            counts[shard] += 1
        return placed


def _stays(part: Partition) -> bool:
    """The rest comes first, and so stays where its source is."""
    match part.cover:
        case Everything() | ExceptNamespaces() | HashRange(namespace=None):
            return False
        case _:
            return True
