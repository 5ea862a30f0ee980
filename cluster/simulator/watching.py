"""One WATCH: a cursor into a collection's log, pumped into a stream until its deadline.

::

    initial events (unset version, 0, or asked for)      replay (any other version; of an unset one, nothing)
        ADDED for every object                               events after that version
        BOOKMARK initial-events-end, if asked for                    |
                             |                                       |
                             +---------------- live ----------------+
                 events as they are written, bookmarks, end at the deadline

Bookmarks follow the watch cache's conditions (``cacheWatcher.nextBookmarkTime``): about every minute and
about two seconds before the deadline, and only while the newest event of the resource, in whatever
namespace, is newer than everything this watch began with. A version that is forgotten is answered by one
ERROR line. A watcher that falls too far behind is cut off, as is everybody when the server restarts.

All time is the loop's, so a stream runs in virtual time as it does on the wire. What is sent passes
through a `Sink`, where faults are injected (`faults`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Protocol

from ...shards.model.errors import Expired
from ...shards.model.versions import Version
from ..serving.documents import status_body, watch_event
from ..serving.options import ListOptions
from .rendering import Form
from .selection import Predicate
from .storage import Collection, Compacted, Event, EventType, Storage

BOOKMARK_PERIOD_S = 60.0
"""``defaultBookmarkFrequency`` of the watch cache."""
BOOKMARK_BEFORE_END_S = 2.0
BOOKMARK_TICK_S = 1.25
"""Bookmarks are sent by a timer of 1 to 1.25 s, so they come up to that much after they are due."""
MIN_TIMEOUT_S = 1800.0
"""``--min-request-timeout``: a watch without timeoutSeconds ends between this and twice this."""
BACKLOG_EVENTS = 20_000
"""A watcher that is further behind is cut off. kube-apiserver buffers far less, but counts time as well."""
_BATCH_EVENTS = 512
_BATCH_BYTES = 256 << 10


class Sink(Protocol):
    """Where lines go. `send` returns False when the stream has ended early: the watcher stops."""

    async def send(self, lines: Sequence[bytes]) -> bool:
        """Sends whole lines; waits while the client does not take them."""

    def bookmarks(self, due_at: float | None) -> float | None:
        """When a bookmark due at that loop time is really sent; None for never."""


@dataclass(frozen=True, slots=True)
class Window:
    """How long streams of a server live and how they are timed."""

    rng: Random
    now: Callable[[], datetime]
    bookmark_period_s: float = BOOKMARK_PERIOD_S
    min_timeout_s: float = MIN_TIMEOUT_S
    backlog_events: int = BACKLOG_EVENTS


@dataclass(eq=False)
class Watch:
    """One watch request, ready to run. Made before the response starts, so that bad input is still a
    status.
    """

    storage: Storage
    collection: Collection
    form: Form
    options: ListOptions
    matches: Predicate | None
    window: Window
    start: Version = field(init=False)
    broken: bool = field(init=False, default=False)
    """After `run`: the server went away under the stream, so it has no proper end."""
    _incarnation: int = field(init=False)
    _wake: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    _ended: bool = field(init=False, default=False)
    _awaited: Version | None = field(init=False, default=None)
    """A streaming list that promised a version not reached yet."""
    _baseline: Version = field(init=False, default=Version(0))
    """Bookmarks are sent once the newest event is newer than this."""
    _bookmark_at: float | None = field(init=False, default=None)
    _first: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self.start = self.options.watch_version()
        self._incarnation = self.storage.incarnation

    def end(self) -> None:
        """Ends the stream at its next step: the client went away."""
        self._ended = True
        self._wake.set()

    def poke(self) -> None:
        """Makes the stream take a step: something about it (a fault) has changed."""
        self._wake.set()

    async def run(self, sink: Sink) -> None:
        """Sends until the deadline, the end of the resource, or until the client or a fault ends it."""
        loop = asyncio.get_running_loop()
        seconds = self.options.timeout_s or self.window.min_timeout_s * (1 + self.window.rng.random())
        deadline = loop.time() + seconds
        # The storage's writes matter to a stream that waits for a version; see `_confirm`.
        waits = self.options.initial_events and self.start > self.storage.revision
        subscribers = (self.collection.subscribers, self.storage.subscribers)[: 1 + waits]
        for subscribed in subscribers:
            subscribed.add(self._wake.set)
        try:
            if self.options.initial_events:
                began = await self._initial(sink)
            else:
                # Who wants no initial events and names no version begins now (``getAllEventsSinceLocked``).
                began = self.start or max(self.collection.last, self.collection.oldest)
            if began is not None:
                await self._live(sink, began, deadline)
        finally:
            for subscribed in subscribers:
                subscribed.discard(self._wake.set)

    # -- the beginning ------------------------------------------------------------------------------

    async def _initial(self, sink: Sink) -> Version | None:
        """Sends what there is; the version live events follow from, or None if the stream has ended."""
        collection = self.collection
        if self.options.resource_version == "" or collection.observed < self.start <= self.storage.revision:
            collection.observed = self.storage.revision
        version = collection.observed
        objects = collection.page(matches=self.matches).objects
        batch: list[bytes] = []
        for stored in objects:
            batch.append(self.form.added(stored, now=self.window.now(), first=self._take_first()))
            if len(batch) >= _BATCH_EVENTS:
                if not await sink.send(batch):
                    return None
                batch = []
        if self.options.send_initial_events and self.options.allow_bookmarks:
            if self.start <= version:
                batch.append(self._bookmark(version, ending=True))
            else:
                self._awaited = self.start  # the bookmark follows once that version has been reached
        if batch and not await sink.send(batch):
            return None
        return version

    def _take_first(self) -> bool:
        first, self._first = self._first, False
        return first

    # -- live ---------------------------------------------------------------------------------------

    async def _live(self, sink: Sink, began: Version, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        collection = self.collection
        if self._interrupted():
            return
        try:
            cursor = collection.position_after(began)
        except Compacted:
            await sink.send((_too_old(began, collection.oldest),))
            return
        # Replayed events count as what the watch began with: they bring no bookmark of their own.
        self._baseline = max(began, collection.last)
        self._bookmark_at = self._next_bookmark(loop.time(), deadline)
        while not self._ended and loop.time() < deadline:
            self._wake.clear()
            if self._interrupted():
                return
            try:
                events = collection.since(cursor, _BATCH_EVENTS)
            except Compacted:
                return
            if events:
                lines, taken = self._lines(events, began)
                cursor += taken
                behind = collection.end_position - cursor
                if not await sink.send(lines) or behind > self.window.backlog_events:
                    return
                continue
            if collection.closed or not await self._idle(sink, deadline):
                return

    def _interrupted(self) -> bool:
        """Whether the server has restarted since the stream began; then it breaks."""
        self.broken = self.storage.incarnation != self._incarnation
        return self.broken

    async def _idle(self, sink: Sink, deadline: float) -> bool:
        """Does what is due between events, then waits; False ends the stream."""
        if self._awaited is not None:
            if self.storage.revision >= self._awaited:
                return await self._confirm(sink)
            await self._rest(deadline)
            return True
        now = asyncio.get_running_loop().time()
        due = sink.bookmarks(self._bookmark_at)
        if due is not None and now >= due:
            self._bookmark_at = self._next_bookmark(now, deadline)
            if self.collection.last <= self._baseline:
                return True
            return await sink.send((self._bookmark(self.collection.last, ending=False),))
        if not await sink.send(()):
            return False
        await self._rest(deadline if due is None else min(due, deadline))
        return True

    async def _confirm(self, sink: Sink) -> bool:
        """Ends the initial events, now that the version asked for has been reached."""
        self._awaited = None
        self.collection.observed = self.storage.revision
        return await sink.send((self._bookmark(self.storage.revision, ending=True),))

    async def _rest(self, until: float) -> None:
        """Waits for an event or for that loop time."""
        if self._wake.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._wake.wait()

    def _lines(self, events: Sequence[Event], began: Version) -> tuple[list[bytes], int]:
        """The lines of as many events as fit into one write, and how many events those were."""
        lines: list[bytes] = []
        size = taken = 0
        now = self.window.now()
        for event in events:
            taken += 1
            if event.version <= began:
                continue
            kind = self._kind(event)
            if kind is not None:
                line = self.form.line(event, kind, now=now, first=self._take_first())
                lines.append(line)
                size += len(line)
                if size > _BATCH_BYTES:
                    break
        return lines, taken

    def _kind(self, event: Event) -> EventType | None:
        """What the event is to this watcher: entering and leaving the selector are ADDED and DELETED."""
        matches = self.matches
        if matches is None:
            return event.type
        now = event.type != "DELETED" and matches(event.stored)
        before = event.previous is not None and matches(event.previous)
        if now:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else None

    def _bookmark(self, version: Version, *, ending: bool) -> bytes:
        return self.form.bookmark(version, initial_events_end=ending, now=self.window.now())

    def _next_bookmark(self, now: float, deadline: float) -> float | None:
        if not self.options.allow_bookmarks:
            return None
        due = min(now + self.window.bookmark_period_s, deadline - BOOKMARK_BEFORE_END_S)
        if due < now:
            return None
        return due + self.window.rng.uniform(0, BOOKMARK_TICK_S)


def _too_old(version: Version, oldest: Version) -> bytes:
    return watch_event("ERROR", status_body(Expired(f"too old resource version: {version} ({oldest})")))
