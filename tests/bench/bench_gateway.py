"""How fast the gateway lists: everything, and a hundred label hits. Run by hand::

    python tests/bench/bench_gateway.py --pods 20000 --partitions 1

One process holds a shard (its store filled, no API server) and serves; another asks and reads to the end.
What is printed is the wall time of one answer, its size, and the CPU time it took the serving process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uvloop
from support.local_shards import PODS, FakeCoordinator

from shoal.cluster.gateway.app import Gateway
from shoal.cluster.gateway.server import serve
from shoal.cluster.query.router import QueryRouter
from shoal.cluster.query.routing import Routing
from shoal.coordinator.routes import Route, RouteTable
from shoal.shards.api.decode import Decoder
from shoal.shards.handle import Assignment
from shoal.shards.local import LocalShardHandle
from shoal.shards.model.partitions import EVERYTHING, Epoch, HashRange, Partition, ShardId
from shoal.shards.model.versions import Version
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

LABEL_HITS = 100


@dataclass(frozen=True)
class Timing:
    """One answer, the best of several."""

    seconds: float
    size: int


def timed_get(host: str, port: int, target: str, *, repeat: int = 5) -> Timing:
    """Asks `repeat` times over one connection each and reads to the end of the connection."""
    best = Timing(float("inf"), 0)
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    for _ in range(repeat):
        began, size = time.perf_counter(), 0
        with socket.create_connection((host, port)) as connection:
            connection.sendall(request)
            while piece := connection.recv(1 << 20):
                size += len(piece)
        best = min(best, Timing(time.perf_counter() - began, size), key=lambda timing: timing.seconds)
    return best


class _Nobody:
    """An API server that never answers."""

    @asynccontextmanager
    async def open(self, request: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None

    async def aclose(self) -> None:
        return


def pods(count: int, size: int) -> bytes:
    """A list of pods of about `size` bytes each, of which every so many carries the label ``hit=yes``."""
    chance = random.Random(1)
    items = []
    for number in range(count):
        labels = {
            "app": f"app-{number % 50}",
            **({"hit": "yes"} if number % max(1, count // LABEL_HITS) == 0 else {}),
        }
        metadata = {
            "name": f"web-{number:06}",
            "namespace": f"team-{number % 40:02}",
            "uid": f"{chance.getrandbits(128):032x}",
            "resourceVersion": str(number + 1),
            "labels": labels,
        }
        filler = {
            f"annotation-{at}": f"{chance.getrandbits(64):016x}" * 4 for at in range(max(1, size // 90))
        }
        items.append(
            {"metadata": {**metadata, "annotations": filler}, "spec": {"nodeName": f"node-{number % 300}"}}
        )
    page = {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": str(count)},
        "items": items,
    }
    return msgspec.json.encode(page)


async def _serve(count: int, size: int, partitions: int, pipe: Connection) -> None:
    shard = Shard(
        ShardId("shard-0"),
        connection=_Nobody(),
        permits=NoPermits(),
        settings=ShardSettings(),
        incarnation="one",
        rng=random.Random(0),
    )
    handle = LocalShardHandle(shard)
    step = (1 << 64) // partitions
    covers = [
        HashRange("uid", at * step, (1 << 64) if at == partitions - 1 else (at + 1) * step)
        for at in range(partitions)
    ]
    placed = [Partition(PODS.resource, EVERYTHING if partitions == 1 else cover) for cover in covers]
    await handle.adopt([Assignment(partition=one, resource_type=PODS) for one in placed], Epoch(1))
    observations = Decoder(PODS).page(pods(count, size)).observations
    for one in placed:
        store = shard._followed[one.id].store
        store.begin()
        for observation in observations:
            store.put(observation)
        store.finish(Version(count))
    routing = Routing(FakeCoordinator())
    routing.take(
        RouteTable(
            epoch=Epoch(1),
            catalogue=(PODS,),
            routes=tuple(Route(one, handle.shard_id) for one in placed),
            shards=(handle.shard_id,),
        )
    )
    gateway = Gateway(QueryRouter(routing, lambda _: handle), lambda _: handle, FakeCoordinator())
    server = await serve(gateway, "127.0.0.1", 0)
    pipe.send(server.port)
    loop = asyncio.get_running_loop()
    while (await loop.run_in_executor(None, pipe.recv)) == "cpu":
        pipe.send(time.process_time())
    await server.stop()
    await handle.stop()


def _main_of_server(count: int, size: int, partitions: int, pipe: Connection) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(count, size, partitions, pipe))


def main() -> None:
    """Prints one line a question, and all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=4_800)
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=_main_of_server, args=(arguments.pods, arguments.bytes, arguments.partitions, theirs)
    )
    server.start()
    port = ours.recv()

    def cpu() -> float:
        ours.send("cpu")
        return float(ours.recv())

    results = {}
    for name, target in (
        ("everything", "/api/v1/pods"),
        ("100 label hits", "/api/v1/pods?labelSelector=hit%3Dyes"),
        ("limit 500", "/api/v1/pods?limit=500"),
        ("one namespace", "/api/v1/namespaces/team-07/pods"),
        ("one object", "/api/v1/namespaces/team-07/pods/web-000007"),
    ):
        before = cpu()
        timing = timed_get("127.0.0.1", port, target, repeat=arguments.repeat)
        spent = (cpu() - before) / arguments.repeat
        results[name] = {"ms": timing.seconds * 1e3, "bytes": timing.size, "cpu_ms": spent * 1e3}
        wall, size = timing.seconds * 1e3, timing.size / 1e6
        print(f"{name:>15}: {wall:9.2f} ms  {size:8.2f} MB  cpu {spent * 1e3:9.2f} ms")
    ours.send("end")
    server.join(10)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
