"""What should be served, copy by copy, as a planner has it; and which hand-offs are wanted no more. Pure.

Orders are sparse: a resource they do not name stays as it is cut, or as the hand-off under way cuts it; one that
nobody serves yet begins as the settings cut it. A copy that orders find no shard for stays where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ..shards.model.partitions import Partition, ShardId
from ..shards.model.resources import Resource
from .cuts import WHOLE, Cut
from .handoff import Copy, HandOff
from .planning.orders import Divisible, Orders, Situation

NOBODY = ShardId("")
"""The shard of what is nobody's: its cut is known, and no copy."""


class Planner(Protocol):
    """Says what should be so; asked once a pass."""

    def orders(self, situation: Situation) -> Orders:
        """What should be so, given what is."""

    def rebalanced(self, situation: Situation) -> Orders:
        """What would be wanted if nothing had to last or to rest first; changes nothing."""

    def hurry(self) -> None:
        """The next orders are such ones."""


def settled_cut(divisible: Divisible) -> Cut:
    """How a resource is cut by the settings alone."""
    cut = WHOLE
    for name in divisible.carved if divisible.namespaced else ():
        cut = cut.carve(name)
    return cut


class Wish(NamedTuple):
    """What should be so of one resource."""

    copies: tuple[Copy, ...]
    """They divide it; empty if that cannot be."""
    why: str = ""
    """Why it cannot."""


def cut_of(copies: Sequence[Copy]) -> Cut | None:
    """How a resource is cut by these; None if they do not divide it."""
    return Cut.of(copy.partition.cover for copy in copies)


def wish(divisible: Divisible, served: Sequence[Copy], handoff: HandOff | None, orders: Orders) -> Wish:
    """What should be so of a resource of which these are served now."""
    resource = divisible.resource
    cut = orders.cuts.get(resource)
    if cut is None and handoff is not None and handoff.keeps_arriving:
        cut = cut_of(after(served, handoff))
    if cut is None:
        cut = cut_of(served) or settled_cut(divisible)
    there = {copy.partition.id: copy.shard for copy in served if copy.shard != NOBODY}
    copies = []
    for partition in cut.partitions(resource):
        shard = orders.placement.get(partition.id, there.get(partition.id))
        if shard is None:
            return Wish((), f"there is no shard for {partition.id}")
        copies.append(Copy(partition, shard))
    return Wish(tuple(copies))


def after(served: Sequence[Copy], handoff: HandOff) -> tuple[Copy, ...]:
    """What is served once a hand-off is published."""
    if handoff.published:
        return tuple(served)
    return (*(copy for copy in served if copy not in handoff.leaving), *handoff.arriving)


def unwanted(
    handoff: HandOff, types: Mapping[Resource, object], served: Sequence[Copy], wished: Wish | None
) -> str:
    """Why a hand-off is wanted no more; empty if it is."""
    if handoff.resource not in types:
        return f"{handoff.resource} is not followed any more"
    if handoff.published or not handoff.keeps_arriving:
        return ""
    if gone := [copy for copy in handoff.leaving if copy not in served]:
        return f"{', '.join(str(copy) for copy in gone)} is not what is served any more"
    if handoff.frozen or wished is None or wished.why:
        return ""
    if other := [copy for copy in handoff.arriving if copy not in wished.copies]:
        return f"{', '.join(str(copy) for copy in other)} is not wanted any more"
    return ""


def unplaced(partitions: Sequence[Partition], copies: Sequence[Copy]) -> tuple[Copy, ...]:
    """All partitions of a cut, those without a copy as nobody's."""
    there = {copy.partition.id: copy for copy in copies}
    return tuple(there.get(partition.id, Copy(partition, NOBODY)) for partition in partitions)
