"""Informers of Shoal's gateways in virtual time: the installation and troubles of `watch_simulation_installation`, with
handlers in the place of watchers.

Behind a gateway a resource may be cut into several partitions. Then lines of a watch may be late (below versions that
were shown already), and a list may be older than what was shown, although nothing was lost.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.guarantees import GuaranteeBroken
from support.informer_observer import Observer, RaisingObserver, SlowObserver
from support.watch_simulation_installation import GatewaySimulation
from support.watcher_oracle_flavours import Flavour
from support.watcher_oracle_truth import Truth

from shoal.cluster.informers.factory import InformerFactory
from shoal.cluster.informers.informer import Informer
from shoal.cluster.informers.settings import InformerSettings
from shoal.shards.api.requests import ApiRequest
from shoal.shards.settings import WatchSettings

ARGUMENTS = {
    "labelSelector": "label_selector",
    "fieldSelector": "field_selector",
    "shardSelector": "shard_selector",
}


class Roaming:
    """A connection whose every request goes to any gateway."""

    def __init__(self, simulation: InformerGatewaySimulation, rng: random.Random) -> None:
        self._simulation = simulation
        self._rng = rng

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[Any]:
        gateway = self._rng.choice(self._simulation.gateways)
        async with gateway.connection.open(request) as response:
            yield response

    async def aclose(self) -> None:
        """Nothing."""


class TruthfulPast:
    """`Truth` as observers ask it."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def at(self, key: str, version: int) -> tuple[int, str] | None:
        state = self._truth.at(key, version)
        return None if state is None else (state.version, state.uid)


class Told:
    """The replica of one handler, as the simulation compares it."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    @property
    def story(self) -> list[str]:
        return list(self._observer.story)

    def equals(self, wanted: dict[str, int]) -> str:
        state = {key: seen[0] for key, seen in self._observer.state.items()}
        for key in sorted(state.keys() | wanted.keys()):
            if state.get(key) != wanted.get(key):
                return f"{self._observer.name} has {key} at {state.get(key)}, the server at {wanted.get(key)}"
        return ""


class HandlerWatcher:
    """An informer and one handler, as the simulation runs watchers."""

    def __init__(self, flavour: Flavour, observer: Observer, factory: InformerFactory) -> None:
        self.flavour = flavour
        self.observer = observer
        self.replica = Told(observer)
        self.counts: Counter[str] = Counter()
        self.steady = True
        self.informer: Informer | None = None
        self._factory = factory

    async def run(self) -> None:
        how = {ARGUMENTS[name]: text for name, text in self.flavour.selectors}
        self.informer = self._factory.informer(
            self.flavour.resource, namespace=self.flavour.namespace, wait=True, **how
        )
        registration = self.informer.add_handler(self.observer, queue_max=3)
        self.observer.has_synced = lambda: registration.has_synced
        broken: list[GuaranteeBroken] = []
        fail = self.observer.fail

        def caught(promise: str, seen: str) -> Any:
            try:
                fail(promise, seen)
            except GuaranteeBroken as error:
                broken.append(error)
                raise

        self.observer.fail = caught
        while not broken:
            await asyncio.sleep(1.0)
        raise broken[0]


class InformerGatewaySimulation(GatewaySimulation):
    """One seed, with informers of two gateways."""

    REPEATED_BY = "pytest tests/sim/test_informers.py --first-seed {seed} --seeds 1"

    async def _start(self) -> None:
        await super()._start()
        self.factory = InformerFactory(
            Roaming(self, random.Random(self.rng.getrandbits(64))),
            settings=InformerSettings(
                watch=WatchSettings(
                    timeout_min_s=self.rng.choice((10.0, 60.0)),
                    page_limit=5,
                    list_silence_s=10.0,
                    grace_s=3.0,
                )
            ),
            rng=random.Random(self.rng.getrandbits(64)),
        )

    async def _stop(self) -> None:
        self.late = sum(
            watcher.informer is not None
            and watcher.informer._feed._following is not None
            and watcher.informer._feed._following.store.late
            for watcher in self.watchers
        )
        await self.factory.aclose()
        await super()._stop()

    def _watcher(self, flavour: Flavour) -> Any:
        rng = random.Random(self.rng.getrandbits(64))
        kind = rng.choice((Observer, Observer, SlowObserver, RaisingObserver))
        past: Any = TruthfulPast(self.world.truths[flavour.resource])
        return HandlerWatcher(flavour, kind(flavour.name, past, rng, self.loop.time), self.factory)
