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
from .model.transfers import ExportPiece, ExportQuery, HandedOver, Profile, Sources, Taken
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

    async def adopt(
        self,
        assignments: Sequence[Assignment],
        epoch: Epoch,
        sources: Mapping[PartitionId, Sources] | None = None,
    ) -> None:
        """Starts following these partitions. One that is followed already takes the new epoch, and goes on if it was
        handed over.

        One with `sources` that is not followed here is *received* from them, with its past, and then watched on from
        there without a list: "arriving" until then, and "stranded" if it came to nothing. It is tried again when it is
        adopted again with sources, and listed when it is adopted again without.
        """

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        """Stops following and forgets these partitions; unknown ones are ignored."""

    async def hand_over(
        self, partitions: Sequence[PartitionId], epoch: Epoch
    ) -> dict[PartitionId, HandedOver]:
        """Stands still with these partitions, because another shard is about to serve them: acknowledges no `overtake`
        any more and applies no event, but goes on answering; of each that is synced, where it stands. Until it is
        adopted again; who never is follows again after `TransferSettings.thaw_s`, but acknowledges nothing.
        """

    async def take_over(self, taken: Mapping[PartitionId, Taken]) -> None:
        """Other shards served these partitions until now, and this is how far they were and what was shown by their
        leave. Returns when this shard is as far. Where the past did not come along (`adopt` without sources), whoever
        resumes below what was shown has to list again, because this shard's list may have said first what they
        missed. Unknown partitions are ignored.

        Raises:
            NotReady: one has not been listed or received yet, or this shard stands still itself.
            TooLargeVersion: the frontier was not reached in time; nobody should be sent here yet.
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
            NoLeave: the shard has not heard of its coordinator for too long, and may not be the owner any more.
        """

    def export(self, query: ExportQuery) -> AsyncIterator[ExportPiece]:
        """What a partition holds, for another shard: captured when the first piece is asked for.

        Raises:
            NotServed, NotReady, TooLargeVersion: as `get`; NotReady also while too many others are exported.
            Expired: the partition was let go of before the end, or the pieces were taken too slowly.
        """

    async def profile(self, partition: PartitionId) -> Profile:
        """Where the load of a partition is. Raises NotServed and NotReady as `get`."""

    async def statistics(self, acknowledged: int | None = None) -> ShardStatistics:
        """What the shard holds and costs. Answered while the data loop is busy.

        `acknowledged` is for the coordinator alone: the number of the last answer it has got of this shard, 0 for none.
        It renews the shard's lease (`shards.leasing`).
        """

    async def stop(self) -> None:
        """Ends the shard; it holds nothing afterwards."""


class PeerDirectory(Protocol):
    """A shard's way to the others, from which it receives partitions."""

    def __call__(self, shard_id: ShardId, /) -> ShardHandle:
        """The handle of a shard, at once; if there is none, its calls raise NotReady."""

    async def aclose(self) -> None:
        """Closes all connections."""


class ShardProvider(Protocol):
    """Where shards come from: an in-process list, or Ray."""

    async def ensure(self, shard_id: ShardId) -> ShardHandle:
        """The running shard of that name, started if there is none."""

    async def retire(self, shard_id: ShardId) -> None:
        """Ends the shard of that name for good; does nothing if there is none."""

    async def existing(self) -> Sequence[ShardId]:
        """All shards that run, whoever started them. Raises NotReady while that cannot be found out."""
