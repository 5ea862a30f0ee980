"""A small installation in this process, as its gateway is asked over HTTP: the embedded API server, a coordinator, two
shards, and the gateway as `gateway.assembly` puts it together, all on one event loop.

`running` is for tests with a loop of their own; `Thread` runs one in a thread, for clients that block.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

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
from shoal.shards.model.partitions import ShardId
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

FOLLOWED = ("namespaces", "configmaps", "pods", "deployments.apps", "nodes")
PATIENCE_S = 20.0
"""A bound for failing; everything waited for is over as soon as it happens."""


@dataclass(frozen=True)
class Installation:
    """Where it is asked."""

    source: ApiServer
    url: str
    port: int


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Installation]:
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
            )
        )
        for shard_id in ("shard-0", "shard-1"):
            stack.push_async_callback(provider.retire, ShardId(shard_id))
        coordinator = Coordinator(
            connection=connection(),
            provider=provider,
            settings=CoordinatorSettings(follow=FollowSettings(include=FOLLOWED)),
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
            while not await _ready(probe):
                await asyncio.sleep(0.05)
        yield Installation(source, server.url, server.port)


async def _ready(connection: HttpConnection) -> bool:
    async with connection.open(ApiRequest("GET", "/readyz")) as response:
        await response.read()
        return response.status == 200


class Thread:
    """An installation on a loop of its own, in a thread: a context manager."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="installation")
        self.installation: Installation | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(2 * PATIENCE_S)
        if self._problem is not None:
            raise self._problem
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(2 * PATIENCE_S)
        assert not self._thread.is_alive(), "the installation does not end"
        if self._problem is not None:
            raise self._problem

    @property
    def url(self) -> str:
        """Of the gateway."""
        assert self.installation is not None
        return self.installation.url

    @property
    def port(self) -> int:
        """Of the gateway, on loopback."""
        assert self.installation is not None
        return self.installation.port

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as problem:  # noqa: BLE001 - raised again where the test sees it
            self._problem = problem
        finally:
            self._started.set()

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with running(**self._settings) as self.installation:
            self._started.set()
            await self._end.wait()
