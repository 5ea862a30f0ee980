"""What following a partition yields: objects observed, bookmarks, errors.

The hot path makes exactly one `Observation` for each line of a watch; nothing here is a parsed object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from .refs import Key
from .versions import Version


class Observation(msgspec.Struct, gc=False):
    """One object as the API server sent it. Never changed after it was made."""

    deleted: bool
    """True for a DELETED line; the body is then the last state before the deletion."""
    key: Key
    namespace: str
    uid: str
    version: Version
    labels: bytes
    """``metadata.labels`` as the server's JSON bytes; ``b""`` if there are none."""
    fields: tuple[str, ...]
    """Values of the resource's selectable fields in their declared order; ``""`` where absent."""
    body: bytes
    """The object as the server's JSON bytes with apiVersion and kind, `managedFields` cut out."""


class Bookmark(NamedTuple):
    """Everything up to `version` has been sent; with `initial_events_end`, the streaming list is complete."""

    version: Version
    initial_events_end: bool


class ErrorLine(NamedTuple):
    """An ERROR line: the Status the server put in it."""

    code: int
    reason: str
    message: str
    status: Mapping[str, Any]


class GarbageLine(NamedTuple):
    """A line that is not a watch event; `excerpt` is its beginning, for the log."""

    excerpt: str
    problem: str


Item: TypeAlias = Observation | Bookmark | ErrorLine | GarbageLine
"""What one line of a watch decodes to."""


class ListPage(NamedTuple):
    """One page of a LIST."""

    observations: Iterator[Observation]
    """Made one by one while they are taken; raises Garbage where an item is no object."""
    version: Version
    continue_token: str
    """Empty on the last page."""
    shard_selector: str
    """``metadata.shardInfo.selector``; empty if the server did not honour (or was not asked for) one."""


class Listed(NamedTuple):
    """One object as a list of metadata shows it."""

    key: Key
    namespace: str
    uid: str
    version: Version


class IdentityPage(NamedTuple):
    """One page of a list that was read for what its objects are, and nothing else of them."""

    listed: list[Listed]
    version: Version
    continue_token: str
    """Empty on the last page."""
