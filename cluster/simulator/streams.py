"""The way of a stream's lines to the client, with the faults that happen on it.

`FaultySink` is what `watching.Watch` sends through. It writes whole batches as one piece, and where a
fault is due it writes what comes before it, does it, and says whether the stream goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from ...shards.model.errors import Expired
from ..serving.documents import status_body, watch_event
from .faults import EXPIRED_TEXT, STREAM_KINDS, Aborted, Faults, Target

Write = Callable[[bytes], Awaitable[None]]


class FaultySink:
    """Lines of one stream."""

    def __init__(self, faults: Faults, target: Target, write: Write) -> None:
        self._faults = faults
        self._target = target
        self._write = write
        self._sent = 0
        silent = faults.take(("no-bookmarks",), target)
        late = None if silent else faults.take(("late-bookmarks",), target)
        self._bookmark_delay = None if silent else (late.seconds if late else 0.0)
        self._bookmark_fault = silent or late

    def bookmarks(self, due_at: float | None) -> float | None:
        """When a bookmark due at that loop time is really sent; None for never."""
        if due_at is None:
            return None
        if self._bookmark_fault is not None and self._bookmark_delay != 0.0:
            self._faults.happened(self._bookmark_fault.kind)
            self._bookmark_fault = None  # once for the whole stream
        if self._bookmark_delay is None:
            return None
        return due_at + self._bookmark_delay

    async def send(self, lines: Sequence[bytes]) -> bool:
        """Sends whole lines, or lets a fault happen. False: the stream has ended.

        Raises:
            Aborted: the connection is to be broken.
        """
        fault = self._faults.take(STREAM_KINDS, self._target, lines=self._sent if lines else -1)
        if fault is None:
            if lines:
                await self._write_all(lines)
            return True
        before = self._faults.pick(max(0, len(lines) - 1))
        await self._write_all(lines[:before])
        rest = lines[before:]
        match fault.kind:
            case "truncate":
                line = rest[0] if rest else b'{"type":"MODIFIED","object":{"kind":'
                await self._write(line[: 1 + self._faults.pick(len(line) - 2)])
                raise Aborted(fault.kind)
            case "garbage":
                await self._write_all((self._faults.noise(), *rest[1:]))
            case "line-410":
                await self._write(watch_event("ERROR", status_body(Expired(EXPIRED_TEXT))))
                self._faults.happened(fault.kind)
                return False
            case "stall":
                await self._faults.stall(fault)
                await self._write_all(rest)
            case _:
                raise Aborted(fault.kind)
        return True

    async def _write_all(self, lines: Sequence[bytes]) -> None:
        if lines:
            self._sent += len(lines)
            await self._write(lines[0] if len(lines) == 1 else b"".join(lines))
