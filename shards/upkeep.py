"""What a shard does beside following and answering: it lets go of old history, compares what it holds with the API
server (`auditing`), and writes snapshots (`snapshot_writing`). Nobody waits for any of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection

from .api.client import ApiConnection
from .auditing import Auditor
from .following import Followed
from .locations import open_location
from .model.errors import SettingsError
from .model.partitions import Partition, ShardId
from .settings import ShardSettings
from .snapshot_writing import SnapshotWriter
from .snapshots import Snapshots
from .watch.permits import Permits

log = logging.getLogger("shoal.shards.upkeep")

EXPIRY_S = 30.0
"""How often history is aged in partitions where nothing arrives."""


class Upkeep:
    """Of all partitions of one shard, from the first that is followed on."""

    def __init__(
        self,
        shard: ShardId,
        incarnation: str,
        *,
        connection: ApiConnection,
        permits: Permits,
        settings: ShardSettings,
        followed: Callable[[], Collection[Followed]],
        snapshots: Snapshots | None = None,
    ) -> None:
        """`snapshots`: instead of those that the settings name."""
        self.snapshots = snapshots or _snapshots(shard, connection, settings)
        """Where partitions may be resumed from; None: nowhere."""
        self._shard = shard
        self._followed = followed
        self._ageing: asyncio.Task[None] | None = None
        self.auditor = Auditor(
            connection=connection,
            permits=permits,
            settings=settings.audits,
            # Of the process's own, so that chance differs from shard to shard.
            rng=random.Random(f"audits {shard} {incarnation}"),
            followed=followed,
        )
        self._writer = (
            None
            if self.snapshots is None
            else SnapshotWriter(self.snapshots, incarnation=incarnation, followed=followed)
        )

    @property
    def snapshot_outcomes(self) -> dict[str, int]:
        """As `ShardStatistics.snapshots`."""
        return {} if self.snapshots is None else dict(self.snapshots.outcomes)

    def start(self) -> None:
        """Begins, unless it has begun."""
        if self._ageing is None:
            name = f"{self._shard} history"
            self._ageing = asyncio.get_running_loop().create_task(self._age(), name=name)
        self.auditor.start()
        if self._writer is not None:
            self._writer.start()

    async def stop(self) -> None:
        """Ends all of it."""
        await self.auditor.stop()
        if self._writer is not None:
            await self._writer.stop()
        ageing, self._ageing = self._ageing, None
        if ageing is not None:
            ageing.cancel()
            await asyncio.wait([ageing])

    async def released(self, partition: Partition) -> None:
        """A partition is not this shard's any more."""
        if self._writer is not None:
            await self._writer.released(partition)

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_S)
            for held in list(self._followed()):
                held.store.expire()
                await asyncio.sleep(0)


def _snapshots(shard: ShardId, connection: ApiConnection, settings: ShardSettings) -> Snapshots | None:
    where = settings.snapshots.location
    if where is None:
        return None
    try:
        location = open_location(where)
    except SettingsError as error:
        # Without snapshots everything works, and takes longer to start.
        log.error("no snapshots", extra={"why": error.message})  # noqa: TRY400 - what is wrong is in the message
        return None
    return Snapshots(
        location,
        settings.snapshots,
        shard=shard,
        connection=connection,
        managed_fields=settings.store.keep_managed_fields,
    )
