"""Local indexes: which objects of an informer have a value, by functions that its user gives. Pure but for its log.

An index function takes an object and yields the values it is to be found by, as client-go's ``IndexFunc``. Indexes are
kept with the store, before handlers are told, and may be added at any time. A function that raises is logged and
counted; its object is then found by no value of that index. Objects without a value cost nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeAlias

from ...shards.model.errors import NotFound
from ...shards.model.refs import Key
from ...shards.store.entries import Bucket, Entry, bucket_members, bucket_size, bucket_with, bucket_without
from .objects import KubeObject
from .raising import LogLimit, ends_program, is_asynchronous
from .store import object_of

log = logging.getLogger("shoal.cluster.informers")

IndexFunction: TypeAlias = Callable[[KubeObject], Iterable[str]]


class LocalIndex:
    """One index: keys by value, and for removing them values by key."""

    def __init__(self, function: IndexFunction) -> None:
        self.function = function
        self._keys: dict[str, Bucket[Key]] = {}
        self._values: dict[Key, tuple[str, ...]] = {}

    def put(self, key: Key, obj: KubeObject | None) -> None:
        """The object is in a new state, or gone (None). Raises what the function raises; it has no values then."""
        for value in self._values.pop(key, ()):
            left = bucket_without(self._keys[value], key)
            if left is None:
                del self._keys[value]
            else:
                self._keys[value] = left
        if obj is None:
            return
        found = self.function(obj)
        if isinstance(found, str):
            raise TypeError(
                f"the index function returned the text {found!r}: expected several values, [{found!r}]"
            )
        values = tuple(dict.fromkeys(found))
        for value in values:
            if not isinstance(value, str):
                raise TypeError(f"the index function yielded {value!r}: expected texts")
        if values:
            self._values[key] = values
        for value in values:
            self._keys[value] = bucket_with(self._keys.get(value), key)

    def clear(self) -> None:
        """Nothing is held any more."""
        self._keys.clear()
        self._values.clear()

    def keys(self, value: str) -> list[Key]:
        """The objects with a value, in the API server's order."""
        return sorted(bucket_members(self._keys.get(value)))

    def values(self) -> list[str]:
        """The values that objects have, sorted."""
        return sorted(self._keys)

    def count(self, value: str) -> int:
        """How many objects have a value."""
        return bucket_size(self._keys.get(value))


class Indexers:
    """The indexes of one informer, by name."""

    def __init__(self, informer: str) -> None:
        self.failures = 0
        self._limit = LogLimit()
        self._informer = informer
        self._indexes: dict[str, LocalIndex] = {}

    def __bool__(self) -> bool:
        return bool(self._indexes)

    def add(self, name: str, function: IndexFunction, held: Iterable[Entry]) -> None:
        """A new index, of what is held. Adding the same function again under its name changes nothing.

        Raises:
            ValueError: there is another function under this name.
            TypeError: it is no function, or a coroutine function.
        """
        if not callable(function):
            raise TypeError(f"index {name!r}: {function!r} is no function of an object")
        if is_asynchronous(function):
            raise TypeError(
                f"index {name!r}: {function!r} is a coroutine function, and nobody would await it: expected a plain one"
            )
        known = self._indexes.get(name)
        if known is not None:
            if known.function == function:
                return
            raise ValueError(
                f"there is another index called {name!r} on {self._informer}: choose another name"
            )
        index = LocalIndex(function)
        for entry in held:
            self._put(name, index, entry.key, entry)
        self._indexes[name] = index

    def changed(self, key: Key, entry: Entry | None) -> None:
        """An object is in a new state, or gone."""
        for name, index in self._indexes.items():
            self._put(name, index, key, entry)

    def clear(self) -> None:
        """Nothing is held any more."""
        for index in self._indexes.values():
            index.clear()

    def named(self, name: str) -> LocalIndex:
        """The index of this name.

        Raises:
            NotFound: there is none.
        """
        found = self._indexes.get(name)
        if found is None:
            known = ", ".join(sorted(self._indexes)) or "none yet"
            raise NotFound(
                f"{self._informer} has no index {name!r}; there are: {known} (see Informer.add_index)"
            )
        return found

    def _put(self, name: str, index: LocalIndex, key: Key, entry: Entry | None) -> None:
        try:
            index.put(key, None if entry is None else object_of(entry))
        except BaseException as error:
            if ends_program(error):
                raise
            self.failures += 1
            if (unlogged := self._limit.admit()) is not None:
                told = {"informer": self._informer, "index": name, "key": key, "unlogged": unlogged}
                log.exception("index function failed", extra=told)
