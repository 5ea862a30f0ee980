"""What deciding costs, and a route table, by number of shards and partitions. CPU is measured, on this machine.

The state is made up at rest: partitions spread over shards, all complete, all measured; so a pass finds nothing to do,
which is what most passes find. What a pass costs in which something happens is in the experiments.
"""

from __future__ import annotations

import gc
import pickle
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from support.control import resource_type

from shoal.cluster.query.routing import RouteIndex
from shoal.coordinator.catalogue import Catalogue
from shoal.coordinator.cuts import WHOLE, Cut, even_bounds
from shoal.coordinator.decide import Decider
from shoal.coordinator.instructions import Observation, ShardView
from shoal.coordinator.planning.orders import Divisible
from shoal.coordinator.planning.planner import LoadPlanner
from shoal.coordinator.routes import RouteTable
from shoal.coordinator.settings import CoordinatorSettings, CutSettings, ScalingSettings
from shoal.shards.model.partitions import Epoch, Partition, ShardId
from shoal.shards.model.queries import PartitionStatistics, ShardStatistics

RESOURCES = 100
PASSES = 12


@dataclass
class Costs:
    """Of one size."""

    shards: int
    partitions: int
    taking_ms: float
    """Taking in what all shards report."""
    planning_ms: float
    pass_ms: float
    """A whole pass, planning included, what is taken in not."""
    first_ms: float
    """The first pass of a coordinator that finds all of it running."""
    memory_mb: float
    """Of the coordinator's modules."""
    table_bytes: int
    encode_ms: float
    decode_ms: float
    index_ms: float
    route_us: float
    """The route of one partition."""
    of_us: float
    """The routes of a resource in many parts that can hold a namespace."""


def cut_into(parts: int) -> Cut:
    """Namespaces carved out, a few, and ranges of uid for the rest."""
    if parts == 1:
        return WHOLE
    carved = min(parts // 3, 32)
    cut = WHOLE
    for number in range(carved):
        cut = cut.carve(f"team-{number}")
    left = parts - carved
    return cut.split_rest("uid", even_bounds(left)) if left > 1 else cut


def measure(shards: int, partitions: int) -> Costs:
    settings = CoordinatorSettings(
        scaling=ScalingSettings(min_shards=shards, max_shards=shards, memory_bytes=8 << 30),
        cutting=CutSettings(automatic=False),
    )
    kinds = sorted((resource_type(f"things{at:03}") for at in range(RESOURCES)), key=lambda one: one.resource)
    large = 10
    each = max((partitions - RESOURCES + large) // large, 1)
    cuts = [cut_into(each if at < large else 1) for at in range(RESOURCES)]
    parts = [part for kind, cut in zip(kinds, cuts, strict=True) for part in cut.partitions(kind.resource)]
    names = [ShardId(f"shard-{number}") for number in range(shards)]
    gc.collect()
    tracemalloc.start()
    planner = LoadPlanner(settings, shards)
    decider = Decider(settings.placement, "exclude", planner)
    catalogue = Catalogue(tuple(kinds))
    divisible = tuple(Divisible(kind.resource, selects=frozenset(("uid",))) for kind in kinds)
    for number in range(3):
        _pass(planner, decider, names, parts, catalogue, divisible, float(number))
    snapshot = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/coordinator/*")])
    tracemalloc.stop()
    memory = sum(one.size for one in snapshot.statistics("filename")) / 1e6
    took = [
        _pass(planner, decider, names, parts, catalogue, divisible, float(number))
        for number in range(3, 3 + PASSES)
    ]
    taking, planning, deciding = (sorted(one[at] for one in took)[PASSES // 2] * 1e3 for at in range(3))
    later = Decider(settings.placement, "exclude", LoadPlanner(settings, shards))
    first = _pass(LoadPlanner(settings, shards), later, names, parts, catalogue, divisible, 0.0)[2] * 1e3
    return Costs(shards, len(parts), taking, planning, deciding, first, memory, *_table(decider.table, parts))


def _pass(  # noqa: PLR0917 - what a pass is made of
    planner: LoadPlanner,
    decider: Decider,
    names: list[ShardId],
    parts: list[Partition],
    catalogue: Catalogue,
    divisible: tuple[Divisible, ...],
    now: float,
) -> tuple[float, float, float]:
    held: dict[ShardId, list[Partition]] = {name: [] for name in names}
    routed = {route.partition.id: route.shard for route in decider.table.routes}
    for at, part in enumerate(parts):
        held[routed.get(part.id, names[at % len(names)])].append(part)
    views = []
    for number, name in enumerate(names):
        entries = [
            PartitionStatistics(
                partition=part.id,
                epoch=decider.table.epoch or Epoch(1),
                state="synced",
                objects=10_000,
                body_bytes=4_000_000,
                events={"modified": round(100 * now)},
            )
            for part in held[name]
        ]
        statistics = ShardStatistics(
            shard=name,
            incarnation=name,
            pid=number,
            cpu_seconds=0.1 * now,
            resident_bytes=1 << 30,
            partitions=entries,
        )
        views.append(ShardView(name, "healthy", fresh=True, statistics=statistics, answered_at=now))
    began = time.thread_time()
    for view in views:
        assert view.statistics is not None
        planner.take(view.statistics, now)
    taken = time.thread_time()
    decider.decide(Observation(now, catalogue, divisible, tuple(views)))
    decided = time.thread_time()
    assert decider.situation is not None
    planner.orders(decider.situation)
    return taken - began, time.thread_time() - decided, decided - taken


def _table(table: RouteTable, parts: list[Partition]) -> tuple[int, float, float, float, float, float]:
    index = RouteIndex(table)
    several = max(parts, key=lambda part: len(index.of(part.resource))).resource
    data = encode(table)
    return (
        len(data),
        _took(lambda: encode(table), 20) * 1e3,
        _took(lambda: decode(data), 20) * 1e3,
        _took(lambda: RouteIndex(table), 20) * 1e3,
        _took(lambda: index.route(parts[-1].id), 2000) * 1e6,
        _took(lambda: [route for route in index.of(several) if route.partition.may_hold("team-77")], 200)
        * 1e6,
    )


def encode(table: RouteTable) -> bytes:
    """A table as routers get it: Ray pickles it, with the structs as they are."""
    return pickle.dumps(table, protocol=5)


def decode(data: bytes) -> RouteTable:
    found = pickle.loads(data)  # of this process
    assert isinstance(found, RouteTable)
    return found


def _took(call: Callable[[], object], times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        call()
    return (time.thread_time() - began) / times
