"""What covers have to do with each other, and partitions read from their ids. Pure.

A cover is a set of (namespace, uid). It is a product: a set of namespaces (one; or those of a range of hashes, except
some) times a range of hashes of uid. So whether two overlap, or one lies within the other, is decided side by side,
and exactly, granted that there are more names than could be listed for every hash (37^63 names of namespaces for
2^64 hashes).

Invariant of a division of a resource: any two of its covers are `disjoint`, and all together `complete`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations
from typing import Final, NamedTuple, TypeAlias

from .errors import BadRequest
from .partitions import (
    EVERYTHING,
    HASH_END,
    Cover,
    Everything,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    hashed,
)
from .resources import Resource

__all__ = [
    "complete",
    "contains",
    "disjoint",
    "divide",
    "only_namespace",
    "parse_cover",
    "parse_partition",
    "share_names",
]

Range: TypeAlias = tuple[int, int]
"""Of hashes, half-open."""

_ALL: Final = (0, HASH_END)
_ID: Final = re.compile(r"([^\[\]]+)(?:\[([^\[\]]*)\])?")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_RANGE: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16}|10000000000000000)")
_EXPECTED: Final = (
    "expected [NAMESPACE], [!NAMESPACE,NAMESPACE], [uid:LOW-HIGH], [namespace:LOW-HIGH], [NAMESPACE:uid:LOW-HIGH] or "
    "[!NAMESPACE,NAMESPACE:uid:LOW-HIGH], with bounds of 16 lower-case hex digits and sorted names"
)


class _Sides(NamedTuple):
    """A cover as the product it is."""

    only: str | None
    """The one namespace, or None: those of `namespaces` but not `excluded`."""
    excluded: tuple[str, ...]
    namespaces: Range
    uids: Range

    def names(self, name: str) -> bool:
        """Whether a namespace is among those meant."""
        if self.only is not None:
            return name == self.only
        if name in self.excluded:
            return False
        return self.namespaces == _ALL or _within(hashed(name), self.namespaces)


def _sides(cover: Cover) -> _Sides:
    match cover:
        case Everything():
            return _Sides(None, (), _ALL, _ALL)
        case OneNamespace(namespace=name):
            return _Sides(name, (), _ALL, _ALL)
        case ExceptNamespaces(namespaces=names):
            return _Sides(None, names, _ALL, _ALL)
        case HashRange(field="namespace", low=low, high=high, excluded=names):
            return _Sides(None, names, (low, high), _ALL)
        case HashRange(low=low, high=high, namespace=only, excluded=names):
            return _Sides(only, names, _ALL, (low, high))


def disjoint(a: Cover, b: Cover) -> bool:
    """Whether no object can be in both."""
    return not (_touch(_sides(a).uids, _sides(b).uids) and share_names(a, b))


def contains(outer: Cover, inner: Cover) -> bool:
    """Whether every object that can be in `inner` is one of `outer`."""
    around, within = _sides(outer), _sides(inner)
    if not _inside(within.uids, around.uids):
        return False
    if within.only is not None:
        return around.names(within.only)
    if around.only is not None or not _inside(within.namespaces, around.namespaces):
        return False
    return not any(within.names(name) for name in around.excluded)


def complete(covers: Iterable[Cover]) -> bool:
    """Whether every object there can be is in one of them, or in several."""
    sides = [_sides(cover) for cover in covers]
    named = {
        name for side in sides for name in (*side.excluded, *([side.only] if side.only is not None else ()))
    }
    if not all(_full(side.uids for side in sides if side.names(name)) for name in named):
        return False
    # All other names differ by their hashes alone, and between two cut points not even by these.
    many = [side for side in sides if side.only is None]
    starts = {0, *(side.namespaces[0] for side in many), *(side.namespaces[1] for side in many)} - {HASH_END}
    return all(_full(side.uids for side in many if _within(start, side.namespaces)) for start in starts)


def divide(covers: Collection[Cover]) -> bool:
    """Whether every object there can be is in exactly one of them."""
    return complete(covers) and all(disjoint(a, b) for a, b in combinations(covers, 2))


def only_namespace(cover: Cover) -> str | None:
    """The one namespace whose objects it is about, if there is only one."""
    return _sides(cover).only


def names_roam(cover: Cover) -> bool:
    """Whether a name of it can be in another partition once its object was deleted and made again."""
    return _sides(cover).uids != _ALL


def share_names(a: Cover, b: Cover) -> bool:
    """Whether an object that is deleted and made again under its name can be in `a` before and in `b` after.

    Of covers of one division this is so for ranges of uid of the same namespaces, and each of these and itself.
    """
    one, other = _sides(a), _sides(b)
    for name in (one.only, other.only):
        if name is not None:
            return one.names(name) and other.names(name)
    return _touch(one.namespaces, other.namespaces)


def _within(value: int, part: Range) -> bool:
    return part[0] <= value < part[1]


def _touch(a: Range, b: Range) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _inside(inner: Range, outer: Range) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _full(parts: Iterable[Range]) -> bool:
    reached = 0
    for low, high in sorted(parts):
        if low > reached:
            return False
        reached = max(reached, high)
    return reached == HASH_END


# -- text ----------------------------------------------------------------------------------------------------


def parse_partition(text: str) -> Partition:
    """The partition with this id.

    Raises:
        BadRequest: there is none; the message says what is wrong with which part of it.
    """
    found = _ID.fullmatch(text)
    if found is None:
        raise _bad(text, "expected RESOURCE or RESOURCE[COVER], such as v1/pods[kube-system]")
    name, cover = found.groups()
    try:
        resource = Resource.parse(name)
    except ValueError as error:
        raise _bad(text, str(error)) from None
    return Partition(resource, EVERYTHING if cover is None else _cover(text, cover))


def parse_cover(text: str) -> Cover:
    """The cover with this text, brackets included; empty for everything.

    Raises:
        BadRequest: there is none.
    """
    if not text:
        return EVERYTHING
    if not (text.startswith("[") and text.endswith("]")):
        raise _bad(text, _EXPECTED)
    return _cover(text, text[1:-1])


def _cover(text: str, cover: str) -> Cover:
    match cover.split(":"):
        case [names]:
            only, excluded = _names(text, names)
            return OneNamespace(only) if only is not None else ExceptNamespaces(excluded)
        case [field, bounds]:
            return _range(text, field, bounds, None, ())
        case [names, field, bounds] if names != "!":
            return _range(text, field, bounds, *_names(text, names))
        case _:
            raise _bad(text, _EXPECTED)


def _names(text: str, names: str) -> tuple[str | None, tuple[str, ...]]:
    """The one namespace, or those that are excluded."""
    listed: Sequence[str] = names.removeprefix("!").split(",") if names != "!" else ()
    for name in listed:
        if not _NAME.fullmatch(name):
            raise _bad(text, f"{name!r} is not the name of a namespace; {_EXPECTED}")
    if names.startswith("!"):
        if list(listed) != sorted(set(listed)):
            raise _bad(text, f"namespaces have to be sorted, each once: {','.join(sorted(set(listed)))}")
        return None, tuple(listed)
    if len(listed) != 1:
        raise _bad(text, f"several namespaces are a cover only as what is left out: [!{names}]")
    return listed[0], ()


def _range(text: str, field: str, bounds: str, only: str | None, excluded: tuple[str, ...]) -> HashRange:
    found = _RANGE.fullmatch(bounds)
    if found is None:
        raise _bad(text, f"{bounds!r} are not bounds; {_EXPECTED}")
    low, high = (int(bound, 16) for bound in found.groups())
    try:
        return HashRange(field, low, high, only, excluded)
    except ValueError as error:
        raise _bad(text, str(error)) from None


def _bad(text: str, why: str) -> BadRequest:
    return BadRequest(f"{text[:200]!r} is not a partition: {why}")
