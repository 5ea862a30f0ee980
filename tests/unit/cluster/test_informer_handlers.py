"""Handlers that are slow, raise, hang, block, go away: none of it concerns the others."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.informing import Remembering, World, in_world

from shoal.cluster.informers.errors import InformerClosed
from shoal.cluster.informers.handlers import EventHandler
from shoal.cluster.informers.raising import LOGGED_MAX
from shoal.cluster.informers.settings import InformerSettings

TESTS = str(Path(__file__).parents[2])


class Slow(Remembering):
    """Takes a second for each call."""

    async def on_add(self, obj, is_initial):
        super().on_add(obj, is_initial)
        await asyncio.sleep(1)

    async def on_update(self, old, new):
        super().on_update(old, new)
        await asyncio.sleep(1)

    async def on_delete(self, obj, last_state_known):
        super().on_delete(obj, last_state_known)
        await asyncio.sleep(1)


class Raising(EventHandler):
    def on_add(self, obj, is_initial):
        raise RuntimeError(f"will not have {obj.name}")

    async def on_update(self, old, new):
        raise asyncio.CancelledError


def test_a_slow_handler_holds_back_nobody_and_ends_in_the_state_there_is():
    async def main(world):
        informer = world.factory.informer("configmaps")
        fast, slow = Remembering(), Slow()
        informer.add_handler(fast)
        registration = informer.add_handler(slow, queue_max=3)
        await informer.synced()
        for number in range(20):
            world.create(f"a{number % 4}") if number < 4 else world.change(f"a{number % 4}", n=str(number))
            await asyncio.sleep(0.05)
        world.delete("a3")
        await asyncio.sleep(0.05)
        assert len(fast.told) == 21, "one that is fast has been told of everything by now"
        assert fast.state == world.state()
        statistics = registration.statistics
        assert statistics.merging
        assert statistics.queued <= 3 + 4
        assert statistics.lag_s > 0.5
        await asyncio.sleep(30)
        assert slow.state == world.state()
        statistics = registration.statistics
        assert statistics.coalesced > 5
        assert (statistics.queued, statistics.merging, statistics.lag_s) == (0, False, 0)
        assert len(slow.told) < 15

    in_world(main)


def test_a_handler_that_raises_is_logged_with_the_object_and_told_of_the_next_one(caplog):
    async def main(world):
        world.create("a")
        informer = world.factory.informer("configmaps")
        other = Remembering()
        informer.add_handler(other)
        raising = informer.add_handler(Raising(), name="raising")
        await raising.synced()
        world.change("a", n="1")
        world.create("b")
        await asyncio.sleep(1)
        statistics = raising.statistics
        assert (statistics.failed, statistics.adds, statistics.updates) == (3, 2, 1)
        assert other.state == world.state()
        records = [record for record in caplog.records if record.message == "handler raised"]
        assert [(record.handler, record.event, record.key) for record in records] == [
            ("raising", "add", "default/a"),
            ("raising", "update", "default/a"),
            ("raising", "add", "default/b"),
        ]
        assert "will not have a" in str(records[0].exc_info[1])
        for number in range(2 * LOGGED_MAX):
            world.create(f"c{number}")
        await asyncio.sleep(20)
        assert raising.statistics.failed == 3 + 2 * LOGGED_MAX
        world.create("d")
        await asyncio.sleep(1)
        records = [record for record in caplog.records if record.message == "handler raised"]
        assert len(records) == LOGGED_MAX + 1, "a handler that always fails does not fill the log"
        assert records[-1].unlogged == LOGGED_MAX + 3

    in_world(main)


def test_a_handler_that_hangs_is_reported_and_left_alone(caplog):
    async def main(world):
        informer = world.factory.informer("configmaps")
        release = asyncio.Event()

        async def hangs(obj, is_initial):
            if obj.name == "a":
                await release.wait()

        registration = informer.add_handler(on_add=hangs, name="hanging")
        other = Remembering()
        informer.add_handler(other)
        await informer.synced()
        world.create("a")
        world.create("b")
        await asyncio.sleep(29)
        assert registration.statistics.hung_s is None
        await asyncio.sleep(10)
        statistics = informer.status.handlers[0]
        assert statistics.hung_key == "default/a"
        assert statistics.hung_s == pytest.approx(39, abs=1)
        assert statistics.queued == 1
        assert other.state == world.state()
        (record,) = [record for record in caplog.records if record.message == "handler hangs"]
        assert (record.handler, record.key) == ("hanging", "default/a")
        release.set()
        await asyncio.sleep(1)
        statistics = registration.statistics
        assert (statistics.hung_s, statistics.adds, statistics.slow) == (None, 2, 1)
        assert any(record.message == "handler has returned" for record in caplog.records)

    in_world(main)


def test_removing_a_handler_ends_its_calls_and_nobody_elses():
    async def main(world):
        world.create("a")
        informer = world.factory.informer("configmaps")
        kept, removed = Remembering(), Slow()
        informer.add_handler(kept)
        registration = informer.add_handler(removed)
        await asyncio.sleep(0.5)
        waiting = asyncio.create_task(registration.synced())
        world.create("b")
        await registration.remove()
        with pytest.raises(InformerClosed, match="was removed before"):
            await waiting
        world.create("c")
        await asyncio.sleep(3)
        assert removed.told == ["initial default/a"]
        assert len(kept.told) == 3
        await registration.remove()

    in_world(main)


def test_a_handler_may_remove_itself_and_close_its_informer():
    async def main(world):
        informer = world.factory.informer("configmaps")
        told = []

        async def once(obj, is_initial):
            told.append(obj.name)
            await registration.remove()
            told.append("removed")

        async def closes(obj, is_initial):
            await informer.aclose()
            told.append("closed")

        registration = informer.add_handler(on_add=once)
        informer.add_handler(on_delete=closes)
        await informer.synced()
        world.create("a")
        world.create("b")
        await asyncio.sleep(1)
        assert told == ["a", "removed"]
        world.delete("a")
        await asyncio.sleep(10)
        assert told == ["a", "removed", "closed"]
        assert informer.status.state == "closed"
        with pytest.raises(InformerClosed):
            informer.add_handler(on_add=print)

    in_world(main)


def test_a_handler_that_cannot_be_cancelled_keeps_nobody_from_closing(caplog):
    async def main(world):
        world.create("a")
        informer = world.factory.informer("configmaps")
        release = asyncio.Event()

        async def stubborn(obj, is_initial):
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        informer.add_handler(on_add=stubborn, name="stubborn")
        await informer.synced()
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        await informer.aclose(2.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(2 + 5, abs=0.1)
        assert any(record.message == "handler cannot be cancelled" for record in caplog.records)
        release.set()
        await asyncio.sleep(1)

    in_world(main)


@pytest.mark.parametrize("how", ["waits", "returns", "plain", "from a task of its own"])
def test_a_handler_that_cancels_its_own_task_has_raised_and_is_told_of_the_next_one(how, caplog):
    async def main(world):
        world.create("a")
        world.create("b")
        told = []

        async def cancel(task):
            task.cancel()

        def plain(obj, is_initial):
            told.append(obj.name)
            if obj.name == "a":
                asyncio.current_task().cancel()

        async def asynchronous(obj, is_initial):
            if how == "from a task of its own" and obj.name == "a":
                told.append(obj.name)
                await asyncio.create_task(cancel(asyncio.current_task()))
            else:
                plain(obj, is_initial)
            if how != "returns":
                await asyncio.sleep(0.1)

        informer = world.factory.informer("configmaps")
        registration = informer.add_handler(on_add=plain if how == "plain" else asynchronous)
        await registration.synced()
        world.create("c")
        await asyncio.sleep(1)
        assert told == ["a", "b", "c"]
        assert (registration.statistics.failed, informer.status.state) == (1, "synced")
        [record] = [record for record in caplog.records if record.message == "handler raised"]
        assert (record.key, record.exc_info[0]) == ("default/a", asyncio.CancelledError)
        began = asyncio.get_running_loop().time()
        await informer.aclose()
        assert asyncio.get_running_loop().time() == began

    in_world(main)


ENDS = """
import asyncio
from support.informing import World

async def main():
    world = World()
    world.create("a")
    world.create("b")
    begun = asyncio.Event()

    async def waits(obj, is_initial):
        begun.set()
        await asyncio.sleep(3600)

    informer = world.factory.informer("configmaps")
    informer.add_handler(on_add=waits)
    await begun.wait()

asyncio.run(main())
print("ended")
"""


def test_a_program_that_closes_nothing_ends_while_a_handler_waits():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, *sys.path])}
    ended = subprocess.run(
        [sys.executable, "-c", ENDS], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "ended\n"


def test_a_call_knows_when_its_change_was_observed():
    async def main(world):
        informer = world.factory.informer("configmaps")
        seen = []

        async def slow(obj, is_initial):
            seen.append(asyncio.get_running_loop().time() - registration.observed_at)
            await asyncio.sleep(2)

        registration = informer.add_handler(on_add=slow)
        await informer.synced()
        world.create("a")
        world.create("b")
        await asyncio.sleep(5)
        assert seen == [pytest.approx(0, abs=0.1), pytest.approx(2, abs=0.1)]
        assert registration.statistics.lag_sum_s == pytest.approx(2, abs=0.1)

    in_world(main)


@pytest.mark.parametrize(("drain_s", "told"), [(10.0, 4), (1.5, 2), (0.0, 1)])
def test_handlers_are_told_what_is_pending_for_a_time_when_an_informer_is_closed(drain_s, told):
    async def main(world):
        for name in ("a", "b", "c", "d"):
            world.create(name)
        informer = world.factory.informer("configmaps")
        slow = Slow()
        informer.add_handler(slow)
        await informer.synced()
        await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        await informer.aclose(drain_s)
        assert len(slow.told) == told
        assert asyncio.get_running_loop().time() - began <= min(4.0, drain_s) + 0.1

    in_world(main)


def test_every_resync_tells_again_of_all_that_is_held():
    async def main(world):
        world.create("a")
        world.create("b")
        informer = world.factory.informer("configmaps", resync_s=60)
        by_default, own = Remembering(), Remembering()
        informer.add_handler(by_default)
        registration = informer.add_handler(own, resync_s=25)
        await informer.synced()
        world.delete("b")
        await asyncio.sleep(62)
        assert own.told[2:] == ["delete default/b", "again default/a", "again default/a"]
        assert by_default.told[2:] == ["delete default/b", "again default/a"]
        assert registration.statistics.resyncs == 2
        await registration.remove()
        await asyncio.sleep(60)
        assert len(own.told) == 5

    in_world(main)


async def test_a_blocking_handler_runs_in_a_thread_of_its_own():
    world = World(InformerSettings(drain_s=5))
    world.create("a")
    main, seen = threading.get_ident(), []
    release = threading.Event()

    def blocks(obj, is_initial):
        release.wait(10)
        seen.append((threading.get_ident(), obj.metadata.name, is_initial))
        if obj.name == "b":
            raise RuntimeError("in a thread")

    async with world.factory as factory:
        informer = factory.informer("configmaps")
        blocked = informer.add_handler(on_add=blocks, thread=True)
        other = Remembering()
        await informer.add_handler(other).synced()
        assert not seen
        world.create("b")
        release.set()
        await blocked.synced()
        while blocked.statistics.delivered < 2:
            await asyncio.sleep(0.01)
        while blocked.statistics.queued or not blocked.statistics.failed:
            await asyncio.sleep(0.01)
    assert [(name, initial) for _, name, initial in seen] == [("a", True), ("b", False)]
    assert main not in {ident for ident, _, _ in seen}
    assert blocked.statistics.failed == 1


async def test_a_handler_that_hangs_in_its_thread_does_not_keep_anybody_from_closing():
    world = World(InformerSettings(drain_s=0.05))
    world.create("a")
    release = threading.Event()
    async with world.factory as factory:
        informer = factory.informer("configmaps")
        informer.add_handler(on_add=lambda obj, is_initial: release.wait(60), thread=True)
        await informer.synced()
        await asyncio.sleep(0)
    release.set()
    assert informer.status.state == "closed"
