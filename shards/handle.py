"""How the other rooms reach a shard: the `ShardHandle` protocol and the values it takes.

The callee owns its stub: router and coordinator share this one and neither knows whether a shard lives in this
process (`LocalShardHandle`, `shards.local`) or in a Ray actor (`RayShardHandle`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from .model.partitions import Epoch, Partition, PartitionId, ShardId
from .model.queries import GetAnswer, GetQuery, PageAnswer, PageQuery, ShardStatistics
from .model.resources import ResourceType


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
