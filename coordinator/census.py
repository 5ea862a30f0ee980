"""What each partition weighs: a load measured from its shard's statistics, or a guess by kind until there is
one.

Pure; time is passed in. The weight is a whole number of "objects at rest", so that comparing loads is exact.
The last measurement outlives the shard it came from: a partition that has to be listed again weighs what it
did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..shards.model.partitions import OneNamespace, Partition, PartitionId, ShardId
from ..shards.model.queries import PartitionStatistics, ShardStatistics
from .settings import PlacementSettings

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


@dataclass(frozen=True, slots=True)
class Load:
    """What is known about one partition."""

    objects: int
    body_bytes: int
    events_per_s: float
    """Smoothed."""


@dataclass(slots=True)
class _Count:
    """The last reading of an event counter, to tell a rate from the next one."""

    shard: ShardId
    incarnation: str
    events: int
    at: float


class Census:
    """Loads of all partitions."""

    def __init__(self, settings: PlacementSettings) -> None:
        self._settings = settings
        self._loads: dict[PartitionId, Load] = {}
        self._counts: dict[PartitionId, _Count] = {}

    def take(self, statistics: ShardStatistics, now: float) -> None:
        """Takes in what one shard reports. A partition that is not complete yet says nothing about its
        weight.
        """
        shard = ShardId(statistics.shard)
        for entry in statistics.partitions:
            if entry.state == "synced":
                self._take_partition(entry, shard, statistics.incarnation, now)

    def keep_only(self, partitions: Iterable[PartitionId]) -> None:
        """Forgets all other partitions."""
        kept = set(partitions)
        for gone in [known for known in self._loads if known not in kept]:
            del self._loads[gone]
            self._counts.pop(gone, None)

    def load(self, partition: PartitionId) -> Load | None:
        """The last load measured."""
        return self._loads.get(partition)

    def weight(self, partition: Partition) -> int:
        """At least 1."""
        load = self._loads.get(partition.id)
        if load is None:
            hint = HINTS.get(partition.resource.name, _HINT)
            # Who carves a namespace out does so because much of the resource is in it.
            return self._settings.partition_weight + (
                hint // 2 if isinstance(partition.cover, OneNamespace) else hint
            )
        return (
            self._settings.partition_weight
            + load.objects
            + load.body_bytes // self._settings.bytes_per_weight
            + math.ceil(load.events_per_s * self._settings.event_weight)
        )

    def _take_partition(
        self, entry: PartitionStatistics, shard: ShardId, incarnation: str, now: float
    ) -> None:
        events = sum(count for kind, count in entry.events.items() if kind != "bookmark")
        before = self._counts.get(entry.partition)
        old = self._loads.get(entry.partition)
        rate = old.events_per_s if old else 0.0
        if (
            before is not None
            and (before.shard, before.incarnation) == (shard, incarnation)
            and now > before.at
            and events >= before.events
        ):
            passed_s = now - before.at
            share = 1.0 - math.exp(-passed_s / self._settings.smoothing_s)
            rate += share * ((events - before.events) / passed_s - rate)
        self._counts[entry.partition] = _Count(shard, incarnation, events, now)
        self._loads[entry.partition] = Load(entry.objects, entry.body_bytes, rate)
