"""Which objects a selector can mean, without looking at objects.

Labels are indexed in two levels: label pair -> label sets -> members. Pods of one ReplicaSet share one label
set, so a requirement, also a negative one (``notin``, ``!key``), is decided once for each distinct label set.
Fields that `model.fields.INDEXED_FIELDS` or the settings name are indexed by value; others are compared on the entries.

Kept true with each entry that comes, changes or goes; an entry whose labels and fields stay costs nothing,
and empty buckets are removed. The index holds the newest state only: `snapshot` puts history's differences on
top.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from ..model.fields import INDEXED_FIELDS
from ..model.refs import Key
from ..model.selectors import FieldSelector, LabelRequirement, LabelSelector
from .entries import (
    Bucket,
    Entry,
    LabelSet,
    T,
    bucket_members,
    bucket_size,
    bucket_with,
    bucket_without,
)


class Candidates:
    """A superset of the keys a query means, of known size, in no order and none twice."""

    __slots__ = ("_buckets", "decided", "size")

    def __init__(self, buckets: Sequence[Bucket[Key] | None], *, decided: bool) -> None:
        self._buckets = buckets
        self.size = sum(map(bucket_size, buckets))
        self.decided = decided
        """True if all of them meet the whole query: nothing is left to compare."""

    def __iter__(self) -> Iterator[Key]:
        for bucket in self._buckets:
            yield from bucket_members(bucket)


class Index:
    """Labels and indexed fields of one partition's objects. Single writer, no references handed out but to
    keys.
    """

    def __init__(self, fields: Sequence[str], indexed: Collection[str] = INDEXED_FIELDS) -> None:
        self.building = False
        """While true, label sets without members stay known: entries made for a list not yet complete hold
        them, and two label sets of equal bytes must never be in use."""
        self._label_sets: dict[bytes, LabelSet] = {}
        self._pairs: dict[str, dict[str, Bucket[LabelSet]]] = {}
        self._exact: list[tuple[int, str, dict[str, Bucket[Key]]]] = [
            (position, field, {}) for position, field in enumerate(fields) if field in indexed
        ]

    # -- writing ---------------------------------------------------------------------------------------------

    def label_set(self, raw: bytes) -> LabelSet:
        """The one label set of these bytes. It enters the index with its first member."""
        found = self._label_sets.get(raw)
        if found is None:
            found = self._label_sets[raw] = LabelSet(raw)
        return found

    def add(self, entry: Entry) -> None:
        """An object that was not there."""
        self._join(entry)
        for position, _, values in self._exact:
            value = entry.fields[position]
            values[value] = bucket_with(values.get(value), entry.key)

    def remove(self, entry: Entry) -> None:
        """An object that was there, in the state it was added or replaced with last."""
        self._leave(entry)
        for position, _, values in self._exact:
            _take(values, entry.fields[position], entry.key)

    def replace(self, old: Entry, new: Entry) -> None:
        """An object in a new state."""
        if old.labels is not new.labels:
            self._leave(old)
            self._join(new)
        if old.fields is not new.fields:
            for position, _, values in self._exact:
                before, after = old.fields[position], new.fields[position]
                if before != after:
                    _take(values, before, old.key)
                    values[after] = bucket_with(values.get(after), new.key)

    def sweep(self) -> None:
        """Forgets label sets that were made for entries which never came."""
        for raw in [raw for raw, label_set in self._label_sets.items() if label_set.members is None]:
            del self._label_sets[raw]

    def _join(self, entry: Entry) -> None:
        label_set = entry.labels
        if label_set.members is None:
            # Made for an earlier entry and forgotten since, or new.
            self._label_sets[label_set.raw] = label_set
            for name, value in label_set.labels().items():
                values = self._pairs.setdefault(name, {})
                values[value] = bucket_with(values.get(value), label_set)
        label_set.members = bucket_with(label_set.members, entry.key)

    def _leave(self, entry: Entry) -> None:
        label_set = entry.labels
        label_set.members = bucket_without(label_set.members, entry.key)
        if label_set.members is not None:
            return
        if not self.building:
            del self._label_sets[label_set.raw]
        for name, value in label_set.labels().items():
            values = self._pairs[name]
            _take(values, value, label_set)
            if not values:
                del self._pairs[name]

    # -- reading ---------------------------------------------------------------------------------------------

    def candidates(self, labels: LabelSelector, fields: FieldSelector) -> Candidates | None:
        """The smallest superset an index knows, None if there is no index for anything asked."""
        best: Candidates | None = None
        only = len(fields.requirements) == 1 and not labels
        for _, field, values in self._exact:
            wanted = fields.exact(field)
            if wanted is not None:
                found = Candidates([values.get(wanted)], decided=only)
                best = found if best is None or found.size < best.size else best
        # Deciding labels looks at label sets; a field that leaves fewer objects than those is not worth it.
        if labels and (best is None or best.size > len(self._label_sets)):
            buckets = [label_set.members for label_set in self._matching(labels)]
            found = Candidates(buckets, decided=not fields)
            best = found if best is None or found.size < best.size else best
        return best

    def sizes_by_field(self, field: str) -> dict[str, int] | None:
        """Objects by the value of an indexed field; None if it is not indexed."""
        for _, indexed, values in self._exact:
            if indexed == field:
                return {value: bucket_size(bucket) for value, bucket in values.items()}
        return None

    def sizes_by_label(self, key: str) -> dict[str, int]:
        """Objects by the value of a label; those without it under the empty text."""
        found: dict[str, int] = {}
        carrying = 0
        for value, bucket in self._pairs.get(key, {}).items():
            found[value] = sum(map(len, bucket_members(bucket)))
            carrying += found[value]
        without = sum(map(len, self._label_sets.values())) - carrying
        if without:
            found[""] = found.get("", 0) + without
        return found

    def _matching(self, selector: LabelSelector) -> set[LabelSet]:
        """Label sets that meet the selector: by set algebra; only ``<`` and ``>`` have to parse any."""
        found: set[LabelSet] | None = None
        excluded: list[set[LabelSet]] = []
        for requirement in selector.tests:
            carrying = set(self._carrying(requirement))
            if requirement.operator in ("!=", "notin", "!"):
                excluded.append(carrying)
                continue
            if requirement.operator in (">", "<"):
                carrying = {label_set for label_set in carrying if requirement.matches(label_set.labels())}
            found = carrying if found is None else found & carrying
        if found is None:
            found = set(self._label_sets.values())
        return found.difference(*excluded)

    def _carrying(self, requirement: LabelRequirement) -> Iterable[LabelSet]:
        """Label sets with the requirement's key and, where it names values, one of them."""
        values = self._pairs.get(requirement.key, {})
        wanted: Iterable[Bucket[LabelSet] | None] = (
            (values.get(value) for value in requirement.values)
            if requirement.operator in ("=", "==", "in", "!=", "notin")
            else values.values()
        )
        for bucket in wanted:
            yield from bucket_members(bucket)

    # -- for tests and statistics ----------------------------------------------------------------------------

    def sizes(self) -> dict[str, int]:
        """How many distinct label sets, label pairs and indexed values there are."""
        return {
            "label_sets": len(self._label_sets),
            "pairs": sum(map(len, self._pairs.values())),
            "values": sum(len(values) for _, _, values in self._exact),
        }


def _take(values: dict[str, Bucket[T]], value: str, member: T) -> None:
    left = bucket_without(values[value], member)
    if left is None:
        del values[value]
    else:
        values[value] = left
