"""The world around watchers, in virtual time and decided by a seed: an API server, its writers and its troubles."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from support.asgi_connection import AsgiConnection
from support.watcher_oracle_flavours import CONFIG_MAPS, NODES, PODS
from support.watcher_oracle_truth import Truth

from shoal.cluster.simulator.app import ApiServerApp
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.filling import DirectWrites
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.model.resources import Resource

NAMESPACES = ("alpha", "alpha-2", "beta", "gamma")
EPOCH = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
FAULTS = (
    *("drop", "slow", "status-410", "status-429", "status-500", "status-503"),
    *("no-bookmarks", "late-bookmarks"),
    *("cut", "truncate", "garbage", "line-410", "stall"),
    *("compact", "restart"),
)
IGNORED_SELECTORS = "ignore-selectors"
"""Only behind shards, which check what arrives; a watcher of the API server itself would be told too much."""


class World:
    """An API server with objects of three resources, which change."""

    def __init__(self, rng: random.Random, *, seed: int, faults: tuple[str, ...] = FAULTS) -> None:
        self.rng = rng
        self.kinds = faults
        self.writes = 0
        self.log: list[str] = []
        self._loop = asyncio.get_running_loop()
        self.app: ApiServerApp = build_app(
            SimulatorSettings(seed=seed, shard_selector=True, bookmark_period_s=rng.choice((5.0, 60.0))),
            now=self.now,
        )
        self._writes = DirectWrites(self.app.verbs)
        for name in NAMESPACES:
            self._writes.create(Resource("", "v1", "namespaces"), {"metadata": {"name": name}})
        self.truths = {resource: Truth(self.app.verbs, resource) for resource in (CONFIG_MAPS, NODES, PODS)}
        for _ in range(40):
            self.change()

    def now(self) -> datetime:
        """The wall clock."""
        return EPOCH + timedelta(seconds=self._loop.time())

    def connection(self) -> AsgiConnection:
        """A new connection to the API server."""
        return AsgiConnection(self.app, rng=random.Random(self.rng.getrandbits(64)))

    def note(self, what: str) -> None:
        """One line of the story that failures print."""
        self.log.append(f"{self._loop.time():9.3f} {what}")

    # -- writing ---------------------------------------------------------------------------------------------

    async def write(self, until: float) -> None:
        """Changes objects: in bursts, one by one, and not at all for a while."""
        while self._loop.time() < until:
            pace = self.rng.choice((0.001, 0.05, 0.5, 0.5, 8.0))
            for _ in range(self.rng.randint(1, 20)):
                await asyncio.sleep(self.rng.expovariate(1 / pace))
                self.change()
                if self._loop.time() > until:
                    break

    def change(self) -> None:
        """One write."""
        rng = self.rng
        self.writes += 1
        resource = rng.choice((CONFIG_MAPS, CONFIG_MAPS, CONFIG_MAPS, PODS, PODS, NODES))
        namespace = "" if resource is NODES else rng.choice(NAMESPACES)
        name = f"node-{rng.randrange(4)}" if resource is NODES else f"object-{rng.randrange(6)}"
        there = self._writes.get(resource, namespace, name)
        if there is None:
            self._writes.create(resource, self._document(resource, namespace, name))
        elif rng.random() < 0.25:
            self._writes.delete(resource, namespace, name)
            if rng.random() < 0.3:  # and at once there is another one of that name
                self._writes.create(resource, self._document(resource, namespace, name))
        else:
            self._label(there)
            if resource is PODS:
                there["spec"] = {"nodeName": f"node-{rng.randrange(3)}"}
            self._writes.update(resource, there)

    def _document(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        document: dict[str, Any] = {"metadata": {"name": name}}
        if namespace:
            document["metadata"]["namespace"] = namespace
        if resource is PODS:
            document["spec"] = {"nodeName": f"node-{self.rng.randrange(3)}"}
        self._label(document)
        return document

    def _label(self, document: dict[str, Any]) -> None:
        tier = self.rng.choice(("front", "back", None))
        labels = {"write": str(self.writes)} | ({"tier": tier} if tier else {})
        document["metadata"]["labels"] = labels

    # -- trouble ---------------------------------------------------------------------------------------------

    async def disturb(self, until: float, pace_s: float) -> None:
        """Arms faults."""
        rng = self.rng
        while self.kinds and self._loop.time() < until:
            await asyncio.sleep(rng.expovariate(1 / pace_s))
            kind = rng.choice(self.kinds)
            longest = 40.0 if kind in ("stall", "late-bookmarks") else 5.0
            fault = Fault(
                kind=kind,
                verb=rng.choice(("", "list", "watch")),
                resource=rng.choice(("", "configmaps", "pods", "nodes")),
                count=rng.choice((1, 3)),
                seconds=0.0 if kind == "stall" and rng.random() < 0.3 else rng.uniform(0.1, longest),
                immediate=kind == "stall" and rng.random() < 0.5,
                retry_after_s=rng.choice((None, 1)),
                jump=rng.choice((0, 0, 1000)),
            )
            self.note(f"{kind} for {fault.count}x {fault.verb or 'any'} {fault.resource or 'anything'}")
            self.app.faults.arm(fault)

    def calm(self) -> None:
        """Takes all trouble away."""
        self.app.faults.disarm()
        self.note("calm")
