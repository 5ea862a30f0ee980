"""What is in the resources of a made-up installation, exactly: what each partition of them takes, and its profile.

Of each namespace so many objects, events and queries a second; uids are evenly hashed.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.coordinator.planning.orders import Divisible
from shoal.shards.model.partitions import (
    HASH_END,
    Cover,
    Everything,
    HashRange,
    OneNamespace,
    Partition,
    hashed,
)
from shoal.shards.model.resources import Resource
from shoal.shards.model.transfers import PROFILE_NAMESPACES, NamespaceLoad, Profile

EVENT_CPU_S = 45e-6
DROPPED_CPU_S = 15e-6
QUERY_CPU_S = 200e-6
OBJECT_BYTES = 1300
WINDOW_S = 60.0
"""Of profiles."""


@dataclass
class Namespace:
    """What is in one namespace of one resource."""

    objects: int
    events_per_s: float
    body_bytes: int = 400
    queries_per_s: float = 0.0


@dataclass
class Truth:
    """What a partition really takes."""

    objects: float = 0
    body_bytes: float = 0
    events_per_s: float = 0.0
    queries_per_s: float = 0.0
    received_per_s: float = 0.0
    """Events its shard receives for it."""

    @property
    def cpu(self) -> float:
        dropped = max(self.received_per_s - self.events_per_s, 0.0)
        return self.events_per_s * EVENT_CPU_S + dropped * DROPPED_CPU_S + self.queries_per_s * QUERY_CPU_S

    @property
    def memory(self) -> float:
        return self.objects * OBJECT_BYTES + self.body_bytes


@dataclass
class Kind:
    """A resource and what is in it."""

    divisible: Divisible
    namespaces: dict[str, Namespace]
    burst: float = 1.0
    """Events are multiplied by this."""

    def truth(self, cover: Cover) -> Truth:
        """What the part of it takes that is in a cover."""
        found = Truth()
        for name, one in self.namespaces.items():
            fraction = share(cover, name)
            events = one.events_per_s * self.burst
            found.objects += one.objects * fraction
            found.body_bytes += one.objects * fraction * one.body_bytes
            found.events_per_s += events * fraction
            found.queries_per_s += one.queries_per_s * fraction
            found.received_per_s += events * max(self._received(cover, name), fraction)
        return found

    def _received(self, cover: Cover, name: str) -> float:
        """How much of a namespace the API server sends to who follows a cover."""
        match cover:
            case HashRange(field=field_name) if field_name in self.divisible.selects:
                return share(cover, name)
            case HashRange(namespace=str(only)):
                return float(name == only)
            case HashRange(excluded=excluded):
                return float(name not in excluded)
        return share(cover, name)

    def profile(self, partition: Partition) -> Profile:
        """As a shard would tell it."""
        cover = partition.cover
        loads = []
        by_namespace = [0.0] * 256
        for name, one in self.namespaces.items():
            fraction = share(cover, name)
            objects = round(one.objects * fraction)
            events = round(one.events_per_s * self.burst * fraction * WINDOW_S)
            if objects or events:
                loads.append(NamespaceLoad(name, objects, objects * one.body_bytes, events))
                by_namespace[hashed(name) >> 56] += objects + events
        loads.sort(key=lambda load: (-load.events, -load.objects, load.name))
        rest = loads[PROFILE_NAMESPACES:]
        return Profile(
            partition=partition.id,
            objects=sum(load.objects for load in loads),
            bytes=sum(load.bytes for load in loads),
            seconds=WINDOW_S,
            namespaces=loads[:PROFILE_NAMESPACES],
            other=NamespaceLoad(
                "",
                sum(one.objects for one in rest),
                sum(one.bytes for one in rest),
                sum(one.events for one in rest),
            ),
            uid_weights=_by_uid(cover, sum(by_namespace)),
            namespace_weights=[round(weight) for weight in by_namespace],
        )


def kind(name: str, namespaces: dict[str, Namespace], **divisible: object) -> Kind:
    return Kind(Divisible(Resource("", "v1", name), **divisible), namespaces)


def share(cover: Cover, namespace: str) -> float:
    """How much of a namespace lies in a cover, uids being evenly hashed."""
    match cover:
        case Everything():
            return 1.0
        case OneNamespace(namespace=own):
            return float(own == namespace)
        case HashRange(field="namespace"):
            return float(cover.admits(namespace, ""))
        case HashRange(low=low, high=high, namespace=only, excluded=excluded):
            if namespace in excluded or (only is not None and only != namespace):
                return 0.0
            return (high - low) / HASH_END
    return float(cover.admits(namespace, ""))


def _by_uid(cover: Cover, total: float) -> list[int]:
    low, high = 0, HASH_END
    if isinstance(cover, HashRange) and cover.field == "uid":
        low, high = cover.low, cover.high
    edges = [(max(low, bucket << 56), min(high, (bucket + 1) << 56)) for bucket in range(256)]
    return [round(total * max(right - left, 0) / (high - low)) for left, right in edges]
