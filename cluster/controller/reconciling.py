"""One reconcile at a time: calls the function, watches over it, and decides what becomes of the item.

================= =============================================================================================
the reconcile …   the item …
================= =============================================================================================
returns           is forgotten by the limiter; with `requeue_after_s` it comes again then
raises            comes again after the limiter's delay; after `retries_max` such in a row it is parked
takes `timeout_s` the same; the reconcile is cancelled
TerminalError     is parked at once (`errors.is_terminal`: in a group, or as a cause, too)
================= =============================================================================================

A parked item is tried again, from the beginning, when something puts it into the queue: an event, the repetition of
one (`Source.resync_s`), `Controller.enqueue`; not when a delay from before is over. A reconcile that takes
`hung_after_s` is reported, once. One that cancels its own task has failed. A plain function runs in a thread and cannot
be cancelled, so it cannot have a timeout, and whoever stops the controller has to know of those that go on (`rounds`).

There is a new `Reconciler` in every run, so that what an earlier run left behind, and what its stragglers come to, is
nothing to it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from ...shards.model.refs import Key
from ..informers.calls import CallingTask
from ..workqueue.queue import WorkQueue
from .errors import TerminalError, is_terminal
from .parking import Parked, ParkingLot
from .ports import NoTracing, Reconcile, ReconcileSpan, Requeue, Result, Tracing
from .rounds import Round, Rounds
from .statistics import Outcome
from .threads import Threads

log = logging.getLogger("shoal.cluster.controller")

ON_PARKED_S = 10.0
"""How long an async `on_parked` may take. Its worker waits for it."""


class _TimedOut(Exception):  # noqa: N818 - becomes the text of a failure
    """The reconcile took too long."""


class Reconciler:
    """Calls one reconcile function for the workers of one run of a controller, whose tasks are `CallingTask`."""

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        rounds: Rounds,
        *,
        retries_max: int | None,
        timeout_s: float | None,
        parked_max: int,
        on_parked: Callable[[Parked], object] | None,
        tracing: Tracing | None = None,
    ) -> None:
        self._name = name
        self._reconcile: Callable[[Key], Any] = reconcile
        self._rounds = rounds
        self._retries_max = retries_max
        self._timeout_s = timeout_s
        self._on_parked = on_parked
        self._tracing: Tracing = tracing or NoTracing()
        self._async = is_async(reconcile)
        self._threads: Threads | None = None
        self._failures: dict[Key, int] = {}
        """Failures in a row of items that are to be tried again."""
        self._lot = ParkingLot(parked_max)
        self._closed = False

    @property
    def parked(self) -> Mapping[Key, Parked]:
        """Items that were given up, oldest first."""
        return self._lot.parked

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
        self._lot.leave(key)
        round_ = self._rounds.begin(key)
        outcome: Outcome = "cancelled"
        try:
            with self._tracing.reconcile(
                self._name, key, self._failures.get(key, 0), causes, queue_s
            ) as span:
                outcome, parked = await self._told(span, queue, round_, priority)
                if parked is not None:
                    await self._tell_of_parked(parked)
        finally:
            self._rounds.end(round_, outcome)
        return outcome

    async def _told(
        self, span: ReconcileSpan, queue: WorkQueue[Key], round_: Round, priority: int
    ) -> tuple[Outcome, Parked | None]:
        """The call, what becomes of the item, and a span that is told of both."""
        error: BaseException
        worker, key = asyncio.current_task(), round_.key
        assert isinstance(worker, CallingTask)
        try:
            result = await self._called_by(worker, round_)
            outcome = self._succeeded(queue, key, priority, result)
            again_s = result.requeue_after_s if outcome == "requeue_after" and result is not None else None
            span.ended(outcome, requeue="no" if again_s is None else "after", requeue_after_s=again_s)
        except asyncio.CancelledError as cancelled:
            if worker.told_to_end:
                span.ended("cancelled")
                raise
            # Something that the reconcile waited for was cancelled, or it did that itself; the worker was not.
            error = cancelled
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is the item's failure
            error = failure
        else:
            return outcome, None
        outcome, parked = self._failed(queue, key, priority, error)
        requeue: Requeue = "rate_limited" if parked is None else "parked"
        span.ended(outcome, error=error, requeue=requeue)
        return outcome, parked

    def close(self) -> None:
        """No more calls, and nothing is parked. Threads that run go on to their end."""
        self._closed = True
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    # -- calling ---------------------------------------------------------------------------------------------

    async def _called_by(self, worker: CallingTask, round_: Round) -> Result | None:
        worker.enter()
        try:
            return await self._called(round_)
        finally:
            worker.leave()
            if await worker.take_back():
                raise asyncio.CancelledError("the reconcile cancelled its own task")

    async def _called(self, round_: Round) -> Result | None:
        if self._async:
            result = await self._bounded(self._reconcile(round_.key))
        else:
            result = await self._in_thread(round_)
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

    async def _in_thread(self, round_: Round) -> Any:
        if self._threads is None:
            self._threads = Threads(f"{self._name}-reconcile")
        round_.in_thread = True
        # NB: it ends with the thread, not with who waits for it, who may be cancelled.
        return await self._threads.call(
            partial(copy_context().run, self._reconcile, round_.key),
            ended=partial(self._rounds.thread_ended, round_),
        )

    # -- what becomes of the item ----------------------------------------------------------------------------

    def _succeeded(self, queue: WorkQueue[Key], key: Key, priority: int, result: Result | None) -> Outcome:
        queue.forget(key)
        self._failures.pop(key, None)
        if result is None or not result.requeue_after_s:
            return "success"
        queue.add_after(key, result.requeue_after_s, priority=priority)
        return "requeue_after"

    def _failed(
        self, queue: WorkQueue[Key], key: Key, priority: int, error: BaseException
    ) -> tuple[Outcome, Parked | None]:
        failures, parked = self._failures.get(key, 0) + 1, None
        terminal = is_terminal(error)
        if not self._closed and (
            terminal or (self._retries_max is not None and failures > self._retries_max)
        ):
            parked = self._park(queue, key, failures, error)
        else:
            self._failures[key] = failures
            queue.add_rate_limited(key, priority=priority)
            log.warning(
                "a reconcile failed and will be tried again",
                extra=self._extra(key, attempts=failures, error=_text(error)),
            )
        if terminal:
            return "terminal", parked
        return "timeout" if isinstance(error, _TimedOut) else "error", parked

    def _park(self, queue: WorkQueue[Key], key: Key, failures: int, error: BaseException) -> Parked:
        queue.forget(key)
        # What was to come without a reason of its own: a look that an earlier reconcile asked for.
        queue.discard_delayed(key)
        self._failures.pop(key, None)
        parked = Parked(
            key=key,
            error=_text(error),
            attempts=failures,
            terminal=is_terminal(error),
            at=asyncio.get_running_loop().time(),
        )
        self._lot.park(parked)
        self._rounds.tally.parked_total += 1
        log.error(
            "an item is parked until it changes",
            extra=self._extra(key, attempts=failures, error=parked.error),
            exc_info=error,
        )
        return parked

    async def _tell_of_parked(self, parked: Parked) -> None:
        """Before the item is done, so that whoever is told is told in order."""
        if self._on_parked is None:
            return
        try:
            told = self._on_parked(parked)
            if inspect.isawaitable(told):
                async with asyncio.timeout(ON_PARKED_S):
                    await told
        except Exception:
            log.exception("on_parked failed", extra=self._extra(parked.key))

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
