"""Shards in Ray actors: every Ray call to a shard is in this module, and Ray's errors end here.

Actors are named, detached and in namespace ``shoal``, so that any process of the cluster finds them and nobody's
death takes them along. They ask for a little CPU always: Ray spreads actors over nodes only if they ask for some.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import ray
import ray.exceptions

from .actor import HEALTH_GROUP, ShardActor
from .api.kubeconfig import Access
from .handle import Assignment
from .logs import Level
from .model.errors import Broken, NotReady, ShoalError
from .model.partitions import Epoch, PartitionId, ShardId
from .model.queries import GetAnswer, GetQuery, PageAnswer, PageQuery, ShardStatistics
from .settings import ShardSettings
from .watch.permits import Permits

NAMESPACE = "shoal"

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


class RayShardHandle:
    """`ShardHandle` of an actor."""

    def __init__(self, shard_id: ShardId, actor: Any) -> None:
        self.shard_id = shard_id
        self._actor = actor

    async def adopt(self, assignments: Sequence[Assignment], epoch: Epoch) -> None:
        """As `ShardHandle.adopt`."""
        await answered(self._actor.adopt.remote(list(assignments), epoch), self.shard_id)

    async def release(self, partitions: Sequence[PartitionId], epoch: Epoch) -> None:
        """As `ShardHandle.release`."""
        await answered(self._actor.release.remote(list(partitions), epoch), self.shard_id)

    async def get(self, query: GetQuery) -> GetAnswer:
        """As `ShardHandle.get`."""
        return await answered(self._actor.get.remote(query), self.shard_id)

    async def page(self, query: PageQuery) -> PageAnswer:
        """As `ShardHandle.page`."""
        return await answered(self._actor.page.remote(query), self.shard_id)

    async def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        """As `ShardHandle.stream`: a cursor in the actor; the next page is asked for while one is being used."""
        cursor, page = await answered(self._actor.stream_open.remote(query), self.shard_id)
        following: asyncio.Task[PageAnswer] | None = None
        try:
            while True:
                following = asyncio.ensure_future(self._next(cursor)) if page.more else None
                yield page
                if following is None:
                    return
                page = await following
        finally:
            if following is not None and not following.done():
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError, ShoalError):
                    await following
            if cursor and page.more:
                self._actor.stream_close.remote(cursor)

    async def _next(self, cursor: int) -> PageAnswer:
        return await answered(self._actor.stream_next.remote(cursor), self.shard_id)

    async def statistics(self) -> ShardStatistics:
        """As `ShardHandle.statistics`; answered beside the data loop."""
        return await answered(self._actor.statistics.remote(), self.shard_id)

    async def stop(self) -> None:
        """As `ShardHandle.stop`; the actor and its process end."""
        with contextlib.suppress(ShoalError, TimeoutError):
            await asyncio.wait_for(answered(self._actor.stop.remote(), self.shard_id), 5.0)
        ray.kill(self._actor, no_restart=True)


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
        ).remote(shard_id, self._access, self._permits(shard_id), self._settings, self._log_level)
        return RayShardHandle(shard_id, actor)

    async def retire(self, shard_id: ShardId) -> None:
        """As `ShardProvider.retire`."""
        with contextlib.suppress(ValueError):
            await RayShardHandle(shard_id, ray.get_actor(shard_id, namespace=NAMESPACE)).stop()


def shard_directory(shard_id: ShardId) -> RayShardHandle:
    """The handle of a running shard.

    Raises:
        NotReady: there is no actor of that name.
    """
    try:
        return RayShardHandle(shard_id, ray.get_actor(shard_id, namespace=NAMESPACE))
    except ValueError as error:
        raise NotReady(f"shard {shard_id} is not running", retry_after_s=1) from error
