"""What the direct connections cost, without shards: gets, pages and feeds of made-up bodies between two processes.

    python tests/bench/bench_wire.py [--loop uvloop|asyncio] [--gets 20000] [--repeat 3]

The server is a process of its own that answers from memory, so the figures are the wire's alone: CPU is process time of
each side, MB are 10^6 bytes of bodies. The feed is read by several connections from one process; a batch is made once
and encoded once, which is what the server's figure for further readers shows.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Self

import uvloop

from shoal.shards.model.partitions import Epoch, PartitionId, ShardId
from shoal.shards.model.queries import (
    FeedBatch,
    FeedEvent,
    FeedQuery,
    GetAnswer,
    GetQuery,
    PageAnswer,
    PageQuery,
)
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.settings import WireSettings
from shoal.shards.wire.authentication import Endpoint
from shoal.shards.wire.client import DirectQueries, ShardConnection
from shoal.shards.wire.server import WireServer

PARTITION = PartitionId("v1/pods")
BODY = random.Random(1).randbytes(5000)
PAGE_OBJECTS = 800
PAGES = 24
BATCHES = 3000
FEED_READERS = 4


class InMemory:
    """A `Served` that has its answers ready."""

    epoch = Epoch(7)

    def __init__(self) -> None:
        keys = [Key(f"default/pod-{number:05}") for number in range(PAGE_OBJECTS)]
        self._page = PageAnswer(
            version=Version(1), keys=keys, bodies=[BODY] * PAGE_OBJECTS, more=True, remaining=1, age_s=0.1
        )
        self._batches = [
            FeedBatch(PARTITION, Version(number), [self._event(number, at) for at in range(10)], 0.1)
            for number in range(BATCHES)
        ]

    def _event(self, number: int, at: int) -> FeedEvent:
        key = Key(f"default/pod-{at}")
        return FeedEvent(Version(number), "MODIFIED", key, "uid", BODY, b'{"app":"a"}', ("node-1", "Running"))

    async def get(self, query: GetQuery) -> GetAnswer:
        return GetAnswer(body=BODY, frontier=Version(1), age_s=0.1)

    async def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        for _ in range(PAGES):
            yield self._page

    async def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        for batch in self._batches:
            yield batch


def run(loop: str, main) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        runner.run(main)


def serve(loop: str, pipe: Connection) -> None:
    """The other process: says where it is, then its CPU seconds whenever it is asked, until the pipe is closed."""

    async def main() -> None:
        shard = InMemory()
        server = WireServer(ShardId("shard-0"), "one", lambda: shard, WireSettings())
        pipe.send(await server.start("127.0.0.1"))
        asked = asyncio.Event()
        asyncio.get_running_loop().add_reader(pipe.fileno(), asked.set)
        while True:
            await asked.wait()
            asked.clear()
            if pipe.poll():  # the event may be of what was read before
                if pipe.recv() is None:
                    break
                pipe.send(time.process_time())
        await server.aclose()

    run(loop, main())


class Meter:
    """CPU of both processes and the time between two points."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def _server_s(self) -> float:
        self._pipe.send("cpu")
        return self._pipe.recv()

    def __enter__(self) -> Self:
        self._began = self._server_s(), time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        took_s = time.perf_counter() - self._began[2]
        self.client_us = (time.process_time() - self._began[1]) * 1e6
        self.took_s = took_s
        self.server_us = (self._server_s() - self._began[0]) * 1e6


async def measure(pipe: Connection, endpoint: Endpoint, gets: int) -> None:
    async def find() -> Endpoint:
        return endpoint

    def connect() -> ShardConnection:
        return ShardConnection(endpoint.shard, find, random.Random(1))

    connection = connect()
    shard = DirectQueries(connection)
    query = GetQuery(partition=PARTITION, epoch=Epoch(7), key=Key("default/pod"))
    await shard.get(query)
    with Meter(pipe) as one_by_one:
        for _ in range(gets // 4):
            await shard.get(query)
    report("get of 5 KB, one at a time", one_by_one, gets // 4)

    async def caller(count: int) -> None:
        for _ in range(count):
            await shard.get(query)

    with Meter(pipe) as pipelined:
        await asyncio.gather(*(caller(gets // 128) for _ in range(128)))
    report("get of 5 KB, 128 at a time", pipelined, gets // 128 * 128)
    with Meter(pipe) as streamed:
        size = 0
        async for page in shard.stream(PageQuery(partition=PARTITION, epoch=Epoch(7))):
            size += sum(map(len, page.bodies))
    print(
        f"stream of {size / 1e6:.0f} MB: {size / 1e6 / streamed.took_s:6.0f} MB/s; "
        f"CPU ms {streamed.client_us / 1e3:.0f} client, {streamed.server_us / 1e3:.0f} server"
    )
    with Meter(pipe) as fed:
        await follow(shard)
    report("feed batch of 10 x 5 KB, one reader", fed, BATCHES)
    others = [connect() for _ in range(FEED_READERS - 1)]
    with Meter(pipe) as fed:
        await asyncio.gather(*(follow(DirectQueries(other)) for other in (connection, *others)))
    report(f"the same, {FEED_READERS} connections, for each", fed, BATCHES * FEED_READERS)
    for opened in (connection, *others):
        await opened.aclose()


async def follow(shard: DirectQueries) -> None:
    async for batch in shard.feed(FeedQuery(partition=PARTITION, epoch=Epoch(7))):
        assert len(batch.events) == 10


def report(what: str, meter: Meter, count: int) -> None:
    print(
        f"{what}: {count / meter.took_s:7.0f}/s; "
        f"CPU us {meter.client_us / count:.1f} client, {meter.server_us / count:.1f} server"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--gets", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(options.loop, theirs))
    process.start()
    try:
        endpoint = ours.recv()
        for _ in range(options.repeat):
            run(options.loop, measure(ours, endpoint, options.gets))
            print()
    finally:
        ours.send(None)
        process.join()


if __name__ == "__main__":
    main()
