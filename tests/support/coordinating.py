"""A whole coordinator in virtual time: discovery and shards in memory, and what tests ask of it."""

import asyncio
from contextlib import asynccontextmanager

from support.discovery import DiscoveryServer
from support.shards import MemoryProvider

from shoal.coordinator.coordinator import Coordinator
from shoal.coordinator.settings import CoordinatorSettings

KINDS = ("pods", "configmaps", "services", "nodes", "leases")


def api_server():
    api = DiscoveryServer()
    for kind in KINDS:
        api.add(kind, namespaced=kind != "nodes")
    api.add("events")
    api.add("events", group="events.k8s.io")
    api.add("secrets")
    api.define("widgets")
    return api


@asynccontextmanager
async def running(api=None, provider=None, *, shards=3, settings=None):
    coordinator = Coordinator(
        connection=api or api_server(),
        provider=provider or MemoryProvider(),
        settings=settings or CoordinatorSettings(),
        shard_count=shards,
    )
    await coordinator.start()
    try:
        yield coordinator
    finally:
        await coordinator.stop()


def now():
    return asyncio.get_running_loop().time()


async def synced(coordinator, within_s=60):
    async with asyncio.timeout(within_s):
        while not coordinator.status().synced:
            await asyncio.sleep(0.1)


def routed(table):
    return {route.partition.id: route.shard for route in table.routes}


def check_served(coordinator, provider):
    """Every partition of the table is held by its shard alone."""
    status = coordinator.status()
    for partition in status.partitions:
        assert provider.holders(partition.partition) == [partition.shard]
        assert provider.handles[partition.shard].shard.synced(partition.partition)
