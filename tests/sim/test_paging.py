"""The pages of one list are one state, over real shards that follow an API server while it changes.

Each partition's part of a paged list is compared with what the API server itself lists at the version the token pins
that partition to; then shards are restarted and partitions moved in the middle of lists.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from support.apiserver import Caller, InProcessConnection, in_virtual_time, virtual_apiserver
from support.local_shards import CONFIG_MAPS, FakeCoordinator
from support.queries import collection_query

from shoal.cluster.query.request import CollectionQuery
from shoal.cluster.query.router import QueryRouter
from shoal.cluster.query.routing import Routing
from shoal.cluster.query.tokens import decode_token
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.coordinator.routes import Route, RouteTable
from shoal.shards.handle import Assignment
from shoal.shards.local import LocalShardHandle
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
    ShardId,
    fnv1a64,
)
from shoal.shards.model.resources import Resource
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

NAMESPACES = ("a", "a-b", "b")
LAYOUTS: dict[str, Sequence[Cover]] = {
    "one": (EVERYTHING,),
    "carved": (OneNamespace("a"), OneNamespace("b"), ExceptNamespaces(("a", "b"))),
    "by uid": (HashRange("uid", 0, HASH_END // 2), HashRange("uid", HASH_END // 2, HASH_END)),
}
LOW = f"shardRange(object.metadata.uid, '0x{0:016x}', '0x{HASH_END // 2:016x}')"


class Cluster:
    """An API server in this loop, with config maps, and shards that follow them."""

    def __init__(self, seed: int, covers: Sequence[Cover]) -> None:
        self.rng = random.Random(seed)
        self.app = virtual_apiserver(SimulatorSettings(seed=seed, shard_selector=True))
        self.caller = Caller(self.app)
        self.served = self.app.verbs.served(CONFIG_MAPS.resource)
        namespaces = self.app.verbs.served(Resource("", "v1", "namespaces"))
        for name in NAMESPACES:
            self.app.verbs.create(namespaces, None, {"metadata": {"name": name}})
        for _ in range(30):
            self.change(delete=0.0)
        self.partitions = [Partition(CONFIG_MAPS.resource, cover) for cover in covers]
        self.shards: dict[ShardId, LocalShardHandle] = {}
        self.placed: dict[PartitionId, ShardId] = {}
        self.epoch = 0
        self.routing = Routing(FakeCoordinator())
        self.router = QueryRouter(self.routing, self.shards.__getitem__)

    def change(self, *, delete: float = 0.3) -> None:
        """Creates, changes or deletes one object."""
        verbs, name, space = self.app.verbs, f"cm-{self.rng.randrange(12):02}", self.rng.choice(NAMESPACES)
        key = f"{space}/{name}"
        if key not in verbs.collection(self.served).objects:
            verbs.create(self.served, space, {"metadata": {"name": name}})
        elif self.rng.random() < delete:
            verbs.delete(self.served, space, name)
        else:
            labels = {"n": str(self.rng.randrange(1000))}
            verbs.update(self.served, key, lambda document: document["metadata"].update(labels=labels))

    async def start(self) -> None:
        for at, partition in enumerate(self.partitions):
            await self.place(partition, ShardId(f"shard-{at % 2}"))
        self.publish()

    async def place(self, partition: Partition, shard_id: ShardId) -> None:
        """Has a shard follow a partition, from a list of its own, until it is synced."""
        if shard_id not in self.shards:
            shard = Shard(
                shard_id,
                connection=InProcessConnection(self.app),
                permits=NoPermits(),
                settings=ShardSettings(),
                incarnation=f"{shard_id} {self.rng.random()}",
                rng=random.Random(self.rng.random()),
            )
            self.shards[shard_id] = LocalShardHandle(shard)
        handle = self.shards[shard_id]
        await handle.adopt([Assignment(partition=partition, resource_type=CONFIG_MAPS)], Epoch(self.epoch))
        self.placed[partition.id] = shard_id
        async with asyncio.timeout(60):
            while not all(held.state == "synced" for held in (await handle.statistics()).partitions):
                await asyncio.sleep(0.1)

    async def restart(self, shard_id: ShardId) -> None:
        """Another process takes the shard's place; it holds what it lists now, and no past."""
        await self.shards.pop(shard_id).stop()
        for partition in self.partitions:
            if self.placed[partition.id] == shard_id:
                await self.place(partition, shard_id)
        self.publish()
        # Another gateway, which has never heard of the process that ended.
        self.router = QueryRouter(self.routing, self.shards.__getitem__)

    async def move(self, partition: Partition, to: ShardId) -> None:
        held_by = self.placed[partition.id]
        await self.place(partition, to)
        self.publish()
        await self.shards[held_by].release([partition.id], Epoch(self.epoch))

    def publish(self) -> None:
        self.epoch += 1
        self.routing.take(
            RouteTable(
                epoch=Epoch(self.epoch),
                catalogue=(CONFIG_MAPS,),
                routes=tuple(Route(one, self.placed[one.id]) for one in self.partitions),
                shards=tuple(self.shards),
            )
        )

    async def stop(self) -> None:
        for handle in self.shards.values():
            await handle.stop()

    async def truth(self, version: int, **parameters: str) -> dict[str, Any]:
        """What the API server lists at a version, by key."""
        asked = {"resourceVersion": str(version), "resourceVersionMatch": "Exact", **parameters}
        status, listed = await self.caller.ask("GET", f"/api/v1/configmaps?{urlencode(asked)}")
        assert status == 200, listed
        return {_key(item): item["metadata"]["resourceVersion"] for item in listed["items"]}


def _key(item: Any) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def query(**parameters: object) -> CollectionQuery:
    pairs = [(name.rstrip("_"), str(value)) for name, value in parameters.items()]
    return collection_query(CONFIG_MAPS, pairs)


async def pages_during(cluster: Cluster, between: Any, limit: int = 4, **parameters: object) -> Any:
    """A whole list page by page: its objects, its version and the pins; `between` runs between two pages."""
    found: list[Any] = []
    pins: dict[PartitionId, int] = {}
    versions: set[int] = set()
    token = ""
    while True:
        asked = query(limit=limit, **({"continue_": token} if token else {}), **parameters)
        listing = await cluster.router.list(asked)
        await listing.aclose()
        found += [json.loads(body) for body in listing.first]
        versions.add(listing.version)
        token = listing.continue_token
        if not token:
            return found, versions, pins
        pins = dict(decode_token(token, asked.fingerprint).pins)
        await between()


async def expect_one_state(
    cluster: Cluster, found: list[Any], versions: set[int], pins: Any, **parameters: str
) -> None:
    assert versions == {min(pins.values())}
    keys = [_key(item) for item in found]
    assert keys == sorted(set(keys)), "each object once, in order"
    for partition in cluster.partitions:
        of_part = {
            key: item["metadata"]["resourceVersion"]
            for key, item in zip(keys, found, strict=True)
            if partition.cover.admits(item["metadata"]["namespace"], item["metadata"]["uid"])
        }
        at = await cluster.truth(pins[partition.id], **{**parameters, **_selecting(partition.cover)})
        assert of_part == at, f"{partition.id} at {pins[partition.id]}"


def _selecting(cover: Cover) -> dict[str, str]:
    """How the API server is asked for a cover."""
    match cover:
        case OneNamespace(namespace=name):
            return {"fieldSelector": f"metadata.namespace={name}"}
        case ExceptNamespaces(namespaces=names):
            return {"fieldSelector": ",".join(f"metadata.namespace!={name}" for name in names)}
        case HashRange():
            return {"shardSelector": cover.selector}
        case _:
            return {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_are_one_state_of_each_partition_while_everything_changes(seed: int, layout: str) -> None:
    async def main() -> None:
        cluster = Cluster(seed, LAYOUTS[layout])
        await cluster.start()

        async def churn() -> None:
            for _ in range(cluster.rng.randrange(6)):
                cluster.change()
            await asyncio.sleep(cluster.rng.choice((0.0, 0.5)))
            if cluster.rng.random() < 0.3:
                cluster.publish()  # another epoch of the same routes

        found, versions, pins = await pages_during(cluster, churn, limit=cluster.rng.choice((1, 3, 5)))
        await expect_one_state(cluster, found, versions, pins)
        await cluster.stop()

    in_virtual_time(main())


def test_pages_of_a_sharded_list_are_one_state(seed: int) -> None:
    async def main() -> None:
        cluster = Cluster(seed, LAYOUTS["carved"])
        await cluster.start()

        async def churn() -> None:
            cluster.change()
            await asyncio.sleep(0.1)

        found, versions, pins = await pages_during(cluster, churn, limit=2, shardSelector=LOW)
        assert {fnv1a64(item["metadata"]["uid"]) < HASH_END // 2 for item in found} == {True}
        await expect_one_state(cluster, found, versions, pins, shardSelector=LOW)
        await cluster.stop()

    in_virtual_time(main())


@pytest.mark.parametrize("what", ["restart", "move"])
def test_a_state_that_went_with_its_shard_is_expired_and_never_another_one(what: str) -> None:
    async def main() -> None:
        cluster = Cluster(1, LAYOUTS["carved"])
        await cluster.start()
        listing = await cluster.router.list(query(limit=4))
        for _ in range(20):
            cluster.change()
        await asyncio.sleep(1.0)
        if what == "restart":
            await cluster.restart(ShardId("shard-1"))
        else:
            await cluster.move(cluster.partitions[0], ShardId("shard-1"))
        with pytest.raises(Expired) as caught:
            await cluster.router.list(query(limit=4, continue_=listing.continue_token))
        # With the token offered the list goes on behind the same key, from the newest state.
        goes_on = await cluster.router.list(query(continue_=caught.value.metadata["continue"]))
        last = _key(json.loads(listing.first[-1]))
        newest = await cluster.truth(goes_on.version)
        assert [_key(json.loads(body)) for body in goes_on.first] == [
            key for key in sorted(newest) if key > last
        ]
        await cluster.stop()

    in_virtual_time(main())


def test_what_a_shard_lists_again_is_the_same_state_if_nothing_happened() -> None:
    async def main() -> None:
        cluster = Cluster(2, LAYOUTS["by uid"])
        await cluster.start()
        whole, versions, _ = await pages_during(cluster, lambda: asyncio.sleep(0))

        async def move() -> None:
            partition = cluster.rng.choice(cluster.partitions)
            other = {"shard-0": "shard-1", "shard-1": "shard-0"}[cluster.placed[partition.id]]
            await cluster.move(partition, ShardId(other))

        found, moved, _ = await pages_during(cluster, move)
        assert (found, moved) == (whole, versions)
        await cluster.stop()

    in_virtual_time(main())
