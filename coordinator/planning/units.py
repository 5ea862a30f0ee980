"""What there should be of everything, as far as a look has come: cuts, copies, weights, where copies are. Pure.

Every copy of a partition is a *unit*: the one that serves has the partition's own id, further ones have ``#1``, ``#2``
appended, which no id contains. If the shard that serves is gone and another copy lives, that one takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ...shards.model.covers import disjoint
from ...shards.model.partitions import EVERYTHING, Partition, PartitionId, ShardId
from ...shards.model.resources import Resource
from ..census import Census
from ..cuts import WHOLE, Cut
from .cutting import Cutter, Facts, Named
from .orders import Seat, Situation

_LIVING = ("healthy", "suspect")


def copy_of(partition: PartitionId, number: int) -> PartitionId:
    """The unit of a further copy; they are counted from 1."""
    return PartitionId(f"{partition}#{number}")


@dataclass(slots=True)
class Units:
    """All units there should be."""

    situation: Situation
    cuts: dict[Resource, Cut] = field(default_factory=dict)
    """How each resource should be cut."""
    recut: dict[Resource, Cut] = field(default_factory=dict)
    """Of these, those that are not so yet."""
    partitions: dict[PartitionId, Partition] = field(default_factory=dict)
    """Of each unit."""
    names: dict[PartitionId, PartitionId] = field(default_factory=dict)
    """The partition's id, of each unit."""
    sources: dict[PartitionId, PartitionId] = field(default_factory=dict)
    """Of what a cut makes: the largest of those it is made of."""
    weights: dict[PartitionId, int] = field(default_factory=dict)
    memory: dict[PartitionId, int] = field(default_factory=dict)
    """Bytes."""
    where: dict[PartitionId, ShardId] = field(default_factory=dict)
    """Who has it now."""
    copies: bool = False
    """Whether anything has more than one copy."""
    promoted: set[PartitionId] = field(default_factory=set)
    """Partitions whose place another copy takes."""
    outgoing: dict[PartitionId, Partition] = field(default_factory=dict)
    """Partitions that are served until their resource is cut otherwise."""

    def all_names(self) -> set[PartitionId]:
        """Ids of all partitions there are and should be."""
        return {*self.names.values(), *self.outgoing}


def units_of(situation: Situation, cutter: Cutter, census: Census) -> Units:
    """Decides about cuts, and makes the units of what comes of it."""
    units = Units(situation)
    served: dict[Resource, list[Named]] = {}
    for partition in situation.partitions:
        served.setdefault(partition.resource, []).append((partition.id, partition))
    living = {seat.shard for seat in situation.seats if seat.state in _LIVING}
    lost = frozenset(
        name for few in served.values() for name, _ in few if situation.placement.get(name) not in living
    )
    for divisible in situation.resources:
        resource = divisible.resource
        here = tuple(served.get(resource, ()))
        present = _present(here)
        facts = Facts(
            divisible, present, situation.recutting.get(resource), situation.pinned.get(resource), here, lost
        )
        wanted = units.cuts[resource] = cutter.decide(facts, situation.now)
        made = here
        if wanted != present:
            made = tuple((one.id, one) for one in wanted.partitions(resource))
            if here:
                units.recut[resource] = wanted
                census.loads.expect((one for _, one in made), {one: name for name, one in here})
                _note_sources(units, made, here, census)
        for name, partition in made:
            units.partitions[name] = partition
            units.names[name] = name
            for number in range(1, divisible.replicas + 1):
                unit = copy_of(name, number)
                units.partitions[unit] = partition
                units.names[unit] = name
                units.copies = True
    _weigh(units, census)
    _note_places(units)
    return units


def _present(here: tuple[Named, ...]) -> Cut | None:
    if len(here) == 1 and here[0][1].cover == EVERYTHING:
        return WHOLE  # by far the most frequent case
    return Cut.of(one.cover for _, one in here) if here else None


def _note_sources(units: Units, made: Iterable[Named], here: tuple[Named, ...], census: Census) -> None:
    made = tuple(made)
    wanted, known = {name for name, _ in made}, {name for name, _ in here}
    for name, new in made:
        if name not in known:
            overlapping = [named for named in here if not disjoint(named[1].cover, new.cover)]
            if overlapping:
                units.sources[name] = max(overlapping, key=lambda old: (census.weight(old[1]), old[0]))[0]
    units.outgoing.update(named for named in here if named[0] not in wanted)


def _weigh(units: Units, census: Census) -> None:
    for unit, partition in units.partitions.items():
        name = units.names[unit]
        if name not in units.weights:
            units.weights[name], units.memory[name] = census.weigh(name, partition)
        units.weights[unit], units.memory[unit] = units.weights[name], units.memory[name]


def _note_places(units: Units) -> None:
    situation = units.situation
    for name, shard in situation.placement.items():
        if name in units.partitions:
            units.where[name] = shard
    if not situation.replicas:
        return
    lives = {seat.shard for seat in situation.seats if seat.state in _LIVING}
    for name, copies in situation.replicas.items():
        if name not in units.partitions:
            continue
        left = list(copies)
        if units.where.get(name) not in lives:
            heir = next((shard for shard in left if shard in lives), None)
            if heir is not None:
                left.remove(heir)
                units.where[name] = heir
                units.promoted.add(name)
        for number, shard in enumerate(left, 1):
            if copy_of(name, number) in units.partitions:
                units.where[copy_of(name, number)] = shard


def seats_by_name(seats: Iterable[Seat]) -> Mapping[ShardId, Seat]:
    """The same, to be looked up."""
    return {seat.shard: seat for seat in seats}
