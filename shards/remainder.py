"""What a source heard between its export and the moment it stood still, told by itself to the shard that takes over.

Whoever takes over has to be as far as the source was. A part of a busy partition may be idle itself: its own watch says
nothing then of how far the API server is, and to prove that takes a second (`watch.proof`), in which the source stands
still and readers of news wait. But the source knows all that happened up to its frontier, and feeds it like to anybody
else. What is in the part's cover is applied as if the part's own watch had brought it (both are the server's order
from a version on that had been reached, and the store ignores what it has); then nothing is missing up to there.

Limits: of one source only. Of several none knows what the others heard, and each is at a version of its own. Whatever
fails here fails silently, because the watch, or the proof, brings the same a little later.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Protocol

from .model.observations import Observation
from .model.partitions import Epoch
from .model.queries import FeedBatch, FeedEvent, FeedQuery
from .model.refs import ref_of
from .model.transfers import Source
from .model.versions import Version
from .store.objects import PartitionStore


class Feeding(Protocol):
    """A shard that feeds."""

    def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        """As `ShardHandle.feed`."""


async def hear_remainder(
    store: PartitionStore, source: Source, shard: Feeding, epoch: Epoch, until: Version
) -> None:
    """Brings `store`, which was received from `source`, up to `until`.

    Returns early when a list of the store begins: that is newer, or the way back to an older past.

    Raises:
        ShoalError: what the source raises; what was told before that counts.
    """
    if store.listing or store.frontier >= until:
        return
    turn, admits = store.turn, store.partition.cover.admits
    query = FeedQuery(partition=source.partition, epoch=epoch, since=store.frontier)
    async with aclosing(shard.feed(query)) as batches:  # type: ignore[type-var]  # all are generators
        async for batch in batches:
            if store.turn != turn:
                return
            for event in batch.events:
                namespace = ref_of(event.key).namespace
                if admits(namespace, event.uid):
                    store.apply(_observed(event, namespace))
            store.proven(batch.frontier)
            if store.frontier >= until:
                return


def _observed(event: FeedEvent, namespace: str) -> Observation:
    return Observation(
        deleted=event.type == "DELETED",
        key=event.key,
        namespace=namespace,
        uid=event.uid,
        version=event.version,
        labels=event.labels,
        fields=event.fields,
        body=event.body,
    )
