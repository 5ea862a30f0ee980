"""The watchers of one lane: who gets which lines, encoded once for all who want the same. Pure.

::

    collecting ---- replay() ----> passing ---- settle() ----> settled
    what the lane gives out        each for itself:            in a group with all of equal
    is kept for it while it        what it was told in its     selector and form: one frame,
    is told the past               replay is left out          one write each

A watcher is *collecting* while it is told what happened before it joined (`replay`); what is kept for it meanwhile
is bounded, and one that is overrun begins another replay. Then it is *passing*: its replay may have been ahead of
the feeds, so events up to the positions it reached are left out. Once the feeds have passed them it is *settled*.

*No gap, nothing twice.* Let a watcher join when partition p's feed has told f, and let its replay, asked for after
that, end at position r of p. Then r >= f, because the shard has told by the feed only what it held; everything of p
up to r is in the replay, and everything after r is after f, so it comes to the lane after the watcher has joined.

A watcher whose sink takes no more is dropped at once; the others do not notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from ...shards.model.errors import ShoalError
from ...shards.model.partitions import PartitionId
from ...shards.model.resources import ResourceType
from ...shards.model.versions import UNKNOWN, Version
from .forms import LineForm
from .frames import Frame, framed
from .selection import LiveEvent, Selection, Selector, Sight
from .statistics import WatchStatistics

COLLECTED_EVENTS: Final = 2000
COLLECTED_BYTES: Final = 2 << 20
"""What is kept for a watcher that is told the past; beyond either it has to be told more of the past instead."""

End = Callable[[ShoalError | None], None]
"""Tells a watch why it ends: an error becomes its last line, None ends it as a timeout does."""


class Member:
    """One watcher in a lane."""

    __slots__ = ("bookmarks", "collected", "collected_bytes", "end", "form", "positions", "selector", "write")

    def __init__(
        self, selector: Selector, form: LineForm, write: Callable[[Frame], bool], end: End, *, bookmarks: bool
    ) -> None:
        self.selector = selector
        self.form = form
        """Of the next line; changes after the first event."""
        self.write = write
        self.end = end
        self.bookmarks = bookmarks
        self.positions: Mapping[PartitionId, Version] = {}
        """What it was told in its replay; events up to here are not for it."""
        self.collected: list[Sight] | None = None
        """What is kept for it; None when it is not collecting, or was overrun."""
        self.collected_bytes = 0

    def collect(self, sights: Sequence[Sight]) -> None:
        """Keeps what was given out, unless that is too much."""
        if self.collected is None:
            return
        self.collected.extend(sights)
        self.collected_bytes += sum(len(sight.body) for sight in sights)
        if len(self.collected) > COLLECTED_EVENTS or self.collected_bytes > COLLECTED_BYTES:
            self.collected = None

    def missed(self, sights: Iterable[Sight]) -> list[Sight]:
        """Those that its replay did not tell."""
        position = self.positions.get
        return [sight for sight in sights if sight.event.version > position(sight.event.partition, UNKNOWN)]


class Group:
    """Settled watchers that want the same lines."""

    __slots__ = ("_members", "_writers", "form")

    def __init__(self, form: LineForm) -> None:
        self.form = form
        self._members: dict[Member, None] = {}
        self._writers: tuple[tuple[Member, Callable[[Frame], bool]], ...] | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members))

    def add(self, member: Member) -> None:
        """One more."""
        self._members[member] = None
        self._writers = None

    def discard(self, member: Member) -> None:
        """One less, if it was there."""
        if member in self._members:
            del self._members[member]
            self._writers = None

    def write(self, frame: Frame) -> list[Member]:
        """Writes to all; those that took it no more."""
        if self._writers is None:
            self._writers = tuple((member, member.write) for member in self._members)
        return [member for member, write in self._writers if not write(frame)]


class Audience:
    """All watchers of one lane."""

    def __init__(self, resource_type: ResourceType, statistics: WatchStatistics) -> None:
        self._type = resource_type
        self._statistics = statistics
        self._selections: dict[Selector, Selection] = {}
        self._groups: dict[Selector, dict[LineForm, Group]] = {}
        self._joining: dict[Member, bool] = {}
        """Whether each is passing."""
        self._members: dict[Member, None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(tuple(self._members))

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has anything to look at."""
        return bool(self._joining)

    # -- coming and going ------------------------------------------------------------------------------------

    def collect(self, member: Member) -> None:
        """From now on what is given out is kept for the watcher; what was kept so far is forgotten."""
        self._members[member] = None
        self._joining[member] = False
        member.collected, member.collected_bytes = [], 0

    def keep(self, member: Member, events: Sequence[LiveEvent]) -> None:
        """These were given out before the watcher came, and its replay may come from a shard that lacks them."""
        if events:
            member.collect(self.selection(member.selector).sights(events))

    def take(self, member: Member) -> list[Sight] | None:
        """What was kept and not told in the replay, a bounded number; None if it was too much to be kept."""
        collected = member.collected
        if collected is None:
            return None
        member.collected, member.collected_bytes = [], 0
        return member.missed(collected)

    def go_live(self, member: Member) -> None:
        """The watcher has got all that was kept for it: everything else is written as it comes."""
        member.collected = None
        self._joining[member] = True

    def settle(self, fed: Mapping[PartitionId, Version], oldest_pending: Version | None) -> None:
        """Puts those that the feeds have passed into groups."""
        for member, passing in tuple(self._joining.items()):
            if not passing:
                continue
            positions = member.positions
            if any(fed[partition] < position for partition, position in positions.items()):
                continue
            if oldest_pending is not None and oldest_pending <= max(positions.values(), default=UNKNOWN):
                continue
            del self._joining[member]
            self._group(member.selector, member.form).add(member)

    def discard(self, member: Member) -> None:
        """The watcher has gone. Safe to repeat."""
        self._members.pop(member, None)
        self._joining.pop(member, None)
        member.collected = None
        groups = self._groups.get(member.selector)
        group = groups.get(member.form) if groups is not None else None
        if groups is not None and group is not None:
            group.discard(member)
            if not group:
                del groups[member.form]
                if not groups:
                    del self._groups[member.selector]

    def _group(self, selector: Selector, form: LineForm) -> Group:
        groups = self._groups.setdefault(selector, {})
        group = groups.get(form)
        if group is None:
            group = groups[form] = Group(form)
        return group

    def _drop(self, member: Member) -> None:
        self._statistics.slow += 1
        self.discard(member)
        member.end(None)

    # -- lines -----------------------------------------------------------------------------------------------

    def deliver(self, events: Sequence[LiveEvent]) -> None:
        """Writes what the lane gave out to all who see it."""
        if not events:
            return
        for selector, groups in tuple(self._groups.items()):
            sights = self.selection(selector).sights(events)
            if sights:
                for group in tuple(groups.values()):
                    self._deliver(selector, group, sights)
        for member, passing in tuple(self._joining.items()):
            sights = self.selection(member.selector).sights(events)
            if not sights:
                continue
            if passing:
                self.tell(member, member.missed(sights))
            else:
                member.collect(sights)

    def _deliver(self, selector: Selector, group: Group, sights: Sequence[Sight]) -> None:
        try:
            frames = tuple(framed(self.lines(group.form, sights)))
        except ShoalError as error:
            for member in group:
                self.discard(member)
                member.end(error)
            return
        for frame in frames:
            self._statistics.events += frame.events * len(group)
            for member in group.write(frame):
                self._drop(member)
        following = group.form.following
        if following is not group.form and group:
            del self._groups[selector][group.form]
            others = self._group(selector, following)
            for member in group:
                member.form = following
                others.add(member)

    def tell(self, member: Member, sights: Sequence[Sight]) -> bool:
        """Writes to one watcher; false if it took no more, or cannot be told in its form, and was dropped."""
        if not sights:
            return True
        try:
            frames = tuple(framed(self.lines(member.form, sights)))
        except ShoalError as error:
            self.discard(member)
            member.end(error)
            return False
        member.form = member.form.following
        for frame in frames:
            self._statistics.events += frame.events
            if not member.write(frame):
                self._drop(member)
                return False
        return True

    def bookmark(self, version: Version) -> None:
        """Writes a bookmark to all who asked for bookmarks and are told of events as they come."""
        lines: dict[tuple[LineForm, Version], Frame] = {}
        for member in tuple(self._members):
            if not member.bookmarks:
                continue
            at = version
            if member in self._joining:
                if not self._joining[member]:
                    continue
                at = max(at, min(member.positions.values(), default=at))
            form = member.form.following
            frame = lines.get((form, at))
            if frame is None:
                line = form.bookmark(at, self._type, initial_events_end=False)
                frame = lines[form, at] = Frame(line)
            if not member.write(frame):
                self._drop(member)

    def selection(self, selector: Selector) -> Selection:
        """The selector made ready; kept as long as the lane."""
        selection = self._selections.get(selector)
        if selection is None:
            if len(self._selections) >= len(self) + 64:
                self._selections.clear()  # of watchers that have gone, mostly
            selection = self._selections[selector] = Selection(selector, self._type)
        return selection

    def lines(self, form: LineForm, sights: Iterable[Sight]) -> Iterator[bytes]:
        """The lines of events, each made once for all forms that are equal."""
        for event, event_type, body in sights:
            key = (form, event_type, body is event.event.body)
            line = event.lines.get(key)
            if line is None:
                line = event.lines[key] = form.line(event_type, body, self._type)
            yield line
            form = form.following
