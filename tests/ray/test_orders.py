"""Moves and splits by hand over real actors: nothing is listed, and what is served stays what the API server has."""

import pytest
from support.installation import until

from shoal.coordinator.commands import Move, Split
from shoal.coordinator.handle_ray import RayCoordinatorHandle
from shoal.shards.model.errors import NotFound
from shoal.shards.model.partitions import PartitionId, ShardId

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PODS = PartitionId("v1/pods")


async def lists(running):
    """How often partitions of pods were listed, by who holds them now."""
    return {
        (partition.partition, shard): sum(partition.lists.values())
        for shard, statistics in (await running.status()).report.statistics().items()
        for partition in statistics.partitions
        if partition.partition.startswith(PODS)
    }


async def over(coordinator, number):
    async def ended():
        status = await coordinator.status()
        return not status.handoffs and status.handoffs_total.get("done", 0) >= number

    await until(f"{number} hand-offs are over", ended)


async def test_a_move_a_split_and_a_merge_list_nothing(running):
    coordinator = RayCoordinatorHandle()
    done = (await coordinator.status()).handoffs_total.get("done", 0)
    old = await running.shard_of(PODS)
    new = next(shard.shard for shard in (await coordinator.status()).shards if shard.shard != old)
    for order, parts in (
        (Move(PODS, new), {(PODS, new): 0}),
        (Split(target=PODS, ranges=2), None),
        (Split(target=PODS, merge=True), None),
    ):
        assert await coordinator.order(order)
        done += 1
        await over(coordinator, done)
        held = await lists(running)
        assert set(held.values()) == {0}, "received, not listed"
        assert parts is None or held == parts
        assert await running.equal()
    status = await coordinator.status()
    assert all(one.ended == "done" for one in status.finished_handoffs[:3])


async def test_what_is_wrong_with_an_order_crosses_processes(running):
    with pytest.raises(NotFound, match="there is no shard shard-77"):
        await RayCoordinatorHandle().order(Move(PODS, ShardId("shard-77")))
