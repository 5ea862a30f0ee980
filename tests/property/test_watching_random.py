"""Watches over partitions that hear of things at different times, at several gateways, decided by a seed.

Clients come back at any version they have been shown, at any gateway. Whatever happens: no object goes back, and at
rest every client has exactly the objects there are.
"""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from support.clock import run_virtual
from support.queries import collection_query
from support.watched_shards import PODS, Part, Way, Written

from shoal.cluster.query.router import QueryRouter
from shoal.cluster.query.routing import Routing
from shoal.cluster.watching.forms import ObjectForm
from shoal.cluster.watching.frames import Frame
from shoal.cluster.watching.router import WatchRouter
from shoal.cluster.watching.settings import WatchServingSettings
from shoal.shards.feeds import PartitionFeeds
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    ShardId,
    fnv1a64,
)
from shoal.shards.model.selectors import LabelSelector
from shoal.shards.settings import FeedSettings

POD = PODS.resource
MIDDLE = HASH_END // 2
UIDS = sorted(fnv1a64(f"uid-{number}") for number in range(1, 200))
THIRD, HALF = UIDS[66], UIDS[100]
LAYOUTS = (
    (EVERYTHING,),
    (OneNamespace("a"), ExceptNamespaces(("a",))),
    (OneNamespace("a"), OneNamespace("b"), ExceptNamespaces(("a", "b"))),
    (HashRange("namespace", 0, MIDDLE), HashRange("namespace", MIDDLE, HASH_END)),
    # Most names are made again now and then, often in another range.
    (HashRange("uid", 0, HALF), HashRange("uid", HALF, HASH_END)),
    (
        HashRange("uid", 0, THIRD, "a"),
        HashRange("uid", THIRD, HASH_END, "a"),
        HashRange("uid", 0, HALF, None, ("a",)),
        HashRange("uid", HALF, HASH_END, None, ("a",)),
    ),
)
NAMESPACES = ("a", "b", "c")
NAMES = ("one", "two", "three")
MOODS_S = (0.0, 0.001, 0.05, 1.0)


class Taker:
    """A sink that takes everything until it is closed, slowly at times."""

    def __init__(self, client: Client, rng: random.Random) -> None:
        self.client = client
        self.rng = rng
        self.closed = False

    def write(self, frame: Frame) -> bool:
        if self.closed:
            return False
        lines = frame.lines.splitlines()
        assert len(lines) == frame.events
        for line in lines:
            self.client.take(json.loads(line))
            if self.client.leaves():
                # What comes after these bytes is lost on the way.
                self.closed = True
                break
        return True

    async def drained(self) -> None:
        await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.001, 0.2)))


class Client:
    """One client: what it was shown, and what it made of it."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.query: dict[str, str] = {}
        if rng.random() < 0.4:
            self.query["labelSelector"] = rng.choice(("tier=front", "tier!=front"))
        self.namespace = rng.choice((None, None, *NAMESPACES))
        self.several = (
            sum(part.partition.may_hold(self.namespace) for part in world.written.parts.values()) > 1
        )
        self.streaming = rng.random() < 0.5
        self.held: dict[str, int] = {}
        self.shown: dict[str, int] = {}
        """The newest version of each object ever shown in this life, deletions included."""
        self.fresh: dict[str, int] | None = None
        """What a list that is under way has told so far."""
        self.versions: list[int] = []
        self.story: list[str] = []
        self.expired = self.resumed = self.lists = 0
        self.patience = 0

    def take(self, event: dict) -> None:
        kind, told = event["type"], event["object"]
        if kind == "ERROR":
            assert told["code"] == 410, told
            self.story.append("410")
            self.forget()
            self.expired += 1
            return
        version = int(told["metadata"]["resourceVersion"])
        self.story.append(f"{kind} {told['metadata'].get('name', '')} {version}")
        if kind == "BOOKMARK":
            if "annotations" in told["metadata"]:
                assert self.fresh is not None
                self.held, self.fresh = self.fresh, None
            if self.fresh is None:
                self.versions.append(version)
            return
        key = f"{told['metadata']['namespace']}/{told['metadata']['name']}"
        known = self.shown.get(key, 0)
        story = "\n".join(self.story[-60:])
        assert version >= known, f"{key} went back from {known} to {version}\n{story}"
        self.shown[key] = version
        held = self.held if self.fresh is None else self.fresh
        if kind == "DELETED":
            held.pop(key, None)
        else:
            held[key] = version
        if self.fresh is None:
            self.versions.append(version)

    def forget(self) -> None:
        self.held, self.shown, self.versions, self.fresh = {}, {}, [], None

    def leaves(self) -> bool:
        self.patience -= 1
        return self.patience == 0

    def wanted(self) -> dict[str, int]:
        selector = LabelSelector.parse(self.query.get("labelSelector", ""))
        return {
            key: state.version
            for key, state in self.world.written.objects.items()
            if self.namespace in (None, state.namespace) and selector.matches(state.labels)
        }

    async def run(self) -> None:
        while True:
            query = dict(self.query, watch="1", allowWatchBookmarks="1", timeoutSeconds="20")
            if not self.versions:
                self.forget()
                self.lists += 1
                self.fresh = {}
                if self.streaming:
                    query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
                else:
                    await self.list()
            if self.versions:
                self.resumed += 1
                version = self.versions[-1]
                if self.several and self.rng.random() < 0.5:
                    # Of one partition the API server's own stream is replayed, which goes back if asked to.
                    version = self.rng.choice(self.versions)
                query["resourceVersion"] = str(version)
                self.story.append(f"from {version}")
            router = self.rng.choice(self.world.routers)
            self.patience = self.rng.choice((0, 0, self.rng.randrange(1, 40)))
            try:
                watch = await router.open(
                    collection_query(PODS, query.items(), namespace=self.namespace), ObjectForm()
                )
                await watch.run(Taker(self, self.rng))
            except NotReady:
                self.story.append("503")
            await asyncio.sleep(self.rng.choice((0.0, 0.1, 3.0)))

    async def list(self) -> None:
        try:
            lister = self.rng.choice(self.world.listers)
            listing = await lister.list(collection_query(PODS, self.query.items(), namespace=self.namespace))
            bodies = [*listing.first]
            async for more in listing.rest:
                bodies += more
        except NotReady:
            return
        for body in bodies:
            self.take({"type": "ADDED", "object": json.loads(body)})
        self.take(
            {
                "type": "BOOKMARK",
                "object": {"metadata": {"resourceVersion": str(listing.version), "annotations": {}}},
            }
        )


class World:
    """Writers, shards that hear late, gateways with ways of their own, and clients."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.written = Written(
            *(Partition(POD, cover) for cover in self.rng.choice(LAYOUTS)),
            history_bytes=self.rng.choice((16 << 10, 16 << 20)),
        )
        self.relists = self.rng.choice((0.0, 0.02))
        for part in self.written.parts.values():
            part.feeds = PartitionFeeds(part.store, FeedSettings(batch_events=self.rng.choice((2, 500))))
        self.ways: list[Way] = []
        self.routers: list[WatchRouter] = []
        self.listers: list[QueryRouter] = []
        for _ in range(2):
            routing = Routing(self.written)
            routing.take(self.written.table)
            directory = self.written.directory(self._way)
            lister = QueryRouter(routing, directory)
            self.listers.append(lister)
            self.routers.append(
                WatchRouter(
                    routing,
                    directory,
                    lister,
                    settings=WatchServingSettings(bookmark_s=self.rng.choice((3.0, 60.0)), linger_s=2.0),
                    rng=random.Random(seed),
                )
            )
        self.clients = [Client(self, random.Random(self.rng.getrandbits(64))) for _ in range(8)]

    def _way(self, shard: ShardId, part: Part) -> Way:
        mood = [0.0]

        def delay() -> float:
            if self.rng.random() < 0.05:
                mood[0] = self.rng.choice(MOODS_S)
            return self.rng.random() * mood[0]

        way = Way(shard, part, delay)
        self.ways.append(way)
        return way

    def write(self) -> None:
        namespace, name = self.rng.choice(NAMESPACES), self.rng.choice(NAMES)
        if f"{namespace}/{name}" in self.written.objects and self.rng.random() < 0.3:
            self.written.delete(namespace, name, heard=False)
        else:
            self.written.put(namespace, name, heard=False, tier=self.rng.choice(("front", "back")))

    def relist(self, part: Part) -> None:
        """The shard lost its watch for too long: a list says what there is, and feeds tell of it as of one version."""
        part.to_hear.clear()
        held = (
            state
            for state in self.written.objects.values()
            if part.partition.cover.admits(state.namespace, state.uid)
        )
        part.list(held, self.written.revision)
        if self.ways and self.rng.random() < 0.5:
            self.rng.choice(self.ways).cut()

    async def trouble(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        parts = list(self.written.parts.values())
        idle: Part | None = None
        while loop.time() < until:
            for _ in range(self.rng.choice((0, 1, 1, 5, 30))):
                self.write()
            if self.rng.random() < 0.1:
                idle = self.rng.choice([None, *parts])
            for part in parts:
                if part is not idle:
                    part.hear(self.rng.choice((0, 1, 3, 1000)))
                if self.rng.random() < 0.05:
                    self.written.bookmark(part.partition.id)
                if self.rng.random() < self.relists:
                    self.relist(part)
            if self.rng.random() < 0.03 and self.ways:
                self.rng.choice(self.ways).cut()
            await asyncio.sleep(self.rng.choice((0.0, 0.001, 0.05, 0.5)))

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self.write()
        for part in self.written.parts.values():
            part.hear()
        tasks = [asyncio.create_task(client.run()) for client in self.clients]
        await self.trouble(loop.time() + 60.0)
        # At rest, with every frontier proved.
        for part in self.written.parts.values():
            self.written.bookmark(part.partition.id)
            part.hear()
        for _ in range(60):
            await asyncio.sleep(2.0)
            failed = next((task for task in tasks if task.done()), None)
            if failed is not None:
                failed.result()
            if all(client.held == client.wanted() and client.fresh is None for client in self.clients):
                break
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for router in self.routers:
            await router.aclose()
        for client in self.clients:
            assert client.held == client.wanted(), "\n".join(client.story[-60:])


def run(seed: int) -> World:
    async def main() -> World:
        world = World(seed)
        try:
            await world.run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        return world

    return run_virtual(main())


@pytest.mark.parametrize("seed", range(40))
def test_clients_of_any_gateway_have_what_there_is_and_nothing_goes_back(seed):
    run(seed)


def test_the_troubles_happen():
    worlds = [run(seed) for seed in range(100, 106)]
    clients = [client for world in worlds for client in world.clients]
    assert sum(client.expired for client in clients) > 5
    assert sum(client.resumed for client in clients) > 100
    assert any(
        part.store.history_statistics().late for world in worlds for part in world.written.parts.values()
    )
    statistics = [router.statistics for world in worlds for router in world.routers]
    assert sum(one.overtakings for one in statistics) > 50
    assert sum(one.feeds_reopened for one in statistics) > 5
