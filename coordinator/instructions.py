"""What a coordinator sees and what it tells shards and routers: the values around `coordinator.decide`.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..shards.handle import Assignment
from ..shards.model.partitions import Epoch, Partition, PartitionId, ShardId
from ..shards.model.queries import PartitionStatistics, ShardStatistics
from .catalogue import Catalogue
from .routes import RouteTable
from .status import ShardState

NOTHING_PUBLISHED = Epoch(0)


@dataclass(frozen=True, slots=True)
class ShardView:
    """One shard as it was last heard of."""

    shard: ShardId
    state: ShardState
    fresh: bool
    """`statistics` were asked for after the last instruction to this shard was carried out: they may be
    compared with what it should hold, and it may be told the difference."""
    statistics: ShardStatistics | None = None
    answered_at: float | None = None
    """When `statistics` came."""
    leaving: bool = False
    """To end once others serve what it has."""

    @property
    def lives(self) -> bool:
        """Whether it may go on serving what it has."""
        return self.state in ("healthy", "suspect")

    def holds(self) -> dict[PartitionId, PartitionStatistics]:
        """What it holds, by what it said last; nothing for a shard that is not believed to live."""
        if self.statistics is None or not self.lives:
            return {}
        return {entry.partition: entry for entry in self.statistics.partitions}


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything one decision rests on."""

    now: float
    """Seconds of a monotonic clock."""
    catalogue: Catalogue | None
    """None until discovery has succeeded once."""
    partitions: tuple[Partition, ...]
    """The partitions of the catalogue."""
    weights: Mapping[PartitionId, int]
    shards: tuple[ShardView, ...]
    server_version: bytes = b""
    routers_epoch: Epoch = NOTHING_PUBLISHED
    """The newest epoch a router has shown: greater than ours if a predecessor published it."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Follow these; what is followed already, and unchanged, only takes the epoch."""

    shard: ShardId
    assignments: tuple[Assignment, ...]
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Publish:
    """Make this the route table."""

    table: RouteTable


@dataclass(frozen=True, slots=True)
class Release:
    """Forget these; others serve them, or nobody is to."""

    shard: ShardId
    partitions: tuple[PartitionId, ...]
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class Retire:
    """End a shard that is to leave and serves nothing any more."""

    shard: ShardId


@dataclass(frozen=True, slots=True)
class Move:
    """A partition passes from one shard to another with the next table."""

    partition: PartitionId
    giver: ShardId
    to: ShardId


def moves(before: RouteTable, after: RouteTable) -> tuple[Move, ...]:
    """What passes from shard to shard between two tables."""
    givers = {route.partition.id: route.shard for route in before.routes}
    return tuple(
        Move(route.partition.id, givers[route.partition.id], route.shard)
        for route in after.routes
        if givers.get(route.partition.id, route.shard) != route.shard
    )


def inherited(views: Iterable[ShardView], after: RouteTable) -> tuple[Move, ...]:
    """What may pass with the first table of a coordinator: nobody knows which holder its predecessor's table named."""
    to = {route.partition.id: route.shard for route in after.routes}
    return tuple(
        Move(partition, view.shard, to[partition])
        for view in views
        for partition in view.holds()
        if to.get(partition, view.shard) != view.shard
    )


Instruction: TypeAlias = Adopt | Publish | Release | Retire
