"""What happened after a version, as a watcher with selectors sees it; and events ready for a feed.

Two answers to "what happened since V?":

- *exact*: every event after V in order, kube-apiserver's own stream (``convertToWatchEvent`` in ``cacher.go``): what
  enters the selectors is ADDED, what leaves them DELETED, with the state *before* the change carrying the version of
  the change.
- *newest*: of each object that changed its newest state, once. A client that stands at V may have seen states newer
  than V: V is the least version of several partitions, or the version of a late event. So an object that is gone, or
  out of the selectors, is told as DELETED if any of its states since V matched, also if at V there was none: the client
  may have seen it.

Both hold references to entries; bodies are unpacked page by page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..model.queries import Change, ChangesPage, ChangeType, FeedEvent
from ..model.versions import Version
from .entries import Entry
from .history import Event
from .snapshot import Selection
from .stamps import stamped


class Told(NamedTuple):
    """One change before its body is unpacked."""

    version: Version
    type: ChangeType
    entry: Entry
    """The new state; of DELETED the last one that matched."""

    def change(self) -> Change:
        """The change as it is sent."""
        body = self.entry.body()
        if self.type == "DELETED":
            body = stamped(body, self.entry.version, self.version)
        return Change(self.version, self.type, self.entry.key, body)


def exact_changes(events: Iterable[Event], selection: Selection) -> list[Told]:
    """All events, as seen through the selection."""
    meets = selection.meets
    found = []
    for event in events:
        told = _told(event, was=meets(event.before), is_now=meets(event.after))
        if told is not None:
            found.append(told)
    return found


def _told(event: Event, *, was: bool, is_now: bool) -> Told | None:
    if is_now:
        assert event.after is not None
        return Told(event.version, "MODIFIED" if was else "ADDED", event.after)
    if was:
        assert event.before is not None
        return Told(event.version, "DELETED", event.before)
    return None


class _Changed:
    """One object in a window: whether it has matched since before the window began, and what to tell of it."""

    __slots__ = ("matched", "told")

    def __init__(self, *, matched: bool) -> None:
        self.matched = matched
        self.told: tuple[int, Told] | None = None


def newest_changes(events: Iterable[Event], selection: Selection) -> list[Told]:
    """Each object once, in the order of what is told of it. `events` holds all changes of each from some point on."""
    meets = selection.meets
    objects: dict[str, _Changed] = {}
    for position, event in enumerate(events):
        was, is_now = meets(event.before), meets(event.after)
        changed = objects.get(event.key)
        if changed is None:
            changed = objects[event.key] = _Changed(matched=was)
        told = _told(event, was=changed.matched if is_now else was, is_now=is_now)
        # Who was shown that it left has to be shown that it came, and a list may have shown it left already.
        changed.matched = changed.matched and is_now
        if told is not None:
            changed.told = (position, told)
    return [told for _, told in sorted(found.told for found in objects.values() if found.told is not None)]


def change_pages(frontier: Version, told: Sequence[Told], max_bytes: int) -> Iterator[ChangesPage]:
    """All pages; one without changes if there are none."""
    at = 0
    while True:
        changes: list[Change] = []
        size = 0
        while at < len(told) and size <= max_bytes:
            change = told[at].change()
            changes.append(change)
            size += len(change.body)
            at += 1
        yield ChangesPage(frontier=frontier, changes=changes, more=at < len(told))
        if at >= len(told):
            return


def feed_event(event: Event) -> FeedEvent:
    """The event with its bodies, and with the state before where it may tell of entering or leaving a selector."""
    before, after, version = event.before, event.after, event.version
    if after is None:
        assert before is not None
        body = stamped(before.body(), before.version, version)
        return FeedEvent(version, "DELETED", event.key, before.uid, body, before.labels.raw, before.fields)
    if before is None:
        return FeedEvent(version, "ADDED", event.key, after.uid, after.body(), after.labels.raw, after.fields)
    left = None
    if (
        (before.labels is not after.labels and before.labels.raw != after.labels.raw)
        or (before.fields is not after.fields and before.fields != after.fields)
        or before.uid != after.uid
    ):
        left = (stamped(before.body(), before.version, version), before.labels.raw, before.fields)
    return FeedEvent(
        version, "MODIFIED", event.key, after.uid, after.body(), after.labels.raw, after.fields, left
    )
