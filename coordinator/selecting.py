"""By which resources the API server selects by hash, as far as anybody wants to know. Asked beside everything else.

A probe is two lists of a few objects (`shards.watch.ranges`), which is little for the few resources that are large
enough to be cut by hashes and too much for all there are. So only those are asked about that planning looks into, or
that are cut by hashes already; what was found counts until it is found otherwise, also while it is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ..shards.api.client import ApiConnection
from ..shards.model.partitions import HASH_FIELDS
from ..shards.model.resources import Resource, ResourceType
from ..shards.watch.ranges import RangeSupport

_ALL_FIELDS = frozenset(HASH_FIELDS)
_NONE: frozenset[str] = frozenset()


class Selecting:
    """What was found; belongs to one event loop."""

    def __init__(self, connection: ApiConnection, changed: Callable[[], None]) -> None:
        """`changed` is called when something else was found than was known."""
        self._support = RangeSupport(connection)
        self._changed = changed
        self._found: dict[Resource, bool] = {}
        self._wanted: dict[Resource, ResourceType] = {}
        self._asked = asyncio.Event()

    def fields(self, resource: Resource) -> frozenset[str]:
        """By hashes of which fields the server was proved to select; none where nobody asked."""
        return _ALL_FIELDS if self._found.get(resource) else _NONE

    def want(self, types: Iterable[ResourceType]) -> None:
        """These are of interest now, and others are not any more."""
        self._wanted = {known.resource: known for known in types}
        self._found = {resource: found for resource, found in self._found.items() if resource in self._wanted}
        if any(self._support.known(resource) is None for resource in self._wanted):
            self._asked.set()

    async def run(self) -> None:
        """Asks, one resource at a time, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            for resource, known in list(self._wanted.items()):
                found = await self._support.honours(known)
                if resource in self._wanted and self._found.get(resource, False) != found:
                    self._found[resource] = found
                    self._changed()
