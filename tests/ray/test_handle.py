"""The Ray handles behave as the protocol says: errors keep their types, streams are whole or closed."""

import pytest

from shoal.shards.handle_ray import shard_directory
from shoal.shards.model.errors import BadRequest, NotReady, NotServed
from shoal.shards.model.partitions import Epoch, PartitionId, ShardId
from shoal.shards.model.queries import GetQuery, PageQuery
from shoal.shards.model.refs import Key

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PODS = PartitionId("v1/pods")


@pytest.fixture
async def shard(running):
    return shard_directory(ShardId(await running.shard_of(PODS)))


async def test_a_partition_that_is_not_held_is_not_served(shard):
    with pytest.raises(NotServed) as caught:
        await shard.get(GetQuery(partition=PartitionId("v1/nothing"), epoch=Epoch(1), key=Key("a/b")))
    assert caught.value.partition == "v1/nothing"
    assert caught.value.epoch > 0


async def test_a_bad_selector_is_a_bad_request(shard):
    with pytest.raises(BadRequest, match="unable to parse requirement"):
        await shard.page(PageQuery(partition=PODS, epoch=Epoch(1), labels="a===b"))


async def test_a_shard_that_does_not_run_is_not_ready():
    with pytest.raises(NotReady, match="shard-99 is not running"):
        shard_directory(ShardId("shard-99"))


async def test_a_stream_has_every_object_once_and_in_order(shard):
    pages = [page async for page in shard.stream(PageQuery(partition=PODS, epoch=Epoch(1), limit=40))]
    keys = [key for page in pages for key in page.keys]
    assert len(pages) > 5
    assert keys == sorted(set(keys))
    assert len({page.version for page in pages}) == 1
    assert len(keys) == 300


async def test_a_stream_that_is_given_up_leaves_the_shard_as_it_was(shard):
    stream = shard.stream(PageQuery(partition=PODS, epoch=Epoch(1), limit=10))
    first = await anext(stream)
    await stream.aclose()
    assert len(first.keys) == 10
    pages = [page async for page in shard.stream(PageQuery(partition=PODS, epoch=Epoch(1), limit=100))]
    assert sum(len(page.keys) for page in pages) == 300
