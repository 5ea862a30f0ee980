"""How fast a work queue is: CPU for an add, a swallowed add, a delayed add, and a whole round of an item.

One process, one event loop, CPU of this thread alone: other load on the machine hardly counts. Keys are those of a
cluster's pods, and half of them are in one namespace.

    python tests/bench/queueing.py [--items 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Iterator

from shoal.cluster.workqueue.queue import WorkQueue
from shoal.shards.model.refs import Key, ref_of

ITEMS = 100_000
RUNS = 3
GOALS = {"adds_a_second": 100_000.0}
"""To reach, at least."""
NAMES = {
    "adds_a_second": "adds of new items a second",
    "same_adds_a_second": "adds of items that wait already, a second",
    "fair_adds_a_second": "adds of new items a second, fair over namespaces",
    "lifts_a_second": "adds that raise a priority, a second",
    "delays_a_second": "delayed adds a second",
    "retries_a_second": "rate-limited adds a second",
    "rounds_a_second": "rounds (add, get, done) a second",
    "fair_rounds_a_second": "rounds a second, fair over namespaces",
    "handovers_a_second": "rounds a second, each woken by its add",
}


def keys(count: int) -> list[Key]:
    """Different keys, half of them in one namespace."""
    return [Key(f"{'hot' if n % 2 else f'namespace-{n % 500}'}/pod-{n:08d}") for n in range(count)]


def namespace(key: Key) -> str:
    """The group that is fair."""
    return ref_of(key).namespace


async def _adds(items: list[Key]) -> dict[str, float]:
    found = {}
    queue: WorkQueue[Key] = WorkQueue("bench")
    with _rate(found, "adds_a_second", len(items)):
        for item in items:
            queue.add(item)
    with _rate(found, "same_adds_a_second", len(items)):
        for item in items:
            queue.add(item)
    with _rate(found, "lifts_a_second", len(items)):
        for item in items:
            queue.add(item, priority=1)
    assert len(queue) == len(items)
    with _rate(found, "delays_a_second", len(items)):
        for item in items:
            queue.add_after(item, 600.0)
    with _rate(found, "retries_a_second", len(items)):
        for item in items:
            queue.add_rate_limited(item)
    queue.shut_down()
    return found


async def _rounds(items: list[Key], prefix: str, *, fair: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    queue: WorkQueue[Key] = WorkQueue("bench", fair_by=namespace if fair else None)
    seconds = time.thread_time()
    for item in items:
        queue.add(item)
    added = time.thread_time() - seconds
    for _ in items:
        queue.done(await queue.get())
    found[f"{prefix}rounds_a_second"] = len(items) / (time.thread_time() - seconds)
    if fair:
        found["fair_adds_a_second"] = len(items) / added
    assert not len(queue)
    return found


async def _handovers(items: list[Key]) -> dict[str, float]:
    """A worker that waits for every item, and is woken for it."""
    found: dict[str, float] = {}
    queue: WorkQueue[Key] = WorkQueue("bench")
    handled = 0

    async def work() -> None:
        nonlocal handled
        while handled < len(items):
            queue.done(await queue.get())
            handled += 1

    worker = asyncio.create_task(work())
    await asyncio.sleep(0)
    with _rate(found, "handovers_a_second", len(items)):
        for item in items:
            queue.add(item)
            await asyncio.sleep(0)
        await worker
    return found


class _rate:  # noqa: N801 - reads as a statement
    def __init__(self, found: dict[str, float], name: str, count: int) -> None:
        self._found, self._name, self._count = found, name, count

    def __enter__(self) -> None:
        gc.collect()
        self._began = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self._found[self._name] = self._count / (time.thread_time() - self._began)


def measure(items: int = ITEMS) -> dict[str, float]:
    """All figures, a second of CPU; the best of a few runs, for what is slower is somebody else's."""
    different = keys(items)
    best: dict[str, float] = {"items": float(items)}
    for _ in range(RUNS):
        for part in (
            _adds(different),
            _rounds(different, "", fair=False),
            _rounds(different, "fair_", fair=True),
            _handovers(different),
        ):
            for name, value in asyncio.run(part).items():
                best[name] = max(value, best.get(name, 0.0))
    return best


def missed(found: dict[str, float]) -> list[str]:
    """Names of the figures that were not reached."""
    return [name for name, least in GOALS.items() if found[name] < least]


def rows(found: dict[str, float]) -> Iterator[tuple[str, ...]]:
    """Rows of the report: what, the figure, and what is to be reached."""
    yield (f"Work queue, {found['items']:,.0f} items", "", "")
    for name, text in NAMES.items():
        yield (text, f"{found[name]:,.0f}", f"{GOALS[name]:,.0f}" if name in GOALS else "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=ITEMS)
    measured = measure(parser.parse_args().items)
    for row in rows(measured):
        print("{:60} {:>12} {:>12}".format(*row))
    raise SystemExit(f"missed: {', '.join(missed(measured))}" if missed(measured) else 0)
