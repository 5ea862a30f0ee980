"""What happens to what a program's own functions raise: handlers, index functions, transforms.

Whatever it is, it concerns that one call. `CancelledError` is no exception to that: a handler raises it if a future
that it waited for was cancelled. Only who asks for the program's end, on the event loop of the main thread, is heard,
as asyncio does. Everything is logged, up to a limit: a function that always fails would fill any disk.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any, Final

LOGGED_MAX: Final = 20
LOGGED_S: Final = 10.0
"""So many exceptions of one function are logged in so many seconds; the next one that is says how many were not."""


def ends_program(error: BaseException) -> bool:
    """Whether an exception that was raised in this thread is to end the program."""
    return (
        isinstance(error, (KeyboardInterrupt, SystemExit))
        and threading.current_thread() is threading.main_thread()
    )


def is_asynchronous(function: Any) -> bool:
    """Whether it is a coroutine function, or an object that is called as one."""
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
        for one in (function, getattr(function, "__call__", None))  # noqa: B004 - not whether, but what is called
    )


class LogLimit:
    """So many records in so much time."""

    def __init__(self) -> None:
        self._began, self._logged, self._unlogged = float("-inf"), 0, 0

    def admit(self, now: float | None = None) -> int | None:
        """Whether the next record is to be written: how many were not before it; None: it is not either. `now`: by the
        loop's clock, to be given where no loop runs.
        """
        now = asyncio.get_running_loop().time() if now is None else now
        if now - self._began >= LOGGED_S:
            self._began, self._logged = now, 0
        self._logged += 1
        if self._logged > LOGGED_MAX:
            self._unlogged += 1
            return None
        unlogged, self._unlogged = self._unlogged, 0
        return unlogged
