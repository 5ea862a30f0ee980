"""Questions to one partition and their answers: the values that cross from router to shard and back.

Small structs of plain values; bodies are the server's JSON bytes and are never parsed on the way.
"""

from __future__ import annotations

import msgspec

from .partitions import Epoch, PartitionId
from .refs import Key
from .versions import UNKNOWN, Version


class GetQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One object by key."""

    partition: PartitionId
    epoch: Epoch
    key: Key
    not_older_than: Version = UNKNOWN
    """Wait until the partition's frontier has reached this."""
    wait_s: float = 3.0
    """How long to wait for `not_older_than`; kube-apiserver waits 3 s."""


class GetAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The object, or its absence, at a frontier."""

    body: bytes | None
    frontier: Version
    age_s: float | None = None
    """Seconds since the API server last proved the frontier; None: not said."""


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Objects of one partition in key order, from a position on."""

    partition: PartitionId
    epoch: Epoch
    namespace: str | None = None
    """None: all namespaces."""
    labels: str = ""
    """A label selector as text; parsed (and cached) by the shard."""
    fields: str = ""
    after: Key = Key("")
    """Only keys greater than this."""
    limit: int = 500
    """At most this many objects in the answer."""
    max_bytes: int = 4 << 20
    """Ends a page early once its bodies exceed this; at least one object is always sent."""
    at: Version | None = None
    """Exactly this version (from history), or None for the newest state."""
    not_older_than: Version = UNKNOWN
    wait_s: float = 3.0


class PageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page: objects in key order, all from the state of the partition at `version`."""

    version: Version
    keys: list[Key]
    bodies: list[bytes]
    more: bool
    """Objects after the last key match as well."""
    remaining: int
    """How many; exact."""
    age_s: float | None = None
    """Seconds since the API server last proved the partition's frontier; None: not said."""


class PartitionStatistics(msgspec.Struct, kw_only=True):
    """One partition as its shard sees it. Counters grow from the partition's adoption on."""

    partition: PartitionId
    epoch: Epoch = Epoch(0)
    state: str = "pending"
    """``pending`` (no complete list yet), ``synced``, ``refused`` (401, 403), ``gone`` (the resource vanished),
    ``failed`` (following it failed in a way nobody foresaw, and will be tried again)."""
    message: str = ""
    """For people: what it waits for, or why it is refused."""
    objects: int = 0
    body_bytes: int = 0
    """Compressed bodies, without indexes and history."""
    history_events: int = 0
    history_bytes: int = 0
    oldest_version: Version = UNKNOWN
    """A list or watch may start here or later."""
    frontier: Version = UNKNOWN
    frontier_age_s: float = 0.0
    """Seconds since the API server last proved the frontier (an event, a bookmark, the end of a list)."""
    events: dict[str, int] = msgspec.field(default_factory=dict)
    """By type: ``added``, ``modified``, ``deleted``, ``bookmark``."""
    lists: dict[str, int] = msgspec.field(default_factory=dict)
    """By form: ``stream``, ``paged``."""
    watch_restarts: dict[str, int] = msgspec.field(default_factory=dict)
    """By reason: ``timeout``, ``ended``, ``failed``, ``stalled``, ``garbage``, ``expired``, ``overloaded``, …"""
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    """By kind: ``garbage``, ``connection``, ``http_500``, ``unauthorized``, ``forbidden``, …"""
    dropped: int = 0
    """Objects that arrived and are outside the cover."""
    backlog: int = 0
    """Lines received and not yet applied."""
    audit: int = 0
    """XOR over the objects of a 64-bit hash of uid and version: equal states have equal values."""


class ShardStatistics(msgspec.Struct, kw_only=True):
    """One shard: who it is, what it holds, what it costs."""

    shard: str
    incarnation: str
    """Changes with every process: a restarted shard holds nothing, whatever it held before."""
    pid: int
    node: str = ""
    cpu_seconds: float = 0.0
    resident_bytes: int = 0
    queries: dict[str, int] = msgspec.field(default_factory=dict)
    """By verb: ``get``, ``list``."""
    query_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    queries_in_progress: int = 0
    waiting_for_permit: int = 0
    partitions: list[PartitionStatistics] = msgspec.field(default_factory=list)
