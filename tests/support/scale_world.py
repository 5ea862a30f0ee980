"""A large installation in virtual time: the real deciding code, and virtual shards that carry out what it decides.

Real: `LoadPlanner`, `Decider` with its hand-offs, `PermitBook`, `Liveness`, `RouteTable` and `RouteIndex`. Modelled:
the cluster (`scale_load`), shards (`scale_shards`), their transfers (`scale_transfers`), and how long processes take to
start. Time goes in steps, a pass of the coordinator each; nothing waits for a clock, and nothing depends on one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from support.scale_load import Cluster, Costs
from support.scale_shards import VirtualShard
from support.scale_transfers import Transfers

from shoal.cluster.query.routing import RouteIndex
from shoal.coordinator.catalogue import Catalogue
from shoal.coordinator.decide import Decider
from shoal.coordinator.instructions import Adopt, Observation, Publish, Release, Retire, ShardView, Switch
from shoal.coordinator.liveness import Liveness
from shoal.coordinator.permits import PermitBook
from shoal.coordinator.planning.orders import Orders
from shoal.coordinator.planning.planner import LoadPlanner
from shoal.coordinator.routes import RouteTable
from shoal.coordinator.settings import CoordinatorSettings
from shoal.shards.model.partitions import PartitionId, ShardId
from shoal.shards.model.queries import ShardStatistics

LATE_S = 2.0
"""A copy further behind than this is late; it counts as not served in time."""


@dataclass(slots=True)
class Moment:
    """How things are after a step."""

    at: float
    shards: int
    wanted: int
    cpu_max: float
    cpu_mean: float
    memory_max: float
    memory_mean: float
    over: int
    """Shards that what they follow and answer takes more than a core of."""
    served: float
    """The part of all objects that is complete, routed, on a shard that answers."""
    late: float
    """The part that is, and is late."""
    moves: int
    """So far; likewise the rest."""
    cuts: int
    lists: int
    partitions: int
    events_per_s: float


@dataclass
class World:
    """Everything."""

    cluster: Cluster
    settings: CoordinatorSettings
    shards_first: int = 2
    shards_per_node: int = 4
    start_s: float = 12.0
    """From the wish for a shard to its first answer: a Ray actor on a node that is there."""
    restart_s: float = 3.0
    """The same for a process that ended and whose node lives."""
    node_back_s: float = 30.0
    """Until actors of a node that is lost run elsewhere: Ray's health checks, and a start."""
    costs: Costs = field(default_factory=Costs)
    step_s: float = 1.0

    def __post_init__(self) -> None:
        self.now = 0.0
        self.shards: dict[ShardId, VirtualShard] = {}
        self.judged: dict[ShardId, Liveness] = {}
        self.heard: dict[ShardId, tuple[float, ShardStatistics]] = {}
        self.asked_at: dict[ShardId, float] = {}
        self.planner = LoadPlanner(self.settings, self.shards_first)
        self.decider = Decider(self.settings.placement, self.settings.follow.secrets, self.planner)
        self.permits = PermitBook(self.settings.permits)
        self.transfers = Transfers(self.shards)
        self.members = [ShardId(f"shard-{number}") for number in range(self.shards_first)]
        types = sorted(
            (kind.resource_type for kind in self.cluster.kinds.values()), key=lambda one: one.resource
        )
        self.catalogue = Catalogue(tuple(types))
        self.resources = tuple(self.cluster.kinds[known.resource].divisible for known in types)
        self.table = RouteTable()
        self.index = RouteIndex(self.table)
        self.returning: list[tuple[float, ShardId]] = []
        self.moments: list[Moment] = []
        self.counts: Counter[str] = Counter()
        self.last_orders: Orders | None = None
        self._processes = 0
        self._nodes = ["node-0", "node-1"]
        self._objects = self.cluster.objects
        memory = self.settings.scaling.memory_bytes
        self._memory = float(memory) if memory is not None else float("inf")

    # -- shards ----------------------------------------------------------------------------------------------

    def _node(self) -> str:
        """The node with the fewest shards; a new one if all are full."""
        usage = Counter(dict.fromkeys(self._nodes, 0))
        usage.update(shard.node for shard in self.shards.values() if not shard.lost and shard.node in usage)
        node = min(usage, key=lambda name: (usage[name], name))
        if usage[node] >= self.shards_per_node:
            node = f"node-{len(self._nodes)}"
            self._nodes.append(node)
        return node

    def _start(self, name: ShardId) -> None:
        self._processes += 1
        ready_at = self.now + self.start_s if self.now else 0.0
        self.shards[name] = VirtualShard(
            name, self._node(), ready_at, self.costs, self._memory, self._processes
        )
        self.judged[name] = Liveness(self.settings.liveness, since=self.now)
        self.counts["started"] += 1

    def _end(self, name: ShardId) -> None:
        for kept in (self.shards, self.judged, self.heard, self.asked_at):
            kept.pop(name, None)
        self.permits.shard_gone(name, self.now)
        self.counts["ended"] += 1

    def lose_node(self, node: str) -> int:
        """A node is gone; its actors come back on others after a while. How many they are."""
        lost = [shard for shard in self.shards.values() if shard.node == node and not shard.lost]
        self._nodes.remove(node)
        for shard in lost:
            shard.lost = True
            self.returning.append((self.now + self.node_back_s, shard.name))
        return len(lost)

    def _return(self) -> None:
        for at, name in list(self.returning):
            if self.now >= at:
                self.returning.remove((at, name))
                if name in self.shards:
                    self._processes += 1
                    shard = self.shards[name]
                    shard.node, shard.lost = self._node(), False
                    shard.begin_again(self._processes, self.now)

    def _kill_who_takes_too_much(self) -> None:
        for shard in self.shards.values():
            if shard.resident > self._memory and not shard.lost:
                self.counts["killed for memory"] += 1
                self._processes += 1
                self.permits.shard_gone(shard.name, self.now)
                shard.begin_again(self._processes, self.now + self.restart_s)
                shard.resident = 0.0

    # -- a step ----------------------------------------------------------------------------------------------

    def run(self, seconds: float, until: Callable[[World], bool] | None = None) -> bool:
        """Steps; whether what was waited for came about."""
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.step()
            if until is not None and until(self):
                return True
        return False

    def step(self) -> None:
        self.now += self.step_s
        self.cluster.advance(self.now, self.step_s)
        self._return()
        alive = [shard for shard in self.shards.values() if not shard.lost and self.now >= shard.ready_at]
        for shard in alive:
            shard.want(self.now, self.step_s, self.permits)
        self.transfers.want(self.now, self.step_s)
        listing = sum(held.listing for shard in alive for held in shard.held.values())
        most = self.costs.server_listed_per_s / self.costs.listed_per_s
        for shard in alive:
            shard.work(self.now, self.step_s, min(most / listing, 1.0) if listing else 1.0, self.permits)
        self.transfers.work(self.now, self.step_s)
        self._kill_who_takes_too_much()
        self._pass()

    def _pass(self) -> None:
        for name in self.members:
            if name not in self.shards:
                self._start(name)
        views = tuple(self._view(shard) for shard in self.shards.values())
        for view in views:
            if view.statistics is not None and view.answered_at == self.now and view.lives:
                self.planner.take(view.statistics, self.now)
        for switch, why in self.transfers.outcomes(self.now):
            self.counts["switches failed"] += bool(why)
            self.decider.switched(switch.number, switch.attempt, why, self.now)
        decision = self.decider.decide(Observation(self.now, self.catalogue, self.resources, views))
        if decision.orders is not None:
            self.last_orders = decision.orders
            self.members = list(decision.orders.members)
        for instruction in decision.instructions:
            self._perform(instruction)
        for name in decision.orders.profiles if decision.orders is not None else ():
            self._profile(name)
        self._note()

    def _view(self, shard: VirtualShard) -> ShardView:
        name, judged = shard.name, self.judged[shard.name]
        settings = self.settings.liveness
        if not shard.lost and self.now >= shard.ready_at:
            statistics = shard.statistics()
            if judged.answered(statistics.incarnation, self.now):
                self.permits.shard_gone(name, self.now)
            self.heard[name] = (self.now, statistics)
        elif name in self.heard and self.now - self.asked_at.get(name, -1e9) >= settings.answer_timeout_s:
            self.asked_at[name] = self.now
            judged.failed("no answer in time", self.now)
        judged.waited(self.now)
        heard = self.heard.get(name)
        return ShardView(
            shard=name,
            state=judged.state,
            fresh=heard is not None and heard[0] == self.now,
            statistics=heard[1] if heard else None,
            answered_at=heard[0] if heard else None,
            leaving=name not in self.members,
        )

    def _perform(self, instruction: object) -> None:
        match instruction:
            case Adopt(name, assignments, epoch, sources):
                shard = self.shards[name]
                if not shard.lost and self.now >= shard.ready_at:
                    before = {held.name for held in shard.held.values()}
                    shard.adopt(assignments, epoch, sources, self.cluster.kinds, self.now)
                    new = [one.partition.id for one in assignments if one.partition.id not in before]
                    self.counts["lists"] += sum(one not in sources for one in new)
            case Publish(table):
                self._publish(table)
            case Release(name, partitions, _):
                if name in self.shards:
                    self.shards[name].release(partitions)
            case Retire(name):
                self._end(name)
            case Switch():
                self.transfers.begin(instruction, self.now)

    def _publish(self, table: RouteTable) -> None:
        before = {route.partition.id: route.shard for route in self.table.routes}
        after = {route.partition.id: route.shard for route in table.routes}
        self.counts["moves"] += sum(1 for name, on in after.items() if before.get(name, on) != on)
        if before:
            recut = {route.partition.resource for route in table.routes if route.partition.id not in before}
            self.counts["cuts"] += len(recut)
        self.counts["tables"] += 1
        self.table = table
        self.index = RouteIndex(table)
        routed: dict[ShardId, set[PartitionId]] = {}
        for name, on in after.items():
            routed.setdefault(on, set()).add(name)
        for known, shard in self.shards.items():
            shard.routed = frozenset(routed.get(known, ()))

    def _profile(self, name: PartitionId) -> None:
        route = self.index.route(name)
        shard = self.shards.get(route.shard) if route is not None else None
        held = shard.held.get(name) if shard is not None and not shard.lost else None
        if held is not None and held.state == "synced":
            self.planner.take_profile(held.kind.profile(held.partition), self.now)

    # -- what is noted ---------------------------------------------------------------------------------------

    def _note(self) -> None:
        served = late = 0.0
        for route in self.table.routes:
            shard = self.shards.get(route.shard)
            held = shard.held.get(route.partition.id) if shard is not None and not shard.lost else None
            if held is not None and held.state == "synced":
                objects = held.objects()
                served += objects
                late += objects * (held.lag_s > LATE_S)
        up = [shard for shard in self.shards.values() if not shard.lost and self.now >= shard.ready_at]
        count = max(len(up), 1)
        for shard in up:
            self.counts["relists"] += shard.relists
            shard.relists = 0
        self.moments.append(
            Moment(
                self.now,
                len(up),
                len(self.members),
                max((shard.due for shard in up), default=0.0),
                sum(shard.due for shard in up) / count,
                max((shard.resident for shard in up), default=0.0),
                sum(shard.resident for shard in up) / count,
                sum(shard.due > 1.0 for shard in up),
                served / self._objects,
                late / self._objects,
                self.counts["moves"],
                self.counts["cuts"],
                self.counts["lists"],
                len(self.table.routes),
                self.cluster.events_per_s,
            )
        )
