"""The API server that serving is measured against: the embedded one, in a process of its own, which times its writes.

`Source` starts it with pods of which half live in one hot namespace, changes pods at a rate, and says when each
version was written: ``time.monotonic`` is one clock for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, Self

import uvloop

from shoal.cluster.simulator.filling import DirectWrites, fill
from shoal.cluster.simulator.population import NAMESPACES, PODS, pod_bodies
from shoal.cluster.simulator.server import ApiServer, build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.model.resources import Resource

HOT = "east"
"""Namespace of half of the pods; what `shoal.follow.carve` is for."""
IDLE_S = 0.02


def pods(count: int) -> Iterator[bytes]:
    """Pods of a made-up cluster, every other workload's moved to the hot namespace."""
    for body in pod_bodies(count):
        pod = json.loads(body)
        if sum(pod["metadata"]["namespace"].encode()) % 2:
            pod["metadata"]["namespace"] = HOT
            body = json.dumps(pod, separators=(",", ":")).encode()  # noqa: PLW2901 - the same pod
        yield body


class Source:
    """The server as the measuring process sees it."""

    def __init__(self, count: int) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_main, args=(count, theirs))
        self._process.start()
        self.pid = self._process.pid
        self.url: str = self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(("end",))
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def churn(self, rate: float) -> None:
        """Changes so many pods a second, evenly; 0: none."""
        self._ask("churn", rate)

    def commits(self) -> dict[int, float]:
        """When each version was written since the last call, by ``time.monotonic``."""
        return self._ask("commits")

    def _ask(self, *command: Any) -> Any:
        self._pipe.send(command)
        return self._pipe.recv()


class _Serving:
    """The server's process."""

    def __init__(self, count: int, pipe: Connection) -> None:
        self._count = count
        self._pipe = pipe
        self._rate = 0.0
        self._commits: dict[int, float] = {}
        self._rng = random.Random(0)

    async def run(self) -> None:
        self._app = build_app(SimulatorSettings(seed=0))
        self._writes = DirectWrites(self._app.verbs)
        bodies = list(pods(self._count))
        for name in sorted({json.loads(body)["metadata"]["namespace"] for body in bodies}):
            self._writes.create(NAMESPACES, {"metadata": {"name": name}})
        fill(self._app.verbs, ((PODS, body) for body in bodies))
        self._keys = list(self._writes.names(PODS))
        gc.freeze()
        self._app.storage.subscribers.add(self._committed)
        async with ApiServer(self._app) as server:
            self._pipe.send(server.url)
            churning = asyncio.create_task(self._churn(), name="churn")
            loop = asyncio.get_running_loop()
            while (command := await loop.run_in_executor(None, self._pipe.recv))[0] != "end":
                match command:
                    case ("churn", rate):
                        self._rate = rate
                        self._pipe.send(None)
                    case ("commits",):
                        commits, self._commits = self._commits, {}
                        self._pipe.send(commits)
            churning.cancel()

    def _committed(self) -> None:
        self._commits[self._app.storage.revision] = time.monotonic()

    async def _churn(self) -> None:
        due = time.monotonic()
        while True:
            now, rate = time.monotonic(), self._rate
            if not rate:
                await asyncio.sleep(IDLE_S)
                due = now
                continue
            if due > now:
                await asyncio.sleep(due - now)
            due += 1 / rate
            self._change()

    def _change(self) -> None:
        """A kubelet's report: a condition's time and a restart."""
        key = self._rng.choice(self._keys)
        namespace, _, name = key.partition("/")
        pod = self._writes.get(Resource("", "v1", "pods"), namespace, name)
        assert pod is not None
        pod["metadata"].setdefault("annotations", {})["changed"] = str(self._app.storage.revision)
        self._writes.update(PODS, pod)


def _main(count: int, pipe: Connection) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Serving(count, pipe).run())
