"""Positions carried over to another division of the resource: what a continue token says of partitions that there are
no more, said of those there are now. Pure.

A new partition goes on at the version that the old ones its objects were in are pinned to: those of a partition that
was split, and a partition that was joined of parts pinned to *one* version. Its shard answers that state, because
history moves with the objects; where it did not, 410 as for any state that is forgotten. Parts pinned to different
versions are no one state of the new partition, so joining them ends the list with 410.

All objects that the list is about were in one of the partitions that its token names, because these were all that could
hold any. So a new partition is looked at only where it overlaps them; what else it holds is not asked for.

*Partial lists.* What a list goes on without stays missing, whatever it is divided into. A new partition that was joined
of missing and present parts is missing as a whole: each page says what it lacks, and pages that had some of a missing
part's objects behind others that lack them would look complete.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ...shards.model.covers import disjoint, parse_partition
from ...shards.model.errors import BadRequest
from ...shards.model.partitions import Cover, Partition, PartitionId
from ...shards.model.versions import Version
from .tokens import Position, continue_expired


def carried(position: Position, partitions: Collection[Partition], fingerprint: bytes) -> Position:
    """The position in terms of `partitions`, which are all that can hold objects of the list now.

    Raises:
        Expired: there is no one version for one of them.
    """
    now = {partition.id: partition.cover for partition in partitions}
    if (
        not position.parts
        or now.keys() == position.parts
        or (not position.pins and position.parts <= now.keys())
    ):
        return position
    try:
        old = {name: parse_partition(name).cover for name in position.parts - now.keys()}
    except BadRequest:
        raise continue_expired(position, fingerprint) from None
    pins: dict[PartitionId, Version] = {}
    missing: set[PartitionId] = set()
    for name, cover in now.items():
        held_by = {name} if name in position.parts else _overlapping(cover, old)
        versions = {position.pins[part] for part in held_by if part in position.pins}
        if held_by & set(position.missing):
            missing.add(name)
            if versions:
                pins[name] = min(versions)
        elif len(versions) == 1:
            pins[name] = versions.pop()
        elif position.pins:
            raise continue_expired(position, fingerprint)
    return replace(position, pins=pins, missing=tuple(sorted(missing)))


def _overlapping(cover: Cover, old: Mapping[PartitionId, Cover]) -> set[PartitionId]:
    return {name for name, known in old.items() if not disjoint(known, cover)}
