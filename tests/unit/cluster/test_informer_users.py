"""What each user of a feed has alone: references, handlers, and how often to resync."""

import asyncio

import pytest
from support.informing import Remembering, World, in_world

from shoal.cluster.informers.errors import InformerClosed
from shoal.cluster.informers.settings import InformerSettings
from shoal.cluster.observability.observed import look

# -- references ------------------------------------------------------------------------------------------------


def test_who_releases_twice_takes_nothing_from_others():
    async def main(world):
        first, second = world.factory.informer("configmaps"), world.factory.informer("configmaps")
        handler = Remembering()
        registration = second.add_handler(handler)
        await registration.synced()
        assert first.release() is None
        for _ in range(3):
            with pytest.raises(ValueError, match="released more often than it was asked for"):
                first.release()
            with pytest.raises(ValueError, match="released more often than it was asked for"):
                world.factory.release(first)
        assert second.status.users == 1
        world.create("a")
        await asyncio.sleep(1)
        assert handler.told == ["add default/a"]
        await second.release()
        assert world.factory.informers == ()

    in_world(main)


def test_a_release_removes_the_handlers_of_who_releases_and_no_others():
    async def main(world):
        first, second = world.factory.informer("configmaps"), world.factory.informer("configmaps")
        leaving, staying = Remembering(), Remembering()
        gone = first.add_handler(leaving, name="leaving")
        second.add_handler(staying, name="staying")
        await asyncio.gather(first.synced(), second.synced())
        world.create("a")
        await asyncio.sleep(1)
        await first.release()
        world.create("b")
        await asyncio.sleep(1)
        assert leaving.told == ["add default/a"]
        assert staying.told == ["add default/a", "add default/b"]
        assert [handler.name for handler in second.status.handlers] == ["staying"]
        assert gone.has_synced
        await gone.remove()

    in_world(main)


def test_what_was_pending_at_a_release_is_told():
    async def main(world):
        first, second = world.factory.informer("configmaps"), world.factory.informer("configmaps")
        told = []

        async def slow(obj, is_initial):
            await asyncio.sleep(1)
            told.append(obj.name)

        first.add_handler(on_add=slow)
        await second.synced()
        for name in "abc":
            world.create(name)
        await asyncio.sleep(0.5)
        ending = first.release()
        world.create("d")
        await ending
        assert told == ["a", "b", "c"]
        assert second.state == "synced"

    in_world(main, InformerSettings(drain_s=10))


def test_a_release_before_the_first_list_ends_its_handlers_too():
    async def main(world):
        world.fault("slow", seconds=5, count=None)
        first, second = world.factory.informer("configmaps"), world.factory.informer("configmaps")
        removed = first.add_handler(Remembering())
        waiting = [asyncio.create_task(wait()) for wait in (first.synced, first.resolved, removed.synced)]
        await asyncio.sleep(1)
        async with asyncio.timeout(1):
            await first.release()
            for task in waiting:
                with pytest.raises(InformerClosed, match=r"was released|was removed before it was synced"):
                    await task
        await second.synced()

    in_world(main)


def test_a_released_informer_says_so_and_can_still_be_read():
    async def main(world):
        world.create("a")
        first, second = world.factory.informer("configmaps"), world.factory.informer("configmaps")
        await first.synced()
        first.release()
        for use in (lambda: first.add_handler(on_add=print), lambda: first.add_index("x", lambda obj: [])):
            with pytest.raises(
                InformerClosed, match="configmaps was released: ask the factory for a new one"
            ):
                use()
        for wait in (first.synced, first.resolved):
            with pytest.raises(InformerClosed, match="was released"):
                await wait()
        assert (first.state, first.status.state, first.status.message) == ("closed", "closed", "was released")
        world.create("b")
        await asyncio.sleep(1)
        assert len(first.lister) == 2
        await second.release()
        world.create("c")
        assert [obj.name for obj in first.lister.list()] == ["a", "b"]

    in_world(main)


def test_closing_an_informer_is_releasing_it_and_waiting():
    async def main(world):
        first, second = world.factory.informer("configmaps"), world.factory.informer("configmaps")
        leaving, staying = Remembering(), Remembering()
        first.add_handler(leaving)
        second.add_handler(staying)
        await second.synced()
        await first.aclose()
        await first.aclose()
        with pytest.raises(ValueError, match="released more often"):
            first.release()
        world.create("a")
        await asyncio.sleep(1)
        assert (leaving.told, staying.told) == ([], ["add default/a"])
        assert (first.state, second.state) == ("closed", "synced")
        ending = second.release()
        await second.aclose()
        assert ending.done()
        assert world.factory.informers == ()

    in_world(main)


def test_a_handler_may_close_its_informer_while_that_is_being_closed():
    async def main(world):
        loop, took = asyncio.get_running_loop(), []
        informer, other = world.factory.informer("configmaps"), world.factory.informer("configmaps")

        async def closes(obj, is_initial):
            await asyncio.sleep(1)
            began = loop.time()
            await informer.aclose()
            took.append(loop.time() - began)

        informer.add_handler(on_add=closes)
        await other.synced()
        world.create("a")
        await asyncio.sleep(0.5)
        await informer.aclose()
        assert took == [0]

    in_world(main, InformerSettings(drain_s=60))


def test_who_gives_up_waiting_for_the_end_does_not_stop_it():
    async def main(world):
        ended = []

        async def slow(obj, is_initial):
            await asyncio.sleep(2)
            ended.append(obj.name)

        first, second = world.factory.informer("configmaps"), world.factory.informer("configmaps")
        first.add_handler(on_add=slow)
        await second.synced()
        world.create("a")
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first.aclose(), 0.1)
        await world.factory.aclose()
        assert ended == ["a"]

    in_world(main)


def test_a_closed_factory_has_nothing_left_to_be_released():
    async def main(world):
        informers = [world.factory.informer("configmaps") for _ in range(2)]
        informers[0].add_handler(Remembering())
        await world.factory.aclose()
        assert [informer.release() for informer in informers] == [None, None]
        with pytest.raises(ValueError, match="released more often"):
            informers[0].release()

    in_world(main)


def test_an_informer_released_where_no_loop_runs_is_still_in_use():
    world = World()

    async def main():
        informer = world.factory.informer("configmaps")
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(informer.release)
        assert informer.status.users == 1
        await informer.synced()
        await informer.release()
        await world.factory.aclose()

    asyncio.run(main())


def test_removed_handlers_are_forgotten():
    async def main(world):
        informer = world.factory.informer("configmaps")
        for _ in range(3):
            await informer.add_handler(Remembering()).remove()
        assert informer.registrations == ()

    in_world(main)


def test_health_sees_what_is_shared_once():
    async def main(world):
        informers = [world.factory.informer("configmaps", wait=number > 0) for number in range(3)]
        await informers[0].synced()
        checks = [check.name for check in look(world.factory).ready_checks]
        assert checks == ["client", "informer/configmaps"]
        assert world.factory.informers[0].status.users == 3

    in_world(main)


# -- how often to resync ---------------------------------------------------------------------------------------


def test_everybody_has_resync_periods_of_their_own():
    async def main(world):
        world.create("a")
        often, seldom, never = (world.factory.informer("configmaps", resync_s=s) for s in (10, 50, None))
        assert (often.resync_s, seldom.resync_s, never.resync_s) == (10, 50, None)
        handlers = [Remembering() for _ in range(4)]
        for informer, handler in zip((often, seldom, never), handlers, strict=False):
            informer.add_handler(handler)
        seldom.add_handler(handlers[3], resync_s=20)
        await never.synced()
        await asyncio.sleep(105)
        assert len(world.factory.informers) == 1
        assert [handler.told.count("again default/a") for handler in handlers] == [10, 2, 0, 5]

    in_world(main)
