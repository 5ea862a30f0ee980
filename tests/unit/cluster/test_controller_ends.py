"""How a controller ends, with and without leadership."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest
from support.apiserver import in_virtual_time
from support.candidates import LEASE, Contest
from support.clock import VirtualLoop
from support.told import ToldInformer, thing

from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.errors import LeadershipLost
from shoal.cluster.workqueue.queue import WorkQueue
from shoal.shards.model.refs import Key


def virtually(main: Coroutine[Any, Any, None]) -> None:
    in_virtual_time(main)


def now() -> float:
    return round(asyncio.get_running_loop().time(), 6)


class Slow:
    """A reconcile that takes its time, and knows which came to their end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun: list[Key] = []
        self.ended: list[Key] = []

    async def __call__(self, key: Key) -> None:
        self.begun.append(key)
        await asyncio.sleep(self.seconds)
        self.ended.append(key)


def things(count: int) -> ToldInformer:
    return ToldInformer("things", *(thing(f"x/{n}") for n in range(count)))


# -- the end --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_what_is_in_the_queue_is_finished_before_the_end(how: str) -> None:
    async def main() -> None:
        informer, slow = things(5), Slow(2.0)
        controller = Controller("demo", slow, sources=[informer])
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(1)
        if how == "stop":
            controller.stop()
            await task
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert sorted(slow.ended) == [f"x/{n}" for n in range(5)]
        assert now() == 6
        assert informer.handlers == []

    virtually(main())


def test_what_takes_longer_than_the_grace_is_cancelled() -> None:
    async def main() -> None:
        slow = Slow(1000.0)
        controller = Controller("demo", slow, sources=[things(5)], stop_grace_s=20.0)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(1)
        controller.stop()
        await task
        assert now() == 21
        assert (len(slow.begun), slow.ended) == (2, [])
        assert controller.statistics().outcomes == {"cancelled": 2}
        assert controller.statistics().active == 0

    virtually(main())


def test_a_second_cancellation_cuts_the_grace_short() -> None:
    async def main() -> None:
        slow = Slow(1000.0)
        task = asyncio.create_task(Controller("demo", slow, sources=[things(5)]).run())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert now() == 2
        assert slow.ended == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtually(main())


def test_a_reconcile_that_ignores_its_cancellation_is_left_behind_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async def stubborn(key: Key) -> None:
            while now() < 500:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(500 - now())

        controller = Controller("demo", stubborn, sources=[things(1)], stop_grace_s=1.0)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(1)
        controller.stop()
        await task
        assert now() == 1 + 1 + 5
        await asyncio.sleep(500)

    virtually(main())
    [record] = [one for one in caplog.records if one.message == "reconciles go on after the controller's end"]
    assert (record.tasks, record.threads) == (1, 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_the_end_while_sources_sync(how: str) -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"), complete=False)
        slow = Slow(0.0)
        controller = Controller("demo", slow, sources=[informer])
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(1)
        if how == "stop":
            controller.stop()
        else:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() == (how == "cancel")
        assert now() == 1
        assert slow.begun == []
        assert informer.handlers == []

    virtually(main())


def test_it_can_run_again_and_looks_at_everything_afresh() -> None:
    async def main() -> None:
        informer, slow = things(2), Slow(0.0)
        controller = Controller("demo", slow, sources=[informer])
        for _ in range(2):
            task = asyncio.create_task(controller.run())
            await asyncio.sleep(1)
            with pytest.raises(RuntimeError, match="demo runs already"):
                await controller.run()
            controller.stop()
            await task
        assert slow.ended == ["x/0", "x/1"] * 2

    virtually(main())


def test_a_queue_that_was_given_ends_with_the_run() -> None:
    async def main() -> None:
        queue: WorkQueue[Key] = WorkQueue("mine")
        controller = Controller("demo", Slow(0.0), sources=[things(1)], queue=queue)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(1)
        assert controller.queue is queue
        queue.shut_down()
        await task
        with pytest.raises(RuntimeError, match="its queue is shut down"):
            await controller.run()

    virtually(main())


# -- leadership -----------------------------------------------------------------------------------------------


def test_of_two_controllers_the_leader_works_and_the_other_follows_when_it_ends() -> None:
    async def main() -> None:
        contest, informer = Contest(), things(2)
        works = {identity: Slow(0.0) for identity in "ab"}
        electors = {identity: contest.candidate(identity).elector for identity in "ab"}
        controllers = {
            identity: Controller("demo", works[identity], sources=[informer], leader=electors[identity])
            for identity in "ab"
        }
        tasks = {}
        for identity in "ab":
            tasks[identity] = asyncio.create_task(controllers[identity].run())
            await asyncio.sleep(0.1)
        await asyncio.sleep(30)
        assert (works["a"].ended, works["b"].begun) == (["x/0", "x/1"], [])
        controllers["a"].stop()
        await tasks["a"]
        assert (await contest.spec())["holderIdentity"] == ""
        await asyncio.sleep(5)
        assert works["b"].ended == ["x/0", "x/1"]
        controllers["b"].stop()
        await tasks["b"]

    virtually(main())


def test_work_is_finished_as_leader_and_the_lease_given_back_after_it() -> None:
    async def main() -> None:
        contest, slow = Contest(), Slow(25.0)
        candidate = contest.candidate("a")
        controller = Controller("demo", slow, sources=[things(2)], leader=candidate.elector)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(20)
        assert candidate.elector.is_leader
        await asyncio.gather(task, return_exceptions=True)
        assert sorted(slow.ended) == ["x/0", "x/1"]
        assert (await contest.spec())["holderIdentity"] == ""

    virtually(main())


def test_a_lost_leadership_has_no_grace() -> None:
    async def main() -> None:
        contest, slow = Contest(), Slow(1000.0)
        candidate = contest.candidate("a")
        controller = Controller("demo", slow, sources=[things(2)], leader=candidate.elector)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(5)
        await contest.patch({"spec": {"holderIdentity": "usurper"}})
        with pytest.raises(LeadershipLost, match="usurper does"):
            await task
        assert now() == 6
        assert slow.ended == []
        assert controller.statistics().outcomes == {"cancelled": 2}

    virtually(main())


def test_nothing_is_begun_when_the_lease_is_over_before_that_is_noticed() -> None:
    async def main() -> None:
        begun: list[Key] = []

        async def blocks(key: Key) -> None:
            begun.append(key)
            # The whole process stands still: nobody else runs, and the clock goes on.
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.now += 21

        candidate = Contest().candidate("a")
        controller = Controller("demo", blocks, sources=[things(3)], workers=1, leader=candidate.elector)
        with pytest.raises(LeadershipLost, match="stood still"):
            await controller.run()
        assert begun == ["x/0"]
        assert controller.queue is not None
        assert now() == pytest.approx(21, abs=0.2)

    virtually(main())


def test_a_lost_leadership_cancels_before_it_waits_for_informers() -> None:
    class Stuck(ToldInformer):
        def add_handler(self, handler: Any, **more: Any) -> Any:
            registration = super().add_handler(handler, **more)
            removed = registration.remove

            async def remove() -> None:
                await asyncio.sleep(3)
                await removed()

            registration.remove = remove  # type: ignore[method-assign]
            return registration

    async def main() -> None:
        contest, ended = Contest(), []

        async def reconcile(key: Key) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append(now())

        candidate = contest.candidate("a")
        controller = Controller(
            "demo", reconcile, sources=[Stuck("things", thing("x/0"))], leader=candidate.elector
        )
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(5)
        await contest.patch({"spec": {"holderIdentity": "usurper"}})
        with pytest.raises(LeadershipLost):
            await task
        assert ended == [6]

    virtually(main())


def test_it_stops_while_it_waits_to_be_elected() -> None:
    async def main() -> None:
        contest = Contest()
        first = contest.candidate("a").start()
        await asyncio.sleep(1)
        slow = Slow(0.0)
        controller = Controller("demo", slow, sources=[things(1)], leader=contest.candidate("b").elector)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(30)
        controller.stop()
        await task
        assert slow.begun == []
        assert (await contest.spec())["holderIdentity"] == "a"
        await first.stop()

    virtually(main())


def test_what_goes_on_after_the_end_keeps_the_lease() -> None:
    async def main() -> None:
        async def stubborn(key: Key) -> None:
            while now() < 500:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(500 - now())

        contest = Contest()
        elector = contest.candidate("a").elector
        controller = Controller("demo", stubborn, sources=[things(1)], stop_grace_s=1.0, leader=elector)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(5)
        controller.stop()
        await task
        assert (await contest.server.get(LEASE))["spec"]["holderIdentity"] == "a"
        await asyncio.sleep(500)

    virtually(main())
