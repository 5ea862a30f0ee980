"""What informers and their handlers count, as values to be read at any moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

from ...shards.model.versions import Version

InformerState: TypeAlias = Literal[
    "waiting", "unknown", "listing", "synced", "refused", "gone", "failed", "closed"
]
"""``waiting`` for discovery, or for a resource to appear; ``unknown``: there is no such resource, and nobody wants to
wait for one; ``listing`` for the first time; ``synced`` and following; ``refused`` by the API server; ``gone``: the
resource has vanished, and its return is waited for; ``failed`` in a way nobody foresaw, and about to begin again;
``closed``."""


class HandlerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One handler. Counters grow from its registration on."""

    name: str
    queued: int
    """Changes it was not told of yet."""
    merging: bool
    """Its queue is full: it is not told of every state until it has caught up."""
    coalesced: int
    """Changes that were merged into others, or cancelled each other, because its queue was full."""
    adds: int
    updates: int
    """Without those of a resync."""
    deletes: int
    resyncs: int
    """Times it was told of an object again."""
    failed: int
    """Calls that raised."""
    slow: int
    """Calls that took longer than `InformerSettings.slow_s`."""
    seconds: float
    """Spent in its calls, altogether."""
    hung_s: float | None
    """How long its present call has been running, if that is longer than `InformerSettings.hung_s`."""
    hung_key: str | None
    """The object that call is about."""
    lag_s: float
    """Since the change that it is told of next was observed; 0 with an empty queue."""
    lag_sum_s: float
    """Of all changes told: the time from being observed to being told, altogether."""
    synced: bool
    """It has been told of everything there was at first."""

    @property
    def delivered(self) -> int:
        """Calls altogether."""
        return self.adds + self.updates + self.deletes + self.resyncs


class InformerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One informer. Counters grow from its beginning on."""

    name: str
    state: InformerState
    synced: bool
    """A list has been complete at some time: what is held can be read."""
    message: str
    """For people: what it waits for; empty while everything is well."""
    objects: int
    body_bytes: int
    """What their bodies take, compressed."""
    frontier: Version
    age_s: float
    """Seconds since the API server last proved that this is its newest state."""
    last_event_age_s: float | None
    """Seconds since the newest change was observed; None before the first."""
    events: Mapping[str, int]
    """Observed, by kind: ``added``, ``modified``, ``deleted``, ``bookmark``."""
    lists: Mapping[str, int]
    """Asked for, by form."""
    reconnects: int
    """Watches opened after one that ended."""
    watch_restarts: Mapping[str, int]
    """The same by reason."""
    errors: Mapping[str, int]
    dropped: int
    """Objects that a server sent although they are not selected."""
    transform_failures: int
    index_failures: int
    went_back: int
    """Times the server had lost its past, so that objects were told older than before."""
    users: int
    """How often it was asked for and not released."""
    handlers: tuple[HandlerStatistics, ...]
