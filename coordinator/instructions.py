"""What a coordinator sees and what it tells shards and routers: the values around `coordinator.decide`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ..shards.handle import Assignment
from ..shards.model.partitions import Epoch, PartitionId, ShardId
from ..shards.model.queries import PartitionStatistics, ShardStatistics
from ..shards.model.transfers import Sources
from .catalogue import Catalogue
from .handoff import Copy
from .planning.orders import Divisible
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
    resources: tuple[Divisible, ...]
    """The resources of the catalogue, and how each may be cut."""
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
    sources: Mapping[PartitionId, Sources] = field(default_factory=dict)
    """Where those are to be received from that others hold."""


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
class Passing:
    """Objects pass from some copies to others. Givers let nobody be shown anything any more, and say how far they are
    and what was shown; takers learn of it. Nobody may be sent to the takers before that.
    """

    givers: tuple[Copy, ...]
    takers: tuple[Copy, ...]
    epoch: Epoch
    """Above all that givers were told before."""
    silent: tuple[Copy, ...] = ()
    """Givers whose shards are dead: they are not asked, and nobody knows what they let be shown."""
    strangers: bool = False
    """There may have been givers that nobody knows of: what was shown is not known, whatever the others say."""


@dataclass(frozen=True, slots=True)
class Switch:
    """Carry a passing out, beside everything else, and tell its outcome (`Decider.switched`) at once."""

    number: int
    """Of the hand-off; 0: what a predecessor left behind."""
    attempt: int
    passing: Passing
    lenient: bool = False
    """Givers that do not answer count as dead: nobody can say what they let be shown. Takers always have to answer."""


Instruction: TypeAlias = Adopt | Publish | Release | Retire | Switch
