"""All partitions of one shard that are on their way here, from other shards (`receiving`) or snapshots (`resuming`).

What it keeps true: a partition is here once, arriving, stranded or followed (`shard`). While nothing is asked of other
shards, no connection to any is kept: of a hundred shards, each would keep a hundred.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from .handle import Assignment, ShardHandle
from .model.errors import NotReady, ShoalError
from .model.partitions import Epoch, PartitionId, ShardId
from .model.queries import PartitionStatistics
from .model.transfers import Source, Sources
from .model.versions import Version
from .receiving import Receiver, Reception
from .remainder import hear_remainder
from .settings import TransferSettings
from .store.objects import PartitionStore
from .store.transfer import Extract

log = logging.getLogger("shoal.shards.receiving")


class Coming(Protocol):
    """A partition that is not here yet."""

    assignment: Assignment
    sources: tuple[Source, ...]
    state: Literal["arriving", "stranded"]

    @property
    def partition(self) -> PartitionId:
        """Which."""

    def refusal(self) -> NotReady:
        """What whoever asks for it is told."""

    def statistics(self, epoch: Epoch) -> PartitionStatistics:
        """Now. May be called from another thread."""

    async def stop(self) -> None:
        """Gives it up. Safe to repeat."""


class Receptions:
    """What a shard receives, or could not. Belongs to the shard's event loop."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        peers: Callable[[ShardId], ShardHandle] | None,
        rest: Callable[[], Awaitable[None]] | None,
        settings: TransferSettings,
        install: Callable[[Reception, Extract], Awaitable[None]],
    ) -> None:
        """`rest` is called when the last one has ended: `peers` can let go of their connections."""
        self._receiver = receiver
        self._peers = peers
        self._rest = rest
        self._settings = settings
        self._install = install
        self._slots = asyncio.Semaphore(settings.receptions_max)
        self._all: dict[PartitionId, Coming] = {}
        self._hearing = 0

    def begin(self, assignment: Assignment, sources: Sources) -> None:
        """Has a partition come."""
        self._all[assignment.partition.id] = Reception(
            assignment,
            sources,
            receiver=self._receiver,
            peers=self._peers or _nobody,
            slots=self._slots,
            settings=self._settings,
            install=self._install,
            ended=self._ended,
        )

    async def _ended(self) -> None:
        arriving = any(one.state == "arriving" for one in self._all.values())
        if not arriving and not self._hearing and self._rest is not None:
            await self._rest()

    @asynccontextmanager
    async def hearing(self, store: PartitionStore, sources: Sources, until: Version) -> AsyncIterator[None]:
        """Meanwhile what was received is brought up to `until` by what its source heard later (`remainder`)."""
        if len(sources) != 1 or store.frontier >= until:
            yield
            return
        self._hearing += 1
        name = f"remainder of {store.partition.id}"
        task = asyncio.get_running_loop().create_task(self._hear(store, sources[0], until), name=name)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            self._hearing -= 1
            await self._ended()

    async def _hear(self, store: PartitionStore, source: Source, until: Version) -> None:
        own = source.shard == self._receiver.shard_id
        try:
            shard = self._receiver if own else (self._peers or _nobody)(source.shard)
            await hear_remainder(store, source, shard, self._receiver.epoch, until)
        except ShoalError as error:
            log.debug("remainder not heard", extra={"partition": store.partition.id, "reason": error.message})
        except Exception:
            log.exception("remainder not heard", extra={"partition": store.partition.id})

    def expect(self, coming: Coming) -> None:
        """Knows of a partition that comes in another way than from shards, until it is `over`."""
        self._all[coming.partition] = coming

    def under_way(self, assignment: Assignment, sources: Sources) -> bool:
        """Whether just this is arriving."""
        coming = self._all.get(assignment.partition.id)
        return (
            coming is not None
            and coming.state == "arriving"
            and (coming.assignment, coming.sources) == (assignment, tuple(sources))
        )

    def over(self, coming: Coming) -> None:
        """It is complete, and followed now."""
        del self._all[coming.partition]

    async def give_up(self, partition: PartitionId) -> None:
        """Forgets one; does nothing if there is none."""
        coming = self._all.pop(partition, None)
        if coming is not None:
            await coming.stop()

    async def stop(self) -> None:
        """Forgets all."""
        await asyncio.gather(*(self.give_up(partition) for partition in list(self._all)))

    def refusal(self, partition: PartitionId) -> NotReady | None:
        """What whoever asks for a partition is told that is not here yet; None if it does not come at all."""
        coming = self._all.get(partition)
        return None if coming is None else coming.refusal()

    def statistics(self, epoch: Epoch) -> list[PartitionStatistics]:
        """Of all. May be called from another thread."""
        return [coming.statistics(epoch) for coming in list(self._all.values())]


def _nobody(shard_id: ShardId) -> ShardHandle:
    raise NotReady(f"there is no way from here to shard {shard_id}", retry_after_s=1)
