"""From events to keys: what a controller listens to, and which objects an event is about.

A `Source` is an informer and a function from its objects to the keys that are to be reconciled: the object's own
(`own_key`), its owner's (`owner_of`), or whatever else. An update asks it about the old object and the new one,
so that an object which changes hands has both looked at.

Objects that were there from the beginning, and those told of again without a change, come with `LOW_PRIORITY`, as in
controller-runtime: what changes while thousands of them wait does not wait behind them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...shards.model.refs import Key, key_of, ref_of
from ..workqueue.queue import WorkQueue
from .ports import EventKind, InformerLike, Tracing

LOW_PRIORITY = -100
"""controller-runtime's figure."""
CAUSES_MAX = 16
"""Causes kept of one key: the newest."""

Keys = Callable[[Any], Iterable[Key]]


def own_key(obj: Any) -> Iterable[Key]:
    """The object itself."""
    return (obj.key,)


def owner_of(kind: str, *, group: str = "", controller: bool = True, namespaced: bool = True) -> Keys:
    """The owners of an object that are of `kind` in `group` (of any version).

    `controller`: only the owner that says it is the managing controller. `namespaced`: the owner lives in the
    object's namespace, as every owner does that is not cluster-scoped.
    """

    def keys(obj: Any) -> Iterable[Key]:
        namespace = ref_of(obj.key).namespace if namespaced else ""
        for reference in getattr(getattr(obj, "metadata", None), "ownerReferences", None) or ():
            found, slash, _ = str(_member(reference, "apiVersion") or "").rpartition("/")
            if (found if slash else "") != group or _member(reference, "kind") != kind:
                continue
            if not controller or _member(reference, "controller"):
                yield key_of(namespace, str(_member(reference, "name")))

    return keys


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


@dataclass(frozen=True, slots=True)
class Source:
    """An informer, and the keys its events are about."""

    informer: InformerLike
    keys: Keys = own_key
    resync_s: float | None = None
    """Seconds after which every object is told of again, and with it what was parked is tried again; None: never."""
    queue_max: int = 10_000
    """Events that may wait between the informer and this controller."""


class Causes:
    """What has put keys into the queue, for tracing. Holds nothing of keys that nobody collects."""

    def __init__(self, controller: str, tracing: Tracing) -> None:
        self._controller = controller
        self._tracing = tracing
        self._by_key: dict[Key, deque[object]] = {}

    def note(self, source: str, event: EventKind, key: Key) -> None:
        """An event was about the key."""
        if not self._tracing.enabled:
            return
        cause = self._tracing.cause(self._controller, source, event, key)
        if cause is not None:
            self._by_key.setdefault(key, deque(maxlen=CAUSES_MAX)).append(cause)

    def take(self, key: Key) -> tuple[object, ...]:
        """What has put the key into the queue since it was last taken."""
        return tuple(self._by_key.pop(key, ())) if self._by_key else ()


class Feeder:
    """The handler of one source: puts keys into the queue. It never waits."""

    def __init__(self, source: Source, queue: WorkQueue[Key], causes: Causes) -> None:
        self._source = source
        self._queue = queue
        self._causes = causes

    def on_add(self, obj: Any, is_initial: bool) -> None:  # noqa: FBT001 - client-go's signature
        """As `EventHandler.on_add`."""
        self._feed(self._source.keys(obj), "add", LOW_PRIORITY if is_initial else 0)

    def on_update(self, old: Any, new: Any) -> None:
        """As `EventHandler.on_update`. If the mapping fails for one of the two, the other's keys are added first."""
        if _unchanged(old, new):
            self._feed(self._source.keys(new), "resync", LOW_PRIORITY)
            return
        fed: list[Key] = []
        try:
            fed = self._feed(self._source.keys(new), "update", 0)
        finally:
            # Mostly the same ones: one event is one cause.
            self._feed((key for key in self._source.keys(old) if key not in fed), "update", 0)

    def on_delete(self, obj: Any, last_state_known: bool) -> None:  # noqa: ARG002, FBT001 - client-go's signature
        """As `EventHandler.on_delete`."""
        self._feed(self._source.keys(obj), "delete", 0)

    def _feed(self, keys: Iterable[Key], event: EventKind, priority: int) -> list[Key]:
        fed = []
        for key in keys:
            self._causes.note(self._source.informer.name, event, key)
            self._queue.add(key, priority=priority)
            fed.append(key)
        return fed


def _unchanged(old: Any, new: Any) -> bool:
    """The object is only told of again. Objects of informers are equal if they are the same version of the same."""
    return old is new or bool(old == new)
