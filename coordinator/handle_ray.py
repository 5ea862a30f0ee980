"""The coordinator in a Ray actor: every Ray call to it is in this module."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray

from ..shards.api.kubeconfig import Access
from ..shards.handle import ShardProvider
from ..shards.handle_ray import NAMESPACE, answered
from ..shards.logs import Level
from ..shards.model.errors import NotReady, ShoalError
from ..shards.model.partitions import Epoch, PartitionId, ShardId
from ..shards.settings import ApiSettings
from .actor import CoordinatorActor
from .commands import Order
from .permits import LeaseId
from .routes import RouteTable
from .settings import CoordinatorSettings
from .status import CoordinatorStatus

COORDINATOR = "coordinator"

_RemoteCoordinator = ray.remote(CoordinatorActor)


class RayCoordinatorHandle:
    """`CoordinatorHandle` of the actor, looked up by name, so that it is found again after a restart."""

    def _actor(self) -> Any:
        try:
            return ray.get_actor(COORDINATOR, namespace=NAMESPACE)
        except ValueError as error:
            raise NotReady("no coordinator is running", retry_after_s=1) from error

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        """As `CoordinatorHandle.routes`."""
        return await answered(self._actor().routes.remote(after, timeout_s), COORDINATOR)

    async def status(self) -> CoordinatorStatus:
        """As `CoordinatorHandle.status`."""
        return await answered(self._actor().status.remote(), COORDINATOR)

    async def order(self, order: Order) -> tuple[str, ...]:
        """As `CoordinatorHandle.order`."""
        return await answered(self._actor().order.remote(order), COORDINATOR)

    async def explain(self, about: str = "") -> tuple[str, ...]:
        """As `CoordinatorHandle.explain`."""
        return await answered(self._actor().explain.remote(about), COORDINATOR)

    async def acquire_permit(
        self, shard: ShardId, partition: PartitionId, timeout_s: float = 30.0
    ) -> LeaseId:
        """As `CoordinatorHandle.acquire_permit`."""
        return await answered(self._actor().acquire_permit.remote(shard, partition, timeout_s), COORDINATOR)

    async def release_permit(self, lease: LeaseId) -> None:
        """As `CoordinatorHandle.release_permit`."""
        await answered(self._actor().release_permit.remote(lease), COORDINATOR)

    async def stop(self) -> None:
        """Ends the actor and its process."""
        actor = self._actor()
        with contextlib.suppress(ShoalError, TimeoutError):
            await asyncio.wait_for(answered(actor.stop.remote(), COORDINATOR), 5.0)
        ray.kill(actor, no_restart=True)


def start_coordinator(
    access: Access,
    provider: ShardProvider,
    *,
    shard_count: int,
    cpus: float,
    api: ApiSettings,
    settings: CoordinatorSettings,
    log_level: Level = "warning",
) -> RayCoordinatorHandle:
    """Starts the actor, or finds the running one. Returns at once."""
    _RemoteCoordinator.options(
        name=COORDINATOR,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=10_000,  # every shard may wait for permits, every gateway for routes
        num_cpus=cpus,
        enable_task_events=False,
    ).remote(access, provider, shard_count=shard_count, api=api, settings=settings, log_level=log_level)
    return RayCoordinatorHandle()
