"""Users of one feed of whom some wait for a resource that does not exist, and some do not want to."""

import asyncio

import pytest
from support.informing import WIDGETS, Remembering, in_world

from shoal.cluster.informers.errors import UnknownResource

NOWHERE = "example.com/v1/widgets"


class Counting:
    """How often discovery was asked; its answers may be late."""

    def __init__(self, world, late_s=0):
        self._late_s = late_s
        self._discovery = world.factory._looks._discovery
        self._look, self.looks = self._discovery.look, 0
        self._discovery.look = self.look

    async def look(self):
        self.looks += 1
        found = await self._look()
        await asyncio.sleep(self._late_s)
        return found


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_who_does_not_want_to_wait_does_not_because_somebody_else_does(order):
    async def main(world):
        informers = {wait: world.factory.informer(NOWHERE, wait=wait) for wait in order}
        patient, impatient = informers[True], informers[False]
        handlers = {wait: Remembering() for wait in order}
        told = {wait: informers[wait].add_handler(handlers[wait]) for wait in order}
        assert len(world.factory.informers) == 1
        for wait in (impatient.synced, impatient.resolved, told[False].synced):
            with pytest.raises(UnknownResource, match="serves no resource 'example.com/v1/widgets'"):
                async with asyncio.timeout(10):
                    await wait()
        with pytest.raises(UnknownResource):
            await world.factory.start()
        with pytest.raises(UnknownResource):
            await world.factory.synced()
        assert not told[False].has_synced
        assert (patient.state, patient.failure, impatient.failure) == ("waiting", None, None)
        world.define_widgets()
        world.create("a", kind=WIDGETS)
        async with asyncio.timeout(90):
            await told[True].synced()
            await patient.synced()
        # Who asks again, and whose handlers are still there, is served as well.
        await told[False].synced()
        await impatient.synced()
        assert told[False].has_synced
        assert (await impatient.resolved()).resource == WIDGETS
        assert handlers[True].told == handlers[False].told == ["initial default/a"]

    in_world(main)


def test_a_resource_defined_a_moment_ago_is_known_although_somebody_has_waited_for_it_in_vain():
    async def main(world):
        patient = world.factory.informer(NOWHERE, wait=True)
        early = world.factory.informer(NOWHERE)
        with pytest.raises(UnknownResource):
            await early.synced()
        await asyncio.sleep(300)
        assert patient.state == "waiting"
        world.define_widgets()
        # The next look of whoever waits may be half a minute away.
        async with asyncio.timeout(5):
            late = world.factory.informer(NOWHERE)
            await late.add_handler(Remembering()).synced()
            await early.synced()
        await patient.synced()
        assert len(world.factory.informers) == 1

    in_world(main)


def test_who_asks_again_while_the_resource_is_listed_for_the_first_time_waits_for_the_list():
    async def main(world):
        informers = [world.factory.informer(NOWHERE, wait=wait) for wait in (True, False)]
        told = []

        async def slow(obj, is_initial):
            await asyncio.sleep(5)
            told.append(obj.name)

        registration = informers[1].add_handler(on_add=slow)
        with pytest.raises(UnknownResource):
            await registration.synced()
        resolving = asyncio.create_task(informers[0].resolved())
        await asyncio.sleep(1)
        world.fault("slow", seconds=20, resource="widgets.example.com", count=None)
        world.define_widgets()
        world.create("a", kind=WIDGETS)
        async with asyncio.timeout(10):
            await resolving
            await informers[1].resolved()
        assert informers[1].state == "listing"
        await informers[1].synced()
        assert not registration.has_synced
        await registration.synced()
        assert told == ["a"]

    in_world(main)


def test_who_is_about_to_hear_that_nothing_is_there_when_it_appears_waits_for_it():
    async def main(world):
        world.create("a")
        informer, told = world.factory.informer("configmaps"), []

        async def slow(obj, is_initial):
            await asyncio.sleep(5)
            told.append(obj.name)

        await informer.synced()
        registration = informer.add_handler(on_add=slow)
        waiting = asyncio.create_task(registration.synced())
        await asyncio.sleep(1)
        registration.fail(UnknownResource("not there"), for_now=True)
        registration.listed()
        await waiting
        assert told == ["a"]

    in_world(main)


def test_who_asks_while_a_look_is_under_way_is_not_answered_by_it():
    async def main(world):
        patient = world.factory.informer(NOWHERE, wait=True)
        early = world.factory.informer(NOWHERE)
        with pytest.raises(UnknownResource):
            await early.synced()
        Counting(world, late_s=5)
        asking = asyncio.create_task(early.synced())
        await asyncio.sleep(1)
        world.define_widgets()
        late = world.factory.informer(NOWHERE)
        async with asyncio.timeout(30):
            await late.synced()
            await asking
            await patient.synced()

    in_world(main)


def test_who_comes_to_a_resource_that_is_waited_for_hears_soon_that_it_is_not_there():
    async def main(world):
        world.factory.informer(NOWHERE, wait=True)
        await asyncio.sleep(300)
        counting = Counting(world)
        late = world.factory.informer(NOWHERE)
        registration = late.add_handler(Remembering())
        async with asyncio.timeout(1):
            for wait in (registration.synced, late.synced, late.resolved):
                with pytest.raises(UnknownResource):
                    await wait()
        assert counting.looks <= 4
        await asyncio.sleep(10)
        async with asyncio.timeout(1):
            with pytest.raises(UnknownResource):
                await late.add_handler(Remembering()).synced()

    in_world(main)


def test_discovery_that_fails_is_not_asked_at_once_again_by_who_does_not_want_to_wait():
    async def main(world):
        world.factory.informer(NOWHERE, wait=True)
        await asyncio.sleep(1)
        world.fault("drop", count=None)
        counting = Counting(world)
        for _ in range(100):
            impatient = world.factory.informer(NOWHERE)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await impatient.synced()
            impatient.release()
        assert counting.looks < 10

    in_world(main)


def test_when_nobody_waits_any_more_the_feed_ends_as_unknown():
    async def main(world):
        patient, impatient = world.factory.informer(NOWHERE, wait=True), world.factory.informer(NOWHERE)
        with pytest.raises(UnknownResource):
            await impatient.synced()
        await asyncio.sleep(300)
        patient.release()
        await asyncio.sleep(1)
        assert impatient.state == "unknown"
        assert isinstance(impatient.failure, UnknownResource)
        world.define_widgets()
        with pytest.raises(UnknownResource):
            await impatient.synced()
        other = world.factory.informer(NOWHERE)
        async with asyncio.timeout(10):
            await other.synced()
        assert other.lister is not impatient.lister

    in_world(main)


def test_a_resource_that_vanished_is_waited_for_by_everybody():
    async def main(world):
        world.define_widgets()
        impatient, patient = world.factory.informer(NOWHERE), world.factory.informer(NOWHERE, wait=True)
        await impatient.synced()
        world.forget_widgets()
        await asyncio.sleep(60)
        assert patient.state == impatient.state == "gone"
        await impatient.synced()
        world.define_widgets()
        world.create("a", kind=WIDGETS)
        await asyncio.sleep(60)
        assert len(impatient.lister) == 1

    in_world(main)
