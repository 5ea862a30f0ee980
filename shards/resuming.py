"""A partition that comes back from a snapshot: read, followed on from there, and served when it has caught up.

What it keeps true: nobody reads backwards. What a snapshot has is older than what this shard, or another that held the
partition meanwhile, showed before. So it is served when it has come as far as the API server was when it was asked
after the reading: nothing newer had been shown by then. And nobody knows what was let be shown meanwhile of its
siblings: the past begins with the snapshot, as with a first list (`PartitionStore.resume`), and whoever resumes a watch
from before that moment is told to list again where that matters.

`Loading` stands for the partition until it is read, `CatchingUp` goes on beside it then. Neither ever fails: without a
snapshot there is a list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from .handle import Assignment
from .model.errors import NotReady, ShoalError
from .model.partitions import Epoch, PartitionId
from .model.queries import PartitionStatistics
from .model.transfers import Source
from .model.versions import Version
from .snapshots import Snapshots
from .store.objects import PartitionStore
from .store.transfer import Extract
from .waiting import FrontierWaiters

log = logging.getLogger("shoal.shards.resuming")

REACH_S = 5.0
PAUSE_S = 1.0
"""Between two attempts to catch up."""


class Loading:
    """One partition on its way from a snapshot. Belongs to the event loop it was made on; as `receiving.Coming`."""

    def __init__(
        self,
        assignment: Assignment,
        snapshots: Snapshots,
        install: Callable[[Loading, Extract | None], Awaitable[None]],
    ) -> None:
        """`install` makes a followed partition of what was found, or of nothing."""
        self.assignment = assignment
        self.sources: tuple[Source, ...] = ()
        self.state: Literal["arriving", "stranded"] = "arriving"
        self._snapshots = snapshots
        self._install = install
        self._task = asyncio.get_running_loop().create_task(
            self._load(), name=f"resume {assignment.partition.id}"
        )

    @property
    def partition(self) -> PartitionId:
        """What is resumed."""
        return self.assignment.partition.id

    async def _load(self) -> None:
        extract = None
        try:
            extract = await self._snapshots.load(self.assignment)
            await self._install(self, extract)
        except Exception:
            # A bug. What was made of the snapshot, if anything, is dropped.
            log.exception("partition not resumed", extra={"partition": self.partition})
            self._snapshots.outcomes["failed"] += 1
            await self._install(self, None)

    def refusal(self) -> NotReady:
        """What whoever asks for the partition is told."""
        return NotReady(f"{self.partition} is not synced yet: it is resumed", retry_after_s=1)

    def statistics(self, epoch: Epoch) -> PartitionStatistics:
        """Now. May be called from another thread."""
        return PartitionStatistics(
            partition=self.partition, epoch=epoch, message="looks for a snapshot to go on from"
        )

    async def stop(self) -> None:
        """Gives it up. Safe to repeat."""
        self._task.cancel()
        await asyncio.wait([self._task])


class CatchingUp:
    """From the snapshot to where the API server is. Belongs to the event loop it was made on."""

    def __init__(self, store: PartitionStore, waiters: FrontierWaiters) -> None:
        self.message = f"goes on from a snapshot of version {store.frontier}"
        """For people; empty once it has caught up."""
        self._store = store
        self._waiters = waiters
        self._task = asyncio.get_running_loop().create_task(
            self._run(), name=f"catch up {store.partition.id}"
        )

    async def _run(self) -> None:
        store, turn, began = self._store, self._store.turn, self._store.frontier
        while True:
            shown = await self._reached(began, relisted=store.turn != turn)
            if shown is not None:
                break
            await asyncio.sleep(PAUSE_S)
        store.take_over(shown)
        self.message = ""
        log.info("partition caught up", extra={"partition": store.partition.id, "version": shown})

    async def _reached(self, began: Version, *, relisted: bool) -> Version | None:
        """The version the API server is at, when the partition is as far; None if it is not."""
        asked = await self._waiters.ask()
        # Behind what is held it is a server that lost its past: the reflector finds out by itself, and lists.
        if asked is None or (asked < began and not relisted):
            return None
        try:
            await self._waiters.reached(asked, REACH_S)
        except ShoalError as error:
            self.message = f"goes on from a snapshot of version {began}: {error.message}"
            return None
        return asked

    async def stop(self) -> None:
        """Gives it up. Safe to repeat."""
        self._task.cancel()
        await asyncio.wait([self._task])
