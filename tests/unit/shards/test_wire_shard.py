"""A shard that follows the embedded API server, asked over a real connection: the answers are those it gives itself."""

import asyncio
import contextlib
import random

import pytest
from support.asgi_connection import AsgiConnection
from support.wire import SHARD, serving, until

from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.handle import Assignment
from shoal.shards.model.errors import BadRequest, Expired, NotServed, TooLargeVersion
from shoal.shards.model.partitions import Epoch, Partition, PartitionId
from shoal.shards.model.queries import (
    ChangesQuery,
    CountQuery,
    FeedQuery,
    GetQuery,
    OvertakeQuery,
    PageQuery,
)
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
PARTITION = Partition(CONFIG_MAPS.resource)
EPOCH = Epoch(5)


class Both:
    """The shard itself, and the way to it over the wire."""

    def __init__(self, app, shard, wire):
        self.app = app
        self.shard = shard
        self.wire = wire
        self.kind = app.verbs.served(CONFIG_MAPS.resource)

    def create(self, name, **labels):
        document = {"metadata": {"name": name, "labels": labels}, "data": {"text": "x" * 2000}}
        self.app.verbs.create(self.kind, "default", document)
        return Version(self.app.storage.revision)

    def partition(self):
        (found,) = self.shard.statistics().partitions
        return found

    async def same(self, method, query):
        """What the shard says, having made sure that the wire says the same but for the age."""
        direct = await getattr(self.shard, method)(query)
        wired = await getattr(self.wire, method)(query)
        assert without_age(wired) == without_age(direct)
        return wired


def without_age(answer):
    return {name: getattr(answer, name) for name in answer.__struct_fields__ if name != "age_s"}


@contextlib.asynccontextmanager
async def followed(objects=50):
    app = build_app(SimulatorSettings(seed=1))
    shard = Shard(
        SHARD,
        connection=AsgiConnection(app),
        permits=NoPermits(),
        settings=ShardSettings(),
        incarnation="one",
        rng=random.Random(1),
    )
    try:
        async with serving(shard, window_bytes=64 << 10) as served:
            both = Both(app, shard, served.connect())
            for number in range(objects):
                both.create(f"map-{number:03}", parity="odd" if number % 2 else "even")
            await shard.adopt([Assignment(partition=PARTITION, resource_type=CONFIG_MAPS)], EPOCH)
            await until(lambda: both.partition().state == "synced")
            yield both
    finally:
        await shard.stop()


def asking(**more):
    return {"partition": PARTITION.id, "epoch": EPOCH, **more}


async def test_gets_pages_and_counts_are_the_shards_own():
    async with followed() as both:
        assert (await both.same("get", GetQuery(**asking(key=Key("default/map-007"))))).body
        assert (await both.same("get", GetQuery(**asking(key=Key("default/nothing"))))).body is None
        page = await both.same("page", PageQuery(**asking(labels="parity=odd", limit=10)))
        assert (len(page.keys), page.remaining) == (10, 15)
        count = await both.same("count", CountQuery(**asking(namespace="default", labels="parity=even")))
        assert count.count == 25
        assert both.wire.connection.epoch == EPOCH


async def test_a_stream_is_the_state_it_began_with_however_long_it_takes():
    async with followed(objects=300) as both:
        stream = both.wire.stream(PageQuery(**asking(namespace="default", limit=20)))
        pages = [await anext(stream)]
        for number in range(20):
            both.create(f"later-{number}")
        frontier = Version(both.app.storage.revision)
        await until(lambda: both.partition().frontier >= frontier)
        pages += [page async for page in stream]
        keys = [key for page in pages for key in page.keys]
        assert len(pages) == 15
        assert len({page.version for page in pages}) == 1
        assert [key for key in keys if "later" in key] == []
        assert keys == sorted(set(keys))
        assert len(keys) == 300


async def test_errors_are_the_shards_own():
    async with followed() as both:
        with pytest.raises(NotServed) as caught:
            await both.wire.get(GetQuery(partition=PartitionId("v1/nothing"), epoch=EPOCH, key=Key("a/b")))
        assert (caught.value.partition, caught.value.epoch) == ("v1/nothing", EPOCH)
        with pytest.raises(BadRequest, match="unable to parse requirement"):
            await both.wire.page(PageQuery(**asking(labels="a===b")))
        with pytest.raises(BadRequest, match="unable to parse requirement"):
            await anext(both.wire.stream(PageQuery(**asking(labels="a===b"))))
        wanted = Version(both.app.storage.revision + 1000)
        with pytest.raises(TooLargeVersion, match=f"Too large resource version: {wanted}, current: "):
            await both.wire.get(GetQuery(**asking(key=Key("a/b"), not_older_than=wanted, wait_s=0.05)))
        with pytest.raises(Expired):
            await anext(both.wire.changes(ChangesQuery(**asking(since=Version(1)))))


async def test_changes_and_feeds_tell_what_happened():
    async with followed() as both:
        since = both.partition().frontier
        feeds = [both.wire.feed(FeedQuery(**asking(since=since))) for _ in range(2)]
        for first in await asyncio.gather(*(anext(feed) for feed in feeds)):
            assert first.frontier >= since
        versions = [both.create(f"new-{number}") for number in range(5)]
        for feed in feeds:
            told = []
            while len(told) < 5:
                told += (await anext(feed)).events
            assert [event.version for event in told] == versions
            assert [event.key for event in told] == [f"default/new-{number}" for number in range(5)]
            assert all(event.type == "ADDED" and b'"text":"xxx' in event.body for event in told)
        pages = [page async for page in both.wire.changes(ChangesQuery(**asking(since=since)))]
        assert [change.version for page in pages for change in page.changes] == versions
        newest = Version(versions[-1])
        assert await both.wire.overtake(OvertakeQuery(**asking(version=newest))) >= newest
        await asyncio.gather(*(feed.aclose() for feed in feeds))


async def test_a_partition_that_is_let_go_ends_its_feeds():
    async with followed() as both:
        feed = both.wire.feed(FeedQuery(**asking()))
        await anext(feed)
        await both.shard.release([PARTITION.id], Epoch(6))
        with pytest.raises(NotServed) as caught:
            async for _ in feed:
                pass
        assert caught.value.epoch == 6
        assert both.wire.connection.epoch == 6


async def test_a_feed_that_is_closed_leaves_nothing_in_the_shard():
    async with followed() as both:
        feed = both.wire.feed(FeedQuery(**asking()))
        await anext(feed)
        assert feeds_of(both.shard) == 1
        await feed.aclose()
        await until(lambda: feeds_of(both.shard) == 0)


def feeds_of(shard):
    return sum(followed.feeds.readers for followed in shard._followed.values())
