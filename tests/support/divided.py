"""Dividing a resource of a `LocalInstallation` anew: its shards give up the old partitions and hold the new ones, past
and all, as after a hand-off.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from support.local_shards import FakePartition, LocalInstallation

from shoal.coordinator.cuts import Cut
from shoal.coordinator.routes import Route
from shoal.shards.model.partitions import Partition, ShardId
from shoal.shards.model.refs import Key, ref_of
from shoal.shards.model.resources import ResourceType


def divide(installation: LocalInstallation, resource_type: ResourceType, cut: Cut) -> None:
    """Everything but publishing the routes. New partitions are dealt out to the shards in turn."""
    resource = resource_type.resource
    old = [
        installation.shards[route.shard].partitions.pop(route.partition.id)
        for route in installation.routes
        if route.partition.resource == resource
    ]
    installation.routes = [route for route in installation.routes if route.partition.resource != resource]
    names = list(installation.shards)
    for number, partition in enumerate(cut.partitions(resource)):
        shard = ShardId(names[number % len(names)])
        installation.shards[shard].partitions[partition.id] = joined(partition, old)
        installation.routes.append(Route(partition, shard))
    if resource_type not in installation.catalogue:
        installation.catalogue.append(resource_type)


def joined(partition: Partition, sources: Iterable[FakePartition]) -> FakePartition:
    """What `partition` holds of these, at every version that all of them remember."""
    sources = list(sources)
    made = FakePartition()
    versions = sorted({version for source in sources for version, _ in source.states})
    made.states = [(version, _at(partition, sources, version)) for version in versions]
    made.oldest = max(source.oldest for source in sources)
    return made


def _at(partition: Partition, sources: list[FakePartition], version: int) -> dict[Key, bytes]:
    admits = partition.cover.admits
    past = [next((state for at, state in reversed(source.states) if at <= version), {}) for source in sources]
    return {
        key: body
        for state in past
        for key, body in state.items()
        if admits(ref_of(key).namespace, json.loads(body)["metadata"]["uid"])
    }
