"""One pass of the coordinator: what is seen, compared with what should be, gives instructions. Pure.

Level-triggered: nothing is remembered that could not be seen again, except the goal (so that plans do not
waver) and times. So it does not matter why a shard does not hold a partition it should hold (it restarted, an
instruction was lost): it is told again. A coordinator that comes back adopts what its predecessor's shards
hold as the placement and goes on from the highest epoch it sees.

*Who serves.* A partition is routed to the shard it is placed on, with one exception: a move. While the old
shard lives and has a complete copy, it stays on the route; the new shard adopts, and when it is complete a
table is published with it; the old one is told to release only after that, and after a grace period. (The new
shard lists the API server for it; a hand-off of entries will replace that step and none of the order.)

*Epochs.* An epoch is never used twice for one partition by two shards: each pass that publishes or starts a
move takes new ones, above everything seen and issued; what a move adopts gets another than what is published
with it. All shards are told the new epoch before it is published, with everything they serve: so it can be
learnt from them afterwards, and a resource whose description changed is followed anew (the shard compares).
Where even that fails (all shards gone), routers show the epoch they have, and a greater one is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..shards.handle import Assignment
from ..shards.model.partitions import Epoch, Partition, PartitionId, ShardId
from ..shards.model.queries import PartitionStatistics
from ..shards.model.resources import ResourceType
from .catalogue import SECRETS, Catalogue
from .instructions import Adopt, Instruction, Observation, Publish, Release, Retire, ShardView
from .placement import Plan, place
from .routes import Route, RouteTable
from .settings import PlacementSettings, SecretsRule

_PENDING_BLOCKS_S = 300.0
"""Nothing moves while partitions are being listed, for their weight is a guess; this long each at most."""
_LEAP = 1000
"""A coordinator that comes back begins this far above the highest epoch it sees: what shards were told that
are away now, and nobody else was, it cannot see."""
_GONE_PAUSE_S = 10.0
"""Between two attempts at a resource that discovery shows and its shard found gone."""


class Decision(NamedTuple):
    """Instructions in the order they are to be carried out: all up to `Publish`, it, then the rest."""

    instructions: tuple[Instruction, ...] = ()
    plan: Plan | None = None
    waiting_for: tuple[str, ...] = ()
    """Why nothing could be decided, as sentences."""


@dataclass(slots=True)
class _Pass:
    """What one decision works with."""

    seen: Observation
    catalogue: Catalogue
    views: Mapping[ShardId, ShardView]
    held: Mapping[ShardId, Mapping[PartitionId, PartitionStatistics]]
    types: Mapping[PartitionId, ResourceType]
    owners: dict[PartitionId, ShardId]
    routed: dict[PartitionId, ShardId] = field(default_factory=dict)

    def lives(self, shard: ShardId | None) -> bool:
        view = None if shard is None else self.views.get(shard)
        return view is not None and view.lives

    def state(self, shard: ShardId | None, partition: PartitionId) -> str | None:
        """State of the partition there; None if it is not held."""
        entry = None if shard is None else self.held.get(shard, {}).get(partition)
        return entry.state if entry else None


class Decider:
    """Decides; keeps the published table and the little memory it needs."""

    def __init__(self, settings: PlacementSettings, secrets: SecretsRule) -> None:
        self.table = RouteTable()
        self.goal: dict[PartitionId, ShardId] = {}
        self._settings = settings
        self._secrets = secrets
        self._issued = Epoch(0)
        self._superfluous_since: dict[tuple[ShardId, PartitionId], float] = {}
        self._told_gone_at: dict[tuple[ShardId, PartitionId], float] = {}
        self._pending_since: dict[PartitionId, float] = {}
        self._uneven_since: float | None = None

    def decide(self, seen: Observation) -> Decision:
        """One pass."""
        waiting = self._waits_for(seen)
        if waiting or seen.catalogue is None:
            return Decision(waiting_for=waiting)
        work = self._begin(seen, seen.catalogue)
        plan = self._plan(work)
        work.routed = self._routes(work)
        published = self._publication(work)
        instructions = self._assignments(work, publishing=bool(published))
        instructions += published
        instructions += self._releases(work)
        return Decision(tuple(instructions), plan)

    # -- what there is
    # ----------------------------------------------------------------------------------------

    def _waits_for(self, seen: Observation) -> tuple[str, ...]:
        if seen.catalogue is None:
            return ("what the API server serves is not known yet",)
        if self.table.epoch == 0:
            # What shards hold is the truth to start from, so all are heard before anything is moved.
            starting = [view.shard for view in seen.shards if view.state == "starting"]
            if starting:
                return (f"waiting for {', '.join(starting)} to start",)
        if not any(view.state == "healthy" for view in seen.shards):
            return ("no shard is healthy",)
        return ()

    def _begin(self, seen: Observation, catalogue: Catalogue) -> _Pass:
        by_resource = {known.resource: known for known in catalogue.followed}
        work = _Pass(
            seen,
            catalogue,
            views={view.shard: view for view in seen.shards},
            held={view.shard: view.holds() for view in seen.shards},
            types={partition.id: by_resource[partition.resource] for partition in seen.partitions},
            owners={},
        )
        self._issued = self._highest_epoch(seen)
        if self.table.epoch:
            work.owners = {
                route.partition.id: route.shard
                for route in self.table.routes
                if route.partition.id in work.types
            }
        else:
            work.owners = _learn(work)
        for partition in work.types:
            if work.state(work.owners.get(partition), partition) == "pending":
                self._pending_since.setdefault(partition, seen.now)
            else:
                self._pending_since.pop(partition, None)
        return work

    def _highest_epoch(self, seen: Observation) -> Epoch:
        """The highest epoch that may have been used, by this coordinator or one before it."""
        reported = [
            entry.epoch
            for view in seen.shards
            if view.statistics is not None
            for entry in view.statistics.partitions
        ]
        highest = max(self._issued, seen.routers_epoch, *reported, Epoch(0))
        if self._issued == 0 and highest > 0:
            highest = Epoch(highest + _LEAP)
        return highest

    # -- where it should be
    # -----------------------------------------------------------------------------------

    def _plan(self, work: _Pass) -> Plan:
        """Sets the goal."""
        current: dict[PartitionId, ShardId] = {}
        fixed: dict[PartitionId, ShardId] = {}
        for partition in work.types:
            for shard in (self.goal.get(partition), work.owners.get(partition)):
                if shard is None or not work.lives(shard) or work.views[shard].leaving:
                    continue
                if work.views[shard].state == "suspect":
                    fixed[partition] = shard
                else:
                    current[partition] = shard
                break
        candidates = [view.shard for view in work.seen.shards if view.state == "healthy" and not view.leaving]
        plan = place(
            {partition: work.seen.weights[partition] for partition in work.types if partition not in fixed},
            candidates,
            current,
            self._settings,
            moves=self._moves_allowed(work),
            unavailable={
                view.shard: "is leaving" if view.leaving else f"is {view.state}"
                for view in work.seen.shards
                if view.shard not in candidates
            },
        )
        if not plan.uneven:
            self._uneven_since = None
        elif self._uneven_since is None:
            self._uneven_since = work.seen.now
        # Without any candidate what is placed stays as it is.
        kept = {partition: shard for partition, shard in self.goal.items() if partition in work.types}
        self.goal = {**(kept if not candidates else {}), **plan.placement, **fixed}
        return plan

    def _moves_allowed(self, work: _Pass) -> int:
        now = work.seen.now
        if self._uneven_since is None or now - self._uneven_since < self._settings.settle_s:
            return 0
        if any(now - since < _PENDING_BLOCKS_S for since in self._pending_since.values()):
            return 0
        under_way = sum(
            1
            for partition, owner in work.owners.items()
            if work.lives(owner) and self.goal.get(partition, owner) != owner
        )
        return max(self._settings.moves_at_once - under_way, 0)

    # -- who serves it
    # ----------------------------------------------------------------------------------------

    def _routes(self, work: _Pass) -> dict[PartitionId, ShardId]:
        routed: dict[PartitionId, ShardId] = {}
        for partition in work.types:
            owner, goal = work.owners.get(partition), self.goal.get(partition)
            if goal is None:
                if owner is not None:
                    routed[partition] = owner
                continue
            if owner is not None and owner != goal and work.state(owner, partition) == "synced":
                arrived = work.state(goal, partition)
                if arrived in ("refused", "gone"):
                    self.goal[partition] = owner  # the move is given up; the copy there is released below
                routed[partition] = goal if arrived == "synced" else owner
            else:
                routed[partition] = goal
        return routed

    def _publication(self, work: _Pass) -> list[Instruction]:
        """The new table, if it differs; it is ours from here on."""
        table = RouteTable(
            epoch=self.table.epoch,
            catalogue=work.catalogue.followed,
            routes=tuple(
                Route(partition, work.routed[partition.id])
                for partition in work.seen.partitions
                if partition.id in work.routed
            ),
            shards=tuple(view.shard for view in work.seen.shards),
            server_version=work.seen.server_version,
            excluded=work.catalogue.excluded,
        )
        if table == self.table and self.table.epoch and self.table.epoch >= work.seen.routers_epoch:
            return []
        self._issued = Epoch(self._issued + 1)
        self.table = RouteTable(
            epoch=self._issued,
            catalogue=table.catalogue,
            routes=table.routes,
            shards=table.shards,
            server_version=table.server_version,
            excluded=table.excluded,
        )
        return [Publish(self.table)]

    # -- what shards are told
    # ---------------------------------------------------------------------------------

    def _assignments(self, work: _Pass, *, publishing: bool) -> list[Instruction]:
        """Adopt: what is routed, at the epoch of the table, and what is on its way, at an epoch of its
        own.
        """
        serving: dict[ShardId, list[Assignment]] = {}
        arriving: dict[ShardId, list[Assignment]] = {}
        for partition in work.seen.partitions:
            assignment = self._assignment(partition, work.types[partition.id])
            route, goal = work.routed.get(partition.id), self.goal.get(partition.id)
            for shard in dict.fromkeys((route, goal)):
                if shard is None or not _may_be_told(work, shard):
                    continue
                entry = work.held[shard].get(partition.id)
                told = entry is not None and not self._again(work, shard, entry)
                if shard == route:
                    if entry is None or not told or entry.epoch < self.table.epoch:
                        serving.setdefault(shard, []).append(assignment)
                elif publishing or not told:
                    arriving.setdefault(shard, []).append(assignment)
        instructions = [Adopt(shard, tuple(few), self.table.epoch) for shard, few in serving.items()]
        if arriving:
            self._issued = Epoch(self._issued + 1)
            instructions += [Adopt(shard, tuple(few), self._issued) for shard, few in arriving.items()]
        return list(instructions)

    def _assignment(self, partition: Partition, known: ResourceType) -> Assignment:
        # What only readers need is left out: a new printer column is no reason to follow a resource anew.
        needed = ResourceType(
            resource=known.resource,
            kind=known.kind,
            namespaced=known.namespaced,
            custom=known.custom,
            selectable_fields=known.selectable_fields,
            indexed_fields=known.indexed_fields,
        )
        redact = self._secrets == "redact" and (known.resource.group, known.resource.name) == SECRETS
        return Assignment(partition=partition, resource_type=needed, redact=redact)

    def _again(self, work: _Pass, shard: ShardId, entry: PartitionStatistics) -> bool:
        """Whether a partition that is held is to be told again: discovery shows what its shard found gone."""
        if entry.state != "gone":
            return False
        key = (shard, entry.partition)
        last = self._told_gone_at.get(key)
        if last is not None and work.seen.now - last < _GONE_PAUSE_S:
            return False
        self._told_gone_at[key] = work.seen.now
        return True

    def _releases(self, work: _Pass) -> list[Instruction]:
        """Release what is neither routed to a shard nor on its way there; retire shards that are done."""
        instructions: list[Instruction] = []
        superfluous: dict[tuple[ShardId, PartitionId], float] = {}
        for view in work.seen.shards:
            held = work.held[view.shard]
            extra = [
                partition
                for partition in held
                if view.shard not in (work.routed.get(partition), self.goal.get(partition))
            ]
            for partition in extra:
                key = (view.shard, partition)
                superfluous[key] = self._superfluous_since.get(key, work.seen.now)
            due = tuple(
                partition
                for partition in extra
                if work.seen.now - superfluous[view.shard, partition] >= self._settings.release_grace_s
            )
            if due and _may_be_told(work, view.shard):
                instructions.append(Release(view.shard, due, self.table.epoch))
            if view.leaving and view.shard not in work.routed.values() and (not held or not view.lives):
                instructions.append(Retire(view.shard))
        self._superfluous_since = superfluous
        self._forget(work)
        return instructions

    def _forget(self, work: _Pass) -> None:
        """Drops memory of what is not followed any more."""
        for key in [key for key in self._told_gone_at if key[1] not in work.types]:
            del self._told_gone_at[key]
        for partition in [partition for partition in self._pending_since if partition not in work.types]:
            del self._pending_since[partition]


def _may_be_told(work: _Pass, shard: ShardId) -> bool:
    view = work.views.get(shard)
    return view is not None and view.state == "healthy" and view.fresh


def _learn(work: _Pass) -> dict[PartitionId, ShardId]:
    """Who holds what already: of several the one that is complete, then the one told last."""
    best: dict[PartitionId, tuple[bool, int]] = {}
    owners: dict[PartitionId, ShardId] = {}
    for shard, entries in work.held.items():
        for partition, entry in entries.items():
            rank = (entry.state == "synced", int(entry.epoch))
            if partition in work.types and (partition not in best or rank > best[partition]):
                best[partition], owners[partition] = rank, shard
    return owners
