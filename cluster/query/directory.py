"""Shards by name, each call with a deadline.

Finding a shard may cost a millisecond (Ray looks actors up by name), so handles are kept; one whose shard did
not answer is looked up anew, because another process may have taken its name.
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
"""Finds a running shard by its id; raises NotReady if there is none."""

RETRY_AFTER_S = 1
"""What a client is told to wait when a shard is away: it is back, or replaced, within seconds."""


class KnownShards:
    """Asks shards. A shard that does not answer is `NotReady` with its name, whatever the reason."""

    def __init__(self, find: ShardDirectory) -> None:
        self._find = find
        self._handles: dict[ShardId, ShardHandle] = {}

    async def ask(self, shard: ShardId, call: Callable[[ShardHandle], Awaitable[T]], timeout_s: float) -> T:
        """What `call` makes the shard answer within `timeout_s` seconds.

        Raises:
            NotReady: there is no such shard, or it did not answer in time; with a Retry-After.
            ShoalError: what the shard raised.
        """
        try:
            handle = self._handles.get(shard)
            if handle is None:
                handle = self._handles[shard] = self._find(shard)
            async with asyncio.timeout(timeout_s):
                return await call(handle)
        except TimeoutError:
            self._handles.pop(shard, None)
            raise NotReady(
                f"shard {shard} did not answer within {timeout_s:g} s", retry_after_s=RETRY_AFTER_S
            ) from None
        except NotReady as error:
            self._handles.pop(shard, None)
            if error.retry_after_s is None:
                error.retry_after_s = RETRY_AFTER_S
            raise
