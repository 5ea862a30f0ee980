"""One partition of several: their pasts put together, at the oldest of their frontiers.

Each source knows everything up to its frontier, so all together know everything up to the oldest one. What the others
had seen after that is taken back, and comes again by the watch that goes on from there. Below, their events are put in
the order of their versions; those of one version, and of one source, keep theirs.

What must not be lost on the way, and why it is not:

- *Late events.* Clients were shown versions of one source while another was behind them. So late events stay late, as
  long as anybody may have been shown before, and what comes again is late wherever it can have been: the newest version
  that was shown by the leave of any source is one of the result's marks.
- *Lists and replays over several partitions* carry the oldest of their frontiers, and show newer states. So what
  anybody brings from that time must not be answered event by event, which would take objects back: it is answered by
  newest states up to `divided_until`, the newest version anybody may have brought then.
- *What was unsettled* at a source (see `history`) and is known to be bounded is late up to that bound. What is not
  bounded yet makes all unsettled that came until the last source has settled.
- *Floors* are the highest of all: a version is known where all know it. Events below stay while they have to be
  repeated.

A name that is deleted and made again may have changed its side of a range of uids, and one source may have found out
about the deletion after another about the creation. Then the newer state counts, and events are made anew that lead
from one to the next.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final, NamedTuple

from ..model.covers import contains, disjoint
from ..model.errors import Broken, Expired
from ..model.partitions import Cover
from ..model.refs import Key
from ..model.versions import UNKNOWN, Version
from .entries import Entry
from .extracts import Extract
from .past import Event, Late, Past

_NEVER: Final = float("-inf")


def join(extracts: Sequence[Extract], cover: Cover) -> Extract:
    """The part of all of them that is in `cover`, which together they cover.

    A single one is restricted to it, and else as it was.

    Raises:
        Expired: a history does not reach back to the oldest frontier; sources that are as new as each other will do.
        Broken: these are not parts of one resource, or not different ones.
    """
    if not extracts:
        raise Broken(f"there is nothing to make a partition{cover} of")
    first = extracts[0]
    for other in extracts[1:]:
        if (other.resource, other.fields) != (first.resource, first.fields):
            raise Broken(
                f"{other.name} with {other.fields} is no part of {first.resource} with {first.fields}"
            )
    for one, another in combinations(extracts, 2):
        if not any(disjoint(mine, other) for mine in one.covers for other in another.covers):
            raise Broken(f"{one.name} and {another.name} overlap")
    parts = [part.restricted(cover) for part in extracts]
    if len(parts) > 1:
        return _joined(parts, cover)
    if not all(contains(own, cover) for own in first.covers):
        raise Broken(f"{first.name} is not all of {first.resource}{cover}")
    return replace(parts[0], covers=(cover,))


class _Source(NamedTuple):
    """One of several, at the frontier of all."""

    state: dict[Key, Entry | None]
    past: Past
    """By a clock that says 0."""


class _Step(NamedTuple):
    """An event of one source."""

    source: int
    event: Event
    late: Late | None


def _joined(parts: Sequence[Extract], cover: Cover) -> Extract:
    frontier = min(part.frontier for part in parts)
    sources = [_taken_back(part, frontier) for part in parts]
    steps = [step for number, source in enumerate(sources) for step in _steps(number, source.past)]
    steps.sort(key=lambda step: step.event.version)
    shared = _shared_keys(sources)
    state: dict[Key, Entry | None] = {}
    for source in sources:
        state.update(source.state)
    steps = _straightened(steps, sources, shared, state) if shared else steps
    entries = [entry for _, entry in sorted(state.items()) if entry is not None]
    brought = [max(part.divided_until, part.frontier, part.shown) for part in parts]
    return replace(
        parts[0],
        covers=(cover,),
        frontier=frontier,
        frontier_at=min(part.frontier_at - part.past.taken_at for part in parts if part.frontier == frontier),
        entries=entries,
        past=_past([source.past for source in sources], steps),
        marks=tuple(sorted({mark for part in parts for mark in part.marks}, reverse=True)),
        shown_before=max(part.shown_before for part in parts),
        divided_until=max(brought),
        joined=True,
    )


def _taken_back(part: Extract, to: Version) -> _Source:
    """The source as it was at an older frontier."""
    past = part.past
    if to < past.oldest_version or past.in_gap(to):
        raise Expired(
            f"{part.name} is at {part.frontier} and cannot be taken back to {to}: "
            f"its history begins at {past.oldest_version}, or has a gap there"
        )
    kept = bisect_right(past.events, to, key=lambda event: event.version)
    state: dict[Key, Entry | None] = {entry.key: entry for entry in part.entries}
    for event in reversed(past.events[kept:]):
        state[event.key] = event.before
    now = past.taken_at
    past = past._replace(
        taken_at=0.0,
        events=past.events[:kept],
        late=past.late[: bisect_right(past.late, to, key=lambda late: late.event.version)],
        gaps=[gap for gap in past.gaps if gap[1] <= to],
        settled_at=past.settled_at - now,
        stamp=now,
    )
    return _Source(state, past)


def _steps(number: int, past: Past) -> Iterable[_Step]:
    """The events of a source, with times by the clock that says 0, unsettled ones late where their bound is known."""
    noted = {id(late.event): late for late in past.late}
    now = past.stamp
    for event in past.events:
        at = event.at - now
        late = noted.get(id(event))
        if past.settled and at < past.settled_at:
            shown = max(past.settled, late.shown if late else UNKNOWN)
            late = Late(event, shown, correction=late is not None and late.correction)
        yield _Step(number, Event(event.version, event.key, event.before, event.after, at), late)


def _past(pasts: Sequence[Past], steps: Sequence[_Step]) -> Past:
    """One past, of the events in their final order."""
    # History wants events in the order of their times as well; who is older is repeated longer.
    at = 0.0
    for step in reversed(steps):
        at = step.event.at = min(at, step.event.at)
    late: list[Late] = []
    shown = UNKNOWN
    for step in steps:
        if step.late is not None:
            shown = max(shown, step.late.shown)
            late.append(Late(step.event, shown, step.late.correction))
    unsettled = [past for past in pasts if not past.settled]
    return Past(
        taken_at=0.0,
        oldest_version=max(past.oldest_version for past in pasts),
        events=[step.event for step in steps],
        late=late,
        late_floor=max(past.late_floor for past in pasts),
        correction_floor=max(past.correction_floor for past in pasts),
        gaps=sorted({gap for past in pasts for gap in past.gaps}, key=lambda gap: (gap[1], gap[0])),
        settled_at=max((past.settled_at for past in unsettled), default=_NEVER),
        unsettled_lost=any(past.unsettled_lost for past in unsettled),
    )


# -- names that changed sides ---------------------------------------------------------------------------------


def _shared_keys(sources: Sequence[_Source]) -> set[Key]:
    """Keys that more than one source knows."""
    seen: set[Key] = set()
    shared: set[Key] = set()
    for source in sources:
        keys = source.state.keys() | {event.key for event in source.past.events}
        shared |= seen & keys
        seen |= keys
    return shared


def _straightened(
    steps: Iterable[_Step], sources: Sequence[_Source], shared: set[Key], state: dict[Key, Entry | None]
) -> list[_Step]:
    """The steps, with those of shared keys leading from one state of all sources to the next; `state` follows."""
    each = {key: [source.state.get(key) for source in sources] for key in shared}
    for source, one in enumerate(sources):
        for event in reversed(one.past.events):
            if event.key in shared:
                each[event.key][source] = event.before
    whole = {key: _newest(states) for key, states in each.items()}
    found: list[_Step] = []
    missed: dict[Key, Late] = {}
    for step in steps:
        event, key = step.event, step.event.key
        if key not in shared:
            found.append(step)
            continue
        each[key][step.source] = event.after
        before, after = whole[key], _newest(each[key])
        late = step.late or missed.pop(key, None)
        if after is before:
            if late is not None:
                missed[key] = late
            continue
        whole[key] = after
        found.append(_Step(step.source, Event(event.version, key, before, after, event.at), late))
    state.update(whole)
    return found


def _newest(states: Iterable[Entry | None]) -> Entry | None:
    return max(
        (state for state in states if state is not None), key=lambda state: state.version, default=None
    )
