"""What is served compared with what should be: the smallest sets of copies that can be replaced by themselves. Pure.

Both sides divide the same resource. Copies that are on both are left alone; the others fall into groups that have no
object in common, so that each can be published without the others and all covers divide the resource at every time.
What is served then is a `Cut` again, which is how everybody speaks of it; groups that only make one together are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..shards.model.covers import disjoint
from ..shards.model.transfers import Source
from .cuts import Cut
from .handoff import Copy


class Difference(NamedTuple):
    """Copies, and those that should be there instead; together they cover the same objects."""

    leaving: tuple[Copy, ...]
    arriving: tuple[Copy, ...]

    @property
    def recuts(self) -> bool:
        """Whether other partitions are made of it, and not only copies on other shards."""
        return {copy.partition for copy in self.leaving} != {copy.partition for copy in self.arriving}


def differences(served: Iterable[Copy], wanted: Iterable[Copy]) -> tuple[Difference, ...]:
    """Everything that is to be replaced, in the order of what is wanted."""
    served, wanted = tuple(served), tuple(wanted)
    kept = set(served).intersection(wanted)
    leaving = [copy for copy in served if copy not in kept]
    arriving = [copy for copy in wanted if copy not in kept]
    groups: list[tuple[list[Copy], list[Copy]]] = []
    for new in arriving:
        olds = [old for old in leaving if overlap(old, new)]
        touched = [group for group in groups if any(old in group[0] for old in olds)]
        merged_olds = [old for group in touched for old in group[0]]
        merged_olds += [old for old in olds if old not in merged_olds]
        merged_news = [*(one for group in touched for one in group[1]), new]
        groups = [group for group in groups if group not in touched] + [(merged_olds, merged_news)]
    found = _made_cuts([Difference(tuple(olds), tuple(news)) for olds, news in groups], served)
    order = {copy: at for at, copy in enumerate(wanted)}
    return tuple(sorted(found, key=lambda difference: min(order[new] for new in difference.arriving)))


def _made_cuts(found: list[Difference], served: Sequence[Copy]) -> list[Difference]:
    """Those that cut otherwise as one, unless each of them alone leads to a cut."""
    recuts = [difference for difference in found if difference.recuts]

    def leads_to_one(difference: Difference) -> bool:
        kept = [copy.partition.cover for copy in served if copy not in difference.leaving]
        return Cut.of([*kept, *(copy.partition.cover for copy in difference.arriving)]) is not None

    if len(recuts) < 2 or all(leads_to_one(difference) for difference in recuts):
        return found
    together = Difference(
        tuple(copy for difference in recuts for copy in difference.leaving),
        tuple(copy for difference in recuts for copy in difference.arriving),
    )
    return [together, *(difference for difference in found if not difference.recuts)]


def overlap(a: Copy, b: Copy) -> bool:
    """Whether one object can be in both."""
    return a.partition.resource == b.partition.resource and not disjoint(a.partition.cover, b.partition.cover)


def sources_of(new: Copy, leaving: Sequence[Copy]) -> tuple[Source, ...]:
    """Where a new copy is received from."""
    return tuple(Source(old.shard, old.partition.id) for old in leaving if overlap(old, new))
