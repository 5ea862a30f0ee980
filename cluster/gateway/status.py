"""What the installation reports about itself: every shard's statistics and the coordinator's status,
gathered.

One gathering serves all who ask within a second (scrapes, readiness probes, the command line): shards are
asked at most once a second however many look. A shard that does not answer within the deadline is reported
as such and never left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

import msgspec

from ...coordinator.commands import Order
from ...coordinator.status import CoordinatorStatus
from ...shards.model.errors import ShoalError
from ...shards.model.partitions import Epoch, ShardId
from ...shards.model.queries import ShardStatistics
from ..query.directory import KnownShards, ShardDirectory
from ..query.routing import Routing

FRESH_S = 1.0
"""A gathering this young is used again."""
REPORT_TIMEOUT_S = 2.0
"""Statistics are answered beside the data loop, within milliseconds; who needs longer is in trouble."""


class StatusSource(Protocol):
    """The part of `CoordinatorHandle` that a report needs."""

    async def status(self) -> CoordinatorStatus:
        """What is followed, by whom, and what is waited for."""


class Operated(StatusSource, Protocol):
    """The part of `CoordinatorHandle` that a gateway needs."""

    async def order(self, order: Order) -> tuple[str, ...]:
        """Takes an order by hand; what will come of it, line by line."""

    async def explain(self, about: str = "") -> tuple[str, ...]:
        """Why things are as they are, line by line."""


class ShardReport(msgspec.Struct, frozen=True, kw_only=True):
    """One shard: its statistics, or why there are none."""

    shard: ShardId
    statistics: ShardStatistics | None = None
    problem: str = ""


class GatewayReport(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway process: what it is doing, or why that is not known."""

    gateway: str
    """Its name; empty for one that has none, outside of Ray."""
    pid: int = 0
    requests: int = 0
    """Being answered."""
    watches: int = 0
    """Open."""
    problem: str = ""


Peers: TypeAlias = Callable[[], Awaitable[tuple[GatewayReport, ...]]]
"""Asks all gateways of the installation, the asking one included; one that does not answer is reported as such."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One gathering."""

    epoch: Epoch
    shards: tuple[ShardReport, ...] = ()
    """All shards of the route table, in its order."""
    coordinator: CoordinatorStatus | None = None
    coordinator_problem: str = ""
    """Why there is no status of the coordinator; empty if there is one."""
    gateways: tuple[GatewayReport, ...] = ()

    def statistics(self) -> dict[ShardId, ShardStatistics]:
        """Of the shards that answered."""
        return {report.shard: report.statistics for report in self.shards if report.statistics is not None}


class InstallationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The document at ``/shoal/v1/status``."""

    shoal_version: str
    ready: bool
    waiting_for: tuple[str, ...] = ()
    """What is not ready, as ``/readyz`` says it."""
    cannot_review: str = ""
    """Why nobody who has to say who they are can be let in, and what to apply; empty if they can."""
    report: Report


class Reports:
    """Gathers reports."""

    def __init__(
        self,
        routing: Routing,
        shards: ShardDirectory,
        coordinator: StatusSource,
        peers: Peers | None = None,
        *,
        timeout_s: float = REPORT_TIMEOUT_S,
        fresh_s: float = FRESH_S,
    ) -> None:
        self._routing = routing
        self._shards = KnownShards(shards)
        self._coordinator = coordinator
        self._peers = peers
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._latest: tuple[float, Report] | None = None
        self._gathering: asyncio.Task[Report] | None = None

    async def latest(self) -> Report:
        """A report at most `fresh_s` old; those who ask while one is being gathered share it."""
        loop = asyncio.get_running_loop()
        if self._latest is not None:
            at, report = self._latest
            # One of other routes would say of a partition that moved that nobody holds it.
            if loop.time() - at < self._fresh_s and report.epoch == self._routing.table.epoch:
                return report
        if self._gathering is None:
            self._gathering = loop.create_task(self._gather(), name="gather reports")
            self._gathering.add_done_callback(self._gathered)
        # NB: shielded, because one caller that goes away must not take the report from the others.
        return await asyncio.shield(self._gathering)

    def _gathered(self, task: asyncio.Task[Report]) -> None:
        self._gathering = None
        if not task.cancelled() and task.exception() is None:
            self._latest = (task.get_loop().time(), task.result())

    async def aclose(self) -> None:
        """Ends a gathering under way."""
        if self._gathering is not None:
            self._gathering.cancel()
            await asyncio.wait([self._gathering])

    async def _gather(self) -> Report:
        table = self._routing.table
        async with asyncio.TaskGroup() as group:
            coordinator = group.create_task(self._ask_coordinator(), name="coordinator status")
            gateways = group.create_task(self._ask_gateways(), name="gateways")
            shards = [
                group.create_task(self._ask_shard(shard), name=f"statistics of {shard}")
                for shard in table.shards
            ]
        status, problem = coordinator.result()
        return Report(
            epoch=table.epoch,
            shards=tuple(task.result() for task in shards),
            coordinator=status,
            coordinator_problem=problem,
            gateways=gateways.result(),
        )

    async def _ask_gateways(self) -> tuple[GatewayReport, ...]:
        return await self._peers() if self._peers is not None else ()

    async def _ask_shard(self, shard: ShardId) -> ShardReport:
        try:
            statistics = await self._shards.ask(shard, lambda handle: handle.statistics(), self._timeout_s)
            return ShardReport(shard=shard, statistics=statistics)
        except ShoalError as error:
            return ShardReport(shard=shard, problem=str(error))

    async def _ask_coordinator(self) -> tuple[CoordinatorStatus | None, str]:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._coordinator.status(), ""
        except TimeoutError:
            return None, f"the coordinator did not answer within {self._timeout_s:g} s"
        except ShoalError as error:
            return None, str(error)
