"""What a coordinator that comes back learns from the shards: who serves what, and how resources are cut. Pure.

Of one resource several sets of copies may be there that each cover it: its predecessor died in the middle of a
hand-off. Of every object one copy is to be served, so of copies that overlap some are chosen: a set that is complete
and covers what all of them do; if there is none, as many objects as possible of those that are complete. Copies that
go on come before those that stand still (they were handed over, so others serve), then those of which a later epoch
was heard. What is still being received was never published and counts for nothing. What no chosen copy covers (its
shard died as well) is added to the cut and is nobody's yet: a copy that lives always has its place.

Limit: copies that contradict each other are weighed one part of the resource at a time, `_CHOICES_MAX` choices at
most; what hand-offs leave behind has two or three.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice, product
from typing import Final, NamedTuple

from ..shards.model.covers import disjoint
from ..shards.model.partitions import HASH_END, Cover, ExceptNamespaces, HashRange, OneNamespace, PartitionId
from ..shards.model.queries import PartitionStatistics
from ..shards.model.resources import Resource
from .cuts import Cut
from .handoff import Copy

__all__ = ["Learnt", "Witness", "cut_around", "learn"]

_CHOICES_MAX: Final = 512
_BEST: Final = 4
"""Choices of one part that are tried with those of others."""
_UNFINISHED: Final = ("arriving", "stranded")


class Witness(NamedTuple):
    """A copy that is there."""

    copy: Copy
    entry: PartitionStatistics

    @property
    def rank(self) -> tuple[int, int]:
        """Greater is better."""
        match self.entry:
            case PartitionStatistics(state="synced", handed_over=False):
                worth = 3
            case PartitionStatistics(state="synced"):
                worth = 2
            case _:
                worth = 1
        return worth, int(self.entry.epoch)

    @property
    def complete(self) -> bool:
        """Whether it has all there is to serve."""
        return self.entry.state == "synced"


class Learnt(NamedTuple):
    """How a resource is cut, and who serves it."""

    cut: Cut
    copies: tuple[Copy, ...]
    """At most one of each partition of the cut; the others are nobody's."""


def learn(resource: Resource, witnesses: Iterable[Witness]) -> Learnt | None:
    """What is so, by those who hold something of the resource; None if nobody does."""
    best: dict[PartitionId, Witness] = {}
    for witness in witnesses:
        if witness.entry.state in _UNFINISHED:
            continue
        known = best.get(witness.copy.partition.id)
        if known is None or witness.rank > known.rank:
            best[witness.copy.partition.id] = witness
    chosen = _fitting([_choose(part) for part in _contradicting(list(best.values()))])
    chosen.sort(key=lambda witness: (witness.rank, witness.entry.objects, witness.copy.partition.id))
    while chosen:  # if nothing fits, the worst goes until the rest does
        cut = _cut(chosen)
        if cut is not None:
            order = {partition.id: at for at, partition in enumerate(cut.partitions(resource))}
            copies = sorted((witness.copy for witness in chosen), key=lambda copy: order[copy.partition.id])
            return Learnt(cut, tuple(copies))
        chosen.pop(0)
    return None


def cut_around(covers: Collection[Cover]) -> Cut | None:
    """The coarsest cut that has all these among its covers; None if there is none."""
    bounds: dict[str, set[int]] = {}
    rest: set[int] = set()
    field = "uid"
    for cover in covers:
        match cover:
            case OneNamespace(namespace=name):
                bounds.setdefault(name, set())
            case ExceptNamespaces(namespaces=names):
                for name in names:
                    bounds.setdefault(name, set())
            case HashRange(namespace=str(name), low=low, high=high):
                bounds.setdefault(name, set()).update((low, high))
            case HashRange(field=field, low=low, high=high, excluded=names):
                rest.update((low, high))
                for name in names:
                    bounds.setdefault(name, set())
            case _:
                pass
    cut = Cut().split_rest(field, _inner(rest))
    for name, cuts in bounds.items():
        cut = cut.split_namespace(name, _inner(cuts))
    return cut if set(covers) <= set(cut.covers()) else None


def _inner(bounds: Iterable[int]) -> tuple[int, ...]:
    return tuple(bound for bound in sorted(bounds) if 0 < bound < HASH_END)


def _contradicting(witnesses: Sequence[Witness]) -> list[list[Witness]]:
    """The witnesses in groups: those of different groups contradict each other in nothing."""
    groups: list[list[Witness]] = []
    for witness in witnesses:
        touched = [group for group in groups if any(_overlap(witness, other) for other in group)]
        merged = [witness, *(other for group in touched for other in group)]
        groups = [group for group in groups if group not in touched] + [merged]
    return groups


def _overlap(a: Witness, b: Witness) -> bool:
    return not disjoint(a.copy.partition.cover, b.copy.partition.cover)


def _choose(group: list[Witness]) -> list[list[Witness]]:
    """Those of a group that may be believed together: the best choices, the very best first."""
    if len(group) == 1:
        return [group]
    group = sorted(group, key=lambda witness: (witness.rank, witness.copy.partition.id), reverse=True)
    against = {
        at: frozenset(
            other for other in range(len(group)) if other != at and _overlap(group[at], group[other])
        )
        for at in range(len(group))
    }
    choices = ([group[at] for at in choice] for choice in _choices(range(len(group)), against))
    return sorted(choices, key=lambda few: _worth(few, group), reverse=True)[:_BEST]


def _fitting(parts: Sequence[Sequence[list[Witness]]]) -> list[Witness]:
    """Of each part the best choice; if these do not fit into one cut, the best ones that do."""
    best = [witness for choices in parts for witness in choices[0]]
    if _cut(best) is not None:
        return best
    for choice in islice(product(*parts), _CHOICES_MAX):
        together = [witness for few in choice for witness in few]
        if _cut(together) is not None:
            return together
    return best


def _cut(witnesses: Iterable[Witness]) -> Cut | None:
    return cut_around([witness.copy.partition.cover for witness in witnesses])


class _Worth(NamedTuple):
    """How good a choice is, what counts most first."""

    whole: bool
    """It is complete and covers what the group does."""
    goes_on: bool
    """... and none of it stands still."""
    objects: int
    """Of those that are complete; of choices that are whole it does not matter."""
    complete: int
    """How many are."""
    full: bool
    """It covers what the group does."""
    epoch: int


def _worth(few: Sequence[Witness], group: Sequence[Witness]) -> _Worth:
    covers = {witness.copy.partition.cover for witness in few}
    cut = cut_around(covers)
    missing = set(cut.covers()) - covers if cut is not None else None
    full = missing is not None and all(
        disjoint(hole, witness.copy.partition.cover) for hole in missing for witness in group
    )
    whole = full and all(witness.complete for witness in few)
    complete = [witness for witness in few if witness.complete]
    return _Worth(
        whole=whole,
        goes_on=whole and not any(witness.entry.handed_over for witness in few),
        objects=0 if whole else sum(witness.entry.objects for witness in complete),
        complete=0 if whole else len(complete),
        full=full,
        epoch=min(int(witness.entry.epoch) for witness in few),
    )


def _choices(members: Iterable[int], against: Mapping[int, frozenset[int]]) -> Iterable[tuple[int, ...]]:
    """Sets of members that do not contradict each other and cannot be added to; the best members first."""
    stack: list[tuple[tuple[int, ...], frozenset[int]]] = [((), frozenset(members))]
    seen = 0
    while stack and seen < _CHOICES_MAX:
        chosen, left = stack.pop()
        free = [member for member in sorted(left) if not against[member] & left]
        chosen, left = (*chosen, *free), left.difference(free)
        if not left:
            seen += 1
            yield chosen
            continue
        first = min(left)
        # Without `first` at least one of those against it is taken, or `first` could be added again.
        stack += [
            ((*chosen, other), left - against[other] - {other})
            for other in sorted(against[first] & left, reverse=True)
        ]
        stack.append(((*chosen, first), left - against[first] - {first}))
