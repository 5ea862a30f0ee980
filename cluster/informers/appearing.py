"""Waiting until discovery shows a resource: at first if that is wanted, and always when it has vanished.

Looks are shared (`looking`). Pauses between them double, and start anew once the resource could be listed: a resource
that discovery shows and the API server does not serve is not asked for in a loop.
"""

from __future__ import annotations

import asyncio
import random
from typing import Protocol

from ...shards.model.errors import ShoalError, Upstream
from ...shards.model.resources import Resource, ResourceType
from .errors import InformerClosed, UnknownResource
from .following import partition_of
from .looking import Looks
from .resolving import resolve
from .settings import InformerSettings
from .statistics import InformerState


class Listener(Protocol):
    """Who is told what there is to be told while a resource is waited for."""

    @property
    def wanted_missing(self) -> bool:
        """Whether a resource that does not exist is to be waited for. It may change at any time."""

    def say(self, state: InformerState | None, message: str) -> None:
        """Takes what a status is to say; None leaves the state as it is."""

    def is_missing(self, error: UnknownResource) -> None:
        """A look has shown that there is no such resource; it is waited for."""


class Appearing:
    """One resource, waited for as often as it has to be."""

    def __init__(
        self,
        asked: Resource | str,
        *,
        namespace: str | None,
        looks: Looks,
        settings: InformerSettings,
        rng: random.Random,
        listener: Listener,
    ) -> None:
        self._asked = asked
        self._namespace = namespace
        self._looks = looks
        self._settings = settings
        self._rng = rng
        self._listener = listener
        self._pause_s = settings.return_first_s
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """What `Listener.is_missing` tells next is to come from a look that begins after this. A pause after a look
        that succeeded ends; one after a failure does not.
        """
        self._hurried.set()

    def succeeded(self) -> None:
        """It was listed."""
        self._pause_s = self._settings.return_first_s

    async def resolve(self, *, returning: bool) -> ResourceType:
        """The resource, once discovery shows it. `returning`: it has vanished, and is waited for in any case.

        Raises:
            UnknownResource: discovery does not show it, and nobody wants to wait.
            BadRequest: a namespace was given for a resource that has none.
            InformerClosed: nobody looks any more.
        """
        mark, say = self._looks.mark, self._listener.say
        self._hurried.clear()
        after = None
        if returning:
            await self._pause(None)
            after = mark
        while True:
            woken_by = None
            try:
                found = resolve(self._asked, await self._looks.look(after=after))
            except UnknownResource as error:
                if after is None or self._hurried.is_set():
                    # What is known may be old.
                    after = mark = self._least(mark)
                    continue
                self._miss(error, returning=returning)
                woken_by = self._hurried
            except InformerClosed:
                raise
            except ShoalError as error:
                refused = isinstance(error, Upstream) and error.http_status in (401, 403)
                say("refused" if refused else None, f"discovery failed: {error.message}")
            else:
                if found is not None:
                    partition_of(found, self._namespace)
                    return found
                say(None, "discovery does not show its group at the moment")
            # A look of another's that showed a change will do.
            woken = await self._pause(woken_by)
            mark = self._looks.mark
            after = None if woken else mark

    def _least(self, mark: int) -> int:
        """The mark after which a look has to begin."""
        if not self._hurried.is_set():
            return mark
        self._hurried.clear()
        return self._looks.mark

    def _miss(self, error: UnknownResource, *, returning: bool) -> None:
        """Tells of it; raises it if nobody waits."""
        if returning:
            self._listener.say("gone", error.message)
            return
        if not self._listener.wanted_missing:
            raise error
        self._listener.say("waiting", error.message)
        self._listener.is_missing(error)

    async def _pause(self, woken_by: asyncio.Event | None) -> bool:
        """A pause, twice as long as the one before it; True if a look that showed a change ended it, or the event."""
        seconds = self._pause_s * (0.75 + 0.5 * self._rng.random())
        self._pause_s = min(2 * self._pause_s, self._settings.return_max_s)
        return await self._looks.pause(seconds, woken_by)
