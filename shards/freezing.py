"""A partition that stands still at the shard that hands it over: what those are told who want more than it has.

From the moment a shard has said how far it is (`HandedOver`) until everybody is sent to its successor, it must not know
more than it said: readers would then be shown what the successor may not have yet, and go back. What it has it goes on
serving. A reader who demands more is better off with the successor. The successor serves within milliseconds as a rule,
and routers wait `ROUTES_S` for the routes that say so when they are told `NotServed`; so that is what they are told, at
once. When the switch takes longer than that, routers come a second time and would give up at another `NotServed`. By
then whoever asks is kept waiting as for any version that is not reached yet, until the partition is followed again, is
released, or the time is up; and then it is `NotServed` again, never "too large": the successor may well have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .model.errors import ShoalError

ROUTES_S = 1.0
"""How long routers wait for newer routes (``cluster/query/rerouting.py``, `REFRESH_S`)."""


class Frozen:
    """From when on a partition stands still, and who waits for the end of that."""

    def __init__(self, refusal: Callable[[], ShoalError]) -> None:
        self._since = asyncio.get_running_loop().time()
        self._refusal = refusal
        self._refused = False
        self._over = asyncio.Event()

    async def outlasted(self, wait_s: float) -> float:
        """Returns once the partition is followed again, with what is left of `wait_s` seconds.

        Raises:
            NotServed: ask the successor.
        """
        now = asyncio.get_running_loop().time
        began = now()
        if began - self._since < ROUTES_S:
            raise self._refusal()
        try:
            async with asyncio.timeout(wait_s):
                await self._over.wait()
        except TimeoutError:
            raise self._refusal() from None
        if self._refused:
            raise self._refusal()
        return max(0.0, began + wait_s - now())

    def end(self, *, released: bool) -> None:
        """It is over: followed again, or `released`."""
        self._refused = released
        self._over.set()
