"""Keeping the state file: last good states and what people were told, soon after they have changed.

The file is one, and replaced as a whole, so that both are of the same moment. A disk that is full keeps nothing from
being monitored: it is tried again.
"""

from __future__ import annotations

import asyncio
import logging

from .files import write_state
from .lastgood import LastGood
from .told import Told

log = logging.getLogger("gateway_monitor")


class StateFile:
    """Written by `run` and `save`, if anything has changed since it was written."""

    def __init__(self, path: str, good: LastGood, told: Told, *, every_s: float) -> None:
        """An empty path: nothing is kept. `every_s`: at most so often."""
        self._path = path
        self._good = good
        self._told = told
        self._every_s = every_s
        self._saved = (0, 0)

    async def run(self) -> None:
        """Saves until cancelled; writing does not hold up the loop."""
        while True:
            await asyncio.sleep(self._every_s)
            if self._path:
                await asyncio.to_thread(self._write, *self._unsaved())

    def save(self) -> None:
        """Saves at once."""
        if self._path:
            self._write(*self._unsaved())

    def _unsaved(self) -> tuple[bytes | None, tuple[int, int]]:
        changes = self._good.changes, self._told.changes
        if changes == self._saved:
            return None, changes
        return self._good.encode(self._told.entries()), changes

    def _write(self, encoded: bytes | None, changes: tuple[int, int]) -> None:
        if encoded is None:
            return
        try:
            write_state(self._path, encoded)
        except OSError as error:
            extra = {"path": self._path, "reason": error.strerror}
            log.error("state file not written", extra=extra)  # noqa: TRY400 - the reason says it all
        else:
            self._saved = changes
