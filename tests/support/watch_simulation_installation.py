"""Watchers of Shoal's gateways in virtual time: an embedded API server, shards, a coordinator and two gateways.

Config maps and pods are cut into partitions in some way, or whole; every gateway reaches every shard by a link of its
own (`watch_simulation_links`). Shards die and come back empty, links break, the coordinator is replaced (and may cut
anew), partitions move, gateways are restarted; watchers come back to either gateway. What a watcher is told must be
what an API server would tell it.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable
from typing import Any

from support.asgi_connection import AsgiConnection
from support.watch_simulation import WatchSimulation
from support.watch_simulation_links import LaggingConnection, MortalShard, Network
from support.watch_simulation_world import FAULTS, IGNORED_SELECTORS, World
from support.watcher_oracle_flavours import CONFIG_MAPS, PODS, Flavour

from shoal.cluster.gateway.app import Gateway
from shoal.cluster.query.router import QueryRouter
from shoal.cluster.query.routing import Routing
from shoal.cluster.watching.router import WatchRouter
from shoal.cluster.watching.settings import WatchServingSettings
from shoal.coordinator.coordinator import Coordinator
from shoal.coordinator.handle import CoordinatorPermits, LocalCoordinatorHandle
from shoal.coordinator.settings import (
    CoordinatorSettings,
    FollowSettings,
    LivenessSettings,
    PlacementSettings,
)
from shoal.shards.api.client import ApiConnection
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import ShardId
from shoal.shards.settings import ShardSettings, StoreSettings, WatchSettings
from shoal.shards.shard import Shard

CARVINGS: tuple[dict[str, tuple[str, ...]], ...] = (
    {},
    {"configmaps": ("alpha",)},
    {"configmaps": ("alpha", "beta"), "pods": ("alpha",)},
    {"configmaps": ("alpha", "alpha-2", "beta"), "pods": ("beta", "gamma")},
)
SHARDS = 3
GATEWAYS = 2
READY_S = 120.0


class Provider:
    """`ShardProvider` of mortal shards."""

    def __init__(self, make: Callable[[ShardId], Shard]) -> None:
        self.shards: dict[ShardId, MortalShard] = {}
        self._make = make

    async def ensure(self, shard_id: ShardId) -> MortalShard:
        if shard_id not in self.shards:
            self.shards[shard_id] = MortalShard(shard_id, self._make)
        return self.shards[shard_id]

    async def retire(self, shard_id: ShardId) -> None:
        shard = self.shards.pop(shard_id, None)
        if shard is not None:
            await shard.die()

    def peer(self, shard_id: ShardId) -> MortalShard:
        if shard_id not in self.shards:
            raise NotReady(f"there is no {shard_id}", retry_after_s=1)
        return self.shards[shard_id]

    async def existing(self) -> tuple[ShardId, ...]:
        return tuple(self.shards)


class GatewayLife:
    """One life of one gateway: its links, its routes, its application."""

    def __init__(self, simulation: GatewaySimulation, rng: random.Random) -> None:
        self.network = Network(simulation.provider.shards.__getitem__, rng)
        self.routing = Routing(simulation)
        router = QueryRouter(self.routing, self.network)
        watching = WatchRouter(
            self.routing,
            self.network,
            router,
            settings=WatchServingSettings(
                bookmark_s=rng.choice((5.0, 60.0)), linger_s=rng.choice((1.0, 30.0)), patience_s=10.0
            ),
            rng=random.Random(rng.getrandbits(64)),
        )
        self.app = Gateway(
            router,
            self.network,
            simulation,  # type: ignore[arg-type]
            watching=watching,
            now=simulation.world.now,
        )
        self.connection = AsgiConnection(self.app, rng=random.Random(rng.getrandbits(64)))
        self._following = asyncio.create_task(self.routing.run(), name="routing")

    async def end(self) -> None:
        """Breaks every connection and stops."""
        await self.connection.aclose()
        self._following.cancel()
        await asyncio.wait([self._following])
        await self.app.aclose()


class GatewaySimulation(WatchSimulation):
    """One seed, with watchers of two gateways."""

    REPEATED_BY = "pytest tests/sim/test_watchers.py --first-seed {seed} --seeds 1"
    ROUGH = False

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.deaths = self.restarts = self.cuts = self.gateway_restarts = 0
        self.ready = False

    def _make_world(self) -> World:
        return World(self.rng, seed=self.seed, faults=(*FAULTS, IGNORED_SELECTORS))

    # -- bringing up -----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        self.carve = self.rng.choice(CARVINGS)
        self.history_bytes = self.rng.choice((4 << 10, 16 << 20, 16 << 20))
        self.provider = Provider(self._new_shard)
        self.coordinator = self._new_coordinator()
        await self.coordinator.start()
        self.gateways = [self._new_gateway() for _ in range(GATEWAYS)]
        async with asyncio.timeout(READY_S):
            while not all(gateway.routing.table.routes for gateway in self.gateways):
                await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        for gateway in self.gateways:
            await gateway.end()
        await self.coordinator.stop()
        for shard in self.provider.shards.values():
            await shard.die()

    def _new_shard(self, shard_id: ShardId) -> Shard:
        return Shard(
            shard_id,
            connection=LaggingConnection(self.world.connection(), random.Random(self.rng.getrandbits(64))),
            permits=CoordinatorPermits(LocalCoordinatorHandle(self), shard_id),  # type: ignore[arg-type]
            settings=ShardSettings(
                watch=WatchSettings(timeout_min_s=20.0, page_limit=5),
                store=StoreSettings(history_bytes=self.history_bytes),
            ),
            incarnation=uuid.UUID(int=self.rng.getrandbits(128)).hex,
            rng=random.Random(self.rng.getrandbits(64)),
            peers=self.provider.peer,
        )

    def _new_coordinator(self) -> Coordinator:
        return Coordinator(
            connection=self.world.connection(),
            provider=self.provider,
            settings=CoordinatorSettings(
                follow=FollowSettings(include=("configmaps", "pods", "nodes"), carve=self.carve),
                # The slightest imbalance moves a partition, so that many move.
                placement=PlacementSettings(tolerance=0.0, worth_weight=1.0, settle_s=2.0),
                liveness=LivenessSettings(dead_after_s=self.rng.choice((4.0, 10.0))),
            ),
            shard_count=SHARDS,
            incarnation=f"{self.rng.getrandbits(32):08x}",
        )

    def _new_gateway(self) -> GatewayLife:
        return GatewayLife(self, random.Random(self.rng.getrandbits(64)))

    @property
    def permits(self) -> Any:
        """Of whichever coordinator is alive: what shards' permits are asked from."""
        return self.coordinator.permits

    async def routes(self, after: Any, timeout_s: float) -> Any:
        """As `CoordinatorHandle.routes`, of whichever coordinator is alive."""
        return await self.coordinator.routes(after, timeout_s)

    async def status(self) -> Any:
        """As `CoordinatorHandle.status`."""
        return self.coordinator.status()

    # -- watching --------------------------------------------------------------------------------------------

    def _connect(self) -> Callable[[], ApiConnection]:
        rng = random.Random(self.rng.getrandbits(64))
        return lambda: rng.choice(self.gateways).connection

    def _divided(self, flavour: Flavour) -> bool:
        # A namespace is never cut.
        return self._is_cut(flavour) and flavour.namespace is None

    def _is_cut(self, flavour: Flavour) -> bool:
        return flavour.resource in (CONFIG_MAPS, PODS)

    # -- trouble ---------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        super()._calm()
        for gateway in self.gateways:
            gateway.network.calm(True)

    async def _trouble(self, until: float) -> None:
        for gateway in self.gateways:
            gateway.network.calm(False)
        async with asyncio.TaskGroup() as group:
            group.create_task(super()._trouble(until))
            group.create_task(self._kill(until, self.rng.choice((10.0, 30.0, 1000.0))))
            group.create_task(self._cut(until, self.rng.choice((3.0, 15.0, 1000.0))))

    async def _cut(self, until: float, pace_s: float) -> None:
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / pace_s))
            if self.loop.time() > until:
                return
            self.cuts += 1
            self.rng.choice(self.gateways).network.trouble()

    async def _kill(self, until: float, pace_s: float) -> None:
        rng = self.rng
        while True:
            await asyncio.sleep(rng.expovariate(1 / pace_s))
            if self.loop.time() > until:
                return
            match rng.choice(("shard", "shard", "gateway", "coordinator")):
                case "shard":
                    await self._kill_shard()
                case "gateway":
                    self.gateway_restarts += 1
                    number = rng.randrange(GATEWAYS)
                    self.world.note(f"gateway {number} is restarted")
                    gateway, self.gateways[number] = self.gateways[number], self._new_gateway()
                    await gateway.end()
                case _:
                    await self._replace_coordinator()

    async def _kill_shard(self) -> None:
        self.deaths += 1
        shard = self.rng.choice(list(self.provider.shards.values()))
        self.world.note(f"{shard.shard_id} dies")
        await shard.die()
        await asyncio.sleep(self.rng.choice((0.0, self.rng.uniform(0.0, 20.0))))
        shard.revive()
        self.world.note(f"{shard.shard_id} is back, empty")

    async def _replace_coordinator(self) -> None:
        self.restarts += 1
        await self.coordinator.stop()
        await asyncio.sleep(self.rng.uniform(0.0, 5.0))
        if self.rng.random() < 0.5:
            self.carve = self.rng.choice(CARVINGS)
        self.coordinator = self._new_coordinator()
        await self.coordinator.start()
        self.world.note(f"a new coordinator carves {self.carve}")
