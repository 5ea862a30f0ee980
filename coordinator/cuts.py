"""How a resource is cut: namespaces carved out, each whole or in ranges of uid, and the rest whole or in ranges. Pure.

A `Cut` is what planning, settings and commands speak of; covers are what is placed and followed. Invariant: the covers
of any cut divide the resource (`covers.divide`), whatever its names and bounds are, and `Cut.of` leads back from them.

Of a rest in ranges of namespace each range leaves out only those carved namespaces that hash into it: carving one more
changes one partition, and the others stay where they are. Where cut points lie is the caller's to choose, by the load.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec

from ..shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    HASH_FIELDS,
    Cover,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    hashed,
)
from ..shards.model.resources import Resource

__all__ = ["WHOLE", "Bounds", "CarvedNamespace", "Cut", "even_bounds"]

Bounds: TypeAlias = tuple[int, ...]
"""Cut points between 0 and 2^64, both left out, in order: n of them make n + 1 ranges."""

_UNCUT_FIELD: Final = "uid"


def even_bounds(ranges: int) -> Bounds:
    """Cut points of so many ranges of equal width.

    Raises:
        ValueError: fewer than one.
    """
    if ranges < 1:
        raise ValueError(f"{ranges} ranges are none")
    return tuple(HASH_END * at // ranges for at in range(1, ranges))


class CarvedNamespace(msgspec.Struct, frozen=True):
    """A namespace with partitions of its own."""

    name: str
    bounds: Bounds = ()
    """Of its ranges of uid; empty: one partition.

    Raises:
        ValueError: not cut points in order.
    """

    def __post_init__(self) -> None:
        """Refuses what is no namespace cut."""
        if not self.name:
            raise ValueError("a namespace to be carved out needs a name")
        _check(self.bounds, f"of namespace {self.name!r}")

    @property
    def covers(self) -> tuple[Cover, ...]:
        """Its partitions."""
        if not self.bounds:
            return (OneNamespace(self.name),)
        return tuple(HashRange("uid", low, high, self.name) for low, high in _ranges(self.bounds))


class Cut(msgspec.Struct, frozen=True):
    """A division of a resource; without arguments the resource stays whole.

    Raises:
        ValueError: a namespace twice, cut points that are none, a field that is neither namespace nor uid.
    """

    carved: tuple[CarvedNamespace, ...] = ()
    """In the order of their names, however they are given."""
    rest_field: str = _UNCUT_FIELD
    """``namespace`` or ``uid``: what the ranges of the rest are of; ``uid`` where it is one partition."""
    rest_bounds: Bounds = ()
    """Empty: what is left after carving is one partition."""

    def __post_init__(self) -> None:
        """Makes equal cuts equal values, and refuses what is none."""
        if self.rest_field not in HASH_FIELDS:
            raise ValueError(f"ranges are of namespace or uid, not of {self.rest_field!r}")
        _check(self.rest_bounds, "of the rest")
        if len({one.name for one in self.carved}) < len(self.carved):
            raise ValueError(f"a namespace is carved out twice: {', '.join(one.name for one in self.carved)}")
        in_order = tuple(sorted(self.carved, key=lambda one: one.name))
        msgspec.structs.force_setattr(self, "carved", in_order)
        if not self.rest_bounds:
            msgspec.structs.force_setattr(self, "rest_field", _UNCUT_FIELD)

    # -- to and from covers ----------------------------------------------------------------------------------

    def covers(self) -> tuple[Cover, ...]:
        """The parts: carved namespaces in order, each range by range, then the rest range by range."""
        return (*(cover for one in self.carved for cover in one.covers), *self._rest())

    def partitions(self, resource: Resource) -> tuple[Partition, ...]:
        """The same of a resource."""
        return tuple(Partition(resource, cover) for cover in self.covers())

    @classmethod
    def of(cls, covers: Iterable[Cover]) -> Cut | None:
        """The cut these are the covers of, in whatever order; None if there is none."""
        found = tuple(covers)
        rest: list[Cover] = []
        bounds: dict[str, list[int]] = {}
        for cover in found:
            match cover:
                case OneNamespace(namespace=name):
                    bounds.setdefault(name, [])
                case HashRange(namespace=str(name), low=low):
                    bounds.setdefault(name, []).append(low)
                case _:
                    rest.append(cover)
        ranges = [cover for cover in rest if isinstance(cover, HashRange)]
        field = ranges[0].field if ranges else _UNCUT_FIELD
        try:
            carved = tuple(CarvedNamespace(name, _inner(lows)) for name, lows in bounds.items())
            cut = cls(carved, field, _inner(part.low for part in ranges))
        except ValueError:
            return None
        made = cut.covers()
        return cut if len(made) == len(found) and set(made) == set(found) else None

    def _rest(self) -> Collection[Cover]:
        names = tuple(one.name for one in self.carved)
        if not self.rest_bounds:
            return (ExceptNamespaces(names) if names else EVERYTHING,)
        if self.rest_field == "uid":
            return [HashRange("uid", low, high, None, names) for low, high in _ranges(self.rest_bounds)]
        excluded: list[list[str]] = [[] for _ in range(len(self.rest_bounds) + 1)]
        for name in names:
            excluded[bisect_right(self.rest_bounds, hashed(name))].append(name)
        return [
            HashRange("namespace", low, high, None, tuple(without))
            for (low, high), without in zip(_ranges(self.rest_bounds), excluded, strict=True)
        ]

    # -- cutting ---------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The namespaces carved out."""
        return tuple(one.name for one in self.carved)

    @property
    def parts(self) -> int:
        """How many partitions it makes."""
        return sum(len(one.bounds) + 1 for one in self.carved) + len(self.rest_bounds) + 1

    @property
    def whole(self) -> bool:
        """Whether nothing is cut."""
        return not self.carved and not self.rest_bounds

    def carve(self, name: str) -> Cut:
        """With this namespace carved out as one partition; the same if it is carved out already, in ranges or not."""
        return self if name in self.names else self.split_namespace(name, ())

    def uncarve(self, name: str) -> Cut:
        """With this namespace in the rest again; the same if it is there."""
        kept = tuple(one for one in self.carved if one.name != name)
        return msgspec.structs.replace(self, carved=kept)

    def split_rest(self, field: str, bounds: Iterable[int]) -> Cut:
        """With what is left after carving in ranges at these cut points; without any, in one partition."""
        return msgspec.structs.replace(self, rest_field=field, rest_bounds=tuple(bounds))

    def split_namespace(self, name: str, bounds: Iterable[int]) -> Cut:
        """With this namespace carved out, in ranges of uid at these cut points; without any, in one partition."""
        others = tuple(one for one in self.carved if one.name != name)
        return msgspec.structs.replace(self, carved=(*others, CarvedNamespace(name, tuple(bounds))))

    def __str__(self) -> str:
        """For people: ``a, b (3 ranges of uid) and the rest in 2 ranges of namespace``."""
        if self.whole:
            return "whole"
        rest = f"{len(self.rest_bounds) + 1} ranges of {self.rest_field}" if self.rest_bounds else ""
        if not self.carved:
            return rest
        names = ", ".join(
            f"{one.name} ({len(one.bounds) + 1} ranges of uid)" if one.bounds else one.name
            for one in self.carved
        )
        return f"{names} and the rest in {rest}" if rest else f"{names} and the rest"


def _check(bounds: Bounds, what: str) -> None:
    if any(not 0 < bound < HASH_END for bound in bounds):
        raise ValueError(f"cut points {what} have to lie between 0 and 2^64: {bounds}")
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"cut points {what} are not in order, or not different: {bounds}")


def _ranges(bounds: Bounds) -> list[tuple[int, int]]:
    return list(zip((0, *bounds), (*bounds, HASH_END), strict=True))


def _inner(lows: Iterable[int]) -> Bounds:
    """The cut points of ranges that begin at `lows`, the first of them at 0."""
    return tuple(low for low in sorted(lows) if low)


WHOLE: Final = Cut()
