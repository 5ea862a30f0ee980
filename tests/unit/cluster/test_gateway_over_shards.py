"""Gateway, router and real shards together: what the stores hold, divided over shards, is what clients get.

The API server is left out: objects are decoded from its own list form and put into the stores by the test.
"""

import asyncio
import json
import random
from contextlib import asynccontextmanager

import pytest
from support.local_shards import NODES, PODS, WIDGETS, FakeCoordinator, ask, made, named

from shoal.cluster.gateway.app import Gateway
from shoal.cluster.query.router import QueryRouter
from shoal.cluster.query.routing import Routing
from shoal.coordinator.routes import Route, RouteTable
from shoal.shards.api.decode import Decoder
from shoal.shards.handle import Assignment
from shoal.shards.local import LocalShardHandle
from shoal.shards.model.partitions import (
    EVERYTHING,
    Epoch,
    ExceptNamespaces,
    OneNamespace,
    Partition,
    ShardId,
)
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

pytestmark = pytest.mark.looptime
"""Nobody tells the partitions of newer versions, so a list over several of them waits its whole time for that."""


class SilentConnection:
    """An API server that never answers: nothing but the test writes to the stores."""

    @asynccontextmanager
    async def open(self, request):
        await asyncio.Event().wait()
        yield None

    async def aclose(self):
        pass


class Installation:
    """Two shards; pods of namespace a on the first, all other pods, nodes and widgets on the second."""

    def __init__(self):
        self.handles = {}
        self.stores = {}
        self.decoders = {}
        self.coordinator = FakeCoordinator()

    async def start(self):
        placed = [
            (PODS, OneNamespace("a"), "shard-0"),
            (PODS, ExceptNamespaces(("a",)), "shard-1"),
            (NODES, EVERYTHING, "shard-1"),
            (WIDGETS, EVERYTHING, "shard-0"),
        ]
        for number in range(2):
            shard = Shard(
                ShardId(f"shard-{number}"),
                connection=SilentConnection(),
                permits=NoPermits(),
                settings=ShardSettings(),
                incarnation="one",
                rng=random.Random(number),
            )
            self.handles[shard.shard_id] = LocalShardHandle(shard)
        routes = []
        for resource_type, cover, name in placed:
            partition = Partition(resource_type.resource, cover)
            handle = self.handles[ShardId(name)]
            await handle.adopt([Assignment(partition=partition, resource_type=resource_type)], Epoch(1))
            self.stores[partition.id] = handle.shard._followed[partition.id].store
            self.decoders[partition.id] = Decoder(resource_type)
            routes.append(Route(partition, handle.shard_id))
        table = RouteTable(
            epoch=Epoch(1), catalogue=(PODS, NODES, WIDGETS), routes=tuple(routes), shards=tuple(self.handles)
        )
        routing = Routing(self.coordinator)
        routing.take(table)
        router = QueryRouter(routing, self.handles.__getitem__)
        self.gateway = Gateway(router, self.handles.__getitem__, self.coordinator)

    def fill(self, partition, bodies, version):
        store = self.stores[partition]
        store.begin()
        for observation in self.observed(partition, bodies):
            store.put(observation)
        store.finish(version)

    def change(self, partition, *bodies):
        for observation in self.observed(partition, bodies):
            self.stores[partition].apply(observation)

    def observed(self, partition, bodies):
        items = ",".join(json.dumps(json.loads(body), separators=(",", ":")) for body in bodies)
        page = f'{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"1"}},"items":[{items}]}}'
        return self.decoders[partition].page(page.encode()).observations

    async def stop(self):
        for handle in self.handles.values():
            await handle.stop()


def pod(namespace, name, version, **more):
    app = "db" if name.startswith("db") else "web"
    return made(PODS, name, namespace=namespace, version=version, labels={"app": app}, **more)


@pytest.fixture
async def shards():
    installation = Installation()
    await installation.start()
    yield installation
    await installation.stop()


@pytest.fixture
async def filled(shards):
    shards.fill("v1/pods[a]", [pod("a", f"web-{n:04}", n + 1) for n in range(1200)], 1300)
    others = [
        pod(ns, f"db-{n}", 1201 + n, spec={"nodeName": f"node-{n}"}) for ns in ("a-b", "b") for n in range(5)
    ]
    shards.fill("v1/pods[!a]", others, 1290)
    shards.fill("v1/nodes", [made(NODES, "node-1", version=3)], 1250)
    shards.fill("example.com/v1/widgets", [made(WIDGETS, "w", namespace="a", version=4, spec={"x": 1})], 1251)
    return shards


ALL = sorted(
    [*(f"a/web-{n:04}" for n in range(1200)), *(f"{ns}/db-{n}" for ns in ("a-b", "b") for n in range(5))]
)


def keys(reply):
    return [named(json.dumps(item)) for item in reply.json["items"]]


async def test_a_list_of_everything(filled):
    reply = await ask(filled.gateway, "/api/v1/pods")
    assert keys(reply) == ALL
    assert reply.json["metadata"] == {"resourceVersion": "1290"}
    assert all(next(iter(item)) == "metadata" for item in reply.json["items"])
    assert reply.headers["shoal-shards"] == "shard-0,shard-1"


async def test_pages_of_kubectls_size_are_one_state_while_objects_change(filled):
    found, token, pages = [], "", 0
    while True:
        reply = await ask(filled.gateway, f"/api/v1/pods?limit=500&continue={token}")
        assert reply.status == 200
        found += keys(reply)
        pages += 1
        filled.change("v1/pods[a]", pod("a", f"web-new-{pages}", 2000 + pages))
        filled.change("v1/pods[!a]", pod("b", "db-0", 2000 + pages))
        token = reply.json["metadata"].get("continue", "")
        if not token:
            break
        assert reply.json["metadata"]["remainingItemCount"] == len(ALL) - len(found)
    assert found == ALL
    assert pages == 3
    fresh = await ask(filled.gateway, "/api/v1/namespaces/a/pods?labelSelector=app=web")
    assert len(keys(fresh)) == 1203


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("labelSelector=app=db", 10),
        ("labelSelector=app!=db", 1200),
        ("labelSelector=app in (db,none)&fieldSelector=metadata.namespace!=b", 5),
        ("fieldSelector=spec.nodeName=node-3", 2),
        ("fieldSelector=metadata.name=web-0007", 1),
        ("fieldSelector=metadata.namespace=b", 5),
    ],
)
async def test_selectors_reach_the_indexes(filled, query, expected):
    reply = await ask(filled.gateway, f"/api/v1/pods?{query.replace(' ', '%20')}")
    assert reply.status == 200
    assert len(reply.json["items"]) == expected


async def test_the_past_is_answered_from_history(filled):
    for version in (1301, 1302):
        filled.change("v1/pods[a]", pod("a", "web-0000", version, spec={"nodeName": str(version)}))
    exact = "/api/v1/namespaces/a/pods?resourceVersionMatch=Exact&fieldSelector=metadata.name=web-0000"
    reply = await ask(filled.gateway, f"{exact}&resourceVersion=1301")
    assert reply.json["metadata"]["resourceVersion"] == "1301"
    assert reply.json["items"][0]["spec"] == {"nodeName": "1301"}
    reply = await ask(filled.gateway, f"{exact}&resourceVersion=7")
    assert (reply.status, reply.json["reason"]) == (410, "Expired")
    assert reply.json["message"] == "The resourceVersion for the provided list is too old."


async def test_a_version_to_come_is_waited_for(filled):
    loop = asyncio.get_running_loop()
    loop.call_later(0.05, filled.change, "v1/nodes", made(NODES, "node-2", version=1400))
    reply = await ask(filled.gateway, "/api/v1/nodes?resourceVersion=1400&resourceVersionMatch=NotOlderThan")
    assert keys(reply) == ["node-1", "node-2"]
    assert reply.headers["shoal-frontier"] == "1400"


async def test_an_object_and_its_absence(filled):
    reply = await ask(filled.gateway, "/apis/example.com/v1/namespaces/a/widgets/w")
    assert list(reply.json) == ["apiVersion", "kind", "metadata", "spec"]
    reply = await ask(filled.gateway, "/api/v1/namespaces/a/pods/none")
    assert (reply.status, reply.json["message"]) == (404, 'pods "none" not found')


async def test_readiness_follows_the_stores(shards):
    reply = await ask(shards.gateway, "/readyz")
    assert reply.status == 503
    assert "[-]v1/pods not synced: 2 of 2 partitions" in reply.body.decode()
    assert (await ask(shards.gateway, "/api/v1/pods")).status == 503
    assert (await ask(shards.gateway, "/api/v1/nodes/node-1")).headers["retry-after"] == "1"


async def test_one_scrape_shows_what_the_shards_hold(filled):
    reply = await ask(filled.gateway, "/metrics")
    assert (
        'shoal_objects{partition="v1/pods[a]",resource="v1/pods",shard="shard-0"} 1200.0'
        in reply.body.decode()
    )
