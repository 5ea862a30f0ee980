"""What shards are told so that they hold what they should: adopt, release, end. Pure.

Level-triggered: nothing is remembered that could not be seen again, except times. So it does not matter why a shard
does not hold what it should (it restarted, an instruction was lost): it is told again, each time it has been asked
what it holds since it was told something last.

What is routed is adopted at the epoch of the table, what is on its way at another, so that no two shards are told one
partition at one epoch. An old copy that stands still for a switch is told nothing at all: to adopt it would wake it
up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ..shards.handle import Assignment
from ..shards.model.partitions import Epoch, Partition, PartitionId, ShardId
from ..shards.model.queries import PartitionStatistics
from ..shards.model.resources import ResourceType
from ..shards.model.transfers import Sources
from .catalogue import SECRETS
from .differences import sources_of
from .handoff import Copy, HandOff
from .instructions import Adopt, Instruction, Release, Retire
from .settings import SecretsRule
from .sight import Sight

_GONE_PAUSE_S: Final = 10.0
"""Between two attempts at a resource that discovery shows and its shard found gone."""


class Telling:
    """Compares what shards hold with what they should; remembers when it said what must not be said too often."""

    def __init__(self, secrets: SecretsRule, release_grace_s: float) -> None:
        self._secrets = secrets
        self._grace_s = release_grace_s
        self._superfluous_since: dict[tuple[ShardId, PartitionId], float] = {}
        self._told_gone_at: dict[tuple[ShardId, PartitionId], float] = {}

    # -- adopt -----------------------------------------------------------------------------------------------

    def adoptions(
        self,
        sight: Sight,
        routed: Iterable[Copy],
        handoffs: Iterable[HandOff],
        *,
        epoch: Epoch,
        arriving_epoch: Epoch,
        publishing: bool,
    ) -> list[Adopt]:
        """Adopt: what is routed, at the epoch of the table, and what is on its way, at one of its own."""
        silent = {copy for handoff in handoffs if handoff.frozen for copy in handoff.leaving}
        serving: dict[ShardId, list[Assignment]] = {}
        for copy in routed:
            if copy in silent or not sight.heard(copy.shard):
                continue
            entry = sight.entry(copy)
            if entry is None or self._again(sight, copy, entry) or entry.epoch < epoch:
                serving.setdefault(copy.shard, []).append(self._assignment(sight, copy.partition))
        arriving: dict[ShardId, list[Assignment]] = {}
        sources: dict[ShardId, dict[PartitionId, Sources]] = {}
        for handoff in handoffs:
            for copy in handoff.arriving if handoff.keeps_arriving and not handoff.published else ():
                if not sight.heard(copy.shard) or handoff.resource not in sight.types:
                    continue
                if sight.entry(copy) is not None and not sight.standing_still(copy) and not publishing:
                    continue
                arriving.setdefault(copy.shard, []).append(self._assignment(sight, copy.partition))
                sources.setdefault(copy.shard, {})[copy.partition.id] = sources_of(copy, handoff.leaving)
        return [
            *(Adopt(shard, tuple(few), epoch) for shard, few in serving.items()),
            *(Adopt(shard, tuple(few), arriving_epoch, sources[shard]) for shard, few in arriving.items()),
        ]

    def thaws(self, sight: Sight, copies: Iterable[Copy], epoch: Epoch) -> list[Adopt]:
        """Adopt again: those of these copies that stand still."""
        still = [copy for copy in copies if sight.heard(copy.shard) and sight.standing_still(copy)]
        return [Adopt(copy.shard, (self._assignment(sight, copy.partition),), epoch) for copy in still]

    def _assignment(self, sight: Sight, partition: Partition) -> Assignment:
        known = sight.types[partition.resource]
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

    def _again(self, sight: Sight, copy: Copy, entry: PartitionStatistics) -> bool:
        """Whether a partition that is held is to be told again: it stands still, or was never received, or discovery
        shows what its shard found gone.
        """
        if entry.handed_over or entry.state == "stranded":
            return True
        if entry.state != "gone":
            return False
        key = (copy.shard, entry.partition)
        last = self._told_gone_at.get(key)
        if last is not None and sight.now - last < _GONE_PAUSE_S:
            return False
        self._told_gone_at[key] = sight.now
        return True

    # -- release and end -------------------------------------------------------------------------------------

    def releases(
        self,
        sight: Sight,
        routed: Mapping[PartitionId, ShardId],
        handoffs: Iterable[HandOff],
        *,
        epoch: Epoch,
    ) -> list[Instruction]:
        """Release what nobody is sent to and nothing is made of; end shards that are to leave and are done."""
        kept: set[tuple[PartitionId, ShardId]] = set(routed.items())
        at_once: set[tuple[PartitionId, ShardId]] = set()
        for handoff in handoffs:
            for copies, keeps in (
                (handoff.leaving, handoff.keeps_leaving),
                (handoff.arriving, handoff.keeps_arriving),
            ):
                (kept if keeps else at_once).update(copy.key for copy in copies)
        busy = {shard for _, shard in kept}
        instructions: list[Instruction] = []
        superfluous: dict[tuple[ShardId, PartitionId], float] = {}
        for view in sight.seen.shards:
            held = sight.held[view.shard]
            extra = [partition for partition in held if (partition, view.shard) not in kept]
            for partition in extra:
                superfluous[view.shard, partition] = self._superfluous_since.get(
                    (view.shard, partition), sight.now
                )
            due = tuple(
                partition
                for partition in extra
                if (partition, view.shard) in at_once
                or sight.now - superfluous[view.shard, partition] >= self._grace_s
            )
            if due and sight.heard(view.shard):
                instructions.append(Release(view.shard, due, epoch))
            if view.leaving and view.shard not in busy and (not held or not view.lives):
                instructions.append(Retire(view.shard))
        self._superfluous_since = superfluous
        for key in [key for key in self._told_gone_at if key[1] not in routed]:
            del self._told_gone_at[key]
        return instructions
