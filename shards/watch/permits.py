"""Permission to list: bounds how many lists run at the same time in the whole cluster.

After a restart every partition wants its list at once; the API server would answer all of them badly. A
reflector therefore holds a permit from before its list is asked for until the list is complete or given up.
Watches need none. Who grants permits (the coordinator, over actor calls) is not known here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from ..model.partitions import PartitionId


class Permits(Protocol):
    """A source of permits."""

    def permit(self, partition: PartitionId) -> AbstractAsyncContextManager[None]:
        """Entering waits for a permit; leaving gives it back.

        An implementation that loses touch with whoever grants neither blocks for ever nor raises: listing
        without a permit is better than not following.
        """


class NoPermits:
    """Everybody may list at any time: single shards, tests."""

    @asynccontextmanager
    async def permit(self, partition: PartitionId) -> AsyncIterator[None]:  # noqa: ARG002 - see Permits
        """Granted at once."""
        yield
