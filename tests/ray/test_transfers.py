"""Partitions pass between shard actors, in processes of their own, while the API server is written to: nothing is
listed again, and a source that is killed half-way is noticed at once.

The shards are apart from the installation of this folder, whose Ray they use, and follow an API server of their own.
"""

import asyncio
import base64
import contextlib
import os
import random
import signal
import subprocess
import sys

import msgspec
import pytest
from support.installation import until

from shoal.cluster.cli.server import Server
from shoal.shards.api.client import fetch
from shoal.shards.api.kubeconfig import load_kubeconfig
from shoal.shards.api.requests import JSON, ApiRequest
from shoal.shards.handle import Assignment
from shoal.shards.handle_ray import RayShardProvider, shard_directory
from shoal.shards.model.errors import NotReady, ShoalError
from shoal.shards.model.partitions import Epoch, Partition, PartitionId, ShardId
from shoal.shards.model.queries import ChangesQuery, FeedQuery, PageQuery
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.transfers import Source, Taken
from shoal.shards.model.versions import Version
from shoal.shards.settings import ShardSettings, TransferSettings
from shoal.shards.watch.permits import NoPermits

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PODS = ResourceType(
    resource=Resource("", "v1", "pods"),
    kind="Pod",
    namespaced=True,
    selectable_fields=("spec.nodeName", "status.phase"),
)
CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
POD_COUNT = 2000
LARGE_MAPS, MAP_BYTES = 400, 96 << 10
CHANGES_A_SECOND = 200


def assignment(resource_type):
    return Assignment(partition=Partition(resource_type.resource), resource_type=resource_type)


class Movers:
    """Shard actors by number, of one API server."""

    def __init__(self, url, provider):
        self.url = url
        self.provider = provider
        self.handles = {}
        self.epoch = 1

    async def start(self, *names):
        for name in names:
            self.handles[name] = await self.provider.ensure(ShardId(name))
        return [self.handles[name] for name in names]

    async def stop(self):
        for name in self.handles:
            await self.provider.retire(ShardId(name))
        await shard_directory.aclose()

    async def adopt(self, shard, resource_type, *sources):
        self.epoch += 1
        wanted = assignment(resource_type)
        partition = wanted.partition.id
        given = tuple(Source(source.shard_id, partition) for source in sources)
        await shard.adopt([wanted], Epoch(self.epoch), {partition: given} if given else None)

    async def held(self, shard, resource_type):
        for held in (await shard.statistics()).partitions:
            if held.partition == Partition(resource_type.resource).id:
                return held
        raise ShoalError("it is not held")

    async def synced(self, shard, resource_type):
        return (await self.held(shard, resource_type)).state == "synced"

    @contextlib.asynccontextmanager
    async def changes(self, rate):
        async with Server(self.url) as server:
            await server.put_json("/simulator/churn", {"rate": rate})
            try:
                yield
            finally:
                await server.put_json("/simulator/churn", {"rate": 0})

    async def truth(self, resource_type):
        """Keys and versions that the API server has."""
        async with Server(self.url) as server:
            found = await server.fetch_json(resource_type.resource.path())
        metadata = [item["metadata"] for item in found["items"]]
        return {f"{one['namespace']}/{one['name']}": int(one["resourceVersion"]) for one in metadata}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The API server's URL, and how to reach it."""
    kubeconfig = tmp_path_factory.mktemp("movers") / "kubeconfig"
    command = [sys.executable, "-P", "-m", "shoal", "apiserver"]
    options = ["--kubeconfig", str(kubeconfig), "--pods", str(POD_COUNT), "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE) as process:
        try:
            yield msgspec.json.decode(process.stdout.readline())["url"], load_kubeconfig(str(kubeconfig))
        finally:
            process.terminate()


@pytest.fixture
async def movers(installation, source):
    del installation  # for its Ray
    url, access = source
    settings = ShardSettings(transfer=TransferSettings(piece_bytes=64 << 10))
    found = Movers(
        url, RayShardProvider(access, lambda _: NoPermits(), settings, cpus=0.01, memory_bytes=None)
    )
    yield found
    await found.stop()


async def filled(url):
    """Objects that are as long packed as they are."""
    noise = random.Random(1)
    slots = asyncio.Semaphore(8)

    async with Server(url) as server:

        async def create(number):
            text = base64.b64encode(noise.randbytes(MAP_BYTES * 3 // 4)).decode()
            document = {"metadata": {"name": f"large-{number:04}"}, "data": {"noise": text}}
            headers = (("Accept", JSON), ("Content-Type", JSON))
            path = "/api/v1/namespaces/default/configmaps"
            async with slots:
                await fetch(
                    server._connection,
                    ApiRequest("POST", path, headers=headers, body=msgspec.json.encode(document)),
                )

        async with asyncio.TaskGroup() as group:
            for number in range(LARGE_MAPS):
                group.create_task(create(number))


async def followed_feed(shard, partition, since, seen, stop):
    """Every event after a version until `stop` says at which version that is."""
    feed = shard.feed(FeedQuery(partition=partition, epoch=Epoch(1), since=since))
    async with contextlib.aclosing(feed):
        async for batch in feed:
            seen += [event.version for event in batch.events]
            if stop.done() and batch.frontier >= stop.result():
                return


async def test_a_partition_passes_under_changes_without_a_list(movers):
    giver, taker = await movers.start("mover-a", "mover-b")
    partition = PartitionId("v1/pods")
    await movers.adopt(giver, PODS)
    await until("the pods are held", lambda: movers.synced(giver, PODS))
    began = (await movers.held(giver, PODS)).frontier
    seen, stop = [], asyncio.get_running_loop().create_future()
    async with movers.changes(CHANGES_A_SECOND):
        await asyncio.sleep(1)  # so that there is a past
        reading = asyncio.create_task(followed_feed(giver, partition, began, seen, stop))
        await movers.adopt(taker, PODS, giver)
        await until("the pods have come", lambda: movers.synced(taker, PODS))
        stood = (await giver.hand_over([partition], Epoch(movers.epoch)))[partition]
        await taker.take_over({partition: Taken(stood.shown, stood.frontier)})

        assert (await movers.held(taker, PODS)).frontier >= stood.frontier
        stop.set_result(stood.frontier)
        await reading
        on_with, later = [], asyncio.get_running_loop().create_future()
        going_on = asyncio.create_task(followed_feed(taker, partition, stood.frontier, on_with, later))
        await giver.release([partition], Epoch(movers.epoch))
        await asyncio.sleep(1)  # so that there is a future
    truth = await movers.truth(PODS)
    newest = Version(max(truth.values()))

    async def caught_up():
        return (await movers.held(taker, PODS)).frontier >= newest

    await until("all has been told", caught_up)
    later.set_result(newest)
    changes = [
        change.version
        async for page in taker.changes(ChangesQuery(partition=partition, epoch=Epoch(1), since=began))
        for change in page.changes
    ]
    async with contextlib.aclosing(taker.stream(PageQuery(partition=partition, epoch=Epoch(1)))) as pages:
        keys = [key async for page in pages for key in page.keys]
    await asyncio.wait_for(going_on, 10)
    held = await movers.held(taker, PODS)
    told = seen + on_with
    assert keys == sorted(truth)
    assert told == sorted(set(told)), "nothing twice, and in order"
    assert [version for version in changes if version <= told[-1]] == told, "the past has come along"
    assert len(told) > CHANGES_A_SECOND // 4
    assert (held.lists, held.source_shards) == ({}, ("mover-a",))
    assert held.transferred_objects >= POD_COUNT - 100


async def test_a_source_that_is_killed_half_way_leaves_it_stranded_and_it_can_be_listed(movers):
    await filled(movers.url)
    giver, taker = await movers.start("mover-c", "mover-d")
    await movers.adopt(giver, CONFIG_MAPS)
    await until("the maps are held", lambda: movers.synced(giver, CONFIG_MAPS))
    pid = (await giver.statistics()).pid
    await taker.statistics()
    for _ in range(5):
        await movers.adopt(taker, CONFIG_MAPS, giver)
        while True:
            held = await movers.held(taker, CONFIG_MAPS)
            if held.transferred_objects or held.state != "arriving":
                break
        if held.state == "arriving":
            os.kill(pid, signal.SIGSTOP)
            if (await movers.held(taker, CONFIG_MAPS)).state == "arriving":
                break
            os.kill(pid, signal.SIGCONT)
        await taker.release([held.partition], Epoch(movers.epoch))
    else:
        pytest.fail("never caught on its way")
    with pytest.raises(NotReady, match="is not here yet"):
        await taker.page(PageQuery(partition=held.partition, epoch=Epoch(1)))
    os.kill(pid, signal.SIGKILL)

    async def stranded():
        return (await movers.held(taker, CONFIG_MAPS)).state == "stranded"

    await until("it is noticed", stranded)
    held = await movers.held(taker, CONFIG_MAPS)
    assert (held.objects, held.lists) == (0, {})
    assert held.message.startswith("v1/configmaps from mover-c: ")
    await movers.adopt(taker, CONFIG_MAPS)
    await until("the maps are listed", lambda: movers.synced(taker, CONFIG_MAPS))
    held = await movers.held(taker, CONFIG_MAPS)
    assert (held.objects, sum(held.lists.values()), held.source_shards) == (
        len(await movers.truth(CONFIG_MAPS)),
        1,
        (),
    )
