"""A whole installation in virtual time, decided by a seed: API server, coordinator, shards, router, and their deaths.

Where `support.simulation` puts single partitions under trouble, this one lets shards and the coordinator die and come
back, custom resources come and go, people move, split and merge, and readers ask through the query router. What
readers get must be complete, in order, without doubles, never older than before; at rest it must equal the server.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from support.asgi_connection import AsgiConnection
from support.clock import run_virtual
from support.guarantees import complete

from shoal.cluster.query.request import CollectionQuery
from shoal.cluster.query.router import QueryRouter
from shoal.cluster.query.routing import Routing
from shoal.cluster.serving.options import ListOptions
from shoal.cluster.simulator.crds import DEFINITIONS
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.coordinator.commands import Move, Order, Rebalance, Split
from shoal.coordinator.coordinator import Coordinator
from shoal.coordinator.handle import CoordinatorPermits, LocalCoordinatorHandle
from shoal.coordinator.settings import CoordinatorSettings, FollowSettings
from shoal.shards.local import LocalShardHandle
from shoal.shards.model.errors import NotFound, NotReady, ShoalError
from shoal.shards.model.partitions import ShardId
from shoal.shards.model.refs import key_of
from shoal.shards.model.resources import Resource
from shoal.shards.settings import ShardSettings, WatchSettings
from shoal.shards.shard import Shard

CONFIG_MAPS, NODES = Resource("", "v1", "configmaps"), Resource("", "v1", "nodes")
WIDGETS = Resource("example.com", "v1", "widgets")
NAMESPACES = ("alpha", "alpha-2", "beta")
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"plural": "widgets", "kind": "Widget"},
        "scope": "Namespaced",
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {}}],
    },
}
EPOCH = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
FAULTS = (
    *("drop", "slow", "status-410", "status-429", "status-500", "status-503"),
    *("ignore-selectors", "no-bookmarks", "late-bookmarks"),
    *("cut", "truncate", "garbage", "line-410", "stall"),
    *("compact", "restart"),
)
REST_S = 400.0
"""More than any back-off, stalled stream or refused resource takes to be over."""


class Metadata(msgspec.Struct):
    name: str
    version: str = msgspec.field(name="resourceVersion")
    namespace: str = ""


class Head(msgspec.Struct):
    metadata: Metadata


class MortalShard:
    """`ShardHandle` of a shard that dies and comes back empty, as an actor does. Away, it is not ready."""

    def __init__(self, simulation: InstallationSimulation, shard_id: ShardId) -> None:
        self.shard_id = shard_id
        self._simulation = simulation
        self._alive: LocalShardHandle | None = None
        self.revive()

    def revive(self) -> None:
        self._alive = LocalShardHandle(self._simulation.new_shard(self.shard_id))

    async def die(self) -> None:
        if self._alive is not None:
            alive, self._alive = self._alive, None
            await alive.stop()

    def __getattr__(self, name: str) -> Any:
        if self._alive is None:
            raise NotReady(f"{self.shard_id} is away", retry_after_s=1)
        return getattr(self._alive, name)


class Provider:
    """`ShardProvider` of mortal shards."""

    def __init__(self, simulation: InstallationSimulation) -> None:
        self.shards: dict[ShardId, MortalShard] = {}
        self._simulation = simulation

    async def ensure(self, shard_id: ShardId) -> MortalShard:
        if shard_id not in self.shards:
            self.shards[shard_id] = MortalShard(self._simulation, shard_id)
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


class InstallationSimulation:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.answers = self.refusals = self.deaths = self.restarts = self.writes = self.orders = 0
        self.handed_over: Counter[str] = Counter()
        """Hand-offs by how they ended."""
        self.seen: dict[Resource, dict[str, int]] = {}
        self.newest: dict[Resource, int] = {}
        self.log: list[str] = []

    def run(self) -> InstallationSimulation:
        try:
            run_virtual(self._main())
        except Exception as error:
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            story = "\n".join(self.log[-40:])
            raise AssertionError(
                f"seed {self.seed}: {type(cause).__name__}: {cause}\n\n{story}\n\n"
                f"again: pytest tests/sim/test_installation.py --first-seed {self.seed} --seeds 1"
            ) from error
        return self

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.app = build_app(
            SimulatorSettings(seed=self.seed, watch_list=self.rng.random() < 0.8),
            now=lambda: EPOCH + timedelta(seconds=self.loop.time()),
        )
        verbs = self.app.verbs
        for name in NAMESPACES:
            verbs.create(verbs.served(Resource("", "v1", "namespaces")), None, {"metadata": {"name": name}})
        for _ in range(30):
            self._change()
        self.provider = Provider(self)
        self.coordinator = self._new_coordinator()
        await self.coordinator.start()
        self.routing = Routing(self)
        following = asyncio.create_task(self.routing.run(), name="routing")
        self.router = QueryRouter(self.routing, self.provider.shards.__getitem__)
        trouble_s = self.rng.uniform(40.0, 120.0)
        async with asyncio.TaskGroup() as group:
            for work in (self._write, self._read, self._disturb, self._kill, self._operate):
                group.create_task(work(trouble_s), name=work.__name__)
        self.app.faults.disarm()
        await self._settle()
        self._change()
        await self._settle()
        following.cancel()
        await asyncio.wait([following])
        await self._end_coordinator()
        for shard in self.provider.shards.values():
            await shard.die()

    # -- the installation ------------------------------------------------------------------------------------

    def new_shard(self, shard_id: ShardId) -> Shard:
        return Shard(
            shard_id,
            connection=self._connection(),
            permits=CoordinatorPermits(LocalCoordinatorHandle(self), shard_id),  # type: ignore[arg-type]
            settings=ShardSettings(watch=WatchSettings(timeout_min_s=20.0, page_limit=5)),
            incarnation=uuid.UUID(int=self.rng.getrandbits(128)).hex,
            rng=random.Random(self.rng.getrandbits(64)),
            peers=self.provider.peer,
        )

    def _connection(self) -> AsgiConnection:
        return AsgiConnection(self.app, rng=random.Random(self.rng.getrandbits(64)))

    def _new_coordinator(self) -> Coordinator:
        carve = {"configmaps": ("alpha",)} if self.rng.random() < 0.5 else {}
        return Coordinator(
            connection=self._connection(),
            provider=self.provider,
            settings=CoordinatorSettings(follow=FollowSettings(carve=carve)),
            shard_count=3,
            incarnation=f"{self.rng.getrandbits(32):08x}",
        )

    async def _end_coordinator(self) -> None:
        self.handed_over.update(self.coordinator.status().handoffs_total)
        await self.coordinator.stop()

    @property
    def permits(self) -> Any:
        """Of whichever coordinator is alive: what shards' permits are asked from."""
        return self.coordinator.permits

    async def routes(self, after: Any, timeout_s: float) -> Any:
        """As `CoordinatorHandle.routes`, of whichever coordinator is alive."""
        return await self.coordinator.routes(after, timeout_s)

    # -- trouble ---------------------------------------------------------------------------------------------

    async def _write(self, seconds: float) -> None:
        while self.loop.time() < seconds:
            await asyncio.sleep(self.rng.expovariate(2.0))
            self._change()

    def _change(self) -> None:
        rng, verbs = self.rng, self.app.verbs
        self.writes += 1
        if rng.random() < 0.03:
            definitions = verbs.collection(verbs.served(DEFINITIONS))
            if "widgets.example.com" in definitions.objects:
                verbs.delete(verbs.served(DEFINITIONS), None, "widgets.example.com")
            else:
                verbs.create(verbs.served(DEFINITIONS), None, DEFINITION)
        served = [CONFIG_MAPS, NODES] + [WIDGETS] * (verbs.catalogue.find(WIDGETS) is not None)
        resource = rng.choice(served)
        namespace = None if resource is NODES else rng.choice(NAMESPACES)
        name = f"object-{rng.randrange(8)}"
        key = name if namespace is None else f"{namespace}/{name}"
        kind = verbs.served(resource)
        if key not in verbs.collection(kind).objects:
            verbs.create(kind, namespace, {"metadata": {"name": name}})
        elif rng.random() < 0.3:
            verbs.delete(kind, namespace, name)
        else:
            verbs.update(
                kind, key, lambda document: document["metadata"].update(labels={"n": str(self.writes)})
            )  # type: ignore[arg-type]

    async def _disturb(self, seconds: float) -> None:
        rng = self.rng
        while self.loop.time() < seconds:
            await asyncio.sleep(rng.expovariate(1 / 6.0))
            kind = rng.choice(FAULTS)
            # A stream that stalls is one nobody hears of: for longer than a short answer takes, or for good.
            longest = 60.0 if kind in ("stall", "late-bookmarks") else 5.0
            fault = Fault(
                kind=kind,
                verb=rng.choice(("", "list", "watch")),
                count=rng.choice((1, 3)),
                seconds=0.0 if kind == "stall" and rng.random() < 0.3 else rng.uniform(0.1, longest),
                immediate=kind == "stall" and rng.random() < 0.5,
                retry_after_s=rng.choice((None, 1)),
                jump=rng.choice((0, 0, 1000)),
            )
            self._note(f"{kind} for {fault.count}x {fault.verb or 'any verb'}, {fault.seconds:.1f} s")
            self.app.faults.arm(fault)

    async def _kill(self, seconds: float) -> None:
        rng = self.rng
        while self.loop.time() < seconds:
            await asyncio.sleep(rng.expovariate(1 / 15.0))
            if rng.random() < 0.3:
                self.restarts += 1
                self._note("the coordinator dies")
                await self._end_coordinator()
                await asyncio.sleep(rng.uniform(0.0, 5.0))
                self.coordinator = self._new_coordinator()
                await self.coordinator.start()
                self._note("a new coordinator starts")
            elif self.provider.shards:
                self.deaths += 1
                shard = rng.choice(list(self.provider.shards.values()))
                self._note(f"{shard.shard_id} dies")
                await shard.die()
                await asyncio.sleep(rng.uniform(0.0, 20.0))
                shard.revive()
                self._note(f"{shard.shard_id} is back, empty")

    async def _operate(self, seconds: float) -> None:
        """Somebody moves, splits, merges and drains by hand."""
        rng = self.rng
        while self.loop.time() < seconds:
            await asyncio.sleep(rng.expovariate(1 / 5.0))
            routes = [
                route
                for route in self.routing.table.routes
                if route.partition.resource in (CONFIG_MAPS, NODES)
            ]
            shards = sorted(self.provider.shards)
            if not routes or not shards:
                continue
            partition, shard = rng.choice(routes).partition.id, rng.choice(shards)
            order: Order = rng.choice(
                (
                    Move(partition, shard),
                    Move(partition, shard),
                    Split(target=str(CONFIG_MAPS), carve=(rng.choice(NAMESPACES),)),
                    Split(target=partition, ranges=2),
                    Split(target=str(CONFIG_MAPS), ranges=2, field="namespace"),
                    Split(target=partition, merge=True),
                    Rebalance(),
                )
            )
            try:
                self.coordinator.order(order)
            except ShoalError as error:
                self._note(f"{order} is refused: {error}")
            else:
                self.orders += 1
                self._note(str(order))

    def _note(self, what: str) -> None:
        self.log.append(f"{self.loop.time():8.2f} {what}")

    # -- readers ---------------------------------------------------------------------------------------------

    async def _read(self, seconds: float) -> None:
        while self.loop.time() < seconds:
            await asyncio.sleep(self.rng.expovariate(1.0))
            resource = self.rng.choice((CONFIG_MAPS, NODES, WIDGETS))
            limit = self.rng.choice((None, None, 3))
            try:
                version, objects = await self._list(resource, limit)
            except NotFound:
                self.seen.pop(resource, None)
            except ShoalError as error:
                self.refusals += 1
                self._note(f"a list of {resource} is refused: {error}")
            else:
                self.answers += 1
                self._check(resource, version, objects)

    async def _list(self, resource: Resource, limit: int | None) -> tuple[int, dict[str, int]]:
        """All pages of a list; every object once and in order."""
        found: dict[str, int] = {}
        token, version = "", 0
        while True:
            options = ListOptions(limit=limit or 0, continue_token=token)
            listing = await self.router.list(CollectionQuery(resource=resource, options=options))
            try:
                bodies = [*listing.first]
                async for more in listing.rest:
                    bodies += more
                token, version = listing.continue_token, listing.version
            finally:
                await listing.aclose()
            for body in bodies:
                metadata = msgspec.json.decode(body, type=Head).metadata
                key = key_of(metadata.namespace, metadata.name)
                assert key not in found, f"No double: {key} came twice in a list of {resource}"
                assert not found or key > max(found), f"{key} came out of order in a list of {resource}"
                found[key] = int(metadata.version)
            if not token:
                return version, found

    def _check(self, resource: Resource, version: int, objects: dict[str, int]) -> None:
        before = self.seen.get(resource, {})
        for key, now in objects.items():
            assert now >= before.get(key, 0), (
                f"Subsequence: {key} went from {before[key]} back to {now} in lists of {resource}"
            )
        self.seen[resource] = {**before, **objects}
        assert version <= self.app.storage.revision, "Honest: an answer claims a version that does not exist"

    # -- the end ---------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        end = self.loop.time() + REST_S
        while True:
            try:
                await self._check_rest()
            except (AssertionError, ShoalError):
                if self.loop.time() > end:
                    self._note(f"status: {self.coordinator.status()}")
                    raise
                await asyncio.sleep(2.0)
            else:
                return

    async def _check_rest(self) -> None:
        verbs = self.app.verbs
        for resource in (CONFIG_MAPS, NODES, WIDGETS):
            if verbs.catalogue.find(resource) is None:
                assert self.routing.table.resource_type(resource) is None, f"{resource} is still followed"
                continue
            _, held = await self._list(resource, None)
            objects = verbs.collection(verbs.served(resource)).objects
            wanted = {key: stored.version for key, stored in objects.items()}
            complete(held, wanted, where=str(resource))
