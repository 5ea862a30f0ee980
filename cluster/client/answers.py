"""What listers answer, and what the answers rest on. Pure.

An `ObjectList` is one state of a collection: its objects are in the server's order, and `resource_version` is what
it is a state of. `Freshness` is what a Shoal says beyond that in its headers (see `gateway.provenance`); an API server
says nothing, and its answers have `Freshness()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, overload

import msgspec
from msgspec import Raw

from ...shards.model.depth import at_any_depth
from ...shards.model.errors import Garbage
from ...shards.model.resources import ResourceType
from ..informers.objects import KubeObject

FRONTIER, AGE, SHARDS, PARTIAL = "shoal-frontier", "shoal-age", "shoal-shards", "shoal-partial"
"""Headers of a Shoal's answers, in lower case."""


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer rests on."""

    frontier: str = ""
    """Everything up to this resource version is in the answer; empty from an API server."""
    age_s: float | None = None
    """Seconds since the API server proved that; None where nothing was proved yet, and from an API server."""
    shards: tuple[str, ...] = ()
    """Who answered."""
    missing: str = ""
    """What the answer lacks; only of one for which ``partial=True`` was asked."""

    @property
    def from_shoal(self) -> bool:
        """Whether a Shoal answered, rather than an API server."""
        return bool(self.frontier)

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Freshness:
        """Reads the headers of an answer; what is absent or no number is left out."""
        try:
            age_s = float(headers[AGE])
        except (KeyError, ValueError):
            age_s = None
        return cls(
            frontier=headers.get(FRONTIER, ""),
            age_s=age_s,
            shards=tuple(name for name in headers.get(SHARDS, "").split(",") if name),
            missing=headers.get(PARTIAL, ""),
        )


class ObjectList(Sequence[KubeObject]):
    """Objects of one state, in the server's order (namespace, then name)."""

    __slots__ = ("continue_token", "freshness", "items", "remaining", "resource_version")

    def __init__(
        self,
        items: Sequence[KubeObject],
        *,
        resource_version: str,
        freshness: Freshness,
        continue_token: str = "",
        remaining: int | None = None,
    ) -> None:
        self.items: Final = tuple(items)
        self.resource_version: Final = resource_version
        """What the list is a state of; a watch from here on misses nothing."""
        self.freshness: Final = freshness
        self.continue_token: Final = continue_token
        """Of the next page; empty where there is none. It is good for some minutes."""
        self.remaining: Final = remaining
        """Objects on later pages, where the server says; None where it does not."""

    @property
    def frontier(self) -> str:
        """`Freshness.frontier`."""
        return self.freshness.frontier

    @property
    def age_s(self) -> float | None:
        """`Freshness.age_s`."""
        return self.freshness.age_s

    @property
    def shards(self) -> tuple[str, ...]:
        """`Freshness.shards`."""
        return self.freshness.shards

    @overload
    def __getitem__(self, position: int) -> KubeObject: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[KubeObject, ...]: ...
    def __getitem__(self, position: int | slice) -> KubeObject | tuple[KubeObject, ...]:
        return self.items[position]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[KubeObject]:
        return iter(self.items)

    def _state(self) -> tuple[object, ...]:
        return (self.resource_version, self.continue_token, self.remaining, self.freshness, self.items)

    def __eq__(self, other: object) -> bool:
        return self._state() == other._state() if isinstance(other, ObjectList) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.resource_version, self.items))

    def __repr__(self) -> str:
        more = ", and more" if self.continue_token else ""
        return f"<{len(self.items)} objects at {self.resource_version or 'no version'}{more}>"


class Count(int):
    """A number of objects, and what it rests on."""

    resource_version: str
    freshness: Freshness

    @classmethod
    def of(cls, count: int, resource_version: str, freshness: Freshness) -> Count:
        """A count of the state at `resource_version`."""
        counted = cls(count)
        counted.resource_version = resource_version
        counted.freshness = freshness
        return counted


class Groups(dict[str, int]):
    """Numbers of objects by a value, the largest first; those without one are under the empty text."""

    def __init__(self, groups: Mapping[str, int], resource_version: str, freshness: Freshness) -> None:
        super().__init__(sorted(groups.items(), key=lambda group: (-group[1], group[0])))
        self.resource_version: Final = resource_version
        self.freshness: Final = freshness


# -- reading answers -----------------------------------------------------------------------------------------


class _ListMetadata(msgspec.Struct, gc=False):
    resource_version: str = msgspec.field(name="resourceVersion", default="")
    continue_token: str = msgspec.field(name="continue", default="")
    remaining: int | None = msgspec.field(name="remainingItemCount", default=None)


class _List(msgspec.Struct, gc=False):
    metadata: _ListMetadata
    items: list[Raw] | None
    """null is what Go makes of an empty list that was never allocated."""


class _Counted(msgspec.Struct, gc=False, rename="camel"):
    count: int
    resource_version: str
    groups: dict[str, int] | None = None


_decode_list: Final = msgspec.json.Decoder(_List).decode
_decode_counted: Final = msgspec.json.Decoder(_Counted).decode
_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)


def read_list(body: bytes, headers: Mapping[str, str], kind: ResourceType) -> ObjectList:
    """The answer to a LIST.

    Raises:
        Garbage: it is no list of objects.
    """
    try:
        page = at_any_depth(_decode_list, body)
        identity = msgspec.json.encode({"kind": kind.kind, "apiVersion": kind.resource.api_version})[:-1]
        items = [KubeObject(_whole(bytes(raw), identity)) for raw in page.items or ()]
    except _UNREADABLE as error:
        raise Garbage(f"not a list of {kind.resource}: {error}: {_excerpt(body)}") from error
    return ObjectList(
        items,
        resource_version=page.metadata.resource_version,
        freshness=Freshness.of(headers),
        continue_token=page.metadata.continue_token,
        remaining=page.metadata.remaining,
    )


def read_count(body: bytes, headers: Mapping[str, str]) -> tuple[Count, Groups]:
    """The answer of a Shoal to ``/shoal/v1/count``.

    Raises:
        Garbage: it is none.
    """
    try:
        found = _decode_counted(body)
    except _UNREADABLE as error:
        raise Garbage(f"not a count: {error}: {_excerpt(body)}") from error
    freshness = Freshness.of(headers)
    count = Count.of(found.count, found.resource_version, freshness)
    return count, Groups(found.groups or {}, found.resource_version, freshness)


def _whole(raw: bytes, identity: bytes) -> bytes:
    """An item of a list with kind and apiVersion, which those of built-in kinds come without."""
    if raw.startswith((b'{"kind":"', b'{"apiVersion":"')):
        return raw
    if not raw.startswith(b'{"metadata":{'):
        members = _members(raw)
        if "kind" in members or not members:
            return raw
    return identity + b"," + raw.lstrip()[1:]


def _excerpt(body: bytes) -> str:
    # What an object holds may be secret; how an answer begins is not.
    return repr(body[:40].decode("utf-8", "replace"))
