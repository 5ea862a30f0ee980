"""From a thread that blocks to an event loop that does not: `Portal`, and what makes methods of coroutine functions.

A portal is one daemon thread with one event loop. Any number of threads may call through it; each waits for its own
call alone. `blocking`, `calling` and `iterating` are descriptors that give a twin (`Twin`) the methods of what it
stands for, with their own parameters and types: one line a method, and no second implementation.

What it keeps true: a call from a thread in which an event loop runs is refused instead of standing still; a call that
is interrupted (Ctrl-C) is cancelled on the loop too; closing ends everything that was under way, and the interpreter's
end closes what is still open.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import aclosing
from contextvars import Context, copy_context
from typing import Any, Concatenate, Final, Generic, ParamSpec, Self, TypeVar

from ...shards.model.errors import ConnectionFailed

log = logging.getLogger("shoal.cluster.client")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

CLOSE_S: Final = 10.0
"""For everything to end properly when a portal is closed, beyond what its `closes` takes; then it is left to the
interpreter's end."""


class Portal:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closing: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._closing_s = 0.0
        self._closed_by: Context | None = None
        self._closed = False
        self._ended = False
        """The loop takes nothing any more."""
        self._calls: set[Future[Any]] = set()
        self._ready = threading.Event()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._failure: BaseException | None = None
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        _open.add(self)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def closes(self, function: Callable[[], Coroutine[Any, Any, None]], seconds: float = 0.0) -> None:
        """Has `close` await this first, which may take so many seconds."""
        self._closing, self._closing_s = function, seconds

    def run(self, function: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """What the coroutine returns, or raises. It runs in the caller's context.

        Raises:
            RuntimeError: an event loop runs in this thread, or the portal belongs to another process.
            ConnectionFailed: the portal was closed.
        """
        self._check()
        # There before anything is begun: an interrupt may come at any moment from then on.
        future: Future[R] = Future()
        try:
            with self._lock:
                if self._ended:
                    future.set_exception(self._was_closed())
                else:
                    self._calls.add(future)
                    self._loop.call_soon_threadsafe(self._begin, function, future)
            return future.result()
        except CancelledError:
            if self._closed or self._ended:
                raise self._was_closed() from None
            raise
        except BaseException:
            # NB: of a result that is there already this does nothing.
            future.cancel()
            raise
        finally:
            with self._lock:
                self._calls.discard(future)

    def _begin(self, function: Callable[[], Coroutine[Any, Any, R]], future: Future[R]) -> None:
        """Begins a call on the loop, unless its caller has been interrupted by now."""
        if future.cancelled():
            return
        begun = asyncio.run_coroutine_threadsafe(function(), self._loop)

        def ended(_: Future[R]) -> None:
            # The caller may give up while its call ends.
            with contextlib.suppress(InvalidStateError):
                if begun.cancelled():
                    future.cancel()
                elif (error := begun.exception()) is not None:
                    future.set_exception(error)
                else:
                    future.set_result(begun.result())

        def given_up(_: Future[R]) -> None:
            if future.cancelled():
                begun.cancel()

        begun.add_done_callback(ended)
        future.add_done_callback(given_up)

    def call(self, function: Callable[[], R]) -> R:
        """What a function returns, or raises, that is to be called on the loop and does not wait. Raises as `run`."""

        async def called() -> R:
            return function()

        return self.run(called)

    def soon(self, function: Callable[[], object]) -> None:
        """Has a function called on the loop, if there still is one; from anywhere, finalizers included."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """Ends everything, in the caller's context, then the thread. Safe to repeat.

        Raises:
            RuntimeError: it is called on the loop itself, which would wait for its own end.
        """
        if self._process != os.getpid():
            return
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{self._name} cannot be closed from its own event loop")
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._closed_by = copy_context()
        self.soon(self._stop.set)
        limit_s = self._closing_s + CLOSE_S
        self._thread.join(limit_s)
        if self._thread.is_alive():
            log.warning("client does not end in time", extra={"client": self._name, "seconds": limit_s})

    def _check(self) -> None:
        if self._process != os.getpid():
            raise RuntimeError(
                f"{self._name} was made in another process: threads do not survive a fork; make one in each process"
            )
        if self._closed:
            raise self._was_closed()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise RuntimeError(
            f"{self._name} blocks, and an event loop runs in this thread, which would stand still: use shoal.connect "
            "or shoal.local here, or call it in a thread (await asyncio.to_thread(...))"
        )

    def _was_closed(self) -> ConnectionFailed:
        error = ConnectionFailed(f"{self._name} was closed")
        error.sent = False
        return error

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised where the portal is made, or of no use to anybody
            self._failure = error
        finally:
            # What came too late for the loop's last turn would be waited for in vain.
            with self._lock:
                self._ended = True
                calls = list(self._calls)
            for call in calls:
                call.cancel()
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stop.wait()
        if self._closing is not None:
            try:
                async with asyncio.timeout(self._closing_s + CLOSE_S / 2):
                    await self._loop.create_task(
                        self._closing(), name=f"close {self._name}", context=self._closed_by
                    )
            except Exception as error:  # noqa: BLE001 - whatever it was, the thread has to end
                log.warning(
                    "client did not end properly", extra={"client": self._name, "problem": repr(error)}
                )


_open: Final[weakref.WeakSet[Portal]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # Daemon threads are frozen wherever they stand; sessions and tasks would complain about that.
    for portal in list(_open):
        portal.close()


class Twin(Generic[T]):
    """Stands for an object that lives on a portal's loop."""

    def __init__(self, portal: Portal, it: T) -> None:
        self._portal = portal
        self._it = it

    def __repr__(self) -> str:
        return f"<blocking {self._it!r}>"


class _Wrapped(Generic[P, R]):
    """What the descriptors have in common: name and documentation are the method's own."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__
        self.__name__ = method.__name__
        self.__wrapped__ = method

    def __get__(self, twin: Twin[Any], owner: type | None = None) -> Callable[P, R]:
        if twin is None:
            return self

        @functools.wraps(self._method)
        def bound(*args: P.args, **kwargs: P.kwargs) -> R:
            return self._called(twin, functools.partial(self._method, twin._it, *args, **kwargs))  # noqa: SLF001

        return bound

    def _called(self, twin: Twin[Any], call: Callable[[], Any]) -> R:
        raise NotImplementedError


class blocking(_Wrapped[P, R]):  # noqa: N801 - reads as a decorator
    """The method that waits for a coroutine method: ``list = blocking(Lister.list)``."""

    def __init__(self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> None:
        super().__init__(method)

    def _called(self, twin: Twin[Any], call: Callable[[], Any]) -> R:
        result: R = twin._portal.run(call)  # noqa: SLF001 - of one piece with its twins
        return result


class calling(_Wrapped[P, R]):  # noqa: N801
    """The method that has a plain method called on the loop, which alone may touch what it touches."""

    def __init__(self, method: Callable[Concatenate[Any, P], R]) -> None:
        super().__init__(method)

    def _called(self, twin: Twin[Any], call: Callable[[], Any]) -> R:
        result: R = twin._portal.call(call)  # noqa: SLF001
        return result


class iterating(_Wrapped[P, "BlockingIterator[T]"], Generic[P, T]):  # noqa: N801
    """The method that gives an iterator for an asynchronous one, which is at most `ahead` elements ahead of it."""

    def __init__(self, method: Callable[Concatenate[Any, P], AsyncGenerator[T, None]], *, ahead: int) -> None:
        super().__init__(method)
        self._ahead = ahead

    def _called(self, twin: Twin[Any], call: Callable[[], Any]) -> BlockingIterator[T]:
        return BlockingIterator(twin._portal, call, self._ahead)  # noqa: SLF001


# -- iterators -----------------------------------------------------------------------------------------------


class _Pump(Generic[T]):
    """Takes from an asynchronous generator, on the loop, and stops when so many elements wait."""

    def __init__(self, source: AsyncGenerator[T, None], ahead: int) -> None:
        self._source = source
        self._ahead = ahead
        self._waiting: deque[T] = deque()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._error: BaseException | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name="read ahead")

    async def _run(self) -> None:
        try:
            async with aclosing(self._source) as source:
                async for element in source:
                    self._waiting.append(element)
                    self._changed.set()
                    while len(self._waiting) >= self._ahead:
                        self._taken.clear()
                        await self._taken.wait()
        except BaseException as error:  # noqa: BLE001 - told to who takes, after what came before it
            self._error = error
        finally:
            self._changed.set()

    async def take(self) -> list[T]:
        """What waits, at least one element; none at the end. Raises what the generator raised."""
        while not self._waiting and not self._task.done():
            self._changed.clear()
            await self._changed.wait()
        found = list(self._waiting)
        self._waiting.clear()
        self._taken.set()
        if not found and self._error is not None and not isinstance(self._error, asyncio.CancelledError):
            raise self._error
        return found

    async def close(self) -> None:
        """Ends the generator."""
        self._task.cancel()
        await asyncio.wait([self._task])

    def cancel(self) -> None:
        """The same without waiting for it."""
        self._task.cancel()


class BlockingIterator(Iterator[T]):
    """An iterator whose elements come from a loop, a few ahead of who takes them. For one thread at a time.

    Close it, or leave it to the garbage collector, if it is not taken to its end.
    """

    def __init__(self, portal: Portal, source: Callable[[], AsyncGenerator[T, None]], ahead: int) -> None:
        self._portal = portal
        self._here: deque[T] = deque()
        self._pump: _Pump[T] | None = None
        self._pump = portal.call(lambda: _Pump(source(), ahead))

    def __next__(self) -> T:
        if not self._here:
            pump = self._pump
            if pump is None:
                raise StopIteration
            try:
                self._here.extend(self._portal.run(pump.take))
            except BaseException:
                self._end()
                raise
            if not self._here:
                self._pump = None
                raise StopIteration
        return self._here.popleft()

    def close(self) -> None:
        """Ends it: nothing more is read."""
        self._here.clear()
        pump, self._pump = self._pump, None
        if pump is not None and not self._portal.closed:
            self._portal.run(pump.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        pump, self._pump = self._pump, None
        if pump is not None:
            self._portal.soon(pump.cancel)
