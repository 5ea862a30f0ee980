"""What is known of the cluster: the newest state of every object, whichever order deliveries come in. Pure.

Each object is a register that only moves forward: a delivery that is not newer than what is held, or than the
object's deletion, changes nothing. So duplicates and late deliveries are harmless, and any order of the same
deliveries leads to the same world. A deletion is remembered for a while (`expire`) to recognise what comes too late.

The one exception is a server that was restored from a backup: its versions are lower, and it is right. A feed says so
by an update whose new version is below the one that it replaces.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import msgspec

from .documents import Document
from .facts import Place

Facts = TypeVar("Facts")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)

GONE_MAX = 10_000
"""Deletions remembered, of one resource."""


class Delivery(msgspec.Struct, frozen=True):
    """What an informer says about one object."""

    resource: str
    """Plural and group."""
    place: Place
    version: int
    document: Document
    """The object; of a deletion, what it was last."""
    deleted: bool = False
    replaces: int | None = None
    """Of an update: the version it replaces."""


class Held(msgspec.Struct, Generic[Facts]):
    """An object as it is known."""

    version: int
    facts: Facts


class Register(Generic[Facts]):
    """The objects of one resource."""

    def __init__(self, read: Callable[[Document], Facts]) -> None:
        self._read = read
        self._held: dict[Place, Held[Facts]] = {}
        self._gone: OrderedDict[Place, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, place: Place) -> Facts | None:
        """The object's facts, or None."""
        held = self._held.get(place)
        return None if held is None else held.facts

    def version(self, place: Place) -> int | None:
        """The version held, or None."""
        held = self._held.get(place)
        return None if held is None else held.version

    def versions(self) -> list[tuple[Place, int]]:
        """Everything held, at this moment."""
        return [(place, held.version) for place, held in self._held.items()]

    def take(self, delivery: Delivery, now: float) -> bool:
        """True if it changed what is known."""
        if delivery.deleted:
            return self._remove(delivery.place, delivery.version, now)
        return self._put(delivery)

    def expire(self, before: float) -> None:
        """Forgets deletions that were heard of earlier than that."""
        while self._gone:
            place, (_, at) = next(iter(self._gone.items()))
            if at >= before and len(self._gone) <= GONE_MAX:
                return
            del self._gone[place]

    def _put(self, delivery: Delivery) -> bool:
        place, version, replaces = delivery.place, delivery.version, delivery.replaces
        held, gone = self._held.get(place), self._gone.get(place)
        if replaces is not None and replaces > version:
            if held is not None and held.version > replaces:
                return False
            # The server has lost its past, and with it every deletion after this version.
            for other in [name for name, (deleted, _) in self._gone.items() if deleted > version]:
                del self._gone[other]
        elif (held is not None and held.version >= version) or (gone is not None and gone[0] >= version):
            return False
        self._gone.pop(place, None)
        self._held[place] = Held(version, self._read(delivery.document))
        return True

    def _remove(self, place: Place, version: int, now: float) -> bool:
        held, gone = self._held.get(place), self._gone.get(place)
        if held is not None and held.version > version:
            return False
        if gone is None or gone[0] < version:
            self._gone[place] = (version, now if gone is None else gone[1])
        return self._held.pop(place, None) is not None


class Index(Generic[K, V]):
    """Which items have a value; an item's values are replaced together."""

    def __init__(self) -> None:
        self._values: dict[K, frozenset[V]] = {}
        self._items: dict[V, set[K]] = {}

    def set(self, item: K, values: Iterable[V]) -> None:
        """From now on the item has these values; none at all takes it out."""
        new, old = frozenset(values), self._values.get(item, frozenset())
        for value in old - new:
            members = self._items[value]
            members.discard(item)
            if not members:
                del self._items[value]
        for value in new - old:
            self._items.setdefault(value, set()).add(item)
        if new:
            self._values[item] = new
        else:
            self._values.pop(item, None)

    def get(self, value: V) -> Iterable[K]:
        """Items with this value; not to be changed while it is looked at."""
        return self._items.get(value, ())
