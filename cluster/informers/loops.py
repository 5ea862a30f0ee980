"""`OneLoop`: notices that something is used on two event loops, before tasks wait for what another loop would do."""

from __future__ import annotations

import asyncio


class OneLoop:
    """Belongs to the event loop that uses it first.

    Args:
        what: That belongs to it, as messages call it.
        advice: What to do.
    """

    def __init__(self, what: str, advice: str) -> None:
        self._what = what
        self._advice = advice
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether another loop than the running one has used it."""
        return self._loop is not None and self._loop is not asyncio.get_running_loop()

    @property
    def ended(self) -> bool:
        """Whether the loop that has used it is over, and its tasks with it."""
        return self._loop is not None and self._loop.is_closed()

    def require(self) -> None:
        """It is used.

        Raises:
            RuntimeError: on another event loop than before, or without any.
        """
        if self.elsewhere:
            raise RuntimeError(
                f"{self._what} belongs to another event loop (asyncio.run makes a new one each time): {self._advice}"
            )
        self._loop = asyncio.get_running_loop()
