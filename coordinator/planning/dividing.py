"""How much of a partition lies in which part of it, by its profile; and where to cut so that parts are even. Pure.

A profile names the namespaces with the most load and counts objects and events by the top byte of their hashes. From
both a `Mass` is made: how the weight lies along the 2^64 hashes, exactly for namespaces that are named (all of one lies
at one hash), evenly within each 256th for the rest. Limits: what a namespace takes that is too small to be named is
not known, and it is taken for nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ...shards.model.covers import contains, disjoint
from ...shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    Cover,
    HashRange,
    OneNamespace,
    Partition,
    hashed,
)
from ...shards.model.resources import Resource
from ...shards.model.transfers import NamespaceLoad, Profile

_BUCKET = HASH_END // 256
_ANY = Resource("", "v1", "any")
_LEAST_PART = 0.1
"""Of its fair share: a part with less is none."""


@dataclass(frozen=True, slots=True)
class Share:
    """A fraction of a partition, 0 to 1 each."""

    objects: float
    bytes: float
    events: float
    """Also of what events and queries cost."""

    def of(self, other: float) -> Share:
        """So much of this."""
        return Share(self.objects * other, self.bytes * other, self.events * other)


ALL, NOTHING = Share(1.0, 1.0, 1.0), Share(0.0, 0.0, 0.0)


def share_of(cover: Cover, profile: Profile | None, part: Cover) -> Share:
    """How much of what lies in `cover` lies in `part` too; a guess by the width of both where there is no profile."""
    if contains(part, cover):
        return ALL
    if disjoint(part, cover):
        return NOTHING
    if profile is None or not profile.objects:
        guess = _width(part) / _width(cover)
        return ALL.of(min(guess, 1.0))
    share = namespaces_share(profile, part)
    if isinstance(part, HashRange) and part.field == "uid":
        mass = Mass.of(profile, "uid")
        return share.of(mass.between(part.low, part.high) / mass.total if mass.total else 0.0)
    return share


def namespaces_share(profile: Profile, part: Cover) -> Share:
    """How much lies in namespaces that `part` is of, whatever the uids."""
    partition = Partition(_ANY, part)
    within = [one for one in profile.namespaces if partition.may_hold(one.name)]
    share = _sum_share(profile, within)
    other = _sum_share(profile, (profile.other,))
    match part:
        case OneNamespace() | HashRange(namespace=str()):
            return share  # who is not named has next to nothing
        case HashRange(field="namespace", low=low, high=high):
            rest = Mass.of(profile, "namespace", named=False)
            other = other.of(rest.between(low, high) / rest.total if rest.total else 0.0)
    return Share(share.objects + other.objects, share.bytes + other.bytes, share.events + other.events)


def namespace_share(profile: Profile, one: NamespaceLoad) -> Share:
    """How much of a profile is one namespace."""
    return _sum_share(profile, (one,))


def _sum_share(profile: Profile, few: Iterable[NamespaceLoad]) -> Share:
    few = tuple(few)
    events_total = sum(one.events for one in profile.namespaces) + profile.other.events
    objects = sum(one.objects for one in few) / profile.objects if profile.objects else 0.0
    size = sum(one.bytes for one in few) / profile.bytes if profile.bytes else objects
    # Where nothing happened while it was watched, every object is as likely to change as any other.
    events = sum(one.events for one in few) / events_total if events_total else objects
    return Share(objects, size, events)


def _width(cover: Cover) -> float:
    """A part of everything, for want of anything better."""
    match cover:
        case OneNamespace():
            return 0.5
        case HashRange(low=low, high=high, namespace=only):
            return (high - low) / HASH_END * (0.5 if only is not None else 1.0)
    return 1.0 if cover == EVERYTHING else 0.5


@dataclass(frozen=True, slots=True)
class Mass:
    """Weight along the hashes: segments in order, each evenly filled; of a single hash ``low == high``."""

    segments: tuple[tuple[int, int, float], ...]
    """From, to, weight."""
    sums: tuple[float, ...]
    """Weight up to the beginning of each segment, and at last of all."""

    @classmethod
    def of(
        cls, profile: Profile, field: str, *, named: bool = True, without: frozenset[str] = frozenset()
    ) -> Mass:
        """Of a profile, by ``uid`` or ``namespace``; `without` some namespaces, or those that are `named`."""
        if field == "uid":
            return cls.made(
                (at * _BUCKET, (at + 1) * _BUCKET, float(w)) for at, w in enumerate(profile.uid_weights)
            )
        buckets = [float(weight) for weight in profile.namespace_weights]
        points: list[tuple[int, int, float]] = []
        for one in profile.namespaces:
            at, weight = hashed(one.name), float(one.objects + one.events)
            buckets[at // _BUCKET] = max(buckets[at // _BUCKET] - weight, 0.0)
            if named and one.name not in without:
                points.append((at, at, weight))
        even = ((at * _BUCKET, (at + 1) * _BUCKET, weight) for at, weight in enumerate(buckets))
        return cls.made((*even, *points))

    @classmethod
    def made(cls, segments: Iterable[tuple[int, int, float]]) -> Mass:
        """Of segments in any order; a point may lie within another, which it then divides."""
        whole = [segment for segment in segments if segment[2] > 0]
        points = sorted(segment for segment in whole if segment[0] == segment[1])
        found: list[tuple[int, int, float]] = list(points)
        for low, high, weight in whole:
            if low == high:
                continue
            cuts = [low, *(at for at, _, _ in points if low < at < high), high]
            for left, right in pairwise(cuts):
                if right > left:
                    found.append((left, right, weight * (right - left) / (high - low)))
        found.sort()
        return cls(tuple(found), tuple(accumulate((weight for _, _, weight in found), initial=0.0)))

    @property
    def total(self) -> float:
        """All of it."""
        return self.sums[-1]

    def below(self, bound: int) -> float:
        """Weight of the hashes below `bound`."""
        at = bisect_right(self.segments, (bound, -1, 0.0))
        if at == 0:
            return 0.0
        low, high, weight = self.segments[at - 1]
        if bound >= high and not (low == high == bound):
            return self.sums[at]
        return self.sums[at - 1] + (weight * (bound - low) / (high - low) if high > low else 0.0)

    def between(self, low: int, high: int) -> float:
        """Weight of the hashes in ``[low, high)``."""
        return self.below(high) - self.below(low)

    def bounds(self, low: int, high: int, parts: int) -> tuple[int, ...]:
        """Interior cut points that divide ``[low, high)`` into parts as even as its weight allows, `parts` at most:
        fewer if much of it lies at one hash. Without any weight, into parts of equal width.
        """
        start, weight = self.below(low), self.between(low, high)
        least = weight / parts * _LEAST_PART
        found: list[int] = []
        for number in range(1, parts):
            even = low + (high - low) * number // parts
            bound = self._at(start + weight * number / parts) if weight > 0 else even
            last = found[-1] if found else low
            worth = not weight or min(self.between(last, bound), self.between(bound, high)) > least
            if last < bound < high and worth:
                found.append(bound)
        return tuple(found)

    def _at(self, sum_wanted: float) -> int:
        """The hash below which there is about this much."""
        at = min(max(bisect_right(self.sums, sum_wanted) - 1, 0), len(self.segments) - 1)
        low, high, weight = self.segments[at]
        into = (sum_wanted - self.sums[at]) / weight
        if low == high:
            return low if into < 0.5 else low + 1
        return low + int((high - low) * min(into, 1.0))
