"""How the other rooms reach the coordinator: the `CoordinatorHandle` protocol, and the one of the same
process.

The callee owns its stub. `RayCoordinatorHandle` (`coordinator.handle_ray`) implements the same protocol over
actor calls. Nothing on the data path needs an answer from here: routers go on with the table they have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from ..shards.model.errors import RetryLater, TimedOut
from ..shards.model.partitions import Epoch, PartitionId, ShardId
from .commands import Order
from .permits import LeaseId
from .routes import RouteTable
from .status import CoordinatorStatus

if TYPE_CHECKING:
    from .coordinator import Coordinator

_log = logging.getLogger("shoal.coordinator.permits")


class CoordinatorHandle(Protocol):
    """The coordinator. Every call may raise `NotReady` when it is away; all are safe to repeat."""

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        """The newest table, as soon as its epoch is greater than `after`; after `timeout_s` whatever there
        is.
        """

    async def status(self) -> CoordinatorStatus:
        """What is followed, by whom, and what is waited for."""

    async def order(self, order: Order) -> tuple[str, ...]:
        """Takes an order by hand (`coordinator.commands`); what will come of it, line by line.

        Raises:
            NotReady: no routes are published yet.
            NotFound: no such partition, resource or shard; the message names the closest.
            Conflict, BadRequest: it cannot be as things are, or at all.
        """

    async def explain(self, about: str = "") -> tuple[str, ...]:
        """Why shards, cuts and places are as they are, and what would change them, line by line; about a resource, a
        partition or a shard, or about everything.

        Raises:
            NotFound: nothing of that name is known.
        """

    async def acquire_permit(
        self, shard: ShardId, partition: PartitionId, timeout_s: float = 30.0
    ) -> LeaseId:
        """Waits for the permit to list `partition`; asked again by the same holder, the same lease.

        Raises:
            TimedOut: not granted within `timeout_s`; the place in the queue is kept for who asks again soon.
        """

    async def release_permit(self, lease: LeaseId) -> None:
        """Gives a permit back; one that has expired, or was given back before, is ignored."""

    async def stop(self) -> None:
        """Ends the coordinator. Shards go on."""


class LocalCoordinatorHandle:
    """A coordinator in this process and event loop."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        """As `CoordinatorHandle.routes`."""
        return await self._coordinator.routes(after, timeout_s)

    async def status(self) -> CoordinatorStatus:
        """As `CoordinatorHandle.status`."""
        return self._coordinator.status()

    async def order(self, order: Order) -> tuple[str, ...]:
        """As `CoordinatorHandle.order`."""
        return self._coordinator.order(order)

    async def explain(self, about: str = "") -> tuple[str, ...]:
        """As `CoordinatorHandle.explain`."""
        return self._coordinator.explain(about)

    async def acquire_permit(
        self, shard: ShardId, partition: PartitionId, timeout_s: float = 30.0
    ) -> LeaseId:
        """As `CoordinatorHandle.acquire_permit`."""
        return await self._coordinator.permits.acquire(shard, partition, timeout_s)

    async def release_permit(self, lease: LeaseId) -> None:
        """As `CoordinatorHandle.release_permit`."""
        self._coordinator.permits.release(lease)

    async def stop(self) -> None:
        """As `CoordinatorHandle.stop`."""
        await self._coordinator.stop()


class CoordinatorPermits:
    """The permits of one shard, asked from the coordinator: what a reflector holds while it lists.

    Waits as long as others list, in calls of `call_timeout_s`. While the coordinator is away lists wait for
    it too, but only `away_max_s`: then they go on without a permit, for a copy that is late helps nobody.
    """

    def __init__(
        self,
        handle: CoordinatorHandle,
        shard: ShardId,
        *,
        call_timeout_s: float = 20.0,
        away_max_s: float = 30.0,
        retry_s: float = 1.0,
    ) -> None:
        self._handle = handle
        self._shard = shard
        self._call_timeout_s = call_timeout_s
        self._away_max_s = away_max_s
        self._retry_s = retry_s

    @asynccontextmanager
    async def permit(self, partition: PartitionId) -> AsyncIterator[None]:
        """Held while one list of `partition` runs."""
        lease = await self._acquire(partition)
        try:
            yield
        finally:
            if lease is not None:
                await self._give_back(lease)

    async def _acquire(self, partition: PartitionId) -> LeaseId | None:
        loop = asyncio.get_running_loop()
        away_since: float | None = None
        while True:
            try:
                return await self._handle.acquire_permit(self._shard, partition, self._call_timeout_s)
            except TimedOut:
                away_since = None
            except RetryLater as error:
                if away_since is None:
                    away_since = loop.time()
                if loop.time() - away_since >= self._away_max_s:
                    _log.warning(
                        "listing without a permit",
                        extra={"shard": self._shard, "partition": partition, "error": str(error)},
                    )
                    return None
                await asyncio.sleep(self._retry_s)

    async def _give_back(self, lease: LeaseId) -> None:
        try:
            await self._handle.release_permit(lease)
        except RetryLater as error:  # the lease expires by itself
            _log.debug("permit not given back", extra={"shard": self._shard, "error": str(error)})
