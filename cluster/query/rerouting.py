"""Queries while partitions move: asked again with newer routes, so that nobody is refused for a move.

A shard that does not serve a partition any more says so (`NotServed`). Then the whole query is planned and asked anew
with newer routes, as often as there are newer ones: the partition may have moved, or its resource may be divided anew.
If none come for a while it is asked with the same ones: a shard that was restarted is given its partitions again in a
moment, and one that hands a partition over answers who waits for news only once that is done, here or there. So is a
query that failed at a shard which has nothing to do with it any more by then: it may have waited there for news that
only the successor hears. What has begun to be sent is not asked again from the beginning; it goes on where the
partition is now (`relocate`), or breaks off.

Limits: an attempt whose shards do not answer has its own deadline; after `REROUTE_S` there is no further one, unless
there are newer routes by then, and after `ANEW_MAX` of these neither. Where a partial answer will do, what is with
nobody is left out as soon as no newer routes come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ...coordinator.routes import Route
from ...shards.model.errors import NotReady, NotServed, TooLargeVersion
from ...shards.model.partitions import Epoch, PartitionId
from ...shards.model.resources import Resource
from .directory import RETRY_AFTER_S
from .gather import Tolerated
from .routing import RouteIndex, Routing

T = TypeVar("T")

VAIN_S: Final = 10.0
"""How long tokens are not believed that there are newer routes, after one was that there were none."""
REFRESH_S: Final = 1.0
"""How long newer routes are waited for when a shard says that ours are old. A hand-over takes milliseconds; a
restarted shard is given its partitions again within about a second."""
REROUTE_S: Final = 5.0
"""For so long a query is asked again while there are no newer routes."""
ANEW_MAX: Final = 8
"""How often a query is asked again because there are."""


class Rerouting:
    """The routes of a router, and what it does about old ones."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._vain_until = 0.0

    async def run(
        self,
        resource: Resource,
        attempt: Callable[[RouteIndex, Tolerated], Awaitable[T]],
        *,
        partial: bool,
    ) -> T:
        """What `attempt` makes of the routes held, or of newer ones if there are, or if a shard says that there are.

        Raises:
            NotReady: a partition is with nobody; no routes were published yet; and what `attempt` raises.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REROUTE_S
        routes = self._routing.index
        if routes.epoch == 0:
            routes = await self._routing.published(REFRESH_S)
        anew = 0
        while True:
            try:
                return await attempt(routes, (NotReady,) if partial else ())
            except (NotServed, NotReady, TooLargeVersion) as error:
                problem = error
            newer = self._routing.index
            outdated = newer.of(resource) != routes.of(resource)
            if outdated and anew < ANEW_MAX:
                # Whatever time it took: a shard that stands still may have kept it waiting until its successor served.
                anew += 1
            elif not isinstance(problem, NotServed) or loop.time() >= deadline:
                break
            else:
                newer = await self._routing.refresh(max(routes.epoch, Epoch(problem.epoch - 1)), REFRESH_S)
                if newer.epoch <= routes.epoch and partial:
                    return await attempt(newer, (NotReady, NotServed))
            routes = newer
        if isinstance(problem, NotServed):
            raise _with_nobody(problem, routes) from problem
        raise problem

    async def relocate(self, partition: PartitionId, epoch: Epoch) -> tuple[Route, Epoch]:
        """As `cursor.Relocate`."""
        routes = await self._routing.refresh(epoch, REFRESH_S)
        route = routes.route(partition)
        if route is None:
            # Divided anew. While nothing was sent, all of the query is asked again; else this ends it.
            raise NotServed(partition, routes.epoch)
        return route, routes.epoch

    async def wait_for(self, epoch: Epoch) -> None:
        """Waits a moment for routes that a token says there are. It may say what its bearer likes, so when they did not
        come nobody waits on such word for `VAIN_S`: who needs newer routes is told so by a shard.
        """
        now = asyncio.get_running_loop().time
        if now() < self._vain_until:
            return
        routes = await self._routing.refresh(Epoch(epoch - 1), REFRESH_S)
        if routes.epoch < epoch:
            self._vain_until = now() + VAIN_S


def _with_nobody(error: NotServed, routes: RouteIndex) -> NotReady:
    return NotReady(
        f"partition {error.partition} is with no shard at the moment (epoch {routes.epoch})",
        retry_after_s=RETRY_AFTER_S,
    )
