"""Turns at sending a list: some at once in all, fewer of one user, and a bounded wait for the next.

A list in the making buffers pages of its partitions; what is not being sent must not fill the memory. A user who reads
all his lists slowly waits for himself before he keeps others waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .protection import Protection

WAIT_S = 10.0
"""How long a list waits for its turn before it is told to come back."""


class _Own:
    """The turns of one user."""

    __slots__ = ("concerned", "turns")

    def __init__(self, most: int) -> None:
        self.turns = asyncio.Semaphore(most)
        self.concerned = 0


class Turns:
    """Of one gateway."""

    def __init__(self, protection: Protection) -> None:
        self._protection = protection
        self._turns = asyncio.Semaphore(protection.limits.lists)
        self._own: dict[str, _Own] = {}
        self.taken = 0
        """Lists being sent."""

    @asynccontextmanager
    async def turn(self, user: str) -> AsyncIterator[None]:
        """Held while a list is sent.

        Raises:
            Overloaded: it did not come within `WAIT_S`.
        """
        own = self._own.setdefault(user, _Own(self._protection.limits.lists_per_user))
        own.concerned += 1
        try:
            await self._acquire(own)
            self.taken += 1
            try:
                yield
            finally:
                self.taken -= 1
                self._turns.release()
                own.turns.release()
        finally:
            own.concerned -= 1
            if not own.concerned:
                del self._own[user]

    async def _acquire(self, own: _Own) -> None:
        limit = "lists_per_user"
        try:
            async with asyncio.timeout(WAIT_S):
                await own.turns.acquire()
                limit = "lists"
                try:
                    await self._turns.acquire()
                except BaseException:
                    own.turns.release()
                    raise
        except TimeoutError:
            raise self._protection.refusal(limit) from None
