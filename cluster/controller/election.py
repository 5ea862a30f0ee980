"""Whether a candidate may lead: what it saw of the record, and when *it* saw it. Pure.

The rules are client-go's (``tools/leaderelection``). A lease is valid for as long as it says after this candidate
saw it change, by this candidate's own clock: times in the record are other machines' and are not believed, so any
difference between clocks is tolerated, as long as they run at about the same speed. The safety of it: others wait
`lease_duration_s` after they saw the leader renew. That is later than the leader sent it, and the leader counts from
then, however late the answer comes. It gives up `renew_deadline_s` after it began to renew in vain, and in any case
`margin_s` before its lease ends, so that what it led has ended by then as well.

Two things are stricter than in client-go, the second being that limit by the lease; the first: a leader that *sees*
somebody else's name in the record has lost then and there, and does not go on until its deadline.

Nobody is fenced: a leader whose process stood still for longer than its lease gives up when it runs again, without
another try, and what it had under way may reach the API server late. Reconciling is to be safe against that, by
resource versions.
"""

from __future__ import annotations

import msgspec

from .lease import LeaseRecord

JITTER = 1.2
"""A candidate waits between one retry period and (1 + this) times as long."""


class ElectionTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The periods of an election; the defaults are those of Kubernetes' own components."""

    lease_duration_s: int = 15
    """Seconds without a change after which others take over. Whole ones, because the record has no others."""
    renew_deadline_s: float = 10.0
    """Seconds for which a leader tries to renew before it gives up."""
    retry_period_s: float = 2.0
    """Seconds between two tries."""

    @property
    def margin_s(self) -> float:
        """Seconds that a leader gives up before its lease ends, at least: half of what is beyond the deadline."""
        return (self.lease_duration_s - self.renew_deadline_s) / 2

    def __post_init__(self) -> None:
        """Raises ValueError where two periods contradict each other, as client-go's validation does."""
        if self.lease_duration_s % 1:
            raise ValueError(f"lease_duration_s is {self.lease_duration_s}: expected whole seconds")
        if self.lease_duration_s < 1:
            raise ValueError(f"lease_duration_s is {self.lease_duration_s}: expected at least 1")
        if self.retry_period_s <= 0:
            raise ValueError(f"retry_period_s is {self.retry_period_s:g}: expected more than 0")
        if self.lease_duration_s <= self.renew_deadline_s:
            raise ValueError(
                f"lease_duration_s is {self.lease_duration_s}: expected more than renew_deadline_s, "
                f"{self.renew_deadline_s:g}, or two could lead at once"
            )
        if self.renew_deadline_s <= JITTER * self.retry_period_s:
            raise ValueError(
                f"renew_deadline_s is {self.renew_deadline_s:g}: expected more than {JITTER} times "
                f"retry_period_s, {self.retry_period_s:g}, or one try that fails would end a leadership"
            )


class Election:
    """What one candidate knows. `now` is its own clock in seconds, `moment` the wall clock as the record has it."""

    def __init__(self, identity: str, times: ElectionTimes) -> None:
        if not identity:
            raise ValueError("a candidate needs an identity that no other candidate has")
        self.identity = identity
        self.times = times
        self.seen = LeaseRecord()
        """The record as it was last seen, or as it was last written."""
        self.seen_at = float("-inf")
        """When it was first seen like that; for what this candidate wrote, when it was sent."""

    @property
    def ends_at(self) -> float:
        """When the record's time is over."""
        return self.seen_at + self.seen.duration_s

    @property
    def holds(self) -> bool:
        """The record names this candidate."""
        return self.seen.holder == self.identity

    def valid(self, now: float) -> bool:
        """The record's time is not over."""
        return self.ends_at > now

    def taken(self, now: float) -> bool:
        """Somebody else leads, and has to be left alone."""
        return bool(self.seen.holder) and not self.holds and self.valid(now)

    def observe(self, record: LeaseRecord, now: float) -> None:
        """The record was read. Its time begins anew only if it has changed.

        Not that of a leader's own, which it wrote without being answered: nobody knows how long ago that arrived.
        """
        if record == self.seen:
            return
        own = self.holds and record.holder == self.identity
        self.wrote(record, self.seen_at if own else now)

    def wrote(self, record: LeaseRecord, sent_at: float) -> None:
        """The record was written; the server took it at `sent_at` at the earliest."""
        self.seen, self.seen_at = record, sent_at

    def bid(self, moment: str) -> LeaseRecord:
        """The record that makes this candidate leader, or keeps it one, over the one that was seen last."""
        duration_s = int(self.times.lease_duration_s)
        if self.holds:
            return LeaseRecord(
                self.identity, duration_s, self.seen.acquire_time, moment, self.seen.transitions
            )
        return LeaseRecord(self.identity, duration_s, moment, moment, self.seen.transitions + 1)

    def first_bid(self, moment: str) -> LeaseRecord:
        """The record of a Lease that does not exist yet."""
        return LeaseRecord(self.identity, int(self.times.lease_duration_s), moment, moment, 0)

    def release(self, moment: str) -> LeaseRecord:
        """The record that lets anybody lead at once."""
        return LeaseRecord("", 1, moment, moment, self.seen.transitions)
