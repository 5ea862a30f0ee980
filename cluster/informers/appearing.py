"""Waiting until discovery shows a resource: at first if that is wanted, and always when it has vanished.

Looks are shared (`looking`). Pauses between them double, and start anew once the resource could be listed: a resource
that discovery shows and the API server does not serve is not asked for in a loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

from ...shards.model.errors import ShoalError, Upstream
from ...shards.model.resources import Resource, ResourceType
from .errors import InformerClosed, UnknownResource
from .following import partition_of
from .looking import Looks
from .resolving import resolve
from .settings import InformerSettings
from .statistics import InformerState

Say: TypeAlias = Callable[[InformerState | None, str], None]
"""Takes what an informer's status is to say; None leaves the state as it is."""


class Appearing:
    """One resource, waited for as often as it has to be."""

    def __init__(
        self,
        asked: Resource | str,
        *,
        namespace: str | None,
        wait: bool,
        looks: Looks,
        settings: InformerSettings,
        rng: random.Random,
        say: Say,
    ) -> None:
        self.wait = wait
        self._asked = asked
        self._namespace = namespace
        self._looks = looks
        self._settings = settings
        self._rng = rng
        self._say = say
        self._pause_s = settings.return_first_s

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
        mark = self._looks.mark
        after = None
        if returning:
            await self._pause()
            after = mark
        while True:
            try:
                found = resolve(self._asked, await self._looks.look(after=after))
            except UnknownResource as error:
                if after is None:
                    # What is known may be old.
                    after = mark
                    continue
                if not (self.wait or returning):
                    raise
                self._say("gone" if returning else "waiting", error.message)
            except InformerClosed:
                raise
            except ShoalError as error:
                refused = isinstance(error, Upstream) and error.http_status in (401, 403)
                self._say("refused" if refused else None, f"discovery failed: {error.message}")
            else:
                if found is not None:
                    partition_of(found, self._namespace)
                    return found
                self._say(None, "discovery does not show its group at the moment")
            # A look of another's that showed a change will do.
            woken = await self._pause()
            mark = self._looks.mark
            after = None if woken else mark

    async def _pause(self) -> bool:
        """A pause, twice as long as the one before it; True if a look that showed a change ended it."""
        seconds = self._pause_s * (0.75 + 0.5 * self._rng.random())
        self._pause_s = min(2 * self._pause_s, self._settings.return_max_s)
        return await self._looks.pause(seconds)
