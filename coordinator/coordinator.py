"""The coordinator: looks at the API server and at the shards, decides, and carries out what was decided.

Two loops: one looks at discovery, the other makes passes (`step`: observe, decide, perform) every second and
at once when something has changed. All deciding is pure and elsewhere (`catalogue`, `partitioning`,
`placement`, `decide`); talking to shards is the `Roster`, waiting for permits the `PermitDesk`. The
coordinator is never on the data path and keeps nothing that its successor could not learn from shards,
routers and the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import uuid
from collections import Counter
from collections.abc import Sequence

from ..shards.api.client import ApiConnection
from ..shards.handle import ShardProvider
from ..shards.model.errors import ShoalError
from ..shards.model.partitions import Epoch, HashRange, PartitionId, ShardId
from ..shards.model.resources import Resource
from ..shards.model.transfers import Profile
from .catalogue import Catalogue, build_catalogue, compare_catalogues
from .commands import Order
from .decide import Decider, Decision
from .discovery import Discovery, Snapshot
from .instructions import Adopt, Observation, Release, Retire, ShardView, Switch
from .ordering import carry_out
from .partitioning import Partitioning, partition_resources
from .permit_desk import PermitDesk
from .planning.explaining import explain
from .planning.planner import LoadPlanner
from .report import Looks, report
from .roster import Roster
from .routes import RouteTable
from .selecting import Selecting
from .settings import CoordinatorSettings
from .status import CoordinatorStatus

_log = logging.getLogger("shoal.coordinator")

NO_EPOCH = Epoch(0)


class Coordinator:
    """Decides who follows what. One per cluster; belongs to the event loop it was made on."""

    def __init__(
        self,
        *,
        connection: ApiConnection,
        provider: ShardProvider,
        settings: CoordinatorSettings,
        shard_count: int,
        incarnation: str = "",
        used_epoch: Epoch = NO_EPOCH,
    ) -> None:
        """`incarnation` tells this coordinator from its predecessor; made up if empty.

        `used_epoch`: every epoch up to this one may have been used by a predecessor. Shards and routers usually tell,
        but all shards may have died with it, and routers that hold an equal epoch do not show it.
        """
        if shard_count < 1:
            raise ValueError(f"at least one shard is needed, not {shard_count}")
        self.permits = PermitDesk(settings.permits, prefix=incarnation or uuid.uuid4().hex[:8])
        self._settings = settings
        self._shard_count = shard_count
        self._connection = connection
        self._discovery = Discovery(connection, settings.discovery)
        self._changed = asyncio.Event()
        self._selecting = Selecting(connection, self._changed.set)
        self._roster = Roster(
            provider, settings.liveness, lost=self.permits.shard_gone, judged=self._changed.set
        )
        self._planner = LoadPlanner(settings, shard_count)
        self._decider = Decider(settings.placement, settings.follow.secrets, self._planner)
        self._snapshot: Snapshot | None = None
        self._catalogue: Catalogue | None = None
        self._partitioning = Partitioning((), ())
        self._looks = Looks()
        self._table = RouteTable()
        self._decision = Decision()
        self._plan: tuple[str, ...] = ()
        self._planned: list[ShardId] = []
        """The shards there are to be, by the last plan; empty before the first."""
        self._routers_epoch = used_epoch
        self._errors: Counter[str] = Counter()
        self._switched = False
        """A switch has come to its outcome, and the old copies stand still until the table says so."""
        self._published = asyncio.Event()
        self._look_now = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    # -- lifecycle -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts both loops and returns at once."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self.run(), name="coordinator")

    async def stop(self) -> None:
        """Ends both loops and closes the connection to the API server. Shards go on as they are."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])
        await self._connection.aclose()

    async def run(self) -> None:
        """Runs until cancelled."""
        async with self._roster, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_discovery(), name="coordinator discovery")
            tasks.create_task(self._make_passes(), name="coordinator passes")
            tasks.create_task(self._selecting.run(), name="coordinator probes")

    def resize(self, shard_count: int) -> None:
        """Changes how many shards there are; those that leave end when others serve what they have."""
        if shard_count < 1:
            raise ValueError(f"at least one shard is needed, not {shard_count}")
        self._shard_count = shard_count
        self._planner.resize(shard_count)
        self._changed.set()

    # -- for routers and people ----------------------------------------------------------------------------------

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        """The newest table, as soon as its epoch is greater than `after`; after `timeout_s` whatever there
        is.
        """
        if after > self._table.epoch:
            # Published by a predecessor, and not to be learnt from any shard.
            self._routers_epoch = max(self._routers_epoch, after)
            self._changed.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._table.epoch <= after:
                    await self._published.wait()
        return self._table

    def order(self, order: Order) -> tuple[str, ...]:
        """Takes an order by hand; what will come of it, line by line (`coordinator.ordering`).

        Raises:
            NotReady, NotFound, Conflict, BadRequest: it cannot be, and why; nothing has changed.
        """
        lines = carry_out(order, self._decider, self._planner)
        _log.info("ordered by hand", extra={"order": str(order)})
        self._changed.set()
        return lines

    def explain(self, about: str = "") -> tuple[str, ...]:
        """Why shards, cuts and places are as they are, and what would change them (`planning.explaining`).

        Raises:
            NotFound: nothing is known of what is asked about.
        """
        lines = explain(self._planner, about)
        others = (*self._decider.by_hand.lines(), *self._decision.postponed)
        return (*lines, *(line for line in others if about in line))

    def status(self) -> CoordinatorStatus:
        """What is followed, by whom, and what is waited for."""
        return report(
            now=asyncio.get_running_loop().time(),
            table=self._table,
            decider=self._decider,
            decision=self._decision,
            plan=self._plan,
            catalogue=self._catalogue,
            partitioning=self._partitioning,
            members=self._roster.members,
            census=self._planner.census,
            permits=self.permits.status(),
            looks=self._looks,
            errors=dict(self._errors),
        )

    # -- discovery -----------------------------------------------------------------------------------------------

    async def _follow_discovery(self) -> None:
        settings = self._settings.discovery
        pause_s = settings.poll_s
        while True:
            try:
                await self.look()
                pause_s = settings.poll_s
            except ShoalError as error:
                self._looks.failed(error.message, pause_s)
                _log.warning("discovery failed", extra={"error": error.message, "again_in_s": pause_s})
            except Exception as error:  # noqa: BLE001 - the loop must not end; what is known stands
                self._errors["discovery"] += 1
                self._looks.failed(f"{type(error).__name__}: {error}", pause_s)
                _log.exception("discovery broke")
            self._look_now.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._look_now.wait()
            if self._looks.failing:
                pause_s = min(pause_s * 2, settings.backoff_max_s)

    async def look(self) -> None:
        """One look at what the API server serves.

        Raises:
            ConnectionFailed, Upstream, Garbage: nothing was learnt.
        """
        snapshot = await self._discovery.look()
        self._looks.succeeded(asyncio.get_running_loop().time(), snapshot)
        if snapshot == self._snapshot:
            return
        follow = self._settings.follow
        catalogue = build_catalogue(snapshot.groups, follow)
        change = compare_catalogues(self._catalogue or Catalogue(), catalogue)
        if change:
            _log.info(
                "resources changed",
                extra={
                    "added": [str(resource) for resource in change.added],
                    "removed": [str(resource) for resource in change.removed],
                    "changed": [str(resource) for resource in change.changed],
                },
            )
        self._snapshot, self._catalogue = snapshot, catalogue
        self._partitioning = partition_resources(catalogue.followed, follow.carve)
        self._changed.set()

    # -- passes --------------------------------------------------------------------------------------------------

    async def _make_passes(self) -> None:
        while True:
            self._changed.clear()
            try:
                # NB: after a switch nobody is asked first: until the table is out nothing new is shown.
                await self.step(ask=not self._switched)
            except Exception:  # noqa: BLE001 - the next pass starts from what it sees then
                self._errors["step"] += 1
                _log.exception("pass failed")
            settings = self._settings.liveness
            # Shards were told something: whether they took it is looked at sooner.
            pause_s = settings.patience_s if self._decision.instructions else settings.interval_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def step(self, *, ask: bool = True) -> None:
        """One pass: observe, decide, perform. Without `ask` by what shards have said already."""
        self._switched = False
        now = asyncio.get_running_loop().time()
        if ask:
            await self._roster.find(now)
        self._roster.set_wanted(self._members(), now)
        views = await self._roster.observe() if ask else self._roster.views()
        self._decision = self._decider.decide(self._observation(views))
        self._roster.set_wanted(self._members(), now)
        await self._perform(self._decision)

    def _members(self) -> list[ShardId]:
        """The shards that are to run: before anything was planned also those that a predecessor has left."""
        if self._decision.orders is not None:
            self._planned = list(self._decision.orders.members)
        if self._planned:
            return self._planned
        some = [ShardId(f"shard-{number}") for number in range(self._shard_count)]
        return [*some, *(member.shard for member in self._roster.members if member.shard not in some)]

    def _observation(self, views: tuple[ShardView, ...]) -> Observation:
        for view in views:
            if view.statistics is not None and view.answered_at is not None and view.lives:
                self._planner.take(view.statistics, view.answered_at)
                if any(entry.state == "gone" for entry in view.statistics.partitions):
                    self._look_now.set()  # discovery will tell whether it is
        return Observation(
            now=asyncio.get_running_loop().time(),
            catalogue=self._catalogue,
            resources=tuple(
                dataclasses.replace(one, selects=fields)
                if (fields := self._selecting.fields(one.resource))
                else one
                for one in self._partitioning.resources
            ),
            shards=views,
            server_version=self._snapshot.server_version if self._snapshot else b"",
            routers_epoch=self._routers_epoch,
        )

    async def _perform(self, decision: Decision) -> None:
        orders = decision.orders
        if orders is not None and orders.plan.placings:
            self._plan = orders.plan.explain()
        switch_s = self._settings.placement.switch_timeout_s
        adopts = [instruction for instruction in decision.instructions if isinstance(instruction, Adopt)]
        releases = [instruction for instruction in decision.instructions if isinstance(instruction, Release)]
        publishing = self._decider.table.epoch > self._table.epoch
        # NB: a shard takes an epoch before routers see it, and gives up a partition only after.
        await self._roster.tell(adopts, until_one=publishing)
        for passing in decision.passing:  # to shards that were told to go on, if they stood still
            await self._roster.pass_on(passing, timeout_s=switch_s, lenient=True)
        if publishing:
            self._publish(self._decider.table)
        for instruction in decision.instructions:
            if isinstance(instruction, Switch):
                self._roster.begin(instruction, self._outcome, timeout_s=switch_s)
        await self._roster.tell(releases, until_one=False)
        for instruction in decision.instructions:
            if isinstance(instruction, Retire):
                self._roster.retire(instruction.shard)
        self._look_into(orders.profiles if orders is not None else ())

    def _look_into(self, partitions: Sequence[PartitionId]) -> None:
        """Has shards say where the load of these partitions is, and the API server by what it selects them; planning
        gets the answers when they come.
        """
        concerned: set[Resource] = set()
        for route in self._table.routes:
            if route.partition.id in partitions:
                self._roster.profile(route.shard, route.partition.id, self._profiled)
            elif not isinstance(route.partition.cover, HashRange):
                continue
            concerned.add(route.partition.resource)
        followed = self._catalogue.followed if self._catalogue is not None and concerned else ()
        self._selecting.want(known for known in followed if known.resource in concerned)

    def _profiled(self, profile: Profile) -> None:
        self._planner.take_profile(profile, asyncio.get_running_loop().time())

    def _outcome(self, switch: Switch, why: str) -> None:
        """A switch has succeeded, or failed if there is a reason why: the next pass begins at once."""
        now = asyncio.get_running_loop().time()
        self._decider.switched(switch.number, switch.attempt, why, now)
        self._switched = self._switched or not why
        self._changed.set()

    def _publish(self, table: RouteTable) -> None:
        self._table = table
        _log.info(
            "routes published",
            extra={"epoch": table.epoch, "resources": len(table.catalogue), "partitions": len(table.routes)},
        )
        self._published.set()
        self._published = asyncio.Event()
