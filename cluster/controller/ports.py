"""What a controller asks of informers: `InformerLike` and its kin, and `Tracing`. Protocols alone.

A controller knows no informer by name: whatever has these methods will do. Objects are whatever the informer
hands over; a controller looks at their key and, through functions that its user gives, at anything else.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from ...shards.model.refs import Key


class Result(msgspec.Struct, frozen=True):
    """What a reconcile that succeeded asks for."""

    requeue_after_s: float | None = None
    """Seconds after which the object is to be looked at again, whether or not it changes. None or 0: not so."""

    def __post_init__(self) -> None:
        """Raises ValueError: the time is negative, or no finite number."""
        if self.requeue_after_s is not None and not 0 <= self.requeue_after_s < math.inf:
            raise ValueError(
                f"requeue_after_s is {self.requeue_after_s}: expected 0 or more seconds, or None"
            )


Reconcile: TypeAlias = Callable[[Key], Awaitable[Result | None]] | Callable[[Key], Result | None]
"""Makes the world as the object with this key wants it. A plain function runs in a thread."""


class EventHandler(Protocol):
    """What informers call. Objects are of the informer's kind."""

    def on_add(self, obj: Any, is_initial: bool) -> Awaitable[None] | None:  # noqa: FBT001 - client-go's signature
        """The object is there; `is_initial`: it was when the handler was added."""

    def on_update(self, old: Any, new: Any) -> Awaitable[None] | None:
        """It has changed, or is told of again (resync)."""

    def on_delete(self, obj: Any, last_state_known: bool) -> Awaitable[None] | None:  # noqa: FBT001
        """It is gone; without `last_state_known`, `obj` may be older than what was deleted."""


class Registration(Protocol):
    """A handler that was added."""

    async def synced(self) -> None:
        """Waits until the handler has been given all initial objects."""

    async def remove(self) -> None:
        """Takes the handler out again."""


class InformerLike(Protocol):
    """Where events come from."""

    @property
    def name(self) -> str:
        """What logs call it."""

    def add_handler(
        self, handler: EventHandler, *, name: str = "", queue_max: int = 10_000, resync_s: float | None = None
    ) -> Registration:
        """Adds a handler; it is told of what is there, and of what happens from then on."""

    async def synced(self) -> None:
        """Waits until everything there is, is known."""


EventKind = Literal["add", "update", "delete", "resync"]


class ReconcileSpan(Protocol):
    """A reconcile that is followed."""

    def ended(
        self,
        outcome: str,
        *,
        error: BaseException | None = None,
        requeue: Requeue = "no",
        requeue_after_s: float | None = None,
    ) -> None:
        """How it ended, and what became of the item. Called once, before the span is left; it must not raise."""


Requeue = Literal["no", "after", "rate_limited", "parked"]
"""What became of the item: it comes again in the time that the reconcile asked for, or after the limiter's delay, or
when its object changes."""


class Tracing(Protocol):
    """A way to follow an event to its reconcile. Neither method may raise."""

    @property
    def enabled(self) -> bool:
        """False: nobody asks for causes, and none are collected."""

    def cause(self, controller: str, source: str, event: EventKind, key: Key) -> object | None:
        """An event has put `key` into the queue. What is returned comes back with the reconcile; None: nothing."""

    def reconcile(
        self, controller: str, key: Key, attempts: int, causes: Sequence[object], queue_s: float
    ) -> AbstractContextManager[ReconcileSpan]:
        """Entered before a reconcile and left after it. `attempts`: failures in a row so far. `queue_s`: how long the
        item waited for a worker, without delays.
        """


class NoTracing:
    """`Tracing`, and its span, that do nothing."""

    enabled = False

    def cause(self, controller: str, source: str, event: EventKind, key: Key) -> object | None:  # noqa: ARG002
        """As `Tracing.cause`."""
        return None

    def reconcile(
        self,
        controller: str,  # noqa: ARG002
        key: Key,  # noqa: ARG002
        attempts: int,  # noqa: ARG002
        causes: Sequence[object],  # noqa: ARG002
        queue_s: float,  # noqa: ARG002
    ) -> AbstractContextManager[ReconcileSpan]:
        """As `Tracing.reconcile`."""
        return nullcontext(self)

    def ended(
        self,
        outcome: str,
        *,
        error: BaseException | None = None,
        requeue: Requeue = "no",
        requeue_after_s: float | None = None,
    ) -> None:
        """As `ReconcileSpan.ended`."""
