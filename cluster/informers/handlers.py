"""Who is told of changes: `EventHandler`, and plain functions in its place.

The three methods and their arguments are client-go's (``tools/cache`` `ResourceEventHandlerDetailedFuncs`). Each may
be a plain function or a coroutine function. Plain ones run on the event loop and have to be quick, unless the handler
was added with ``thread=True``.

What a handler may rely on (`informer`, `delivery`): changes of one object come in order and never go back, adds and
deletes of one object alternate, the objects that were there at first are marked, and in the end it was told of the
state there is. It is called again only after its last call has returned. An exception is logged with the object's key
and counted, and the next change is delivered. After one, the handler has been told nevertheless: what must not be lost
belongs into a work queue.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from .objects import KubeObject

Outcome: TypeAlias = Awaitable[None] | None
OnAdd: TypeAlias = Callable[[KubeObject, bool], object]
OnUpdate: TypeAlias = Callable[[KubeObject, KubeObject], object]
OnDelete: TypeAlias = Callable[[KubeObject, bool], object]
"""What a plain function returns is not looked at."""

_METHODS = ("on_add", "on_update", "on_delete")


class EventHandler:
    """Base of handlers; every method does nothing. A class with these methods need not derive from it."""

    def on_add(self, obj: KubeObject, is_initial: bool) -> Outcome:  # noqa: FBT001 - client-go's signature
        """The object is there. `is_initial`: it was when the handler was added, or in the informer's first list."""

    def on_update(self, old: KubeObject, new: KubeObject) -> Outcome:
        """The object has changed from `old`, of which the handler was told last. Equal ones: it is told of again
        (resync).
        """

    def on_delete(self, obj: KubeObject, last_state_known: bool) -> Outcome:  # noqa: FBT001
        """The object is gone, or has left the selectors.

        With `last_state_known` `obj` is its last state, carrying the version of the deletion. Without, the deletion
        was missed and found out later: `obj` is the last state that was seen.
        """


@dataclass(frozen=True, slots=True)
class Callbacks:
    """The functions of one handler; None for what it does not want to hear of."""

    on_add: OnAdd | None
    on_update: OnUpdate | None
    on_delete: OnDelete | None

    @property
    def coroutines(self) -> bool:
        """Whether one of them is a coroutine function."""
        return any(map(inspect.iscoroutinefunction, (self.on_add, self.on_update, self.on_delete)))


def callbacks_of(
    handler: Any | None,
    on_add: OnAdd | None = None,
    on_update: OnUpdate | None = None,
    on_delete: OnDelete | None = None,
) -> Callbacks:
    """The functions of a handler object, or those given in its place.

    Raises:
        TypeError: both were given, or neither; or one of them cannot be called.
    """
    given = (on_add, on_update, on_delete)
    if handler is not None:
        if any(function is not None for function in given):
            raise TypeError("give a handler object or single functions, not both")
        if not any(hasattr(handler, name) for name in _METHODS):
            raise TypeError(
                f"{handler!r} is no handler: expected at least one of the methods {', '.join(_METHODS)}"
            )
        on_add, on_update, on_delete = (_overridden(handler, name) for name in _METHODS)
    elif not any(function is not None for function in given):
        raise TypeError(f"nobody would be told: give a handler, or one of {', '.join(_METHODS)}")
    for name, function in zip(_METHODS, (on_add, on_update, on_delete), strict=True):
        if function is not None and not callable(function):
            raise TypeError(f"{name} is {function!r}: expected a function")
    return Callbacks(on_add, on_update, on_delete)


def _overridden(handler: Any, name: str) -> Any:
    """A method of the handler, unless it is the one of `EventHandler` that does nothing."""
    method = getattr(handler, name, None)
    if getattr(method, "__func__", None) is getattr(EventHandler, name):
        return None
    return method


def handler_name(handler: Any | None, callbacks: Callbacks) -> str:
    """What logs call a handler that was given no name."""
    if handler is not None:
        return type(handler).__qualname__
    first = callbacks.on_add or callbacks.on_update or callbacks.on_delete
    return getattr(first, "__qualname__", type(first).__qualname__)
