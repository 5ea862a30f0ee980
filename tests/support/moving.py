"""Several shards of one embedded API server, and partitions on their way from one to another, in virtual time.

Shards reach each other by `LocalShardHandle`; a test may put a bad one in the place of one (`Bench.bad`), whose
exports stall, break off or are garbled. Lists that the API server is asked for are counted as it gets them.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
from support.asgi_connection import AsgiConnection
from support.clock import run_virtual

from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.api.requests import ApiRequest
from shoal.shards.handle import Assignment
from shoal.shards.local import LocalShardHandle
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import Cover, Epoch, Partition, PartitionId, ShardId
from shoal.shards.model.queries import (
    ChangesQuery,
    FeedQuery,
    GetQuery,
    OvertakeQuery,
    PageQuery,
    PartitionStatistics,
)
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.transfers import ExportPiece, ExportQuery, HandedOver, Source, Taken
from shoal.shards.model.versions import Version
from shoal.shards.settings import ShardSettings, StoreSettings, TransferSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
WHOLE = Partition(CONFIG_MAPS.resource)
A, B = ShardId("shard-a"), ShardId("shard-b")
FIRST = Epoch(1)


def part(cover: Cover) -> Partition:
    """A part of the config maps."""
    return Partition(CONFIG_MAPS.resource, cover)


class ListCounting(AsgiConnection):
    """Notes requests for all that there is, in whatever form; a list of one object is a question for the version."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.lists: list[str] = []

    def open(self, request: ApiRequest) -> AbstractAsyncContextManager[Any]:
        query = dict(request.query)
        if request.path.endswith("configmaps") and (
            "sendInitialEvents" in query or ("watch" not in query and query.get("limit") != "1")
        ):
            self.lists.append(request.target)
        return super().open(request)


class Bad(LocalShardHandle):
    """A shard that sends `pieces` pieces as it should, and then does what `how` says."""

    def __init__(self, shard: Shard, how: str, pieces: int = 1) -> None:
        super().__init__(shard)
        self.how = how
        self.pieces = pieces
        self.sent = 0
        self.closed = 0

    async def export(self, query: ExportQuery) -> AsyncIterator[ExportPiece]:
        try:
            async for piece in super().export(query):
                self.sent += 1
                if self.sent <= self.pieces:
                    yield piece
                    continue
                match self.how:
                    case "stalls":
                        await asyncio.Event().wait()
                    case "dies":
                        raise NotReady(f"the connection to shard {self.shard_id} is lost: it died")
                    case "ends early":
                        return
                    case "is slow":
                        await asyncio.sleep(4)
                        yield piece
                    case "garbles":
                        middle = len(piece.data) // 2
                        data = (
                            piece.data[:middle]
                            + bytes([piece.data[middle] ^ 0x40])
                            + piece.data[middle + 1 :]
                        )
                        yield msgspec.structs.replace(piece, data=data)
                    case other:
                        raise AssertionError(other)
        finally:
            self.closed += 1


class Bench:
    """An API server with namespaces ``default``, ``hot`` and ``idle``, and shards as they are asked for."""

    def __init__(self, *, store: StoreSettings | None = None, **transfer: Any) -> None:
        self.app = build_app(SimulatorSettings(seed=1))
        self.kind = self.app.verbs.served(CONFIG_MAPS.resource)
        self.settings = ShardSettings(
            store=store or StoreSettings(),
            transfer=TransferSettings(piece_bytes=64 << 10, **transfer),
        )
        spaces = self.app.verbs.served(Resource("", "v1", "namespaces"))
        for name in ("hot", "idle"):
            self.app.verbs.create(spaces, None, {"metadata": {"name": name}})
        self.shards: dict[ShardId, Shard] = {}
        self.connections: dict[ShardId, ListCounting] = {}
        self.bad: dict[ShardId, Bad] = {}
        self.away: set[ShardId] = set()
        self.epoch = FIRST
        self._random = random.Random(7)

    def shard(self, name: ShardId) -> Shard:
        """The shard of that name."""
        if name not in self.shards:
            self.connections[name] = ListCounting(self.app)
            self.shards[name] = Shard(
                name,
                connection=self.connections[name],
                permits=NoPermits(),
                settings=self.settings,
                incarnation="one",
                rng=random.Random(1),
                peers=self.peer,
            )
        return self.shards[name]

    def peer(self, name: ShardId) -> LocalShardHandle:
        """The way from one shard to another."""
        if name in self.away:
            raise NotReady(f"shard {name} is not running", retry_after_s=1)
        return self.bad.get(name) or LocalShardHandle(self.shard(name))

    async def stop(self) -> None:
        for shard in self.shards.values():
            await shard.stop()

    @property
    def lists(self) -> int:
        """How often the API server was asked for all that there is."""
        return sum(len(connection.lists) for connection in self.connections.values())

    # -- writing ---------------------------------------------------------------------------------------------

    @property
    def revision(self) -> Version:
        return Version(self.app.storage.revision)

    def create(self, name: str, namespace: str = "default", *, kilobytes: int = 0, **labels: str) -> Version:
        """Creates an object; `kilobytes` of it hardly compress."""
        noise = base64.b64encode(self._random.randbytes(750 * kilobytes)).decode()
        document = {"metadata": {"name": name, "labels": labels}, "data": {"noise": noise}}
        self.app.verbs.create(self.kind, namespace, document)
        return self.revision

    def change(self, name: str, namespace: str = "default", **labels: str) -> Version:
        self.app.verbs.update(
            self.kind, Key(f"{namespace}/{name}"), lambda document: document["metadata"].update(labels=labels)
        )
        return self.revision

    def delete(self, name: str, namespace: str = "default") -> Version:
        self.app.verbs.delete(self.kind, namespace, name)
        return self.revision

    def other(self) -> Version:
        """Something of another resource happens: versions move on, and no watch of ours hears of it."""
        nodes = self.app.verbs.served(Resource("", "v1", "nodes"))
        self.app.verbs.create(nodes, None, {"metadata": {"name": f"node-{self.revision}"}})
        return self.revision

    async def filled(self, objects: int = 100) -> None:
        """A shard that follows a partition which comes in several pieces."""
        for number in range(objects):
            self.create(f"map-{number:03}", kilobytes=4)
        await self.follow(A)

    async def churned(self) -> None:
        """Changes something everywhere, ten times a second."""
        number = 0
        while True:
            number += 1
            namespace = ("hot", "default", "idle")[number % 3]
            self.create(f"new-{number}", namespace)
            if number > 10:
                self.change(f"new-{number - 3}", namespace, at=str(number))
                self.delete(f"new-{number - 9}", namespace)
            await asyncio.sleep(0.1)

    # -- telling shards --------------------------------------------------------------------------------------

    async def follow(self, name: ShardId, *partitions: Partition) -> None:
        """Has a shard follow partitions by listing them."""
        await self.shard(name).adopt(self.assignments(*(partitions or (WHOLE,))), self.epoch)
        await asyncio.sleep(1)

    @staticmethod
    def assignments(*partitions: Partition) -> list[Assignment]:
        return [Assignment(partition=partition, resource_type=CONFIG_MAPS) for partition in partitions]

    async def receive(
        self, name: ShardId, partition: Partition, *sources: tuple[ShardId, Partition], wait_s: float = 1.0
    ) -> PartitionStatistics:
        """Has a shard receive a partition; how it is after a while."""
        given = tuple(Source(shard, source.id) for shard, source in sources)
        self.epoch = Epoch(self.epoch + 1)
        await self.shard(name).adopt(self.assignments(partition), self.epoch, {partition.id: given})
        if wait_s:
            await asyncio.sleep(wait_s)
        return self.statistics(name, partition)

    async def hand_over(self, name: ShardId, *partitions: Partition) -> dict[PartitionId, HandedOver]:
        self.epoch = Epoch(self.epoch + 1)
        return await self.shard(name).hand_over([partition.id for partition in partitions], self.epoch)

    async def take_over(self, name: ShardId, partition: Partition, *stood: HandedOver) -> None:
        taken = Taken(Version(max(one.shown for one in stood)), Version(max(one.frontier for one in stood)))
        await self.shard(name).take_over({partition.id: taken})

    async def release(self, name: ShardId, *partitions: Partition) -> None:
        await self.shard(name).release([partition.id for partition in partitions], self.epoch)

    # -- asking ----------------------------------------------------------------------------------------------

    def statistics(self, name: ShardId, partition: Partition = WHOLE) -> PartitionStatistics:
        (found,) = [one for one in self.shard(name).statistics().partitions if one.partition == partition.id]
        return found

    def holds(self, name: ShardId) -> list[PartitionId]:
        return [one.partition for one in self.shard(name).statistics().partitions]

    async def keys(self, name: ShardId, partition: Partition = WHOLE, **query: Any) -> list[Key]:
        return (
            await self.shard(name).page(PageQuery(partition=partition.id, epoch=self.epoch, **query))
        ).keys

    async def get(self, name: ShardId, key: str, partition: Partition = WHOLE, **query: Any) -> bytes | None:
        asked = GetQuery(partition=partition.id, epoch=self.epoch, key=Key(key), **query)
        return (await self.shard(name).get(asked)).body

    async def changes(
        self, name: ShardId, since: Version, partition: Partition = WHOLE, **query: Any
    ) -> list[tuple[str, Version]]:
        """Keys and versions of what happened since."""
        asked = ChangesQuery(partition=partition.id, epoch=self.epoch, since=since, **query)
        pages = [page async for page in self.shard(name).changes(asked)]
        return [(change.key, change.version) for page in pages for change in page.changes]

    async def overtake(self, name: ShardId, version: Version, partition: Partition = WHOLE) -> Version:
        asked = OvertakeQuery(partition=partition.id, epoch=self.epoch, version=version)
        return await self.shard(name).overtake(asked)

    def feed(self, name: ShardId, partition: Partition = WHOLE, since: Version | None = None) -> Any:
        return self.shard(name).feed(FeedQuery(partition=partition.id, epoch=self.epoch, since=since))

    def truth(self, partition: Partition = WHOLE) -> dict[Key, Version]:
        """What the API server has of a partition, in order."""
        stored = self.app.verbs.collection(self.kind).page().objects
        return {
            one.key: one.version
            for one in sorted(stored, key=lambda one: one.key)
            if partition.cover.admits(one.namespace, one.uid)
        }

    def sound(self, *held: tuple[ShardId, Partition]) -> None:
        """What shards hold is what the API server has."""
        for name, partition in held:
            entries = self.shard(name)._followed[partition.id].store.extract().entries
            assert {entry.key: entry.version for entry in entries} == self.truth(partition), (
                name,
                partition.id,
            )


def on(main: Callable[[Bench], Awaitable[None]], **bench: Any) -> None:
    """Runs a test on a bench, in virtual time."""

    async def run() -> None:
        made = Bench(**bench)
        try:
            await main(made)
        finally:
            await made.stop()

    run_virtual(run())
