"""``shardSelector``: half-open ranges of the hash of one field (KEP-5866). Pure.

The grammar is kube-apiserver's (``apiserver/pkg/sharding/parser.go``, gate ShardedListAndWatch), with the error texts
of the recordings. kube-apiserver parses it as CEL; here the one production that CEL allows is read directly, so only
the two recorded mistakes get the server's own words. Ranges are limited in number (`RANGES_MAX`), and an object is
looked for among them by bisection.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from dataclasses import field as member
from functools import lru_cache
from typing import Final

from .errors import BadShardSelector
from .partitions import hashed
from .selector_tests import SELECTOR_CHARS_MAX, echoed

__all__ = ["NAMESPACE", "UID", "BadShardSelector", "ShardSelector", "parse_shard_selector"]

UID, NAMESPACE = "object.metadata.uid", "object.metadata.namespace"

_CALL = re.compile(r"shardRange\(\s*([A-Za-z_.]+)\s*,\s*'([^']*)'\s*,\s*'([^']*)'\s*\)")
_BOUND = re.compile(r"0x([0-9a-f]{16}|10000000000000000)")
RANGES_MAX: Final = 1000
"""Of one selector. Clients ask for one, or for as many as they have lost workers."""
REMEMBERED_CHARS: Final = 2048
"""A longer text is remembered with few others: what is remembered is what callers sent."""


@dataclass(frozen=True, slots=True)
class ShardSelector:
    """Half-open ranges of the hash of one field."""

    field: str
    """`UID` or `NAMESPACE`."""
    ranges: tuple[tuple[int, int], ...]
    """As they were given."""
    united: tuple[tuple[int, int], ...] = member(init=False, compare=False, repr=False)
    """The same in order, and none touching another."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "united", _united(self.ranges))

    def matches(self, namespace: str, uid: str) -> bool:
        """Whether an object's hash is in one of the ranges."""
        return self.holds(hashed(uid if self.field == UID else namespace))

    def holds(self, value: int) -> bool:
        """Whether a hash is in one of the ranges."""
        at = bisect_right(self.united, value, key=_low) - 1
        return at >= 0 and value < self.united[at][1]

    def __str__(self) -> str:
        """The canonical spelling that a list echoes."""
        return " || ".join(
            f"shardRange({self.field}, '0x{low:016x}', '0x{high:016x}')" for low, high in self.ranges
        )


def _low(one: tuple[int, int]) -> int:
    return one[0]


def _united(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return tuple(found)


def _bad(why: str) -> BadShardSelector:
    return BadShardSelector(f"invalid shard selector: {why}")


def parse_shard_selector(text: str) -> ShardSelector | None:
    """Reads a ``shardSelector``; None if it is empty. What was read lately is remembered.

    Raises:
        BadShardSelector: with the text kube-apiserver gives; or it is longer, or has more ranges, than is allowed.
    """
    if len(text) > SELECTOR_CHARS_MAX:
        raise _bad(f"it is {len(text)} characters long: at most {SELECTOR_CHARS_MAX} are allowed here")
    return _short(text) if len(text) <= REMEMBERED_CHARS else _long(text)


def _parse(text: str) -> ShardSelector | None:
    if not text.strip():
        return None
    hashed, ranges = "", []
    terms = text.split("||")
    if len(terms) > RANGES_MAX:
        raise _bad(f"it has {len(terms)} ranges: at most {RANGES_MAX} are allowed here")
    for term in terms:
        call = _CALL.fullmatch(term.strip())
        if call is None:
            raise _bad("unexpected expression kind 3; expected shardRange() call or || operator")
        path, low, high = call.groups()
        if path not in (UID, NAMESPACE):
            raise _bad(f'unsupported field path "{echoed(path)}"; supported: {UID}, {NAMESPACE}')
        if hashed and path != hashed:
            raise _bad(f'all shardRange() calls must use the same field: "{hashed}" and "{echoed(path)}"')
        hashed = path
        bounds = []
        for bound in (low, high):
            if not _BOUND.fullmatch(bound):
                raise _bad(f"invalid hex bound {echoed(bound)!r}: must be 0x and 16 lower-case hex digits")
            bounds.append(int(bound, 16))
        if bounds[0] >= bounds[1]:
            raise _bad(f"empty range: {low} is not below {high}")
        ranges.append((bounds[0], bounds[1]))
    return ShardSelector(hashed, tuple(ranges))


_short: Final = lru_cache(maxsize=512)(_parse)
_long: Final = lru_cache(maxsize=16)(_parse)
