"""All hand-offs: those under way, one a resource at most, and what became of the last ones. Pure; time is passed in.

What is seen in a pass becomes events of the machine (`handoff.step`), what comes of it is counted and remembered for
people. A hand-off that was given up is not begun again before a pause, which doubles with each one of that resource
that is given up in a row; meanwhile its shards count as barred for its partitions, so that planning may look
elsewhere.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from ..shards.model.partitions import PartitionId, ShardId
from ..shards.model.resources import Resource
from .handoff import Copy, Event, HandOff, Limits, begin, step
from .settings import PlacementSettings
from .sight import Sight
from .status import FinishedHandOff, HandOffStatus

FINISHED_MAX: Final = 50
"""So many that are over are remembered."""
_LOST_SOURCE_S: Final = 3.0
_MARGIN: Final = 1.5
"""How much longer than its calls may take a switch is waited for: their outcome comes with the next pass."""
_UNABLE: Final = ("stranded", "refused", "gone")
"""States of a new copy that will not become complete by waiting."""


@dataclass(frozen=True, slots=True)
class Setback:
    """Hand-offs of one resource were given up, and none is begun for a while."""

    times: int
    """In a row."""
    until: float
    why: str
    barred: tuple[tuple[PartitionId, ShardId], ...]
    """The new copies of the last one."""


class HandOffs:
    """What is under way, and what was."""

    def __init__(self, settings: PlacementSettings) -> None:
        self._settings = settings
        self.limits = Limits(
            transfer_s=settings.transfer_timeout_s,
            lost_source_s=_LOST_SOURCE_S,
            switch_s=settings.switch_timeout_s * _MARGIN,
            grace_s=settings.release_grace_s,
            pause_s=settings.handoff_pause_s,
            switches=settings.switch_attempts,
        )
        self.finished: deque[tuple[float, FinishedHandOff]] = deque(maxlen=FINISHED_MAX)
        """With when they ended, the latest last."""
        self.counts: Counter[str] = Counter()
        """``done``, and of those given up the events that made them: ``stranded``, ``timed_out``, ..."""
        self._active: dict[Resource, HandOff] = {}
        self._setbacks: dict[Resource, Setback] = {}
        self._received: dict[Resource, tuple[int, int]] = {}
        """Objects and bytes received by the new copies, as far as is known."""
        self._begun = 0

    # -- which there are -------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[HandOff]:
        return iter(tuple(self._active.values()))

    def of(self, resource: Resource) -> HandOff | None:
        """The one under way."""
        return self._active.get(resource)

    @property
    def unpublished(self) -> int:
        """How many are on their way to being published."""
        return sum(not handoff.published and handoff.keeps_arriving for handoff in self)

    def setback(self, resource: Resource, now: float) -> Setback | None:
        """Why none of that resource is begun now; None if nothing stands against it."""
        setback = self._setbacks.get(resource)
        return setback if setback is not None and now < setback.until else None

    def barred(self, now: float) -> dict[PartitionId, dict[ShardId, str]]:
        """Shards that partitions are not to go to for now, with the reason."""
        barred: dict[PartitionId, dict[ShardId, str]] = {}
        for setback in self._setbacks.values():
            if now < setback.until:
                for partition, shard in setback.barred:
                    barred.setdefault(partition, {})[shard] = f"a hand-off to it was given up: {setback.why}"
        return barred

    # -- what happens to them --------------------------------------------------------------------------------

    def begin(
        self, leaving: tuple[Copy, ...], arriving: tuple[Copy, ...], reason: str, now: float
    ) -> HandOff:
        """Begins one; its resource has none under way."""
        self._begun += 1
        handoff = begin(self._begun, leaving, arriving, reason=reason, now=now, limits=self.limits)
        assert handoff.resource not in self._active, "one hand-off of a resource at a time"
        self._active[handoff.resource] = handoff
        return handoff

    def happened(self, handoff: HandOff, event: Event, now: float, why: str = "") -> HandOff:
        """An event of the hand-off; what became of it."""
        after = step(handoff, event, now, self.limits, why)
        if after is not handoff:
            self._active[after.resource] = after
        if after.over:
            self._finish(after, now)
        return after

    def switch(self, handoff: HandOff, sight: Sight) -> HandOff:
        """A switch begins."""
        takers = tuple(sight.incarnation(copy.shard) for copy in handoff.arriving)
        return self.happened(msgspec.structs.replace(handoff, takers=takers), "switch", sight.now)

    def outcome(self, number: int, attempt: int, why: str, now: float) -> None:
        """A switch succeeded, or failed if there is a reason why; one that was given up counts for nothing."""
        for handoff in self:
            if (handoff.number, handoff.attempts) == (number, attempt):
                self.happened(handoff, "failed" if why else "took", now, why)

    def notice(self, sight: Sight) -> None:
        """Takes in what is seen of their copies, and that time has passed."""
        for seen in self:
            after = seen
            for event, why in self._events(seen, sight):
                if not after.over:
                    after = self.happened(after, event, sight.now, why)
            if not after.over and sight.now >= after.until:
                self.happened(after, "timed_out", sight.now, self._overdue(after, sight))
        for gone in [resource for resource in self._setbacks if resource not in sight.types]:
            del self._setbacks[gone]

    def _events(self, handoff: HandOff, sight: Sight) -> Iterator[tuple[Event, str]]:
        self._count(handoff, sight)
        yield from _of_arriving(handoff, sight)
        if any(sight.lost(copy) for copy in handoff.leaving):
            yield "giver_lost", ""
        thawed = all(_goes_on(copy, sight) for copy in handoff.leaving)
        if thawed:
            yield "thawed", ""
        given_up = handoff.leaving if handoff.published else handoff.arriving
        if (handoff.published or thawed) and all(sight.cleared(copy) for copy in given_up):
            yield "cleared", ""

    def _count(self, handoff: HandOff, sight: Sight) -> None:
        counted = [entry for copy in handoff.arriving if (entry := sight.entry(copy))]
        if counted and not handoff.published:
            self._received[handoff.resource] = (
                sum(entry.transferred_objects for entry in counted),
                sum(entry.transferred_bytes for entry in counted),
            )

    def _overdue(self, handoff: HandOff, sight: Sight) -> str:
        match handoff.state:
            case "receiving":
                states = ", ".join(
                    f"{copy} is {sight.state(copy) or 'not there'}" for copy in handoff.arriving
                )
                lost = [str(copy) for copy in handoff.leaving if sight.lost(copy)]
                why = (
                    f"{', '.join(lost)} was lost"
                    if lost
                    else f"not complete after {self.limits.transfer_s:g} s"
                )
                return f"{why}: {states}"
            case "complete":
                return f"no switch succeeded within {self.limits.transfer_s:g} s"
            case "switching":
                return f"no outcome of the switch within {self.limits.switch_s:g} s"
            case "thawing":
                return "the old shards did not go on in time"
            case _:
                return ""

    def _finish(self, handoff: HandOff, now: float) -> None:
        del self._active[handoff.resource]
        objects, size = self._received.pop(handoff.resource, (0, 0))
        seconds: dict[str, float] = {}
        for state, spent in handoff.spent:
            seconds[state] = seconds.get(state, 0.0) + spent
        done = handoff.state == "done"
        self.counts["done" if done else handoff.cause] += 1
        self.finished.append(
            (
                now,
                FinishedHandOff(
                    resource=str(handoff.resource),
                    what=str(handoff),
                    ended="done" if done else "abandoned",
                    reason=handoff.reason,
                    why=handoff.why,
                    seconds=now - handoff.began,
                    steps=seconds,
                    objects=objects,
                    bytes=size,
                ),
            )
        )
        if done:
            self._setbacks.pop(handoff.resource, None)
        elif handoff.cause != "withdrawn":
            self._set_back(handoff, now)

    def _set_back(self, handoff: HandOff, now: float) -> None:
        before = self._setbacks.get(handoff.resource)
        times = before.times + 1 if before else 1
        pause = min(
            self._settings.handoff_pause_s * 2.0 ** min(times - 1, 30), self._settings.handoff_pause_max_s
        )
        self._setbacks[handoff.resource] = Setback(
            times, now + pause, handoff.why, tuple(copy.key for copy in handoff.arriving)
        )

    # -- for people ------------------------------------------------------------------------------------------

    def status(self, now: float) -> tuple[HandOffStatus, ...]:
        """Of those under way."""
        return tuple(
            HandOffStatus(
                resource=str(handoff.resource),
                what=str(handoff),
                state=handoff.state,
                age_s=now - handoff.began,
                state_age_s=now - handoff.since,
                attempts=handoff.attempts,
                reason=handoff.reason,
                why=handoff.why,
                objects=self._received.get(handoff.resource, (0, 0))[0],
                bytes=self._received.get(handoff.resource, (0, 0))[1],
            )
            for handoff in self
        )

    def ended(self, now: float) -> tuple[FinishedHandOff, ...]:
        """Those that are over, the latest first."""
        return tuple(
            msgspec.structs.replace(finished, ago_s=now - at) for at, finished in reversed(self.finished)
        )

    def waiting(self, now: float) -> Mapping[Resource, str]:
        """Resources of which none is begun for now, with the reason as a sentence."""
        return {
            resource: f"no hand-off of {resource} for {setback.until - now:.0f} s more, "
            f"{setback.times} given up in a row: {setback.why}"
            for resource, setback in self._setbacks.items()
            if now < setback.until
        }

    def withdraw(self, handoffs: Iterable[tuple[HandOff, str]], now: float) -> None:
        """They are wanted no more, each for a reason."""
        for handoff, why in handoffs:
            self.happened(handoff, "withdrawn", now, why)


def _of_arriving(handoff: HandOff, sight: Sight) -> Iterator[tuple[Event, str]]:
    """Events of the new copies."""
    for copy in handoff.arriving:
        if not sight.lives(copy.shard):
            yield "taker_gone", f"{copy.shard} is away"
        elif sight.heard(copy.shard) and sight.state(copy) in _UNABLE:
            entry = sight.entry(copy)
            said = entry.message if entry and entry.message else "no reason given"
            yield "stranded", f"{copy} is {sight.state(copy)}: {said}"
    if handoff.frozen and handoff.takers != tuple(sight.incarnation(copy.shard) for copy in handoff.arriving):
        yield "lost", "a new shard was started again"
    elif all(_ready(copy, sight) for copy in handoff.arriving):
        yield "arrived", ""
    elif lost := [str(copy) for copy in handoff.arriving if sight.lost(copy)]:
        yield "lost", f"{', '.join(lost)} is not complete any more"


def _ready(copy: Copy, sight: Sight) -> bool:
    """Whether a new copy could be switched to."""
    return sight.heard(copy.shard) and sight.synced(copy) and not sight.standing_still(copy)


def _goes_on(copy: Copy, sight: Sight) -> bool:
    """Whether an old copy serves as before, or is lost and so has nothing to go on with."""
    if not sight.lives(copy.shard):
        return True
    return sight.heard(copy.shard) and not sight.standing_still(copy)
