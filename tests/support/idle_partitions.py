"""A shard with a partition of a namespace in which nothing happens, and the embedded API server, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from support.asgi_connection import AsgiConnection
from support.clock import run_virtual

from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.handle import Assignment
from shoal.shards.model.partitions import Epoch, ExceptNamespaces, OneNamespace, Partition, ShardId
from shoal.shards.model.queries import (
    FeedQuery,
    GetQuery,
    OvertakeQuery,
    PartitionStatistics,
)
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
IDLE = Partition(CONFIG_MAPS.resource, OneNamespace("idle"))
REST = Partition(CONFIG_MAPS.resource, ExceptNamespaces(("idle",)))


class Counting(AsgiConnection):
    """Counts requests over pinned connections, and how many are under way at once."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.pins = self.pinned_now = self.pinned_most = 0
        self.targets: list[str] = []
        self.between: Callable[[], object] = lambda: None

    def pinned(self) -> Any:
        return _counted(self, super().pinned())


class _counted:  # noqa: N801
    def __init__(self, connection: Counting, pinned: Any) -> None:
        self._connection, self._pinned = connection, pinned

    async def __aenter__(self) -> Any:
        connection = self._connection
        connection.pins += 1
        connection.pinned_now += 1
        connection.pinned_most = max(connection.pinned_most, connection.pinned_now)
        inner = await self._pinned.__aenter__()
        opened = inner.open

        def noted(request: Any) -> Any:
            if "watch" in request.target:
                connection.between()
            connection.targets.append(request.target)
            return opened(request)

        inner.open = noted
        return inner

    async def __aexit__(self, *error: object) -> None:
        self._connection.pinned_now -= 1
        await self._pinned.__aexit__(*error)


class Bench:
    """An API server whose namespace ``idle`` is a partition of its own, and a shard."""

    def __init__(self) -> None:
        self.app = build_app(SimulatorSettings(seed=1))
        self.kind = self.app.verbs.served(CONFIG_MAPS.resource)
        spaces = self.app.verbs.served(Resource("", "v1", "namespaces"))
        self.app.verbs.create(spaces, None, {"metadata": {"name": "idle"}})
        self.connection = Counting(self.app)
        self.shard = Shard(
            ShardId("shard-0"),
            connection=self.connection,
            permits=NoPermits(),
            settings=ShardSettings(),
            incarnation="one",
            rng=random.Random(1),
        )

    def create(self, name: str, namespace: str = "default") -> int:
        self.app.verbs.create(self.kind, namespace, {"metadata": {"name": name}})
        return int(self.app.storage.revision)

    def other(self) -> int:
        """Something of another resource happens: versions move on, and no watch of ours hears of it."""
        nodes = self.app.verbs.served(Resource("", "v1", "nodes"))
        self.app.verbs.create(nodes, None, {"metadata": {"name": f"node-{self.app.storage.revision}"}})
        return int(self.app.storage.revision)

    async def follow(self, *partitions: Partition) -> None:
        await self.shard.adopt(
            [Assignment(partition=partition, resource_type=CONFIG_MAPS) for partition in partitions], Epoch(1)
        )
        await asyncio.sleep(20)

    async def get(self, version: int, partition: Partition = IDLE, **query: Any) -> Any:
        return await self.shard.get(
            GetQuery(
                partition=partition.id,
                epoch=Epoch(1),
                key=Key("idle/a"),
                not_older_than=Version(version),
                **query,
            )
        )

    def feed(self, since: int | None = None, partition: Partition = IDLE) -> Any:
        version = None if since is None else Version(since)
        return self.shard.feed(FeedQuery(partition=partition.id, epoch=Epoch(1), since=version))

    async def overtake(self, version: int, partition: Partition = IDLE) -> int:
        return await self.shard.overtake(
            OvertakeQuery(partition=partition.id, epoch=Epoch(1), version=Version(version))
        )

    @property
    def idle(self) -> PartitionStatistics:
        (found,) = [found for found in self.shard.statistics().partitions if found.partition == IDLE.id]
        return found

    @property
    def proofs(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for partition in self.shard.statistics().partitions:
            for outcome, times in partition.proofs.items():
                found[outcome] = found.get(outcome, 0) + times
        return found


def on(bench_main: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        try:
            await bench_main(bench)
        finally:
            await bench.shard.stop()

    run_virtual(main())


def now() -> float:
    return asyncio.get_running_loop().time()
