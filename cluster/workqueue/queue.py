"""`WorkQueue`: the queue's asyncio face. Waiting workers, one timer for all delays, draining.

`core` decides; this waits. A queue belongs to the event loop that uses it first and is used from that loop alone:
from another thread, ``loop.call_soon_threadsafe(queue.add, item)``. `add` and its kin never wait, so they can be
called from anywhere in the loop, event handlers above all.

`get` does not give way to other tasks while items wait, as `asyncio.Queue` does not: a worker that never waits for
anything else has to ``await asyncio.sleep(0)`` now and then (`cluster.controller` does).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

from .core import QueueCore
from .lanes import Waiting
from .limiters import RateLimiter, default_limiter
from .statistics import QueueStatistics

T = TypeVar("T", bound=Hashable)


class ShutDown(Exception):  # noqa: N818 - not an error: the worker's work is over
    """The queue was shut down and nothing waits in it any more."""


class WorkQueue(Generic[T]):
    """A queue of items to work on, each once at a time, with client-go's semantics.

    `name` is what metrics call it; `limiter` decides about delays of `add_rate_limited` (`default_limiter` if not
    given); `fair_by` names the group of an item, and groups of equal priority take turns.
    """

    def __init__(
        self,
        name: str = "",
        *,
        limiter: RateLimiter[T] | None = None,
        fair_by: Callable[[T], Hashable] | None = None,
    ) -> None:
        self.name = name
        self._core: QueueCore[T] = QueueCore(default_limiter() if limiter is None else limiter, fair_by)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._getters: deque[asyncio.Future[None]] = deque()
        self._drainers: set[asyncio.Future[bool]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Items that wait for a worker: not those being worked on, nor those whose time has not come."""
        return len(self._core)

    @property
    def shutting_down(self) -> bool:
        """`shut_down` or `drain` was called."""
        return self._core.shutting_down

    # -- adding ----------------------------------------------------------------------------------------------

    def add(self, item: T, *, priority: int = 0) -> None:
        """The item is to be worked on; ignored once the queue is shut down.

        If it waits already this is the same add, which lifts it if `priority` is higher than what it waits with
        and never lowers it. If it is being worked on, it comes once more after `done`.
        """
        if self._core.add(item, self._now(), priority):
            self._wake()

    def add_after(self, item: T, delay_s: float, *, priority: int = 0) -> None:
        """`add` in `delay_s` seconds, or at once if that is not positive. Of two such calls the earlier time counts.

        Raises:
            ValueError: the delay is not a finite number.
        """
        if self._core.add_after(item, delay_s, self._now(), priority):
            self._wake()
        self._set_timer()

    def add_rate_limited(self, item: T, *, priority: int = 0) -> None:
        """`add_after` as long as the limiter says; it counts this as a failure of the item, until `forget`."""
        if self._core.add_rate_limited(item, self._now(), priority):
            self._wake()
        self._set_timer()

    def forget(self, item: T) -> None:
        """The item succeeded, or is given up: its failures no longer count. It stays in the queue if it is there."""
        self._core.forget(item)

    def discard_delayed(self, item: T) -> None:
        """The item does not come because of `add_after` or `add_rate_limited`. What waits for a worker stays, and so
        does what was added at once.
        """
        self._core.discard_delayed(item)

    def requeues(self, item: T) -> int:
        """Failures of the item since it was last forgotten, as its limiter counts them."""
        return self._core.requeues(item)

    # -- working ---------------------------------------------------------------------------------------------

    async def get(self) -> T:
        """Waits for the next item and takes it; `done` has to follow.

        Raises:
            ShutDown: the queue was shut down and nothing waits.
        """
        return (await self._take()).item

    async def get_with_priority(self) -> tuple[T, int]:
        """As `get`, with the priority the item waited with."""
        entry = await self._take()
        return entry.item, entry.priority

    async def take(self) -> tuple[T, int, float]:
        """As `get_with_priority`, with the seconds it waited, as `statistics` counts them."""
        entry = await self._take()
        return entry.item, entry.priority, self._now() - entry.added_at

    def done(self, item: T) -> None:
        """The item that `get` gave is worked on no longer; if it was added meanwhile, it waits again.

        Raises:
            ValueError: nobody works on the item.
        """
        if self._core.done(item, self._now()):
            self._wake()
        if self._drainers and self._core.idle:
            self._end_drains(drained=True)

    @asynccontextmanager
    async def item(self) -> AsyncIterator[T]:
        """`get` on the way in, `done` on the way out."""
        taken = await self.get()
        try:
            yield taken
        finally:
            self.done(taken)

    # -- ending ----------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Ignores adds from now on, forgets delayed items, and lets workers end once nothing waits.

        A `drain` that waits ends at once.
        """
        self._begin_end()
        self._end_drains(drained=self._core.idle)

    async def drain(self, timeout_s: float | None = None) -> bool:
        """Shuts down and waits until everything that waits, or is worked on, is done.

        Workers have to go on taking items meanwhile. False if `timeout_s` seconds were not enough, or if `shut_down`
        cut it short; the queue is shut down in any case.
        """
        self._begin_end()
        if self._core.idle:
            return True
        drained: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._drainers.add(drained)
        try:
            async with asyncio.timeout(timeout_s):
                return await drained
        except TimeoutError:
            return False
        finally:
            self._drainers.discard(drained)

    def statistics(self) -> QueueStatistics:
        """The queue at this moment; not for every item."""
        return self._core.statistics(0.0 if self._loop is None else self._loop.time())

    # -- inside ----------------------------------------------------------------------------------------------

    def _now(self) -> float:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                raise RuntimeError(
                    f"the queue {self.name!r} belongs to another event loop: use loop.call_soon_threadsafe there"
                )
            self._loop = loop
        return loop.time()

    async def _take(self) -> Waiting[T]:
        while True:
            now = self._now()
            entry = self._core.get(now)
            if entry is not None:
                return entry
            if self._core.shutting_down:
                raise ShutDown(f"the queue {self.name!r} is shut down")
            await self._woken()

    async def _woken(self) -> None:
        getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._getters.append(getter)
        try:
            await getter
        except BaseException:
            if getter.done() and not getter.cancelled():
                # Woken and cancelled at the same time: somebody else has to take what this one was woken for.
                if len(self._core):
                    self._wake()
            else:
                with suppress(ValueError):  # a wake-up after the cancellation has taken it out already
                    self._getters.remove(getter)
            raise

    def _wake(self, count: int = 1) -> None:
        getters = self._getters
        while count and getters:
            getter = getters.popleft()
            if not getter.done():
                getter.set_result(None)
                count -= 1

    def _set_timer(self) -> None:
        """One timer, for the next delayed item alone."""
        at = self._core.next_ready_at
        if at is None or self._loop is None:
            return
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._ready, at)

    def _ready(self, at: float) -> None:
        self._timer = None
        # A loop calls by its clock's resolution too early; the item is ready all the same.
        self._wake(self._core.advance(max(at, self._now())))
        self._set_timer()

    def _begin_end(self) -> None:
        self._core.shut_down()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake(len(self._getters))

    def _end_drains(self, *, drained: bool) -> None:
        for drainer in self._drainers:
            if not drainer.done():
                drainer.set_result(drained)
