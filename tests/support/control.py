"""A coordinator's decisions carried out by hand: `Bench` is a clock, some `MemoryShard`s and a `Decider`.

Nothing is asynchronous: a test, or a seeded walk, says what happens and when. After every pass the bench
checks what must hold at every moment; the texts are the sentences that would be broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from support.shards import MemoryShard
from support.standing import StandingPlanner

from shoal.coordinator.catalogue import Catalogue
from shoal.coordinator.census import Census
from shoal.coordinator.commands import Order
from shoal.coordinator.decide import Decider, Decision
from shoal.coordinator.differences import overlap
from shoal.coordinator.handoff import Copy
from shoal.coordinator.instructions import (
    Adopt,
    Observation,
    Passing,
    Publish,
    Release,
    Retire,
    ShardView,
    Switch,
)
from shoal.coordinator.liveness import Liveness
from shoal.coordinator.ordering import carry_out
from shoal.coordinator.partitioning import Partitioning, partition_resources
from shoal.coordinator.routes import RouteTable
from shoal.coordinator.settings import LivenessSettings, PlacementSettings, SecretsRule
from shoal.coordinator.wanting import Planner, settled_cut
from shoal.shards.model.covers import divide
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import Cover, Epoch, Partition, PartitionId, ShardId
from shoal.shards.model.queries import ShardStatistics
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.transfers import HandedOver, Taken
from shoal.shards.model.versions import Version


def resource_type(name: str, group: str = "", *, fields: tuple[str, ...] = ()) -> ResourceType:
    return ResourceType(
        resource=Resource(group, "v1", name),
        kind=name.removesuffix("s").capitalize(),
        namespaced=True,
        verbs=("list", "watch"),
        selectable_fields=fields,
    )


def catalogue_of(*names: str) -> Catalogue:
    types = [resource_type(name) for name in names]
    return Catalogue(tuple(sorted(types, key=lambda known: known.resource)))


class Bench:
    """Shards by number, a clock, and one coordinator at a time."""

    def __init__(
        self,
        shards: int,
        *,
        settings: PlacementSettings | None = None,
        liveness: LivenessSettings | None = None,
        secrets: SecretsRule = "exclude",
        sync_s: float = 1.0,
        transfer_s: float = 0.5,
        carve: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.now = 0.0
        self.settings = settings or PlacementSettings()
        self.liveness = liveness or LivenessSettings()
        self.secrets: SecretsRule = secrets
        self.sync_s = sync_s
        self.transfer_s = transfer_s
        self.carve = carve or {}
        self.wanted = shards
        self.shards: dict[ShardId, MemoryShard] = {}
        self.objects: dict[PartitionId, int] = {}
        """How large partitions are, wherever they are."""
        self.unreachable: set[ShardId] = set()
        self.cut_off: set[ShardId] = set()
        """Shards that were unreachable at some time, and may have missed that they serve no more."""
        self.lost_instructions: set[ShardId] = set()
        """Shards whose next instructions are not carried out."""
        self.catalogue: Catalogue | None = None
        self.published: list[RouteTable] = []
        self.router_epoch = Epoch(0)
        """What routers have seen and show to a coordinator that comes back."""
        self.fail_switch: Callable[[Switch], str] = lambda _: ""
        """How the next switches fail: ``refused`` before anything was done, ``half`` once the givers stand still,
        ``silent`` without an outcome; empty: not at all."""
        self.outcomes_after = 0
        """Steps until the outcome of a switch is told."""
        self.shown: list[tuple[Resource, Cover, ShardId, int]] = []
        """What readers were shown by whose leave."""
        self._start_coordinator()
        self._heard: dict[ShardId, tuple[float, ShardStatistics]] = {}

    def _start_coordinator(self) -> None:
        self.census = Census(self.settings)
        self.planner: Planner = StandingPlanner(self.settings, self.census.weight)
        self.decider = Decider(self.settings, self.secrets, self.planner)
        self.judged: dict[ShardId, Liveness] = {}
        self._outcomes: list[tuple[int, Switch, str]] = []

    def restart_coordinator(self) -> None:
        self._start_coordinator()
        self._heard = {}

    def order(self, order: Order) -> tuple[str, ...]:
        return carry_out(order, self.decider, self.planner)

    @property
    def partitioning(self) -> Partitioning:
        return partition_resources(self.catalogue.followed if self.catalogue else (), self.carve)

    @property
    def version(self) -> int:
        """Where the API server is: a version for every 10 ms."""
        return 1000 + round(self.now * 100)

    @property
    def table(self) -> RouteTable:
        """The newest published table."""
        return self.published[-1] if self.published else RouteTable()

    def routed(self) -> dict[PartitionId, ShardId]:
        return {route.partition.id: route.shard for route in self.table.routes}

    def settle(self, seconds: float = 10.0) -> None:
        """Makes passes, one a second."""
        for _ in range(round(seconds)):
            self.step()

    def step(self, passed_s: float = 1.0) -> Decision:
        self.now += passed_s
        wanted = [ShardId(f"shard-{number}") for number in range(self.wanted)]
        views = tuple(
            self._view(name, leaving=name not in wanted) for name in dict.fromkeys((*wanted, *self.shards))
        )
        self.cut_off |= self.unreachable | self.lost_instructions
        for view in views:
            if view.statistics is not None and view.answered_at is not None and view.lives:
                self.census.take(view.statistics, view.answered_at)
        self._tell_outcomes()
        decision = self.decider.decide(
            Observation(
                now=self.now,
                catalogue=self.catalogue,
                resources=self.partitioning.resources,
                shards=views,
                routers_epoch=self.router_epoch,
            )
        )
        self._perform(decision)
        self._read(decision)
        return decision

    def _tell_outcomes(self) -> None:
        later = []
        for steps, switch, why in self._outcomes:
            if steps > 0:
                later.append((steps - 1, switch, why))
            else:
                self.decider.switched(switch.number, switch.attempt, why, self.now)
        self._outcomes = later

    def _view(self, name: ShardId, *, leaving: bool) -> ShardView:
        shard = self.shards.get(name)
        if shard is None:
            shard = self.shards[name] = MemoryShard(
                name,
                lambda: self.now,
                sync_s=self.sync_s,
                transfer_s=self.transfer_s,
                objects=self.objects,
                peers=lambda other: None if other in self.unreachable else self.shards.get(other),
                version=lambda: self.version,
            )
        judged = self.judged.setdefault(name, Liveness(self.liveness, since=self.now))
        if name in self.unreachable:
            judged.failed("away", self.now)
        else:
            statistics = shard.statistics()
            judged.answered(statistics.incarnation, self.now)
            self._heard[name] = (self.now, statistics)
        heard = self._heard.get(name)
        return ShardView(
            shard=name,
            state=judged.state,
            fresh=name not in self.unreachable,
            statistics=heard[1] if heard else None,
            answered_at=heard[0] if heard else None,
            leaving=leaving,
        )

    def _perform(self, decision: Decision) -> None:
        published = False
        passings = list(decision.passing)
        for instruction in decision.instructions:
            if not isinstance(instruction, Adopt | Switch):
                while passings:
                    self._pass(passings.pop(0))
            match instruction:
                case Adopt(name, assignments, epoch, sources):
                    assert not published or epoch <= self.table.epoch, (
                        "shards take an epoch before routers see it"
                    )
                    if self._reaches(name):
                        self.shards[name].adopt(assignments, epoch, sources)
                case Publish(table):
                    published = True
                    assert table.epoch > max(self.table.epoch, self.router_epoch), "epochs only grow"
                    self._check_published(table)
                    self.published.append(table)
                    self.router_epoch = table.epoch
                case Release(name, partitions, epoch):
                    assert not set(partitions) & {p for p, shard in self.routed().items() if shard == name}, (
                        "a shard never gives up what it is routed for"
                    )
                    if self._reaches(name):
                        self.shards[name].release(partitions, epoch)
                case Retire(name):
                    assert name not in self.routed().values(), "a shard that serves is never ended"
                    assert int(name.removeprefix("shard-")) >= self.wanted, "only what is to leave is ended"
                    self.shards.pop(name, None)
                    self.judged.pop(name, None)
                    self._heard.pop(name, None)
        # Switches go on beside everything else: what they do may come before or after the rest.
        for instruction in decision.instructions:
            if isinstance(instruction, Switch):
                self._switch(instruction)
        self.lost_instructions.clear()
        self.check_epochs()

    def _switch(self, switch: Switch) -> None:
        fault = self.fail_switch(switch)
        asked = [copy for copy in switch.passing.givers if copy not in switch.passing.silent]
        why = "refused" if fault == "refused" else ""
        if not why and not switch.lenient and not all(self._reaches(copy.shard) for copy in asked):
            why = "somebody is away"
        if not why:
            why = self._pass(switch.passing, half=fault == "half")
        if fault != "silent":
            self._outcomes.append((self.outcomes_after, switch, why))

    def _pass(self, passing: Passing, *, half: bool = False) -> str:
        """What `coordinator.passing` does, at once."""
        stood: dict[Copy, HandedOver | None] = {}
        for giver in passing.givers:
            there = giver not in passing.silent and giver.shard in self.shards and self._reaches(giver.shard)
            answer = self.shards[giver.shard].hand_over([giver.partition.id], passing.epoch) if there else {}
            stood[giver] = answer.get(giver.partition.id)
        if half:
            return "the takers do not answer"
        failed = ""
        for taker in passing.takers:
            said = [stood[giver] for giver in passing.givers if overlap(giver, taker)]
            known = [one for one in said if one is not None]
            frontier = max((one.frontier for one in known), default=Version(0))
            told = known and len(known) == len(said) and not passing.strangers
            shown = max(one.shown for one in known) if told else None
            if taker.shard not in self.shards or not self._reaches(taker.shard):
                failed = failed or f"{taker.shard} is away"
                continue
            try:
                self.shards[taker.shard].take_over({taker.partition.id: Taken(shown, frontier)})
            except NotReady as error:
                failed = failed or str(error)
        return failed

    def _read(self, decision: Decision) -> None:
        """Readers ask for leave to show what is new, by the table, and those that have not heard of it by the last
        one.
        """
        late = 2 if any(isinstance(instruction, Publish) for instruction in decision.instructions) else 1
        for table in self.published[-late:]:
            for route in table.routes:
                shard = self.shards.get(route.shard)
                if shard is not None and shard.show(route.partition.id):
                    resource, cover = route.partition.resource, route.partition.cover
                    self.shown.append((resource, cover, route.shard, self.version))
                    assert table is self.table or self._may_show(Copy(route.partition, route.shard)), (
                        f"{route.partition.id} is shown by leave of {route.shard}, which does not serve it any more"
                    )
        del self.shown[:-200]

    def _may_show(self, copy: Copy) -> bool:
        """Whether it serves still, or cannot know that it does not: nobody could tell it."""
        served = [Copy(route.partition, route.shard) for route in self.table.routes]
        followed = self.catalogue is not None and any(
            known.resource == copy.partition.resource for known in self.catalogue.followed
        )
        return copy in served or copy.shard in self.cut_off or not followed

    def _check_published(self, table: RouteTable) -> None:
        """What holds of every table."""
        by_resource: dict[Resource, list[Partition]] = {}
        for route in table.routes:
            by_resource.setdefault(route.partition.resource, []).append(route.partition)
        for resource, partitions in by_resource.items():
            assert divide([partition.cover for partition in partitions]), (
                f"covers of {resource} divide it in every table: {partitions}"
            )
        before = {Copy(route.partition, route.shard) for route in self.table.routes}
        for copy in (Copy(route.partition, route.shard) for route in table.routes):
            held = self.shards[copy.shard].held.get(copy.partition.id) if copy.shard in self.shards else None
            if copy in before or held is None:
                continue
            old = [other for other in before if overlap(other, copy) and self._complete(other)]
            # NB: of a shard that has just gone nobody can know yet.
            assert not old or self._complete(copy) or copy.shard in self.unreachable, (
                f"{copy} is published incomplete while {old} was complete"
            )
            if held.sources and self._complete(copy) and held.knows is not None:
                for resource, cover, shard, version in self.shown:
                    other = Copy(Partition(resource, cover), shard)
                    assert (
                        resource != copy.partition.resource
                        or not overlap(other, copy)
                        or (version <= max(held.knows, held.shown))
                    ), f"{copy} does not know that {version} was shown by leave of {shard}, only {held.knows}"

    def _complete(self, copy: Copy) -> bool:
        shard = self.shards.get(copy.shard)
        return (
            shard is not None
            and copy.shard not in self.unreachable
            and self.judged[copy.shard].state in ("healthy", "suspect")
            and copy.partition.id in shard.held
            and shard.synced(copy.partition.id)
        )

    def _reaches(self, name: ShardId) -> bool:
        return name not in self.unreachable and name not in self.lost_instructions

    # -- what must hold
    # ---------------------------------------------------------------------------------------

    def check_epochs(self) -> None:
        """No two shards were told the same partition at the same epoch."""
        told: dict[tuple[PartitionId, Epoch], ShardId] = {}
        for name, shard in self.shards.items():
            for partition, held in shard.held.items():
                other = told.setdefault((partition, held.epoch), name)
                assert other == name, f"{partition} is held by {other} and {name} in epoch {held.epoch}"

    def check_served(self, *, leaving: Iterable[ShardId] = ()) -> None:
        """Every followed partition is served by exactly one live shard, complete, at the published epoch."""
        assert self.catalogue is not None
        partitions = {
            partition.id
            for divisible in self.partitioning.resources
            for partition in (
                self.decider.by_hand.cuts.get(divisible.resource) or settled_cut(divisible)
            ).partitions(divisible.resource)
        }
        routed = self.routed()
        assert set(routed) == partitions, "the route table names every followed partition, and no other"
        assert self.table.catalogue == self.catalogue.followed
        for partition in partitions:
            holders = [name for name, shard in self.shards.items() if partition in shard.held]
            assert holders == [routed[partition]], (
                f"{partition} is routed to {routed[partition]} and held by {holders}"
            )
            shard = self.shards[routed[partition]]
            assert shard.shard_id not in self.unreachable, (
                f"{partition} is on {shard.shard_id}, which is away"
            )
            assert shard.synced(partition), f"{partition} is not complete on {shard.shard_id}"
            assert shard.epoch >= self.table.epoch, (
                f"{shard.shard_id} has not heard of epoch {self.table.epoch}"
            )
        for name, shard in self.shards.items():
            assert set(shard.held) <= partitions, f"{name} holds what is not followed"
            assert name not in leaving
