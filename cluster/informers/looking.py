"""Discovery, shared by everybody in a factory who asks what the API server serves.

Looks are made when somebody asks, one at a time, and one answers all who had asked by the time it began. Who waits for
something to change is woken when any look shows a change. So an informer that waits for its resource to come back, and
an iterator of resources, cost one look between them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypeAlias

from ...coordinator.discovery import Discovery
from ...coordinator.discovery_parse import DiscoveredGroup
from ...shards.api.client import ApiConnection
from .errors import InformerClosed
from .settings import InformerSettings

log = logging.getLogger("shoal.cluster.informers")

Groups: TypeAlias = tuple[DiscoveredGroup, ...]


class Looks:
    """What is known of the API server's resources, and newer looks."""

    def __init__(self, connection: ApiConnection, settings: InformerSettings) -> None:
        self.groups: Groups | None = None
        """As the last look that succeeded has it; None before the first."""
        self.notes: tuple[str, ...] = ()
        """What discovery does without, as sentences."""
        self._discovery = Discovery(connection, settings.discovery)
        self._begun = 0
        self._answered = 0
        self._answered_at = float("-inf")
        self._running: asyncio.Task[Groups] | None = None
        self._pausing: set[asyncio.Event] = set()
        self._closed = False

    @property
    def mark(self) -> int:
        """Now, as `look` takes it."""
        return self._begun

    async def look(self, *, after: int | None = None, max_age_s: float | None = None) -> Groups:
        """The groups as a look shows them that begins after the mark `after`, or began within the last `max_age_s`
        seconds; with neither, any look will do.

        Raises:
            ConnectionFailed, Upstream, Garbage: nothing could be learnt.
            InformerClosed: there are no looks any more.
        """
        loop = asyncio.get_running_loop()
        if max_age_s is not None:
            after = self.mark if loop.time() - self._answered_at > max_age_s else None
        least = 1 if after is None else after + 1
        self._require_open()
        while self.groups is None or self._answered < least:
            running = self._running
            if running is None:
                self._begun += 1
                running = self._running = loop.create_task(
                    self._look(), name="look at the API server's resources"
                )
            answers = self._begun >= least
            # Not awaited itself: who is cancelled must not take the look away from the others.
            await asyncio.wait([running])
            self._require_open()
            if answers:
                return running.result()
        return self.groups

    async def pause(self, seconds: float, woken: asyncio.Event | None = None) -> bool:
        """Returns after so many seconds, or, with True, as soon as a look has shown a change, or `woken` is set, which
        such a look does too.
        """
        if self._closed:
            return True
        woken = woken or asyncio.Event()
        self._pausing.add(woken)
        try:
            async with asyncio.timeout(seconds):
                return await woken.wait()
        except TimeoutError:
            return False
        finally:
            self._pausing.discard(woken)

    async def aclose(self) -> None:
        """Ends a look that is under way, and whoever waits for one or for a change."""
        self._closed = True
        self._wake()
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    def _require_open(self) -> None:
        if self._closed:
            raise InformerClosed(
                "the informer factory was closed: nobody looks at the API server's resources any more"
            )

    async def _look(self) -> Groups:
        number, began = self._begun, asyncio.get_running_loop().time()
        try:
            found = await self._discovery.look()
        finally:
            self._running = None
        changed = found.groups != self.groups
        self.groups, self.notes = found.groups, found.notes
        self._answered, self._answered_at = number, began
        if changed:
            self._wake()
        return found.groups

    def _wake(self) -> None:
        for woken in self._pausing:
            woken.set()
