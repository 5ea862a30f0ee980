"""A shard as a Ray actor: a thin shell around `Shard`, so that hot code never runs under Ray's method wrappers.

Bring-up wraps this plain class with ``ray.remote(...)`` under another name; a decorated class would be pickled by
value and duplicate this module's globals in the worker. The constructor does nothing that can fail: a constructor
that raises on a restart ends the actor for good. What needs the outside (kubeconfig, API server) happens at the
first `adopt`, where an error reaches the coordinator and the call is repeated.

The methods of the group ``health`` run in a thread and loop of their own and answer while the data loop is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import AsyncIterator, Sequence

import ray

from .api.kubeconfig import Access
from .handle import Assignment
from .logs import Level, configure_logging
from .model.errors import Expired
from .model.partitions import Epoch, PartitionId, ShardId
from .model.queries import GetAnswer, GetQuery, PageAnswer, PageQuery, ShardStatistics
from .settings import ShardSettings
from .shard import Shard
from .watch.permits import Permits

HEALTH_GROUP = "health"
CURSOR_IDLE_S = 60.0
"""A stream nobody asks a page of for this long is closed: its reader is gone and its snapshot would stay in memory."""


class ShardActor:
    """Methods are those of `ShardHandle`, with streams as numbered cursors. Restarted, it holds nothing."""

    def __init__(
        self,
        shard_id: ShardId,
        access: Access,
        permits: Permits,
        settings: ShardSettings,
        log_level: Level = "warning",
    ) -> None:
        configure_logging(log_level)
        self._shard_id = shard_id
        self._access = access
        self._permits = permits
        self._settings = settings
        self._incarnation = uuid.uuid4().hex
        self._shard: Shard | None = None
        self._cursors: dict[int, tuple[AsyncIterator[PageAnswer], asyncio.TimerHandle]] = {}
        self._opened = 0

    def _started(self) -> Shard:
        if self._shard is None:
            self._shard = Shard(
                self._shard_id,
                connection=self._access.connect(self._settings.api),
                permits=self._permits,
                settings=self._settings,
                incarnation=self._incarnation,
                rng=random.Random(),
            )
        return self._shard

    async def adopt(self, assignments: Sequence[Assignment], epoch: Epoch) -> None:
        """As `ShardHandle.adopt`. Raises KubeconfigError if the credentials cannot be read on this node."""
        await self._started().adopt(assignments, epoch)

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        """As `ShardHandle.release`."""
        await self._started().release(partitions, epoch)

    async def get(self, query: GetQuery) -> GetAnswer:
        """As `ShardHandle.get`."""
        return await self._started().get(query)

    async def page(self, query: PageQuery) -> PageAnswer:
        """As `ShardHandle.page`."""
        return await self._started().page(query)

    async def stream_open(self, query: PageQuery) -> tuple[int, PageAnswer]:
        """The first page of a stream, and the cursor for the next ones (0 if there are none)."""
        pages = self._started().stream(query)
        first = await anext(pages)
        if not first.more:
            return 0, first
        self._opened += 1
        self._keep(self._opened, pages)
        return self._opened, first

    async def stream_next(self, cursor: int) -> PageAnswer:
        """The next page. Raises Expired if the cursor was idle for too long, or belongs to an earlier process."""
        held = self._cursors.pop(cursor, None)
        if held is None:
            raise Expired("the list was read too slowly, or its shard was restarted: list again")
        pages, timer = held
        timer.cancel()
        page = await anext(pages)
        if page.more:
            self._keep(cursor, pages)
        return page

    async def stream_close(self, cursor: int) -> None:
        """Forgets a cursor; unknown ones are ignored."""
        held = self._cursors.pop(cursor, None)
        if held is not None:
            held[1].cancel()

    def _keep(self, cursor: int, pages: AsyncIterator[PageAnswer]) -> None:
        timer = asyncio.get_running_loop().call_later(CURSOR_IDLE_S, self._cursors.pop, cursor, None)
        self._cursors[cursor] = (pages, timer)

    async def stop(self) -> None:
        """As `ShardHandle.stop`, without ending the process."""
        shard, self._shard = self._shard, None
        if shard is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await shard.stop()

    @ray.method(concurrency_group=HEALTH_GROUP)
    async def statistics(self) -> ShardStatistics:
        """As `ShardHandle.statistics`; runs beside the data loop and only reads counters."""
        if self._shard is None:
            return ShardStatistics(shard=self._shard_id, incarnation=self._incarnation, pid=os.getpid())
        return self._shard.statistics()
