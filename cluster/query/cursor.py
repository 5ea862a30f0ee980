"""The pages of one partition, from whichever shard serves it: one state, every call with a deadline.

A shard that does not answer in time is `NotReady` with its name, never an empty page. When a shard goes away
(or lets the partition go) between two pages, the cursor asks the router once where the partition is now and
goes on behind the last key, at the same version; if that state is forgotten there, the list ends with
`Expired`: it is never silently continued with another one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from copy import copy
from typing import TypeAlias

import msgspec

from ...coordinator.routes import Route
from ...shards.handle import ShardHandle
from ...shards.model.errors import NotReady, NotServed, ShoalError
from ...shards.model.partitions import Epoch, PartitionId
from ...shards.model.queries import PageAnswer, PageQuery
from ...shards.model.versions import UNKNOWN, Version
from .directory import RETRY_AFTER_S, KnownShards

Relocate: TypeAlias = Callable[[PartitionId, Epoch], Awaitable[tuple[Route, Epoch]]]
"""Finds where a partition is served now, given the epoch that proved old; raises NotServed if nowhere, because its
resource was divided anew."""


class PartitionCursor:
    """Reads one partition page by page. Not for two readers at once."""

    def __init__(
        self,
        route: Route,
        query: PageQuery,
        *,
        shards: KnownShards,
        relocate: Relocate,
        timeout_s: float,
        streamed: bool,
    ) -> None:
        self.shard = route.shard
        self._asked = self._query = query
        self._shards = shards
        self._relocate = relocate
        self._timeout_s = timeout_s
        self._streamed = streamed
        self._stream: AsyncIterator[PageAnswer] | None = None
        self._started = False

    @property
    def partition(self) -> PartitionId:
        """The partition read."""
        return self._query.partition

    def again(self, not_older_than: Version, wait_s: float) -> PartitionCursor:
        """Another reader of the same, from the beginning and of a newer state."""
        query = msgspec.structs.replace(self._asked, not_older_than=not_older_than, wait_s=wait_s)
        other = copy(self)
        other._asked = other._query = query  # noqa: SLF001 - one of our own
        other._stream, other._started = None, False  # noqa: SLF001
        return other

    async def next(self, limit: int | None = None) -> PageAnswer:
        """The next page; `limit` replaces the number of objects asked for where pages are asked for singly.

        Raises:
            NotServed, NotReady, TooLargeVersion, Expired, BadRequest: as `ShardHandle.page`.
        """
        if limit is not None:
            self._query = msgspec.structs.replace(self._query, limit=limit)
        try:
            page = await self._ask()
        except (NotServed, NotReady):
            if not self._started:
                raise
            await self._move()
            page = await self._ask()
        self._started = True
        if not page.more:
            await self.aclose()
        # What follows is pinned to this state. The wait was for the first page only.
        self._query = msgspec.structs.replace(
            self._query,
            at=page.version,
            after=page.keys[-1] if page.keys else self._query.after,
            not_older_than=UNKNOWN,
        )
        return page

    async def aclose(self) -> None:
        """Lets the shard forget the state it keeps for this reader. Safe to repeat."""
        stream, self._stream = self._stream, None
        close = getattr(stream, "aclose", None)
        if close is not None:
            with contextlib.suppress(ShoalError):
                await close()

    async def _ask(self) -> PageAnswer:
        query = self._query
        timeout_s = self._timeout_s + (query.wait_s if query.not_older_than else 0.0)
        if not self._streamed:
            return await self._shards.ask(self.shard, lambda handle: handle.page(query), timeout_s)
        try:
            return await self._shards.ask(self.shard, self._next_of_stream, timeout_s)
        except StopAsyncIteration:
            raise NotReady(
                f"shard {self.shard} ended the list of {self.partition} early", retry_after_s=RETRY_AFTER_S
            ) from None

    def _next_of_stream(self, handle: ShardHandle) -> Awaitable[PageAnswer]:
        if self._stream is None:
            self._stream = handle.stream(self._query)
        return anext(self._stream)

    async def _move(self) -> None:
        await self.aclose()
        route, epoch = await self._relocate(self.partition, self._query.epoch)
        self.shard = route.shard
        self._query = msgspec.structs.replace(self._query, epoch=epoch)
