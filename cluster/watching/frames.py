"""What is written to watchers, and where: whole lines, shared as one bytes object by everybody who gets them.

A `Frame` is made once for all watchers of one form and selector; whoever speaks HTTP/1.1 takes `chunk`, which
is made once as well. A `Sink` is one client as a watch sees it. The gateway implements it.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Final, Protocol

FRAME_BYTES: Final = 256 << 10
"""A burst goes out in pieces of this size, so that a sink's bound is met by a client that is slow, not by one frame."""


class Frame:
    """Some whole lines of a watch."""

    def __init__(self, lines: bytes, events: int = 1) -> None:
        self.lines = lines
        """One or more lines, each with its newline."""
        self.events = events
        """How many."""

    @cached_property
    def chunk(self) -> bytes:
        """The same as one chunk of HTTP/1.1's chunked transfer coding."""
        return b"%x\r\n%b\r\n" % (len(self.lines), self.lines)


def framed(lines: Iterable[bytes]) -> Iterator[Frame]:
    """Lines in frames of about `FRAME_BYTES` at most; at least one line each."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > FRAME_BYTES:
            yield Frame(b"".join(batch), len(batch))
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield Frame(batch[0] if len(batch) == 1 else b"".join(batch), len(batch))


class Sink(Protocol):
    """A client of one watch."""

    def write(self, frame: Frame) -> bool:
        """Takes a frame without waiting. False: the client is gone or too far behind; nothing more is written."""

    async def drained(self) -> None:
        """Waits until the client has taken nearly all that was written: back-pressure for what can wait.

        Returns also when the client is gone; the next `write` says so.
        """
