"""What the planner is given and what it wants: the values between `coordinator.decide` and planning. Pure.

A `Situation` is what is so now, with what is promised (hand-offs under way) told apart from it; `Orders` are what
should be so. Orders are level-triggered: they are repeated until they have come about or are wanted no more, and nobody
who carries them out has to remember them. How they come about, in which steps and how many at once, is not said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from ...shards.model.partitions import Partition, PartitionId, ShardId
from ...shards.model.resources import Resource
from ..cuts import Cut
from ..placement import Plan
from ..status import ShardState

Placement: TypeAlias = Mapping[PartitionId, ShardId]

NOT_WANTED: Final = "is leaving"
"""Why a shard leaves that is not among `Orders.members`: who wants it back only has to say so."""
NO_PLAN = Plan({}, (), {}, uneven=False)


@dataclass(frozen=True, slots=True)
class Seat:
    """One shard: whether partitions may be on it, and where it runs."""

    shard: ShardId
    state: ShardState = "healthy"
    node: str = ""
    """Name of its node; empty where nobody says. Shards without a node count as on different ones."""
    leaving: str = ""
    """Why everything is to leave it (``is drained``, ``its node is drained``); empty: nothing is."""

    @property
    def takes(self) -> bool:
        """Whether it may get partitions."""
        return self.state == "healthy" and not self.leaving

    @property
    def refusal(self) -> str:
        """Why it gets none; empty if it may."""
        if self.leaving:
            return self.leaving
        return "" if self.state == "healthy" else f"is {self.state}"


@dataclass(frozen=True, slots=True)
class Divisible:
    """One followed resource and how it may be cut."""

    resource: Resource
    namespaced: bool = True
    carved: tuple[str, ...] = ()
    """Namespaces that the settings carve out: always kept."""
    selects: frozenset[str] = frozenset()
    """Fields (``namespace``, ``uid``) whose ``shardSelector`` the API server was proved to honour for it."""
    replicas: int = 0
    """Shards that are to follow each of its partitions beside the one that serves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is so now."""

    now: float
    """Seconds of a monotonic clock."""
    resources: tuple[Divisible, ...]
    partitions: tuple[Partition, ...]
    """What is served. Of a resource that nobody serves yet nothing has to be here: it begins as its settings say."""
    placement: Placement
    """Who serves each of them; partitions of nobody are left out."""
    seats: tuple[Seat, ...]
    """All shards there are, also those that start, are dead or leave."""
    promised: Placement = field(default_factory=dict)
    """Where partitions go by the hand-offs under way, those of `recutting` included: what counts as done."""
    recutting: Mapping[Resource, Cut] = field(default_factory=dict)
    """Cuts that hand-offs under way bring about."""
    replicas: Mapping[PartitionId, tuple[ShardId, ...]] = field(default_factory=dict)
    """Who follows a partition beside the one that serves it."""
    pinned: Mapping[Resource, Cut] = field(default_factory=dict)
    """Cuts that people ordered: not to be changed, whatever the load is."""
    barred: Mapping[PartitionId, Mapping[ShardId, str]] = field(default_factory=dict)
    """Shards a partition is not to go to for now, with the reason: a hand-off to there has just failed."""
    unsettled: str = ""
    """Why nothing is to move for the sake of balance (partitions are being listed, so that loads are guesses); empty:
    nothing stands against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What should be so."""

    cuts: Mapping[Resource, Cut] = field(default_factory=dict)
    """Resources that are to be cut otherwise than they are; all others stay as they are."""
    placement: Placement = field(default_factory=dict)
    """Where each partition should be: those there are, and those that `cuts` make. Absent: there is no room for it."""
    replicas: Mapping[PartitionId, tuple[ShardId, ...]] = field(default_factory=dict)
    """Who should follow it beside the shard in `placement`; never that one, never one twice."""
    urgency: tuple[PartitionId, ...] = ()
    """What is to move, the most urgent first: without a shard, over memory, on a shard that leaves, for the balance."""
    shards: int = 0
    """How many shards there should be: the length of `members`."""
    members: tuple[ShardId, ...] = ()
    """Which: those there are and are to stay, and new names. Who is not among them is empty, or being emptied, and
    ends when it serves nothing."""
    profiles: tuple[PartitionId, ...] = ()
    """Partitions whose `Profile` would help to decide; the largest first, few at a time."""
    reasons: tuple[str, ...] = ()
    """Why, one sentence each: what is ordered, what was rejected, what is waited for."""
    warnings: tuple[str, ...] = ()
    """What no order can help with, and what a person can do about it."""
    plan: Plan = NO_PLAN
    """How `placement` came about."""
