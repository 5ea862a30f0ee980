"""A hand-off: copies of a resource's partitions replaced by others that cover the same objects. The machine. Pure.

A move is ``{p@a} -> {p@b}``, a split ``{p@a} -> {p1@a, p2@b}``, a merge the reverse. All of it is published in one
route table or not at all, so that the covers of a resource divide it at every epoch::

    receiving --arrived--> complete --switch--> switching --took--> taken --publish--> published
        ^                    |  ^                   |                 |                   | timed_out
        +------- lost -------+  +----- thawing <----+----- lost ------+                releasing
        |                    |         |            |                 |                   | cleared
        |                    |         |            |                 |                 done
        +--------------------+---------+------------+-----------------+---> abandoning ---cleared---> abandoned

A switch that failed leads by `thawing` back to `complete`, to be tried again after a pause.

What it keeps true, whatever happens in whatever order: the new copies are routed from `published` on and not before,
which only `taken` leads to: each of them was complete and knew by then what was shown by the leave of the old ones.
The old copies are given up in `releasing` and not before, the new ones in `abandoning` and not otherwise, so there is
always a set of copies that is not given up. Every state but the last two has a time limit, and switches are tried a
limited number of times: a hand-off ends by itself.

`TABLE` says what every event does in every state. Events are what was seen or what came of a call; `switch` and
`publish` are what its owner does, and illegal elsewhere. Who raises them and carries it out: `coordinator.handoffs`,
`coordinator.decide` and `coordinator.passing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from ..shards.model.errors import Broken
from ..shards.model.partitions import Partition, PartitionId, ShardId
from ..shards.model.resources import Resource

State: TypeAlias = Literal[
    "receiving",
    "complete",
    "switching",
    "taken",
    "published",
    "releasing",
    "thawing",
    "abandoning",
    "done",
    "abandoned",
]
Event: TypeAlias = Literal[
    "arrived",
    "lost",
    "stranded",
    "taker_gone",
    "giver_lost",
    "switch",
    "took",
    "failed",
    "publish",
    "thawed",
    "cleared",
    "withdrawn",
    "timed_out",
]


class Copy(NamedTuple):
    """A partition on a shard."""

    partition: Partition
    shard: ShardId

    @property
    def key(self) -> tuple[PartitionId, ShardId]:
        """The same as plain texts."""
        return self.partition.id, self.shard

    def __str__(self) -> str:
        return f"{self.partition.id}@{self.shard}"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long steps may take, in seconds, and how often one is tried."""

    transfer_s: float
    """From the beginning to the switch, pauses included."""
    lost_source_s: float
    """Once a source is lost: whoever has not received everything by then will not."""
    switch_s: float
    """From the first call of a switch to its outcome; also for old copies to answer again, and for copies to be
    given up."""
    grace_s: float
    """From publication until the old copies are given up."""
    pause_s: float
    """Before a switch is tried again."""
    switches: int
    """How often it is tried."""


class HandOff(msgspec.Struct, frozen=True, kw_only=True):
    """One hand-off. Times are seconds of the coordinator's clock."""

    number: int
    """Counts up in one life of the coordinator."""
    resource: Resource
    leaving: tuple[Copy, ...]
    """Routed until it is published."""
    arriving: tuple[Copy, ...]
    """Routed from then on; together they cover the same objects."""
    reason: str
    """Why it was begun, for people."""
    began: float
    state: State = "receiving"
    since: float
    """When it came into this state."""
    until: float
    """When this state has lasted too long."""
    give_up_at: float
    """When it has to have come to a switch."""
    not_before: float = 0.0
    """A switch is not tried before this."""
    attempts: int = 0
    """Switches begun."""
    shaken: bool = False
    """Since the last switch began a new copy was lost: whatever it was told, the one that is there now was not."""
    takers: tuple[str, ...] = ()
    """Incarnations of the new shards, in the order of `arriving`, when the last switch began."""
    why: str = ""
    """What went wrong last, as a sentence."""
    cause: str = ""
    """The event that made it give up; empty as long as it has not."""
    spent: tuple[tuple[State, float], ...] = ()
    """Seconds in each state it has left, in order."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        return self.state in OVER

    @property
    def published(self) -> bool:
        """Whether the new copies are the ones that are routed."""
        return self.state in ("published", "releasing", "done")

    @property
    def frozen(self) -> bool:
        """Whether the old copies stand still, or may at any moment, and are to be told nothing."""
        return self.state in ("switching", "taken")

    @property
    def keeps_arriving(self) -> bool:
        """Whether the new copies are to be there."""
        return self.state not in ("abandoning", "abandoned")

    @property
    def keeps_leaving(self) -> bool:
        """Whether the old copies are to be there."""
        return self.state not in ("releasing", "done")

    def __str__(self) -> str:
        old, new = (", ".join(str(copy) for copy in few) for few in (self.leaving, self.arriving))
        return f"{old} -> {new}"


OVER: Final[frozenset[State]] = frozenset(("done", "abandoned"))


def begin(
    number: int,
    leaving: tuple[Copy, ...],
    arriving: tuple[Copy, ...],
    *,
    reason: str,
    now: float,
    limits: Limits,
) -> HandOff:
    """A hand-off of one resource, at its beginning: the new shards are to be told where to receive from.

    Raises:
        ValueError: there is nothing to hand over, or it is not all of one resource.
    """
    resources = {copy.partition.resource for copy in (*leaving, *arriving)}
    if not leaving or not arriving or len(resources) != 1:
        raise ValueError(f"not a hand-off within one resource: {leaving} -> {arriving}")
    return HandOff(
        number=number,
        resource=resources.pop(),
        leaving=leaving,
        arriving=arriving,
        reason=reason,
        began=now,
        since=now,
        until=now + limits.transfer_s,
        give_up_at=now + limits.transfer_s,
    )


def step(handoff: HandOff, event: Event, now: float, limits: Limits, why: str = "") -> HandOff:
    """What becomes of a hand-off; the same value if the event means nothing to it.

    Raises:
        Broken: its owner does what is not to be done in this state.
    """
    return TABLE[handoff.state, event](handoff, _Moment(event, now, limits, why))


# -- what events do ------------------------------------------------------------------------------------------


class _Moment(NamedTuple):
    """What a state function is told."""

    event: Event
    now: float
    limits: Limits
    why: str


Step: TypeAlias = Callable[[HandOff, _Moment], HandOff]


def _enter(handoff: HandOff, at: _Moment, state: State, until: float) -> HandOff:
    return msgspec.structs.replace(
        handoff,
        state=state,
        since=at.now,
        until=until,
        why=at.why or handoff.why,
        spent=(*handoff.spent, (handoff.state, at.now - handoff.since)),
    )


def _ignored(handoff: HandOff, _at: _Moment) -> HandOff:
    """It means nothing here, or nothing that was not known."""
    return handoff


def _illegal(handoff: HandOff, at: _Moment) -> HandOff:
    raise Broken(f"a hand-off that is {handoff.state} is asked to {at.event}: {handoff}")


def _complete(handoff: HandOff, at: _Moment) -> HandOff:
    return _enter(handoff, at, "complete", handoff.give_up_at)


def _receive_again(handoff: HandOff, at: _Moment) -> HandOff:
    return _enter(handoff, at, "receiving", handoff.give_up_at)


def _hurry(handoff: HandOff, at: _Moment) -> HandOff:
    """A source is lost. What has been received may be all that is needed; if so, that will show soon."""
    return msgspec.structs.replace(handoff, until=min(handoff.until, at.now + at.limits.lost_source_s))


def _switch(handoff: HandOff, at: _Moment) -> HandOff:
    begun = msgspec.structs.replace(handoff, attempts=handoff.attempts + 1, shaken=False)
    return _enter(begun, at, "switching", at.now + at.limits.switch_s)


def _shaken(handoff: HandOff, _at: _Moment) -> HandOff:
    return msgspec.structs.replace(handoff, shaken=True)


def _taken(handoff: HandOff, at: _Moment) -> HandOff:
    if handoff.shaken:
        return _thaw(
            handoff, at._replace(event="lost", why="a new shard was started again during the switch")
        )
    return _enter(handoff, at, "taken", at.now + at.limits.switch_s)


def _published(handoff: HandOff, at: _Moment) -> HandOff:
    return _enter(handoff, at, "published", at.now + at.limits.grace_s)


def _release(handoff: HandOff, at: _Moment) -> HandOff:
    return _enter(handoff, at, "releasing", at.now + at.limits.switch_s)


def _done(handoff: HandOff, at: _Moment) -> HandOff:
    return _enter(handoff, at, "done", at.now)


def _abandon(handoff: HandOff, at: _Moment) -> HandOff:
    given_up = msgspec.structs.replace(handoff, cause=at.event)
    return _enter(given_up, at, "abandoning", at.now + at.limits.switch_s)


def _abandoned(handoff: HandOff, at: _Moment) -> HandOff:
    return _enter(handoff, at, "abandoned", at.now)


def _thaw(handoff: HandOff, at: _Moment) -> HandOff:
    """The old copies go on; the new ones stay, to be switched to once more if that was not the last time."""
    if handoff.attempts >= at.limits.switches:
        return _abandon(handoff, at)
    later = msgspec.structs.replace(handoff, not_before=at.now + at.limits.pause_s)
    return _enter(later, at, "thawing", at.now + at.limits.switch_s)


# -- the table -----------------------------------------------------------------------------------------------

_QUIET: Final[Mapping[Event, Step]] = {
    "arrived": _ignored,
    "lost": _ignored,
    "stranded": _ignored,
    "taker_gone": _ignored,
    "giver_lost": _ignored,
    "switch": _illegal,
    "took": _ignored,
    "failed": _ignored,
    "publish": _illegal,
    "thawed": _ignored,
    "cleared": _ignored,
    "withdrawn": _ignored,
    "timed_out": _ignored,
}
"""Where nothing that happens matters."""
_ROWS: Final[Mapping[State, Mapping[Event, Step]]] = {
    "receiving": {
        "arrived": _complete,
        "lost": _ignored,  # it is not complete yet anyhow; a shard that was started again is told again
        "stranded": _abandon,
        "taker_gone": _abandon,
        "giver_lost": _hurry,
        "switch": _illegal,
        "took": _ignored,  # of an attempt that was given up; likewise below
        "failed": _ignored,
        "publish": _illegal,
        "thawed": _ignored,
        "cleared": _ignored,
        "withdrawn": _abandon,
        "timed_out": _abandon,
    },
    "complete": {
        "arrived": _ignored,
        "lost": _receive_again,
        "stranded": _abandon,
        "taker_gone": _abandon,
        "giver_lost": _ignored,  # who is complete needs no source any more
        "switch": _switch,
        "took": _ignored,
        "failed": _ignored,
        "publish": _illegal,
        "thawed": _ignored,
        "cleared": _ignored,
        "withdrawn": _abandon,
        "timed_out": _abandon,
    },
    "switching": {
        "arrived": _ignored,
        "lost": _shaken,
        "stranded": _ignored,
        "taker_gone": _abandon,
        "giver_lost": _ignored,
        "switch": _illegal,
        "took": _taken,
        "failed": _thaw,
        "publish": _illegal,
        "thawed": _ignored,
        "cleared": _ignored,
        "withdrawn": _ignored,  # calls are under way; it is withdrawn from the state they lead to
        "timed_out": _thaw,
    },
    "taken": {
        "arrived": _ignored,
        "lost": _thaw,
        "stranded": _abandon,
        "taker_gone": _abandon,
        "giver_lost": _ignored,
        "switch": _illegal,
        "took": _ignored,
        "failed": _ignored,
        "publish": _published,
        "thawed": _ignored,
        "cleared": _ignored,
        "withdrawn": _abandon,
        "timed_out": _thaw,
    },
    # From here on they are owners like any other. Nothing is cleared before its time: readers may be on their way.
    "published": {**_QUIET, "timed_out": _release},
    # What is left on a shard that is away is released when it is heard of again.
    "releasing": {**_QUIET, "cleared": _done, "timed_out": _done},
    "thawing": {
        "arrived": _ignored,
        "lost": _ignored,  # `complete` will tell
        "stranded": _abandon,
        "taker_gone": _abandon,
        "giver_lost": _ignored,
        "switch": _illegal,
        "took": _ignored,
        "failed": _ignored,
        "publish": _illegal,
        "thawed": _complete,
        "cleared": _ignored,
        "withdrawn": _abandon,
        "timed_out": _abandon,
    },
    "abandoning": {**_QUIET, "cleared": _abandoned, "timed_out": _abandoned},
    "done": _QUIET,
    "abandoned": _QUIET,
}
TABLE: Final[Mapping[tuple[State, Event], Step]] = {
    (state, event): function for state, row in _ROWS.items() for event, function in row.items()
}
"""What every event does in every state."""
