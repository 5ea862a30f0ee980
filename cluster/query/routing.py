"""The route table as a router has it: followed by long poll, kept while the coordinator is away, never older.

One task talks to the coordinator; readers look at `table`, a frozen value, without waiting. A reader that
learned from a shard that its table is out of date asks for a newer one with `refresh` and gets, within its
deadline, a newer one or the same. A table of a smaller epoch than the one held is ignored: whoever
published it knows less.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from ...coordinator.routes import Route, RouteTable
from ...shards.model.errors import NotReady, ShoalError
from ...shards.model.partitions import Epoch, PartitionId
from ...shards.model.resources import Resource, ResourceType

log = logging.getLogger("shoal.cluster.query.routing")

POLL_S = 30.0
"""How long one poll stays open at the coordinator."""
POLL_GRACE_S = 10.0
"""A poll not answered this long after its time is given up: the coordinator hangs, or its node is gone."""
PAUSE_S = 0.05
"""Between two polls of which the first brought nothing new, so that a coordinator that answers at once is not
asked in a tight loop."""
RETRY_FIRST_S = 0.25
RETRY_MAX_S = 5.0


class RouteSource(Protocol):
    """The part of `CoordinatorHandle` that routing needs."""

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        """The newest table once its epoch is greater than `after`; after `timeout_s` whatever there is."""


class RouteIndex:
    """One route table with the look-ups queries need. Never changes."""

    __slots__ = ("_partitions", "_resources", "_types", "table")

    def __init__(self, table: RouteTable) -> None:
        self.table = table
        resources: dict[Resource, list[Route]] = {}
        for route in table.routes:
            resources.setdefault(route.partition.resource, []).append(route)
        self._resources: Mapping[Resource, tuple[Route, ...]] = {
            resource: tuple(routes) for resource, routes in resources.items()
        }
        self._types = {known.resource: known for known in table.catalogue}
        self._partitions = {route.partition.id: route for route in table.routes}

    @property
    def epoch(self) -> Epoch:
        """Of the table."""
        return self.table.epoch

    def resource_type(self, resource: Resource) -> ResourceType | None:
        """What is known of a resource, or None if it is not followed."""
        return self._types.get(resource)

    def of(self, resource: Resource) -> tuple[Route, ...]:
        """All routes of a resource."""
        return self._resources.get(resource, ())

    def route(self, partition: PartitionId) -> Route | None:
        """The route of one partition, or None if there is no such partition any more."""
        return self._partitions.get(partition)


class Routing:
    """The newest route table seen. `run` follows the coordinator; everything else only reads."""

    def __init__(self, source: RouteSource, *, poll_s: float = POLL_S) -> None:
        self._source = source
        self._poll_s = poll_s
        self._index = RouteIndex(RouteTable())
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()
        self._problem = "the coordinator has not published routes yet"

    @property
    def table(self) -> RouteTable:
        """The newest table seen; of epoch 0 and empty before the first."""
        return self._index.table

    @property
    def index(self) -> RouteIndex:
        """The same with its look-ups."""
        return self._index

    @property
    def problem(self) -> str:
        """Why the table may be out of date, as a sentence; empty while the coordinator answers."""
        return self._problem

    async def run(self) -> None:
        """Follows the coordinator until cancelled."""
        retry_s = RETRY_FIRST_S
        while True:
            seen = self.table.epoch
            if await self.follow_once():
                retry_s = RETRY_FIRST_S
                if self.table.epoch == seen:
                    await asyncio.sleep(PAUSE_S)
                continue
            # NB: a refresh cuts the pause short, because somebody knows that there is a newer table.
            self._wanted.clear()
            try:
                async with asyncio.timeout(retry_s):
                    await self._wanted.wait()
            except TimeoutError:
                retry_s = min(retry_s * 2, RETRY_MAX_S)

    async def follow_once(self) -> bool:
        """One poll; false if the coordinator did not answer."""
        try:
            async with asyncio.timeout(self._poll_s + POLL_GRACE_S):
                table = await self._source.routes(self.table.epoch, self._poll_s)
        except (ShoalError, TimeoutError) as error:
            problem = str(error) or "the coordinator does not answer"
            if problem != self._problem:
                log.warning(
                    "routes cannot be followed", extra={"problem": problem, "epoch": self.table.epoch}
                )
            self._problem = problem
            return False
        self._problem = "" if table.epoch else "the coordinator has not published routes yet"
        self.take(table)
        return True

    def take(self, table: RouteTable) -> bool:
        """Takes a table if it is newer than the one held; says whether it was."""
        if table.epoch <= self.table.epoch:
            return False
        log.debug("new routes", extra={"epoch": table.epoch, "partitions": len(table.routes)})
        self._index = RouteIndex(table)
        news, self._news = self._news, asyncio.Event()
        news.set()
        return True

    async def refresh(self, seen: Epoch, timeout_s: float) -> RouteIndex:
        """Routes newer than `seen`, or after `timeout_s` the one held."""
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self.table.epoch <= seen:
                    await self._news.wait()
        except TimeoutError:
            pass
        return self._index

    async def published(self, timeout_s: float) -> RouteIndex:
        """The newest routes; the first are waited for.

        Raises:
            NotReady: none was published in time.
        """
        index = await self.refresh(Epoch(0), timeout_s)
        if index.epoch == 0:
            raise NotReady(self._problem or "no routes were published yet", retry_after_s=1)
        return index
