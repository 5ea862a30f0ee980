"""`Users`: those who share a feed, and what they wait for.

Some wait for a resource that does not exist, and some do not want to. The feed goes on as long as one of the former is
among them; the latter are told what a look at discovery has shown, and may stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from ...shards.model.errors import ShoalError
from .errors import InformerClosed, UnknownResource, again
from .registration import Registration


class User(Protocol):
    """One of them."""

    @property
    def wait(self) -> bool:
        """Whether they wait for a resource that does not exist."""

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """Their handlers."""


class Waited(Protocol):
    """What is looked at of a feed."""

    name: str
    failure: ShoalError | None
    missing: UnknownResource | None
    closed: bool


class Users:
    """Of one feed."""

    def __init__(self) -> None:
        self._users: list[User] = []
        self._news = asyncio.Event()
        """Set, and replaced, whenever somebody who waits may have waited enough."""

    def __len__(self) -> int:
        return len(self._users)

    def add(self, user: User) -> None:
        """One more."""
        self._users.append(user)

    def remove(self, user: User) -> None:
        """One less."""
        self._users.remove(user)
        self.announce()

    @property
    def any_waits(self) -> bool:
        """Whether one of them waits for a resource that does not exist."""
        return any(user.wait for user in self._users)

    @property
    def all_wait(self) -> bool:
        """Whether every one of them does."""
        return all(user.wait for user in self._users)

    def announce(self) -> None:
        """Something has happened to the feed: who waits looks at it."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def miss(self, error: UnknownResource) -> None:
        """The resource does not exist."""
        for user in self._users:
            if not user.wait:
                for registration in user.registrations:
                    registration.fail(error, for_now=True)
        self.announce()

    async def until(
        self, reached: Callable[[], bool], what: str, feed: Waited, *, wait: bool, check: Callable[[], None]
    ) -> None:
        """Waits until something is reached; `check` raises whatever is to end that before. Raises as `Feed.synced`."""
        while True:
            check()
            if feed.failure is not None:
                raise again(feed.failure)
            if reached():
                return
            if feed.closed:
                raise InformerClosed(f"the informer of {feed.name} was closed before {what}")
            if feed.missing is not None and not wait:
                raise again(feed.missing)
            await self._news.wait()
