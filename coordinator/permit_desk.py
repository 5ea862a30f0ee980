"""The waiting at the `PermitBook`: asks for a permit and sleeps until it is granted.

Single-threaded like everything asyncio here: the book is only touched between awaits, so it needs no lock.
"""

from __future__ import annotations

import asyncio

from ..shards.model.errors import TimedOut
from ..shards.model.partitions import PartitionId, ShardId
from .permits import Holder, LeaseId, PermitBook
from .settings import PermitSettings
from .status import PermitStatus


class PermitDesk:
    """Permits for callers that can wait."""

    def __init__(self, settings: PermitSettings, *, prefix: str = "lease") -> None:
        self._book = PermitBook(settings, prefix=prefix)
        self._changed = asyncio.Event()

    async def acquire(self, shard: ShardId, partition: PartitionId, timeout_s: float = 30.0) -> LeaseId:
        """Waits for a permit, first come first served.

        Raises:
            TimedOut: not granted within `timeout_s`.
        """
        loop = asyncio.get_running_loop()
        holder = Holder(shard, partition)
        self._book.ask(holder, loop.time())
        try:
            lease_id = await self._granted(holder, loop.time() + timeout_s)
        except asyncio.CancelledError:
            self._book.leave(holder, loop.time())
            raise
        if lease_id is None:
            self._book.leave(holder, loop.time())
            raise TimedOut(f"no permit to list {partition} within {timeout_s:g} s", retry_after_s=1)
        return lease_id

    def release(self, lease: LeaseId) -> None:
        """Gives a permit back."""
        self._book.release(lease, asyncio.get_running_loop().time())
        self._wake()

    def shard_gone(self, shard: ShardId) -> None:
        """Takes back what a shard held that died or was restarted."""
        self._book.shard_gone(shard, asyncio.get_running_loop().time())
        self._wake()

    def status(self) -> PermitStatus:
        """How many are held and waited for."""
        return self._book.status(asyncio.get_running_loop().time())

    def _wake(self) -> None:
        # Each generation of waiters has its own event, so that nobody misses a change and nobody clears it.
        self._changed.set()
        self._changed = asyncio.Event()

    async def _granted(self, holder: Holder, deadline: float) -> LeaseId | None:
        while True:
            now = asyncio.get_running_loop().time()
            lease = self._book.lease_of(holder, now)
            if lease is not None:
                return lease.lease_id
            if now >= deadline:
                return None
            self._book.ask(holder, now)  # a shard that died meanwhile lost its place; who asks is alive
            change = self._book.next_change(now)
            await self._wait(deadline - now if change is None else min(deadline - now, change))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return
