"""Shards in Ray actors: every Ray call to a shard is in this module, and Ray's errors end here. Ray carries control;
queries and feeds go over direct connections (`wire.client`), to which Ray only tells where a shard is.

Actors are named, detached and in namespace ``shoal``, so that any process of the cluster finds them and nobody's
death takes them along. They ask for a little CPU always: Ray spreads actors over nodes only if they ask for some.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import ray
import ray.exceptions
import ray.util

from .actor import HEALTH_GROUP, ShardActor
from .api.kubeconfig import Access
from .handle import Assignment
from .logs import Level
from .model.errors import Broken, NotReady, ShoalError
from .model.partitions import Epoch, PartitionId, ShardId
from .model.queries import ShardStatistics
from .model.transfers import HandedOver, Profile, Sources, Taken
from .settings import ShardSettings
from .watch.permits import Permits
from .wire.authentication import Endpoint
from .wire.client import DirectQueries, ShardConnection

NAMESPACE = "shoal"
_SHARD_NAME = re.compile(r"shard-[0-9]+")
"""Coordinator and gateways have names in this namespace, too."""

T = TypeVar("T")

_RemoteShard: Any = ray.remote(concurrency_groups={HEALTH_GROUP: 2})(ShardActor)  # type: ignore[call-overload]


async def answered(call: Awaitable[T], whom: str) -> T:
    """The answer of an actor call, Ray's errors turned into ours.

    Raises:
        NotReady: the actor is away (starting, restarting, dead); the call may or may not have been executed.
        ShoalError: what the method raised.
        Broken: it raised anything else.
    """
    try:
        return await call
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ShoalError):
            raise error.cause from None
        raise Broken(f"{whom} failed: {error.cause!r}") from error
    except ray.exceptions.ActorDiedError as error:
        raise NotReady(
            f"{whom} has ended and is not restarted: {_last_line(error)}", retry_after_s=1
        ) from error
    except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
        raise NotReady(f"{whom} does not answer: it is being restarted", retry_after_s=1) from error


def _last_line(error: Exception) -> str:
    """Ray's message is a page with the actor's traceback in it, whose last line says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class RayShardHandle(DirectQueries):
    """`ShardHandle` of an actor: control by Ray calls, data over the process's connection to the shard."""

    def __init__(self, connection: ShardConnection, actor: Any = None) -> None:
        super().__init__(connection)
        self._actor = actor
        """None: to be looked up. One that does not answer is looked up again: another may have taken its name."""

    async def adopt(
        self,
        assignments: Sequence[Assignment],
        epoch: Epoch,
        sources: Mapping[PartitionId, Sources] | None = None,
    ) -> None:
        """As `ShardHandle.adopt`."""
        await self._control("adopt", list(assignments), epoch, dict(sources or {}))

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        """As `ShardHandle.release`."""
        await self._control("release", list(partitions), epoch)

    async def hand_over(
        self, partitions: Sequence[PartitionId], epoch: Epoch
    ) -> dict[PartitionId, HandedOver]:
        """As `ShardHandle.hand_over`."""
        stood: dict[PartitionId, HandedOver] = await self._control("hand_over", list(partitions), epoch)
        return stood

    async def take_over(self, taken: Mapping[PartitionId, Taken]) -> None:
        """As `ShardHandle.take_over`."""
        await self._control("take_over", dict(taken))

    async def profile(self, partition: PartitionId) -> Profile:
        """As `ShardHandle.profile`."""
        profile: Profile = await self._control("profile", partition)
        return profile

    async def statistics(self, acknowledged: int | None = None) -> ShardStatistics:
        """As `ShardHandle.statistics`; answered beside the data loop."""
        statistics: ShardStatistics = await self._control("statistics", acknowledged)
        return statistics

    async def stop(self) -> None:
        """As `ShardHandle.stop`; the actor and its process end. Raises NotReady if there is none."""
        actor = self._actor or await _look_up(self.shard_id)
        with contextlib.suppress(ShoalError, TimeoutError):
            await asyncio.wait_for(answered(actor.stop.remote(), self.shard_id), 5.0)
        self._actor = None
        ray.kill(actor, no_restart=True)

    async def _control(self, method: str, *arguments: Any) -> Any:
        if self._actor is None:
            self._actor = await _look_up(self.shard_id)
        try:
            return await answered(getattr(self._actor, method).remote(*arguments), self.shard_id)
        except NotReady:
            self._actor = None
            raise


class RayShardDirectory:
    """This process's way to all shards, by name: a `ShardDirectory` of the query router, and more.

    All handles of a shard share its connection. Ray is asked for a shard's place when a connection is opened, and not
    otherwise: queries go on while Ray's control plane is away.
    """

    def __init__(self) -> None:
        self._handles: dict[ShardId, RayShardHandle] = {}

    def __call__(self, shard_id: ShardId) -> RayShardHandle:
        """The handle of a shard. Its calls raise NotReady if there is no actor of that name."""
        handle = self._handles.get(shard_id)
        if handle is None or handle.connection.orphaned:
            find = functools.partial(_endpoint_of, shard_id)
            handle = self._handles[shard_id] = RayShardHandle(
                ShardConnection(shard_id, find, random.Random())
            )
        return handle

    async def aclose(self) -> None:
        """Closes all connections; what is in flight fails with NotReady. Usable afterwards, with new ones."""
        handles = list(self._handles.values())
        self._handles.clear()
        for handle in handles:
            await handle.connection.aclose()


async def _endpoint_of(shard_id: ShardId) -> Endpoint:
    """Where the shard is now. The actor is looked up each time: another may have taken the name."""
    actor = await _look_up(shard_id)
    return await answered(actor.data_endpoint.remote(), shard_id)


async def _look_up(shard_id: ShardId) -> Any:
    """The actor of a running shard. In a thread: Ray blocks while its control plane is away.

    Raises:
        NotReady: there is none of that name.
    """
    try:
        return await asyncio.to_thread(ray.get_actor, shard_id, namespace=NAMESPACE)
    except ValueError as error:
        raise NotReady(f"shard {shard_id} is not running", retry_after_s=1) from error


shard_directory = RayShardDirectory()
"""This process's shards."""


class RayShardProvider:
    """Finds or starts shard actors by name. Values only, so that it can be handed to the coordinator's actor.

    `permits` makes what a shard asks for permits; it crosses processes as well.
    """

    def __init__(
        self,
        access: Access,
        permits: Callable[[ShardId], Permits],
        settings: ShardSettings,
        *,
        cpus: float,
        memory_bytes: int | None,
        log_level: Level = "warning",
    ) -> None:
        self._access = access
        self._permits = permits
        self._settings = settings
        self._cpus = cpus
        self._memory_bytes = memory_bytes
        self._log_level = log_level

    async def ensure(self, shard_id: ShardId) -> RayShardHandle:
        """As `ShardProvider.ensure`. Returns at once: the actor may still be starting, its calls then wait."""
        actor = _RemoteShard.options(
            name=shard_id,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_task_retries=0,
            num_cpus=self._cpus,
            memory=self._memory_bytes,
            scheduling_strategy="SPREAD",
            enable_task_events=False,
        ).remote(
            shard_id,
            self._access,
            self._permits(shard_id),
            self._settings,
            self._log_level,
            peers=RayShardDirectory,  # itself, not an instance: connections belong to the process that opens them
        )
        return RayShardHandle(shard_directory(shard_id).connection, actor)

    async def retire(self, shard_id: ShardId) -> None:
        """As `ShardProvider.retire`."""
        with contextlib.suppress(NotReady):
            await shard_directory(shard_id).stop()

    async def existing(self) -> tuple[ShardId, ...]:
        """As `ShardProvider.existing`. In a thread: Ray blocks while its control plane is away."""
        named = await asyncio.to_thread(ray.util.list_named_actors, all_namespaces=True)
        return tuple(
            ShardId(actor["name"])
            for actor in named
            if actor["namespace"] == NAMESPACE and _SHARD_NAME.fullmatch(actor["name"])
        )
