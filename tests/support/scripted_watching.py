"""Gateways whose watches say what a test has them say: over ASGI, and on a socket."""

import asyncio
import contextlib

from support.local_shards import NODES, PODS, LocalInstallation, made

from shoal.cluster.gateway.server import serve
from shoal.cluster.query.answers import Provenance
from shoal.cluster.settings import GatewaySettings
from shoal.cluster.watching.statistics import WatchStatistics


class ScriptedWatch:
    """A watch whose lines are the test's."""

    def __init__(self, owner):
        self.owner = owner
        self.provenance = Provenance(90, 0.25, ("shard-0", "shard-1"))
        self.sink = None
        self.running = asyncio.Event()
        self.over = asyncio.Event()
        self.fails = None
        self.ended = asyncio.Event()
        self.closed = False

    async def aclose(self):
        self.closed = True

    async def run(self, sink):
        self.sink = sink
        self.running.set()
        try:
            await self.over.wait()
            if self.fails:
                raise self.fails
        finally:
            self.ended.set()


class ScriptedWatching:
    """In place of a `WatchRouter`."""

    def __init__(self):
        self.statistics = WatchStatistics()
        self.opened = []
        self.asked = []
        self.problem = None
        self.delay_s = 0.0
        self.news = asyncio.Event()

    async def open(self, query, form):
        self.asked.append((query, form))
        await asyncio.sleep(self.delay_s)
        if self.problem:
            raise self.problem
        watch = ScriptedWatch(self)
        self.opened.append(watch)
        self.news.set()
        return watch

    async def aclose(self):
        pass

    async def watch(self, at=0):
        """The watch opened as number `at`, once it runs."""
        async with asyncio.timeout(10):
            while len(self.opened) <= at:
                self.news.clear()
                await self.news.wait()
            await self.opened[at].running.wait()
        return self.opened[at]


def installation(**options):
    watching = ScriptedWatching()
    built = LocalInstallation(1, watching=watching, **options)
    built.hold(PODS, [made(PODS, "web-0", namespace="a")])
    built.hold(NODES)
    built.publish()
    built.watching = watching
    return built


def counted(built, name, **labels):
    for update in built.gateway.metrics.before_scrape:
        update()
    return built.gateway.metrics.registry.get_sample_value(name, labels)


@contextlib.asynccontextmanager
async def serving(**options):
    built = installation(**options)
    server = await serve(built.gateway, "127.0.0.1", 0, options.get("settings") or GatewaySettings())
    try:
        yield built, server
    finally:
        await built.gateway.stop_watches()
        await server.stop()
        await built.gateway.aclose()


def request(path, version="1.1", method="GET"):
    return f"{method} {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode()
