"""One reconcile at a time: calls the function, watches over it, and decides what becomes of the item.

================= =============================================================================================
the reconcile …   the item …
================= =============================================================================================
returns           is forgotten by the limiter; with `requeue_after_s` it comes again then
raises            comes again after the limiter's delay; after `retries_max` such in a row it is parked
takes `timeout_s` the same; the reconcile is cancelled
TerminalError     is parked at once
================= =============================================================================================

A parked item is tried again when an event puts it into the queue, and from the beginning. A reconcile that takes
`hung_after_s` is reported, once. A plain function runs in a thread and cannot be cancelled, so it cannot have a
timeout, and whoever stops the controller has to know of those that go on (`in_threads`).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from ...shards.model.refs import Key
from ..workqueue.queue import WorkQueue
from .errors import TerminalError
from .parking import Parked, ParkingLot
from .ports import NoTracing, Reconcile, ReconcileSpan, Requeue, Result, Tracing
from .statistics import Outcome, Tally

log = logging.getLogger("shoal.cluster.controller")


class _TimedOut(Exception):  # noqa: N818 - becomes the text of a failure
    """The reconcile took too long."""


class Reconciler:
    """Calls one reconcile function for the workers of one controller."""

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        workers: int,
        retries_max: int | None,
        timeout_s: float | None,
        hung_after_s: float,
        parked_max: int,
        on_parked: Callable[[Parked], object] | None,
    ) -> None:
        self._name = name
        self._reconcile: Callable[[Key], Any] = reconcile
        self._workers = workers
        self._retries_max = retries_max
        self._timeout_s = timeout_s
        self._hung_after_s = hung_after_s
        self._on_parked = on_parked
        self._tracing: Tracing = NoTracing()
        self._async = is_async(reconcile)
        self._threads: ThreadPoolExecutor | None = None
        self._failures: dict[Key, int] = {}
        """Failures in a row of items that are to be tried again."""
        self._lot = ParkingLot(parked_max)
        self._began: dict[Key, float] = {}
        self._hung: set[Key] = set()
        self.tally = Tally()
        self.in_threads = 0
        """Plain functions that run."""

    @property
    def parked(self) -> Mapping[Key, Parked]:
        """Items that were given up, oldest first."""
        return self._lot.parked

    @property
    def began(self) -> Mapping[Key, float]:
        """Reconciles under way, and when they began."""
        return self._began

    @property
    def hung(self) -> Sequence[Key]:
        """Those that have been under way for too long."""
        return sorted(self._hung)

    async def once(
        self,
        queue: WorkQueue[Key],
        key: Key,
        priority: int,
        causes: Sequence[object] = (),
        queue_s: float = 0.0,
    ) -> Outcome:
        """One reconcile of an item that was taken from the queue, which the caller then says is done.

        Raises:
            CancelledError: the worker was cancelled; the item is not dealt with.
        """
        loop = asyncio.get_running_loop()
        self._lot.leave(key)
        began = self._began[key] = loop.time()
        watch = loop.call_later(self._hung_after_s, self._hangs, key)
        outcome: Outcome = "cancelled"
        try:
            with self._tracing.reconcile(
                self._name, key, self._failures.get(key, 0), causes, queue_s
            ) as span:
                outcome = await self._told(span, queue, key, priority)
        finally:
            watch.cancel()
            del self._began[key]
            self.tally.ended(outcome, loop.time() - began)
            if key in self._hung:
                self._hung.discard(key)
                log.info("a hung reconcile has ended", extra=self._extra(key, outcome=outcome))
        return outcome

    async def _told(self, span: ReconcileSpan, queue: WorkQueue[Key], key: Key, priority: int) -> Outcome:
        """The call, what becomes of the item, and a span that is told of both."""
        error: BaseException
        try:
            result = await self._called(key)
            outcome = self._succeeded(queue, key, priority, result)
            again_s = result.requeue_after_s if outcome == "requeue_after" and result is not None else None
            span.ended(outcome, requeue="no" if again_s is None else "after", requeue_after_s=again_s)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                span.ended("cancelled")
                raise
            # Something that the reconcile waited for was cancelled; the worker was not.
            error = cancelled
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is the item's failure
            error = failure
        else:
            return outcome
        outcome = self._failed(queue, key, priority, error)
        requeue: Requeue = "parked" if key in self._lot.parked else "rate_limited"
        span.ended(outcome, error=error, requeue=requeue)
        return outcome

    def begin(self, tracing: Tracing) -> None:
        """A new run: everything is looked at afresh, and what is gone will not be told of."""
        self._tracing = tracing
        self._failures.clear()
        self._lot.clear()

    def close(self) -> None:
        """No more calls. Threads that run go on to their end."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    # -- calling ---------------------------------------------------------------------------------------------

    async def _called(self, key: Key) -> Result | None:
        if self._async:
            result = await self._bounded(self._reconcile(key))
        else:
            result = await self._in_thread(key)
            if inspect.isawaitable(result):
                # A plain function that hands back a coroutine: a lambda around an async one.
                result = await self._bounded(result)
        if result is None or isinstance(result, Result):
            return result
        raise TerminalError(
            f"the reconcile of {self._name} returned {type(result).__name__}: expected Result or None"
        )

    async def _bounded(self, call: Awaitable[Any]) -> Any:
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                return await call
        except TimeoutError as error:
            if limit.expired():
                raise _TimedOut(f"cancelled after {self._timeout_s:g} s") from error
            raise

    async def _in_thread(self, key: Key) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix=f"{self._name}-reconcile")
        self.in_threads += 1
        # NB: the count follows the thread, not who waits for it, who may be cancelled.
        call = self._threads.submit(partial(copy_context().run, self._reconcile, key))
        loop = asyncio.get_running_loop()
        call.add_done_callback(lambda _: self._thread_ended(loop))
        return await asyncio.wrap_future(call)

    def _thread_ended(self, loop: asyncio.AbstractEventLoop) -> None:
        def ended() -> None:
            self.in_threads -= 1

        if not loop.is_closed():
            loop.call_soon_threadsafe(ended)

    def _hangs(self, key: Key) -> None:
        self._hung.add(key)
        self.tally.hung_total += 1
        log.warning("a reconcile hangs", extra=self._extra(key, seconds=self._hung_after_s))

    # -- what becomes of the item ----------------------------------------------------------------------------

    def _succeeded(self, queue: WorkQueue[Key], key: Key, priority: int, result: Result | None) -> Outcome:
        queue.forget(key)
        self._failures.pop(key, None)
        if result is None or not result.requeue_after_s:
            return "success"
        queue.add_after(key, result.requeue_after_s, priority=priority)
        return "requeue_after"

    def _failed(self, queue: WorkQueue[Key], key: Key, priority: int, error: BaseException) -> Outcome:
        failures = self._failures.get(key, 0) + 1
        terminal = isinstance(error, TerminalError)
        if terminal or (self._retries_max is not None and failures > self._retries_max):
            self._park(queue, key, failures, error)
        else:
            self._failures[key] = failures
            queue.add_rate_limited(key, priority=priority)
            log.warning(
                "a reconcile failed and will be tried again",
                extra=self._extra(key, attempts=failures, error=_text(error)),
            )
        if terminal:
            return "terminal"
        return "timeout" if isinstance(error, _TimedOut) else "error"

    def _park(self, queue: WorkQueue[Key], key: Key, failures: int, error: BaseException) -> None:
        queue.forget(key)
        self._failures.pop(key, None)
        parked = Parked(
            key=key,
            error=_text(error),
            attempts=failures,
            terminal=isinstance(error, TerminalError),
            at=asyncio.get_running_loop().time(),
        )
        self._lot.park(parked)
        self.tally.parked_total += 1
        log.error(
            "an item is parked until it changes",
            extra=self._extra(key, attempts=failures, error=parked.error),
            exc_info=error,
        )
        if self._on_parked is None:
            return
        try:
            self._on_parked(parked)
        except Exception:
            log.exception("on_parked failed", extra=self._extra(key))

    def _extra(self, key: Key, **more: object) -> dict[str, object]:
        return {"controller": self._name, "key": key, **more}


def is_async(reconcile: Callable[..., Any]) -> bool:
    """Whether calling it gives something to await, as far as can be known before."""
    return inspect.iscoroutinefunction(reconcile) or inspect.iscoroutinefunction(
        getattr(reconcile, "__call__", None)  # noqa: B004 - its own, to look at, not whether there is one
    )


def _text(error: BaseException) -> str:
    if isinstance(error, _TimedOut):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
