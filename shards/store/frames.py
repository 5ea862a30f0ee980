"""How an `extracts.Extract` looks in bytes: frames, each with a checksum, in an order that cannot be mistaken.

A frame is a head of fixed length and a payload in msgpack. The head says the format and what the payload is, numbers
the frame, and repeats the checksum of the frame before it: so a frame that is damaged, lacks, comes twice, comes out of
order or is of another transfer does not fit, and is told as what it is. The order is

    opening, dictionaries, states (objects as they are now, in key order), past states, events, end

States and events are in columns. All but the bodies of a frame is packed as one by zstd, because keys and uids are
half of what an object takes; bodies are packed already, each by the dictionary that is named with it. Texts and label
sets that repeat are sent once and named by number afterwards. Of times only ages are sent.

Nothing in a frame can make its reader take more memory than `FRAME_BYTES_MAX` for it, or run anything; every number is
checked where it is used (`arrival`). The format is for processes of one version of Shoal, and for files they wrote: a
reader refuses every other `FORMAT`.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final, NamedTuple
from zlib import crc32

import msgspec
import zstandard as zstd
from msgspec import Meta

from ..model.errors import Garbage

MAGIC: Final = b"shol"
FORMAT: Final = 1
FRAME_BYTES_MAX: Final = 256 << 20
"""Of a frame, and of its columns unpacked. The largest object has to fit: `settings.WatchSettings.line_bytes_max`."""

OPENING, DICTIONARY, STATES, PAST_STATES, EVENTS, END = range(1, 7)
"""Kinds of frames, in their order; the first and the last come once."""

_HEAD: Final = struct.Struct(">4sBBIII")
"""Magic number, format, kind, number, sum of the frame before, length of the payload."""
_SUM: Final = struct.Struct(">I")
HEAD_BYTES: Final = _HEAD.size + _SUM.size

_Number = Annotated[int, Meta(ge=0)]
_Age = Annotated[float, Meta(ge=-1e9, le=1e18)]
"""Seconds. Clocks that were read in a row may be apart by little in either direction."""


class Opening(msgspec.Struct, array_like=True, frozen=True):
    """What the whole is."""

    resource: tuple[str, str, str]
    covers: tuple[str, ...]
    fields: tuple[str, ...]
    objects: _Number
    past_states: _Number
    events: _Number
    frontier: _Number
    frontier_age_s: _Age
    marks: tuple[_Number, ...]
    shown_before: _Number
    divided_until: _Number
    oldest_version: _Number
    late_floor: _Number
    correction_floor: _Number
    gaps: tuple[tuple[_Number, _Number], ...]
    settled: _Number
    settled_age_s: float
    """Since the settling time was over; negative before, infinite if there was none."""
    unsettled_lost: bool
    stamp_age_s: float


class Dictionary(msgspec.Struct, array_like=True, frozen=True):
    """What some bodies were packed with."""

    number: _Number
    content: bytes


class States(msgspec.Struct, array_like=True, frozen=True):
    """The columns of some objects; bodies go beside them."""

    texts: list[str]
    """Values of fields that are named by number from here on."""
    label_sets: list[bytes]
    """The same for labels."""
    keys: list[str]
    uids: list[str]
    versions: list[_Number]
    labels: list[_Number]
    dictionaries: list[_Number]
    shared: list[list[_Number]]
    """One column for each field whose values are named by number."""
    distinct: list[list[str]]
    """And for each of the others."""


class Events(msgspec.Struct, array_like=True, frozen=True):
    """The columns of some events."""

    versions: list[_Number]
    before: list[_Number]
    """0, or the number of a state, counted from 1 in the order they were sent."""
    after: list[_Number]
    ages: list[_Age]
    late: list[tuple[_Number, _Number, bool]]
    """Position in this frame, version shown, whether it is a correction."""


class End(msgspec.Struct, array_like=True, frozen=True):
    """What must have come."""

    objects: _Number
    past_states: _Number
    events: _Number
    late: _Number
    body_bytes: _Number
    audit: _Number


class Frame(NamedTuple):
    """A frame that is undamaged."""

    kind: int
    number: int
    follows: int
    """The sum of the frame before it."""
    sum: int
    payload: memoryview


def framed(kind: int, number: int, follows: int, payload: bytes) -> tuple[bytes, int]:
    """A frame, and its sum."""
    head = _HEAD.pack(MAGIC, FORMAT, kind, number, follows, len(payload))
    checked = crc32(payload, crc32(head))
    return b"".join((head, _SUM.pack(checked), payload)), checked


def unframed(frame: bytes) -> Frame:
    """Reads a frame.

    Raises:
        Garbage: it is none, of another format, cut short or damaged.
    """
    if len(frame) < HEAD_BYTES:
        raise Garbage(f"{len(frame)} bytes are no frame, which has at least {HEAD_BYTES}")
    if len(frame) > FRAME_BYTES_MAX:
        raise Garbage(f"a frame of {len(frame)} bytes is longer than {FRAME_BYTES_MAX}")
    magic, form, kind, number, follows, length = _HEAD.unpack_from(frame)
    if magic != MAGIC:
        raise Garbage(f"no frame: it begins with {magic!r}, expected {MAGIC!r}")
    if form != FORMAT:
        raise Garbage(f"format {form}, expected {FORMAT}: written by another version of Shoal")
    payload = memoryview(frame)[HEAD_BYTES:]
    if length != len(payload):
        raise Garbage(f"its payload has {len(payload)} bytes, expected {length}")
    (said,) = _SUM.unpack_from(frame, _HEAD.size)
    found = crc32(payload, crc32(frame[: _HEAD.size]))
    if said != found:
        raise Garbage(f"it is damaged: its checksum is {found:08x}, expected {said:08x}")
    return Frame(kind, number, follows, found, payload)


def unpacked(packer: zstd.ZstdDecompressor, plain_bytes: int, packed: bytes) -> bytes:
    """Columns, no more of them than was said.

    Raises:
        Garbage: there are.
        zstd.ZstdError: it is not what zstd packs.
    """
    size = zstd.frame_content_size(packed)
    if size != plain_bytes or size > FRAME_BYTES_MAX:
        raise Garbage(f"columns of {size} bytes, expected {plain_bytes} and at most {FRAME_BYTES_MAX}")
    return packer.decompress(packed, max_output_size=plain_bytes)
