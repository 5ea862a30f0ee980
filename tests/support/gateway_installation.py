"""A small installation in this process, as its gateway is asked over HTTP: the embedded API server, a coordinator, two
shards, and the gateway as `gateway.assembly` puts it together, all on one event loop.

`running` is for tests with a loop of their own; `Thread` runs one in a thread, for clients that block.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from support.hosted import Hosted

from shoal.cluster.gateway.assembly import Upstream, assemble
from shoal.cluster.gateway.server import serve
from shoal.cluster.query.routing import Routing
from shoal.cluster.settings import GatewaySettings
from shoal.cluster.simulator.server import ApiServer
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.coordinator.coordinator import Coordinator
from shoal.coordinator.handle import LocalCoordinatorHandle
from shoal.coordinator.settings import CoordinatorSettings, FollowSettings
from shoal.shards.api.client import HttpConnection, PlainCredentials
from shoal.shards.api.requests import ApiRequest
from shoal.shards.local import LocalShardProvider
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

FOLLOWED = ("namespaces", "configmaps", "pods", "deployments.apps", "nodes")
COLLECTIONS = (
    "/api/v1/namespaces",
    "/api/v1/configmaps",
    "/api/v1/pods",
    "/apis/apps/v1/deployments",
    "/api/v1/nodes",
)
PATIENCE_S = 20.0
"""A bound for failing; everything waited for is over as soon as it happens."""


@dataclass(frozen=True)
class Installation:
    """Where it is asked."""

    source: ApiServer
    url: str
    port: int


@asynccontextmanager
async def running(
    *, indexed_fields: Mapping[str, tuple[str, ...]] | None = None, **settings: Any
) -> AsyncIterator[Installation]:
    """An installation that is ready; `settings` are the gateway's."""
    async with ApiServer(settings=SimulatorSettings(seed=1)) as source, AsyncExitStack() as stack:

        def connection(url: str = source.url) -> HttpConnection:
            opened = HttpConnection(PlainCredentials(url))
            stack.push_async_callback(opened.aclose)
            return opened

        provider = LocalShardProvider(
            lambda shard_id: Shard(
                shard_id,
                connection=HttpConnection(PlainCredentials(source.url)),
                permits=NoPermits(),
                settings=ShardSettings(),
                incarnation=shard_id,
                rng=random.Random(1),
                peers=provider.peer,
            )
        )
        stack.push_async_callback(_retire_all, provider)
        coordinator = Coordinator(
            connection=connection(),
            provider=provider,
            settings=CoordinatorSettings(
                follow=FollowSettings(include=FOLLOWED, indexed_fields=dict(indexed_fields or {}))
            ),
            shard_count=2,
        )
        await coordinator.start()
        stack.push_async_callback(coordinator.stop)
        handle = LocalCoordinatorHandle(coordinator)
        routing = Routing(handle)
        following = asyncio.create_task(routing.run(), name="routing")
        stack.callback(following.cancel)
        gateway = assemble(
            routing,
            provider.handles.__getitem__,
            handle,
            Upstream(connection(), connection()),
            GatewaySettings(**settings),
        )
        stack.push_async_callback(gateway.aclose)
        server = await serve(gateway, "127.0.0.1", 0)
        stack.push_async_callback(server.stop)
        probe = connection(server.url)
        async with asyncio.timeout(PATIENCE_S):
            # A report on all shards is used again for a second, so readiness is asked when everything is there.
            for path in COLLECTIONS:
                while not await _answers(probe, path):
                    await asyncio.sleep(0.02)
            while not await _answers(probe, "/readyz"):
                await asyncio.sleep(0.05)
        yield Installation(source, server.url, server.port)


async def _retire_all(provider: LocalShardProvider) -> None:
    for shard_id in list(provider.handles):
        await provider.retire(shard_id)


async def _answers(connection: HttpConnection, path: str) -> bool:
    async with connection.open(ApiRequest("GET", path)) as response:
        await response.read()
        return response.status == 200


class Thread(Hosted[Installation]):
    """An installation on a loop of its own, in a thread: a context manager, for clients that block."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(lambda: running(**settings), name="installation")

    @property
    def url(self) -> str:
        """Of the gateway."""
        return self.held.url
