"""Puts together what the coordinator says about itself (`coordinator.status`) from what its parts know.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from ..shards.model.partitions import Partition, PartitionId, ShardId
from ..shards.model.queries import PartitionStatistics
from .catalogue import Catalogue
from .census import Census
from .decide import Decider, Decision
from .discovery_parse import Form
from .partitioning import Partitioning
from .routes import RouteTable
from .status import CoordinatorStatus, DiscoveryStatus, PartitionStatus, PermitStatus, ShardStatus

if TYPE_CHECKING:
    from .discovery import Snapshot
    from .roster import Member

_NAMED = 5
"""So many partitions a sentence names; the rest it counts."""


class Looks:
    """How looking at discovery goes."""

    def __init__(self) -> None:
        self._form: Form | Literal["none"] = "none"
        self._succeeded_at: float | None = None
        self._looks = 0
        self._failures = 0
        self._waiting_for = ""
        self._notes: tuple[str, ...] = ()

    @property
    def failing(self) -> bool:
        """Whether the last look failed."""
        return bool(self._waiting_for)

    def succeeded(self, now: float, snapshot: Snapshot) -> None:
        """Takes a look in."""
        self._looks += 1
        self._form, self._notes = snapshot.form, snapshot.notes
        self._succeeded_at = now
        self._waiting_for = ""

    def failed(self, why: str, again_in_s: float) -> None:
        """Takes a look in that failed."""
        self._looks += 1
        self._failures += 1
        self._waiting_for = (
            f"what the API server serves cannot be learnt: {why}; trying again in {again_in_s:g} s"
        )

    def status(self, now: float) -> DiscoveryStatus:
        """For `CoordinatorStatus`."""
        return DiscoveryStatus(
            form=self._form,
            succeeded_age_s=None if self._succeeded_at is None else now - self._succeeded_at,
            looks=self._looks,
            failures=self._failures,
            waiting_for=self._waiting_for,
            notes=self._notes,
        )


def report(
    *,
    now: float,
    table: RouteTable,
    decider: Decider,
    decision: Decision,
    plan: tuple[str, ...],
    catalogue: Catalogue | None,
    partitioning: Partitioning,
    members: Iterable[Member],
    census: Census,
    permits: PermitStatus,
    looks: Looks,
    errors: dict[str, int],
) -> CoordinatorStatus:
    """Everything at once."""
    members = tuple(members)
    catalogue = catalogue or Catalogue()
    routed = {route.partition.id: route.shard for route in table.routes}
    held = {member.shard: member.view().holds() for member in members}
    goal = decision.orders.placement if decision.orders is not None else {}
    # Before the first table, what there will be; then what is served.
    served = tuple(route.partition for route in table.routes) or partitioning.partitions
    partitions = tuple(
        _partition(partition, routed.get(partition.id), goal.get(partition.id), held, census)
        for partition in served
    )
    shards = tuple(_shard(member, partitions, census, now) for member in members)
    discovery = looks.status(now)
    waiting = [discovery.waiting_for] if discovery.waiting_for and discovery.succeeded_age_s is None else []
    waiting += [] if waiting else decision.waiting_for
    waiting += [
        f"{member.shard} is {shard.state}: {shard.message or 'no answer yet'}"
        for member, shard in zip(members, shards, strict=True)
        if shard.state != "healthy"
    ]
    waiting += _unsynced(partitions)
    return CoordinatorStatus(
        epoch=table.epoch,
        waiting_for=tuple(waiting),
        warnings=(
            *catalogue.warnings,
            *partitioning.warnings,
            *(decision.orders.warnings if decision.orders is not None else ()),
        ),
        shards=shards,
        followed=tuple(str(known.resource) for known in catalogue.followed),
        excluded=catalogue.excluded,
        partitions=partitions,
        permits=permits,
        discovery=discovery,
        plan=plan,
        handoffs=decider.handoffs.status(now),
        finished_handoffs=decider.handoffs.ended(now),
        handoffs_total=dict(decider.handoffs.counts),
        postponed=(*decision.postponed, *decider.handoffs.waiting(now).values()),
        by_hand=decider.by_hand.lines(),
        errors=errors,
    )


def _partition(
    partition: Partition,
    shard: ShardId | None,
    goal: ShardId | None,
    held: Mapping[ShardId, Mapping[PartitionId, PartitionStatistics]],
    census: Census,
) -> PartitionStatus:
    entry = held.get(shard, {}).get(partition.id) if shard is not None else None
    load = census.load(partition.id)
    return PartitionStatus(
        partition=partition.id,
        shard=shard,
        moving_to=goal if shard is not None and goal != shard else None,
        state=entry.state if entry else "unserved",
        message=entry.message if entry else "",
        objects=entry.objects if entry else 0,
        events_per_s=load.events_per_s if load else 0.0,
        weight=census.weight(partition),
    )


def _shard(member: Member, partitions: Iterable[PartitionStatus], census: Census, now: float) -> ShardStatus:
    view = member.view()
    known = view.statistics
    held = view.holds()
    loads = [load for partition in held if (load := census.load(partition)) is not None]
    return ShardStatus(
        shard=member.shard,
        state=view.state,
        leaving=view.leaving,
        message=member.liveness.message,
        incarnation=known.incarnation if known else "",
        pid=known.pid if known else 0,
        node=known.node if known else "",
        partitions=len(held),
        objects=sum(entry.objects for entry in held.values()),
        body_bytes=sum(entry.body_bytes for entry in held.values()),
        resident_bytes=known.resident_bytes if known else 0,
        cpu_seconds=known.cpu_seconds if known else 0.0,
        events_per_s=sum(load.events_per_s for load in loads),
        weight=sum(partition.weight for partition in partitions if partition.shard == member.shard),
        answered_age_s=None if view.answered_at is None else now - view.answered_at,
    )


def _unsynced(partitions: Iterable[PartitionStatus]) -> list[str]:
    """One sentence a state, and one for each partition that is refused: only a person can help there."""
    sentences = []
    by_state: dict[str, list[PartitionStatus]] = {}
    for partition in partitions:
        if partition.state == "refused":
            sentences.append(f"{partition.partition} is refused: {partition.message}")
        elif partition.state != "synced":
            by_state.setdefault(partition.state, []).append(partition)
    for state, few in by_state.items():
        named = ", ".join(partition.partition for partition in few[:_NAMED])
        more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
        sentences.append(f"{state}: {named}{more}")
    return sentences
