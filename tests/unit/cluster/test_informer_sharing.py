"""What users of one informer can do to each other, and what is left of it after its end."""

import asyncio
import copy
import threading

import pytest
from support.informing import Remembering, World, in_world

from shoal.cluster.informers.errors import InformerClosed, UnknownResource
from shoal.cluster.informers.narrowing import Narrowing
from shoal.cluster.informers.settings import InformerSettings
from shoal.cluster.observability.observed import look
from shoal.shards.model.errors import BadRequest

NOWHERE = "example.com/v1/widgets"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("b=1,a=2", "a=2,b=1"),
        ("a==1", "a=1"),
        ("a in (1)", "a=1"),
        ("a notin (x)", "a!=x"),
        ("a in (y,x)", "a in (x,y)"),
        ("a=1,a==1", "a=1"),
        ("!a ,b", "b,!a"),
        ("a in (,x)", "a in (x,)"),
        ("a in (in)", "a in (in)"),
    ],
)
def test_selectors_that_say_the_same_are_the_same(one, other):
    assert Narrowing.parse(one) == Narrowing.parse(other)
    assert Narrowing.parse(Narrowing.parse(one).labels) == Narrowing.parse(one)


def test_field_selectors_that_say_the_same_are_the_same():
    one = Narrowing.parse("", "spec.nodeName=a,metadata.name!=b")
    assert one == Narrowing.parse("", "metadata.name!=b,spec.nodeName==a")
    assert one != Narrowing.parse("", "metadata.name=b,spec.nodeName==a")


def test_an_informer_that_was_closed_is_not_in_use_any_more():
    async def main(world):
        for _ in range(3):
            informer = world.factory.informer("configmaps")
            await informer.synced()
            await informer.aclose()
        assert world.factory.informers == ()
        assert look(world.factory).problems == ()
        assert informer.state == "closed"
        other = world.factory.informer("configmaps")
        await other.synced()
        assert other.state == "synced"
        await world.factory.aclose()
        assert other.release() is None

    in_world(main)


def test_what_waits_for_discovery_hears_that_the_factory_was_closed():
    async def main(world):
        world.fault("slow", seconds=5, count=None)
        resolving = asyncio.create_task(world.factory.resolve("v1/pods"))
        await asyncio.sleep(1)
        await world.factory.aclose()
        with pytest.raises(InformerClosed):
            await resolving
        with pytest.raises(InformerClosed):
            await world.factory.resolve("v1/pods")
        with pytest.raises(InformerClosed):
            await world.factory.start()

    in_world(main)


def test_an_iterator_of_resources_ends_with_its_factory():
    async def main(world):
        async def count():
            return [event async for event in world.factory.discovered("apps")]

        counting = asyncio.create_task(count())
        await asyncio.sleep(1)
        await world.factory.aclose()
        async with asyncio.timeout(1):
            assert len(await counting) == 5
        with pytest.raises(InformerClosed):
            await count()

    in_world(main)


def test_a_field_that_the_server_does_not_select_by_is_an_error_to_who_waits():
    async def main(world):
        informer = world.factory.informer("configmaps", field_selector="spec.color=red")
        registration = informer.add_handler(Remembering())
        async with asyncio.timeout(10):
            with pytest.raises(BadRequest, match='"spec.color" is not a known field selector'):
                await informer.synced()
            with pytest.raises(BadRequest, match="spec.color"):
                await registration.synced()
        assert informer.state == "refused"
        assert "spec.color" in informer.status.message

    in_world(main)


@pytest.mark.parametrize("namespace", ["BAD_ns", "a.b", "-a", "a" * 64, " a", 5])
def test_what_cannot_be_a_namespace_is_an_error_at_once(namespace):
    async def main(world):
        with pytest.raises((ValueError, TypeError), match="is no namespace"):
            world.factory.informer("configmaps", namespace=namespace)

    in_world(main)


@pytest.mark.parametrize("name", ["label_selector", "field_selector", "shard_selector"])
@pytest.mark.parametrize("selector", [None, {}, 5, b"a=b"])
def test_a_selector_that_is_no_text_is_an_error_at_once(name, selector):
    async def main(world):
        with pytest.raises(TypeError, match=f"{name} is .*expected a text"):
            world.factory.informer("configmaps", **{name: selector})

    in_world(main)


def test_a_failure_that_is_raised_often_does_not_grow():
    async def main(world):
        informer = world.factory.informer(NOWHERE)
        registration = informer.add_handler(Remembering())
        errors = []
        for wait in (informer.synced, informer.resolved, registration.synced) * 5:
            with pytest.raises(UnknownResource) as caught:
                await wait()
            errors.append(caught.value)
        assert len({id(error) for error in errors}) == len(errors)
        assert all(str(error) == str(errors[0]) and error.close == errors[0].close for error in errors)
        assert copy.copy(errors[0]).__traceback__ is None

    in_world(main)


def test_a_factory_of_another_event_loop_says_so():
    world = World()

    async def first():
        informer = world.factory.informer("configmaps")
        await informer.synced()
        await informer.release()

    async def second():
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            world.factory.informer("configmaps")
        assert world.factory.informers == ()

    asyncio.run(first())
    asyncio.run(second())


def test_a_factory_whose_event_loop_is_over_can_be_closed_on_another():
    world = World()

    async def first():
        informer = world.factory.informer("configmaps")
        informer.add_handler(Remembering())
        await informer.synced()

    asyncio.run(first())
    asyncio.run(world.factory.aclose())
    assert world.factory.closed
    assert world.factory.informers == ()


def test_a_factory_is_closed_on_the_event_loop_that_runs_it():
    world = World()

    async def main():
        informer = world.factory.informer("configmaps")
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            await asyncio.to_thread(asyncio.run, world.factory.aclose())
        assert not world.factory.closed
        await informer.synced()
        await world.factory.aclose()

    asyncio.run(main())


async def test_what_is_held_can_be_read_from_any_thread_while_it_changes():
    world, errors, stop = World(InformerSettings()), [], threading.Event()
    async with world.factory as factory:
        informer = factory.informer("configmaps")
        informer.add_index("app", lambda obj: [obj.labels.get("app", "-")])
        handled = Remembering()
        informer.add_handler(handled)
        await informer.synced()
        lister, threads = informer.lister, []

        def read():
            # Seen from a thread, too, one state at a time.
            assert threading.current_thread() is not threading.main_thread()
            try:
                while not stop.is_set():
                    keys = [obj.key for obj in lister.list()]
                    assert keys == sorted(keys)
                    assert all(obj.labels["app"] == "a" for obj in lister.list(label_selector="app=a"))
                    assert lister.count() >= 0
                    assert all(obj is not None for obj in lister.by_index("app", "a"))
                    threads.append(len(lister))
            except BaseException as error:  # noqa: BLE001 - told to the test
                errors.append(error)

        reading = asyncio.gather(*(asyncio.to_thread(read) for _ in range(3)))
        for number in range(300):
            world.create(f"a{number % 100:03}-{number}", labels={"app": "ab"[number % 2]})
            await asyncio.sleep(0)
            if number % 3:
                world.delete(f"a{number % 100:03}-{number}")
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while len(threads) < 10 and not errors:
                await asyncio.sleep(0.01)
            stop.set()
            await reading
        assert errors == []
        async with asyncio.timeout(30):
            while handled.state != world.state():
                await asyncio.sleep(0.01)
        assert [obj.key for obj in lister.list()] == sorted(world.state())


async def test_what_is_held_is_read_by_the_loop_for_another_thread():
    world = World()
    async with world.factory as factory:
        informer = factory.informer("configmaps")
        await informer.synced()
        seen = []
        informer.lister._store = lambda store=informer.lister._store: (
            seen.append(threading.get_ident()),
            store(),
        )[1]
        await asyncio.to_thread(informer.lister.list)
        assert seen == [threading.get_ident()]
        await informer.aclose()
    # Nothing changes any more.
    assert await asyncio.to_thread(informer.lister.count) == 0


async def test_a_thread_that_the_loop_waits_for_can_read():
    world = World()
    world.create("a")
    async with world.factory as factory:
        informer = factory.informer("configmaps")
        await informer.synced()
        found = []
        thread = threading.Thread(target=lambda: found.append(informer.lister.count()))
        thread.start()
        thread.join(30)
        assert found == [1]


def test_a_lister_can_be_read_from_a_thread_after_its_loop_has_ended():
    world = World()

    async def main():
        world.create("a")
        async with world.factory as factory:
            informer = factory.informer("configmaps")
            await informer.synced()
            return informer

    informer = asyncio.run(main())
    assert [obj.name for obj in informer.lister.list()] == ["a"]
