"""Shards by name: whatever goes wrong with one, it is named, in time, and asked again the next time."""

import asyncio

import pytest
from support.clock import run_virtual
from support.local_shards import PODS, FakePartition, FakeShard, made

from shoal.cluster.query.directory import RETRY_AFTER_S, KnownShards
from shoal.shards.model.errors import Expired, NotReady
from shoal.shards.model.partitions import Epoch, PartitionId, ShardId
from shoal.shards.model.queries import GetQuery
from shoal.shards.model.refs import Key

SHARD = ShardId("shard-0")
PARTITION = PartitionId("v1/pods")
QUERY = GetQuery(partition=PARTITION, epoch=Epoch(1), key=Key("a/web"))


def shard_with(name):
    return FakeShard(SHARD, {PARTITION: FakePartition([made(PODS, name, namespace="a")])})


def asking(shards, timeout_s=1.0):
    return shards.ask(SHARD, lambda handle: handle.get(QUERY), timeout_s)


def test_a_shard_whose_process_has_changed_is_found_at_once():
    async def main():
        running = {SHARD: shard_with("other")}
        shards = KnownShards(running.__getitem__)
        assert (await asking(shards)).body is None
        running[SHARD] = shard_with("web")
        assert (await asking(shards)).body is not None

    run_virtual(main())


def test_a_shard_that_is_silent_is_not_ready_in_time_and_named():
    async def main():
        shard = shard_with("web")
        shard.silent = True
        shards = KnownShards(lambda _: shard)
        began = asyncio.get_running_loop().time()
        with pytest.raises(NotReady, match="shard shard-0 did not answer within 2 s") as caught:
            await asking(shards, timeout_s=2.0)
        assert caught.value.retry_after_s == RETRY_AFTER_S
        assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)
        shard.silent = False
        assert (await asking(shards)).body is not None

    run_virtual(main())


@pytest.mark.parametrize("given", [None, 7])
def test_who_is_told_to_come_back_is_told_when(given):
    async def main():
        shard = shard_with("web")
        shard.raises.append(NotReady("starting", retry_after_s=given))
        with pytest.raises(NotReady, match="starting") as caught:
            await asking(KnownShards(lambda _: shard))
        assert caught.value.retry_after_s == (given or RETRY_AFTER_S)

    run_virtual(main())


def test_what_the_directory_and_the_shard_raise_is_the_callers():
    async def main():
        def nobody(shard_id):
            raise NotReady(f"shard {shard_id} is not running")

        with pytest.raises(NotReady, match="shard-0 is not running") as caught:
            await asking(KnownShards(nobody))
        assert caught.value.retry_after_s == RETRY_AFTER_S
        shard = shard_with("web")
        shard.raises.append(Expired("too old"))
        with pytest.raises(Expired, match="too old"):
            await asking(KnownShards(lambda _: shard))

    run_virtual(main())
