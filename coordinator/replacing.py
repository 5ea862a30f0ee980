"""How what is served becomes what is wanted, resource by resource: at once, by a hand-off, or later. Pure.

Where old copies are complete there is something to hand over, and nothing is replaced without. Where none of them is,
the new ones take their place at once and list the API server; but a complete copy that happens to be on another shard
comes first, by a hand-off without anybody to give (a *rescue*), because it has to learn that nobody knows what was
shown. Where some are complete and some are not, the latter are waited for (or, if their shards are dead, listed
elsewhere): what is whole cannot be received from a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .differences import Difference, differences
from .handoff import Copy, HandOff
from .planning.orders import Orders
from .sight import Sight
from .wanting import NOBODY, Wish, after


@dataclass(slots=True)
class Replacing:
    """One resource in one pass."""

    copies: tuple[Copy, ...]
    """What is to be routed."""
    openings: list[Difference] = field(default_factory=list)
    """What could be handed over."""
    rescues: list[Difference] = field(default_factory=list)
    """What nobody has any more, and another shard by chance."""
    postponed: list[str] = field(default_factory=list)
    """What should change and cannot yet, with the reason."""


def replace(
    sight: Sight,
    served: Sequence[Copy],
    wished: Wish,
    handoff: HandOff | None,
    orders: Orders,
    *,
    set_back: bool = False,
) -> Replacing:
    """What is routed of a resource from now on, and what could be handed over; after a setback no rescue is tried."""
    if not served:
        return Replacing(wished.copies, postponed=[wished.why] if wished.why else [])
    if handoff is not None and handoff.state == "taken":
        served = after(served, handoff)
    busy = {*handoff.leaving, *handoff.arriving} if handoff is not None else set()
    copies = list(served)
    result = Replacing((), postponed=[wished.why] if wished.why else [])
    if handoff is None and not set_back:
        result.rescues = [Difference((copy,), (other,)) for copy in served if (other := _rescue(sight, copy))]
        busy = {copy for difference in result.rescues for copy in difference.leaving}
    for difference in differences(copies, wished.copies) if not wished.why else ():
        if busy.intersection(difference.leaving):
            continue
        complete = [copy for copy in difference.leaving if sight.synced(copy)]
        if not complete:
            if away := [copy for copy in difference.arriving if not sight.lives(copy.shard)]:
                result.postponed.append(f"{away[0].shard} is away, where {away[0].partition.id} is to go")
                continue
            copies = [copy for copy in copies if copy not in difference.leaving]
            copies += difference.arriving
        elif len(complete) == len(difference.leaving):
            result.openings.append(difference)
        else:
            copies = [_revived(sight, copy, difference, orders) for copy in copies]
            waits = ", ".join(str(copy) for copy in difference.leaving if copy not in complete)
            result.postponed.append(f"{waits} has to be complete before it is handed over")
    if any(copy.shard == NOBODY for copy in copies):
        result.postponed.append(f"there is no shard for {_nobodys(copies)}")
        # It belongs to one that is away: readers of that part wait, as long as nobody can have it, and others do not.
        dead = next((view.shard for view in sight.seen.shards if not view.lives), None)
        copies = (
            [copy._replace(shard=dead) if copy.shard == NOBODY else copy for copy in copies] if dead else []
        )
    result.copies = tuple(copies)
    return result


def _rescue(sight: Sight, copy: Copy) -> Copy | None:
    """Of a copy whose shard is dead a complete one on another shard that stays."""
    if sight.lives(copy.shard):
        return None
    for other in sight.copies_of(copy.partition):
        if sight.heard(other.shard) and not sight.views[other.shard].leaving and sight.synced(other):
            return other
    return None


def _revived(sight: Sight, copy: Copy, difference: Difference, orders: Orders) -> Copy:
    """An old copy that is waited for, on another shard if its own is dead."""
    if copy not in difference.leaving or sight.lives(copy.shard):
        return copy
    shard = orders.placement.get(copy.partition.id)
    return copy if shard is None or not sight.lives(shard) else Copy(copy.partition, shard)


def _nobodys(copies: Sequence[Copy]) -> str:
    return ", ".join(copy.partition.id for copy in copies if copy.shard == NOBODY)
