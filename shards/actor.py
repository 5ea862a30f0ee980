"""A shard as a Ray actor: a thin shell around `Shard`, so that hot code never runs under Ray's method wrappers.

Ray carries control only: `adopt`, `release`, `hand_over`, `take_over`, `profile`, `statistics`, `stop`, and where the
data is (`data_endpoint`). Queries, feeds and exports come over the direct connections of `wire.server`, which runs in
the actor's own event loop from the first time somebody asks for its endpoint. What is received from other shards comes
over connections of the same kind, which this process opens itself.

Bring-up wraps this plain class with ``ray.remote(...)`` under another name; a decorated class would be pickled by
value and duplicate this module's globals in the worker. The constructor does nothing that can fail: a constructor
that raises on a restart ends the actor for good. What needs the outside (kubeconfig, API server) happens at the
first `adopt`, where an error reaches the coordinator and the call is repeated.

The methods of the group ``health`` run in a thread and loop of their own and answer while the data loop is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import Callable, Mapping, Sequence

import ray
import ray.util

from .api.kubeconfig import Access
from .handle import Assignment, PeerDirectory
from .logs import Level, configure_logging
from .model.errors import ShoalError
from .model.partitions import Epoch, PartitionId, ShardId
from .model.queries import ShardStatistics
from .model.transfers import HandedOver, Profile, Sources, Taken
from .settings import ShardSettings
from .shard import Shard
from .watch.permits import Permits
from .wire.authentication import Endpoint
from .wire.server import WireServer

HEALTH_GROUP = "health"


class ShardActor:
    """The control half of `ShardHandle`, and the way to the data half. Restarted, it holds nothing."""

    def __init__(
        self,
        shard_id: ShardId,
        access: Access,
        permits: Permits,
        settings: ShardSettings,
        log_level: Level = "warning",
        *,
        peers: Callable[[], PeerDirectory] | None = None,
    ) -> None:
        """`peers` makes this process's way to other shards, in its data loop; None: partitions cannot be received."""
        configure_logging(log_level)
        self._shard_id = shard_id
        self._access = access
        self._permits = permits
        self._settings = settings
        self._incarnation = uuid.uuid4().hex
        self._make_peers = peers
        self._peers: PeerDirectory | None = None
        self._shard: Shard | None = None
        self._loop = asyncio.get_running_loop()
        self._wire: WireServer | None = None
        self._listening: asyncio.Task[Endpoint] | None = None
        self._endpoint: Endpoint | None = None

    def _started(self) -> Shard:
        if self._shard is None:
            if self._make_peers is not None:
                self._peers = self._make_peers()
            self._shard = Shard(
                self._shard_id,
                connection=self._access.connect(self._settings.api),
                permits=self._permits,
                settings=self._settings,
                incarnation=self._incarnation,
                rng=random.Random(),
                peers=self._peers,
                rest=self._peers.aclose if self._peers is not None else None,
            )
        return self._shard

    async def adopt(
        self,
        assignments: Sequence[Assignment],
        epoch: Epoch,
        sources: Mapping[PartitionId, Sources] | None = None,
    ) -> None:
        """As `ShardHandle.adopt`. Raises KubeconfigError if the credentials cannot be read on this node."""
        await self._started().adopt(assignments, epoch, sources)

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        """As `ShardHandle.release`."""
        await self._started().release(partitions, epoch)

    async def hand_over(
        self, partitions: Sequence[PartitionId], epoch: Epoch
    ) -> dict[PartitionId, HandedOver]:
        """As `ShardHandle.hand_over`."""
        return await self._started().hand_over(partitions, epoch)

    async def take_over(self, taken: Mapping[PartitionId, Taken]) -> None:
        """As `ShardHandle.take_over`."""
        await self._started().take_over(taken)

    async def profile(self, partition: PartitionId) -> Profile:
        """As `ShardHandle.profile`."""
        return await self._started().profile(partition)

    async def stop(self) -> None:
        """As `ShardHandle.stop`, without ending the process."""
        if self._wire is not None:
            await self._wire.aclose()
        shard, self._shard = self._shard, None
        if shard is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await shard.stop()
        peers, self._peers = self._peers, None
        if peers is not None:
            await peers.aclose()

    @ray.method(concurrency_group=HEALTH_GROUP)
    async def statistics(self, acknowledged: int | None = None) -> ShardStatistics:
        """As `ShardHandle.statistics`; runs beside the data loop and only reads counters, but for the lease."""
        if self._shard is None:
            return ShardStatistics(shard=self._shard_id, incarnation=self._incarnation, pid=os.getpid())
        return self._shard.statistics(acknowledged)

    @ray.method(concurrency_group=HEALTH_GROUP)
    async def data_endpoint(self) -> Endpoint:
        """Where this incarnation is asked, and the secret that is needed. Listens from the first call on.

        Raises:
            SettingsError: the TLS files cannot be used on this node.
            ShoalError: the node's address cannot be listened on.
        """
        if self._endpoint is not None:
            return self._endpoint
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._started_listening(), self._loop)
        )

    async def _started_listening(self) -> Endpoint:
        """Runs in the data loop, as everything that touches the shard does."""
        if self._listening is None:
            self._listening = self._loop.create_task(self._listen(), name="listen")
        try:
            self._endpoint = await asyncio.shield(self._listening)
        except Exception:
            self._listening = None  # what was missing may be there the next time
            raise
        return self._endpoint

    async def _listen(self) -> Endpoint:
        wire = WireServer(self._shard_id, self._incarnation, lambda: self._shard, self._settings.wire)
        # The address other nodes reach this one by, which is a loopback one on a machine without a network.
        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        try:
            endpoint = await wire.start(host)
        except OSError as error:
            raise ShoalError(f"shard {self._shard_id} cannot listen on {host}: {error}") from error
        self._wire = wire
        return endpoint
