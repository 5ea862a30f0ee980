"""A shard with snapshots over an embedded API server, which can be killed and started again, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from support.asgi_connection import AsgiConnection
from support.clock import run_virtual

from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.handle import Assignment
from shoal.shards.locations import Folder, Location
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import Epoch, Partition, PartitionId, ShardId
from shoal.shards.model.queries import PageQuery, PartitionStatistics
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.settings import ShardSettings, SnapshotSettings, StoreSettings
from shoal.shards.shard import Shard
from shoal.shards.snapshots import Snapshots
from shoal.shards.store.snapshot_format import file_name
from shoal.shards.watch.permits import NoPermits

T = TypeVar("T")

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
SECRETS = ResourceType(resource=Resource("", "v1", "secrets"), kind="Secret", namespaced=True)
PARTITION = Partition(CONFIG_MAPS.resource)
ASSIGNMENT = Assignment(partition=PARTITION, resource_type=CONFIG_MAPS)
EVERY_S = 100.0
EPOCH_S = 1_800_000_000.0


async def here(work: Callable[[], T], /) -> T:
    """There are no threads in virtual time."""
    return work()


class ResumedBench:
    """An API server, a place for snapshots, and a shard of which there may be one after the other."""

    def __init__(
        self,
        folder: Path,
        *,
        server: SimulatorSettings | None = None,
        location: Location | None = None,
        store: StoreSettings | None = None,
        **snapshots: Any,
    ) -> None:
        self.folder = folder
        self.app = build_app(server or SimulatorSettings(seed=1))
        self.kind = self.app.verbs.served(CONFIG_MAPS.resource)
        self.location: Location = location or Folder(folder)
        self.settings = ShardSettings(
            snapshots=SnapshotSettings(**{"location": str(folder), "every_s": EVERY_S, **snapshots}),
            store=store or StoreSettings(),
        )
        self.jump_s = 0.0
        """By how much the clock on the wall is wrong."""
        self.incarnations = 0
        self.shard = self._start()

    def _wall(self) -> float:
        return EPOCH_S + asyncio.get_running_loop().time() + self.jump_s

    def _start(self, name: str = "shard-0") -> Shard:
        self.incarnations += 1
        self.connection = AsgiConnection(self.app)
        self.snapshots = Snapshots(
            self.location,
            self.settings.snapshots,
            shard=name,
            connection=self.connection,
            managed_fields=False,
            off_loop=here,
            wall=self._wall,
        )
        return Shard(
            ShardId(name),
            connection=self.connection,
            permits=NoPermits(),
            settings=self.settings,
            incarnation=f"incarnation-{self.incarnations}",
            rng=random.Random(self.incarnations),
            snapshots=self.snapshots,
        )

    async def restart(self, *assignments: Assignment, name: str = "shard-0") -> None:
        """The process is gone, and another takes its place. Nothing is saved on the way out."""
        await self.shard.stop()
        self.shard = self._start(name)
        await self.follow(*assignments)

    async def follow(self, *assignments: Assignment) -> None:
        await self.shard.adopt(assignments or (ASSIGNMENT,), Epoch(self.incarnations))

    def create(self, name: str, namespace: str = "default", **members: Any) -> int:
        self.app.verbs.create(self.kind, namespace, {"metadata": {"name": name}, **members})
        return self.app.storage.revision

    def fill(self, count: int, **members: Any) -> None:
        for number in range(count):
            self.create(f"object-{number:05}", **members)

    def change(self, name: str, **labels: str) -> int:
        self.app.verbs.update(
            self.kind, Key(f"default/{name}"), lambda document: document["metadata"].update(labels=labels)
        )
        return self.app.storage.revision

    def delete(self, name: str) -> int:
        self.app.verbs.delete(self.kind, "default", name)
        return self.app.storage.revision

    def file(self, partition: Partition = PARTITION) -> Path:
        """Where the snapshot of a partition is."""
        return self.folder / file_name(partition.resource, partition.id)

    def found(self, partition: PartitionId = PARTITION.id) -> PartitionStatistics:
        (only,) = [one for one in self.shard.statistics().partitions if one.partition == partition]
        return only

    @property
    def outcomes(self) -> dict[str, int]:
        return self.shard.statistics().snapshots

    def lists(self) -> int:
        """Lists of the API server since the shard was started."""
        return sum(sum(one.lists.values()) for one in self.shard.statistics().partitions)

    async def versions(self, partition: Partition = PARTITION) -> tuple[int, dict[str, str]]:
        page = await self.shard.page(
            PageQuery(partition=partition.id, epoch=Epoch(self.incarnations), limit=100_000)
        )
        return page.version, dict(zip(page.keys, (body.decode() for body in page.bodies), strict=True))

    async def served_within(self, seconds: float, partition: Partition = PARTITION) -> float:
        """How long it took until the partition was served."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(seconds):
            while True:
                try:
                    await self.versions(partition)
                except NotReady:
                    await asyncio.sleep(0.05)
                else:
                    return loop.time() - began

    async def equals_the_server(self, partition: Partition = PARTITION) -> bool:
        """Waits a moment for what is under way."""
        await asyncio.sleep(1)
        _, served = await self.versions(partition)
        served_resource = self.app.verbs.served(partition.resource)
        objects = self.app.verbs.collection(served_resource).objects
        admits = partition.cover.admits
        wanted = {key: stored for key, stored in objects.items() if admits(stored.namespace, stored.uid)}
        return served.keys() == wanted.keys() and all(
            f'"resourceVersion":"{stored.version}"' in served[key] for key, stored in wanted.items()
        )


def on(folder: Path, main: Callable[[ResumedBench], Awaitable[Any]], **settings: Any) -> Any:
    """Runs a test on a bench, in virtual time."""

    async def run() -> Any:
        bench = ResumedBench(folder, **settings)
        try:
            return await main(bench)
        finally:
            await bench.shard.stop()

    return run_virtual(run())
