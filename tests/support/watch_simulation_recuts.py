"""Watchers of gateways while resources are divided anew under them, in virtual time.

`RecutSimulation` has all the troubles of `GatewaySimulation`, but for its coordinator, which `recutting.Cutter` stands
in for. `CalmSimulation` has recuts alone: nothing fails and nothing lags, so nobody may be refused or told to list
again.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import suppress

from support.asgi_connection import AsgiConnection
from support.recutting import CUTS, Cutter
from support.watch_simulation_installation import (
    GATEWAYS,
    READY_S,
    SHARDS,
    GatewayLife,
    GatewaySimulation,
    Provider,
)
from support.watch_simulation_links import LaggingConnection, Network
from support.watch_simulation_world import World
from support.watcher_oracle_flavours import CONFIG_MAPS, NODES, PODS, Flavour

from shoal.cluster.query.answers import Listing
from shoal.cluster.query.request import CollectionQuery, ObjectQuery
from shoal.cluster.query.router import QueryRouter
from shoal.cluster.serving.options import ListOptions
from shoal.shards.model.errors import Expired, NotFound
from shoal.shards.model.partitions import ShardId
from shoal.shards.model.resources import Resource
from shoal.shards.settings import ShardSettings, StoreSettings, WatchSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits


class RecutSimulation(GatewaySimulation):
    """One seed."""

    REPEATED_BY = "pytest tests/sim/test_recuts.py --first-seed {seed} --seeds 1"
    PACES_S = (5.0, 15.0, 60.0)
    LISTS = 0.3
    """How many of the recuts leave the past behind."""

    async def _start(self) -> None:
        self.history_bytes = self.rng.choice((4 << 10, 16 << 20, 16 << 20))
        self.provider = Provider(self._new_shard)
        for number in range(SHARDS):
            await self.provider.ensure(ShardId(f"shard-{number}"))
        self.cutter = Cutter(
            self.provider.shards,
            [self.world.app.verbs.served(resource).type for resource in (CONFIG_MAPS, NODES, PODS)],
            rng=random.Random(self.rng.getrandbits(64)),
            note=self.world.note,
        )
        await self.cutter.start({resource: self.rng.choice(CUTS) for resource in (CONFIG_MAPS, PODS)})
        self._keeping = asyncio.create_task(self.cutter.keep(), name="cutter")
        self.gateways = [self._new_gateway() for _ in range(GATEWAYS)]
        async with asyncio.timeout(READY_S):
            while not all(gateway.routing.table.routes for gateway in self.gateways):
                await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        for gateway in self.gateways:
            await gateway.end()
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        for shard in self.provider.shards.values():
            await shard.die()

    def _new_shard(self, shard_id: ShardId) -> Shard:
        return Shard(
            shard_id,
            connection=LaggingConnection(self.world.connection(), random.Random(self.rng.getrandbits(64))),
            permits=NoPermits(),
            settings=ShardSettings(
                watch=WatchSettings(timeout_min_s=20.0, page_limit=5),
                store=StoreSettings(history_bytes=self.history_bytes),
            ),
            incarnation=uuid.UUID(int=self.rng.getrandbits(128)).hex,
            rng=random.Random(self.rng.getrandbits(64)),
            peers=Network(lambda name: self.provider.shards[name], random.Random(self.rng.getrandbits(64))),
        )

    async def routes(self, after, timeout_s):  # type: ignore[no-untyped-def]
        """As `CoordinatorHandle.routes`."""
        return await self.cutter.routes(after, timeout_s)

    def _divided(self, flavour: Flavour) -> bool:
        # A namespace may be cut as well.
        return self._is_cut(flavour)

    async def _trouble(self, until: float) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super()._trouble(until))
            group.create_task(self._recut(until, self.rng.choice(self.PACES_S)))

    async def _recut(self, until: float, pace_s: float) -> None:
        rng = self.rng
        while True:
            await asyncio.sleep(rng.expovariate(1 / pace_s))
            if self.loop.time() > until:
                return
            lists = rng.random() < self.LISTS
            await self.cutter.recut(
                rng.choice((CONFIG_MAPS, CONFIG_MAPS, PODS)), rng.choice(CUTS), lists=lists
            )

    async def _replace_coordinator(self) -> None:
        """There is nothing to be replaced."""


class CalmSimulation(RecutSimulation):
    """One seed, in which nothing goes wrong."""

    REPEATED_BY = "CalmSimulation({seed}).run()"
    PACES_S = (0.5, 2.0)
    LISTS = 0.0
    LEAST_S = 30.0
    """So long there are recuts at least."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.answered = self.joined = 0

    def _make_world(self) -> World:
        return World(self.rng, seed=self.seed, faults=())

    def _new_shard(self, shard_id: ShardId) -> Shard:
        return Shard(
            shard_id,
            connection=self.world.connection(),
            permits=NoPermits(),
            settings=ShardSettings(watch=WatchSettings(timeout_min_s=20.0, page_limit=5)),
            incarnation=uuid.UUID(int=self.rng.getrandbits(128)).hex,
            rng=random.Random(self.rng.getrandbits(64)),
            peers=lambda name: self.provider.shards[name],  # type: ignore[arg-type,return-value]
        )

    def _new_gateway(self) -> GatewayLife:
        gateway = super()._new_gateway()
        gateway.connection = AsgiConnection(gateway.app)
        gateway.network.calm(True)
        return gateway

    async def _read(self, until: float) -> None:
        """Asks in every way, one question after the other. Raises what refuses it."""
        rng, life = self.rng, self.gateways[0]
        router = QueryRouter(life.routing, life.network)
        while self.loop.time() < until:
            resource = rng.choice((CONFIG_MAPS, PODS))
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.1)))
            match rng.choice(("get", "count", "list", "pages", "newer")):
                case "get":
                    name = f"object-{rng.randrange(6)}"
                    with suppress(NotFound):
                        await router.get(ObjectQuery(resource=resource, namespace="alpha", name=name))
                case "count":
                    await router.count(CollectionQuery(resource=resource))
                case "list":
                    await self._list(router, CollectionQuery(resource=resource))
                case "pages":
                    await self._pages(router, resource)
                case "newer":
                    options = ListOptions(resource_version=str(self.world.app.storage.revision))
                    await self._list(router, CollectionQuery(resource=resource, options=options))
            self.answered += 1

    async def _pages(self, router: QueryRouter, resource: Resource) -> None:
        options = ListOptions(limit=3)
        versions = set()
        while True:
            try:
                listing = await self._list(router, CollectionQuery(resource=resource, options=options))
            except Expired:
                # Parts that are pinned to different versions were joined meanwhile.
                self.joined += 1
                return
            versions.add(listing.version)
            assert len(versions) == 1, "Snapshot pages: a page is of another version"
            if not listing.continue_token:
                return
            options = ListOptions(limit=3, continue_token=listing.continue_token)
            await asyncio.sleep(self.rng.choice((0.0, 0.5)))

    async def _list(self, router: QueryRouter, query: CollectionQuery) -> Listing:
        listing = await router.list(query)
        try:
            async for _ in listing.rest:
                await asyncio.sleep(0)
        finally:
            await listing.aclose()
        return listing

    async def _trouble(self, until: float) -> None:
        until = max(until, self.loop.time() + self.LEAST_S)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(until))
            group.create_task(self.world.write(until))
            group.create_task(self._recut(until, self.rng.choice(self.PACES_S)))
