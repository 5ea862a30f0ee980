"""How a partition that is too hot for one shard could be cut, and what came of each way that was tried. Pure.

Ways, in order: carve out its hottest namespaces, the fewest that bring the rest below `CutSettings.part_below`, and
none that is cold; ranges of hashes with cut points weighed by the profile, where the API server selects by hash; the
same where it does not, if it is worth what it costs: every range then receives the events of all and drops what is not
its own. A namespace that is too hot by itself gets ranges of uid.

A cut that leaves a part almost as hot as what it divides helps nobody and is not proposed. Only what is hot changes:
cut points are added to its range, and the other ranges of the resource stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from ...shards.model.partitions import HASH_END, HashRange, OneNamespace, Partition
from ...shards.model.transfers import NamespaceLoad, Profile
from ..cuts import Cut
from ..settings import CutSettings
from .dividing import Mass, Share, namespace_share
from .heat import Heat, Limits, filtered_part, part_of
from .measures import Load
from .orders import Divisible

_WORTH = 0.75
"""The hottest part a cut makes must take at most this fraction of what is cut."""
_LEAST_ALONE = 0.2
"""Of ``carve_above``: what a namespace must take where there are no ranges that the API server selects by."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be cut."""

    resource: Divisible
    partition: Partition
    load: Load
    profile: Profile | None
    cut: Cut
    """How the resource is cut now."""
    limits: Limits
    settings: CutSettings
    blind: bool = False
    """Nobody has it, so that nobody can tell where its load is: it is cut evenly then."""

    @property
    def heat(self) -> Heat:
        """Of the partition, now."""
        return self.limits.now(self.load)

    @property
    def least(self) -> float:
        """Heat of the coldest namespace that is worth a partition. Where the API server does not select by hash, colder
        ones are: each is sent nothing but its own, which ranges are not.
        """
        least = self.settings.carve_above
        return least if self.resource.selects else least * _LEAST_ALONE

    def heat_of(self, share: Share) -> Heat:
        """Of a part of it."""
        return self.limits.now(part_of(self.load, share))


class Proposal(NamedTuple):
    """A cut, and why."""

    cut: Cut
    hottest: float
    """Heat of the hottest part it makes."""
    reason: str


@dataclass(slots=True)
class Found:
    """What came of all ways."""

    proposal: Proposal | None = None
    rejected: list[str] = field(default_factory=list)


class _Ranges(NamedTuple):
    bounds: tuple[int, ...]
    hottest: Heat
    cost: str
    """What it costs beside; empty where the server selects."""


def propose(subject: Subject) -> Found:
    """The first way that helps, and why the ways before it did not."""
    found = Found()
    if subject.profile is None and subject.blind:
        found.proposal = _cut_in_ranges(subject, None, found.rejected)
        return found
    if subject.profile is None:
        found.rejected.append("not cut yet: where its load is has not been reported")
        return found
    carved = _carve(subject, subject.profile, found.rejected)
    if carved is not None and carved.hottest <= subject.settings.split_above:
        found.proposal = carved
        return found
    ranges = _cut_in_ranges(subject, subject.profile, found.rejected)
    both = [proposal for proposal in (carved, ranges) if proposal is not None]
    found.proposal = min(both, key=lambda proposal: proposal.hottest) if both else None
    return found


# -- namespaces ----------------------------------------------------------------------------------------------


def _carve(subject: Subject, profile: Profile, rejected: list[str]) -> Proposal | None:
    cover, settings = subject.partition.cover, subject.settings
    if isinstance(cover, OneNamespace) or (isinstance(cover, HashRange) and cover.namespace is not None):
        return None
    if not subject.resource.namespaced:
        rejected.append("no namespace carved out: it has none")
        return None
    if isinstance(cover, HashRange) and cover.field == "uid":
        rejected.append("no namespace carved out: its ranges are of uid, and all of them would change")
        return None
    chosen, rest = _hottest_namespaces(subject, profile)
    if not chosen:
        rejected.append(_why_none(subject, profile))
        return None
    cut = subject.cut
    hottest = COLDEST
    named = []
    for one, heat in chosen:
        cut = cut.carve(one.name)
        named.append(f"{one.name} ({heat})")
        if heat.value > settings.split_above:
            ranges = _ranges_of_namespace(subject, profile, one, rejected)
            if ranges is not None:
                cut, heat = cut.split_namespace(one.name, ranges.bounds), ranges.hottest  # noqa: PLW2901
                named[-1] += f" in {len(ranges.bounds) + 1} ranges of uid{ranges.cost}"
        hottest = max(hottest, heat)
    hottest = max(hottest, rest)
    reason = f"{_too_hot(subject)}; carved out: {', '.join(named)}; left: {rest.value:.0%}"
    return _if_worth(subject, Proposal(cut, hottest.value, reason), rejected, "carving namespaces out")


COLDEST = Heat(0.0, "CPU")


def _hottest_namespaces(subject: Subject, profile: Profile) -> tuple[list[tuple[NamespaceLoad, Heat]], Heat]:
    """The fewest that bring the rest below the aim, and the rest."""
    settings = subject.settings
    ranked = sorted(
        ((one, subject.heat_of(namespace_share(profile, one))) for one in profile.namespaces),
        key=lambda pair: (-pair[1].value, pair[0].name),
    )
    taken = Share(0.0, 0.0, 0.0)
    rest = subject.heat
    chosen: list[tuple[NamespaceLoad, Heat]] = []
    for one, heat in ranked:
        full = len(subject.cut.carved) + len(chosen) >= settings.carved_max
        if rest.value <= settings.part_below or heat.value < subject.least or full:
            break
        share = namespace_share(profile, one)
        taken = Share(taken.objects + share.objects, taken.bytes + share.bytes, taken.events + share.events)
        chosen.append((one, heat))
        rest = subject.heat_of(
            Share(max(1 - taken.objects, 0.0), max(1 - taken.bytes, 0.0), max(1 - taken.events, 0.0))
        )
    return chosen, rest


def _why_none(subject: Subject, profile: Profile) -> str:
    settings = subject.settings
    if len(subject.cut.carved) >= settings.carved_max:
        return f"no namespace carved out: {settings.carved_max} are already (cutting.carved_max)"
    ranked = sorted(
        ((subject.heat_of(namespace_share(profile, one)), one.name) for one in profile.namespaces),
        reverse=True,
    )
    if not ranked:
        return "no namespace carved out: nothing is in any"
    heat, name = ranked[0]
    return (
        f"no namespace carved out: the hottest, {name}, takes {heat}; from {subject.least:.0%} on it would be "
        "(cutting.carve_above)"
    )


# -- ranges --------------------------------------------------------------------------------------------------


def _ranges_of_namespace(
    subject: Subject, profile: Profile, one: NamespaceLoad, rejected: list[str]
) -> _Ranges | None:
    load = part_of(subject.load, namespace_share(profile, one))
    mass = Mass.of(profile, "uid")  # as even in one namespace as in all of them
    alone = replace(
        subject, partition=Partition(subject.resource.resource, OneNamespace(one.name)), load=load
    )
    return _ranges(alone, _Along(load, mass, "uid", 0, HASH_END, f"ranges of uid of {one.name}"), rejected)


def _cut_in_ranges(subject: Subject, profile: Profile | None, rejected: list[str]) -> Proposal | None:
    cover = subject.partition.cover
    found: list[tuple[_Ranges, Cut, str]] = []
    for name in _fields(subject):
        if profile is None and name != "uid":
            rejected.append(f"no ranges of {name}: how its namespaces lie is not known")
            continue
        mass = Mass.of(profile, name) if profile is not None else Mass.made([(0, HASH_END, 1.0)])
        low, high = (cover.low, cover.high) if isinstance(cover, HashRange) else (0, HASH_END)
        what = f"ranges of {name}"
        ranges = _ranges(subject, _Along(subject.load, mass, name, low, high, what), rejected)
        if ranges is not None:
            found.append((ranges, _with_ranges(subject, name, ranges.bounds), what))
            if ranges.hottest.value <= subject.settings.split_above:
                break
    if not found:
        return None
    ranges, cut, what = min(found, key=lambda one: one[0].hottest.value)
    parts = f"{len(ranges.bounds) + 1} {what}, the hottest {ranges.hottest.value:.0%}"
    reason = f"{_too_hot(subject)}; in {parts}{ranges.cost}"
    return _if_worth(subject, Proposal(cut, ranges.hottest.value, reason), rejected, what)


def _fields(subject: Subject) -> tuple[str, ...]:
    """What it may be cut by, what the server selects by before what it does not; namespaces before uids, because in
    ranges of these a name never changes its partition.
    """
    cover = subject.partition.cover
    match cover:
        case OneNamespace() | HashRange(namespace=str()):
            return ("uid",)
        case HashRange(field=name):
            return (name,)
    names = ("namespace", "uid") if subject.resource.namespaced else ("uid",)
    return tuple(sorted(names, key=lambda name: (name not in subject.resource.selects, name)))


def _with_ranges(subject: Subject, name: str, bounds: tuple[int, ...]) -> Cut:
    cover, cut = subject.partition.cover, subject.cut
    match cover:
        case OneNamespace(namespace=namespace) | HashRange(namespace=str(namespace)):
            own = next(one.bounds for one in cut.carved if one.name == namespace)
            return cut.split_namespace(namespace, sorted({*own, *bounds}))
    return cut.split_rest(name, sorted({*cut.rest_bounds, *bounds}))


class _Along(NamedTuple):
    """What is to be cut into ranges, and how its weight lies."""

    load: Load
    mass: Mass
    field: str
    low: int
    high: int
    what: str
    """For people."""


def _ranges(subject: Subject, along: _Along, rejected: list[str]) -> _Ranges | None:
    """The fewest ranges that bring each below the aim; if none do, those whose hottest is coldest."""
    settings, limits = subject.settings, subject.limits
    selects = along.field in subject.resource.selects
    there = _ranges_of_same(subject)
    most = settings.ranges_max - there
    heat = limits.now(along.load)
    if not selects:
        most = min(most, _most_filtered(subject, along.load, heat, there))
        if most < 2:
            rejected.append(_too_dear(subject, along, there))
            return None
    best: _Ranges | None = None
    for parts in range(max(2, min(math.ceil(heat.value / settings.part_below), most)), most + 1):
        bounds = along.mass.bounds(along.low, along.high, parts)
        if not bounds:
            continue
        hottest = max(_heats(subject, along, (along.low, *bounds, along.high), selects=selects))
        if best is None or hottest < best.hottest:
            best = _Ranges(bounds, hottest, "")
        if hottest.value <= settings.part_below:
            break
    if best is None:
        why = (
            f"{settings.ranges_max} there are already (cutting.ranges_max)"
            if most < 2
            else "it is all at one hash"
        )
        rejected.append(f"no {along.what}: {why}")
        return None
    cost = "" if selects else _cost(along.load, len(best.bounds) + 1 + there)
    if best.hottest.value > _WORTH * heat.value:
        rejected.append(
            f"no {along.what}: the hottest of {len(best.bounds) + 1} would still take {best.hottest}{cost}"
        )
        return None
    return best._replace(cost=cost)


def _heats(subject: Subject, along: _Along, edges: tuple[int, ...], *, selects: bool) -> list[Heat]:
    total = along.mass.between(edges[0], edges[-1])
    found = []
    for low, high in pairwise(edges):
        fraction = along.mass.between(low, high) / total if total else (high - low) / (edges[-1] - edges[0])
        share = Share(fraction, fraction, fraction)
        part = (
            part_of(along.load, share)
            if selects
            else filtered_part(along.load, share, subject.settings.dropped_cost)
        )
        found.append(subject.limits.now(part))
    return found


def _most_filtered(subject: Subject, load: Load, heat: Heat, there: int) -> int:
    """How many ranges what is cut may become where each is sent the events of all: dropping them must not take more,
    in all ranges together, than `CutSettings.waste_max` times what they are for.
    """
    settings = subject.settings
    received = load.events_now + load.dropped_per_s
    kept = replace(
        load, events_now=received, dropped_per_s=0.0, cpu_now=_kept_cpu(load, settings.dropped_cost)
    )
    each = settings.dropped_cost * max(kept.cpu_now / subject.limits.cpu, received / subject.limits.events)
    worth = heat.value * (there + 1) if heat.of == "memory" else subject.limits.now(kept).value
    if each <= 0.0:
        return settings.ranges_max
    return min(math.floor(1 + settings.waste_max * worth / each) - there, settings.ranges_max)


def _kept_cpu(load: Load, cost: float) -> float:
    """Cores it would take if what it drops were kept."""
    done = load.events_now + cost * load.dropped_per_s
    return load.cpu_now * (load.events_now + load.dropped_per_s) / done if done else load.cpu_now


def _too_dear(subject: Subject, along: _Along, there: int) -> str:
    settings = subject.settings
    return (
        f"no {along.what}: the API server does not select by hash, so each of {there + 2} would receive all events, "
        f"{along.load.events_now + along.load.dropped_per_s:,.0f} a second; dropping them (cutting.dropped_cost "
        f"{settings.dropped_cost:g} each) would take over {settings.waste_max:g} times the work (cutting.waste_max)"
    )


def _ranges_of_same(subject: Subject) -> int:
    """Ranges that what is cut is already one of, itself not counted."""
    match subject.partition.cover:
        case HashRange(namespace=str(namespace)):
            return next(len(one.bounds) for one in subject.cut.carved if one.name == namespace)
        case HashRange():
            return len(subject.cut.rest_bounds)
    return 0


def _cost(load: Load, ranges: int) -> str:
    mean = load.body_bytes / load.objects if load.objects else 0.0
    received = load.events_now + load.dropped_per_s
    return (
        f" (the API server does not select by hash: each of {ranges} receives all {received:,.0f} events/s and "
        f"drops those of the others, {received * mean * (ranges - 1) / 1024:,.0f} KiB/s compressed for nothing)"
    )


# -- words ---------------------------------------------------------------------------------------------------


def _too_hot(subject: Subject) -> str:
    limit = f"{subject.settings.split_above:.0%} (cutting.split_above)"
    return f"{subject.partition.id} takes {subject.heat}, above {limit}"


def _if_worth(subject: Subject, proposal: Proposal, rejected: list[str], what: str) -> Proposal | None:
    if proposal.hottest <= _WORTH * subject.heat.value and proposal.cut != subject.cut:
        return proposal
    rejected.append(f"not by {what}: its hottest part would still take {proposal.hottest:.0%} of a shard")
    return None
