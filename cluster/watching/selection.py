"""Which of a feed's events a watcher sees, and as what: its namespace and selectors over an event's two states. Pure.

A feed tells of all objects of a partition. An object that enters a watcher's selectors is ADDED to it, one that
leaves them DELETED, in its last matching state but with the version of the change (``cacher.go``,
``convertToWatchEvent``). An event carries the state it replaced only if anything that selectors look at has
changed, so for all others one look is enough. Selectors are read once for each kind of watcher, the labels of an event
once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from ...shards.model.depth import at_any_depth
from ...shards.model.partitions import PartitionId
from ...shards.model.queries import ChangeType, FeedEvent
from ...shards.model.refs import ref_of
from ...shards.model.resources import ResourceType
from ...shards.model.selectors import FieldSelector, LabelSelector
from ...shards.model.shard_selectors import parse_shard_selector
from ...shards.model.versions import Version
from ..query.request import CollectionQuery

_LABELS = msgspec.json.Decoder(dict[str, str])
_NO_LABELS: Final[Mapping[str, str]] = {}


class _Identified(msgspec.Struct):
    uid: str = ""


class _WithMetadata(msgspec.Struct):
    metadata: _Identified


_UID = msgspec.json.Decoder(_WithMetadata)

_State: TypeAlias = tuple[bytes, tuple[str, ...]]
"""Labels and fields of an object."""


class LiveEvent:
    """An event of a feed, with what is worked out of it once for all watchers."""

    __slots__ = ("_labels", "event", "lines", "name", "namespace", "partition", "version")

    def __init__(self, partition: PartitionId, event: FeedEvent) -> None:
        self.partition = partition
        self.event = event
        self.version: Version = event.version
        self.namespace, self.name = ref_of(event.key)
        self.lines: dict[tuple[Any, str, bool], bytes] = {}
        """Lines by form, type, and whether they show the state before."""
        self._labels: dict[bytes, Mapping[str, str]] = {}

    def labels(self, raw: bytes) -> Mapping[str, str]:
        """Label bytes of one of its states, read."""
        if not raw:
            return _NO_LABELS
        read = self._labels.get(raw)
        if read is None:
            read = self._labels[raw] = _LABELS.decode(raw)
        return read


class Sight(NamedTuple):
    """An event as one kind of watcher sees it."""

    event: LiveEvent
    type: ChangeType
    body: bytes


@dataclass(frozen=True, slots=True)
class Selector:
    """Which objects a watcher is about. Watchers with equal selectors see the same."""

    namespace: str | None = None
    """None: all."""
    labels: str = ""
    fields: str = ""
    shards: str = ""

    @classmethod
    def of(cls, query: CollectionQuery) -> Selector:
        """The selectors of a query.

        Raises:
            BadShardSelector: the shard selector cannot be read.
        """
        return cls(query.namespace, query.labels, query.fields, query.shards)


class Selection:
    """A selector made ready for the events of a resource."""

    def __init__(self, selector: Selector, resource_type: ResourceType) -> None:
        self.selector = selector
        self._namespace = selector.namespace
        self._labels = LabelSelector.parse(selector.labels)
        self._fields = _field_tests(selector.fields, resource_type)
        self._shards = parse_shard_selector(selector.shards)
        self._everything = not (self._labels or self._fields or self._shards)

    def sights(self, events: Iterable[LiveEvent]) -> list[Sight]:
        """Those of the events that are seen."""
        sights = []
        for event in events:
            sight = self.sight(event)
            if sight is not None:
                sights.append(sight)
        return sights

    def sight(self, event: LiveEvent) -> Sight | None:
        """The event as it is seen, or None if it is not."""
        if self._namespace is not None and event.namespace != self._namespace:
            return None
        told = event.event
        if self._everything:
            return Sight(event, told.type, told.body)
        now = self._matches(event, (told.labels, told.fields), told.uid)
        if told.type != "MODIFIED" or told.before is None:
            return Sight(event, told.type, told.body) if now else None
        body, labels, fields = told.before
        uid = _uid_of(body) if self._shards is not None else told.uid
        before = self._matches(event, (labels, fields), uid)
        if now:
            return Sight(event, "MODIFIED" if before else "ADDED", told.body)
        return Sight(event, "DELETED", body) if before else None

    def _matches(self, event: LiveEvent, state: _State, uid: str) -> bool:
        labels, fields = state
        for test in self._fields:
            if not test(event, fields):
                return False
        if self._labels and not self._labels.matches(event.labels(labels)):
            return False
        return self._shards is None or self._shards.matches(event.namespace, uid)


_FieldTest: TypeAlias = Callable[[LiveEvent, tuple[str, ...]], bool]


def _field_tests(text: str, resource_type: ResourceType) -> list[_FieldTest]:
    """Tests of an event's fields.

    Raises:
        BadRequest: the selector cannot be read.
        ValueError: it names a field that events do not carry; queries are checked before.
    """
    tests: list[_FieldTest] = []
    for test in FieldSelector.parse(text).tests:
        meets = test.meets
        if test.field == "metadata.name":
            tests.append(lambda event, _, meets=meets: meets(event.name))  # type: ignore[misc]
        elif test.field == "metadata.namespace":
            tests.append(lambda event, _, meets=meets: meets(event.namespace))  # type: ignore[misc]
        else:
            at = resource_type.selectable_fields.index(test.field)
            tests.append(lambda _, fields, meets=meets, at=at: meets(fields[at]))  # type: ignore[misc]
    return tests


def _uid_of(body: bytes) -> str:
    return at_any_depth(_UID.decode, body).metadata.uid
