"""`Registration`: one handler, its queue, and the task that tells it.

What it keeps true: the handler is called by one task only, one change after the other, and whatever it does concerns
no other handler and not the feed. An exception of its own, of whatever kind (`raising`), is logged with the object's
key and counted; a delivery that ends all the same is told of. Who closes from within a call, in whichever task or
thread, is known by its context, and not made to wait for that call's end. A call that runs for longer than `hung_s` is
reported, in the log and in the statistics, and not touched: nobody could know what it has done by then. A plain
function that blocks the event loop is reported when it returns.

The task is woken once for all changes that arrive in one turn of the loop, and gives others their turn after
`BURST_S` or `BURST_CHANGES`. `delivery` decides what is told; this module tells it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable
from typing import Final, Literal, NamedTuple

from ...shards.model.refs import Key
from ...shards.store.entries import Entry
from .arguments import last_of, state_of
from .calls import CallingTask
from .delivery import Change, DeliveryQueue
from .errors import InformerClosed, again
from .handlers import Callbacks
from .raising import LogLimit, ends_program
from .settings import InformerSettings
from .statistics import HandlerStatistics
from .store import object_of
from .threads import HandlerThread

log = logging.getLogger("shoal.cluster.informers")

BURST_CHANGES: Final = 64
BURST_S: Final = 0.005
CANCEL_S: Final = 5.0
"""For so long a handler that is cancelled is waited for; it may catch that, and go on for ever."""

_State = Literal["open", "draining", "closed"]


class _Call(NamedTuple):
    """A call that does not return at once."""

    key: Key
    began: float


class Registration:
    """A handler that was added to an informer. Made by `Informer.add_handler`."""

    def __init__(
        self,
        callbacks: Callbacks,
        *,
        name: str,
        informer: str,
        queue_max: int,
        resync_s: float | None,
        thread: bool,
        settings: InformerSettings,
        held: Callable[[], Iterable[Entry]],
        on_removed: Callable[[Registration], None],
        on_failed: Callable[[Registration], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.observed_at: float | None = None
        """When the change that the handler was told of last was observed, seconds of the loop's clock; within a call
        that is the change it is about. For tracing."""
        self._callbacks = callbacks
        self._informer = informer
        self._settings = settings
        self._held = held
        self._on_removed = on_removed
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._queue = DeliveryQueue(queue_max)
        self._state: _State = "open"
        self._listed = False
        self._wake = asyncio.Event()
        self._idle = False
        self._synced = asyncio.Event()
        self._failure: BaseException | None = None
        self._for_now = False
        self._call: _Call | None = None
        self._hung = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._told = {"add": 0, "update": 0, "delete": 0, "resync": 0}
        self._failed = self._slow = 0
        self._names: dict[str, object] = {"informer": informer, "handler": name}
        self._limit = LogLimit()
        self._seconds = self._lag_sum_s = 0.0
        self._thread = HandlerThread(f"handler {name}") if thread else None
        self._resync_s = resync_s
        self._resync = None if resync_s is None else self._loop.call_later(resync_s, self._tell_again)
        self._task = CallingTask(self._deliver(), name=f"handler {name} of {informer}")
        self._task.add_done_callback(self._delivered)

    # -- for the informer ------------------------------------------------------------------------------------

    def offer(self, change: Change) -> None:
        """Puts a change into the handler's queue."""
        self._queue.offer(change)
        if self._idle:
            self._idle = False
            self._wake.set()

    @property
    def pending(self) -> int:
        """Changes that wait."""
        return len(self._queue)

    def listed(self) -> None:
        """Everything there was at first has been offered."""
        if self._for_now and self._state == "open":
            self._failure, self._for_now = None, False
            self._synced.clear()
        self._listed = True
        self._settle()

    def fail(self, error: BaseException, *, for_now: bool = False) -> None:
        """There will be nothing, or nothing is in sight: who waits for it is told why."""
        self._failure, self._for_now = error, for_now
        self._synced.set()

    @property
    def calling(self) -> bool:
        """Whether a call of the handler, which has not returned, asks."""
        return self._call is not None and self._task.within

    async def close(self, drain_s: float) -> None:
        """Tells what is pending for so many seconds, then ends; a call that is running then is cancelled."""
        if self._state == "open":
            self._state = "draining" if drain_s > 0 else "closed"
        self._end_timers()
        self._wake.set()
        if self.calling:
            # Its task ends after this call.
            self._state = "closed"
            return
        if drain_s > 0:
            await asyncio.wait([self._task], timeout=drain_s)
        left = len(self._queue)
        self._state = "closed"
        self._wake.set()
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CANCEL_S)
            if not self._task.done():
                log.error("handler cannot be cancelled", extra=self._names)
        if left and drain_s > 0:
            log.warning("handler was not told of everything", extra={**self._names, "left": left})
        self._ended()

    # -- for whoever added it --------------------------------------------------------------------------------

    @property
    def has_synced(self) -> bool:
        """The handler has been told of everything there was at first."""
        return self._synced.is_set() and self._failure is None

    async def synced(self) -> None:
        """Waits until the handler has been told of everything there was when it was added, or in the first list.

        Raises:
            UnknownResource, BadRequest: as `Informer.synced`. If the resource appears all the same, because others wait
                for it, this may be called again.
            InformerClosed: it was removed, or the informer closed, before that.
        """
        while not self._synced.is_set():
            await self._synced.wait()
        if self._failure is not None:
            raise again(self._failure)

    async def remove(self) -> None:
        """Nothing more is told. Returns when the handler's last call has; one that does not return within
        `InformerSettings.drain_s` is cancelled. Safe to repeat, and to call from the handler itself.
        """
        self._on_removed(self)
        self._queue.clear()
        await self.close(self._settings.drain_s)

    @property
    def statistics(self) -> HandlerStatistics:
        """Now."""
        queue, call, now = self._queue, self._call, self._loop.time()
        oldest_at = queue.oldest_at
        return HandlerStatistics(
            name=self.name,
            queued=len(queue),
            merging=queue.merging,
            coalesced=queue.coalesced,
            adds=self._told["add"],
            updates=self._told["update"],
            deletes=self._told["delete"],
            resyncs=self._told["resync"],
            failed=self._failed,
            slow=self._slow,
            seconds=self._seconds,
            hung_s=now - call.began if call is not None and self._hung else None,
            hung_key=call.key if call is not None and self._hung else None,
            lag_s=0.0 if oldest_at is None else max(0.0, now - oldest_at),
            lag_sum_s=self._lag_sum_s,
            synced=self.has_synced,
        )

    # -- telling ---------------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        queue = self._queue
        try:
            while self._state != "closed":
                if not len(queue):
                    if self._state == "draining":
                        return
                    self._idle = True
                    await self._wake.wait()
                    self._wake.clear()
                elif self._thread is not None:
                    if (change := queue.take()) is not None:
                        self._task.enter()
                        began = self._loop.time()
                        await self._await(change, began, self._in_thread(self._thread, change, began))
                elif (pending := self._burst()) is not None:
                    await self._await(*pending)
                else:
                    await asyncio.sleep(0)
        finally:
            self._ended()

    def _burst(self) -> tuple[Change, float, Awaitable[object] | None] | None:
        """Calls the handler for some changes; returns early with a call that is to be awaited, or that has cancelled
        this task.
        """
        queue, task, time = self._queue, self._task, self._loop.time
        now = time()
        until = now + BURST_S
        for _ in range(BURST_CHANGES):
            change = queue.take()
            if change is None or self._state == "closed":
                break
            began = now
            task.enter()
            outcome = self._tell(change, began)
            now = time()
            # A plain function may return anything: what a lambda's expression gives.
            if outcome is not None and isawaitable(outcome):
                return change, began, outcome
            if task.cancelling():
                return change, began, None
            task.leave()
            self._account(change, now - began)
            if now > until:
                break
        return None

    def _tell(self, change: Change, now: float) -> object:
        """One call; what it returned. A plain function has run by then, others are still to be awaited."""
        before, after, told = change.before, change.after, self._told
        callbacks = self._callbacks
        self.observed_at = change.at
        self._lag_sum_s += now - change.at
        try:
            if before is None:
                told["add"] += 1
                if callbacks.on_add is not None and after is not None:
                    return callbacks.on_add(state_of(change, after), change.initial)
            elif after is None:
                told["delete"] += 1
                if callbacks.on_delete is not None:
                    return callbacks.on_delete(*last_of(change, before))
            else:
                told["resync" if before is after else "update"] += 1
                if callbacks.on_update is not None:
                    new = state_of(change, after)
                    return callbacks.on_update(new if before is after else object_of(before), new)
        except BaseException as error:
            # The loop cancels this task in an await only, never here.
            if ends_program(error) and self._thread is None:
                raise
            self._raised(change, error)
        return None

    def _is_ended(self, error: BaseException) -> bool:
        """Whether an exception that came out of an await was thrown into this task, and not by the handler."""
        match error:
            case asyncio.CancelledError():
                return self._task.told_to_end
            case GeneratorExit():
                # By the garbage collector, which is no task, or is within another one.
                return not self._loop.is_running() or asyncio.current_task(self._loop) is not self._task
            case _:
                return False

    async def _await(self, change: Change, began: float, outcome: Awaitable[object] | None) -> None:
        """The rest of a call that takes longer, or that has cancelled this task: its failure, and taken back."""
        self._begin(change, began)
        error: BaseException | None = None
        try:
            if outcome is not None:
                await outcome
        except BaseException as raised:
            if ends_program(raised) or self._is_ended(raised):
                raise
            error = raised
        finally:
            self._call = None
            self._task.leave()
        if await self._task.take_back() and error is None:
            error = asyncio.CancelledError("the handler cancelled its own task")
        if error is not None:
            self._raised(change, error)
        self._account(change, self._loop.time() - began)

    async def _in_thread(self, thread: HandlerThread, change: Change, began: float) -> None:
        """A call in the handler's thread; what it returns is awaited here, if it can be."""
        outcomes: list[object] = []
        error = await thread.call(lambda: outcomes.append(self._tell(change, began)))
        if error is not None:
            self._raised(change, error)
        for outcome in outcomes:
            if outcome is not None and isawaitable(outcome):
                await outcome

    def _account(self, change: Change, seconds: float) -> None:
        """A change has been told."""
        self._seconds += seconds
        if seconds >= self._settings.slow_s:
            self._slow += 1
            self._report_slow(change, seconds)
        if change.initial:
            self._queue.done(change)
            self._settle()

    def _settle(self) -> None:
        if self._listed and not self._queue.initial_pending and self._state != "closed":
            self._synced.set()

    def _raised(self, change: Change, error: BaseException) -> None:
        self._failed += 1
        if (unlogged := self._limit.admit(self._loop.time())) is not None:
            log.error("handler raised", exc_info=error, extra={**self._about(change), "unlogged": unlogged})

    # -- what takes long -------------------------------------------------------------------------------------

    def _begin(self, change: Change, began: float) -> None:
        self._call = _Call(change.key, began)
        self._hung = False
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._settings.hung_s, self._look)

    def _look(self) -> None:
        """Reports a call that hangs. One timer serves many calls: it is set again only while there is one."""
        self._watchdog = None
        call = self._call
        if call is None or self._hung:
            return
        running_s = self._loop.time() - call.began
        left_s = self._settings.hung_s - running_s
        if left_s > 0:
            self._watchdog = self._loop.call_later(left_s, self._look)
            return
        self._hung = True
        log.warning("handler hangs", extra={**self._names, "key": call.key, "seconds": running_s})

    def _report_slow(self, change: Change, seconds: float) -> None:
        if seconds < self._settings.hung_s:
            return
        blocked = not self._hung
        self._hung = False
        log.warning(
            "handler blocked the event loop" if blocked else "handler has returned",
            extra={**self._about(change), "seconds": seconds},
        )

    def _about(self, change: Change) -> dict[str, object]:
        event = "add" if change.before is None else "delete" if change.after is None else "update"
        return {**self._names, "event": event, "key": change.key}

    # -- resync and end --------------------------------------------------------------------------------------

    def _tell_again(self) -> None:
        assert self._resync_s is not None
        self._resync = self._loop.call_later(self._resync_s, self._tell_again)
        now, oldest_at = self._loop.time(), self._queue.oldest_at
        # Who is behind by more than a period would never catch up.
        if (
            self._listed
            and not self._queue.merging
            and (oldest_at is None or now - oldest_at < self._resync_s)
        ):
            for entry in self._held():
                self.offer(Change(entry.key, entry, entry, now))

    def _end_timers(self) -> None:
        for timer in (self._resync, self._watchdog):
            if timer is not None:
                timer.cancel()
        self._resync = self._watchdog = None

    def _delivered(self, task: asyncio.Task[None]) -> None:
        """The task has ended, as it should, or by something that nobody foresaw."""
        error = None if task.cancelled() else task.exception()
        if self._state != "open":
            return
        self._state = "closed"
        log.error("handler ended although it was not removed", exc_info=error, extra=self._names)
        self._on_failed(self)

    def _ended(self) -> None:
        self._end_timers()
        self._queue.clear()
        if self._thread is not None:
            self._thread.close()
        if not self._synced.is_set():
            how = "ended although it was not" if self._state == "open" else "was"
            text = f"handler {self.name} of {self._informer} {how} removed before it was synced"
            self.fail(InformerClosed(text))
