"""Items that are given up until their object changes, or is told of again. Pure.

The list is bounded: what is dropped from it was counted, logged and told of, and is retried like the others when its
object changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from ...shards.model.refs import Key


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """An item that was given up."""

    key: Key
    error: str
    """The last one, with its type. Not the exception: it would hold whatever its frames hold."""
    attempts: int
    """Failures in a row."""
    terminal: bool
    """It was given up because the reconcile said that trying again is no use."""
    at: float
    """When, in the event loop's time."""


class ParkingLot:
    """At most `most` items that were given up last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._parked: dict[Key, Parked] = {}

    @property
    def parked(self) -> Mapping[Key, Parked]:
        """All of them, oldest first; changes as they do."""
        return MappingProxyType(self._parked)

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, parked: Parked) -> None:
        """One more; if there are too many, the oldest is dropped."""
        self._parked.pop(parked.key, None)
        self._parked[parked.key] = parked
        if len(self._parked) > self._most:
            del self._parked[next(iter(self._parked))]

    def leave(self, key: Key) -> None:
        """The item is tried again."""
        self._parked.pop(key, None)

    def clear(self) -> None:
        """Nothing is given up any more."""
        self._parked.clear()
