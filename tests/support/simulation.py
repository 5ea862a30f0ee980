"""A whole system under trouble, in virtual time, decided by a seed: API server, network, partitions, readers.

`Simulation(seed).run()` fills an embedded API server, follows some of its resources cut into partitions in
one of several ways, lets writers write, readers read and faults happen, then takes all trouble away and waits
until every partition equals the server. What readers saw on the way is checked against everything the server
ever was.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from support import guarantees
from support.asgi_connection import AsgiConnection
from support.clock import run_virtual
from support.guarantees import Past, Sighting

from shoal.cluster.simulator.app import ApiServerApp
from shoal.cluster.simulator.crds import DEFINITIONS
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.cluster.simulator.storage import Collection
from shoal.shards.api.decode import Decoder
from shoal.shards.model.errors import Expired
from shoal.shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    Cover,
    Epoch,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    PartitionId,
)
from shoal.shards.model.queries import PageQuery
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.settings import StoreSettings, WatchSettings
from shoal.shards.store.audit import digest_of, seed_of
from shoal.shards.store.objects import PartitionStore
from shoal.shards.watch.reflector import Reflector

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
NODES = ResourceType(resource=Resource("", "v1", "nodes"), kind="Node", namespaced=False)
WIDGETS = ResourceType(
    resource=Resource("example.com", "v1", "widgets"), kind="Widget", namespaced=True, custom=True
)
WIDGET_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"plural": "widgets", "kind": "Widget"},
        "scope": "Namespaced",
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {}}],
    },
}
NAMESPACES = ("alpha", "alpha-2", "beta", "gamma")
NAMES = tuple(f"object-{number}" for number in range(7))
MIDDLE = HASH_END // 2
LAYOUTS: tuple[tuple[Cover, ...], ...] = (
    (EVERYTHING,),
    (OneNamespace("alpha"), ExceptNamespaces(("alpha",))),
    (OneNamespace("alpha"), OneNamespace("beta"), ExceptNamespaces(("alpha", "beta"))),
    (HashRange("uid", 0, MIDDLE), HashRange("uid", MIDDLE, HASH_END)),
    (HashRange("namespace", 0, MIDDLE), HashRange("namespace", MIDDLE, HASH_END)),
)
FAULT_KINDS = (
    *("drop", "slow", "status-410", "status-429", "status-500", "status-503"),
    *("ignore-selectors", "no-bookmarks", "late-bookmarks"),
    *("cut", "truncate", "garbage", "line-410", "stall"),
    *("compact", "restart"),
)
STREAM_FAULTS = ("cut", "truncate", "garbage", "line-410", "stall")
EPOCH = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
VERSION = re.compile(rb'"resourceVersion":"(\d+)"')


class Permits:
    """A few permits for everybody."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def permit(self, partition: PartitionId) -> AsyncIterator[None]:
        async with self._free:
            yield


@dataclass
class Part:
    """A partition, its reflector and store, and what readers saw of it."""

    partition: Partition
    type: ResourceType
    store: PartitionStore
    reflector: Reflector
    task: asyncio.Task[None]
    sightings: list[Sighting] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.partition.id

    def versions(self, pages: Iterator[Any]) -> tuple[int, dict[str, int]]:
        """The version pages claim, and the versions of their objects; checks that pages fit each other."""
        seen = [(page.version, page.keys, page.bodies) for page in pages]
        guarantees.snapshot_pages(((version, keys) for version, keys, _ in seen), where=self.id)
        found = {
            key: int(VERSION.search(body)[1])  # type: ignore[index]
            for _, keys, bodies in seen
            for key, body in zip(keys, bodies, strict=True)
        }
        return seen[0][0], found


class Simulation:
    """One seed. `run` returns what happened, or raises with the seed and the stories of all reflectors."""

    def __init__(self, seed: int, *, faults: tuple[str, ...] = FAULT_KINDS) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.kinds = faults
        self.parts: list[Part] = []
        self.pasts: dict[Resource, Past] = {}
        self.writes = self.reads = 0
        self.definition_deleted = False
        self.app: ApiServerApp

    def run(self) -> Simulation:
        """Runs to the end, in virtual time."""
        try:
            run_virtual(self._main())
        except Exception as error:
            raise AssertionError(self._report(error)) from error
        return self

    def _report(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        stories = "\n\n".join(
            f"-- {part.id}: {part.reflector.status}\n{part.reflector.story}" for part in self.parts
        )
        return (
            f"seed {self.seed}: {type(error).__name__}: {error}\n\n{stories}\n\n"
            f"again: pytest tests/sim --first-seed {self.seed} --seeds 1"
        )

    async def _main(self) -> None:
        rng = self.rng
        self.loop = asyncio.get_running_loop()
        self.app = build_app(
            SimulatorSettings(
                seed=self.seed,
                watch_list=rng.random() < 0.7,
                shard_selector=rng.random() < 0.5,
                history_events=rng.choice((10, 40, 1000)),
                backlog_events=rng.choice((5, 20_000)),
                bookmark_period_s=rng.choice((5.0, 60.0)),
            ),
            now=lambda: EPOCH + timedelta(seconds=self.loop.time()),
        )
        self._fill()
        self._follow()
        trouble_s = rng.uniform(60.0, 240.0)
        async with asyncio.TaskGroup() as group:
            for work in (self._write, self._read, self._disturb):
                group.create_task(work(trouble_s), name=work.__name__)
        self.app.faults.disarm()
        await self._settle()
        # Rest alone proves little: every partition must still be following.
        for kind in self._followed():
            self._change(kind, rng.choice(NAMES), rng.choice(NAMESPACES))
        await self._settle()
        self._check_readers()
        for part in self.parts:
            part.task.cancel()
        await asyncio.wait([part.task for part in self.parts])

    # -- the cluster -----------------------------------------------------------------------------------------

    def _fill(self) -> None:
        verbs = self.app.verbs
        for name in NAMESPACES:
            verbs.create(verbs.served(Resource("", "v1", "namespaces")), None, {"metadata": {"name": name}})
        verbs.create(verbs.served(DEFINITIONS), None, WIDGET_DEFINITION)
        for kind in (CONFIG_MAPS, NODES, WIDGETS):
            collection = self._collection(kind)
            past = self.pasts[kind.resource] = Past()
            for stored in collection.objects.values():
                past.happened(stored.key, stored.version, stored.uid)
            self._record(kind, collection)
            for _ in range(self.rng.randint(0, 20)):
                self._change(kind, self.rng.choice(NAMES), self.rng.choice(NAMESPACES), delete=0.0)

    def _collection(self, kind: ResourceType) -> Collection:
        return self.app.verbs.collection(self.app.verbs.served(kind.resource))

    def _record(self, kind: ResourceType, collection: Collection) -> None:
        """Has every event of the collection remembered, as it happens."""
        past = self.pasts[kind.resource]
        position = collection.end_position

        def happened() -> None:
            nonlocal position
            if collection.end_position > position:
                for event in collection.since(position, 1000):
                    deleted = event.type == "DELETED"
                    past.happened(event.stored.key, event.version, None if deleted else event.stored.uid)
                position = collection.end_position

        collection.subscribers.add(happened)

    def _change(self, kind: ResourceType, name: str, space: str, *, delete: float = 0.3) -> None:
        """Creates, changes or deletes one object."""
        verbs = self.app.verbs
        served = verbs.served(kind.resource)
        namespace = space if kind.namespaced else None
        key = f"{space}/{name}" if kind.namespaced else name
        self.writes += 1
        if key not in verbs.collection(served).objects:
            verbs.create(served, namespace, {"metadata": {"name": name}})
        elif self.rng.random() < delete:
            verbs.delete(served, namespace, name)
        else:
            labels = {"app": self.rng.choice(("web", "db")), "n": str(self.writes)}
            verbs.update(served, Key(key), lambda document: document["metadata"].update(labels=labels))

    def _followed(self) -> list[ResourceType]:
        kinds = {part.type.resource: part.type for part in self.parts}
        return [kind for kind in kinds.values() if kind is not WIDGETS or not self.definition_deleted]

    # -- the followers ---------------------------------------------------------------------------------------

    def _follow(self) -> None:
        rng = self.rng
        connection = AsgiConnection(self.app, rng=random.Random(rng.getrandbits(64)))
        permits = Permits(rng.randint(1, 3))
        settings = WatchSettings(
            streaming_list=rng.choice(("auto", "auto", "never")),
            page_limit=rng.choice((2, 5, 500)),
            timeout_min_s=rng.choice((10.0, 30.0, 120.0)),
            list_silence_s=10.0,
            grace_s=3.0,
            backoff_max_s=rng.choice((5.0, 30.0)),
        )
        layouts = [(CONFIG_MAPS, cover) for cover in rng.choice(LAYOUTS)]
        if rng.random() < 0.5:
            layouts += [(NODES, EVERYTHING)]
        if rng.random() < 0.5:
            layouts += [(WIDGETS, cover) for cover in rng.choice(LAYOUTS[:3])]
        for kind, cover in layouts:
            partition = Partition(kind.resource, cover)
            store = PartitionStore(
                partition,
                kind,
                settings=StoreSettings(history_s=rng.choice((5.0, 300.0))),
                clock=self.loop.time,
            )
            reflector = Reflector(
                partition=partition,
                resource_type=kind,
                connection=connection,
                store=store,
                decoder=Decoder(kind),
                permits=permits,
                settings=settings,
                rng=random.Random(rng.getrandbits(64)),
            )
            task = self.loop.create_task(reflector.run(), name=f"reflector {partition.id}")
            self.parts.append(Part(partition, kind, store, reflector, task))

    # -- what goes on ----------------------------------------------------------------------------------------

    async def _write(self, seconds: float) -> None:
        rng = self.rng
        pace = rng.choice((0.3, 1.0, 3.0))
        deletes_definition_at = rng.uniform(0.0, 4.0) * seconds
        while self.loop.time() < seconds:
            await asyncio.sleep(rng.expovariate(1 / pace))
            for _ in range(rng.choice((1, 1, 1, 1, 12))):
                kind = rng.choice([CONFIG_MAPS, NODES, *([] if self.definition_deleted else [WIDGETS])])
                self._change(kind, rng.choice(NAMES), rng.choice(NAMESPACES))
            if self.loop.time() > deletes_definition_at and not self.definition_deleted:
                self.definition_deleted = True
                verbs = self.app.verbs
                verbs.delete(verbs.served(DEFINITIONS), None, "widgets.example.com")

    async def _disturb(self, seconds: float) -> None:
        rng = self.rng
        if not self.kinds:
            return
        pace = rng.choice((2.0, 8.0, 30.0))
        while self.loop.time() < seconds:
            await asyncio.sleep(rng.expovariate(1 / pace))
            kind = rng.choice(self.kinds)
            verb, resource = rng.choice(("", "list", "watch")), rng.choice(("", "configmaps", "nodes"))
            if kind == "ignore-selectors":
                verb = resource = ""  # few requests select at all
            self.app.faults.arm(
                Fault(
                    kind=kind,
                    verb=verb,
                    resource=resource,
                    count=rng.choice((1, 1, 3, 10)),
                    probability=rng.choice((1.0, 0.5)),
                    after_lines=rng.choice((0, 0, 1, 5)),
                    immediate=kind in STREAM_FAULTS and rng.random() < 0.5,
                    seconds=0.0 if kind == "stall" and rng.random() < 0.3 else rng.uniform(0.1, 25.0),
                    retry_after_s=rng.choice((None, 0, 1, 5)),
                    jump=rng.choice((0, 0, 1000)),
                )
            )

    async def _read(self, seconds: float) -> None:
        while self.loop.time() < seconds:
            await asyncio.sleep(self.rng.expovariate(1 / 2.0))
            for part in self.parts:
                if part.store.synced:
                    self._see(part)
            part = self.rng.choice(self.parts)
            if part.store.synced:
                await self._read_pages(part)

    def _see(self, part: Part) -> None:
        """A list of everything a partition holds, at this moment."""
        query = PageQuery(partition=part.partition.id, epoch=Epoch(0), limit=self.rng.choice((2, 500)))
        frontier, versions = part.versions(part.store.capture(query))
        sighting = Sighting(self.loop.time(), frontier, versions)
        guarantees.honest(sighting, self.app.storage.revision, where=part.id)
        self._check_snapshot(part, sighting)
        part.sightings.append(sighting)
        self.reads += 1

    async def _read_pages(self, part: Part) -> None:
        """A list page by page, with time between: the pages must be one state, or be refused."""
        query = PageQuery(partition=part.partition.id, epoch=Epoch(0), limit=2)
        pages = []
        try:
            while True:
                page = part.store.page(query)
                pages.append(page)
                if not page.more:
                    break
                query = PageQuery(
                    partition=query.partition, epoch=Epoch(0), limit=2, at=page.version, after=page.keys[-1]
                )
                await asyncio.sleep(self.rng.uniform(0.0, 1.0))
        except Expired:
            return
        version, versions = part.versions(iter(pages))
        self._check_snapshot(part, Sighting(self.loop.time(), version, versions))

    def _check_snapshot(self, part: Part, sighting: Sighting) -> None:
        past = self.pasts[part.type.resource]
        guarantees.snapshot(sighting, past, part.partition.cover.admits, where=part.id)

    # -- the end ---------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Waits until every partition equals the server; what stands in the way by then is raised."""
        # A stalled stream is noticed after at most twice the timeout; then come waits, a list behind others,
        # a watch.
        last = self.loop.time() + 2 * 120.0 + 120.0
        while True:
            try:
                self._check_rest()
            except AssertionError:
                if self.loop.time() > last:
                    raise
                await asyncio.sleep(5.0)
            else:
                return

    def _check_rest(self) -> None:
        for part in self.parts:
            status = part.reflector.status
            if part.type is WIDGETS and self.definition_deleted:
                assert status.state == "gone", (
                    f"{part.id} does not notice that its resource is gone: {status}"
                )
                assert part.task.done(), f"the reflector of {part.id} goes on"
                continue
            assert not part.task.done(), f"the reflector of {part.id} has ended"
            assert status.state == "synced", f"{part.id} is not synced: {status}"
            admits = part.partition.cover.admits
            objects = self._collection(part.type).objects.values()
            wanted = {stored.key: stored for stored in objects if admits(stored.namespace, stored.uid)}
            query = PageQuery(partition=part.partition.id, epoch=Epoch(0), limit=500)
            _, held = part.versions(part.store.capture(query))
            guarantees.complete(held, {key: stored.version for key, stored in wanted.items()}, where=part.id)
            audit = 0
            for stored in wanted.values():
                audit ^= digest_of(seed_of(stored.uid), stored.version)
            assert part.store.audit == audit, f"the audit of {part.id} differs from the server's"

    def _check_readers(self) -> None:
        by_resource: dict[Resource, dict[str, list[str]]] = {}
        for part in self.parts:
            guarantees.subsequence(part.sightings, self.pasts[part.type.resource], where=part.id)
            if not part.task.done():
                self._see(part)
                keys = list(part.sightings[-1].versions)
                by_resource.setdefault(part.type.resource, {})[part.id] = keys
        for parts in by_resource.values():
            guarantees.no_double(parts)
