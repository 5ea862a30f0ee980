"""Having one partition cleared to the versions its lanes want (`lanes`), by asking the shard its feed comes from.

One question at a time, each for the newest version wanted by then. As a rule that is an overtaking. A partition whose
names *roam* is never overtaken: it has to reach the version. Its feed usually says so within milliseconds; if not, its
shard is asked for a count of a state as new, which makes it prove its frontier (`shards.waiting`): about a second.

A shard without a lease (`shards.leasing`) gives no leave; its partitions have to reach the version, too.
A shard that fails to for too long is given up. One that has handed the partition over fails until new routes lead to
its successor, which takes a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from ...shards.handle import ShardHandle
from ...shards.model.errors import NoLeave, ShoalError
from ...shards.model.partitions import PartitionId, ShardId
from ...shards.model.queries import CountQuery, OvertakeQuery, PartitionCount
from ...shards.model.versions import UNKNOWN, Version
from ..query.directory import KnownShards
from ..query.routing import Routing
from .lanes import Clearance
from .statistics import WatchStatistics

T = TypeVar("T")

RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 1.0
REACH_AFTER_S: Final = 0.1
"""A frontier that is waited for is asked for if the feed has not told it within this."""
REACH_WAIT_S: Final = 3.0
"""How long the shard then tries; a proof takes a second or so."""


class Clearing:
    """Of one partition. `begin` with each feed that is opened, `stop` with its end."""

    def __init__(
        self,
        partition: PartitionId,
        clearance: Clearance,
        *,
        roams: bool,
        routing: Routing,
        shards: KnownShards,
        patience_s: float,
        statistics: WatchStatistics,
        cleared: Callable[[], None],
        given_up: Callable[[ShoalError], None],
    ) -> None:
        """`cleared` is called when the clearance has changed, `given_up` when the shard has failed for too long."""
        self._partition = partition
        self._clearance = clearance
        self._roams = roams
        self._routing = routing
        self._shards = shards
        self._patience_s = patience_s
        self._statistics = statistics
        self._cleared = cleared
        self._given_up = given_up
        self._loop = asyncio.get_running_loop()
        self._wanted = UNKNOWN
        self._shard: ShardId | None = None
        """Who is asked; None while there is no feed."""
        self._asking: asyncio.Task[None] | None = None

    def want(self, version: Version) -> None:
        """Has the partition cleared to `version`, unless it is anyhow, or will be once there is a feed."""
        self._wanted = max(self._wanted, version)
        self.resume()

    def begin(self, shard: ShardId) -> None:
        """The feed is open, from this shard: another one's word is of no use."""
        self._shard = shard

    def resume(self) -> None:
        """Asks if anything is lacking and nothing is asked for."""
        if self._asking is None and self._shard is not None and self._lacking:
            asking = self._reach(self._shard) if self._roams else self._overtake(self._shard)
            self._asking = self._loop.create_task(asking, name=f"clearing {self._partition}")

    async def stop(self) -> None:
        """The feed is not open any more."""
        asking, self._asking, self._shard = self._asking, None, None
        if asking is not None:
            asking.cancel()
            await asyncio.wait((asking,))

    @property
    def _lacking(self) -> bool:
        return self._wanted > max(self._clearance.cleared, self._clearance.promised)

    async def _overtake(self, shard: ShardId) -> None:
        """Asks until what is wanted is acknowledged."""
        patience = _Patience(self._loop, self._patience_s)
        while self._lacking:
            version = self._wanted
            try:
                frontier = await self._said(shard, self._overtaking(version), patience)
            except NoLeave:
                # Another shard may own the partition by now. What this one feeds is the API server's all the same, so
                # it has to reach the version.
                await self._said(shard, self._reaching(version), patience)
                await asyncio.sleep(REACH_AFTER_S)
                continue
            if frontier is not None:
                self._statistics.overtakings += 1
                self._clearance.acknowledged(version, frontier)
                self._cleared()
        self._asking = None

    async def _reach(self, shard: ShardId) -> None:
        """Waits until the feed has told what is wanted, and asks for it if that does not come by itself."""
        patience = _Patience(self._loop, self._patience_s)
        while self._lacking:
            version = self._wanted
            await asyncio.sleep(REACH_AFTER_S)
            if self._clearance.fed < version:
                reached = await self._said(shard, self._reaching(version), patience)
                self._statistics.proofs += reached is not None
        self._asking = None

    def _overtaking(self, version: Version) -> Callable[[ShardHandle], Awaitable[Version]]:
        query = OvertakeQuery(partition=self._partition, epoch=self._routing.table.epoch, version=version)
        return lambda handle: handle.overtake(query)

    def _reaching(self, version: Version) -> Callable[[ShardHandle], Awaitable[PartitionCount]]:
        query = CountQuery(
            partition=self._partition,
            epoch=self._routing.table.epoch,
            not_older_than=version,
            wait_s=REACH_WAIT_S,
        )
        return lambda handle: handle.count(query)

    async def _said(
        self, shard: ShardId, call: Callable[[ShardHandle], Awaitable[T]], patience: _Patience
    ) -> T | None:
        """What the shard answers, or None after a pause. Who has failed for too long is asked no more.

        Raises:
            NoLeave: as `ShardHandle.overtake`.
        """
        try:
            answer = await self._shards.ask(shard, call, self._patience_s)
        except NoLeave:
            raise
        except ShoalError as error:
            if patience.over:
                self._given_up(error)
                await self._loop.create_future()  # until `stop`
            await asyncio.sleep(patience.pause_s())
            return None
        patience.renewed()
        return answer


class _Patience:
    """How long failures in a row are borne, and the pauses between them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patience_s: float) -> None:
        self._loop = loop
        self._patience_s = patience_s
        self.renewed()

    def renewed(self) -> None:
        """Something succeeded."""
        self._began, self._pause_s = self._loop.time(), RETRY_FIRST_S

    @property
    def over(self) -> bool:
        """Nothing has for too long."""
        return self._loop.time() - self._began >= self._patience_s

    def pause_s(self) -> float:
        """Before the next attempt; longer each time."""
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, RETRY_MAX_S)
        return pause_s
