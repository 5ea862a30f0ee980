"""Servers on an event loop of their own, in a thread: for clients that block, and for tests that share a server and
have a loop each.

What is hosted is entered and left on that loop, and reached over a socket like any server. A problem that it has is
raised where the test can see it: on entering, or, if it came later, on leaving.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, Self, TypeVar

T = TypeVar("T")

PATIENCE_S = 40.0
"""A bound for failing; everything waited for is over as soon as it happens."""


class Hosted(Generic[T]):
    """Runs what `opened` opens for as long as the block lasts; `held` is what it yielded."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[T]], *, name: str) -> None:
        self._opened = opened
        self._name = name
        self._settled = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name)
        self._held: list[T] = []

    @property
    def held(self) -> T:
        """What was opened. It lives on another loop: only what is safe from any thread may be asked of it."""
        return self._held[0]

    def __enter__(self) -> Self:
        self._thread.start()
        settled = self._settled.wait(PATIENCE_S)
        if self._problem is not None:
            raise self._problem
        assert settled, f"{self._name} does not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._end is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), f"{self._name} does not end"
        if self._problem is not None:
            raise self._problem

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as problem:  # noqa: BLE001 - raised again where the test sees it
            self._problem = problem
        finally:
            self._settled.set()

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with self._opened() as held:
            self._held.append(held)
            self._settled.set()
            await self._end.wait()
