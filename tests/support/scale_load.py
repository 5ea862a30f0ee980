"""What a large cluster holds and what happens in it: the load model of `support.scale_world`. A model, no measurement.

Objects and events are proportional to the number of nodes (`KINDS`), namespaces hold them by Zipf's law, and events
follow a daily wave, with noise and bursts. Everything comes from a seed. A namespace's objects lie evenly along the
hashes of their uids. What following costs is in `Costs`, whose figures say where they come from.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from support.planned_loads import share

from shoal.coordinator.planning.orders import Divisible
from shoal.shards.model.partitions import HASH_END, Cover, HashRange, Partition, hashed
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.transfers import PROFILE_NAMESPACES, NamespaceLoad, Profile

DAY_S = 86_400.0
WINDOW_S = 60.0
"""Of profiles."""


@dataclass(frozen=True)
class Costs:
    """What work takes. Measured ones are from this repository's own benchmarks."""

    event_s: float = 45e-6
    """CPU of an event: what `make bench` allows at most (it measures some 28)."""
    dropped_s: float = 0.35 * 45e-6
    """CPU of an event that is received and dropped (``cutting.dropped_cost``)."""
    query_s: float = 250e-6
    """CPU of a query: a page of a list (``placement.query_weight``)."""
    listed_s: float = 36e-6
    """CPU of an object that is listed: 0.72 s for 20 000 pods (`make bench`)."""
    sent_s: float = 6e-6
    """CPU of a state, of an object or in the past, that is sent to another shard; this and the next four:
    `tests/bench/bench_transfer.py`, with and without a past."""
    taken_s: float = 9e-6
    uid_s: float = 4e-6
    """CPU of an object that is looked at to see whether its uid is in a range."""
    namespace_s: float = 0.5e-6
    """The same for its namespace."""
    wire_bytes: int = 525
    """Of a state, between shards."""
    object_bytes: int = 1250
    """Memory of an object beside its body."""
    event_bytes: int = 730
    """Memory of an event in the history: 16 MiB hold 23 000."""
    history_bytes: int = 16 << 20
    history_s: float = 300.0
    process_bytes: int = 200 << 20
    idle_s: float = 0.01
    """Cores of a shard that does nothing."""
    listed_per_s: float = 10_000.0
    """Objects a second that one list brings at most. Assumed: some 50 MB/s of pods."""
    server_listed_per_s: float = 100_000.0
    """The same of all lists together. Assumed."""
    received_per_s: float = 100_000.0
    """States a second that one transfer brings at most: by then the CPU of both sides is the limit."""
    remembered_events: float = 102_400.0
    """Events of one resource that the API server's watch cache holds at most (``watch_cache.go``,
    ``defaultUpperBoundCapacity``). Who wants to go on from further back has to list."""


class KindLoad(NamedTuple):
    """One resource, by node of the cluster."""

    name: str
    objects: float
    events_per_s: float
    body_bytes: int = 400
    """Compressed."""
    line_bytes: int = 3000
    """Of an event on its way from the API server."""
    namespaced: bool = True
    system: float = 0.0
    """The part of it that is in one namespace, ``kube-node-lease``."""
    group: str = ""


KINDS = (
    KindLoad("pods", 30.0, 0.200, 400, 5000),
    KindLoad("events", 7.0, 0.120, 250, 1200),
    KindLoad("leases", 1.1, 0.100, 200, 700, system=0.91, group="coordination.k8s.io"),
    KindLoad("endpointslices", 1.5, 0.040, 600, 4000, group="discovery.k8s.io"),
    KindLoad("nodes", 1.0, 0.006, 1500, 15_000, namespaced=False),
    KindLoad("csinodes", 1.0, 0.0, 300, namespaced=False, group="storage.k8s.io"),
    KindLoad("configmaps", 3.0, 0.005, 900),
    KindLoad("replicasets", 2.5, 0.012, 500, group="apps"),
    KindLoad("services", 0.6, 0.001),
    KindLoad("serviceaccounts", 0.6, 0.0, 200),
    KindLoad("deployments", 1.0, 0.010, 500, group="apps"),
    KindLoad("jobs", 0.7, 0.006, 500, group="batch"),
)
"""50 objects and half an event a second for each node."""
SMALL_KINDS = 80
SYSTEM = "kube-node-lease"


class Part(NamedTuple):
    """What is in one cover, at rest."""

    objects: float
    events_per_s: float
    received_objects: float
    """What the API server sends for it."""
    received_per_s: float
    queries_per_s: float
    """That it is asked."""


@dataclass
class Kind:
    """One resource and what is in it."""

    load: KindLoad
    divisible: Divisible
    resource_type: ResourceType
    objects: dict[str, float]
    """By namespace."""
    events: dict[str, float]
    """A second at rest, by namespace."""
    queries: float = 0.0
    """A second, of an object."""
    factor: float = 1.0
    """Wave, noise and burst: events are multiplied by it."""
    hot: dict[str, float] = field(default_factory=dict)
    """Namespaces whose events are multiplied by this as well."""
    parts: dict[Cover, Part] = field(default_factory=dict)
    total_events: float = 0.0

    @property
    def resource(self) -> Resource:
        return self.divisible.resource

    def part(self, cover: Cover) -> Part:
        found = self.parts.get(cover)
        if found is None:
            found = self.parts[cover] = self._part(cover)
        return found

    def _part(self, cover: Cover) -> Part:
        objects = events = sent_objects = sent = asked = 0.0
        by_uid = isinstance(cover, HashRange) and cover.field == "uid"
        for name, count in self.objects.items():
            own = share(cover, name)
            received = max(own, self._received(cover, name))
            objects += count * own
            events += self.events[name] * own
            sent_objects += count * received
            sent += self.events[name] * received
            # Nobody knows the uid of what is asked for, so all ranges are asked.
            asked += count * (1.0 if by_uid and own else own)
        return Part(objects, events, sent_objects, sent, asked * self.queries)

    def _received(self, cover: Cover, name: str) -> float:
        """How much of a namespace the API server sends to who follows a cover."""
        match cover:
            case HashRange(field=by) if by in self.divisible.selects:
                return 0.0
            case HashRange(namespace=str(only)):
                return float(name == only)
            case HashRange(excluded=excluded):
                return float(name not in excluded)
        return 0.0

    def rates(self, cover: Cover) -> tuple[float, float]:
        """Events a second of a cover now, and how many are received for it."""
        part = self.part(cover)
        events, received = part.events_per_s, part.received_per_s
        for name, factor in self.hot.items():
            more, own = self.events.get(name, 0.0) * (factor - 1.0), share(cover, name)
            events += more * own
            received += more * max(own, self._received(cover, name))
        return events * self.factor, received * self.factor

    def rate(self) -> float:
        """Events a second of all of it now."""
        more = sum(self.events.get(name, 0.0) * (factor - 1.0) for name, factor in self.hot.items())
        return (self.total_events + more) * self.factor

    def profile(self, partition: Partition) -> Profile:
        """As a shard would tell it."""
        cover, loads, by_namespace = partition.cover, [], [0.0] * 256
        for name, count in self.objects.items():
            own = share(cover, name)
            if not own:
                continue
            objects = round(count * own)
            events = round(self.events[name] * self.hot.get(name, 1.0) * self.factor * own * WINDOW_S)
            if objects or events:
                loads.append(NamespaceLoad(name, objects, objects * self.load.body_bytes, events))
                by_namespace[hashed(name) >> 56] += objects + events
        loads.sort(key=lambda one: (-(one.events + one.objects), one.name))
        rest = loads[PROFILE_NAMESPACES:]
        other = NamespaceLoad(
            "", *(sum(getattr(one, what) for one in rest) for what in ("objects", "bytes", "events"))
        )
        return Profile(
            partition=partition.id,
            objects=sum(one.objects for one in loads),
            bytes=sum(one.bytes for one in loads),
            seconds=WINDOW_S,
            namespaces=loads[:PROFILE_NAMESPACES],
            other=other,
            uid_weights=_by_uid(cover, sum(by_namespace)),
            namespace_weights=[round(weight) for weight in by_namespace],
        )


def _by_uid(cover: Cover, total: float) -> list[int]:
    low, high = (
        (cover.low, cover.high) if isinstance(cover, HashRange) and cover.field == "uid" else (0, HASH_END)
    )
    edges = ((max(low, at << 56), min(high, (at + 1) << 56)) for at in range(256))
    return [round(total * max(right - left, 0) / (high - low)) for left, right in edges]


@dataclass
class Burst:
    """More events for a while."""

    factor: float
    until: float
    resource: str = ""
    """Empty: of all."""
    namespace: str = ""
    """Empty: in all."""


class Cluster:
    """Everything there is, and what happens to it."""

    def __init__(
        self,
        nodes: int,
        *,
        seed: int = 0,
        selects: Iterable[str] = (),
        wave: float = 0.0,
        noise: float = 0.05,
        random_bursts_per_hour: float = 0.0,
        queries_per_s: float = 0.0,
        small_kinds: int = SMALL_KINDS,
    ) -> None:
        """`wave`: how far the events of a day go up and down, as a part of their mean. `selects`: what the API server
        selects by. `queries_per_s`: of each node, for objects of any kind alike.
        """
        self.nodes = nodes
        self.rng = random.Random(seed)
        self.wave, self.noise = wave, noise
        self.bursts: list[Burst] = []
        self.random_bursts_per_hour = random_bursts_per_hour
        self.queries = queries_per_s / sum(load.objects for load in KINDS)
        self.namespaces = [f"team-{number}" for number in range(max(nodes // 10, 100))]
        fields = frozenset(selects)
        small = [
            KindLoad(f"things{at:02}", 50 / nodes, 0.05 / nodes, group="example.com")
            for at in range(small_kinds)
        ]
        kinds = [self._kind(load, fields) for load in (*KINDS, *small)]
        self.kinds: dict[Resource, Kind] = {kind.resource: kind for kind in kinds}

    def _kind(self, load: KindLoad, selects: frozenset[str]) -> Kind:
        resource = Resource(load.group, "v1", load.name)
        objects, events = load.objects * self.nodes, load.events_per_s * self.nodes
        weights = {"": 1.0}
        if load.namespaced:
            weights = {name: 1 / (at + 1) for at, name in enumerate(self.namespaces)}
        total = sum(weights.values())
        of_objects = {name: objects * (1 - load.system) * weight / total for name, weight in weights.items()}
        busy = {name: weight * self.rng.lognormvariate(0.0, 0.5) for name, weight in weights.items()}
        sum_busy = sum(busy.values())
        of_events = {name: events * (1 - load.system) * weight / sum_busy for name, weight in busy.items()}
        if load.system:
            of_objects[SYSTEM], of_events[SYSTEM] = objects * load.system, events * load.system
        return Kind(
            load,
            Divisible(
                resource,
                namespaced=load.namespaced,
                selects=selects if load.objects * self.nodes > 50 else frozenset(),
            ),
            ResourceType(
                resource=resource,
                kind=load.name.capitalize(),
                namespaced=load.namespaced,
                verbs=("list", "watch"),
            ),
            of_objects,
            of_events,
            self.queries,
            total_events=events,
        )

    def kind(self, name: str) -> Kind:
        return next(kind for resource, kind in self.kinds.items() if resource.name == name)

    @property
    def objects(self) -> float:
        return sum(sum(kind.objects.values()) for kind in self.kinds.values())

    @property
    def events_per_s(self) -> float:
        return sum(kind.rate() for kind in self.kinds.values())

    def advance(self, now: float, passed_s: float) -> None:
        """Sets what happens from now on."""
        if self.rng.random() < self.random_bursts_per_hour * passed_s / 3600:
            name = self.rng.choice(self.namespaces[:100])
            kind = self.rng.choice(KINDS[:4]).name
            self.bursts.append(Burst(self.rng.uniform(3, 10), now + self.rng.uniform(60, 600), kind, name))
        self.bursts = [burst for burst in self.bursts if now < burst.until]
        wave = 1.0 + self.wave * math.sin(2 * math.pi * now / DAY_S)
        for resource, kind in self.kinds.items():
            factor = wave * max(self.rng.gauss(1.0, self.noise), 0.2)
            hot: dict[str, float] = {}
            for burst in self.bursts:
                if burst.resource not in ("", resource.name):
                    continue
                if burst.namespace:
                    hot[burst.namespace] = hot.get(burst.namespace, 1.0) * burst.factor
                else:
                    factor *= burst.factor
            kind.factor, kind.hot = factor, hot

    def largest(self) -> str:
        """The namespace with the most in it."""
        return self.namespaces[0]
