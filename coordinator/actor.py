"""The coordinator as a Ray actor: a thin shell around `Coordinator`, started and restarted by itself.

The constructor does nothing that can fail, because Ray ends an actor for good whose constructor raises on a
restart: it leaves a task behind that starts the coordinator.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from ..shards.api.kubeconfig import Access
from ..shards.handle import ShardProvider
from ..shards.logs import Level, configure_logging
from ..shards.model.errors import NotReady
from ..shards.model.partitions import Epoch, PartitionId, ShardId
from ..shards.settings import ApiSettings
from .commands import Order
from .coordinator import Coordinator
from .permits import LeaseId
from .routes import RouteTable
from .settings import CoordinatorSettings
from .status import CoordinatorStatus

EPOCH_ORIGIN_S = 1_767_225_600
"""2026-01-01. Epochs begin with the seconds since then: a coordinator that finds nobody to tell it the last one used
(all shards died with its predecessor) is above it all the same, unless routes changed more than once a second."""


class CoordinatorActor:
    """Methods are those of `CoordinatorHandle`."""

    def __init__(
        self,
        access: Access,
        provider: ShardProvider,
        *,
        shard_count: int,
        api: ApiSettings,
        settings: CoordinatorSettings,
        log_level: Level = "warning",
    ) -> None:
        configure_logging(log_level)
        self._access = access
        self._provider = provider
        self._shard_count = shard_count
        self._api = api
        self._settings = settings
        self._coordinator: Coordinator | None = None
        self._started = asyncio.Event()
        self._starting = asyncio.get_running_loop().create_task(self._start(), name="coordinator start")

    async def _start(self) -> None:
        # Reads no credentials yet: what is wrong with them on this node, discovery reports and tries again.
        coordinator = Coordinator(
            connection=self._access.connect(self._api),
            provider=self._provider,
            shard_count=self._shard_count,
            settings=self._settings,
            used_epoch=Epoch(int(time.time()) - EPOCH_ORIGIN_S),
        )
        await coordinator.start()
        self._coordinator = coordinator
        self._started.set()

    async def _running(self) -> Coordinator:
        if self._coordinator is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._started.wait(), 1.0)
        if self._coordinator is None:
            raise NotReady("the coordinator is still starting", retry_after_s=1)
        return self._coordinator

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        """As `CoordinatorHandle.routes`."""
        return await (await self._running()).routes(after, timeout_s)

    async def status(self) -> CoordinatorStatus:
        """As `CoordinatorHandle.status`."""
        return (await self._running()).status()

    async def order(self, order: Order) -> tuple[str, ...]:
        """As `CoordinatorHandle.order`."""
        return (await self._running()).order(order)

    async def explain(self, about: str = "") -> tuple[str, ...]:
        """As `CoordinatorHandle.explain`."""
        return (await self._running()).explain(about)

    async def acquire_permit(
        self, shard: ShardId, partition: PartitionId, timeout_s: float = 30.0
    ) -> LeaseId:
        """As `CoordinatorHandle.acquire_permit`."""
        return await (await self._running()).permits.acquire(shard, partition, timeout_s)

    async def release_permit(self, lease: LeaseId) -> None:
        """As `CoordinatorHandle.release_permit`."""
        (await self._running()).permits.release(lease)

    async def stop(self) -> None:
        """Stops deciding. Shards go on as they are."""
        self._starting.cancel()
        if self._coordinator is not None:
            await self._coordinator.stop()
