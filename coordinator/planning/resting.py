"""Which partitions are not to be moved for the balance, because they were a short while ago. Pure; time is passed in.

What a partition costs is measured where it is, among what is there; moved, it may seem to cost something else. So that
such a difference cannot send it to and fro, each move within an hour of another doubles the time it rests.
"""

from __future__ import annotations

from collections.abc import Collection

from ...shards.model.partitions import PartitionId
from ..settings import PlacementSettings

_MEMORY_S = 3600.0
_DOUBLINGS_MAX = 6
"""At 60 s: an hour."""


class Rest:
    """Moves for the balance, remembered for an hour."""

    def __init__(self, settings: PlacementSettings) -> None:
        self._rest_s = settings.rest_s
        self._moves: dict[PartitionId, tuple[float, int]] = {}
        """When last, and how many before that within an hour of each other."""

    def moved(self, partition: PartitionId, now: float) -> None:
        """A partition is on its way."""
        before = self._moves.get(partition)
        again = before is not None and now - before[0] < _MEMORY_S
        self._moves[partition] = (now, min(before[1] + 1, _DOUBLINGS_MAX) if before and again else 0)

    def resting(self, now: float) -> dict[PartitionId, str]:
        """What rests, and why."""
        found = {}
        for partition, (at, doublings) in self._moves.items():
            rests_s = self._rest_s * (1 << doublings)
            if now - at < rests_s:
                found[partition] = f"moved {now - at:.0f} s ago, rests {rests_s:g} s"
        return found

    def keep_only(self, partitions: Collection[PartitionId]) -> None:
        """Forgets all others."""
        for gone in [known for known in self._moves if known not in partitions]:
            del self._moves[gone]
