"""Routes are followed, never go back, and survive a coordinator that is away."""

import asyncio

import pytest
from support.clock import run_virtual
from support.local_shards import PODS, FakeCoordinator, LocalInstallation

from shoal.cluster.query.routing import Routing
from shoal.coordinator.routes import RouteTable
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import Epoch


def table(epoch):
    return RouteTable(epoch=Epoch(epoch), catalogue=(PODS,))


def test_a_new_table_is_taken_as_soon_as_it_is_published():
    async def main():
        coordinator = FakeCoordinator()
        routing = Routing(coordinator)
        following = asyncio.create_task(routing.run())
        coordinator.publish(table(1))
        assert (await routing.published(1.0)).epoch == 1
        coordinator.publish(table(2))
        assert (await routing.refresh(Epoch(1), 1.0)).epoch == 2
        assert asyncio.get_running_loop().time() == 0.0
        assert routing.problem == ""
        following.cancel()

    run_virtual(main())


def test_an_older_table_is_ignored():
    async def main():
        routing = Routing(FakeCoordinator())
        assert routing.take(table(5))
        assert not routing.take(table(4))
        assert not routing.take(table(5))
        assert routing.table.epoch == 5

    run_virtual(main())


def test_the_table_stays_while_the_coordinator_is_away_and_it_is_asked_less_and_less():
    async def main():
        coordinator = FakeCoordinator()
        routing = Routing(coordinator)
        routing.take(table(3))
        coordinator.problem = NotReady("no coordinator is running")
        following = asyncio.create_task(routing.run())
        await asyncio.sleep(60)
        assert routing.table.epoch == 3
        assert routing.problem == "no coordinator is running"
        assert 10 <= coordinator.asked <= 20
        coordinator.problem = None
        coordinator.publish(table(4))
        await asyncio.sleep(5)
        assert routing.table.epoch == 4
        assert routing.problem == ""
        following.cancel()

    run_virtual(main())


def test_a_refresh_wakes_routing_that_waits_for_the_coordinator():
    async def main():
        coordinator = FakeCoordinator()
        coordinator.problem = NotReady("away")
        routing = Routing(coordinator)
        following = asyncio.create_task(routing.run())
        await asyncio.sleep(30)
        coordinator.problem = None
        coordinator.publish(table(1))
        before = asyncio.get_running_loop().time()
        assert (await routing.refresh(Epoch(0), 1.0)).epoch == 1
        assert asyncio.get_running_loop().time() - before < 0.1
        following.cancel()

    run_virtual(main())


def test_a_refresh_that_brings_nothing_ends_at_its_deadline_with_what_there_is():
    async def main():
        routing = Routing(FakeCoordinator())
        routing.take(table(2))
        assert (await routing.refresh(Epoch(2), 1.5)).epoch == 2
        assert asyncio.get_running_loop().time() == pytest.approx(1.5)

    run_virtual(main())


def test_no_routes_at_all_is_not_ready():
    async def main():
        with pytest.raises(NotReady, match="not published routes yet"):
            await Routing(FakeCoordinator()).published(1.0)

    run_virtual(main())


def test_a_coordinator_that_hangs_is_given_up():
    class Hanging(FakeCoordinator):
        async def routes(self, after, timeout_s):
            self.asked += 1
            await asyncio.Event().wait()

    async def main():
        coordinator = Hanging()
        routing = Routing(coordinator, poll_s=30.0)
        following = asyncio.create_task(routing.run())
        await asyncio.sleep(100)
        assert coordinator.asked == 3
        assert routing.problem == "the coordinator does not answer"
        following.cancel()

    run_virtual(main())


def test_a_coordinator_that_answers_at_once_is_not_asked_in_a_tight_loop():
    class Hasty(FakeCoordinator):
        async def routes(self, after, timeout_s):
            self.asked += 1
            return self.table

    async def main():
        coordinator = Hasty()
        following = asyncio.create_task(Routing(coordinator).run())
        await asyncio.sleep(10)
        assert coordinator.asked <= 250
        following.cancel()

    run_virtual(main())


def test_the_index_finds_what_the_table_says():
    installation = LocalInstallation()
    installation.hold(PODS)
    installation.publish()
    index = installation.routing.index
    assert index.resource_type(PODS.resource) == PODS
    assert [route.shard for route in index.of(PODS.resource)] == ["shard-0"]
    assert index.route("v1/pods").shard == "shard-0"
    assert index.route("v1/nodes") is None
