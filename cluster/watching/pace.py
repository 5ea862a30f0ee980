"""When what was gathered is given out: at once while that costs little, a little later while it costs much.

Most of what it costs to give events out is one write for each watcher, whether the write carries one event or ten. So
after a pass the next one waits for as long as that took, not more than `PAUSE_MAX_S`. With few watchers nobody can tell
the difference; with very many, events share their writes, and the loop keeps half of its time for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

PAUSE_MAX_S: Final = 0.01
"""What is gathered waits at most so long because of what was given out before."""


def pause_s(took_s: float) -> float:
    """How long nothing is given out after a pass that took so long."""
    return min(max(took_s, 0.0), PAUSE_MAX_S)


class Pace:
    """Calls `give_out` once for all that was asked for meanwhile. Belongs to the running event loop."""

    def __init__(self, give_out: Callable[[], None]) -> None:
        self._give_out = give_out
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._paused_until = 0.0

    @property
    def waiting(self) -> bool:
        """Whether there is a pass to come."""
        return self._handle is not None

    def soon(self) -> None:
        """There will be a pass: once the loop has taken what is there, and the pause is over."""
        if self._handle is not None:
            return
        if self._loop.time() < self._paused_until:
            self._handle = self._loop.call_at(self._paused_until, self.now)
        else:
            self._handle = self._loop.call_soon(self.now)

    def now(self) -> None:
        """A pass, pause or not."""
        self.stop()
        began = self._loop.time()
        self._give_out()
        ended = self._loop.time()
        self._paused_until = ended + pause_s(ended - began)

    def stop(self) -> None:
        """No pass is to come."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
