"""``shardSelector``: half-open ranges of the hash of one field (KEP-5866). Pure.

The grammar is kube-apiserver's (``apiserver/pkg/sharding/parser.go``, gate ShardedListAndWatch), with the error texts
of the recordings. kube-apiserver parses it as CEL; here the one production that CEL allows is read directly, so only
the two recorded mistakes get the server's own words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from .errors import BadShardSelector
from .partitions import fnv1a64

__all__ = ["NAMESPACE", "UID", "BadShardSelector", "ShardSelector", "parse_shard_selector"]

UID, NAMESPACE = "object.metadata.uid", "object.metadata.namespace"

_CALL = re.compile(r"shardRange\(\s*([A-Za-z_.]+)\s*,\s*'([^']*)'\s*,\s*'([^']*)'\s*\)")
_BOUND = re.compile(r"0x([0-9a-f]{16}|10000000000000000)")
_hashed = lru_cache(maxsize=1 << 16)(fnv1a64)


@dataclass(frozen=True, slots=True)
class ShardSelector:
    """Half-open ranges of the hash of one field."""

    field: str
    """`UID` or `NAMESPACE`."""
    ranges: tuple[tuple[int, int], ...]

    def matches(self, namespace: str, uid: str) -> bool:
        """Whether an object's hash is in one of the ranges."""
        value = _hashed(uid if self.field == UID else namespace)
        return any(low <= value < high for low, high in self.ranges)

    def __str__(self) -> str:
        """The canonical spelling that a list echoes."""
        return " || ".join(
            f"shardRange({self.field}, '0x{low:016x}', '0x{high:016x}')" for low, high in self.ranges
        )


def _bad(why: str) -> BadShardSelector:
    return BadShardSelector(f"invalid shard selector: {why}")


@lru_cache(maxsize=512)
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
            raise _bad("unexpected expression kind 3; expected shardRange() call or || operator")
        path, low, high = call.groups()
        if path not in (UID, NAMESPACE):
            raise _bad(f'unsupported field path "{path}"; supported: {UID}, {NAMESPACE}')
        if field and path != field:
            raise _bad(f'all shardRange() calls must use the same field: "{field}" and "{path}"')
        field = path
        bounds = []
        for bound in (low, high):
            if not _BOUND.fullmatch(bound):
                raise _bad(f"invalid hex bound {bound!r}: must be 0x and 16 lower-case hex digits")
            bounds.append(int(bound, 16))
        if bounds[0] >= bounds[1]:
            raise _bad(f"empty range: {low} is not below {high}")
        ranges.append((bounds[0], bounds[1]))
    return ShardSelector(field, tuple(ranges))
