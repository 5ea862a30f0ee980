"""Which parts of a resource have become so cold that they are better one again. Pure.

Parts are merged while what comes of it stays below `CutSettings.merge_below`, which is below what a split leaves
(`part_below`): so what was merged is not split again, and what was split is not merged, as long as the load stays as it
is. Neighbouring ranges become one; a namespace without ranges goes back into the rest, the coldest first. What settings
and people cut is kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

from ...shards.model.partitions import Cover, HashRange, OneNamespace, hashed
from ..cuts import WHOLE, Bounds, Cut
from ..settings import CutSettings
from .heat import Heat, Limits
from .measures import Load, together


class Merging(NamedTuple):
    """A coarser cut, and why; the same cut if nothing is cold enough."""

    cut: Cut
    reason: str = ""
    coldest: str = ""
    """If nothing is merged: what would be the first to be, and when."""


def merge(cut: Cut, kept: Cut, loads: Mapping[Cover, Load], limits: Limits, settings: CutSettings) -> Merging:
    """The coarsest cut that keeps below the limit; `kept` is not undone."""
    return _Merge(cut, kept, loads, limits, settings).result()


def with_kept(cut: Cut, kept: Cut) -> Cut:
    """The cut with everything that has to be kept."""
    for one in kept.carved:
        own = next((other.bounds for other in cut.carved if other.name == one.name), None)
        if own is None or not set(one.bounds) <= set(own):
            cut = cut.split_namespace(one.name, sorted({*(own or ()), *one.bounds}))
    if kept.rest_bounds and not (
        cut.rest_field == kept.rest_field and set(kept.rest_bounds) <= set(cut.rest_bounds)
    ):
        own = cut.rest_bounds if cut.rest_field == kept.rest_field else ()
        cut = cut.split_rest(kept.rest_field, sorted({*own, *kept.rest_bounds}))
    return cut


class _Merge:
    def __init__(
        self, cut: Cut, kept: Cut, loads: Mapping[Cover, Load], limits: Limits, settings: CutSettings
    ) -> None:
        self._cut, self._kept = cut, kept
        self._loads = loads
        self._limits = limits
        self._limit = settings.merge_below
        self._merged: list[str] = []
        self._nearest: tuple[Heat, str] | None = None

    def result(self) -> Merging:
        cut = self._cut
        if cut == WHOLE or any(cover not in self._loads for cover in cut.covers()):
            return Merging(cut)  # nothing is merged by guesses
        ranges = self._rest_ranges()
        namespaces: list[tuple[str, Load]] = []
        for one in cut.carved:
            held = [self._loads[cover] for cover in one.covers]
            bounds, loads = self._fewer(
                one.bounds, held, self._kept_bounds(one.name), f"ranges of {one.name}"
            )
            if bounds != one.bounds:
                cut = cut.split_namespace(one.name, bounds)
            elif not bounds and one.name not in self._kept.names:
                namespaces.append((one.name, loads[0]))
        kept_rest = self._kept.rest_bounds if self._kept.rest_field == cut.rest_field else ()
        bounds, loads = self._fewer(cut.rest_bounds, ranges, kept_rest, "ranges of the rest")
        cut = cut.split_rest(cut.rest_field, bounds)
        for name, load in sorted(namespaces, key=lambda pair: (self._limits.high(pair[1]).value, pair[0])):
            if self._joins(cut, name, load, loads):
                cut = cut.uncarve(name)
                self._merged.append(name)
        if cut != self._cut:
            return Merging(
                cut, f"together below {self._limit:.0%} (cutting.merge_below): {', '.join(self._merged)}"
            )
        if self._nearest is None:
            return Merging(self._cut)
        heat, what = self._nearest
        return Merging(
            self._cut,
            coldest=f"{what} would be merged below {self._limit:.0%}, they take {heat.value:.0%} together",
        )

    def _rest_ranges(self) -> list[Load]:
        return [
            self._loads[cover]
            for cover in self._cut.covers()
            if not isinstance(cover, OneNamespace)
            and not (isinstance(cover, HashRange) and cover.namespace is not None)
        ]

    def _kept_bounds(self, name: str) -> Bounds:
        return next((one.bounds for one in self._kept.carved if one.name == name), ())

    def _fewer(self, bounds: Bounds, loads: list[Load], kept: Bounds, what: str) -> tuple[Bounds, list[Load]]:
        """Cut points left when neighbours are joined from left to right, and what is between them."""
        left: list[int] = []
        joined = [loads[0]]
        for bound, load in zip(bounds, loads[1:], strict=True):
            both = together((joined[-1], load))
            if bound not in kept and self._cold(both, f"two {what}"):
                joined[-1] = both
            else:
                left.append(bound)
                joined.append(load)
        if len(left) < len(bounds):
            self._merged.append(f"{len(bounds) + 1} {what} as {len(left) + 1}")
        return tuple(left), joined

    def _joins(self, cut: Cut, name: str, load: Load, rest: list[Load]) -> bool:
        """Whether a namespace may go back into the rest; if so it is counted there."""
        if cut.rest_bounds and cut.rest_field == "uid":
            shares = len(rest)
            each = [together((one, _part(load, shares))) for one in rest]
            hottest = max(each, key=lambda one: self._limits.high(one).value)
            if not self._cold(hottest, f"{name} and the rest"):
                return False
            rest[:] = each
            return True
        at = bisect_right(cut.rest_bounds, hashed(name)) if cut.rest_bounds else 0
        both = together((rest[at], load))
        if not self._cold(both, f"{name} and the rest"):
            return False
        rest[at] = both
        return True

    def _cold(self, load: Load, what: str) -> bool:
        heat = self._limits.high(load)
        if heat.value < self._limit:
            return True
        if self._nearest is None or heat < self._nearest[0]:
            self._nearest = (heat, what)
        return False


def _part(load: Load, parts: int) -> Load:
    return Load(
        objects=load.objects // parts,
        body_bytes=load.body_bytes // parts,
        events_per_s=load.events_per_s / parts,
        events_now=load.events_now / parts,
        queries_per_s=load.queries_per_s / parts,
        cpu=load.cpu / parts,
        cpu_now=load.cpu_now / parts,
        memory_bytes=load.memory_bytes // parts,
    )
