"""`CallingTask`: a task that calls what a program gave to it, and knows whose a cancellation is.

``asyncio.current_task().cancel()`` in a handler or in a reconcile cancels whoever calls it. The task has to go on then:
it is there for other calls, too. But it has to end when its owner wants that, or asyncio does at the end of the
program, also in the middle of a call. Who asked decides. What a call starts, tasks, timers and threads, inherits its
context: a cancellation that comes from there while the call is under way is the call's own failure, any other one ends
the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from itertools import count
from typing import Any, Final

_numbers: Final = count(1)
_within: Final[ContextVar[int]] = ContextVar("shoal_within_call", default=0)
"""The call that this is a part of: what it starts inherits it. A number, because contexts outlive calls."""
_NONE: Final = -1


class CallingTask(asyncio.Task[None]):
    """Begins at once, on the event loop that runs. Who calls says so: `enter`, `leave`, `take_back`."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
        super().__init__(coroutine, loop=asyncio.get_running_loop(), name=name)
        self._number = _NONE
        self._told_to_end = False

    def enter(self) -> None:
        """A call begins. To be called within this task, whose context is its own."""
        self._number = next(_numbers)
        _within.set(self._number)

    def leave(self) -> None:
        """The call is over."""
        self._number = _NONE

    @property
    def within(self) -> bool:
        """Whether the call that is under way asks, or something that it has started."""
        return _within.get() == self._number

    @property
    def told_to_end(self) -> bool:
        """It was cancelled by somebody else than its own call."""
        return self._told_to_end

    def cancel(self, msg: Any | None = None) -> bool:
        """As `asyncio.Task.cancel`."""
        self._told_to_end = self._told_to_end or not self.within
        return super().cancel(msg)

    async def take_back(self) -> bool:
        """Takes back what a call that is over has asked for: whether it had cancelled this task.

        Raises:
            CancelledError: the task was told to end meanwhile.
        """
        if not self.cancelling() or self._told_to_end:
            return False
        while self.cancelling():
            self.uncancel()
        # NB: before Python 3.13, a cancellation that was not raised yet is raised all the same.
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._told_to_end:
                raise
        return True
