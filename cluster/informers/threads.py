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
from contextvars import copy_context
from functools import partial
from typing import TypeAlias

_Work: TypeAlias = tuple[Callable[[], None], "asyncio.Future[BaseException | None]"]


class HandlerThread:
    """Runs functions one after the other, away from the event loop that it is made on."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], None]) -> BaseException | None:
        """Returns when the function has, with what it raised: a future would not take every exception, and who awaits
        it would take some for his own. The function runs in the caller's context. Cancelled, this leaves it running.
        """
        done: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._work.put((partial(copy_context().run, function), done))
        return await done

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


def _settle(done: asyncio.Future[BaseException | None], error: BaseException | None) -> None:
    if not done.done():
        done.set_result(error)
