"""The route table: which shard serves which partition, as one immutable value with an epoch.

Published by the coordinator whenever it changes; routers keep the newest they have seen and never go back to
an older epoch. The catalogue travels with it, so that one value answers "what is there, and who has it".
"""

from __future__ import annotations

import msgspec

from ..shards.model.partitions import Epoch, Partition, ShardId
from ..shards.model.resources import Resource, ResourceType


class Route(msgspec.Struct, frozen=True):
    """A partition and the shard that serves it."""

    partition: Partition
    shard: ShardId


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """All routes of one epoch."""

    epoch: Epoch = Epoch(0)
    """0: nothing published yet."""
    catalogue: tuple[ResourceType, ...] = ()
    """The resources followed."""
    routes: tuple[Route, ...] = ()
    shards: tuple[ShardId, ...] = ()
    """All shards, also those that serve nothing."""
    server_version: bytes = b""
    """Body of the API server's ``/version``, mirrored by the gateway."""
    excluded: tuple[tuple[str, str], ...] = ()
    """Resources discovered and not followed, each with the reason."""

    def of(self, resource: Resource, namespace: str | None = None) -> tuple[Route, ...]:
        """Routes that can hold objects of `resource` in `namespace` (None: in any)."""
        return tuple(
            route
            for route in self.routes
            if route.partition.resource == resource and route.partition.may_hold(namespace)
        )

    def resource_type(self, resource: Resource) -> ResourceType | None:
        """What is known of a resource, or None if it is not followed."""
        return next((known for known in self.catalogue if known.resource == resource), None)
