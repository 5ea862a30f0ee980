"""Shards by name, each call with a deadline.

A directory is asked for a shard's handle each time, and owns what finding and reaching one costs: the one of Ray
(`shards.handle_ray`) keeps a connection to each shard, opens it when something is asked, at most so often when that
fails, and finds a shard anew whose process has changed. So nothing is kept here that could grow old or leak.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

from ...shards.handle import ShardHandle
from ...shards.model.errors import NotReady
from ...shards.model.partitions import ShardId

T = TypeVar("T")

ShardDirectory: TypeAlias = Callable[[ShardId], ShardHandle]
"""The handle of a shard, at once; if there is no such shard, this or the calls of the handle raise NotReady."""

RETRY_AFTER_S = 1
"""What a client is told to wait when a shard is away: it is back, or replaced, within seconds."""


class KnownShards:
    """Asks shards. A shard that does not answer is `NotReady` with its name, whatever the reason."""

    def __init__(self, find: ShardDirectory) -> None:
        self._find = find

    async def ask(self, shard: ShardId, call: Callable[[ShardHandle], Awaitable[T]], timeout_s: float) -> T:
        """What `call` makes the shard answer within `timeout_s` seconds.

        Raises:
            NotReady: there is no such shard, or it did not answer in time; with a Retry-After.
            ShoalError: what the shard raised.
        """
        try:
            handle = self._find(shard)
            async with asyncio.timeout(timeout_s):
                return await call(handle)
        except TimeoutError:
            raise NotReady(
                f"shard {shard} did not answer within {timeout_s:g} s", retry_after_s=RETRY_AFTER_S
            ) from None
        except NotReady as error:
            if error.retry_after_s is None:
                error.retry_after_s = RETRY_AFTER_S
            raise
