"""Virtual time: an event loop whose clock jumps to the next timer instead of waiting for it.

Everything that takes its time from the loop (`loop.time`, `asyncio.sleep`, `asyncio.timeout`) runs as fast as
it can compute, in the same order every time. Nothing in such a loop may use sockets, threads or processes. A
loop that has nothing left to do while somebody still waits raises `Deadlock` instead of hanging for ever.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_SECONDS_MAX = 30 * 24 * 3600.0
"""A month of virtual time in one test means that nothing happens any more."""


class Deadlock(AssertionError):  # noqa: N818 - what it is called everywhere
    """Everybody waits for somebody, and no timer is set."""


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: moves the clock of its loop by as long as it was asked to wait for."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock("nothing left to run, and no timer is set: somebody waits for what never comes")
        if timeout > 0:
            self.loop.now += timeout
            if self.loop.now > IDLE_SECONDS_MAX:
                raise Deadlock("a month has passed: nothing happens any more")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, which begins at 0."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.now


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` in virtual time, to its end; whatever else is still running is then cancelled.

    Raises:
        Deadlock: `main` waits for something that cannot happen.
    """
    loop = VirtualLoop()
    try:
        task = loop.create_task(main)
        try:
            return loop.run_until_complete(task)
        finally:
            left = [other for other in asyncio.all_tasks(loop) if not other.done()]
            for other in left:
                other.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
