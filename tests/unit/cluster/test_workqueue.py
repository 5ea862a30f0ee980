"""The queue's asyncio face in virtual time: waiting, timers, shutting down, draining, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from support.clock import VirtualLoop, run_virtual

from shoal.cluster.workqueue.limiters import ExponentialLimiter
from shoal.cluster.workqueue.metrics import QueueCollector
from shoal.cluster.workqueue.queue import ShutDown, WorkQueue


def virtually(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


async def settle() -> None:
    """Lets everything run that can, without any time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


async def work(queue: WorkQueue[str], log: list[tuple[float, str]], seconds: float = 0.0) -> None:
    """A worker that writes down what it took, and when."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with queue.item() as item:
                log.append((round(loop.time(), 6), item))
                await asyncio.sleep(seconds)
        except ShutDown:
            return


def test_get_waits_for_an_add() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        getting = asyncio.create_task(queue.get())
        await settle()
        assert not getting.done()
        queue.add("a")
        assert await getting == "a"

    virtually(main())


def test_one_add_wakes_one_worker_and_every_item_finds_one() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        getting = [asyncio.create_task(queue.get()) for _ in range(3)]
        await settle()
        queue.add("a")
        await settle()
        assert sum(one.done() for one in getting) == 1
        queue.add("b")
        queue.add("c")
        assert sorted(await asyncio.gather(*getting)) == ["a", "b", "c"]

    virtually(main())


@pytest.mark.parametrize("order", ["cancel first", "add first"])
def test_a_worker_that_is_cancelled_when_it_is_woken_loses_nothing(order: str) -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
        await settle()
        if order == "cancel first":
            first.cancel()
            queue.add("a")
        else:
            queue.add("a")
            first.cancel()
        await settle()
        assert first.cancelled()
        assert second.done()
        assert second.result() == "a"
        third = asyncio.create_task(queue.get())
        await settle()
        third.cancel()
        await settle()
        queue.add("b")
        assert await queue.get() == "b"

    virtually(main())


def test_what_many_workers_do_is_done_by_one_of_them_at_a_time() -> None:
    """client-go's TestBasic: producers and consumers, no item is ever worked on twice at a time."""

    async def main() -> None:
        queue: WorkQueue[int] = WorkQueue()
        busy: set[int] = set()
        rounds = 0

        async def consume() -> None:
            nonlocal rounds
            while True:
                try:
                    item = await queue.get()
                except ShutDown:
                    return
                assert item not in busy
                busy.add(item)
                await asyncio.sleep(0.003)
                busy.remove(item)
                queue.done(item)
                rounds += 1

        async def produce(worker: int) -> None:
            for n in range(50):
                queue.add((n * worker) % 20)
                await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(consume())
            async with asyncio.TaskGroup() as producers:
                for worker in range(1, 51):
                    producers.create_task(produce(worker))
            queue.shut_down()
        assert len(queue) == 0
        assert queue.statistics().adds == rounds
        assert 20 <= rounds < 2500

    virtually(main())


def test_delayed_items_come_exactly_at_their_times() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        seen: list[tuple[float, str]] = []
        worker = asyncio.create_task(work(queue, seen))
        queue.add_after("late", 30.0)
        queue.add_after("early", 1.5)
        await asyncio.sleep(0.5)
        queue.add_after("late", 1.0)
        queue.add_after("late", 400.0)
        queue.add_after("same moment", 1.0)
        await asyncio.sleep(3600)
        assert seen == [(1.5, "early"), (1.5, "late"), (1.5, "same moment")]
        queue.shut_down()
        await worker

    virtually(main())


def test_delays_take_one_timer() -> None:
    loop = VirtualLoop()
    scheduled = []
    schedule = loop.call_at

    def call_at(when: float, callback: Any, *args: Any, **more: Any) -> asyncio.TimerHandle:
        scheduled.append(when)
        return schedule(when, callback, *args, **more)

    loop.call_at = call_at  # type: ignore[method-assign]

    async def main() -> None:
        queue: WorkQueue[int] = WorkQueue()
        for n in range(1000):
            queue.add_after(n, 1.0 + n)
        assert scheduled == [1.0]
        queue.add_after(5000, 0.5)
        assert scheduled == [1.0, 0.5]
        assert sum(not handle.cancelled() for handle in loop._scheduled) == 1
        queue.shut_down()
        assert all(handle.cancelled() for handle in loop._scheduled)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_rate_limited_items_back_off_until_they_are_forgotten() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue(limiter=ExponentialLimiter(1.0, 60.0))
        loop = asyncio.get_running_loop()
        times = []
        for _ in range(4):
            queue.add_rate_limited("a")
            queue.done(await queue.get())
            times.append(loop.time())
        assert times == [1.0, 3.0, 7.0, 15.0]
        assert queue.requeues("a") == 4
        queue.forget("a")
        queue.add_rate_limited("a")
        assert await queue.get() == "a"
        assert loop.time() == 16.0

    virtually(main())


def test_a_delay_can_be_discarded() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue("demo")
        queue.add_after("a", 5.0)
        queue.add_after("b", 6.0)
        queue.discard_delayed("a")
        assert await queue.get() == "b"
        assert asyncio.get_running_loop().time() == pytest.approx(6.0)

    virtually(main())


def test_get_tells_the_priority() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        queue.add("b", priority=7)
        queue.add_after("c", 1.0, priority=-3)
        queue.add_rate_limited("d", priority=2)
        assert [await queue.get_with_priority() for _ in range(4)] == [
            ("b", 7),
            ("a", 0),
            ("d", 2),
            ("c", -3),
        ]

    virtually(main())


# -- the end --------------------------------------------------------------------------------------------------


def test_workers_finish_what_waits_and_end_when_the_queue_is_shut_down() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        seen: list[tuple[float, str]] = []
        workers = [asyncio.create_task(work(queue, seen, 1.0)) for _ in range(2)]
        for item in "abc":
            queue.add(item)
        queue.add_after("never", 0.5)
        await settle()
        queue.shut_down()
        assert queue.shutting_down
        queue.add("ignored")
        await asyncio.gather(*workers)
        assert seen == [(0.0, "a"), (0.0, "b"), (1.0, "c")]
        with pytest.raises(ShutDown):
            await queue.get()

    virtually(main())


def test_draining_waits_for_what_waits_and_what_is_worked_on() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        seen: list[tuple[float, str]] = []
        loop = asyncio.get_running_loop()
        worker = asyncio.create_task(work(queue, seen, 2.0))
        for item in "abc":
            queue.add(item)
        await settle()
        queue.add("a")
        assert await queue.drain()
        assert loop.time() == 8.0
        assert [item for _, item in seen] == ["a", "b", "c", "a"]
        await worker

    virtually(main())


def test_draining_an_idle_queue_takes_no_time() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        assert await queue.drain()
        queue.add("a")
        assert len(queue) == 0

    virtually(main())


def test_draining_gives_up_after_its_timeout() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        item = await queue.get()
        assert not await queue.drain(3.0)
        assert asyncio.get_running_loop().time() == 3.0
        queue.done(item)
        assert await queue.drain(3.0)

    virtually(main())


def test_shutting_down_cuts_draining_short() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        await queue.get()
        draining = [asyncio.create_task(queue.drain()) for _ in range(2)]
        await settle()
        queue.shut_down()
        assert await asyncio.gather(*draining) == [False, False]

    virtually(main())


def test_everybody_who_drains_is_told() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        item = await queue.get()
        draining = [asyncio.create_task(queue.drain(60.0)) for _ in range(3)]
        await settle()
        draining[0].cancel()
        await settle()
        queue.done(item)
        assert await asyncio.gather(*draining[1:]) == [True, True]

    virtually(main())


# -- wrong use ------------------------------------------------------------------------------------------------


def test_a_queue_belongs_to_one_event_loop() -> None:
    queue: WorkQueue[str] = WorkQueue("mine")

    async def add() -> None:
        queue.add("a")

    run_virtual(add())
    with pytest.raises(RuntimeError, match="'mine' belongs to another event loop"):
        run_virtual(add())
    with pytest.raises(RuntimeError, match="no running event loop"):
        queue.add("b")


def test_an_item_that_cannot_be_hashed_is_refused() -> None:
    async def main() -> None:
        queue: WorkQueue[Any] = WorkQueue()
        with pytest.raises(TypeError, match="unhashable"):
            queue.add([])
        with pytest.raises(TypeError, match="unhashable"):
            queue.add_after([], 1.0)
        assert len(queue) == 0

    virtually(main())


def test_the_item_is_done_even_if_the_work_fails() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        with pytest.raises(ZeroDivisionError):
            async with queue.item():
                raise ZeroDivisionError
        queue.add("a")
        assert await queue.get() == "a"

    virtually(main())


# -- metrics --------------------------------------------------------------------------------------------------


def scraped(collector: QueueCollector) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(collector)
    lines = generate_latest(registry).decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def test_metrics_have_client_gos_names_and_meanings() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue("pods")
        idle: WorkQueue[str] = WorkQueue("idle")
        collector = QueueCollector([queue, idle])
        queue.add("a")
        queue.add("b", priority=-100)
        await asyncio.sleep(3.0)
        await queue.get()
        queue.add_after("c", 60.0)
        await asyncio.sleep(2.0)
        found = scraped(collector)
        assert found['workqueue_depth{name="pods",priority="0"}'] == 0
        assert found['workqueue_depth{name="pods",priority="-100"}'] == 1
        assert found['workqueue_adds_total{name="pods"}'] == 2
        assert found['workqueue_retries_total{name="pods"}'] == 1
        assert found['workqueue_queue_duration_seconds_sum{name="pods"}'] == 3.0
        assert found['workqueue_queue_duration_seconds_bucket{le="1.0",name="pods"}'] == 0
        assert found['workqueue_queue_duration_seconds_bucket{le="10.0",name="pods"}'] == 1
        assert found['workqueue_work_duration_seconds_count{name="pods"}'] == 0
        assert found['workqueue_unfinished_work_seconds{name="pods"}'] == 2.0
        assert found['workqueue_longest_running_processor_seconds{name="pods"}'] == 2.0
        assert found['workqueue_adds_total{name="idle"}'] == 0
        queue.done("a")
        assert scraped(collector)['workqueue_work_duration_seconds_sum{name="pods"}'] == 2.0
        collector.remove(idle)
        assert not any("idle" in name for name in scraped(collector))

    virtually(main())


def test_a_name_belongs_to_one_queue_in_use() -> None:
    async def main() -> None:
        first: WorkQueue[str] = WorkQueue("pods")
        collector = QueueCollector([first, first])
        with pytest.raises(ValueError, match="another queue is called 'pods'"):
            collector.add(WorkQueue("pods"))
        with pytest.raises(ValueError, match="without a name"):
            collector.add(WorkQueue())
        first.shut_down()
        second: WorkQueue[str] = WorkQueue("pods")
        collector.add(second)
        collector.remove(first)
        second.add("a")
        assert scraped(collector)['workqueue_adds_total{name="pods"}'] == 1

    virtually(main())
