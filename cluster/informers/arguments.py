"""What a handler is told of a change: the objects that are its arguments."""

from __future__ import annotations

from ...shards.store.entries import Entry
from .delivery import Change
from .objects import KubeObject
from .store import deleted_object, fresh_object, object_of


def state_of(change: Change, after: Entry) -> KubeObject:
    """The state that a change leads to."""
    return object_of(after) if change.body is None else fresh_object(after, change.body)


def last_of(change: Change, before: Entry) -> tuple[KubeObject, bool]:
    """The arguments of a delete."""
    end = change.end
    if end is None:
        return object_of(before), False
    last = end.last or before
    return (deleted_object(last, end.version), True) if end.known else (object_of(last), False)
