"""A shard over an embedded API server whose answers can be tampered with on their way, in virtual time.

`AuditBench` is the pair; `Tampering` is the connection between: it loses lines of watches, and counts what is asked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from support.asgi_connection import AsgiConnection
from support.clock import run_virtual

from shoal.cluster.simulator.app import ApiServerApp
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.api.requests import METADATA, ApiRequest
from shoal.shards.handle import Assignment
from shoal.shards.model.partitions import Epoch, Partition, ShardId
from shoal.shards.model.queries import PageQuery, PartitionStatistics
from shoal.shards.model.refs import Key, ref_of
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.settings import AuditSettings, ShardSettings, StoreSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits, Permits

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
PARTITION = Partition(CONFIG_MAPS.resource)
PERIOD_S = 100.0


class Tampering:
    """An `ApiConnection`; the answers of what `loses` names do not arrive as they were sent."""

    def __init__(self, app: ApiServerApp) -> None:
        self._inner = AsgiConnection(app)
        self.loses = b""
        """Lines of watches with this in them are left out."""
        self.metadata_lists: list[ApiRequest] = []
        """Lists of metadata alone that were asked for."""
        self.asked_at: list[float] = []
        self.before: Callable[[ApiRequest], Awaitable[None]] | None = None
        """Called before a list of metadata is asked for."""

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[Any]:
        if ("Accept", METADATA) in request.headers:
            self.metadata_lists.append(request)
            if self.before is not None:
                await self.before(request)
        async with self._inner.open(request) as exchange:
            yield _Censored(exchange, self) if request.stream else exchange

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[Any]:
        async with self._inner.pinned() as pinned:
            yield pinned

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Censored:
    """An open watch."""

    def __init__(self, exchange: Any, tampering: Tampering) -> None:
        self._exchange = exchange
        self._tampering = tampering
        self.status, self.headers = exchange.status, exchange.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self._exchange.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            loses = self._tampering.loses
            kept = [line + b"\n" for line in lines if not (loses and loses in line)]
            if kept:
                yield b"".join(kept)
        if rest:
            yield rest

    async def read(self, limit: int = 1 << 30) -> bytes:
        body: bytes = await self._exchange.read(limit)
        return body


class AuditBench:
    """An API server and a shard that audits."""

    def __init__(
        self,
        *,
        permits: Permits | None = None,
        server: SimulatorSettings | None = None,
        store: StoreSettings | None = None,
        partition: Partition = PARTITION,
        **audits: Any,
    ) -> None:
        self.app = build_app(server or SimulatorSettings(seed=1))
        self.kind = self.app.verbs.served(CONFIG_MAPS.resource)
        self.connection = Tampering(self.app)
        self.of = partition
        self.shard = Shard(
            ShardId("shard-0"),
            connection=self.connection,
            permits=permits or NoPermits(),
            settings=ShardSettings(
                audits=AuditSettings(**{"period_s": PERIOD_S, **audits}), store=store or StoreSettings()
            ),
            incarnation="one",
            rng=random.Random(1),
        )

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

    async def busy(self, seconds: float) -> None:
        """Lets time pass in which other things in the cluster are written, so that the server's version moves on."""
        for _ in range(int(seconds)):
            self.app.storage.advance(self.app.storage.revision + 1)
            await asyncio.sleep(1)

    async def follow(self, *partitions: Partition) -> None:
        await self.shard.adopt(
            [
                Assignment(partition=partition, resource_type=CONFIG_MAPS)
                for partition in partitions or (self.of,)
            ],
            Epoch(1),
        )

    @property
    def held(self) -> Any:
        """The partition as it is followed."""
        return self.shard._followed[self.of.id]

    @property
    def found(self) -> PartitionStatistics:
        (only,) = [one for one in self.shard.statistics().partitions if one.partition == self.of.id]
        return only

    async def versions(self) -> dict[str, str]:
        """Key -> body, as it is served."""
        page = await self.shard.page(PageQuery(partition=self.of.id, epoch=Epoch(1), limit=100_000))
        return dict(zip(page.keys, (body.decode() for body in page.bodies), strict=True))

    async def equals_the_server(self) -> bool:
        admits = self.of.cover.admits
        objects = self.app.verbs.collection(self.kind).objects
        wanted = {
            key: f'"resourceVersion":"{stored.version}"'
            for key, stored in objects.items()
            if admits(ref_of(key).namespace, stored.uid)
        }
        served = await self.versions()
        return served.keys() == wanted.keys() and all(text in served[key] for key, text in wanted.items())


def on(main: Callable[[AuditBench], Awaitable[Any]], **settings: Any) -> Any:
    """Runs a test on a bench, in virtual time."""

    async def run() -> Any:
        bench = AuditBench(**settings)
        try:
            return await main(bench)
        finally:
            await bench.shard.stop()

    return run_virtual(run())
