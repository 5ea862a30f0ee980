"""The Ray handles behave as the protocol says: errors keep their types, streams are whole or closed, and a shard whose
process dies or hangs is noticed at once by whoever has something in flight, and found again.
"""

import asyncio
import contextlib
import os
import signal

import pytest
import ray
from support.installation import until

from shoal.shards.handle_ray import NAMESPACE, shard_directory
from shoal.shards.model.errors import BadRequest, NotReady, NotServed, ShoalError
from shoal.shards.model.partitions import Epoch, PartitionId, ShardId
from shoal.shards.model.queries import CountQuery, FeedQuery, GetQuery, PageQuery
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.settings import WireSettings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PODS = PartitionId("v1/pods")
KEEPALIVE_S = WireSettings().keepalive_s
NEVER_REACHED = Version(1 << 60)


@pytest.fixture
async def shard(running):
    yield shard_directory(ShardId(await running.shard_of(PODS)))
    await shard_directory.aclose()


async def pages_of(shard, limit=100):
    return [page async for page in shard.stream(PageQuery(partition=PODS, epoch=Epoch(1), limit=limit))]


async def test_a_partition_that_is_not_held_is_not_served(shard):
    with pytest.raises(NotServed) as caught:
        await shard.get(GetQuery(partition=PartitionId("v1/nothing"), epoch=Epoch(1), key=Key("a/b")))
    assert caught.value.partition == "v1/nothing"
    assert caught.value.epoch > 0
    assert shard.connection.epoch == caught.value.epoch


async def test_a_bad_selector_is_a_bad_request(shard):
    with pytest.raises(BadRequest, match="unable to parse requirement"):
        await shard.page(PageQuery(partition=PODS, epoch=Epoch(1), labels="a===b"))


async def test_a_shard_that_does_not_run_is_not_ready(shard):
    nobody = shard_directory(ShardId("shard-99"))
    with pytest.raises(NotReady, match="shard-99 is not running"):
        await nobody.get(GetQuery(partition=PODS, epoch=Epoch(1), key=Key("a/b")))
    with pytest.raises(NotReady, match="shard-99 is not running"):
        await nobody.statistics()
    with pytest.raises(NotReady, match="shard-99 is not running"):
        await nobody.stop()


async def test_a_stream_has_every_object_once_and_in_order(shard):
    pages = await pages_of(shard, limit=40)
    keys = [key for page in pages for key in page.keys]
    assert len(pages) > 5
    assert keys == sorted(set(keys))
    assert len({page.version for page in pages}) == 1
    assert len(keys) == 300
    assert (await shard.count(CountQuery(partition=PODS, epoch=Epoch(1)))).count == 300


async def test_a_stream_that_is_given_up_leaves_the_shard_as_it_was(shard):
    stream = shard.stream(PageQuery(partition=PODS, epoch=Epoch(1), limit=10))
    first = await anext(stream)
    await stream.aclose()
    assert len(first.keys) == 10
    assert sum(len(page.keys) for page in await pages_of(shard)) == 300


async def test_all_handles_of_a_process_share_one_connection(shard):
    again = shard_directory(shard.shard_id)
    await asyncio.gather(*(pages_of(handle) for handle in (shard, again)))
    assert again.connection is shard.connection


async def test_the_endpoint_is_the_same_for_everybody_and_keeps_its_secret(shard):
    actor = ray.get_actor(shard.shard_id, namespace=NAMESPACE)
    first, second = [await actor.data_endpoint.remote() for _ in range(2)]
    assert (first.host, first.port, first.incarnation) == (second.host, second.port, second.incarnation)
    assert first.host == ray.util.get_node_ip_address()
    assert first.incarnation == (await shard.statistics()).incarnation
    assert first.secret.sign(b"a") == second.secret.sign(b"a")
    assert "Secret(…)" in repr(first)


async def in_flight(shard):
    """A query that waits, and a feed that is silent or not; both end when the shard does."""
    feed = shard.feed(FeedQuery(partition=PODS, epoch=Epoch(1)))
    await anext(feed)

    async def follow():
        async for _ in feed:
            pass

    query = GetQuery(
        partition=PODS, epoch=Epoch(1), key=Key("a/b"), not_older_than=NEVER_REACHED, wait_s=10 * KEEPALIVE_S
    )
    return [asyncio.create_task(shard.get(query)), asyncio.create_task(follow())]


async def whole_again(shard):
    with contextlib.suppress(ShoalError):
        return sum(len(page.keys) for page in await pages_of(shard)) == 300
    return False


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_shard_that_dies_or_hangs_is_noticed_in_time_and_found_again(running, shard, death):
    before = await shard.statistics()
    stream = shard.stream(PageQuery(partition=PODS, epoch=Epoch(1), limit=10))
    await anext(stream)
    asking = await in_flight(shard)
    assert shard.connection.connected
    os.kill(before.pid, death)
    try:
        async with asyncio.timeout(3 * KEEPALIVE_S):
            results = await asyncio.gather(*asking, return_exceptions=True)
    finally:
        if death == signal.SIGSTOP:
            os.kill(before.pid, signal.SIGCONT)
    for result in results:
        assert isinstance(result, NotReady), result
        assert shard.shard_id in str(result)
        assert result.retry_after_s == 1
    with contextlib.suppress(NotReady):  # what had arrived before may still be taken
        async for page in stream:
            assert len(page.keys) == 10
    holder = ShardId(await running.shard_of(PODS))
    await until("the pods are served again", lambda: whole_again(shard_directory(holder)))
    await until("everything is synced again", running.ready)
    after = await shard_directory(holder).statistics()
    assert death != signal.SIGKILL or after.incarnation != before.incarnation
