"""How each resource should be cut, and when: hot partitions are split, cold ones merged, and neither in haste. Pure.

One change of a resource at a time. What was ordered stays ordered until it has come about, is given up, or the reason
for it has gone. A change waits until it has been wanted for a while (`hot_s`, `cold_s`) and until the one before it was
measured (`pause_s`) and has lived (`life_s`): by constant load a resource comes to rest, because what a split makes is
too hot to be merged and what a merge makes is too cold to be split (`splitting`, `merging`).

Kept whatever the load is: what settings carve, and what people pinned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ...shards.model.partitions import Partition, PartitionId
from ...shards.model.resources import Resource
from ..cuts import Cut
from ..settings import CutSettings
from ..wanting import settled_cut
from .heat import Heat, Limits
from .loads import Loads
from .measures import Load
from .merging import merge, with_kept
from .orders import Divisible
from .splitting import Found, Subject, propose

_THOUGHT_S = 10.0
"""How long what came of looking for a split is believed: it takes milliseconds, and loads change slowly."""


Named: TypeAlias = tuple[PartitionId, Partition]
"""A partition and its id, which takes longer to make than to carry along."""


@dataclass(slots=True)
class _State:
    """What is remembered of one resource."""

    changed_at: float = -math.inf
    """When it was cut last."""
    ordered: Cut | None = None
    ordered_at: float = 0.0
    why: str = ""
    changed_why: str = ""
    """Why it was cut last."""
    splits: bool = False
    """What is ordered is for the sake of something hot."""
    hot_since: dict[PartitionId, float] = field(default_factory=dict)
    cold_since: float | None = None
    thoughts: dict[PartitionId, tuple[float, Found]] = field(default_factory=dict)
    verdicts: dict[PartitionId, tuple[str, ...]] = field(default_factory=dict)
    """What was decided about partitions, for people."""
    verdict: str = ""
    """About the resource as a whole."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One resource as it is now."""

    resource: Divisible
    cut: Cut | None
    """None: nobody serves it."""
    under_way: Cut | None
    pinned: Cut | None
    partitions: tuple[Named, ...]
    unserved: frozenset[PartitionId] = frozenset()
    """Those that no living shard has: nobody can tell a profile of these."""


class Cutter:
    """Decides about cuts; remembers since when, and what was ordered."""

    def __init__(self, settings: CutSettings, limits: Limits, loads: Loads) -> None:
        self._settings = settings
        self._limits = limits
        self._loads = loads
        self._states: dict[Resource, _State] = {}
        self.spread = 1.0
        """How much hotter than the target shards are on average when there are as many as there may be, at least 1.0:
        parts smaller than that asks for would help nobody."""
        self._spread_limits = limits
        self.hurried = False
        """Nothing has to last or to rest in this look."""
        self.stuck: dict[PartitionId, str] = {}
        """Partitions too hot for one shard that cannot be cut, with how hot and why; of this look."""
        self.profiles: list[tuple[float, PartitionId]] = []
        """Partitions whose profile is wanted, with how hot they are; of this look."""

    def begin(self, spread: float) -> None:
        """A new look at all resources, at this `spread`."""
        self.spread = spread
        self._spread_limits = self._limits.times(spread)
        self.profiles.clear()
        self.stuck.clear()

    def decide(self, facts: Facts, now: float) -> Cut:
        """One look: how the resource should be cut."""
        kept = settled_cut(facts.resource)
        if facts.cut is None:
            return facts.under_way or facts.pinned or kept
        state = self._states.setdefault(facts.resource.resource, _State())
        if facts.pinned is not None:
            state.ordered = None
            state.verdict = f"is pinned to its cut: {facts.pinned}"
            return facts.pinned
        standing = self._standing(state, facts, now)
        if standing is not None:
            return standing
        needed = with_kept(facts.cut, kept)
        if needed != facts.cut:
            return self._want(state, needed, now, "asked for by the settings (follow.carve)", splits=False)
        if not self._settings.automatic:
            state.verdict = "cuts do not go by load (cutting.automatic)"
            return facts.cut
        state.verdicts.clear()
        state.verdict = ""
        loads = {name: load for name, _ in facts.partitions if (load := self._loads.load(name)) is not None}
        hot = self._hot(state, facts, loads, now)
        if hot:
            state.cold_since = None
            return self._split(state, facts, hot, loads, now)
        return self._merge(state, facts, kept, loads, now)

    def verdicts(self, resource: Resource) -> tuple[str, Mapping[PartitionId, tuple[str, ...]]]:
        """What came of the last look at a resource: about all of it, and about its partitions."""
        state = self._states.get(resource, _State())
        return state.verdict, state.verdicts

    def story(self, resource: Resource, now: float) -> tuple[str, ...]:
        """When a resource was cut last, and why."""
        state = self._states.get(resource)
        if state is None or state.changed_at == -math.inf or not state.changed_why:
            return ()
        return (f"cut {now - state.changed_at:.0f} s ago: {state.changed_why}",)

    def keep_only(self, resources: Iterable[Resource]) -> None:
        """Forgets all other resources."""
        kept = set(resources)
        for gone in [known for known in self._states if known not in kept]:
            del self._states[gone]

    # -- what is ordered already -----------------------------------------------------------------------------

    def _standing(self, state: _State, facts: Facts, now: float) -> Cut | None:
        """What was ordered before, while it is wanted and has not come about."""
        if facts.under_way is not None:
            if facts.under_way != state.ordered:
                self._want(state, facts.under_way, now, "begun before", splits=False)
            state.verdict = f"is being cut into {facts.under_way}: {state.why}"
            return facts.under_way
        if state.ordered is None:
            return None
        if state.ordered == facts.cut:
            state.ordered, state.changed_at, state.changed_why = None, now, state.why
            state.hot_since.clear()
            state.thoughts.clear()
            state.cold_since = None
            return None
        if now - state.ordered_at >= self._settings.patience_s:
            state.ordered, state.changed_at = None, now
            state.verdict = (
                f"the cut into {state.ordered} did not come about within {self._settings.patience_s:g} s"
            )
            return None
        if state.splits and not self._still_hot(facts):
            state.ordered = None
            return None
        state.verdict = f"is to be cut into {state.ordered}: {state.why}"
        return state.ordered

    def _still_hot(self, facts: Facts) -> bool:
        for name, _ in facts.partitions:
            load = self._loads.load(name)
            if load is not None and self._limits.now(load).value > self._settings.part_below:
                return True
        return False

    def _want(self, state: _State, cut: Cut, now: float, why: str, *, splits: bool) -> Cut:
        state.ordered, state.ordered_at, state.why, state.splits = cut, now, why, splits
        state.verdict = f"is to be cut into {cut}: {why}"
        return cut

    # -- hot -------------------------------------------------------------------------------------------------

    def _hot(
        self, state: _State, facts: Facts, loads: Mapping[PartitionId, Load], now: float
    ) -> list[tuple[Heat, PartitionId, Partition]]:
        """What is too hot, the hottest first; and what is about to be, for whose profile is asked."""
        hot = []
        limits = self._spread_limits
        for name, one in facts.partitions:
            load = loads.get(name)
            heat = limits.now(load) if load is not None else None
            if heat is None or heat.value <= self._settings.split_above:
                state.hot_since.pop(name, None)
                continue
            state.hot_since.setdefault(name, now)
            hot.append((heat, name, one))
            known = self._loads.profile(name)
            if known is None or now - known[1] > self._settings.profile_s / 2:
                self.profiles.append((heat.value, name))
        if state.hot_since:
            for gone in state.hot_since.keys() - {name for name, _ in facts.partitions}:
                del state.hot_since[gone]
        hot.sort(key=lambda found: (-found[0].value, found[1]))
        return hot

    def _split(
        self,
        state: _State,
        facts: Facts,
        hot: list[tuple[Heat, PartitionId, Partition]],
        loads: Mapping[PartitionId, Load],
        now: float,
    ) -> Cut:
        """Splits the hottest that can be split: one at a time, because every cut of a resource is one hand-off."""
        assert facts.cut is not None
        settings = self._settings
        for heat, name, one in hot:
            limit = f"takes {heat}, above {settings.split_above:.0%} (cutting.split_above)"
            waits = (
                _wait("it is hot for", state.hot_since[name], settings.hot_s, now),
                _wait("cut", state.changed_at, settings.pause_s, now),
            )
            waiting = [wait for wait in waits if wait and not self.hurried]
            if waiting:
                state.verdicts[name] = tuple(f"{limit}; not split: {wait}" for wait in waiting)
                continue
            found = self._thought(state, facts, (name, one), loads[name], now)
            if found.proposal is None:
                state.verdicts[name] = tuple(f"{limit}; {why}" for why in found.rejected)
                if name in state.thoughts:
                    self.stuck[name] = f"takes {heat}: {found.rejected[-1]}"
                continue
            state.verdicts[name] = (found.proposal.reason, *found.rejected)
            return self._want(state, found.proposal.cut, now, found.proposal.reason, splits=True)
        return facts.cut

    def _thought(self, state: _State, facts: Facts, named: Named, load: Load, now: float) -> Found:
        name, one = named
        known = state.thoughts.get(name)
        if known is not None and now - known[0] < _THOUGHT_S:
            return known[1]
        assert facts.cut is not None
        profile = self._loads.profile(name)
        lost = name in facts.unserved
        fresh = profile is not None and (lost or now - profile[1] <= self._settings.profile_s)
        subject = Subject(
            facts.resource,
            one,
            load,
            profile[0] if profile is not None and fresh else None,
            facts.cut,
            self._spread_limits,
            self._settings,
            blind=lost,
        )
        found = propose(subject)
        if subject.profile is not None or lost:
            state.thoughts[name] = (now, found)
        return found

    # -- cold ------------------------------------------------------------------------------------------------

    def _merge(
        self, state: _State, facts: Facts, kept: Cut, loads: Mapping[PartitionId, Load], now: float
    ) -> Cut:
        assert facts.cut is not None
        if facts.cut == kept:
            state.cold_since = None
            return facts.cut
        by_cover = {one.cover: loads[name] for name, one in facts.partitions if name in loads}
        merging = merge(facts.cut, kept, by_cover, self._limits, self._settings)
        if merging.cut == facts.cut:
            state.cold_since = None
            state.verdict = merging.coldest
            return facts.cut
        if state.cold_since is None:
            state.cold_since = now
        for wait in (
            _wait("they are cold for", state.cold_since, self._settings.cold_s, now),
            _wait("cut", state.changed_at, self._settings.life_s, now),
        ):
            if wait and not self.hurried:
                state.verdict = f"not merged: {wait}; {merging.reason}"
                return facts.cut
        return self._want(state, merging.cut, now, merging.reason, splits=False)


def _wait(what: str, since: float, lasts_s: float, now: float) -> str:
    """``cut 40 s ago, waits 300 s``; empty if nothing has to be waited for."""
    passed_s = now - since
    if passed_s >= lasts_s:
        return ""
    ago = f"{what} {passed_s:.0f} s" + (" ago" if what == "cut" else "")
    return f"{ago}, waits {lasts_s:g} s"
