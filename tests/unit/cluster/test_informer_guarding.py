"""What a program's own functions do to an informer that calls them: nothing, whatever they raise, end or close."""

import asyncio
import threading
from contextvars import Context, ContextVar

import pytest
from support.asgi_connection import AsgiConnection
from support.informing import Remembering, World, in_world

from shoal.cluster.client.blocking import BlockingClient
from shoal.cluster.client.connect import Client
from shoal.cluster.client.portal import Portal
from shoal.cluster.informers.errors import InformerClosed
from shoal.cluster.informers.raising import LOGGED_MAX
from shoal.cluster.informers.settings import InformerSettings
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings


def messages(caplog, text):
    return [record for record in caplog.records if record.message == text]


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, BaseException, StopIteration])
@pytest.mark.parametrize("plain", [True, False])
def test_whatever_a_handler_raises_the_next_change_is_delivered(error, plain):
    async def main(world):
        told = []

        def raises(obj, is_initial):
            told.append(obj.name)
            if obj.name == "a":
                raise error

        async def raises_later(obj, is_initial):
            await asyncio.sleep(0)
            raises(obj, is_initial)

        informer = world.factory.informer("configmaps")
        registration = informer.add_handler(on_add=raises if plain else raises_later)
        await informer.synced()
        world.create("a")
        world.create("b")
        await asyncio.sleep(1)
        assert told == ["a", "b"]
        assert registration.statistics.failed == 1
        assert informer.state == "synced"

    in_world(main)


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_whatever_a_handler_raises_in_its_thread_the_next_change_is_delivered(error):
    world, told = World(), []
    world.create("a")
    world.create("b")

    def raises(obj, is_initial):
        told.append(obj.name)
        if obj.name == "a":
            raise error

    async with world.factory as factory:
        informer = factory.informer("configmaps")
        registration = informer.add_handler(on_add=raises, thread=True)
        async with asyncio.timeout(10):
            await registration.synced()
        assert told == ["a", "b"]
        assert registration.statistics.failed == 1


def test_a_handler_that_wants_the_program_to_end_on_the_loop_of_the_main_thread_ends_it():
    async def main(world):
        def leaves(obj, is_initial):
            raise SystemExit(3)

        world.create("a")
        informer = world.factory.informer("configmaps")
        informer.add_handler(on_add=leaves)
        await asyncio.sleep(10)

    with pytest.raises(SystemExit):
        in_world(main)


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit, BaseException])
def test_whatever_an_index_function_or_a_transform_raises_the_informer_goes_on(error):
    def raises(_):
        raise error

    async def main(world):
        informer = world.factory.informer("configmaps", transform=raises)
        informer.add_index("broken", raises)
        handler = Remembering()
        informer.add_handler(handler)
        await informer.synced()
        world.create("a")
        world.create("b")
        await asyncio.sleep(1)
        assert handler.state == world.state()
        assert (informer.status.transform_failures, informer.status.index_failures) == (2, 2)
        assert informer.state == "synced"

    in_world(main)


def test_transforms_and_index_functions_that_always_fail_do_not_fill_the_log(caplog):
    def raises(_):
        raise KeyError("x")

    async def main(world):
        for number in range(3 * LOGGED_MAX):
            world.create(f"a{number}")
        informer = world.factory.informer("configmaps", transform=raises)
        informer.add_index("broken", raises)
        await informer.synced()
        assert len(messages(caplog, "transform failed")) == LOGGED_MAX
        assert len(messages(caplog, "index function failed")) == LOGGED_MAX
        await asyncio.sleep(20)
        world.create("b")
        await asyncio.sleep(1)
        assert messages(caplog, "transform failed")[-1].unlogged == 2 * LOGGED_MAX
        assert messages(caplog, "index function failed")[-1].unlogged == 2 * LOGGED_MAX
        assert informer.status.transform_failures == 3 * LOGGED_MAX + 1

    in_world(main)


def test_coroutine_functions_are_no_transforms_and_no_index_functions():
    async def later(obj):
        return obj

    class Callable:
        async def __call__(self, obj):
            return obj

    class Bytes:
        async def reshape(self, body):
            return body

    async def main(world):
        for transform in (later, Callable(), Bytes()):
            with pytest.raises(TypeError, match="coroutine function"):
                world.factory.informer("configmaps", transform=transform)
        assert world.factory.informers == ()
        informer = world.factory.informer("configmaps")
        for function in (later, Callable()):
            with pytest.raises(TypeError, match="coroutine function"):
                informer.add_index("later", function)

    in_world(main)


def test_a_handler_whose_delivery_ends_by_itself_is_told_of(caplog):
    async def main(world):
        world.create("a")
        informer = world.factory.informer("configmaps")
        registration = informer.add_handler(on_add=lambda obj, is_initial: None, name="ending")
        await registration.synced()
        (task,) = [one for one in asyncio.all_tasks() if one.get_name().startswith("handler ending")]
        task.cancel()
        await asyncio.sleep(1)
        (record,) = messages(caplog, "handler ended although it was not removed")
        assert record.handler == "ending"
        assert informer.state == "failed"
        assert "handler ending" in informer.status.message
        await registration.remove()
        assert informer.state == "synced"

    in_world(main)


def test_an_informer_whose_work_ends_by_itself_is_told_of(caplog):
    async def main(world):
        informer = world.factory.informer("configmaps")
        registration = informer.add_handler(on_add=print)
        await asyncio.sleep(0)
        (task,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("informer ")]
        task.cancel()
        with pytest.raises(InformerClosed, match="ended although it was not closed"):
            await informer.synced()
        with pytest.raises(InformerClosed, match="ended although it was not closed"):
            await registration.synced()
        assert messages(caplog, "informer ended although it was not closed")
        assert informer.state == "failed"

    in_world(main)


# -- closing from inside ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["task", "gather", "thread-like task", "returned task"])
@pytest.mark.parametrize("what", ["remove", "release", "aclose", "factory"])
def test_a_handler_may_end_itself_whichever_way_it_takes(what, how):
    async def main(world):
        world.create("a")
        informer = world.factory.informer("configmaps")
        took = []

        async def ends():
            match what:
                case "remove":
                    await registration.remove()
                case "release":
                    await informer.release()
                case "aclose":
                    await informer.aclose()
                case _:
                    await world.factory.aclose()

        async def within(obj, is_initial):
            loop = asyncio.get_running_loop()
            began = loop.time()
            match how:
                case "task":
                    await asyncio.create_task(ends())
                case "gather":
                    await asyncio.gather(ends(), asyncio.sleep(0))
                case _:
                    await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(ends())), 60)
            took.append(loop.time() - began)

        handler = within
        if how == "returned task":

            def handler(obj, is_initial):
                return asyncio.create_task(within(obj, is_initial))

        registration = informer.add_handler(on_add=handler)
        await asyncio.sleep(30)
        assert took == [pytest.approx(0, abs=0.1)]

    in_world(main)


def test_who_removes_a_handler_from_a_task_that_it_left_behind_still_waits_for_its_call():
    async def main(world):
        informer = world.factory.informer("configmaps")
        ended, tasks = [], []

        async def later():
            await asyncio.sleep(1)
            await registration.remove()
            ended.append("removed")

        async def handler(obj, is_initial):
            if not tasks:
                tasks.append(asyncio.create_task(later()))
                return
            await asyncio.sleep(3)
            ended.append(obj.name)

        registration = informer.add_handler(on_add=handler)
        await informer.synced()
        world.create("a")
        world.create("b")
        await asyncio.sleep(10)
        assert ended == ["b", "removed"]

    in_world(main)


async def test_a_handler_in_a_thread_may_have_itself_removed():
    world = World(InformerSettings(drain_s=60))
    world.create("a")
    loop, removed = asyncio.get_running_loop(), threading.Event()
    async with world.factory as factory:
        informer = factory.informer("configmaps")

        def handler(obj, is_initial):
            future = asyncio.run_coroutine_threadsafe(registration.remove(), loop)
            future.result(10)
            removed.set()

        registration = informer.add_handler(on_add=handler, thread=True)
        assert await asyncio.to_thread(removed.wait, 20)


def test_what_a_handler_adds_is_not_taken_for_the_handler():
    async def main(world):
        world.create("a")
        informer = world.factory.informer("configmaps")
        inner, ended = [], []

        async def slow(obj, is_initial):
            await asyncio.sleep(2)
            ended.append("slow")

        async def outer(obj, is_initial):
            inner.append(informer.add_handler(on_add=slow))
            await asyncio.sleep(1)
            await inner[0].remove()
            ended.append("removed")

        informer.add_handler(on_add=outer)
        await asyncio.sleep(10)
        assert ended == ["slow", "removed"]

    in_world(main)


def test_a_closing_outside_of_any_call_is_not_taken_for_the_handlers():
    async def main(world):
        world.create("a")
        informer = world.factory.informer("configmaps")
        ended = []

        async def slow(obj, is_initial):
            await asyncio.sleep(2)
            ended.append("slow")

        registration = informer.add_handler(on_add=slow)
        await asyncio.sleep(1)
        await asyncio.get_running_loop().create_task(registration.remove(), context=Context())
        assert ended == ["slow"]

    in_world(main)


def test_a_portal_is_closed_and_called_in_the_context_of_who_does_it():
    seen, caller = [], ContextVar("caller", default="nobody")

    async def look():
        seen.append(caller.get())

    portal = Portal("a portal")
    portal.closes(look, 60.0)
    caller.set("a handler")
    portal.run(look)
    portal.close()
    assert seen == ["a handler", "a handler"]


@pytest.mark.parametrize("what", ["remove", "release", "close"])
def test_a_handler_of_a_blocking_client_may_end_itself(what):
    ended, ready, app = threading.Event(), threading.Event(), build_app(SimulatorSettings(seed=1))
    settings = InformerSettings(drain_s=60)
    client = BlockingClient(lambda: Client(AsgiConnection(app), where="here", informers=settings))
    informer = client.informer("v1/namespaces")

    def handler(obj, is_initial):
        ready.wait(10)
        {"remove": registration.remove, "release": informer.release, "close": client.close}[what]()
        ended.set()

    registration = informer.add_handler(on_add=handler)
    ready.set()
    assert ended.wait(20)
    client.close()
