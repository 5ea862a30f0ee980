"""What each partition weighs: by its load as measured (`planning.loads`), or a guess by kind until there is one.

Pure; time is passed in. The weight is a whole number of "objects at rest", so that comparing weights is exact. It is
what is balanced over shards; how much a shard can take, and when a partition is too much for one, is `planning`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..shards.model.partitions import HASH_END, HashRange, OneNamespace, Partition, PartitionId
from ..shards.model.queries import ShardStatistics
from .planning.loads import OBJECT_BYTES, Loads
from .planning.measures import Load
from .settings import CutSettings, PlacementSettings, ScalingSettings

HINTS = {
    "pods": 8000,
    "events": 8000,
    "replicasets": 3000,
    "leases": 2000,
    "endpointslices": 2000,
    "endpoints": 1500,
    "configmaps": 1500,
    "secrets": 1500,
    "nodes": 1500,
    "jobs": 1500,
    "deployments": 1000,
    "services": 600,
    "controllerrevisions": 500,
    "serviceaccounts": 500,
    "rolebindings": 400,
}
"""Guesses by plural name, for the first placement only: the proportions of common clusters. They keep the two
or three kinds that will be large from being put on one shard."""
_HINT = 50
"""Every other kind."""


class Census:
    """Loads and weights of all partitions."""

    def __init__(
        self,
        settings: PlacementSettings,
        scaling: ScalingSettings | None = None,
        cutting: CutSettings | None = None,
    ) -> None:
        self.loads = Loads(settings, scaling, cutting)
        self._settings = settings
        self._dropped_cost = (cutting or CutSettings()).dropped_cost

    def take(self, statistics: ShardStatistics, now: float) -> None:
        """Takes in what one shard reports. A partition that is not complete yet says nothing about its weight."""
        self.loads.take(statistics, now)

    def keep_only(self, partitions: Iterable[PartitionId]) -> None:
        """Forgets all other partitions."""
        self.loads.keep_only(partitions)

    def load(self, partition: PartitionId) -> Load | None:
        """The last load measured. It outlives the shard it was measured on."""
        return self.loads.load(partition)

    def weight(self, partition: Partition) -> int:
        """At least 1."""
        load = self.loads.load(partition.id)
        return (
            self.weight_of(load) if load is not None else self._settings.partition_weight + _hint(partition)
        )

    def weight_of(self, load: Load) -> int:
        """What a partition with this load weighs."""
        settings = self._settings
        events = load.events_per_s + self._dropped_cost * load.dropped_per_s
        work = events * settings.event_weight + load.queries_per_s * settings.query_weight
        return (
            settings.partition_weight
            + load.objects
            + load.body_bytes // settings.bytes_per_weight
            + math.ceil(max(work, load.cpu * settings.core_weight))
        )

    def weigh(self, name: PartitionId, partition: Partition) -> tuple[int, int]:
        """Weight, and bytes it takes."""
        load = self.loads.load(name)
        if load is not None:
            return self.weight_of(load), load.memory_bytes
        hint = _hint(partition)
        return self._settings.partition_weight + hint, 2 * OBJECT_BYTES * hint


def _hint(partition: Partition) -> int:
    hint = HINTS.get(partition.resource.name, _HINT)
    match partition.cover:
        case HashRange(low=low, high=high):
            return max(hint * (high - low) // HASH_END, 1)
        case OneNamespace():
            # Who carves a namespace out does so because much of the resource is in it.
            return hint // 2
    return hint
