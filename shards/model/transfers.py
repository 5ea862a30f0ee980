"""What crosses between shards and coordinator when a partition moves: where its past comes from, and who stops when.

A hand-off replaces some (partition, shard) by others that cover the same objects. The new shard *pulls* from `Source`s
by `ExportQuery`; the old one answers `HandedOver` when it stops, and the new one is told `Taken` when it goes on.
`Profile` says where a partition could be cut. Plain values; what is in an `ExportPiece` is known to `store.transfer`
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from .partitions import Epoch, PartitionId, ShardId
from .versions import UNKNOWN, Version


class Source(msgspec.Struct, frozen=True):
    """A partition as some shard holds it now, of which another is to be made, or a part of one."""

    shard: ShardId
    partition: PartitionId


Sources: TypeAlias = Sequence[Source]
"""Of one new partition; together they cover it."""


class ExportQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What one partition holds, for another shard: objects, history and what was shown of them."""

    partition: PartitionId
    epoch: Epoch
    cover: str
    """What is wanted of it, as text (``str(cover)``, read by `covers.parse_cover`): the cover of the new partition,
    which may be more than this one holds. NB: text, because msgpack has no number for the end of the last hash range,
    2^64."""
    selectable_fields: tuple[str, ...] = ()
    """Of the resource, as the new shard knows it: their values travel, in this order."""
    redact: bool = False
    """Whether values of Secrets are to be missing; see `handle.Assignment`."""
    not_older_than: Version = UNKNOWN
    """Captured when the partition's frontier has reached this."""
    wait_s: float = 3.0
    """How long to wait for that."""
    max_bytes: int = 1 << 20
    """Of a piece; one object and its history are never divided, so a piece may be longer."""


class ExportPiece(msgspec.Struct, frozen=True):
    """A part of an export, in order. The last one says that it is the last, in its content."""

    data: bytes
    """A frame as `store.transfer` makes and takes it."""
    objects: int = 0
    """How many objects the whole export has, said with each piece; for people who watch it come."""


class HandedOver(msgspec.Struct, frozen=True):
    """Where a shard stood when it stopped applying events to a partition, and gave its last leave."""

    shown: Version
    """The newest version of siblings that was shown by its leave."""
    frontier: Version
    """Everything up to this version is in what it serves; nothing newer ever was."""


class Taken(msgspec.Struct, frozen=True):
    """What the shards that held the objects of a partition until now had shown of them and their siblings."""

    shown: Version | None
    """The newest version that was shown by their leave; None: nobody can say, so the API server is asked."""
    frontier: Version = UNKNOWN
    """The newest version they served; the new shard has to reach it before anybody is sent there."""


class NamespaceLoad(msgspec.Struct, frozen=True):
    """What one namespace of a partition weighs."""

    name: str
    objects: int
    bytes: int
    """Compressed bodies."""
    events: int
    """In the window of the profile."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the load of a partition is: what cuts are chosen by."""

    partition: PartitionId
    objects: int
    bytes: int
    """Compressed bodies."""
    seconds: float
    """The window in which events were counted: how far history reaches back. 0.0: nothing was recorded."""
    namespaces: list[NamespaceLoad]
    """The largest by events and objects, largest first; at most `PROFILE_NAMESPACES`."""
    other: NamespaceLoad
    """All the rest as one, without a name."""
    uid_weights: list[int]
    """Objects and events, added, by the top byte of the FNV-1a 64 of ``metadata.uid``: 256 numbers."""
    namespace_weights: list[int]
    """The same by ``metadata.namespace``."""


PROFILE_NAMESPACES = 50
"""Namespaces a profile names."""
