"""The lease by which a shard lets versions be shown (`ShardHandle.overtake`): it expires by itself. Pure.

Why there is one. A coordinator that does not hear of a shard for `LivenessSettings.dead_after_s` gives its partitions
to others, which ask the API server where it is and count everything up to that as shown before. The shard may live all
the same, and gateways may reach it, where a network is cut. What it let be shown after that moment nobody would know
of. So it lets nothing be shown any more by then.

What it keeps true: the lease ends before the coordinator can have given the shard up. Both sides count from an
*answer*: the coordinator from when the last one arrived, the shard from when it sent the newest one that the
coordinator, with a later question, says has arrived. That is earlier, whatever is lost or late in either direction; and
``lease_s`` is shorter than ``dead_after_s``. Clocks are compared with themselves only, and may differ in rate by a
fifth or so. (A process that is stopped sees when it goes on that time has passed.)

While the coordinator is away leases expire, too, and little else changes: shards answer and feed as before, and watches
over several partitions go on when frontiers are proved (`NoLeave`; ``cluster.watching.clearing``), a second later.

Limits: a coordinator that lives on after it was replaced renews the leases of shards that hear it alone. A shard that
is given up although it answers questions (``Switch.lenient``) has its lease still.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

ANSWERS_MAX: Final = 64
"""Answers whose times are remembered; a coordinator acknowledges the last but a few."""


class Lease:
    """Of one shard, in one incarnation. Written by whoever answers the coordinator, read by others: one number."""

    def __init__(self, lease_s: float | None, incarnation: str) -> None:
        """`lease_s` None: it does not expire, because nobody gives the shard up."""
        self._lease_s = lease_s
        # Numbers of another incarnation must not be taken for these.
        self._number = int.from_bytes(blake2b(incarnation.encode(), digest_size=6).digest())
        self._sent: OrderedDict[int, float] = OrderedDict()
        self._until = float("-inf")

    def valid(self, now: float) -> bool:
        """Whether versions may be shown by the shard's leave."""
        return self._lease_s is None or now < self._until

    def left_s(self, now: float) -> float | None:
        """Seconds until it expires; None if it never does."""
        return None if self._lease_s is None else max(0.0, self._until - now)

    def answered(self, acknowledged: int, now: float) -> int:
        """A question of the coordinator is answered now: the number of the answer. `acknowledged` is that of the newest
        one that has arrived there; 0 for none.
        """
        sent = self._sent.get(acknowledged)
        if sent is not None and self._lease_s is not None:
            self._until = max(self._until, sent + self._lease_s)
        self._number += 1
        self._sent[self._number] = now
        if len(self._sent) > ANSWERS_MAX:
            self._sent.popitem(last=False)
        return self._number
