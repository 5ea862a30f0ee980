"""A snapshot of a partition as a file: a label that says what it is of, then the frames of `transfer`, each with its
length. Pure.

The label is told apart from everything else, and from a damaged one, before anything in it is believed; the frames have
their own checksums, numbers and end (`frames`). So a file that was cut off, changed or mixed up at any place is known
as such, and nothing of it is used.

What a reader of it must compare is in the label: of which API server and which partition it is, and in which form its
objects are held. How old it is, is known to whoever compares clocks (`shards.snapshots`).
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Annotated, Final, NamedTuple
from zlib import crc32

import msgspec
from msgspec import Meta

from ..model.errors import Garbage
from ..model.partitions import PartitionId
from ..model.resources import Resource, ResourceType
from .frames import FRAME_BYTES_MAX

MAGIC: Final = b"shoalsnp"
FORMAT: Final = 1
LABEL_BYTES_MAX: Final = 1 << 20
"""The cover of a partition may name many namespaces; a label that is longer is none."""
SUFFIX: Final = ".snapshot"
RESOURCE_CHARS_MAX: Final = 120
"""Of a file's name, which has 255 at most where files usually are."""

_HEAD: Final = struct.Struct(">8sHII")
"""Magic number, format, length of the label, its checksum."""
_LENGTH: Final = struct.Struct(">I")
HEAD_BYTES: Final = _HEAD.size
LENGTH_BYTES: Final = _LENGTH.size


class Form(msgspec.Struct, frozen=True):
    """In which form objects are held: two that differ cannot stand for each other."""

    kind: str
    namespaced: bool
    custom: bool
    fields: tuple[str, ...]
    redacted: bool
    managed_fields: bool

    @classmethod
    def of(cls, resource_type: ResourceType, *, redacted: bool, managed_fields: bool) -> Form:
        """The form of a resource's objects under these settings."""
        return cls(
            resource_type.kind,
            resource_type.namespaced,
            resource_type.custom,
            resource_type.selectable_fields,
            redacted,
            managed_fields,
        )


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a snapshot is of."""

    resource: str
    cover: str
    """As in the id of a partition."""
    form: Form
    server: str
    """The uid of the namespace ``kube-system``: as good as a cluster's name, and the same behind every address."""
    shard: str
    """Who wrote it."""
    version: Annotated[int, Meta(ge=1)]
    """The frontier: everything up to it is in it."""
    written_at: float
    """Seconds since 1970, by the clock of whoever wrote it."""
    objects: Annotated[int, Meta(ge=0)]


class Head(NamedTuple):
    """What comes before a label."""

    length: int
    sum: int


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Label).decode


def file_name(resource: Resource, partition: PartitionId) -> str:
    """The name of a partition's snapshot: one file for each, whoever writes it."""
    digest = blake2b(partition.encode(), digest_size=12).hexdigest()
    return f"{file_prefix(resource)}{digest}{SUFFIX}"


def file_prefix(resource: Resource) -> str:
    """What the names of all snapshots of a resource begin with."""
    return f"{str(resource).replace('/', '_')[:RESOURCE_CHARS_MAX]}-"


def labelled(label: Label) -> bytes:
    """The beginning of a file."""
    text = _encode(label)
    return _HEAD.pack(MAGIC, FORMAT, len(text), crc32(text)) + text


def framed(frame: bytes) -> bytes:
    """One frame as it stands in a file."""
    return _LENGTH.pack(len(frame)) + frame


def read_head(data: bytes) -> Head:
    """What the first `HEAD_BYTES` of a file say.

    Raises:
        Garbage: it is no snapshot, or one of another format.
    """
    if len(data) < HEAD_BYTES:
        raise Garbage(f"{len(data)} bytes are no snapshot")
    magic, form, length, checksum = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise Garbage(f"it begins with {magic!r}, expected {MAGIC!r}")
    if form != FORMAT:
        raise Garbage(f"format {form}, expected {FORMAT}: written by another version of Shoal")
    if length > LABEL_BYTES_MAX:
        raise Garbage(f"its label has {length} bytes, more than {LABEL_BYTES_MAX}")
    return Head(length, checksum)


def read_label(head: Head, text: bytes) -> Label:
    """The label that follows a head.

    Raises:
        Garbage: it is cut off, damaged or none.
    """
    if len(text) != head.length:
        raise Garbage(f"its label has {len(text)} bytes, expected {head.length}: it is cut off")
    if crc32(text) != head.sum:
        raise Garbage("its label is damaged")
    try:
        return _decode(text)
    except msgspec.MsgspecError as error:
        raise Garbage(f"its label is none: {error}") from error


def read_length(data: bytes) -> int:
    """How long the frame is that follows.

    Raises:
        Garbage: the file is cut off here, or the length is none.
    """
    if len(data) != LENGTH_BYTES:
        raise Garbage("it is cut off between two frames")
    (length,) = _LENGTH.unpack(data)
    if length > FRAME_BYTES_MAX:
        raise Garbage(f"a frame of {length} bytes is longer than {FRAME_BYTES_MAX}")
    return int(length)
