"""`Crew`: the workers of one run, from their beginning to their end.

A worker ends when the queue is shut down and empty, or when it is told to. One that ends in any other way, by an error
of the queue's limiter say, is lost, and the run with it: it winds down and raises. Without a worker nothing in the
queue is taken any more, so nobody waits for that then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ...shards.model.refs import Key
from ..informers.calls import CallingTask
from ..workqueue.queue import WorkQueue

log = logging.getLogger("shoal.cluster.controller")

CANCEL_S = 5.0
"""How long a reconcile that was cancelled may take to end."""


class Crew:
    """Of the controller with this name, at this queue."""

    def __init__(self, name: str, queue: WorkQueue[Key]) -> None:
        self._name = name
        self._queue = queue
        self._workers: list[CallingTask] = []
        self._dismissed = False
        self._lost: list[BaseException] = []

    def start(self, count: int, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """So many of them begin."""
        for number in range(count):
            worker = CallingTask(work(), name=f"{self._name} worker {number}")
            worker.add_done_callback(self._ended)
            self._workers.append(worker)

    async def ended(self, stopping: asyncio.Task[Any]) -> None:
        """Waits until told to stop, until one is lost, or until all have ended because the queue was shut down."""
        pending: set[asyncio.Task[Any]] = set(self._workers)
        while pending and not stopping.done() and not self._lost:
            _, pending = await asyncio.wait({*pending, stopping}, return_when=asyncio.FIRST_COMPLETED)
            pending.discard(stopping)

    async def drain(self, grace_s: float) -> bool:
        """Lets them finish what is in the queue; whether they did. At once if there is none left."""
        if not self._workers:
            return True
        alive = any(not worker.done() for worker in self._workers)
        return await self._queue.drain(grace_s if alive else 0.0)

    def cancel(self) -> None:
        """Whatever they are at, they are to end."""
        self._dismissed = True
        for worker in self._workers:
            worker.cancel()

    async def dismiss(self) -> None:
        """The end of all that let themselves be ended. The queue is shut down."""
        if not self._workers:
            return
        # Those that have nothing to do end by themselves.
        await asyncio.sleep(0)
        self.cancel()
        await asyncio.wait(self._workers, timeout=CANCEL_S)

    def raise_for_lost(self) -> None:
        """Raises what ended the first worker that was lost, if one was."""
        if self._lost:
            raise self._lost[0]

    def _ended(self, worker: asyncio.Task[None]) -> None:
        error = None if worker.cancelled() else worker.exception()
        if worker.cancelled() and not self._dismissed:
            error = RuntimeError(
                f"controller {self._name}: a worker was cancelled, and not by the controller"
            )
        if error is not None:
            self._lost.append(error)
            extra = {"controller": self._name, "worker": worker.get_name()}
            log.error("a worker is lost", extra=extra, exc_info=error)
        if all(one.done() for one in self._workers):
            # Whoever waits for the queue to be drained waits in vain.
            self._queue.shut_down()
