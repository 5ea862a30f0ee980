"""The feeds of one partition: every event, in batches, to each gateway that reads them.

What it keeps true: a reader is told every event after where it began, in order, none twice; after a batch it has been
told everything up to the batch's frontier. Replay and live events join without a seam because both are taken in one
step of the loop: first the others are told what is gathered, then history is captured and the reader is added. Nobody
begins beyond the frontier: who was further (with another shard that held the partition) waits until it is there
(`following.Followed.reach`), because a version that is not reached may be one of a past that the API server lost.

Events are gathered while the loop works off what the API server sent, and handed out once in its next turn. All readers
get the same batch object, so that whoever encodes it does it once. Bodies stay packed until the first reader takes the
batch. Nobody waits for anybody: a reader with more waiting for it than `FeedSettings` allow is cut off (`Expired`).
While there is no reader, the store is not even listened to.

Neighbours: `store.objects` records events, `following` passes on that the frontier moved, `shard.Shard.feed` reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable

from .handle import FEED_BEAT_S
from .model.errors import Expired, PastLost, ShoalError
from .model.queries import FeedBatch, FeedQuery
from .model.versions import UNKNOWN, Version
from .settings import FeedSettings
from .store.changes import feed_event
from .store.history import EVENT_BYTES, Event
from .store.objects import PartitionStore


class _Parcel:
    """Some events on their way: packed until somebody takes them, then one batch for everybody."""

    __slots__ = ("_batch", "_store", "bytes", "events", "frontier")

    def __init__(self, store: PartitionStore, events: list[Event], frontier: Version, size: int) -> None:
        self.events = events
        self.frontier = frontier
        self.bytes = size
        self._store = store
        self._batch: FeedBatch | None = None

    @property
    def batch(self) -> FeedBatch:
        """The one batch of this parcel."""
        if self._batch is None:
            self._batch = FeedBatch(
                self._store.partition.id,
                self.frontier,
                [feed_event(event) for event in self.events],
                self._store.frontier_age_s,
            )
        return self._batch


class _Reader:
    """One reader: what waits for it, and how it ended."""

    def __init__(self) -> None:
        self.parcels: deque[_Parcel] = deque()
        self.events = self.bytes = 0
        self.ended: ShoalError | None = None
        self.wake = asyncio.Event()

    def offer(self, parcel: _Parcel) -> None:
        """Puts a parcel into the queue."""
        self.parcels.append(parcel)
        self.events += len(parcel.events)
        self.bytes += parcel.bytes
        self.wake.set()

    def take(self) -> _Parcel:
        """The next parcel of the queue."""
        parcel = self.parcels.popleft()
        self.events -= len(parcel.events)
        self.bytes -= parcel.bytes
        return parcel

    def end(self, error: ShoalError) -> None:
        """Ends it; what waited for it is dropped."""
        self.ended = error
        self.parcels.clear()
        self.wake.set()


class PartitionFeeds:
    """All feeds of one partition. Belongs to the event loop of its shard."""

    def __init__(self, store: PartitionStore, settings: FeedSettings) -> None:
        self.cut_off = 0
        """Readers that were too slow."""
        self._store = store
        self._settings = settings
        self._readers: list[_Reader] = []
        self._gathered: list[Event] = []
        self._told = UNKNOWN
        self._flushing: asyncio.Handle | None = None

    @property
    def readers(self) -> int:
        """How many feeds are open."""
        return len(self._readers)

    # -- what the store tells ---------------------------------------------------------------------------------

    def record(self, event: Event) -> None:
        """As `store.objects.Recorder.record`."""
        if event.version <= self._told:
            # Its version has been told as complete: no event could say it any more.
            self.end(lambda: Expired(f"the state at version {event.version} was corrected"))
        else:
            self._gathered.append(event)

    def restarted(self) -> None:
        """As `store.objects.Recorder.restarted`."""
        self.end(lambda: PastLost("the API server lost its past: versions went back"))

    def moved(self) -> None:
        """The frontier was proved anew: what is gathered goes out in the loop's next turn."""
        if self._readers and self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Hands out all that is gathered, now."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        frontier = self._store.frontier
        if not self._readers or (not self._gathered and frontier == self._told):
            return
        events, self._gathered = self._gathered, []
        for parcel in self._parcels(events, self._told, frontier):
            for reader in self._readers:
                self._offer(reader, parcel)
        self._told = frontier
        self._readers = [reader for reader in self._readers if reader.ended is None]
        self._rest()

    def end(self, error: Callable[[], ShoalError]) -> None:
        """Ends every feed; each gets an error of its own."""
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.end(error())
        self._rest()

    def _rest(self) -> None:
        """Stops listening once nobody reads."""
        if not self._readers:
            self._store.recorder = None
            self._gathered.clear()

    # -- handing out ------------------------------------------------------------------------------------------

    def _parcels(self, events: list[Event], told: Version, frontier: Version) -> Iterable[_Parcel]:
        """All events in parcels; at least one, and only the last one claims the frontier.

        The others claim the newest version of which no event is left for the next one.
        """
        settings = self._settings
        start = size = 0
        for position, event in enumerate(events):
            if position and events[position - 1].version < event.version:
                told = max(told, events[position - 1].version)
            weight = _weight(event)
            size += weight
            if position == start or (
                size <= settings.batch_bytes and position - start < settings.batch_events
            ):
                continue
            yield _Parcel(self._store, events[start:position], told, size - weight)
            start, size = position, weight
        yield _Parcel(self._store, events[start:] if start else events, frontier, size)

    def _offer(self, reader: _Reader, parcel: _Parcel) -> None:
        if reader.ended is not None:
            return
        reader.offer(parcel)
        if reader.events > self._settings.queue_events or reader.bytes > self._settings.queue_bytes:
            self.cut_off += 1
            reader.end(Expired(f"the feed of {self._store.partition.id} was read too slowly and was cut off"))

    # -- reading ----------------------------------------------------------------------------------------------

    async def read(self, query: FeedQuery) -> AsyncGenerator[FeedBatch, None]:
        """The batches of one feed, for ever. Raises as `handle.ShardHandle.feed`."""
        store = self._store
        # Others are to be told first, or the new reader would get what is gathered a second time.
        self.flush()
        frontier = store.frontier
        since = frontier if query.since is None else query.since
        events = store.events_after(since)
        reader = _Reader()
        if not self._readers:
            store.recorder = self
            self._told = frontier
        self._readers.append(reader)
        try:
            for parcel in self._parcels(events, since, frontier):
                yield parcel.batch
                if reader.ended is not None:
                    raise reader.ended
            while True:
                while reader.parcels:
                    yield reader.take().batch
                if reader.ended is not None:
                    raise reader.ended
                reader.wake.clear()
                try:
                    async with asyncio.timeout(FEED_BEAT_S):
                        await reader.wake.wait()
                except TimeoutError:
                    yield FeedBatch(store.partition.id, self._told, [], store.frontier_age_s)
        finally:
            if reader in self._readers:
                self._readers.remove(reader)
                self._rest()


def _weight(event: Event) -> int:
    state = event.before if event.after is None else event.after
    return EVENT_BYTES if state is None else EVENT_BYTES + len(state.packed)
