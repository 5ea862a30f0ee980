"""One thread for the calls of one handler.

Not an executor: the interpreter joins an executor's threads when it ends, and a handler that hangs would keep the
program from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

_Work: TypeAlias = tuple[Callable[[], None], "asyncio.Future[None]"]


class HandlerThread:
    """Runs functions one after the other, away from the event loop that it is made on."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], None]) -> None:
        """Returns when the function has; cancelled, it leaves the function running."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._work.put((function, done))
        await done

    def close(self) -> None:
        """The thread ends with what it is at."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            function, done = work
            error: BaseException | None = None
            try:
                function()
            except BaseException as raised:  # noqa: BLE001 - handed to who called
                error = raised
            # A loop that was closed meanwhile wants to hear nothing.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_settle, done, error)


def _settle(done: asyncio.Future[None], error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
