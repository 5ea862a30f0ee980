"""Runs that come after another whose reconciles go on, and workers that are lost, in virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest
from support.apiserver import in_virtual_time
from support.candidates import LEASE, Contest
from support.reconciles import Log, failing, now
from support.told import ToldInformer, thing

from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.errors import TerminalError
from shoal.cluster.controller.parking import Parked
from shoal.cluster.controller.ports import Result
from shoal.cluster.workqueue.queue import WorkQueue
from shoal.shards.model.refs import Key


def virtually(main: Coroutine[Any, Any, None]) -> None:
    in_virtual_time(main)


def things(count: int) -> ToldInformer:
    return ToldInformer("things", *(thing(f"x/{n}") for n in range(count)))


class Straggling:
    """Its first call of `x/0` goes on until `until`, whatever anybody wants, and then does `then`."""

    def __init__(self, until: float, then: Any = lambda: None) -> None:
        self.until = until
        self.then = then
        self.calls: list[tuple[float, Key]] = []
        self.busy: set[Key] = set()

    async def __call__(self, key: Key) -> Result | None:
        assert key not in self.busy, f"{key} is reconciled twice at a time"
        first = not any(known == key for _, known in self.calls)
        self.busy.add(key)
        self.calls.append((now(), key))
        try:
            while first and key == "x/0" and now() < self.until:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(self.until - now())
            return self.then() if first and key == "x/0" else None
        finally:
            self.busy.discard(key)


async def end(controller: Controller, task: asyncio.Task[None]) -> None:
    controller.stop()
    await task


async def once_stopped(controller: Controller) -> None:
    """A run that begins at 0 and has left its straggler behind at 6."""
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(1)
    await end(controller, task)
    assert now() == 6


# -- stragglers -----------------------------------------------------------------------------------------------


def test_a_run_holds_back_what_an_earlier_one_is_still_at(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        informer, work = things(3), Straggling(100.0)
        controller = Controller("demo", work, sources=[informer], stop_grace_s=0.0, hung_after_s=60.0)
        await once_stopped(controller)
        statistics = controller.statistics()
        assert (statistics.active, statistics.hung) == (1, 0), "it goes on, and is not forgotten"
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(30)
        assert [call for call in work.calls if call[0] >= 6] == [(6, "x/1"), (6, "x/2")], (
            "others are not held"
        )
        informer.put(thing("x/0", 2))
        await asyncio.sleep(30)
        assert (list(controller.hung), controller.hung_s()) == (["x/0"], {"x/0": now()})
        await asyncio.sleep(40)
        assert work.calls[-1] == (100, "x/0"), "as soon as the earlier one has ended, and once"
        assert len(work.calls) == 6
        assert not task.done()
        assert (controller.statistics().active, controller.statistics().hung) == (0, 0)
        await end(controller, task)

    virtually(main())
    held = [one for one in caplog.records if one.message == "an item waits for a reconcile of an earlier run"]
    assert [one.key for one in held] == ["x/0"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("then", [lambda: Result(5.0), failing(ValueError("late")), failing(TerminalError())])
def test_how_an_earlier_runs_reconcile_ends_is_nothing_to_the_next_run(then: Any) -> None:
    async def main() -> None:
        parked: list[Parked] = []

        def late() -> Any:
            return then() if then.__code__.co_argcount == 0 else then(Key("x/0"))

        informer, work = things(1), Straggling(50.0, late)
        controller = Controller(
            "demo", work, sources=[informer], stop_grace_s=0.0, retries_max=0, on_parked=parked.append
        )
        await once_stopped(controller)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(500)
        assert work.calls == [(0, "x/0"), (50, "x/0")]
        assert (controller.parked, parked) == ({}, [])
        await end(controller, task)

    virtually(main())


def test_a_run_that_ends_before_the_straggler_says_what_was_held_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        informer, work = things(1), Straggling(100.0)
        contest = Contest()
        elector = contest.candidate("a").elector
        controller = Controller("demo", work, sources=[informer], stop_grace_s=0.0, leader=elector)
        await once_stopped(controller)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(30)
        await end(controller, task)
        assert (await contest.server.get(LEASE))["spec"]["holderIdentity"] == "a", "it may still write"
        await asyncio.sleep(100)
        assert work.calls == [(0, "x/0")]
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(30)
        assert len(work.calls) == 2
        await end(controller, task)
        assert (await contest.server.get(LEASE))["spec"]["holderIdentity"] == ""

    virtually(main())
    undone = [one for one in caplog.records if one.message == "work is left undone"]
    assert [one.keys for one in undone] == [["x/0"], ["x/0"]]  # type: ignore[attr-defined]
    after = [one for one in caplog.records if one.message == "reconciles go on after the controller's end"]
    assert [(one.tasks, one.threads) for one in after] == [(1, 0), (1, 0)]  # type: ignore[attr-defined]


async def test_a_thread_that_goes_on_holds_its_key_back() -> None:
    begun, go_on = threading.Event(), threading.Event()
    calls: list[Key] = []

    def reconcile(key: Key) -> None:
        calls.append(key)
        if len(calls) == 1:
            begun.set()
            assert go_on.wait(60)

    controller = Controller("demo", reconcile, sources=[things(2)], stop_grace_s=0.0, workers=1)
    async with asyncio.timeout(60):
        task = asyncio.create_task(controller.run())
        await asyncio.to_thread(begun.wait)
        await end(controller, task)
        assert controller.statistics().active == 1
        task = asyncio.create_task(controller.run())
        while len(calls) < 2:
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert calls == ["x/0", "x/1"]
        go_on.set()
        while len(calls) < 3:
            await asyncio.sleep(0.001)
        assert calls[2] == "x/0"
        while controller.statistics().active:
            await asyncio.sleep(0.001)
        await end(controller, task)


def test_a_run_on_another_event_loop_knows_nothing_of_stragglers() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def reconcile(key: Key) -> None:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(60)

    controller = Controller("demo", reconcile, sources=[things(1)], stop_grace_s=0.0)

    async def main(outcomes: dict[str, int]) -> None:
        task = asyncio.create_task(controller.run())
        async with asyncio.timeout(60):
            await asyncio.to_thread(begun.wait)
            while controller.statistics().outcomes != outcomes:
                await asyncio.sleep(0.001)
            await end(controller, task)

    asyncio.run(main({}))
    go_on.set()
    asyncio.run(main({"cancelled": 1, "success": 1}))


# -- workers that are lost ------------------------------------------------------------------------------------


class BrokenLimiter:
    """One with a bug."""

    def delay_s(self, item: Key, now: float) -> float:
        raise ArithmeticError("limiter")

    def forget(self, item: Key) -> None:
        raise ArithmeticError("limiter")

    def requeues(self, item: Key) -> int:
        return 0


def test_a_run_without_workers_ends_at_once_with_what_ended_them(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        queue: WorkQueue[Key] = WorkQueue("demo", limiter=BrokenLimiter())
        controller = Controller("demo", Log(failing(ValueError())), sources=[things(5)], queue=queue)
        with pytest.raises(ArithmeticError, match="limiter"):
            await controller.run()
        assert now() == 0, "nobody is left to take what waits"
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtually(main())
    [undone] = [one for one in caplog.records if one.message == "work is left undone"]
    assert undone.waiting == 3  # type: ignore[attr-defined]


def test_the_last_worker_that_is_lost_at_the_end_cuts_the_grace_short() -> None:
    async def main() -> None:
        def then(key: Key) -> Any:
            return asyncio.sleep(2) if key == "x/0" else failing(TerminalError())(key)

        queue: WorkQueue[Key] = WorkQueue("demo", limiter=BrokenLimiter())
        log = Log(then)
        controller = Controller("demo", log, sources=[things(5)], queue=queue, retries_max=0)
        with pytest.raises(ArithmeticError, match="limiter"):
            await controller.run()
        assert log.calls == [(0, "x/0"), (0, "x/1")]
        assert now() == 2

    virtually(main())


def test_a_worker_that_somebody_cancels_ends_the_run_with_an_error() -> None:
    async def main() -> None:
        log = Log(seconds=2.0)
        controller = Controller("demo", log, sources=[things(5)], workers=1)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(1)
        [worker] = [one for one in asyncio.all_tasks() if one.get_name() == "demo worker 0"]
        worker.cancel()
        with pytest.raises(RuntimeError, match="demo: a worker was cancelled, and not by the controller"):
            await task
        assert (now(), log.keys) == (1, ["x/0"])

    virtually(main())


def test_a_program_that_stops_nothing_ends_while_a_reconcile_waits() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        begun = asyncio.Event()

        async def reconcile(key: Key) -> None:
            begun.set()
            await asyncio.sleep(3600)

        controller = Controller("demo", reconcile, sources=[things(5)])
        tasks.append(asyncio.create_task(controller.run()))
        await begun.wait()

    asyncio.run(main())
    assert tasks[0].cancelled()


@pytest.mark.parametrize("how", ["waits", "returns", "from a task of its own"])
def test_a_reconcile_that_cancels_its_own_task_has_failed_and_nothing_else(how: str) -> None:
    async def main() -> None:
        async def cancel(task: asyncio.Task[Any]) -> None:
            task.cancel()

        async def then(key: Key) -> None:
            task = asyncio.current_task()
            assert task is not None
            if key != "x/0":
                return
            if how == "from a task of its own":
                # Which the timeout ends, if nothing does before.
                async with asyncio.timeout(1.0):
                    await asyncio.create_task(cancel(task))
                    await asyncio.sleep(10)
            task.cancel()
            if how == "waits":
                await asyncio.sleep(10)

        def reconcile(key: Key) -> Any:
            return then(key)

        informer, log = things(5), Log(reconcile)
        controller = Controller("demo", log, sources=[informer], workers=1, retries_max=1)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(10)
        assert (now(), task.done(), controller.synced) == (10, False, True)
        assert controller.statistics().outcomes == {"success": 4, "error": 2}
        assert controller.parked[Key("x/0")].error == "CancelledError: the reconcile cancelled its own task"
        informer.put(thing("x/7"))
        await asyncio.sleep(1)
        assert log.keys[-1] == "x/7"
        await end(controller, task)
        assert now() == 11

    virtually(main())
