"""What a predecessor left behind: copies that it may have let serve, beside those the first table names. Pure.

Nobody knows which copy the last table of a predecessor named. So before the first table of a coordinator is published,
all copies that overlap one in it are handed over to that one, as in a hand-off; this is done before anything else,
since nothing of it is under way yet. What was shown counts as unknown all the same, and the API server is asked, as
where a shard has died: those that let it be shown may have been started again since. Copies that do not answer are
asked a few times; then old ones count as dead, and some tries later the table is published without. Meanwhile readers
go on by the table of the predecessor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..shards.model.covers import parse_partition
from ..shards.model.errors import BadRequest
from ..shards.model.partitions import Epoch
from ..shards.model.resources import Resource
from .differences import overlap
from .handoff import Copy
from .instructions import Adopt, Instruction, Passing, Switch
from .learning import Witness
from .sight import Sight

_PAUSE_S: Final = 1.0
"""Between two tries."""
INHERITANCE = 0
"""Number of its switch: hand-offs count from 1."""


def witnesses(sight: Sight) -> tuple[Witness, ...]:
    """All copies that shards hold, of whatever resource. What is no partition is no witness."""
    found = []
    for shard, entries in sight.held.items():
        for partition_id, entry in entries.items():
            try:
                partition = parse_partition(partition_id)
            except BadRequest:  # a predecessor of another release; it is released as superfluous
                continue
            found.append(Witness(Copy(partition, shard), entry))
    return tuple(found)


class Inheritance:
    """Done once, before the first table."""

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s`: how long one switch may take. It is tried for so long, and then as long again with givers that
        may be silent.
        """
        self._timeout_s = timeout_s
        self._attempts = 0
        self._began: float | None = None
        self._concerned: tuple[frozenset[Copy], frozenset[Copy]] = frozenset(), frozenset()
        """Givers and takers it is about."""
        self._asked_at: float | None = None
        """When the switch that is under way began; None: none is."""
        self._again_at = 0.0
        self._succeeded = False
        self.waits = True
        """Whether the first table has to wait."""

    def due(
        self, sight: Sight, routed: Sequence[Copy], epoch: Epoch, thaws: Sequence[Adopt]
    ) -> tuple[Instruction, ...]:
        """What is to be done now. `thaws` tell those of `routed` to go on that stand still: the predecessor was about
        to hand them over, and who stands still takes nothing over.
        """
        passing = _passing(sight, tuple(routed), epoch)
        if passing is None:
            self.waits = False
            return ()
        if self._asked_at is not None and sight.now - self._asked_at >= self._timeout_s:
            self.outcome(self._attempts, "no outcome in time", sight.now)
        givers, takers = frozenset(passing.givers), frozenset(passing.takers)
        if self._began is None or not (givers <= self._concerned[0] and takers <= self._concerned[1]):
            # Shards have come or gone, and others are believed: from the beginning.
            self._began, self._succeeded = sight.now, False
            self._concerned, self._asked_at = (givers, takers), None
        passed_s = sight.now - self._began
        self.waits = not self._succeeded and (self._asked_at is not None or passed_s < 2 * self._timeout_s)
        if not self.waits or self._asked_at is not None or sight.now < self._again_at:
            return ()
        if thaws:
            return tuple(thaws)
        self._attempts += 1
        self._asked_at = sight.now
        return (Switch(INHERITANCE, self._attempts, passing, lenient=passed_s >= self._timeout_s),)

    def outcome(self, attempt: int, why: str, now: float) -> None:
        """A switch succeeded, or failed if there is a reason why."""
        if attempt == self._attempts and self._asked_at is not None:
            self._asked_at = None
            self._again_at = now + _PAUSE_S
            self._succeeded = not why


def _passing(sight: Sight, routed: tuple[Copy, ...], epoch: Epoch) -> Passing | None:
    by_resource: dict[Resource, list[Copy]] = {}
    for copy in routed:
        by_resource.setdefault(copy.partition.resource, []).append(copy)
    there = set(routed)
    givers: list[Copy] = []
    takers: dict[Copy, None] = {}
    for witness in witnesses(sight):
        old = witness.copy
        if old in there:
            continue  # as almost all are: only the others are compared with everything
        new = [
            copy
            for copy in by_resource.get(old.partition.resource, ())
            if sight.synced(copy) and overlap(copy, old)
        ]
        if new:
            givers.append(old)
            takers.update(dict.fromkeys(new))
    # One that was received may never have been told what its source, which is not there any more, let be shown.
    takers.update((copy, None) for copy in routed if _was_received(sight, copy))
    return Passing(tuple(givers), tuple(takers), epoch, strangers=True) if takers else None


def _was_received(sight: Sight, copy: Copy) -> bool:
    entry = sight.entry(copy)
    return entry is not None and entry.state == "synced" and bool(entry.source_shards)
