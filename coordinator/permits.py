"""Permits to list: the book of who may list the API server now, who waits, and since when. Pure.

After a restart every partition wants a fresh list at once, and lists are what hurts an API server. So at most
`PermitSettings.lists_at_once` run at the same time, over all shards, first come first served. A permit is a
lease: one that is not given back in time, or whose shard died, is free again, so that nothing that hangs can
stop the others. A *holder* is a shard and a partition; asking twice is asking once.

Time is passed in (seconds of any monotonic clock). The waiting itself is `coordinator.permit_desk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, NewType

from ..shards.model.partitions import PartitionId, ShardId
from .settings import PermitSettings
from .status import PermitStatus

LeaseId = NewType("LeaseId", str)
"""Names one granted permit; never used twice by one coordinator."""


class Holder(NamedTuple):
    """Who lists what."""

    shard: ShardId
    partition: PartitionId


@dataclass(frozen=True, slots=True)
class Lease:
    """A permit in use."""

    lease_id: LeaseId
    holder: Holder
    expires_at: float


@dataclass(slots=True)
class _Place:
    """A place in the queue; `absent_since` is set while its owner is between two calls."""

    absent_since: float | None = None


class PermitBook:
    """All permits. Every method first takes back what has expired, so no timer is needed for being right."""

    def __init__(self, settings: PermitSettings, *, prefix: str = "lease") -> None:
        """`prefix` tells the leases of one coordinator from those of its predecessor."""
        self._settings = settings
        self._prefix = prefix
        self._leases: dict[LeaseId, Lease] = {}
        self._by_holder: dict[Holder, LeaseId] = {}
        self._queue: dict[Holder, _Place] = {}  # insertion order is the order of service
        self._granted_total = 0
        self._expired_total = 0

    def ask(self, holder: Holder, now: float) -> None:
        """Joins the queue, or comes back to a place kept there; does nothing for who holds a permit."""
        self._expire(now)
        if holder in self._by_holder:
            return
        self._queue.setdefault(holder, _Place()).absent_since = None
        self._grant(now)

    def leave(self, holder: Holder, now: float) -> None:
        """Stops waiting for now; the place is kept for `place_kept_s`."""
        place = self._queue.get(holder)
        if place is not None:
            place.absent_since = now

    def forget(self, holder: Holder) -> None:
        """Stops waiting for good."""
        self._queue.pop(holder, None)

    def lease_of(self, holder: Holder, now: float) -> Lease | None:
        """The permit of `holder`, if it has one by now."""
        self._expire(now)
        self._grant(now)
        lease_id = self._by_holder.get(holder)
        return None if lease_id is None else self._leases[lease_id]

    def release(self, lease_id: LeaseId, now: float) -> None:
        """Gives a permit back; ignores one that is not in use (any more)."""
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            del self._by_holder[lease.holder]
        self._expire(now)
        self._grant(now)

    def shard_gone(self, shard: ShardId, now: float) -> None:
        """Takes back all permits and places of a shard that died or was restarted."""
        for holder in [holder for holder in self._queue if holder.shard == shard]:
            del self._queue[holder]
        for lease in [lease for lease in self._leases.values() if lease.holder.shard == shard]:
            self._take_back(lease)
        self._grant(now)

    def next_change(self, now: float) -> float | None:
        """Seconds until time alone may free a permit or a place; None if nothing will."""
        moments = [lease.expires_at for lease in self._leases.values()]
        moments += [
            place.absent_since + self._settings.place_kept_s
            for place in self._queue.values()
            if place.absent_since is not None
        ]
        return max(min(moments) - now, 0.0) if moments else None

    def status(self, now: float) -> PermitStatus:
        """How many are held and waited for."""
        self._expire(now)
        return PermitStatus(
            limit=self._settings.lists_at_once,
            held=len(self._leases),
            waiting=len(self._queue),
            granted_total=self._granted_total,
            expired_total=self._expired_total,
        )

    def _grant(self, now: float) -> None:
        free = self._settings.lists_at_once - len(self._leases)
        if free <= 0:
            return
        # Who is absent keeps its place but does not block those behind it.
        present = [holder for holder, place in self._queue.items() if place.absent_since is None]
        for holder in present[:free]:
            del self._queue[holder]
            self._granted_total += 1
            lease_id = LeaseId(f"{self._prefix}-{self._granted_total}")
            self._leases[lease_id] = Lease(lease_id, holder, now + self._settings.lease_s)
            self._by_holder[holder] = lease_id

    def _expire(self, now: float) -> None:
        for lease in [lease for lease in self._leases.values() if lease.expires_at <= now]:
            self._take_back(lease)
        kept = self._settings.place_kept_s
        for holder, place in list(self._queue.items()):
            if place.absent_since is not None and place.absent_since + kept <= now:
                del self._queue[holder]

    def _take_back(self, lease: Lease) -> None:
        del self._leases[lease.lease_id]
        del self._by_holder[lease.holder]
        self._expired_total += 1
