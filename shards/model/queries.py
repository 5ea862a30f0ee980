"""Questions to one partition and their answers: the values that cross from router to shard and back.

Small structs of plain values; bodies are the server's JSON bytes and are never parsed on the way. Selectors are
text, parsed (and cached) by the shard.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .partitions import Epoch, PartitionId, ShardId
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
    fields: str = ""
    shards: str = ""
    """A ``shardSelector`` (KEP-5866) as text: hash ranges of namespace or uid; empty for all objects."""
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
    resumable: Version = UNKNOWN
    """The oldest version a watch over this partition and others may begin at, with time to come: a list of them all
    should not carry an older one."""
    age_s: float | None = None
    """Seconds since the API server last proved the partition's frontier; None: not said."""


class CountQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How many objects of one partition match, in all or by the values of a path."""

    partition: PartitionId
    epoch: Epoch
    namespace: str | None = None
    labels: str = ""
    fields: str = ""
    shards: str = ""
    group_by: str = ""
    """``metadata.namespace``, a selectable or indexed field, or ``metadata.labels[KEY]``; empty: not by groups."""
    not_older_than: Version = UNKNOWN
    wait_s: float = 3.0


class PartitionCount(msgspec.Struct, frozen=True, kw_only=True):
    """A count, of the state at `version`."""

    version: Version
    count: int
    groups: dict[str, int] = msgspec.field(default_factory=dict)
    """By value; objects without the path count under the empty text. Empty unless asked by groups."""
    age_s: float | None = None


# -- changes -------------------------------------------------------------------------------------------------

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One line of a watch as a watcher with the query's selectors sees it."""

    version: Version
    type: ChangeType
    """Entering the selectors is ADDED, leaving them DELETED, as kube-apiserver has it (``cacher.go``,
    ``convertToWatchEvent``)."""
    key: Key
    body: bytes
    """The new state; of DELETED the last matching state, carrying the version of the change."""


class ChangesQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in one partition after `since`, up to now: how a watch catches up with its feed."""

    partition: PartitionId
    epoch: Epoch
    since: Version
    namespace: str | None = None
    labels: str = ""
    fields: str = ""
    shards: str = ""
    exact: bool = True
    """True: every event after `since`, in order. False, where a resource has several partitions: of each object that
    changed the newest state once, in the order of their versions, *late* events (see `OvertakeQuery`) included."""
    alone: bool = False
    """The watch is of this partition alone: it waits for `since`, although readers of others may have been shown it."""
    until: Version | None = None
    """Only what happened up to this version, as if it were the newest; None: up to the frontier."""
    max_bytes: int = 1 << 20
    """Ends a page early once its bodies exceed this; at least one change is always sent."""
    wait_s: float = 3.0
    """How long to wait until the partition has reached `since`."""


class ChangesPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the changes, in order. All pages of one answer are of the moment it was asked for."""

    frontier: Version
    """Of the whole answer: with its last page, everything up to this version has been told. Not more than `until`."""
    changes: list[Change]
    more: bool
    age_s: float | None = None


class FeedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that happens in one partition after `since`, for ever: what a gateway follows."""

    partition: PartitionId
    epoch: Epoch
    since: Version | None = None
    """None: from now on; the first batch says where that is."""


class FeedEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event with all that is needed to decide who sees it, and how."""

    version: Version
    type: ChangeType
    key: Key
    uid: str
    body: bytes
    """The new state; of DELETED the last state, carrying the version of the deletion."""
    labels: bytes
    """Of that state: ``metadata.labels`` as JSON bytes; ``b""`` if there are none."""
    fields: tuple[str, ...]
    """Of that state: values of the resource's selectable fields, in their declared order."""
    before: tuple[bytes, bytes, tuple[str, ...]] | None = None
    """Body (carrying the version of *this* event), labels and fields of the state it replaced. Only of a MODIFIED
    whose labels, fields or uid differ from before: no other can enter or leave a selector."""


class FeedBatch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """News of one partition, encoded once for all gateways."""

    partition: PartitionId
    frontier: Version
    """After `events`, everything up to this version has been told. Never goes back within one feed."""
    events: list[FeedEvent]
    age_s: float | None = None


class OvertakeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody is about to show clients `version`, from another partition of the same resource.

    A client that resumes there claims to know everything up to it. So an event of this partition with a version up
    to `version` that arrives after the answer is *late*: `ChangesQuery` repeats it to whoever resumes at a version
    that had been shown by then. Everything that arrived before the answer is in the feeds before the answer.
    """

    partition: PartitionId
    epoch: Epoch
    version: Version


class PartitionStatistics(msgspec.Struct, kw_only=True):
    """One partition as its shard sees it. Counters grow from the partition's adoption on."""

    partition: PartitionId
    epoch: Epoch = Epoch(0)
    state: str = "pending"
    """``pending`` (no complete list yet), ``synced``, ``refused`` (401, 403), ``gone`` (the resource vanished),
    ``failed`` (following it failed in a way nobody foresaw, and will be tried again), ``arriving`` (it is being
    received from other shards, and not served yet), ``stranded`` (that came to nothing, as the message says, and
    nothing is held)."""
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
    feeds: int = 0
    """Feeds being read."""
    feeds_cut_off: int = 0
    """Feeds ended because their readers were too slow."""
    late_events: int = 0
    """Events in history that arrived when their version had been shown already."""
    proofs: dict[str, int] = msgspec.field(default_factory=dict)
    """Attempts to prove the frontier, by outcome: ``proved``, ``unreached``, ``behind``, ``void``, …"""
    proofs_unasked: int = 0
    """Times the frontier was to be proved although nobody waited: what was shown of siblings was newer for too long."""
    overtaken: Version = UNKNOWN
    """The newest version readers of other partitions may have been shown."""
    audits: dict[str, int] = msgspec.field(default_factory=dict)
    """Comparisons with the API server, by outcome: ``equal``, ``divergent``, ``forgotten``, … (`shards.auditing`)."""
    audited_objects: int = 0
    """Objects of the API server compared so far."""
    audited_age_s: float | None = None
    """Seconds since everything was last compared; None: not yet."""
    divergence: dict[str, int] = msgspec.field(default_factory=dict)
    """Objects found to be held in another way than the API server has them: ``missing``, ``surplus``, ``different``.
    Each time they were listed again. On a healthy installation there are none, ever."""
    handed_over: bool = False
    """Another shard is about to serve it: nothing is shown by this one's leave any more."""
    queries: int = 0
    """Gets, lists, counts and replays answered from it."""
    frozen: bool = False
    """It stands still since it was handed over; the frontier does not move."""
    source_shards: tuple[ShardId, ...] = ()
    """Shards it is, or was, received from, with its past. Empty for one that was listed first."""
    transferred_objects: int = 0
    """Objects received from these so far; of a part of a larger partition, those of its own."""
    transferred_bytes: int = 0
    """Bytes received from other processes for that."""


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
    """By verb: ``get``, ``list``, ``count``, ``changes``, ``export``."""
    query_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    queries_in_progress: int = 0
    answer: int = 0
    """The number of this answer, if the coordinator asked (`shards.leasing`)."""
    lease_s: float | None = None
    """Seconds for which versions may still be shown by the shard's leave; None: it does not end."""
    waiting_for_permit: int = 0
    snapshots: dict[str, int] = msgspec.field(default_factory=dict)
    """Snapshots by what came of them: ``written``, ``resumed``, ``none``, ``old``, … (`shards.snapshots`)."""
    partitions: list[PartitionStatistics] = msgspec.field(default_factory=list)
