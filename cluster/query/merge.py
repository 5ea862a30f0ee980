"""Merging the ordered pages of several partitions into one ordered list, holding one page of each at most.

The rule: whatever is not greater than the last key buffered of *every* partition that has more to come can be
given out, because all that comes later is greater. So a round gives out a whole batch (sorted at once,
which is cheap: the parts are sorted already), after which at least one partition is *hungry*, that is, has
nothing buffered and more to come. No object is parsed; keys sort as text in the API server's order
(`model.refs`).

Covers do not overlap, so a key appears once, but for one case: an object deleted and created again under the
same name can be in two partitions split by uid while one of them lags. The newer of the two is kept: a list
never shows an object twice.

Pure: who fetches pages, and when, is `router`'s.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import eq, itemgetter
from typing import NamedTuple

import msgspec

from ...shards.model.queries import PageAnswer
from ...shards.model.refs import Key
from ...shards.model.versions import Version


class Batch(NamedTuple):
    """Objects in key order."""

    keys: Sequence[Key]
    bodies: Sequence[bytes]


@dataclass(slots=True)
class _Part:
    """What is buffered of one partition."""

    keys: list[Key] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    at: int = 0
    """Position of the first object not given out."""
    more: bool = True
    remaining: int = 0

    @property
    def buffered(self) -> int:
        return len(self.keys) - self.at

    def give(self, end: int) -> tuple[list[Key], list[bytes]]:
        start, self.at = self.at, end
        if start == 0 and end == len(self.keys):
            return self.keys, self.bodies
        return self.keys[start:end], self.bodies[start:end]


class Merge:
    """One list being put together from `parts` partitions, each known by its position among them."""

    def __init__(self, parts: int) -> None:
        self._parts = [_Part() for _ in range(parts)]

    def drop(self, part: int) -> None:
        """Goes on without a part of which nothing is buffered: nothing more of it will come."""
        held = self._parts[part]
        held.more, held.remaining = False, 0

    @property
    def hungry(self) -> tuple[int, ...]:
        """Parts of which nothing is buffered and more is to come: `take` gives nothing until they are fed."""
        return tuple(at for at, part in enumerate(self._parts) if part.more and not part.buffered)

    @property
    def remaining(self) -> int:
        """Objects not given out yet, buffered or still to come."""
        return sum(part.buffered + part.remaining for part in self._parts)

    def feed(self, part: int, page: PageAnswer) -> None:
        """Takes the next page of a hungry part."""
        self._parts[part] = _Part(
            keys=page.keys,
            bodies=page.bodies,
            more=page.more,
            remaining=page.remaining,
        )

    def take(self, limit: int | None = None) -> Batch:
        """The objects that can be given out now, in order, at most `limit`."""
        if self.hungry:
            return Batch((), ())
        bound = min((part.keys[-1] for part in self._parts if part.more), default=None)
        ends = [
            len(part.keys) if bound is None else bisect_right(part.keys, bound, part.at)
            for part in self._parts
        ]
        giving = [(part, end) for part, end in zip(self._parts, ends, strict=True) if end > part.at]
        if not giving:
            return Batch((), ())
        if len(giving) == 1:
            part, end = giving[0]
            return Batch(*part.give(end if limit is None else min(end, part.at + limit)))
        pairs = [
            pair
            for part, end in giving
            for pair in zip(part.keys[part.at : end], part.bodies[part.at : end], strict=True)
        ]
        pairs.sort(key=itemgetter(0))
        if limit is not None and len(pairs) > limit:
            last = pairs[limit - 1][0] if limit > 0 else Key("")
            giving = [(part, bisect_right(part.keys, last, part.at, end)) for part, end in giving]
            del pairs[bisect_right(pairs, last, key=itemgetter(0)) :]
        for part, end in giving:
            part.at = end
        return _once(pairs)


def _once(pairs: list[tuple[Key, bytes]]) -> Batch:
    keys = [key for key, _ in pairs]
    if not any(map(eq, keys, islice(keys, 1, None))):
        return Batch(keys, [body for _, body in pairs])
    newest: dict[Key, bytes] = {}
    for key, body in pairs:
        held = newest.get(key)
        if held is None or version_of(held) < version_of(body):
            newest[key] = body
    return Batch(list(newest), list(newest.values()))


class _Metadata(msgspec.Struct):
    resourceVersion: str = "0"  # noqa: N815 - Kubernetes' own spelling


class _Object(msgspec.Struct):
    metadata: _Metadata


_OBJECT = msgspec.json.Decoder(_Object)


def version_of(body: bytes) -> Version:
    """The resource version an object carries; scans the body, so only for the rare cases that need it."""
    return Version(int(_OBJECT.decode(body).metadata.resourceVersion))
