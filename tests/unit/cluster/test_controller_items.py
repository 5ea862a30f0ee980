"""What becomes of an item: requeued, retried, parked, reported as hung, cancelled. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.apiserver import in_virtual_time
from support.reconciles import Log, failing, now, running
from support.told import ToldInformer, thing

from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.errors import TerminalError
from shoal.cluster.controller.parking import Parked
from shoal.cluster.controller.ports import Result
from shoal.cluster.workqueue.limiters import ExponentialLimiter
from shoal.cluster.workqueue.queue import WorkQueue
from shoal.shards.model.refs import Key


def virtually(main: Coroutine[Any, Any, None]) -> None:
    in_virtual_time(main)


# -- what becomes of an item ----------------------------------------------------------------------------------


def test_a_result_brings_the_object_back_later() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        log = Log(lambda _: Result(requeue_after_s=30.0))
        controller = Controller("demo", log, sources=[informer])
        async with running(controller):
            await asyncio.sleep(70)
            informer.put(thing("x/a", 2))
            await asyncio.sleep(1)
        assert [at for at, _ in log.calls] == pytest.approx([0, 30, 60, 70], abs=0.01)
        assert controller.statistics().outcomes == {"requeue_after": 4}

    virtually(main())


def test_failures_are_retried_ever_later_and_forgotten_by_a_success() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        queue: WorkQueue[Key] = WorkQueue("demo", limiter=ExponentialLimiter(1.0, 60.0))
        attempts = iter([ValueError("no"), KeyError("x"), ValueError("no"), None, ValueError("again"), None])

        def then(_: Key) -> None:
            if (error := next(attempts)) is not None:
                raise error

        log = Log(then)
        controller = Controller("demo", log, sources=[informer], queue=queue)
        async with running(controller):
            await asyncio.sleep(20)
            informer.put(thing("x/a", 2))
            await asyncio.sleep(20)
        assert [at for at, _ in log.calls] == pytest.approx([0, 1, 3, 7, 20, 21], abs=0.01)
        assert controller.statistics().outcomes == {"error": 4, "success": 2}
        assert not controller.parked

    virtually(main())


def test_what_fails_too_often_is_parked_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"), thing("x/b"))
        log = Log(lambda key: None if key == "x/b" else failing(ValueError("no quota"))(key))
        told: list[Parked] = []
        controller = Controller("demo", log, sources=[informer], retries_max=2, on_parked=told.append)
        async with running(controller):
            await asyncio.sleep(3600)
            assert log.keys.count(Key("x/a")) == 3
            parked = controller.parked[Key("x/a")]
            assert (parked.error, parked.attempts, parked.terminal) == ("ValueError: no quota", 3, False)
            assert told == [parked]
            assert list(controller.parked) == ["x/a"]
            assert controller.queue is not None
            assert controller.queue.requeues(Key("x/a")) == 0
            log.then = lambda _: None
            informer.put(thing("x/a", 2))
            await asyncio.sleep(1)
            assert not controller.parked
            assert log.keys.count(Key("x/a")) == 4
        statistics = controller.statistics()
        assert (statistics.parked, statistics.parked_total) == (0, 1)

    virtually(main())
    [record] = [record for record in caplog.records if record.message == "an item is parked until it changes"]
    assert (record.levelname, record.key) == ("ERROR", "x/a")  # type: ignore[attr-defined]


def test_an_event_during_the_last_attempt_is_a_new_beginning() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        log = Log(failing(ValueError("no")), seconds=1.0)
        controller = Controller("demo", log, sources=[informer], retries_max=0)
        async with running(controller):
            await asyncio.sleep(0.5)
            informer.put(thing("x/a", 2))
            await asyncio.sleep(10)
            assert [at for at, _ in log.calls] == pytest.approx([0, 1])
            assert controller.statistics().parked_total == 2
            assert controller.parked[Key("x/a")].attempts == 1

    virtually(main())


@pytest.mark.parametrize("last", ["between timers", "when a timer is due"])
def test_a_parked_item_does_not_come_by_a_timer_that_was_set_before(last: str) -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        log = Log(lambda _: Result(requeue_after_s=30.0))
        controller = Controller("demo", log, sources=[informer])
        async with running(controller):
            await asyncio.sleep(10)
            log.then = failing(TerminalError("no use"))
            log.seconds = 1.0 if last == "between timers" else 40.0
            informer.put(thing("x/a", 2))
            await asyncio.sleep(3600)
            assert [at for at, _ in log.calls] == pytest.approx([0, 10], abs=0.01)
            assert controller.parked[Key("x/a")].attempts == 1
            log.then, log.seconds = lambda _: None, 0.0
            informer.put(thing("x/a", 3))
            await asyncio.sleep(1)
            assert (len(log.calls), dict(controller.parked)) == (3, {})

    virtually(main())


def test_a_resync_or_a_request_brings_a_parked_item_back() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        controller = Controller("demo", log := Log(failing(TerminalError("no"))), sources=[informer])
        async with running(controller):
            await asyncio.sleep(60)
            informer.resync()
            await asyncio.sleep(60)
            controller.enqueue(Key("x/a"))
            await asyncio.sleep(60)
        assert [at for at, _ in log.calls] == pytest.approx([0, 60, 120], abs=0.01)

    virtually(main())


def test_an_error_that_will_not_go_away_is_parked_at_once() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        controller = Controller("demo", log := Log(failing(TerminalError("bad spec"))), sources=[informer])
        async with running(controller):
            await asyncio.sleep(60)
            assert len(log.calls) == 1
            parked = controller.parked[Key("x/a")]
            assert (parked.error, parked.attempts, parked.terminal) == ("TerminalError: bad spec", 1, True)
            assert controller.statistics().outcomes == {"terminal": 1}

    virtually(main())


def grouped() -> Exception:
    return ExceptionGroup("both", [ValueError("no"), ExceptionGroup("inner", [TerminalError("bad spec")])])


def caused() -> Exception:
    error = RuntimeError("cannot be made")
    error.__cause__ = ValueError("wrapped")
    error.__cause__.__cause__ = TerminalError("bad spec")
    return error


@pytest.mark.parametrize("made", [grouped, caused])
def test_an_error_that_will_not_go_away_is_found_in_groups_and_causes(made: Callable[[], Exception]) -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        controller = Controller("demo", log := Log(failing(made())), sources=[informer])
        async with running(controller):
            await asyncio.sleep(60)
            assert len(log.calls) == 1
            assert controller.parked[Key("x/a")].terminal
            assert controller.statistics().outcomes == {"terminal": 1}

    virtually(main())


def test_what_happened_to_be_handled_is_no_cause() -> None:
    async def main() -> None:
        circle = ValueError("no")
        circle.__context__ = TerminalError("of something else")
        circle.__cause__ = ValueError("its cause")
        circle.__cause__.__cause__ = circle
        informer = ToldInformer("things", thing("x/a"))
        controller = Controller("demo", Log(failing(circle)), sources=[informer], retries_max=1)
        async with running(controller):
            await asyncio.sleep(60)
            assert not controller.parked[Key("x/a")].terminal
            assert controller.statistics().outcomes == {"error": 2}

    virtually(main())


def test_a_result_of_another_kind_is_such_an_error() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        controller = Controller("demo", Log(lambda _: 30), sources=[informer])
        async with running(controller):
            await asyncio.sleep(60)
            assert "returned int: expected Result or None" in controller.parked[Key("x/a")].error

    virtually(main())


def test_retries_without_end() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        log = Log(failing(ValueError("no")))
        async with running(Controller("demo", log, sources=[informer], retries_max=None)) as task:
            await asyncio.sleep(86_400)
            assert len(log.calls) > 80
            assert not task.done()

    virtually(main())


def test_the_list_of_parked_items_is_bounded_and_a_callback_may_fail() -> None:
    async def main() -> None:
        informer = ToldInformer("things", *(thing(f"x/{n}") for n in range(10)))
        controller = Controller(
            "demo",
            Log(failing(TerminalError())),
            sources=[informer],
            workers=1,
            parked_max=3,
            on_parked=lambda parked: 1 / 0,
        )
        async with running(controller):
            await asyncio.sleep(1)
            assert list(controller.parked) == ["x/7", "x/8", "x/9"]
            assert controller.statistics().parked_total == 10
            assert controller.parked[Key("x/9")].error == "TerminalError"

    virtually(main())


def test_an_async_callback_is_awaited_before_the_item_is_done() -> None:
    async def main() -> None:
        told: list[tuple[float, Key]] = []

        async def on_parked(parked: Parked) -> None:
            await asyncio.sleep(2)
            told.append((now(), parked.key))

        informer = ToldInformer("things", thing("x/a"), thing("x/b"))
        log = Log(failing(TerminalError()))
        controller = Controller("demo", log, sources=[informer], workers=1, on_parked=on_parked)
        async with running(controller):
            await asyncio.sleep(1)
            informer.put(thing("x/a", 2))
            await asyncio.sleep(30)
        assert told == [(2, "x/a"), (4, "x/a"), (6, "x/b")], "what changes goes before what was there"
        assert [at for at, _ in log.calls] == [0, 2, 4], "an item is not tried again while it is told of"

    virtually(main())


def test_an_async_callback_that_hangs_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def on_parked(parked: Parked) -> None:
            await asyncio.sleep(1e6)

        informer = ToldInformer("things", thing("x/a"), thing("x/b"))
        log = Log(failing(TerminalError()))
        controller = Controller("demo", log, sources=[informer], workers=1, on_parked=on_parked)
        async with running(controller):
            await asyncio.sleep(60)
            assert [at for at, _ in log.calls] == [0, 10]
            assert controller.statistics().outcomes == {"terminal": 2}

    virtually(main())
    failed = [one for one in caplog.records if one.message == "on_parked failed"]
    assert [one.key for one in failed] == ["x/a", "x/b"]  # type: ignore[attr-defined]


def test_a_cancelled_callback_leaves_its_item_given_up() -> None:
    async def main() -> None:
        async def on_parked(parked: Parked) -> None:
            await asyncio.sleep(1e6)

        informer = ToldInformer("things", thing("x/a"))
        controller = Controller(
            "demo", Log(failing(TerminalError())), sources=[informer], stop_grace_s=1.0, on_parked=on_parked
        )
        async with running(controller):
            await asyncio.sleep(1)
        assert now() < 3
        assert controller.statistics().outcomes == {"terminal": 1}

    virtually(main())


# -- reconciles that take too long ----------------------------------------------------------------------------


def test_a_hung_reconcile_is_reported_and_delays_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"), thing("x/b"))
        log = Log(lambda key: asyncio.sleep(200 if key == "x/a" else 0))
        controller = Controller("demo", log, sources=[informer], hung_after_s=60.0)
        async with running(controller):
            await asyncio.sleep(100)
            assert list(controller.hung) == ["x/a"]
            assert controller.statistics().hung == 1
            informer.put(thing("x/b", 2))
            await asyncio.sleep(1)
            assert log.keys == ["x/a", "x/b", "x/b"]
            await asyncio.sleep(200)
            assert list(controller.hung) == []
            statistics = controller.statistics()
            assert (statistics.hung, statistics.hung_total) == (0, 1)
            assert statistics.outcomes == {"success": 3}

    virtually(main())
    assert [record.key for record in caplog.records if record.message == "a reconcile hangs"] == ["x/a"]


def test_a_reconcile_is_cancelled_after_its_time_and_tried_again() -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))
        log = Log(lambda key: asyncio.sleep(1e6))
        controller = Controller("demo", log, sources=[informer], timeout_s=10.0, retries_max=1)
        async with running(controller):
            await asyncio.sleep(60)
            assert [at for at, _ in log.calls] == pytest.approx([0, 10.005])
            assert controller.parked[Key("x/a")].error == "cancelled after 10 s"
            assert controller.statistics().outcomes == {"timeout": 2}

    virtually(main())


@pytest.mark.parametrize("error", [TimeoutError("of its own"), asyncio.CancelledError()])
def test_what_looks_like_an_end_and_is_none_fails_the_item_alone(error: BaseException) -> None:
    async def main() -> None:
        informer = ToldInformer("things", thing("x/a"))

        def then(_: Key) -> None:
            raise error

        controller = Controller("demo", log := Log(then), sources=[informer], timeout_s=10.0, retries_max=1)
        async with running(controller) as task:
            await asyncio.sleep(60)
            assert len(log.calls) == 2
            assert controller.parked[Key("x/a")].error.startswith(type(error).__name__)
            informer.put(thing("x/b"))
            await asyncio.sleep(1)
            assert "x/b" in log.keys
            assert not task.done()

    virtually(main())


def test_a_reconcile_that_never_waits_keeps_nobody_from_running() -> None:
    async def main() -> None:
        turns = rounds = 0

        async def reconcile(key: Key) -> None:
            nonlocal rounds
            rounds += 1
            if rounds < 1000:
                controller.enqueue(key)

        informer = ToldInformer("things", thing("x/a"))
        controller = Controller("demo", reconcile, sources=[informer], workers=1)
        task = asyncio.create_task(controller.run())
        while rounds < 1000:
            turns += 1
            await asyncio.sleep(0)
        assert turns >= 1000
        controller.stop()
        await task

    virtually(main())
