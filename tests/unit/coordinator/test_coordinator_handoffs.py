"""Hand-offs, orders and surplus shards through the whole coordinator, in virtual time, over shards in memory."""

import asyncio

import msgspec
import pytest
from support.clock import run_virtual
from support.coordinating import api_server, check_served, now, routed, running, synced
from support.shards import MemoryProvider

from shoal.coordinator.commands import Drain, Move, Rebalance, Split
from shoal.coordinator.handle import LocalCoordinatorHandle
from shoal.coordinator.settings import CoordinatorSettings, PlacementSettings, ScalingSettings
from shoal.shards.model.errors import Broken, NotFound
from shoal.shards.model.partitions import Epoch, PartitionId, ShardId

PODS = PartitionId("v1/pods")


async def until(check, within_s=60):
    async with asyncio.timeout(within_s):
        while not check():
            await asyncio.sleep(0.05)


def owner(coordinator, partition=PODS):
    return routed(coordinator._table).get(partition)


def other(coordinator, partition=PODS):
    return next(s.shard for s in coordinator.status().shards if s.shard != owner(coordinator, partition))


def listed(provider):
    return {shard: list(handle.shard.listed) for shard, handle in provider.handles.items()}


def test_a_move_is_seen_under_way_and_when_it_is_over():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider) as coordinator:
            await synced(coordinator)
            before, old, new = listed(provider), owner(coordinator), other(coordinator)
            provider.handles[new].shard.transfer_s = 3
            handle = LocalCoordinatorHandle(coordinator)
            assert await handle.order(Move(PODS, new)) == (
                f"v1/pods moves from {old} to {new}, and is pinned there",
            )
            await asyncio.sleep(2)
            (under_way,) = (await handle.status()).handoffs
            assert under_way.what == f"v1/pods@{old} -> v1/pods@{new}"
            assert (under_way.state, under_way.reason) == ("receiving", "moved by hand")
            assert 1 < under_way.age_s <= 2
            await until(lambda: coordinator.status().finished_handoffs)
            status = coordinator.status()
            (ended,) = status.finished_handoffs
            assert (ended.ended, ended.objects, ended.bytes) == ("done", 10, 1000)
            assert ended.steps["receiving"] >= 3
            assert ended.steps["switching"] + ended.steps["taken"] < 0.1, (
                "nothing new is shown for a moment only"
            )
            assert status.handoffs_total == {"done": 1}
            assert status.by_hand == (f"v1/pods is pinned to {new}",)
            assert listed(provider) == before, "nothing was listed"
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(status), type=type(status)) == status
            await synced(coordinator)
            check_served(coordinator, provider)

    run_virtual(main())


def test_who_stands_still_is_published_past_at_once_also_while_another_shard_is_slow():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider, shards=3) as coordinator:
            await synced(coordinator)
            old, new = owner(coordinator), other(coordinator)
            third = next(handle for shard, handle in provider.handles.items() if shard not in (old, new))
            third.delay_s = 2.0
            coordinator.order(Move(PODS, new))
            await until(lambda: provider.handles[new].taken_over)
            since = now()
            await until(lambda: owner(coordinator) == new)
            assert now() - since < 1.0

    run_virtual(main())


def test_a_switch_that_hangs_holds_up_nothing_else():
    async def main():
        api, provider = api_server(), MemoryProvider()
        async with running(api, provider) as coordinator:
            await synced(coordinator)
            old, new = owner(coordinator), other(coordinator)
            hangs = asyncio.Event()

            async def take_over(_):
                await hangs.wait()

            provider.handles[new].take_over = take_over
            coordinator.order(Move(PODS, new))
            await until(lambda: any(one.state == "switching" for one in coordinator.status().handoffs))
            api.define("gadgets")
            since = now()
            await until(lambda: "example.com/v1/gadgets" in routed(coordinator._table))
            assert now() - since < 4
            assert owner(coordinator) == old
            await until(lambda: provider.handles[old].shard.held[PODS].frozen_at is None)
            (one,) = coordinator.status().handoffs
            assert one.why == "not handed over: no answer in time"
            del provider.handles[new].take_over
            await until(lambda: owner(coordinator) == new)

    run_virtual(main())


def test_a_split_and_a_merge_through_the_whole_coordinator():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider) as coordinator:
            await synced(coordinator)
            before = listed(provider)
            coordinator.order(Split(target="v1/pods", carve=("hot",), ranges=0))
            await until(lambda: "v1/pods[hot]" in routed(coordinator._table))
            await until(lambda: not coordinator.status().handoffs)
            await synced(coordinator)
            check_served(coordinator, provider)
            assert {p.partition for p in coordinator.status().partitions} >= {"v1/pods[hot]", "v1/pods[!hot]"}
            coordinator.order(Split(target="v1/pods", merge=True))
            await until(lambda: "v1/pods" in routed(coordinator._table))
            await until(lambda: not coordinator.status().handoffs)
            check_served(coordinator, provider)
            assert listed(provider) == before

    run_virtual(main())


def test_a_coordinator_that_dies_in_a_switch_leaves_nothing_standing_still():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider) as coordinator:
            await synced(coordinator)
            old, new = owner(coordinator), other(coordinator)
            provider.handles[new].take_over = lambda _: asyncio.Event().wait()
            coordinator.order(Move(PODS, new))
            await until(lambda: provider.handles[old].shard.held[PODS].frozen_at is not None)
        del provider.handles[new].take_over
        before = listed(provider)
        async with running(provider=provider) as coordinator:
            await synced(coordinator)
            await asyncio.sleep(10)
            check_served(coordinator, provider)
            for handle in provider.handles.values():
                assert all(held.frozen_at is None for held in handle.shard.held.values())
            assert listed(provider) == before

    run_virtual(main())


def test_shards_of_a_predecessor_that_had_more_are_emptied_and_ended():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider, shards=4) as coordinator:
            await synced(coordinator)
            table = await coordinator.routes(Epoch(0), 0)
            assert len(set(routed(table).values())) == 4
        before = listed(provider)
        async with running(provider=provider, shards=2) as coordinator:
            assert len(routed(await coordinator.routes(Epoch(0), 30))) == len(table.routes)
            await until(lambda: len(provider.retired) == 2)
            await synced(coordinator)
            check_served(coordinator, provider)
            assert {shard: few for shard, few in before.items() if shard in provider.handles} == listed(
                provider
            ), "what they had was handed over"

    run_virtual(main())


def test_as_many_shards_as_scaling_left_are_kept():
    async def main():
        settings = CoordinatorSettings(scaling=ScalingSettings(min_shards=1, max_shards=8))
        provider = MemoryProvider()
        for number in range(4):
            await provider.ensure(ShardId(f"shard-{number}"))
        async with running(provider=provider, shards=2, settings=settings) as coordinator:
            await synced(coordinator)
            assert [shard.shard for shard in coordinator.status().shards if not shard.leaving] == [
                f"shard-{number}" for number in range(4)
            ]

    run_virtual(main())


def test_a_provider_that_cannot_say_what_runs_is_asked_again():
    async def main():
        provider = MemoryProvider()
        for number in range(3):
            await provider.ensure(ShardId(f"shard-{number}"))
        answers = []
        existing = provider.existing

        async def unsure():
            answers.append(now())
            if len(answers) == 1:
                raise OSError("no answer")
            return await existing()

        provider.existing = unsure
        async with running(provider=provider, shards=2) as coordinator:
            await synced(coordinator)
            assert len(coordinator.status().shards) == 2, "it goes on without"
            await until(lambda: provider.retired == ["shard-2"], within_s=120)
            assert len(answers) == 2

    run_virtual(main())


def test_a_drained_shard_ends_and_another_takes_its_place():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider, shards=2) as coordinator:
            await synced(coordinator)
            before = listed(provider)["shard-0"]
            coordinator.order(Drain(ShardId("shard-1")))
            await until(lambda: provider.retired == ["shard-1"])
            await asyncio.sleep(10)
            await synced(coordinator)
            assert set(provider.handles) == {"shard-0", "shard-2"}
            assert listed(provider)["shard-0"] == before, "it received what the other had"
            assert coordinator.status().by_hand == (), "a shard of that name may come again"

    run_virtual(main())


def test_what_is_wrong_with_an_order_is_told_to_who_gave_it():
    async def main():
        async with running() as coordinator:
            await synced(coordinator)
            handle = LocalCoordinatorHandle(coordinator)
            with pytest.raises(NotFound, match="no shard shard-9"):
                await handle.order(Move(PODS, ShardId("shard-9")))
            assert await handle.order(Rebalance(dry_run=True))

    run_virtual(main())


def test_what_waits_says_why():
    async def main():
        settings = CoordinatorSettings(placement=PlacementSettings(moves_at_once=1))
        provider = MemoryProvider()
        async with running(provider=provider, settings=settings) as coordinator:
            await synced(coordinator)
            for handle in provider.handles.values():
                handle.shard.transfer_s = 5
            for name in (PODS, PartitionId("v1/nodes")):
                coordinator.order(Move(name, other(coordinator, name)))
            await asyncio.sleep(2)
            status = coordinator.status()
            assert len(status.handoffs) == 1
            assert any(
                "1 hand-offs are under way (placement.moves_at_once)" in why for why in status.postponed
            )
            moving = {partition.partition: partition.moving_to for partition in status.partitions}
            assert moving[PODS] is not None

    run_virtual(main())


def test_a_partition_that_no_shard_can_follow_keeps_no_other_from_being_followed():
    async def main():
        provider = MemoryProvider()
        for number in range(3):
            handle = await provider.ensure(ShardId(f"shard-{number}"))
            adopt = handle.adopt

            async def picky(assignments, epoch, sources=None, adopt=adopt):
                if any(assignment.partition.id == "v1/nodes" for assignment in assignments):
                    raise Broken("v1/nodes cannot be followed")
                await adopt(assignments, epoch, sources)

            handle.adopt = picky
        async with running(provider=provider) as coordinator:
            await coordinator.routes(Epoch(0), 30)
            await asyncio.sleep(10)
            states = {partition.partition: partition.state for partition in coordinator.status().partitions}
            assert states.pop(PartitionId("v1/nodes")) == "unserved"
            assert set(states.values()) == {"synced"}

    run_virtual(main())
