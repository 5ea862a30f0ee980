"""What one partition holds, for reading: objects, pages, counts, changes. The writing side is `objects.PartitionStore`.

Every answer is one state, that of the frontier or one from history; nothing here changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sortedcontainers import SortedList

from ..model.errors import Expired, NotReady, TooLargeVersion
from ..model.fields import INDEXED_FIELDS
from ..model.partitions import Partition
from ..model.queries import ChangesPage, ChangesQuery, CountQuery, PageAnswer, PageQuery, PartitionCount
from ..model.refs import Key
from ..model.resources import ResourceType
from ..model.versions import UNKNOWN, Version
from ..settings import StoreSettings
from .changes import change_pages, exact_changes, newest_changes
from .counting import count_groups
from .entries import Entry
from .history import Event, History, HistoryStatistics
from .index import Index
from .marks import Marks
from .snapshot import Asked, Selection, Snapshot


class HeldObjects:
    """Objects, indexes and history of one partition."""

    def __init__(
        self,
        partition: Partition,
        resource_type: ResourceType,
        *,
        settings: StoreSettings,
        clock: Callable[[], float],
    ) -> None:
        self.partition = partition
        self.resource_type = resource_type
        self.synced = False
        """True from the first complete list on."""
        self.frontier = UNKNOWN
        """Everything up to this version has been seen."""
        self.frontier_at = float("-inf")
        """When the API server last proved the frontier, by the clock."""
        self.shown_before = UNKNOWN
        """Up to this version readers were shown others' news by the leave of a shard that held the partition before:
        what they missed of it may have been in our first list, so who resumes below has to list again."""
        self.divided_until = UNKNOWN
        """The partition was several until now, or there are others: versions up to this one may have been shown of
        several, and are not answered for event by event."""
        self._clock = clock
        self._entries: dict[Key, Entry] = {}
        self._keys: SortedList[Key] = SortedList()
        self._index = Index(
            resource_type.selectable_fields, INDEXED_FIELDS | frozenset(resource_type.indexed_fields)
        )
        self._history = History(settings)
        self._marks = Marks()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def oldest_version(self) -> Version:
        """A list at an exact version may ask for this one or a later one."""
        return self._history.oldest_version

    @property
    def resumable(self) -> Version:
        """The oldest version that a watch of several partitions should be sent to; see `History.resumable`."""
        return max(self.shown_before, self._history.resumable(self._clock(), self.frontier))

    @property
    def overtaken(self) -> Version:
        """The newest version that readers of other partitions may have been shown."""
        return self._marks.newest

    @property
    def frontier_age_s(self) -> float:
        """Seconds since the API server last proved the frontier; 0 before the first list."""
        return max(0.0, self._clock() - self.frontier_at) if self.synced else 0.0

    def get(self, key: Key) -> bytes | None:
        """The newest state of one object.

        Raises:
            NotReady: no list was complete yet.
        """
        self._require_synced()
        entry = self._entries.get(key)
        return None if entry is None else entry.body()

    def page(self, query: PageQuery) -> PageAnswer:
        """One page of one state.

        Raises:
            NotReady: no list was complete yet.
            Expired: `PageQuery.at` is older than history reaches.
            TooLargeVersion: `PageQuery.at` has not been reached.
            BadRequest: a selector that cannot be parsed, or a field that is not selectable.
        """
        selection = self._select(query)
        return self._snapshot(query.at).page(selection, limit=query.limit, max_bytes=query.max_bytes)

    def capture(self, query: PageQuery) -> Iterator[PageAnswer]:
        """All pages of the state now, whatever is written meanwhile. Raises as `page`, at once."""
        selection = self._select(query)
        return self._snapshot(query.at).capture(selection, limit=query.limit, max_bytes=query.max_bytes)

    def count(self, query: PageQuery) -> int:
        """How many objects the query means; `after` counts, `limit` does not. Raises as `page`."""
        selection = self._select(query)
        return self._snapshot(query.at).size(selection)

    def tally(self, query: CountQuery) -> PartitionCount:
        """How many objects match, by groups if asked. Raises as `page`, and BadRequest for an unknown group."""
        selection = self._select(query)
        snapshot = self._snapshot(None)
        if not query.group_by:
            return PartitionCount(version=self.frontier, count=snapshot.size(selection))
        known = self.resource_type
        groups = count_groups(
            snapshot, selection, query.group_by, known.selectable_fields, namespaced=known.namespaced
        )
        return PartitionCount(version=self.frontier, count=sum(groups.values()), groups=groups)

    def changes(self, query: ChangesQuery) -> Iterator[ChangesPage]:
        """What happened after `ChangesQuery.since`, captured now. By newest states also where it is asked for exactly,
        if that version may have been shown of several partitions (`divided_until`).

        Raises:
            NotReady, BadRequest, BadShardSelector: as `page`.
            Expired: history does not reach back so far.
            TooLargeVersion: `since` has not been reached.
        """
        selection = self._select(query)
        exact = query.exact and query.since > self.divided_until
        if not exact and query.since < self.shown_before:
            raise Expired(f"too old resource version: {query.since} ({self.shown_before})")
        if query.since > self.answerable(query):
            raise TooLargeVersion(query.since, self.frontier)
        history, frontier, until = self._history, self.frontier, query.until
        events = history.replay(query.since) if exact else history.window(query.since)
        if until is not None and until < frontier:
            # Events are in the order of their versions, so what is left is the past as it was at `until`.
            events, frontier = [event for event in events if event.version <= until], until
        told = (exact_changes if exact else newest_changes)(events, selection)
        return change_pages(frontier, told, query.max_bytes)

    def answerable(self, query: ChangesQuery) -> Version:
        """The newest `since` that needs no waiting. A version that other partitions were shown at needs none: what is
        still to come up to it is late, and the answer's frontier says that it is not in it.
        """
        return self.frontier if query.exact or query.alone else max(self.frontier, self.overtaken)

    def events_after(self, since: Version) -> list[Event]:
        """For a feed: every event after `since`, in order.

        Raises:
            NotReady: no list was complete yet, or `since` has not been reached: the feed of who is further may have had
                a past that the server lost, and would be silent until there were as many versions again.
            Expired: history does not reach back so far, or the state at `since` was corrected afterwards.
        """
        self._require_synced()
        if since > self.frontier:
            raise NotReady(f"{self.partition.id} is at {self.frontier}, not yet at {since}", retry_after_s=1)
        if self._history.corrected(since):
            raise Expired(f"too old resource version: {since} ({self.frontier})")
        return self._history.replay(since)

    def state(self, at: Version) -> Snapshot:
        """Everything as it was at a version; valid until the next write.

        Raises:
            Expired: history does not reach back so far, or not without a gap.
            TooLargeVersion: `at` has not been reached.
        """
        return self._snapshot(at)

    def history_statistics(self) -> HistoryStatistics:
        """What history holds."""
        return self._history.statistics()

    def _select(self, query: Asked) -> Selection:
        self._require_synced()
        known = self.resource_type
        return Selection(query, known.selectable_fields, namespaced=known.namespaced)

    def _snapshot(self, at: Version | None) -> Snapshot:
        frontier = self.frontier
        if at is not None and at > frontier:
            raise TooLargeVersion(at, frontier)
        changes: Mapping[Key, Entry | None] = {}
        if at is not None and at < frontier:
            changes = self._history.changes_since(at)
        return Snapshot(
            frontier if at is None else at,
            entries=self._entries,
            keys=self._keys,
            index=self._index,
            namespaced=self.resource_type.namespaced,
            changes=changes,
        )

    def _require_synced(self) -> None:
        if not self.synced:
            raise NotReady(f"{self.partition.id} is not synced yet", retry_after_s=1)
