"""States of the reflector machine: a sum type whose variants hold only what is valid in them. Pure.

What leads from one to another is `protocol`'s, drawn at its top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..model.versions import Version

Due = Literal["list", "watch"]


@dataclass(frozen=True, slots=True)
class Unstarted:
    """Nothing was asked yet."""


@dataclass(frozen=True, slots=True)
class Queued:
    """A list is due and waits for its permit."""


@dataclass(frozen=True, slots=True)
class Paging:
    """A page was asked for; the pages before it are in the open generation. A permit is held."""

    limit: int | None
    """None: all in one."""
    number: int = 1


@dataclass(frozen=True, slots=True)
class Asking:
    """A streaming list was asked for; nothing is in the open generation. A permit is held."""

    asked_at: float
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Filling:
    """The initial events of a streaming list go into the open generation. A permit is held."""

    asked_at: float
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Probing:
    """The server was asked which version it is at: a watch is to be resumed, and it may be another server now."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A watch was asked for."""

    version: Version
    asked_at: float
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Watching:
    """Changes are applied as they arrive."""

    version: Version
    """Where the stream began."""
    asked_at: float
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Pausing:
    """Time passes until the next attempt."""

    due: Due


@dataclass(frozen=True, slots=True)
class Vanished:
    """The resource is gone. Final."""


State: TypeAlias = (
    Unstarted | Queued | Paging | Asking | Filling | Probing | Opening | Watching | Pausing | Vanished
)
Condition = Literal["pending", "synced", "refused", "gone"]
"""What a partition's status says: no complete list yet; one is held; held or not, the API server refuses us
(401, 403, or any other 4xx to a list); the resource has vanished."""
