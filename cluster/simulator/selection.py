"""Which objects a LIST or WATCH is about: label, field and shard selectors as one predicate. Pure.

Also the grammar of ``shardSelector`` (``apiserver/pkg/sharding/parser.go``, gate ShardedListAndWatch),
with the error texts of the recordings. kube-apiserver parses it as CEL; here the one production that CEL
allows is read directly, so only the two recorded mistakes get the server's own words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ...shards.model.errors import ShoalError
from ...shards.model.partitions import fnv1a64
from ...shards.model.selectors import EVERY_FIELD, EVERY_LABEL, FieldSelector, LabelSelector
from .served import Served
from .storage import Stored

Predicate = Callable[[Stored], bool]

_CALL = re.compile(r"shardRange\(\s*([A-Za-z_.]+)\s*,\s*'([^']*)'\s*,\s*'([^']*)'\s*\)")
_BOUND = re.compile(r"0x([0-9a-f]{16}|10000000000000000)")
_FIELDS = ("object.metadata.uid", "object.metadata.namespace")
_hashed = lru_cache(maxsize=1 << 16)(fnv1a64)


class BadShardSelector(ShoalError):  # noqa: N818 - named like the Status reasons
    """A shard selector that cannot be read: the server answers 500 without a reason."""

    code = 500
    reason = ""

    def __init__(self, why: str) -> None:
        super().__init__(f"invalid shard selector: {why}")


@dataclass(frozen=True, slots=True)
class ShardSelector:
    """Half-open ranges of the hash of one field."""

    field: str
    """``object.metadata.uid`` or ``object.metadata.namespace``."""
    ranges: tuple[tuple[int, int], ...]

    def matches(self, stored: Stored) -> bool:
        """Whether the object's hash is in one of the ranges."""
        value = _hashed(stored.uid if self.field == _FIELDS[0] else stored.namespace)
        return any(low <= value < high for low, high in self.ranges)

    def __str__(self) -> str:
        """The canonical spelling that a list echoes."""
        return " || ".join(
            f"shardRange({self.field}, '0x{low:016x}', '0x{high:016x}')" for low, high in self.ranges
        )


def parse_shard_selector(text: str) -> ShardSelector | None:
    """Reads a ``shardSelector``; None if it is empty.

    Raises:
        BadShardSelector: with the text kube-apiserver gives.
    """
    if not text.strip():
        return None
    field, ranges = "", []
    for term in text.split("||"):
        call = _CALL.fullmatch(term.strip())
        if call is None:
            raise BadShardSelector("unexpected expression kind 3; expected shardRange() call or || operator")
        path, low, high = call.groups()
        if path not in _FIELDS:
            raise BadShardSelector(f'unsupported field path "{path}"; supported: {", ".join(_FIELDS)}')
        if field and path != field:
            raise BadShardSelector(f'all shardRange() calls must use the same field: "{field}" and "{path}"')
        field = path
        bounds = []
        for bound in (low, high):
            if not _BOUND.fullmatch(bound):
                raise BadShardSelector(
                    f"invalid hex bound {bound!r}: must be 0x and 16 lower-case hex digits"
                )
            bounds.append(int(bound, 16))
        if bounds[0] >= bounds[1]:
            raise BadShardSelector(f"empty range: {low} is not below {high}")
        ranges.append((bounds[0], bounds[1]))
    return ShardSelector(field, tuple(ranges))


def predicate(
    served: Served,
    *,
    labels: LabelSelector = EVERY_LABEL,
    fields: FieldSelector = EVERY_FIELD,
    shards: ShardSelector | None = None,
    namespace: str | None = None,
) -> Predicate | None:
    """Whether an object is meant; None if every object is. `namespace` is the path's, if it has one."""
    tests: list[Predicate] = []
    if namespace is not None:
        tests.append(lambda stored: stored.namespace == namespace)
    if labels:
        tests.append(lambda stored: labels.matches(stored.labels))
    if fields:
        tests.append(_field_test(served, fields))
    if shards is not None:
        tests.append(shards.matches)
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda stored: all(test(stored) for test in tests)


def _field_test(served: Served, fields: FieldSelector) -> Predicate:
    index = served.field_index

    def value_of(stored: Stored, field: str) -> str:
        if field == "metadata.name":
            return stored.name
        if field == "metadata.namespace":
            return stored.namespace
        at = index.get(field)
        return "" if at is None else stored.fields[at]

    return lambda stored: fields.matches(lambda field: value_of(stored, field))
