"""One state of a partition, the newest or one from history, and the pages of a query on it.

A `Snapshot` is a view, not a copy: the entries held now, and on top of them, for a past version, the states
that changed since. It is valid until the store is written to; a page is cut and packed in one go. `capture`
keeps references to the entries instead and stays what it was, whatever happens to the store.

A small planner answers from the smallest set known to hold all hits: one key (``metadata.name``), the keys of
a namespace (a range, because keys are sorted), an indexed field, or label sets. What the chosen set does not
decide is compared on the entries. Counts are exact. Bodies are unpacked when they are sent, never to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from heapq import merge
from typing import Final, TypeAlias

from sortedcontainers import SortedList

from ..model.fields import METADATA_FIELDS
from ..model.queries import ChangesQuery, CountQuery, PageAnswer, PageQuery
from ..model.refs import Key, namespace_range
from ..model.selectors import EVERY_FIELD, EVERY_LABEL, FieldSelector, LabelSelector
from ..model.shard_selectors import parse_shard_selector
from ..model.versions import Version
from .entries import Entry, LabelSet
from .index import Index

Asked: TypeAlias = PageQuery | CountQuery | ChangesQuery
"""Queries of several objects: namespace and selectors."""

_NO_CHANGES: Final[Mapping[Key, Entry | None]] = {}
AFTER_ALL: Final = "\U0010ffff"
"""Greater than every key: names and namespaces are ASCII."""
REMEMBERED_CHARS: Final = 2048
"""A longer selector is read each time: texts that are remembered are what callers sent."""


class Selection:
    """A query made ready: which range of keys, and what is left to compare on each entry."""

    __slots__ = (
        "_fields",
        "_name",
        "_seen",
        "_shards",
        "field_selector",
        "high",
        "label_selector",
        "low",
        "trivial",
    )

    def __init__(self, query: Asked, fields: tuple[str, ...], *, namespaced: bool) -> None:
        self.label_selector = parse_labels(query.labels) if query.labels else EVERY_LABEL
        self.field_selector = parse_fields(query.fields, fields) if query.fields else EVERY_FIELD
        shards = parse_shard_selector(query.shards) if query.shards else None
        self._shards = shards.matches if shards is not None else None
        self._fields: list[tuple[Callable[[Entry], str], Callable[[str], bool]]] = []
        for test in self.field_selector.tests:
            self._fields.append((value_getter(test.field, fields, namespaced=namespaced), test.meets))
        self._seen: dict[LabelSet, bool] = {}
        self._name = self.field_selector.exact("metadata.name")
        self.trivial = not self.label_selector and not self.field_selector and shards is None
        self.low, self.high = "", AFTER_ALL
        namespace = query.namespace
        if namespace is None and namespaced:
            namespace = self.field_selector.exact("metadata.namespace")
        if namespace and namespaced:
            self.low, self.high = namespace_range(namespace)
        if isinstance(query, PageQuery) and query.after and query.after >= self.low:
            # The smallest text greater than `after`.
            self.low = f"{query.after}\0"

    def matches(self, entry: Entry) -> bool:
        """Whether labels, fields and shards of the entry meet the selectors; the range is not looked at."""
        for value, meets in self._fields:
            if not meets(value(entry)):
                return False
        if self._shards is not None and not self._shards(entry.key.rpartition("/")[0], entry.uid):
            return False
        if not self.label_selector:
            return True
        label_set = entry.labels
        known = self._seen.get(label_set)
        if known is None:
            known = self._seen[label_set] = self.label_selector.matches(label_set.labels())
        return known

    @property
    def by_shards(self) -> bool:
        """Whether hashes have to be looked at, which no index knows."""
        return self._shards is not None

    def meets(self, entry: Entry | None) -> bool:
        """Whether there is an object, and in the range, and it meets the selectors."""
        return (
            entry is not None and self.low <= entry.key < self.high and (self.trivial or self.matches(entry))
        )

    def only_key(self, *, namespaced: bool) -> Key | None:
        """The one key the query can mean, if it names namespace and name."""
        if self._name is None:
            return None
        if not namespaced:
            return Key(self._name)
        namespace = self.field_selector.exact("metadata.namespace")
        if namespace is None and self.high != AFTER_ALL:
            namespace = self.high[:-1]
        return Key(f"{namespace}/{self._name}") if namespace else None


class Snapshot:
    """The state of a partition at one version."""

    __slots__ = ("_changes", "_entries", "_extra", "_index", "_keys", "_namespaced", "version")

    def __init__(
        self,
        version: Version,
        *,
        entries: Mapping[Key, Entry],
        keys: SortedList[Key],
        index: Index,
        namespaced: bool,
        changes: Mapping[Key, Entry | None] = _NO_CHANGES,
    ) -> None:
        self.version = version
        self._entries = entries
        self._keys = keys
        self._index = index
        self._namespaced = namespaced
        self._changes = changes

    def matches(self, selection: Selection) -> list[Key] | None:
        """Keys of all hits, in order; None if the whole range is (`count` and `ordered` are cheaper then)."""
        if selection.trivial:
            return None
        low, high, meets = selection.low, selection.high, selection.matches
        only = selection.only_key(namespaced=self._namespaced)
        if only is not None:
            entry = self._entry(only) if low <= only < high else None
            return [] if entry is None or not meets(entry) else [only]
        candidates = self._index.candidates(selection.label_selector, selection.field_selector)
        if candidates is None or candidates.size >= self._count_held(low, high):
            return [entry.key for entry in self.ordered(low, high) if meets(entry)]
        entries, changes = self._entries, self._changes
        keys = [key for key in candidates if low <= key < high and key not in changes]
        if not candidates.decided or selection.by_shards:
            keys = [key for key in keys if meets(entries[key])]
        keys += [key for key, was in changes.items() if was is not None and low <= key < high and meets(was)]
        keys.sort()
        return keys

    def count(self, low: str, high: str) -> int:
        """How many objects have keys in ``[low, high)``."""
        held = self._count_held(low, high)
        for key, entry in self._changes.items():
            if low <= key < high:
                held += (entry is not None) - (key in self._entries)
        return held

    def ordered(self, low: str, high: str) -> Iterator[Entry]:
        """Objects with keys in ``[low, high)``, in key order."""
        held: Iterator[Key] = self._keys.irange(low, high, inclusive=(True, False))
        entries, changes = self._entries, self._changes
        if not changes:
            for key in held:
                yield entries[key]
            return
        gone = sorted(
            key
            for key, entry in changes.items()
            if entry is not None and key not in entries and low <= key < high
        )
        for key in merge(held, gone):
            entry = changes[key] if key in changes else entries[key]
            if entry is not None:
                yield entry

    def group_sizes(self, selection: Selection, group_by: str, label: str | None) -> dict[str, int] | None:
        """Sizes by value of everything in the range, if an index or the order of keys says them; else None."""
        if self._changes:
            return None
        if group_by == "metadata.namespace" and self._namespaced:
            return dict(self._namespace_sizes(selection.low, selection.high))
        if selection.low or selection.high != AFTER_ALL:
            return None
        return self._index.sizes_by_field(group_by) if label is None else self._index.sizes_by_label(label)

    def _namespace_sizes(self, low: str, high: str) -> Iterator[tuple[str, int]]:
        keys = self._keys
        at, end = keys.bisect_left(low), keys.bisect_left(high)
        while at < end:
            namespace = keys[at].partition("/")[0]
            following = min(keys.bisect_left(namespace_range(namespace)[1]), end)
            yield namespace, following - at
            at = following

    def found(self, selection: Selection) -> Iterator[Entry]:
        """All hits, in key order."""
        keys = self.matches(selection)
        return self.ordered(selection.low, selection.high) if keys is None else self._held(keys)

    def _count_held(self, low: str, high: str) -> int:
        if not low and high == AFTER_ALL:
            return len(self._keys)
        return int(self._keys.bisect_left(high) - self._keys.bisect_left(low))

    def _entry(self, key: Key) -> Entry | None:
        return self._changes[key] if key in self._changes else self._entries.get(key)

    def entry(self, key: Key) -> Entry | None:
        """One object."""
        return self._entry(key)

    # -- answers ---------------------------------------------------------------------------------------------

    def size(self, selection: Selection) -> int:
        """How many objects are hits."""
        found = self.matches(selection)
        return self.count(selection.low, selection.high) if found is None else len(found)

    def page(self, selection: Selection, *, limit: int, max_bytes: int) -> PageAnswer:
        """The first page of the hits."""
        found = self.matches(selection)
        if found is None:
            total = self.count(selection.low, selection.high)
            return _packed(self.version, self.ordered(selection.low, selection.high), total, limit, max_bytes)
        return _packed(self.version, self._held(found), len(found), limit, max_bytes)

    def capture(self, selection: Selection, *, limit: int, max_bytes: int) -> Iterator[PageAnswer]:
        """All pages of the hits; the entries are taken now, their bodies unpacked page by page."""
        return _pages(self.version, list(self.found(selection)), limit, max_bytes)

    def _held(self, keys: Iterable[Key]) -> Iterator[Entry]:
        for key in keys:
            entry = self._entry(key)
            if entry is not None:
                yield entry


def _pages(version: Version, found: Sequence[Entry], limit: int, max_bytes: int) -> Iterator[PageAnswer]:
    at = 0
    while True:
        # Not a slice: of a long list each would copy what is left.
        rest = (found[position] for position in range(at, len(found)))
        answer = _packed(version, rest, len(found) - at, limit, max_bytes)
        yield answer
        if not answer.more:
            return
        at += len(answer.keys)


def _packed(version: Version, found: Iterable[Entry], total: int, limit: int, max_bytes: int) -> PageAnswer:
    keys: list[Key] = []
    bodies: list[bytes] = []
    size = 0
    for entry in found:
        body = entry.body()
        keys.append(entry.key)
        bodies.append(body)
        size += len(body)
        if len(keys) == limit or size > max_bytes:
            break
    remaining = total - len(keys)
    return PageAnswer(version=version, keys=keys, bodies=bodies, more=remaining > 0, remaining=remaining)


def value_getter(field: str, fields: tuple[str, ...], *, namespaced: bool) -> Callable[[Entry], str]:
    """Takes the value of a selectable field from an entry."""
    if field == "metadata.name":
        return lambda entry: entry.key.rpartition("/")[2]
    if field == "metadata.namespace":
        return (lambda entry: entry.key.partition("/")[0]) if namespaced else (lambda _: "")
    position = fields.index(field)
    return lambda entry: entry.fields[position]


def parse_labels(text: str) -> LabelSelector:
    """A label selector; the same text is parsed once, unless it is longer than is worth to be remembered.

    Raises:
        BadRequest: it cannot be parsed.
    """
    return _remembered_labels(text) if len(text) <= REMEMBERED_CHARS else LabelSelector.parse(text)


def parse_fields(text: str, fields: tuple[str, ...]) -> FieldSelector:
    """A field selector on a resource with these selectable fields; remembered as `parse_labels` does.

    Raises:
        BadRequest: it cannot be parsed, or names another field.
    """
    parse = _remembered_fields if len(text) <= REMEMBERED_CHARS else _parse_fields
    return parse(text, fields)


def _parse_fields(text: str, fields: tuple[str, ...]) -> FieldSelector:
    known = frozenset((*METADATA_FIELDS, *fields))
    return FieldSelector.parse(text, known.__contains__)


_remembered_labels: Final = lru_cache(maxsize=512)(LabelSelector.parse)
_remembered_fields: Final = lru_cache(maxsize=512)(_parse_fields)
