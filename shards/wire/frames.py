"""Frames: what is on the wire, cut out of the bytes received. Pure.

A frame is a header of fixed size and a payload, most often one msgpack value::

    payload bytes  u32  | kind  u8  | call  u64  | epoch  u64  | argument  u32  | payload

`call` is the request a frame belongs to (0: the connection itself), `epoch` the newest epoch the sender has heard
of, and `argument` a number that belongs to the kind: the milliseconds a request may take, the bytes of a credit.
The header stands outside of the payload so that one encoded payload serves any number of readers (feeds).

Bytes are received into memory of the reader: small frames into one buffer that is used again and again, a frame
that does not fit into exactly the memory it needs. Nothing is joined, and a payload is a view that is good only until
more is received. What frames mean is in `messages`, which of them may come when in `protocol`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = struct.Struct(">IBQQI")
BUFFER_BYTES = 256 << 10
"""Room for small frames. One system call receives at most this much of them."""
SPACE_BYTES_MIN = 64 << 10
"""With less room than this behind it, an unfinished frame is moved to the front."""


class WireError(Exception):
    """The peer does not follow the protocol, or was not heard of in time: the connection has to be closed.

    Never leaves `shards.wire`; callers get `NotReady`.
    """


class Frame(NamedTuple):
    """One frame."""

    kind: int
    call: int
    epoch: int
    argument: int
    payload: memoryview
    """Good until the reader is given more bytes."""


def frame_head(kind: int, call: int, epoch: int, argument: int, payload_bytes: int) -> bytes:
    """The header of a frame; the payload follows it."""
    return HEADER.pack(payload_bytes, kind, call, epoch, argument)


class FrameReader:
    """Cuts frames out of what is received, in memory of its own.

    Give `space()` to whoever receives, then tell `filled()` how much was. A payload longer than `payload_bytes_max`,
    which may be changed between two frames, is refused by its header.
    """

    __slots__ = (
        "_buffer",
        "_end",
        "_large",
        "_large_end",
        "_large_head",
        "_start",
        "_view",
        "payload_bytes_max",
    )

    def __init__(self, payload_bytes_max: int, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.payload_bytes_max = payload_bytes_max
        self._buffer = bytearray(max(buffer_bytes, HEADER.size))
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._large: memoryview | None = None
        self._large_end = 0
        self._large_head = (0, 0, 0, 0)

    def space(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._large is not None:
            return self._large[self._large_end :]
        start, end = self._start, self._end
        if start == end:
            self._start = self._end = end = 0
        elif start and len(self._buffer) - end < SPACE_BYTES_MIN:
            self._buffer[: end - start] = self._buffer[start:end]
            self._start, self._end = 0, end - start
            end = self._end
        return self._view[end:]

    def filled(self, count: int) -> Iterator[Frame]:
        """The frames complete now that `count` more bytes are in `space()`. To be exhausted before `space()` is called.

        Raises:
            WireError: a frame is announced that is too long.
        """
        if self._large is not None:
            self._large_end += count
            if self._large_end == len(self._large):
                frame = Frame(*self._large_head, self._large)
                self._large = None
                yield frame
            return
        self._end += count
        while self._end - self._start >= HEADER.size:
            length, kind, call, epoch, argument = HEADER.unpack_from(self._buffer, self._start)
            if length > self.payload_bytes_max:
                raise WireError(f"a frame of {length} bytes, where {self.payload_bytes_max} are the most")
            at = self._start + HEADER.size
            stop = at + length
            if stop > self._end:
                if HEADER.size + length > len(self._buffer):
                    self._begin_large((kind, call, epoch, argument), at, length)
                return
            self._start = stop
            yield Frame(kind, call, epoch, argument, self._view[at:stop])

    def _begin_large(self, head: tuple[int, int, int, int], at: int, length: int) -> None:
        here = self._end - at
        self._large = memoryview(bytearray(length))
        self._large[:here] = self._view[at : self._end]
        self._large_end = here
        self._large_head = head
        self._start = self._end = 0
