"""The coordinator as a whole, in virtual time: an API server's discovery and shards, both in memory."""

import asyncio

import msgspec
import pytest
from support.clock import run_virtual
from support.coordinating import api_server, check_served, now, routed, running, synced
from support.shards import MemoryProvider

from shoal.coordinator.coordinator import Coordinator
from shoal.coordinator.handle import CoordinatorPermits, LocalCoordinatorHandle
from shoal.coordinator.settings import CoordinatorSettings, FollowSettings, PermitSettings, PlacementSettings
from shoal.shards.model.errors import NotReady, TimedOut
from shoal.shards.model.partitions import Epoch, PartitionId, ShardId


def test_everything_is_followed_within_seconds():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider) as coordinator:
            table = await coordinator.routes(Epoch(0), 30)
            assert now() < 1
            assert table.epoch == 1
            assert len(table.routes) == 8
            assert set(table.shards) == {"shard-0", "shard-1", "shard-2"} == set(routed(table).values())
            assert dict(table.excluded)["v1/secrets"].startswith("Secrets are left out")
            assert table.server_version == b'{"gitVersion":"v1.36.2"}'
            await synced(coordinator)
            assert now() < 5
            check_served(coordinator, provider)
            status = coordinator.status()
            assert [shard.state for shard in status.shards] == ["healthy"] * 3
            assert status.waiting_for == ()
            assert status.discovery.form == "aggregated"
            assert any("-> shard-0" in line for line in status.plan)
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(status), type=type(status)) == status

    run_virtual(main())


def test_a_resource_that_comes_or_goes_is_noticed_within_five_seconds():
    async def main():
        api, provider = api_server(), MemoryProvider()
        async with running(api, provider) as coordinator:
            await synced(coordinator)
            table = await coordinator.routes(Epoch(0), 0)
            api.define("gadgets")
            since = now()
            table = await coordinator.routes(table.epoch, 30)
            assert "example.com/v1/gadgets" in routed(table)
            assert now() - since < 5
            await synced(coordinator)
            check_served(coordinator, provider)
            api.undefine("gadgets")
            for handle in provider.handles.values():  # what a reflector finds when its resource vanishes
                if "example.com/v1/gadgets" in handle.shard.held:
                    handle.shard.held["example.com/v1/gadgets"].gone = True
            since = now()
            table = await coordinator.routes(table.epoch, 30)
            assert "example.com/v1/gadgets" not in routed(table)
            assert now() - since <= 5
            await asyncio.sleep(5)
            assert provider.holders(PartitionId("example.com/v1/gadgets")) == []

    run_virtual(main())


def test_an_api_server_that_is_away_is_waited_for_and_the_status_says_so():
    async def main():
        api = api_server()
        api.away = True
        async with running(api) as coordinator:
            await asyncio.sleep(20)
            (waiting,) = coordinator.status().waiting_for
            assert waiting == (
                "what the API server serves cannot be learnt: https://server:6443: connection refused; "
                "trying again in 10 s"
            )
            assert (await coordinator.routes(Epoch(0), 1)).epoch == 0
            api.away = False
            await synced(coordinator)
            assert coordinator.status().discovery.waiting_for == ""
            api.away = True
            await asyncio.sleep(30)
            status = coordinator.status()
            assert status.synced, "what is followed goes on"
            assert "connection refused" in status.discovery.waiting_for

    run_virtual(main())


def test_a_shard_that_restarts_gets_its_partitions_again():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider) as coordinator:
            await synced(coordinator)
            before = routed(await coordinator.routes(Epoch(0), 0))
            provider.handles["shard-1"].shard.crash()
            await asyncio.sleep(1.5)
            assert not coordinator.status().synced
            assert any(line.startswith("pending: ") for line in coordinator.status().waiting_for)
            await synced(coordinator)
            check_served(coordinator, provider)
            assert routed(await coordinator.routes(Epoch(0), 0)) == before

    run_virtual(main())


@pytest.mark.parametrize("fault", ["away", "hangs"])
def test_a_shard_that_does_not_answer_loses_its_partitions_after_a_while(fault):
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider) as coordinator:
            await synced(coordinator)
            before = routed(await coordinator.routes(Epoch(0), 0))
            setattr(provider.handles["shard-1"], fault, True)
            await asyncio.sleep(8)
            states = {shard.shard: shard.state for shard in coordinator.status().shards}
            assert states == {"shard-0": "healthy", "shard-1": "suspect", "shard-2": "healthy"}
            assert routed(await coordinator.routes(Epoch(0), 0)) == before
            await asyncio.sleep(12)
            after = routed(await coordinator.routes(Epoch(0), 0))
            assert "shard-1" not in after.values()
            assert {p: s for p, s in after.items() if before[p] != "shard-1"} == {
                p: s for p, s in before.items() if s != "shard-1"
            }
            assert any(line.startswith("shard-1 is dead: ") for line in coordinator.status().waiting_for)
            setattr(provider.handles["shard-1"], fault, False)
            await synced(coordinator)
            await asyncio.sleep(10)
            check_served(coordinator, provider)

    run_virtual(main())


def test_a_slow_shard_delays_nobody():
    async def main():
        api, provider = api_server(), MemoryProvider()
        async with running(api, provider) as coordinator:
            await synced(coordinator)
            provider.handles["shard-0"].delay_s = 2.5
            epoch = (await coordinator.routes(Epoch(0), 0)).epoch
            for number in range(5):
                api.define(f"gadgets{number}")
                since = now()
                table = await coordinator.routes(epoch, 30)
                epoch = table.epoch
                assert f"example.com/v1/gadgets{number}" in routed(table)
                assert now() - since < 4
            assert coordinator.status().shards[0].state == "healthy", "slow is not dead"
            await synced(coordinator)
            check_served(coordinator, provider)

    run_virtual(main())


def test_shards_that_start_slowly_are_waited_for():
    async def main():
        provider = MemoryProvider()
        provider.starts_after_s = 20
        async with running(provider=provider) as coordinator:
            await asyncio.sleep(10)
            assert "waiting for shard-0, shard-1, shard-2 to start" in coordinator.status().waiting_for
            await synced(coordinator)
            assert set(routed(await coordinator.routes(Epoch(0), 0)).values()) == set(provider.handles)

    run_virtual(main())


def test_shards_that_cannot_start_are_reported():
    async def main():
        provider = MemoryProvider()
        provider.refuses = True
        async with running(provider=provider) as coordinator:
            await asyncio.sleep(70)
            waiting = coordinator.status().waiting_for
            assert "no shard is healthy" in waiting
            assert "shard-0 is dead: no room for another shard" in waiting
            provider.refuses = False
            await synced(coordinator)

    run_virtual(main())


def test_a_coordinator_that_comes_back_learns_from_the_shards():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider) as coordinator:
            await synced(coordinator)
            before = await coordinator.routes(Epoch(0), 0)
        listed = {shard: list(handle.shard.listed) for shard, handle in provider.handles.items()}
        async with running(provider=provider) as coordinator:
            await synced(coordinator)
            after = await coordinator.routes(Epoch(0), 0)
            assert routed(after) == routed(before)
            assert after.epoch > before.epoch
            assert {shard: list(handle.shard.listed) for shard, handle in provider.handles.items()} == listed

    run_virtual(main())


def test_a_router_never_waits_behind_an_epoch_of_a_forgotten_coordinator():
    async def main():
        async with running() as coordinator:
            await synced(coordinator)
            table = await coordinator.routes(Epoch(50), 10)
            assert table.epoch > 50
            assert now() < 10

    run_virtual(main())


def test_routes_wait_for_something_newer():
    async def main():
        async with running() as coordinator:
            await synced(coordinator)
            epoch = (await coordinator.routes(Epoch(0), 0)).epoch
            since = now()
            assert (await coordinator.routes(epoch, 7)).epoch == epoch
            assert now() - since == pytest.approx(7)

    run_virtual(main())


def test_resizing_adds_and_ends_shards():
    async def main():
        provider = MemoryProvider(objects={PartitionId("v1/pods"): 100, PartitionId("v1/leases"): 90})
        settings = CoordinatorSettings(placement=PlacementSettings(worth_weight=0, settle_s=2))
        async with running(provider=provider, shards=1, settings=settings) as coordinator:
            await synced(coordinator)
            coordinator.resize(3)
            await asyncio.sleep(60)
            await synced(coordinator)
            assert set(routed(await coordinator.routes(Epoch(0), 0)).values()) == {
                "shard-0",
                "shard-1",
                "shard-2",
            }
            coordinator.resize(2)
            await asyncio.sleep(30)
            (ended,) = provider.retired
            assert set(provider.handles) == {"shard-0", "shard-1", "shard-2"} - {ended}
            check_served(coordinator, provider)
            assert coordinator.status().synced

    run_virtual(main())


def test_what_was_shown_is_handed_over_before_a_move_is_published():
    """The shard that was left went on letting newer versions be shown, which nobody knew of afterwards."""

    async def main():
        provider = MemoryProvider()
        async with running(provider=provider, shards=3) as coordinator:
            before = routed(await coordinator.routes(Epoch(0), 30))
            await synced(coordinator)
            for handle in provider.handles.values():
                assert "hand_over" not in handle.calls
            coordinator.resize(2)
            await asyncio.sleep(0.1)
            (leaving,) = (shard.shard for shard in coordinator.status().shards if shard.leaving)
            moving = {name for name, shard in before.items() if shard == leaving}
            assert moving
            hung = next(handle for shard, handle in provider.handles.items() if shard != leaving)
            hung.refuses.add("take_over")
            await asyncio.sleep(5)
            after = routed(coordinator._table)
            stays = {name for name in moving if PartitionId(name) in hung.shard.held}
            assert stays
            assert {name for name in moving if after[name] == leaving} == stays, "of these nobody knows yet"
            hung.refuses.clear()
            await asyncio.sleep(15)
            after = routed(coordinator._table)
            assert all(after[name] != leaving for name in moving)
            for name in moving:
                shown = provider.handles[after[name]].taken_over[name].shown
                assert shown == 2000, "what the one that was left let be shown"

    run_virtual(main())


def test_namespaces_are_carved_out():
    async def main():
        provider = MemoryProvider()
        follow = FollowSettings(carve={"pods": ("big", "huge"), "nodes": ("x",), "podz": ("y",)})
        async with running(provider=provider, settings=CoordinatorSettings(follow=follow)) as coordinator:
            await synced(coordinator)
            partitions = [partition.partition for partition in coordinator.status().partitions]
            assert {"v1/pods[big]", "v1/pods[huge]", "v1/pods[!big,huge]"} <= set(partitions)
            assert coordinator.status().warnings == (
                "follow.carve['nodes']: v1/nodes has no namespaces, so it stays whole",
                "follow.carve['podz'] matches no resource that is followed",
            )

    run_virtual(main())


def test_what_is_refused_is_said():
    async def main():
        provider = MemoryProvider()
        async with running(provider=provider) as coordinator:
            await synced(coordinator)
            for handle in provider.handles.values():
                handle.shard.refused.add(PartitionId("v1/nodes"))
            await asyncio.sleep(3)
            assert "v1/nodes is refused: forbidden" in coordinator.status().waiting_for

    run_virtual(main())


def test_stopping_leaves_nothing_running_and_shards_as_they_are():
    async def main():
        api, provider = api_server(), MemoryProvider()
        async with running(api, provider) as coordinator:
            await synced(coordinator)
            provider.handles["shard-0"].hangs = True
            await asyncio.sleep(1.2)
        assert api.closed
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        assert all(handle.shard.held for handle in provider.handles.values())
        await coordinator.stop()

    run_virtual(main())


def test_no_shards_is_an_error():
    with pytest.raises(ValueError, match="at least one shard"):
        Coordinator(
            connection=api_server(), provider=MemoryProvider(), settings=CoordinatorSettings(), shard_count=0
        )


# -- the handle
# -----------------------------------------------------------------------------------------------


def test_the_local_handle_passes_everything_on():
    async def main():
        settings = CoordinatorSettings(permits=PermitSettings(lists_at_once=1))
        async with running(settings=settings) as coordinator:
            handle = LocalCoordinatorHandle(coordinator)
            table = await handle.routes(Epoch(0), 5)
            assert (await handle.status()).epoch == table.epoch
            lease = await handle.acquire_permit(ShardId("shard-0"), PartitionId("v1/pods"))
            with pytest.raises(TimedOut):
                await handle.acquire_permit(ShardId("shard-0"), PartitionId("v1/nodes"), 1)
            await handle.release_permit(lease)
            await handle.acquire_permit(ShardId("shard-0"), PartitionId("v1/nodes"), 1)
            assert (await handle.status()).permits.held == 1
            await handle.stop()

    run_virtual(main())


def test_permits_of_a_shard_that_died_are_free_again():
    async def main():
        provider = MemoryProvider()
        settings = CoordinatorSettings(permits=PermitSettings(lists_at_once=1))
        async with running(provider=provider, settings=settings) as coordinator:
            await synced(coordinator)
            await coordinator.permits.acquire(ShardId("shard-1"), PartitionId("v1/pods"))
            provider.handles["shard-1"].shard.crash()
            since = now()
            await coordinator.permits.acquire(ShardId("shard-0"), PartitionId("v1/nodes"))
            assert now() - since < 3

    run_virtual(main())


def test_a_shards_permits_wait_as_long_as_others_list_and_are_given_back():
    async def main():
        settings = CoordinatorSettings(permits=PermitSettings(lists_at_once=1))
        async with running(settings=settings) as coordinator:
            handle = LocalCoordinatorHandle(coordinator)
            permits = CoordinatorPermits(handle, ShardId("shard-0"), call_timeout_s=5)
            order = []

            async def lists(partition):
                async with permits.permit(PartitionId(partition)):
                    order.append(partition)
                    await asyncio.sleep(12)

            async with asyncio.TaskGroup() as tasks:
                for partition in ("a", "b", "c"):
                    tasks.create_task(lists(partition))
            assert order == ["a", "b", "c"]
            assert coordinator.permits.status().held == 0
            assert coordinator.permits.status().granted_total == 3

    run_virtual(main())


def test_lists_go_on_without_a_permit_when_the_coordinator_stays_away():
    class Away:
        async def acquire_permit(self, *_):
            raise NotReady("no coordinator is running")

    async def main():
        permits = CoordinatorPermits(Away(), ShardId("shard-0"), away_max_s=30)
        async with permits.permit(PartitionId("v1/pods")):
            assert now() == pytest.approx(30)

    run_virtual(main())
