"""A version a list carries is one that a watch can begin at: real shards, an embedded API server, virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.asgi_connection import AsgiConnection
from support.clock import run_virtual
from support.queries import collection_query
from support.watching import STREAMING, Reader, form, settled

from shoal.cluster.query.router import QueryRouter
from shoal.cluster.query.routing import Routing
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.cluster.watching.router import WatchRouter
from shoal.cluster.watching.settings import WatchServingSettings
from shoal.coordinator.routes import Route, RouteTable
from shoal.shards.handle import Assignment
from shoal.shards.local import LocalShardHandle
from shoal.shards.model.partitions import Epoch, ExceptNamespaces, OneNamespace, Partition, ShardId
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.settings import ShardSettings, StoreSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

CONFIG_MAPS = ResourceType(
    resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True, verbs=("list", "watch")
)
PARTITIONS = (
    Partition(CONFIG_MAPS.resource, OneNamespace("a")),
    Partition(CONFIG_MAPS.resource, OneNamespace("b")),
    Partition(CONFIG_MAPS.resource, ExceptNamespaces(("a", "b"))),
)


class Bench:
    """An API server, config maps in three partitions, each with a shard of its own, and a gateway."""

    def __init__(self, **store: Any) -> None:
        self.app = build_app(SimulatorSettings(seed=1))
        self.store = store
        self.kind = self.app.verbs.served(CONFIG_MAPS.resource)
        spaces = self.app.verbs.served(Resource("", "v1", "namespaces"))
        for name in "abc":
            self.app.verbs.create(spaces, None, {"metadata": {"name": name}})
            self.create(name, "x")
        self.handles: dict[ShardId, LocalShardHandle] = {}
        self.routing = Routing(self, poll_s=1.0)
        self.table = RouteTable(
            epoch=Epoch(1),
            catalogue=(CONFIG_MAPS,),
            routes=tuple(Route(partition, ShardId(f"shard-{at}")) for at, partition in enumerate(PARTITIONS)),
            shards=tuple(ShardId(f"shard-{at}") for at in range(len(PARTITIONS))),
        )
        self.routing.take(self.table)
        self.lister = QueryRouter(self.routing, self.handles.__getitem__)
        self.watcher = WatchRouter(
            self.routing,
            self.handles.__getitem__,
            self.lister,
            settings=WatchServingSettings(),
            rng=random.Random(1),
        )
        self.tasks: list[asyncio.Task[None]] = []

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        """As `RouteSource`."""
        if self.table.epoch <= after:
            await asyncio.sleep(timeout_s)
        return self.table

    def create(self, namespace: str, name: str) -> None:
        self.app.verbs.create(self.kind, namespace, {"metadata": {"name": name}})

    def change(self, namespace: str, **told: str) -> int:
        def changed(document: dict[str, Any]) -> None:
            document["data"] = told

        self.app.verbs.update(self.kind, Key(f"{namespace}/x"), changed)
        return int(self.app.storage.revision)

    def others_move(self) -> None:
        """Other resources: no watch of ours hears of it."""
        self.app.storage.advance(self.app.storage.revision + 50)

    async def start(self, at: int) -> None:
        """A new shard for a partition; what another had is gone."""
        shard_id = ShardId(f"shard-{at}")
        former = self.handles.get(shard_id)
        shard = Shard(
            shard_id,
            connection=AsgiConnection(self.app),
            permits=NoPermits(),
            settings=ShardSettings(store=StoreSettings(**self.store)),
            incarnation=str(random.random()),
            rng=random.Random(at),
        )
        self.handles[shard_id] = LocalShardHandle(shard)
        if former is not None:
            await former.stop()
        await shard.adopt([Assignment(partition=PARTITIONS[at], resource_type=CONFIG_MAPS)], Epoch(1))
        await asyncio.sleep(1)

    async def list_version(self, **parameters: str) -> int:
        listing = await self.lister.list(collection_query(CONFIG_MAPS, list(parameters.items())))
        try:
            assert len(listing.first) == min(3, int(parameters.get("limit", 3)))
            return int(listing.version)
        finally:
            await listing.aclose()

    async def watch(self, **parameters: Any) -> Reader:
        pairs = [("watch", "1"), *((name, str(value)) for name, value in parameters.items())]
        watch = await self.watcher.open(collection_query(CONFIG_MAPS, pairs), form())
        reader = Reader()
        self.tasks.append(asyncio.create_task(watch.run(reader)))
        await asyncio.sleep(2)
        return reader

    async def assert_that_lists_can_be_watched_from(self, **parameters: str) -> None:
        began = asyncio.get_running_loop().time()
        version = await self.list_version(**parameters)
        assert asyncio.get_running_loop().time() - began < 3.0
        reader = await self.watch(resourceVersion=version)
        assert not [line for line in reader.told if line.startswith("ERROR")], (version, reader.told)

    async def aclose(self) -> None:
        await self.watcher.aclose()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for handle in self.handles.values():
            await handle.stop()


def on(main: Callable[[Bench], Awaitable[None]], **store: Any) -> None:
    async def whole() -> None:
        bench = Bench(**store)
        try:
            for at in range(len(PARTITIONS)):
                await bench.start(at)
            await asyncio.sleep(20)
            await main(bench)
        finally:
            await bench.aclose()

    run_virtual(whole())


@pytest.mark.parametrize(
    "parameters",
    [{}, {"resourceVersion": "0"}, {"limit": "1"}, {"resourceVersion": "1"}],
    ids=["unset", "any", "limit", "newer"],
)
def test_after_a_shard_was_replaced_a_watch_can_begin_at_the_lists_version(
    parameters: dict[str, str],
) -> None:
    async def main(bench: Bench) -> None:
        for at in range(3):
            bench.others_move()
            await bench.start(at)
            await bench.assert_that_lists_can_be_watched_from(**parameters)

    on(main)


def test_after_a_shard_was_replaced_a_watch_can_begin_at_the_closing_bookmark() -> None:
    async def main(bench: Bench) -> None:
        bench.others_move()
        await bench.start(1)
        streamed = await bench.watch(**STREAMING)
        closing = next(line for line in streamed.told if line.endswith("end"))
        reader = await bench.watch(resourceVersion=closing.split()[1])
        assert reader.told == []

    on(main)


def test_while_a_history_is_turned_over_a_watch_can_begin_at_the_lists_version() -> None:
    async def main(bench: Bench) -> None:
        for step in range(20):
            for _ in range(3):
                bench.change("c", text=random.Random(step).randbytes(700).hex())
            bench.others_move()
            await settled()
            await bench.assert_that_lists_can_be_watched_from()

    on(main, history_bytes=8_000)


def test_nobody_waits_where_partitions_are_apart_and_histories_reach_back() -> None:
    async def main(bench: Bench) -> None:
        before = bench.app.storage.revision
        bench.others_move()
        bench.change("c", text="x")
        await settled()
        began = asyncio.get_running_loop().time()
        assert await bench.list_version() <= before
        assert asyncio.get_running_loop().time() == began

    on(main)


def test_an_exact_list_is_asked_for_once() -> None:
    async def main(bench: Bench) -> None:
        bench.others_move()
        await bench.start(1)
        version = await bench.list_version()
        exact = await bench.list_version(resourceVersion=str(version), resourceVersionMatch="Exact")
        assert exact == version

    on(main)


def test_a_list_is_answered_where_no_newer_state_can_be_had_in_time() -> None:
    async def main(bench: Bench) -> None:
        bench.others_move()
        await bench.start(1)
        for at in (0, 2):
            held = bench.handles[ShardId(f"shard-{at}")].shard._followed[PARTITIONS[at].id]
            held.failure = "something"  # nothing is proved then
        began = asyncio.get_running_loop().time()
        assert await bench.list_version() > 0
        assert asyncio.get_running_loop().time() - began == pytest.approx(3.0, abs=0.1)

    on(main)


def test_after_a_restore_from_a_backup_lists_and_watches_are_well_within_seconds() -> None:
    """Whoever was shown a version of the lost past made every partition believe that all to come is late."""

    async def main(bench: Bench) -> None:
        storage = bench.app.storage
        backup = int(storage.revision)
        bench.app.storage.advance(100_000)
        for namespace in "abc":
            bench.change(namespace, of="the past that is lost")
        watching = await bench.watch(**STREAMING)
        bench.change("a", of="the past that is lost, too")
        await asyncio.sleep(1)
        assert watching.told[-1].startswith("MODIFIED a/x 10")
        storage.restart(revision=backup)
        await asyncio.sleep(20)
        reader = await bench.watch(**STREAMING)
        for step in range(5):
            for namespace in "abc":
                bench.change(namespace, step=str(step))
            await asyncio.sleep(2)
            await bench.assert_that_lists_can_be_watched_from()
        assert len(reader.told) >= 3 + 1 + 15
        statistics = [handle.shard.statistics().partitions[0] for handle in bench.handles.values()]
        assert max(found.overtaken for found in statistics) <= storage.revision

    on(main)


def test_a_shard_that_dies_while_the_past_is_lost_ends_watches_instead_of_silencing_them() -> None:
    async def main(bench: Bench) -> None:
        storage = bench.app.storage
        backup = int(storage.revision)
        storage.advance(100_000)
        bench.change("a", of="the past that is lost")
        watching = await bench.watch()
        bench.change("a", of="the past that is lost, too")
        await asyncio.sleep(1)
        storage.restart(revision=backup)
        await bench.start(0)
        await asyncio.sleep(5)
        assert watching.told[-1].startswith("ERROR") or bench.tasks[-1].done()

    on(main)
