"""What the coordinator says about itself: plain values for ``shoal status``, ``/readyz`` and the metrics.

Ages are seconds before the moment the status was made; nothing here is needed to run.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from ..shards.model.partitions import Epoch, PartitionId, ShardId

ShardState: TypeAlias = Literal["starting", "healthy", "suspect", "dead"]
"""``starting`` has never answered; ``suspect`` gets nothing new; ``dead`` loses what it has."""


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One shard as the coordinator sees it."""

    shard: ShardId
    state: ShardState
    leaving: bool = False
    """It is to end once others serve what it has."""
    message: str = ""
    """Why it is not healthy."""
    incarnation: str = ""
    pid: int = 0
    node: str = ""
    partitions: int = 0
    """Partitions it held when it last answered."""
    objects: int = 0
    body_bytes: int = 0
    resident_bytes: int = 0
    cpu_seconds: float = 0.0
    events_per_s: float = 0.0
    weight: int = 0
    """What is placed on it, in the unit of `PlacementSettings`."""
    answered_age_s: float | None = None
    """None: never answered."""


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One followed partition."""

    partition: PartitionId
    shard: ShardId | None
    """Who serves it by the published route table; None before the first that has it."""
    moving_to: ShardId | None = None
    state: str = "pending"
    """As its shard says (`PartitionStatistics.state`); ``unserved`` if its shard does not hold it."""
    message: str = ""
    objects: int = 0
    events_per_s: float = 0.0
    weight: int = 0


class PermitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The permits to list."""

    limit: int
    held: int = 0
    waiting: int = 0
    granted_total: int = 0
    expired_total: int = 0
    """Permits taken back because they were not given back in time, or because their holder died."""


class DiscoveryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How well the API server's catalogue is known."""

    form: Literal["none", "aggregated", "legacy"] = "none"
    succeeded_age_s: float | None = None
    """None: never yet."""
    looks: int = 0
    failures: int = 0
    waiting_for: str = ""
    """What it waits for, as a sentence; empty while all is well."""
    notes: tuple[str, ...] = ()
    """What it does without: groups whose discovery is stale, definitions it may not read."""


class HandOffStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A hand-off under way."""

    resource: str
    what: str
    """The copies it replaces and those it brings: ``v1/pods@shard-0 -> v1/pods@shard-1``."""
    state: str
    """See `coordinator.handoff`: ``receiving``, ``complete``, ``switching``, ..."""
    age_s: float
    state_age_s: float
    """Seconds in this state."""
    attempts: int = 0
    """Switches begun."""
    reason: str = ""
    """Why it was begun."""
    why: str = ""
    """What went wrong last; empty if nothing has."""
    objects: int = 0
    """Received so far by the new shards."""
    bytes: int = 0
    """Received so far from other processes."""


class FinishedHandOff(msgspec.Struct, frozen=True, kw_only=True):
    """A hand-off that is over."""

    resource: str
    what: str
    ended: Literal["done", "abandoned"]
    reason: str = ""
    why: str = ""
    """What went wrong last; of one that was abandoned, why."""
    seconds: float = 0.0
    """From beginning to end, the grace period included."""
    steps: dict[str, float] = {}
    """Seconds in each state. ``switching`` and ``taken`` are how long nothing new was shown."""
    objects: int = 0
    bytes: int = 0
    ago_s: float = 0.0
    """When it ended."""


class CoordinatorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at once."""

    epoch: Epoch = Epoch(0)
    waiting_for: tuple[str, ...] = ()
    """Why not everything is served, as sentences; empty once every partition is synced on its shard."""
    warnings: tuple[str, ...] = ()
    """Settings without effect, such as an include rule nothing matches."""
    shards: tuple[ShardStatus, ...] = ()
    followed: tuple[str, ...] = ()
    """Resources as text."""
    excluded: tuple[tuple[str, str], ...] = ()
    """Resources discovered and not followed, each with the reason."""
    partitions: tuple[PartitionStatus, ...] = ()
    permits: PermitStatus
    discovery: DiscoveryStatus = DiscoveryStatus()
    plan: tuple[str, ...] = ()
    """The last placement that changed something, explained line by line."""
    handoffs: tuple[HandOffStatus, ...] = ()
    """Under way."""
    finished_handoffs: tuple[FinishedHandOff, ...] = ()
    """The last ones that are over, the latest first."""
    handoffs_total: dict[str, int] = {}
    """Since the coordinator started: ``done``, and those given up by what made them: ``stranded``, ``taker_gone``,
    ``failed``, ``timed_out``, ``lost``, ``withdrawn``."""
    postponed: tuple[str, ...] = ()
    """What should be handed over and is not begun yet, and why not."""
    by_hand: tuple[str, ...] = ()
    """What people ordered and planning leaves alone: pinned partitions and cuts, drained shards."""
    errors: dict[str, int] = {}
    """Failed steps of the coordinator itself by kind."""

    @property
    def synced(self) -> bool:
        """Whether every followed partition is served by its shard, and complete."""
        return (
            self.epoch > 0
            and not self.waiting_for
            and all(part.state == "synced" for part in self.partitions)
        )
