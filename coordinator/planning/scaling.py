"""How many shards there should be, and which. Pure; time is passed in.

What all partitions take together is compared with what so many shards can take: CPU, events and memory, and whichever
asks for most decides. Growing goes by the faster averages, shrinking by the higher of both. Constant load leads to one
step and no other: growing and shrinking both aim at the number that keeps to `target`, growing begins above
`grow_above`, shrinking below `shrink_below`, and neither has anything to do at that number.

Who leaves is emptied before it ends (`coordinator.placement` puts nothing on it and takes everything off), the least
loaded first, but before all others those that have not started or are dead. Who is still leaving when more are wanted
is called back before anybody new is started.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...shards.model.partitions import ShardId
from ..settings import ScalingSettings
from .orders import NOT_WANTED, Seat


@dataclass(frozen=True, slots=True)
class Demand:
    """What all partitions together take of one thing."""

    what: str
    """For people: ``CPU``."""
    now: float
    """By the faster averages."""
    high: float
    """By the higher of both."""
    capacity: float
    """What one shard can take of it."""
    unit: str = ""

    def shards(self, amount: float, fraction: float) -> int:
        """How many shards it takes to use so much of each."""
        return math.ceil(amount / (self.capacity * fraction) - 1e-9)

    def used(self, amount: float, shards: int) -> float:
        """How much of so many shards it uses, 1.0 being all."""
        return amount / (self.capacity * shards)


@dataclass(frozen=True, slots=True)
class Scale:
    """What came of it."""

    members: tuple[ShardId, ...]
    leaving: Mapping[ShardId, str]
    """Shards that are to be emptied because fewer are wanted, with the reason."""
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


class Scaler:
    """Decides how many; remembers since when, and who leaves."""

    def __init__(self, settings: ScalingSettings, shards: int) -> None:
        """`shards`: how many there are to be where the settings name no bounds, and to begin with."""
        self._settings = settings
        self._base = shards
        self._wanted = 0
        self._members: list[ShardId] = []
        self._leaving: dict[ShardId, str] = {}
        self._began: float | None = None
        self._grown_at = -math.inf
        self._changed_at = -math.inf
        self._more_since: float | None = None
        self._fewer_since: float | None = None
        self._starting_since: dict[ShardId, float] = {}
        self._why = ""
        self.hurried = False
        """Nothing has to last or to rest in this look."""

    @property
    def bounds(self) -> tuple[int, int]:
        """The fewest and the most shards."""
        low, high = self._settings.min_shards, self._settings.max_shards
        if low is None:
            low = self._base if high is None else min(self._base, high)
        return low, max(self._base, low) if high is None else high

    def resize(self, shards: int) -> None:
        """Changes the number in ``shards``; where the settings name bounds it is kept within them."""
        self._base = shards
        if self._wanted:
            self._set(shards, "asked for by hand")

    def decide(
        self,
        now: float,
        demands: Iterable[Demand],
        seats: Sequence[Seat],
        weights: Mapping[ShardId, int],
        *,
        missing_bytes: float = 0.0,
        room_bytes: float = math.inf,
    ) -> Scale:
        """One look.

        Args:
            now: seconds of a monotonic clock.
            demands: what all partitions take together, of each thing.
            seats: all shards there are.
            weights: what each shard has.
            missing_bytes: what partitions need that no shard has room for.
            room_bytes: what one shard has room for.
        """
        self._begin(now, seats)
        reasons: list[str] = []
        demands = tuple(demands)
        low, high = self.bounds
        if low == high:
            self._set(low, self._why)
            reasons.append(f"{low} shards, as the settings say (scaling.min_shards and max_shards)")
        else:
            reasons += self._grow_or_shrink(now, demands, missing_bytes, room_bytes)
        self._choose(seats, weights)
        return Scale(
            tuple(self._members),
            dict(self._leaving),
            tuple(reasons),
            self._warnings(now, seats, demands),
        )

    # -- how many --------------------------------------------------------------------------------------------

    def _begin(self, now: float, seats: Sequence[Seat]) -> None:
        if self._began is None:
            present = [seat.shard for seat in seats if not seat.leaving]
            # A coordinator that comes back finds as many as its predecessor wanted.
            self._began = self._changed_at = now
            low, high = self.bounds
            self._wanted = min(max(self._base, len(present), low), high)
            self._members = sorted(present, key=_number)[: self._wanted]
        for seat in seats:
            if seat.state == "starting":
                self._starting_since.setdefault(seat.shard, now)
            else:
                self._starting_since.pop(seat.shard, None)

    def _set(self, wanted: int, why: str) -> None:
        low, high = self.bounds
        self._wanted, self._why = min(max(wanted, low), high), why

    def _grow_or_shrink(
        self, now: float, demands: Sequence[Demand], missing_bytes: float, room_bytes: float
    ) -> list[str]:
        settings, wanted = self._settings, self._wanted
        low, high = self.bounds
        top = max(demands, key=lambda demand: demand.used(demand.now, wanted))
        used = top.used(top.now, wanted)
        needed = max(demand.shards(demand.now, settings.target) for demand in demands)
        lasting = max(demand.shards(demand.high, settings.target) for demand in demands)
        lasting_used = max(demand.used(demand.high, wanted) for demand in demands)
        state = f"{wanted} shards use {used:.0%} of their {top.what}"
        more = used > settings.grow_above and needed > wanted
        if missing_bytes > 0:
            more, needed = (
                True,
                max(needed, wanted + math.ceil(missing_bytes / (room_bytes * settings.target))),
            )
            state += f", and partitions of {missing_bytes / (1 << 20):,.0f} MiB have no room"
        fewer = lasting_used < settings.shrink_below and lasting < wanted and not missing_bytes
        self._more_since = (self._more_since if self._more_since is not None else now) if more else None
        self._fewer_since = (self._fewer_since if self._fewer_since is not None else now) if fewer else None
        if self._more_since is not None:
            if wanted >= high:
                return [f"{state}: {needed} would do, but scaling.max_shards is {high}"]
            return [self._grow(now, self._more_since, needed, state)]
        if self._fewer_since is not None:
            if wanted <= low:
                return [f"{state}: {lasting} would do, but scaling.min_shards is {low}"]
            return [self._shrink(now, self._fewer_since, lasting, state)]
        limits = f"more above {settings.grow_above:.0%}, fewer below {settings.shrink_below:.0%}"
        return [f"{state}: {limits} if fewer would keep to {settings.target:.0%}"]

    def _grow(self, now: float, since: float, needed: int, state: str) -> str:
        settings = self._settings
        waits = _wait("so for", since, settings.grow_after_s, now) or _wait(
            "shards were started", self._grown_at, settings.grow_pause_s, now
        )
        if waits and not self.hurried:
            return f"{state}: {needed} are needed; {waits}"
        step = max(settings.grow_at_once, math.floor(self._wanted * settings.grow_share))
        before = self._wanted
        self._set(min(needed, before + step), state)
        self._grown_at = self._changed_at = now
        self._more_since = None
        return f"{state}: {needed} are needed, so there are to be {self._wanted} now"

    def _shrink(self, now: float, since: float, needed: int, state: str) -> str:
        settings = self._settings
        if self._leaving:
            return f"{state}: {needed} would do; waits for {', '.join(self._leaving)} to be empty"
        waits = _wait("so for", since, settings.shrink_after_s, now) or _wait(
            "their number changed", self._changed_at, settings.shrink_pause_s, now
        )
        if waits and not self.hurried:
            return f"{state}: {needed} would do; {waits}"
        step = max(settings.shrink_at_once, math.floor(self._wanted * settings.shrink_share))
        before = self._wanted
        self._set(max(needed, before - step), state)
        self._changed_at = now
        self._fewer_since = None
        return f"{state}: {needed} would do, so there are to be {self._wanted} now"

    # -- which -----------------------------------------------------------------------------------------------

    def _choose(self, seats: Sequence[Seat], weights: Mapping[ShardId, int]) -> None:
        """Brings members to the number wanted."""
        by_name = {seat.shard: seat for seat in seats}
        drained = {seat.shard for seat in seats if seat.leaving not in ("", NOT_WANTED)}
        self._leaving = {shard: why for shard, why in self._leaving.items() if shard in by_name}
        self._members = [shard for shard in self._members if shard not in drained]
        while len(self._members) > self._wanted:
            shard = min(self._members, key=lambda shard: _leaves_first(shard, by_name.get(shard), weights))
            self._members.remove(shard)
            if shard in by_name:
                self._leaving[shard] = "is one too many" + (f": {self._why}" if self._why else "")
        self._call_back(by_name, drained, weights)
        while len(self._members) < self._wanted:
            self._members.append(self._new_name(by_name))
        self._members.sort(key=_number)

    def _call_back(
        self, seats: Mapping[ShardId, Seat], drained: set[ShardId], weights: Mapping[ShardId, int]
    ) -> None:
        """Who is there and leaves, or is not drained any more, stays instead of one that is still to start."""
        back = sorted(
            (
                shard
                for shard, seat in seats.items()
                if seat.state == "healthy" and shard not in drained and shard not in self._members
            ),
            key=lambda shard: (-weights.get(shard, 0), _number(shard)),
        )
        unstarted = [
            shard for shard in self._members if shard not in seats or seats[shard].state == "starting"
        ]
        for shard in back:
            if len(self._members) >= self._wanted:
                if not unstarted:
                    return
                self._members.remove(unstarted.pop())
            self._members.append(shard)
            self._leaving.pop(shard, None)

    def _new_name(self, taken: Mapping[ShardId, Seat]) -> ShardId:
        number = 0
        while (name := ShardId(f"shard-{number}")) in taken or name in self._members:
            number += 1
        return name

    def _warnings(self, now: float, seats: Sequence[Seat], demands: Sequence[Demand]) -> tuple[str, ...]:
        found = []
        patience_s = self._settings.start_patience_s
        late = [shard for shard, since in self._starting_since.items() if now - since >= patience_s]
        if late:
            named = ", ".join(sorted(late, key=_number))
            found.append(
                f"{named} did not start within {patience_s:g} s: the Ray cluster may have "
                "no room for so many shards; `ray status` shows what is asked of it"
            )
        over = [demand for demand in demands if self._wanted and demand.used(demand.now, self._wanted) > 1.0]
        if over and self._wanted >= self.bounds[1]:
            named = ", ".join(
                f"{demand.used(demand.now, self._wanted):.0%} of their {demand.what}" for demand in over
            )
            found.append(
                f"{self._wanted} shards would need {named}: raise scaling.max_shards, or follow less"
            )
        self._starting_since = {
            shard: since
            for shard, since in self._starting_since.items()
            if any(seat.shard == shard for seat in seats)
        }
        return tuple(found)


def _wait(what: str, since: float, lasts_s: float, now: float) -> str:
    """``shards were started 19 s ago, waits 30 s``; empty if nothing has to be waited for."""
    passed_s = now - since
    if passed_s >= lasts_s:
        return ""
    return f"{what} {passed_s:.0f} s{'' if what.endswith('for') else ' ago'}, waits {lasts_s:g} s"


def _number(shard: str) -> tuple[int, str]:
    """``shard-2`` before ``shard-10``."""
    digits = shard.rpartition("-")[2]
    return (int(digits) if digits.isdecimal() else 1 << 30, shard)


_UNUSED_FIRST = {"starting": 0, "dead": 1, "suspect": 2, "healthy": 3}


def _leaves_first(
    shard: ShardId, seat: Seat | None, weights: Mapping[ShardId, int]
) -> tuple[int, int, int, str]:
    """The lightest; of equals the one with the highest number. Before these, who serves nothing."""
    used = -1 if seat is None else _UNUSED_FIRST[seat.state]
    number, name = _number(shard)
    return used, weights.get(shard, 0), -number, name
