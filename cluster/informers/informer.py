"""`Informer`: what one user has of a feed, which others may use as well.

What it keeps true: nothing that is done with one informer takes anything from the users of another. Handlers, whether
to wait for a resource that does not exist, and how often to resync are its own; list, watch, objects and indexes
(`feed`) are everybody's who asks for the same, and end with the last of them.

An informer is given back by `release`, or `aclose`, once. One that is dropped instead keeps its part of the feed until
the factory ends: that is no error, because programs that leave everything to the end of the factory are well served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import msgspec

from ...shards.model.errors import ShoalError
from ...shards.model.resources import Resource, ResourceType
from .errors import InformerClosed
from .feed import Feed
from .handlers import OnAdd, OnDelete, OnUpdate, callbacks_of, handler_name
from .indexers import IndexFunction
from .lister import LocalLister
from .narrowing import Narrowing
from .registration import Registration
from .statistics import InformerState, InformerStatus
from .transforms import Transform

Begin: TypeAlias = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
"""Begins what ends something, under a name, and sees to its end."""


class Informer:
    """One resource followed, for one user. Made by `InformerFactory.informer`; belongs to that one's event loop."""

    def __init__(self, feed: Feed, *, wait: bool, resync_s: float | None, begin: Begin) -> None:
        self._feed = feed
        self._wait = wait
        self._resync_s = resync_s
        self._begin = begin
        self._registrations: tuple[Registration, ...] = ()
        self._released = False
        self._ending: asyncio.Task[None] | None = None
        feed.join(self)

    # -- handlers and indexes --------------------------------------------------------------------------------

    def add_handler(
        self,
        handler: Any | None = None,
        *,
        on_add: OnAdd | None = None,
        on_update: OnUpdate | None = None,
        on_delete: OnDelete | None = None,
        name: str = "",
        queue_max: int = 10_000,
        resync_s: float | None = None,
        thread: bool = False,
    ) -> Registration:
        """Has a handler (`handlers`), or single functions, told of everything there is and of each change.

        Args:
            handler: An object with some of the methods of `EventHandler`.
            on_add: With `on_update` and `on_delete` in the place of a handler.
            on_update: See there.
            on_delete: See there.
            name: What logs and metrics call it; its class or function if left out.
            queue_max: So many changes wait for it one by one; more are merged object by object (`delivery`).
            resync_s: Every so many seconds it is told again of all there is. None: as the informer has it.
            thread: It runs in a thread of its own: for plain functions that take long or block.

        Raises:
            TypeError: it is no handler, or a coroutine function is to run in a thread.
            ValueError: `queue_max` or `resync_s` is not positive.
            InformerClosed: the informer was released, or has ended.
        """
        self._require_mine()
        callbacks = callbacks_of(handler, on_add, on_update, on_delete)
        if thread and callbacks.coroutines:
            raise TypeError("a coroutine function runs on the event loop: leave out thread=True")
        resync_s = self._resync_s if resync_s is None else resync_s
        if resync_s is not None and not resync_s > 0:
            raise ValueError(f"resync_s is {resync_s}: expected seconds, more than 0, or None")
        registration = self._feed.add_handler(
            callbacks,
            name=name or handler_name(handler, callbacks),
            queue_max=queue_max,
            resync_s=resync_s,
            thread=thread,
            on_removed=self._removed,
        )
        self._registrations = (*self._registrations, registration)
        if not self._wait:
            self._feed.look_again()
        return registration

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Adds a local index, of what is held and of what will be; see `LocalLister.by_index`. It is there for all who
        share the feed, and as long as that.

        Raises:
            ValueError: there is another index of this name.
            InformerClosed: the informer was released, or has ended.
        """
        self._require_mine()
        self._feed.add_index(name, function)

    def _removed(self, registration: Registration) -> None:
        self._feed.drop(registration)
        self._registrations = tuple(one for one in self._registrations if one is not registration)

    # -- what it is about ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        return self._feed.name

    @property
    def namespace(self) -> str | None:
        """The namespace it is about; None: all, or a cluster-scoped resource."""
        return self._feed.namespace

    @property
    def narrowing(self) -> Narrowing:
        """The selectors."""
        return self._feed.narrowing

    @property
    def transform(self) -> Transform | None:
        """What is held of each object."""
        return self._feed.transform

    @property
    def resync_s(self) -> float | None:
        """Of its handlers that do not say themselves."""
        return self._resync_s

    @property
    def wait(self) -> bool:
        """Whether it waits for a resource that does not exist."""
        return self._wait

    @property
    def resource_type(self) -> ResourceType | None:
        """The resource as discovery describes it; None before it is known."""
        return self._feed.resource_type

    @property
    def resource(self) -> Resource | None:
        """The resource; None before it is known which one is meant."""
        return self._feed.resource

    @property
    def registrations(self) -> tuple[Registration, ...]:
        """The handlers that were added through it."""
        return self._registrations

    # -- waiting and reading ---------------------------------------------------------------------------------

    @property
    def lister(self) -> LocalLister:
        """What is held, to be read at once and without waiting. After the informer's release it reads what the feed
        holds as long as others use that, and what it held last from then on.
        """
        return self._feed.lister

    @property
    def has_synced(self) -> bool:
        """Whether a list has been complete."""
        return self._feed.has_synced

    @property
    def failure(self) -> ShoalError | None:
        """Why it has ended by itself: the resource is unknown, has no namespaces, or no such field."""
        return self._feed.failure

    async def resolved(self) -> ResourceType:
        """Waits until it is known which resource is meant.

        Raises:
            UnknownResource, BadRequest, InformerClosed: as `synced`.
        """
        return await self._feed.resolved(wait=self._wait, check=self._require_mine)

    async def synced(self) -> None:
        """Waits until the first list is complete: the lister shows everything. Handlers may still be at it
        (`Registration.synced`).

        Raises:
            UnknownResource: the API server serves no such resource, and this informer does not wait for one; names what
                it may have been. If others wait for it, this may be called again: it looks again, and handlers are told
                of everything when it appears. If nobody does the informer has ended.
            BadRequest: the resource has no namespaces, and one was given; or the server does not select by this field.
            InformerClosed: the informer was released, or closed before.
        """
        await self._feed.synced(wait=self._wait, check=self._require_mine)

    @property
    def state(self) -> InformerState:
        """See `InformerState`."""
        return "closed" if self._released else self._feed.state

    @property
    def status(self) -> InformerStatus:
        """Now, with the handlers of all who share the feed."""
        status = self._feed.status
        if self._released:
            return msgspec.structs.replace(status, state="closed", message="was released")
        return status

    # -- the end ---------------------------------------------------------------------------------------------

    def release(self) -> asyncio.Task[None] | None:
        """Gives it back. Its handlers are told what is pending for `InformerSettings.drain_s` seconds, and nothing that
        happens from now on; those of others go on. The last one to give back what is shared ends that.

        The task that does this is returned, to be awaited by who wants to; None: there is nothing to be ended.

        Raises:
            ValueError: it was released before.
        """
        return self._release(None)

    async def aclose(self, drain_s: float | None = None) -> None:
        """Gives it back as `release`, and waits for what that ends; `drain_s` seconds in the place of the settings'.
        Safe to repeat, and to call from its own handlers: their calls are not waited for.
        """
        if not self._released:
            self._release(drain_s)
        elif any(one.calling for one in self._registrations):
            return
        if self._ending is not None:
            await asyncio.shield(self._ending)

    def _release(self, drain_s: float | None) -> asyncio.Task[None] | None:
        if self._released:
            raise ValueError(f"the informer of {self.name} was released more often than it was asked for")
        asyncio.get_running_loop()  # raises before anything is done
        self._released = True
        ending = self._feed.leave(self, drain_s)
        if ending is not None:
            self._ending = self._begin(ending, f"end informer {self.name}")
        return self._ending

    def _require_mine(self) -> None:
        if self._released:
            raise InformerClosed(f"the informer of {self.name} was released: ask the factory for a new one")
