"""Reconcile functions that tests look at, and controllers that run while a test looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from shoal.cluster.controller.controller import Controller
from shoal.cluster.controller.ports import Result
from shoal.shards.model.refs import Key


def now() -> float:
    """The loop's time, without the noise of floats."""
    return round(asyncio.get_running_loop().time(), 6)


class Log:
    """A reconcile that writes down its calls, and does then what the test says."""

    def __init__(self, then: Callable[[Key], Any] = lambda _: None, seconds: float = 0.0) -> None:
        self.calls: list[tuple[float, Key]] = []
        self.then = then
        self.seconds = seconds
        self.busy: set[Key] = set()

    async def __call__(self, key: Key) -> Result | None:
        assert key not in self.busy, f"{key} is reconciled twice at a time"
        self.busy.add(key)
        self.calls.append((now(), key))
        try:
            await asyncio.sleep(self.seconds)
            result = self.then(key)
            return await result if asyncio.iscoroutine(result) else result
        finally:
            self.busy.discard(key)

    @property
    def keys(self) -> list[Key]:
        return [key for _, key in self.calls]


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[asyncio.Task[None]]:
    """Runs it, synced on the way in, and stopped on the way out."""
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(0.001)
    try:
        yield task
    finally:
        controller.stop()
        await task


def failing(error: Exception) -> Callable[[Key], Any]:
    """Raises it every time."""

    def fail(_: Key) -> None:
        raise error

    return fail
