"""How the other rooms reach a shard: the `ShardHandle` protocol and the values it takes.

The callee owns its stub: router and coordinator share this one and neither knows whether a shard lives in this
process (`LocalShardHandle`, `shards.local`) or in a Ray actor (`RayShardHandle`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from .model.partitions import Epoch, Partition, PartitionId, ShardId
from .model.queries import (
    ChangesPage,
    ChangesQuery,
    CountQuery,
    FeedBatch,
    FeedQuery,
    GetAnswer,
    GetQuery,
    OvertakeQuery,
    PageAnswer,
    PageQuery,
    PartitionCount,
    ShardStatistics,
)
from .model.resources import ResourceType
from .model.versions import Version

FEED_BEAT_S = 5.0
"""A feed without news sends an empty batch this often."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A partition to be followed, and what the shard has to know about its resource."""

    partition: Partition
    resource_type: ResourceType
    redact: bool = False
    """Keep the keys of ``data`` and ``stringData`` and drop the values (Secrets under ``redact``)."""


class ShardHandle(Protocol):
    """One shard. Every call may raise `NotReady` when the shard is away; all are safe to repeat."""

    shard_id: ShardId

    async def adopt(self, assignments: Sequence[Assignment], epoch: Epoch) -> None:
        """Starts following these partitions; one that is followed already only takes the new epoch."""

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        """Stops following and forgets these partitions; unknown ones are ignored."""

    async def hand_over(self, partitions: Sequence[PartitionId], epoch: Epoch) -> dict[PartitionId, Version]:
        """Acknowledges no `overtake` of these partitions any more, because another shard is about to serve them; of
        each that is held, the newest version that was overtaken. Until it is adopted again.
        """

    async def take_over(self, shown: Mapping[PartitionId, Version | None]) -> None:
        """Another shard served these partitions until now, and versions up to these were shown by its leave. Whoever
        resumes below may have missed what this shard's list said first, and has to list again. None: nobody can say,
        so the API server is asked where it is. Unknown partitions are ignored.
        """

    async def get(self, query: GetQuery) -> GetAnswer:
        """One object.

        Raises:
            NotServed: the shard does not hold the partition.
            NotReady: it has not been listed yet.
            TooLargeVersion: the demanded version was not reached in time.
        """

    async def page(self, query: PageQuery) -> PageAnswer:
        """One page, stateless: with `PageQuery.at` and `after` the next page of the same state can be asked for.

        Raises:
            NotServed, NotReady, TooLargeVersion: as `get`.
            Expired: `at` is older than history reaches.
            BadRequest: a selector that cannot be parsed.
        """

    def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        """All pages of one state, captured when the first is asked for; never Expired half-way. Raises as `page`."""

    async def count(self, query: CountQuery) -> PartitionCount:
        """How many objects match, by groups if asked. Raises as `get`, and BadRequest for what cannot be grouped by."""

    def changes(self, query: ChangesQuery) -> AsyncIterator[ChangesPage]:
        """What happened after a version, captured when the first page is asked for; at least one page.

        Raises:
            NotServed, NotReady: as `get`.
            TooLargeVersion: `since` was not reached in time.
            Expired: `since` is older than history reaches, or in a gap of it.
            BadRequest: a selector that cannot be parsed.
        """

    def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        """Everything after a version, until closed. The first batch comes at once, and while nothing happens one
        without events every `FEED_BEAT_S`: a feed that is silent for much longer is dead.

        Raises:
            NotServed: the shard does not hold the partition, or let it go.
            NotReady: it has not been listed yet, `since` was not reached in time, or the shard is away.
            Expired: `since` is older than history reaches, or newer than the API server says it is (`PastLost`); later:
                the API server lost its past, or the reader was too slow and was cut off.
        """

    async def overtake(self, query: OvertakeQuery) -> Version:
        """Notes that `version` is about to be shown; the partition's frontier, all of it fed before the answer.

        Raises:
            NotServed, NotReady: as `get`.
        """

    async def statistics(self) -> ShardStatistics:
        """What the shard holds and costs. Answered while the data loop is busy."""

    async def stop(self) -> None:
        """Ends the shard; it holds nothing afterwards."""


class ShardProvider(Protocol):
    """Where shards come from: an in-process list, or Ray."""

    async def ensure(self, shard_id: ShardId) -> ShardHandle:
        """The running shard of that name, started if there is none."""

    async def retire(self, shard_id: ShardId) -> None:
        """Ends the shard of that name for good; does nothing if there is none."""
