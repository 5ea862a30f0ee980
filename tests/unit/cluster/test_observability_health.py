"""Health as values: what is ready, live, and wrong, of real informers and controllers of the embedded API server."""

import asyncio
import random

import msgspec
import pytest
from support.informing import CONFIG_MAPS, WIDGETS, World, in_world
from support.reconciles import Log, failing, running

from shoal.cluster.client.connect import Client
from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.leader import LeaderElector
from shoal.cluster.observability.health import HealthBounds
from shoal.cluster.simulator.settings import Rule, User


def observed(main, **server):
    async def run(world: World) -> None:
        async with Client(world.connection, where="here", rng=random.Random(1)) as client:
            await main(world, client)

    in_world(run, **server)


def lacking(health):
    return {check.name: check.problem for check in health.ready_checks if check.problem}


# -- informers -----------------------------------------------------------------------------------------------


def test_ready_once_everything_asked_for_is_there():
    async def main(world, client):
        assert client.health().ready, "nothing was asked for"
        maps, pods = client.informer(CONFIG_MAPS), client.informer("v1/pods", namespace="default")
        health = client.health()
        assert (health.ready, health.live) == (False, True)
        assert [check.name for check in health.ready_checks] == [
            "client",
            "informer/v1/configmaps",
            "informer/v1/pods in default",
        ]
        assert health.problems[0] == "informer v1/configmaps is not synced, but waiting: has not begun"
        await maps.synced()
        await pods.synced()
        health = client.health()
        assert (health.ready, health.live, health.problems) == (True, True, ())
        assert lacking(health) == {}
        await client.aclose()
        health = client.health()
        assert (health.ready, health.problems) == (False, ("client was closed",))

    observed(main)


def test_a_refused_informer_says_why():
    async def main(world, client):
        world.connection._token = "t"
        pods, maps = client.informer("v1/pods"), client.informer(CONFIG_MAPS)
        await pods.synced()
        await asyncio.sleep(60)
        health = client.health()
        assert (health.ready, health.live) == (False, True)
        assert set(lacking(health)) == {"informer/v1/configmaps"}
        assert health.problems == (f"informer v1/configmaps is refused: {maps.status.message}",)
        assert maps.status.message.startswith("403: ")

    observed(main, users=(User(name="nobody", token="t", rules=(Rule(resources=("pods",)),)),))


def test_a_resource_there_is_not_and_one_that_vanishes():
    async def main(world, client):
        informer = client.informer(WIDGETS)
        await asyncio.sleep(10)
        assert lacking(client.health())["informer/example.com/v1/widgets"].startswith(
            "has nothing to follow: "
        )
        await informer.release()
        world.define_widgets()
        informer = client.informer(WIDGETS, wait=True)
        await informer.synced()
        assert client.health().ready
        world.forget_widgets()
        await asyncio.sleep(60)
        health = client.health()
        assert health.ready, "nothing is all there is of it"
        assert health.problems[0].startswith(
            "informer example.com/v1/widgets has nothing to follow at the moment"
        )

    observed(main)


def test_old_state_is_a_problem_and_no_reason_to_stop():
    async def main(world, client):
        informer = client.informer(CONFIG_MAPS)
        await informer.synced()
        await asyncio.sleep(10)
        world.fault("status-503", count=None)
        world.fault("cut", immediate=True)
        await asyncio.sleep(45)
        assert client.health().problems == ()
        await asyncio.sleep(45)
        health = client.health()
        assert (health.ready, health.live) == (True, True)
        (problem,) = health.problems
        assert problem.startswith(
            "informer v1/configmaps is cut off (the server is currently unable to handle "
        )
        assert problem.endswith("): its state was proved to be the newest 100 s ago")
        world.app.faults.disarm()
        await asyncio.sleep(60)
        world.create("a")
        await asyncio.sleep(1)
        assert client.health().problems == ()
        await asyncio.sleep(600)
        age_s = informer.status.age_s
        assert age_s > 60
        health = client.health(bounds=HealthBounds(stale_s=age_s))
        problem = f"may be out of date: its state was proved to be the newest {age_s:.0f} s ago"
        assert health.problems == (f"informer v1/configmaps {problem}",)
        assert (health.ready, health.live) == (True, True)
        assert client.health(bounds=HealthBounds(stale_s=age_s + 1)).problems == ()

    observed(main)


def test_a_hung_handler_is_named_with_its_object():
    async def main(world, client):
        async def hangs(*_):
            await asyncio.sleep(1e5)

        world.create("a")
        informer = client.informer(CONFIG_MAPS)
        informer.add_handler(on_add=hangs, name="mirror")
        await informer.synced()
        await asyncio.sleep(20)
        assert client.health().problems == ()
        await asyncio.sleep(20)
        health = client.health()
        assert (health.ready, health.live) == (True, True)
        sentence = "handler mirror of informer v1/configmaps hangs: its call about default/a has been running for {} s"
        assert health.problems == (sentence.format(40),)
        await asyncio.sleep(600)
        health = client.health()
        assert (health.ready, health.live) == (True, False)
        assert health.problems == (sentence.format(640),)
        assert health.live_checks[1].problem == sentence.format(640)
        assert client.health(bounds=HealthBounds(hung_live_s=None)).live

    observed(main)


def test_a_handler_that_falls_behind():
    async def main(world, client):
        async def slow(*_):
            await asyncio.sleep(25)

        for number in range(5):
            world.create(f"a{number}")
        informer = client.informer(CONFIG_MAPS)
        informer.add_handler(on_add=slow, name="mirror", queue_max=2)
        await informer.synced()
        await asyncio.sleep(1)
        (problem,) = client.health().problems
        assert problem == (
            "handler mirror of informer v1/configmaps is too slow: 4 changes wait, and it is not told of every state"
        )

    observed(main)


# -- controllers ---------------------------------------------------------------------------------------------


def test_a_controller_is_ready_while_it_runs():
    async def main(world, client):
        informer = client.informer(CONFIG_MAPS)
        controller = Controller("demo", Log(), sources=[informer])
        health = client.health(controllers=[controller])
        assert lacking(health)["controller/demo"] == "does not run"
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(0)
        assert lacking(client.health(controllers=[controller]))["controller/demo"].startswith("is not synced")
        await asyncio.sleep(5)
        assert client.health(controllers=[controller]).ready
        controller.stop()
        await task
        assert client.health(controllers=[controller]).problems == ("controller demo does not run",)

    observed(main)


def test_a_candidate_that_waits_is_ready():
    async def main(world, client):
        informer = client.informer(CONFIG_MAPS)
        await informer.synced()

        def controller(identity):
            elector = LeaderElector(
                world.connection,
                namespace="default",
                name="demo",
                identity=identity,
                uniform=random.Random(identity).random,
            )
            return Controller(identity, Log(), sources=[informer], leader=elector)

        first, second = controller("first"), controller("second")
        async with running(first):
            await asyncio.sleep(5)
            async with running(second):
                await asyncio.sleep(5)
                assert (first.synced, second.synced) == (True, False)
                assert client.health(controllers=[first, second]).ready

    observed(main)


def test_items_that_were_given_up_and_reconciles_that_hang():
    async def main(world, client):
        for number in range(5):
            world.create(f"a{number}")
        informer = client.informer(CONFIG_MAPS)
        fails = Controller("fails", Log(failing(ValueError("no"))), sources=[informer], retries_max=0)
        hangs = Controller("hangs", Log(seconds=1e5), sources=[informer], workers=1, stop_grace_s=0)
        async with running(fails), running(hangs):
            await asyncio.sleep(100)
            health = client.health(controllers=[fails, hangs])
            assert (health.ready, health.live) == (True, True)
            assert health.problems == (
                "controller hangs hangs: its reconcile of default/a0 has been running for 100 s",
                "controller fails has given up default/a2 after 1 attempts (ValueError: no); default/a3 after 1 "
                "attempts (ValueError: no); default/a4 after 1 attempts (ValueError: no); and 2 more",
            )
            await asyncio.sleep(1000)
            assert not client.health(controllers=[fails, hangs]).live

    observed(main)


# -- values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"cut_off_s": 0}, {"stale_s": 0}, {"hung_live_s": -1.0}])
def test_bounds_that_cannot_be(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is {wrong[name]}: expected seconds, more than 0"):
        HealthBounds(**wrong)


def test_health_is_a_value():
    async def main(world, client):
        health = client.health()
        assert health == client.health()
        assert msgspec.json.decode(msgspec.json.encode(health))["ready"] is True
        with pytest.raises(AttributeError):
            health.ready = False

    observed(main)
