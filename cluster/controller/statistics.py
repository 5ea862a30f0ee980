"""What a controller counts, and the frozen picture of it that exporters read. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from ..workqueue.statistics import Distribution, Seconds

Outcome = Literal["success", "requeue_after", "error", "timeout", "terminal", "cancelled"]
"""How a reconcile ended: ``timeout`` and ``terminal`` are errors, too; ``cancelled``: the controller stopped."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class ControllerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A controller at one moment."""

    outcomes: Mapping[Outcome, int]
    """Reconciles by how they ended."""
    reconcile_s: Distribution
    """Seconds a reconcile took."""
    workers: int
    """How many reconciles may be under way."""
    active: int
    """How many are, those that go on from an earlier run included."""
    hung: int
    """Of those, how many have been for too long."""
    hung_total: int
    """How many have been, from the beginning."""
    parked: int
    """Items given up that are listed."""
    parked_total: int
    """Times an item was given up."""
    synced: bool
    """Its sources had everything, and workers run."""


class Tally:
    """Counters as they grow."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.seconds = Seconds()
        self.hung_total = 0
        self.parked_total = 0

    def ended(self, outcome: Outcome, seconds: float) -> None:
        """A reconcile is over."""
        self.outcomes[outcome] += 1
        self.seconds.observe(seconds)
