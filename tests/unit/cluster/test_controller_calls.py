"""Plain functions in threads; tracing; arguments that cannot be used."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import in_virtual_time
from support.told import ToldInformer, thing

from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.ports import ReconcileSpan, Result
from shoal.cluster.controller.sources import CAUSES_MAX
from shoal.cluster.workqueue.queue import WorkQueue
from shoal.shards.model.refs import Key


def virtually(main: Coroutine[Any, Any, None]) -> None:
    in_virtual_time(main)


def things(count: int) -> ToldInformer:
    return ToldInformer("things", *(thing(f"x/{n}") for n in range(count)))


# -- plain functions, in real time ----------------------------------------------------------------------------


async def test_a_plain_function_runs_in_a_thread_and_blocks_nobody() -> None:
    begun, go_on = threading.Event(), threading.Event()
    threads = set()

    def reconcile(key: Key) -> Result | None:
        threads.add(threading.current_thread().name)
        if key == "x/0":
            begun.set()
            assert go_on.wait(60)
        return None

    controller = Controller("demo", reconcile, sources=[things(3)])
    async with asyncio.timeout(60):
        task = asyncio.create_task(controller.run())
        await asyncio.to_thread(begun.wait)
        while controller.statistics().outcomes != {"success": 2}:
            await asyncio.sleep(0.001)
        go_on.set()
        while controller.statistics().outcomes != {"success": 3}:
            await asyncio.sleep(0.001)
        controller.stop()
        await task
    assert threads
    assert all(name.startswith("demo-reconcile") for name in threads)


async def test_a_thread_that_goes_on_after_the_end_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def reconcile(key: Key) -> None:
        begun.set()
        assert go_on.wait(60)

    controller = Controller("demo", reconcile, sources=[things(1)], stop_grace_s=0.0)
    async with asyncio.timeout(60):
        task = asyncio.create_task(controller.run())
        await asyncio.to_thread(begun.wait)
        controller.stop()
        await task
    [record] = [one for one in caplog.records if one.message == "reconciles go on after the controller's end"]
    assert (record.tasks, record.threads) == (0, 1)  # type: ignore[attr-defined]
    go_on.set()


ENDS = """
import asyncio, sys, threading
sys.path[:0] = sys.argv[1:]
from support.told import ToldInformer, thing
from shoal.cluster.controller.controller import Controller

begun = threading.Event()

def reconcile(key):
    begun.set()
    threading.Event().wait()

async def main():
    informer = ToldInformer("things", thing("x/a"))
    controller = Controller("demo", reconcile, sources=[informer], stop_grace_s=0.0)
    task = asyncio.create_task(controller.run())
    await asyncio.to_thread(begun.wait)
    controller.stop()
    await task

asyncio.run(main())
print("ended")
"""


def test_a_plain_function_that_hangs_does_not_keep_the_process_from_ending() -> None:
    tests = str(Path(__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", ENDS, tests], capture_output=True, text=True, timeout=30, check=True
    )
    assert ended.stdout == "ended\n"


async def test_threads_are_reused_and_end_with_the_run() -> None:
    def reconcile(key: Key) -> None:
        if key == "x/0":
            raise StopIteration

    def alive() -> list[str]:
        return [one.name for one in threading.enumerate() if one.name.startswith("reused-reconcile")]

    controller = Controller("reused", reconcile, sources=[things(50)], workers=3, retries_max=0)
    async with asyncio.timeout(60):
        task = asyncio.create_task(controller.run())
        while sum(controller.statistics().outcomes.values()) < 50:
            await asyncio.sleep(0.001)
        assert 1 <= len(alive()) <= 3
        assert "StopIteration" in controller.parked[Key("x/0")].error
        controller.stop()
        await task
        while alive():
            await asyncio.sleep(0.001)


async def test_errors_and_coroutines_of_plain_functions() -> None:
    done = []

    async def later(key: Key) -> None:
        done.append(key)

    def reconcile(key: Key) -> Any:
        if key == "x/0":
            raise ValueError("no")
        return later(key)

    controller = Controller("demo", reconcile, sources=[things(2)], retries_max=1)
    async with asyncio.timeout(60):
        task = asyncio.create_task(controller.run())
        while not controller.parked or not done:
            await asyncio.sleep(0.001)
        controller.stop()
        await task
    assert done == ["x/1"]
    assert controller.statistics().outcomes == {"success": 1, "error": 2}


# -- tracing --------------------------------------------------------------------------------------------------


class Spans:
    """`Tracing` that writes down what it is told."""

    enabled = True

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.spans: list[tuple[str, Key, int, int, str]] = []

    def cause(self, controller: str, source: str, event: str, key: Key) -> object | None:
        self.events.append((source, event, key))
        return len(self.events) if event != "resync" else None

    @contextmanager
    def reconcile(
        self, controller: str, key: Key, attempts: int, causes: Sequence[object], queue_s: float
    ) -> Iterator[ReconcileSpan]:
        span = Ended()
        yield span
        self.spans.append((controller, key, attempts, len(causes), span.how))


class Ended:
    """`ReconcileSpan` that remembers."""

    how = ""

    def ended(self, outcome: str, *, error: BaseException | None = None, **more: Any) -> None:
        assert not self.how, "a reconcile ends once"
        self.how = outcome if error is None else f"{outcome} {type(error).__name__}"


def test_a_reconcile_is_linked_to_the_events_that_caused_it() -> None:
    async def main() -> None:
        failures = iter([ValueError("no"), None, None, None, None])

        async def reconcile(key: Key) -> None:
            await asyncio.sleep(0.5)
            if (error := next(failures)) is not None:
                raise error

        informer, spans = things(1), Spans()
        controller = Controller("demo", reconcile, sources=[informer], tracing=spans)
        task = asyncio.create_task(controller.run())
        await asyncio.sleep(5)
        for version in range(2, 40):
            informer.put(thing("x/0", version))
        await asyncio.sleep(5)
        informer.resync()
        await asyncio.sleep(5)
        informer.delete("x/0")
        await asyncio.sleep(5)
        controller.stop()
        await task
        assert spans.spans == [
            ("demo", "x/0", 0, 1, "error ValueError"),
            ("demo", "x/0", 1, 0, "success"),
            ("demo", "x/0", 0, CAUSES_MAX, "success"),
            ("demo", "x/0", 0, 0, "success"),
            ("demo", "x/0", 0, 1, "success"),
        ]
        assert spans.events[0] == ("things", "add", "x/0")
        assert spans.events[-1] == ("things", "delete", "x/0")

    virtually(main())


# -- wrong use ------------------------------------------------------------------------------------------------


async def asynchronous(key: Key) -> None:
    """A reconcile."""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"name": ""}, r"controller \(unnamed\): it needs a name"),
        ({"sources": []}, "at least one source"),
        ({"workers": 0}, "workers is 0"),
        ({"retries_max": -1}, "retries_max is -1"),
        ({"timeout_s": 0.0}, "timeout_s is 0.0"),
        ({"timeout_s": 1.0, "reconcile": print}, "timeout_s needs an async reconcile"),
        ({"hung_after_s": 0.0}, "hung_after_s is 0.0"),
        ({"stop_grace_s": -1.0}, "stop_grace_s is -1.0"),
        ({"parked_max": 0}, "parked_max is 0"),
        ({"queue": WorkQueue("x"), "fair_by": len}, "give fair_by to the queue"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(more: dict[str, Any], expected: str) -> None:
    arguments: dict[str, Any] = {
        "name": "demo",
        "reconcile": asynchronous,
        "sources": [ToldInformer()],
    } | more
    name, reconcile = arguments.pop("name"), arguments.pop("reconcile")
    with pytest.raises(ValueError, match=expected):
        Controller(name, reconcile, **arguments)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_result_has_a_time_that_can_be_waited_for(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"requeue_after_s is {seconds}"):
        Result(requeue_after_s=seconds)
