"""A coordinator's decisions carried out by hand: `Bench` is a clock, some `MemoryShard`s and a `Decider`.

Nothing is asynchronous: a test, or a seeded walk, says what happens and when. After every pass the bench
checks what must hold at every moment; the texts are the sentences that would be broken.
"""

from __future__ import annotations

from collections.abc import Iterable

from support.shards import MemoryShard

from shoal.coordinator.catalogue import Catalogue
from shoal.coordinator.census import Census
from shoal.coordinator.decide import Decider, Decision
from shoal.coordinator.instructions import Adopt, Observation, Publish, Release, Retire, ShardView
from shoal.coordinator.liveness import Liveness
from shoal.coordinator.partitioning import partition_resources
from shoal.coordinator.routes import RouteTable
from shoal.coordinator.settings import LivenessSettings, PlacementSettings, SecretsRule
from shoal.shards.model.partitions import Epoch, PartitionId, ShardId
from shoal.shards.model.queries import ShardStatistics
from shoal.shards.model.resources import Resource, ResourceType


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
        carve: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.now = 0.0
        self.settings = settings or PlacementSettings()
        self.liveness = liveness or LivenessSettings()
        self.secrets: SecretsRule = secrets
        self.sync_s = sync_s
        self.carve = carve or {}
        self.wanted = shards
        self.shards: dict[ShardId, MemoryShard] = {}
        self.objects: dict[PartitionId, int] = {}
        """How large partitions are, wherever they are."""
        self.unreachable: set[ShardId] = set()
        self.lost_instructions: set[ShardId] = set()
        """Shards whose next instructions are not carried out."""
        self.catalogue: Catalogue | None = None
        self.published: list[RouteTable] = []
        self.router_epoch = Epoch(0)
        """What routers have seen and show to a coordinator that comes back."""
        self.decider = Decider(self.settings, self.secrets)
        self.census = Census(self.settings)
        self.judged: dict[ShardId, Liveness] = {}
        self._heard: dict[ShardId, tuple[float, ShardStatistics]] = {}

    def restart_coordinator(self) -> None:
        self.decider = Decider(self.settings, self.secrets)
        self.census = Census(self.settings)
        self.judged = {}
        self._heard = {}

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
        partitions = partition_resources(
            self.catalogue.followed if self.catalogue else (), self.carve
        ).partitions
        for view in views:
            if view.statistics is not None and view.answered_at is not None and view.lives:
                self.census.take(view.statistics, view.answered_at)
        decision = self.decider.decide(
            Observation(
                now=self.now,
                catalogue=self.catalogue,
                partitions=partitions,
                weights={partition.id: self.census.weight(partition) for partition in partitions},
                shards=views,
                routers_epoch=self.router_epoch,
            )
        )
        self._perform(decision)
        return decision

    def _view(self, name: ShardId, *, leaving: bool) -> ShardView:
        shard = self.shards.get(name)
        if shard is None:
            shard = self.shards[name] = MemoryShard(
                name, lambda: self.now, sync_s=self.sync_s, objects=self.objects
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
        for instruction in decision.instructions:
            match instruction:
                case Adopt(name, assignments, epoch):
                    assert not published or epoch <= self.table.epoch, (
                        "shards take an epoch before routers see it"
                    )
                    if self._reaches(name):
                        self.shards[name].adopt(assignments, epoch)
                case Publish(table):
                    published = True
                    assert table.epoch > max(self.table.epoch, self.router_epoch), "epochs only grow"
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
        self.lost_instructions.clear()
        self.check_epochs()

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
            partition.id for partition in partition_resources(self.catalogue.followed, self.carve).partitions
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
