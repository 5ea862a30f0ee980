"""What one pass of the coordinator sees, so that it can be asked: which copies there are, and how they are. Pure.

Two kinds of answers. `state` and `synced` are what a shard said last, also one that is silent just now. `heard` says
whether that is an answer to the present: a shard that is healthy and was asked after it was told something last. What
is *lost* or *over* is concluded from the second kind alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..shards.model.partitions import Epoch, Partition, PartitionId, ShardId
from ..shards.model.queries import PartitionStatistics
from ..shards.model.resources import Resource, ResourceType
from .catalogue import Catalogue
from .handoff import Copy
from .instructions import Observation, ShardView


class Sight:
    """One observation."""

    def __init__(self, seen: Observation, catalogue: Catalogue) -> None:
        self.seen = seen
        self.now = seen.now
        self.catalogue = catalogue
        self.types: Mapping[Resource, ResourceType] = {known.resource: known for known in catalogue.followed}
        self.views: Mapping[ShardId, ShardView] = {view.shard: view for view in seen.shards}
        self.held: Mapping[ShardId, Mapping[PartitionId, PartitionStatistics]] = {
            view.shard: view.holds() for view in seen.shards
        }

    # -- shards ----------------------------------------------------------------------------------------------

    def lives(self, shard: ShardId) -> bool:
        """Whether a shard may go on serving what it has."""
        view = self.views.get(shard)
        return view is not None and view.lives

    def healthy(self, shard: ShardId) -> bool:
        """Whether a shard answers."""
        view = self.views.get(shard)
        return view is not None and view.state == "healthy"

    def heard(self, shard: ShardId) -> bool:
        """Whether it answers and what it said is of after it was told something last; so it may be told more."""
        view = self.views.get(shard)
        return view is not None and view.state == "healthy" and view.fresh

    def incarnation(self, shard: ShardId) -> str:
        """Which process it is, by what it said last; empty if it never said anything."""
        view = self.views.get(shard)
        return view.statistics.incarnation if view is not None and view.statistics is not None else ""

    # -- copies ----------------------------------------------------------------------------------------------

    def entry(self, copy: Copy) -> PartitionStatistics | None:
        """What its shard said of it; None if it is not there."""
        return self.held.get(copy.shard, {}).get(copy.partition.id)

    def synced(self, copy: Copy) -> bool:
        """Whether it is complete, by what its shard said last."""
        entry = self.entry(copy)
        return entry is not None and entry.state == "synced"

    def state(self, copy: Copy) -> str:
        """Its state, by what its shard said last; empty if it is not there."""
        entry = self.entry(copy)
        return entry.state if entry else ""

    def standing_still(self, copy: Copy) -> bool:
        """Whether it was handed over and not adopted again since, by what its shard said last."""
        entry = self.entry(copy)
        return entry is not None and entry.handed_over

    def lost(self, copy: Copy) -> bool:
        """Whether it is certainly not complete any more: its shard is dead, or was started again."""
        if not self.lives(copy.shard):
            return True
        return self.heard(copy.shard) and not self.synced(copy)

    def cleared(self, copy: Copy) -> bool:
        """Whether it is certainly not there any more."""
        if not self.lives(copy.shard):
            return True
        return self.heard(copy.shard) and self.entry(copy) is None

    def holders(self, partition: PartitionId) -> Iterator[ShardId]:
        """Shards that hold it."""
        return (shard for shard, entries in self.held.items() if partition in entries)

    def highest_epoch(self) -> Epoch:
        """The highest that any shard or router has shown."""
        reported: Iterable[Epoch] = (
            entry.epoch
            for view in self.seen.shards
            if view.statistics is not None
            for entry in view.statistics.partitions
        )
        return max(self.seen.routers_epoch, *reported, Epoch(0))

    def copies_of(self, partition: Partition) -> tuple[Copy, ...]:
        """All copies of a partition."""
        return tuple(Copy(partition, shard) for shard in self.holders(partition.id))
