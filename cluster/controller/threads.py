"""Threads for reconciles that are plain functions: made when all others are busy, and used again.

There are as many as functions run at a time, which is bounded by who calls. They are daemons (`informers.threads`): a
function that hangs does not keep the program from ending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..informers.threads import HandlerThread


class Threads:
    """Belongs to the event loop that it is made on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._all: list[HandlerThread] = []
        self._idle: list[HandlerThread] = []

    async def call(self, function: Callable[[], Any], *, ended: Callable[[], None]) -> Any:
        """What the function returns or raises. Cancelled, it leaves the function running.

        `ended` is called on the event loop when the function has ended, whoever still waits for it.
        """
        thread = self._idle.pop() if self._idle else self._made()
        results: list[Any] = []
        errors: list[BaseException] = []

        def free() -> None:
            ended()
            self._idle.append(thread)

        def work() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
                errors.append(error)
            # A loop that was closed meanwhile wants to hear nothing.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(free)

        await thread.call(work)
        # NB: not as the outcome of a future, which cannot be StopIteration.
        if errors:
            raise errors[0]
        return results[0]

    def close(self) -> None:
        """No more calls. Every thread ends, with what it is at."""
        for thread in self._all:
            thread.close()

    def _made(self) -> HandlerThread:
        thread = HandlerThread(f"{self._name}-{len(self._all)}")
        self._all.append(thread)
        return thread
