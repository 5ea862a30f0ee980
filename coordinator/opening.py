"""Which hand-offs begin now, and why the others do not. Pure.

Rescues come first and count for nothing: their partitions are served by nobody. Of the others the most urgent by the
orders begin, ``placement.moves_at_once`` at most under way, one of a resource at a time, none within the pause after
one that was given up, and none to or from a shard that is silent just now. Nor is anything received where it was
routed a moment ago: who has not heard of the newest table might still be shown something by that shard's leave.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from .by_hand import ByHand
from .differences import Difference
from .handoff import Copy
from .handoffs import HandOffs
from .planning.orders import Orders
from .replacing import Replacing
from .sight import Sight


class Opener:
    """Begins hand-offs in one pass."""

    def __init__(
        self, sight: Sight, handoffs: HandOffs, by_hand: ByHand, orders: Orders, at_once: int
    ) -> None:
        self._sight = sight
        self._handoffs = handoffs
        self._by_hand = by_hand
        self._orders = orders
        self._at_once = at_once

    def open(self, resources: Iterable[Replacing], relieved: Container[Copy]) -> list[str]:
        """Begins what may begin; why the rest does not, as sentences. `relieved` were routed until a moment ago."""
        resources = tuple(resources)
        for rescue in (one for resource in resources for one in resource.rescues):
            under_way = self._handoffs.of(rescue.arriving[0].partition.resource)
            if under_way is None and not any(copy in relieved for copy in rescue.arriving):
                self._begin(rescue, f"{rescue.leaving[0].shard} is away")
        urgency = {partition: at for at, partition in enumerate(self._orders.urgency)}

        def rank(difference: Difference) -> int:
            copies = (*difference.leaving, *difference.arriving)
            return min(urgency.get(copy.partition.id, len(urgency)) for copy in copies)

        postponed = []
        for opening in sorted((one for resource in resources for one in resource.openings), key=rank):
            why = self._not_yet(opening, relieved)
            if why:
                postponed.append(f"{', '.join(str(copy) for copy in opening.arriving)} waits: {why}")
            else:
                self._begin(opening, self._reason(opening))
        return postponed

    def _begin(self, difference: Difference, reason: str) -> None:
        self._handoffs.begin(difference.leaving, difference.arriving, reason, self._sight.now)

    def _not_yet(self, opening: Difference, relieved: Container[Copy]) -> str:
        """Why a hand-off does not begin now; empty if nothing stands against it."""
        resource = opening.arriving[0].partition.resource
        if self._handoffs.of(resource) is not None:
            return f"another hand-off of {resource} is under way"
        if setback := self._handoffs.setback(resource, self._sight.now):
            return f"the last hand-off of {resource} was given up: {setback.why}"
        if self._handoffs.unpublished >= self._at_once:
            return f"{self._handoffs.unpublished} hand-offs are under way (placement.moves_at_once)"
        if any(copy in relieved for copy in opening.arriving):
            return "readers may still be on their way to the copies that were there"
        for copy in (*opening.arriving, *opening.leaving):
            if not self._sight.healthy(copy.shard):
                return f"{copy.shard} does not answer"
        return ""

    def _reason(self, opening: Difference) -> str:
        if by_hand := self._by_hand.reason([copy.partition for copy in opening.arriving]):
            return by_hand
        if opening.recuts:
            cut = self._orders.cuts.get(opening.arriving[0].partition.resource)
            return f"the resource is to be cut: {cut}" if cut is not None else "the resource is cut"
        for copy in opening.leaving:
            if why := self._leaves(copy):
                return f"{copy.shard} {why}"
        planned = {placing.partition: placing.reason for placing in self._orders.plan.placings}
        reasons = [planned[copy.partition.id] for copy in opening.arriving if copy.partition.id in planned]
        return reasons[0] if reasons else "placement"

    def _leaves(self, copy: Copy) -> str:
        if copy.shard in self._by_hand.drained:
            return "is drained"
        return "is leaving" if self._sight.views[copy.shard].leaving else ""
