"""Both machines of a connection back to back without sockets, and a shard whose answers a test writes itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from shoal.shards.model.partitions import Epoch, PartitionId, ShardId
from shoal.shards.model.queries import (
    ChangesPage,
    FeedBatch,
    FeedEvent,
    FeedQuery,
    GetAnswer,
    GetQuery,
    PageAnswer,
    PageQuery,
    PartitionCount,
)
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.settings import WireSettings
from shoal.shards.wire.authentication import Secret
from shoal.shards.wire.client import DirectQueries, ShardConnection
from shoal.shards.wire.frames import FrameReader
from shoal.shards.wire.gateway_side import GatewaySide
from shoal.shards.wire.server import WireServer
from shoal.shards.wire.shard_side import ShardSide

PODS = PartitionId("v1/pods")
SECRET = Secret(b"s" * 32)
SHARD = ShardId("shard-0")


def get(key: str = "default/a", **more) -> GetQuery:
    return GetQuery(partition=PODS, epoch=Epoch(1), key=Key(key), **more)


def pages(**more) -> PageQuery:
    return PageQuery(partition=PODS, epoch=Epoch(1), **more)


def feed(since: int | None = None) -> FeedQuery:
    return FeedQuery(partition=PODS, epoch=Epoch(1), since=since)


def page(number: int, *, size: int = 10, more: bool = True) -> PageAnswer:
    return PageAnswer(
        version=Version(1), keys=[Key(f"default/{number:06}")], bodies=[b"x" * size], more=more, remaining=0
    )


def batch(frontier: int, *, size: int = 10) -> FeedBatch:
    event = FeedEvent(Version(frontier), "ADDED", Key("default/a"), "uid", b"x" * size, b"", ("a",))
    return FeedBatch(PODS, Version(frontier), [event], 0.5)


class Pair:
    """A gateway's machine and a shard's, and the bytes between them, which a test may hold back or change."""

    def __init__(self, *, settings=None, now=0.0, **other):
        settings = settings or WireSettings()
        self.now = now
        self.epoch = Epoch(1)
        self.gateway = GatewaySide(
            shard=SHARD,
            incarnation=other.get("incarnation", "one"),
            secret=other.get("secret", SECRET),
            nonce=b"g" * 32,
            settings=settings,
            now=now,
        )
        self.shard = ShardSide(
            shard=other.get("shard", SHARD),
            incarnation="one",
            secret=SECRET,
            nonce=b"n" * 32,
            binding=other.get("binding", b""),
            epoch_now=lambda: self.epoch,
            settings=settings,
            now=now,
        )
        self.readers = {id(self.gateway): FrameReader(1 << 30), id(self.shard): FrameReader(1 << 30)}
        self.gateway.greet(b"")

    def receive(self, side, sent: bytes):
        """Gives bytes to a side, and returns its events."""
        reader = self.readers[id(side)]
        events = []
        side.heard(self.now)
        while sent:
            space = reader.space()
            count = min(len(space), len(sent))
            space[:count], sent = sent[:count], sent[count:]
            for frame in reader.filled(count):
                event = side.receive(frame, self.now) if side is self.shard else side.receive(frame)
                if event is not None:
                    events.append(event)
        return events

    def to_shard(self):
        return self.receive(self.shard, b"".join(self.gateway.take_outgoing(self.now)))

    def to_gateway(self):
        return self.receive(self.gateway, b"".join(self.shard.take_outgoing(self.now)))

    def open(self):
        self.to_shard()
        self.to_gateway()
        self.to_shard()
        self.to_gateway()
        assert self.gateway.open
        assert self.shard.open
        return self

    def ask(self, verb, query, timeout_s=30.0):
        """Asks, and returns the call as both sides have it."""
        call = self.gateway.ask(verb, query, timeout_s=timeout_s, now=self.now, owner=object())
        (asked,) = self.to_shard()
        assert asked.query == query
        return call, asked.call


class Scripted:
    """A `Served` that counts what it is asked, and answers what a test says."""

    def __init__(self) -> None:
        self.epoch = Epoch(3)
        self.gate = asyncio.Event()
        """Open: gets are answered."""
        self.gate.set()
        self.asked = 0
        self.cancelled = 0
        self.error: Exception | None = None
        self.made = 0
        """Pages or batches taken out of streams."""
        self.closed = 0
        """Streams that have ended, however."""
        self.page_bytes = 10
        self.page_count = 5
        self.batches: list[FeedBatch] = []
        self.ends = False
        """Whether feeds end after the batches there are."""
        self.news = asyncio.Event()

    async def get(self, query: GetQuery) -> GetAnswer:
        self.asked += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return GetAnswer(body=query.key.encode(), frontier=Version(9), age_s=0.5)

    async def page(self, query) -> PageAnswer:
        return page(1, size=self.page_bytes)

    async def count(self, query) -> PartitionCount:
        return PartitionCount(version=Version(4), count=7, groups={"a": 7})

    async def overtake(self, query) -> Version:
        return Version(query.version + 1)

    async def changes(self, query) -> AsyncIterator[ChangesPage]:
        yield ChangesPage(frontier=Version(query.since), changes=[], more=False)

    async def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        try:
            if self.error is not None:
                raise self.error
            for number in range(self.page_count):
                self.made += 1
                yield page(number, size=self.page_bytes, more=number < self.page_count - 1)
        finally:
            self.closed += 1

    async def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        told = 0
        try:
            while True:
                while told < len(self.batches):
                    self.made += 1
                    yield self.batches[told]
                    told += 1
                if self.ends:
                    return
                self.news.clear()
                await self.news.wait()
        finally:
            self.closed += 1

    def tell(self, *batches: FeedBatch) -> None:
        self.batches.extend(batches)
        self.news.set()


class Served:
    """A listening shard and a connection to it."""

    def __init__(self, shard, server, endpoint):
        self.shard = shard
        self.server = server
        self.endpoint = endpoint
        self.found = 0
        self.connections = []
        self.problem = None

    def connect(self, **changes) -> DirectQueries:
        async def find():
            self.found += 1
            if self.problem is not None:
                raise self.problem
            return msgspec.structs.replace(self.endpoint, **changes)

        connection = ShardConnection(SHARD, find, random.Random(1))
        self.connections.append(connection)
        return DirectQueries(connection)

    @property
    def link(self):
        """The shard's end of the one connection there is."""
        (link,) = self.server.links
        return link


async def listening(shard, *, incarnation="one", **settings) -> Served:
    server = WireServer(SHARD, incarnation, lambda: shard, WireSettings(**settings))
    return Served(shard, server, await server.start("127.0.0.1"))


@asynccontextmanager
async def serving(shard=None, **settings):
    served = await listening(Scripted() if shard is None else shard, **settings)
    try:
        yield served
    finally:
        for connection in served.connections:
            await connection.aclose()
        await served.server.aclose()
        await turns()  # uvloop lets go of sockets in turns of its own


async def turns(count=20) -> None:
    """Lets what is ready run; what a socket carries on this machine is there by then, or the next time."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition, timeout_s=10.0) -> None:
    """Returns once the condition holds; looks at it in every turn of the loop, with a pause that lets sockets work."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)
