"""Where the lines of a watch go: to the client's transport, or, on a server that is not ours, through ASGI.

A sink never waits and never takes more than `limit` bytes for a client that is behind; whoever writes to it goes on
to the next client at once. `DirectSink` is the way of almost all bytes this process sends: one call into the
transport for each frame, whose bytes all watchers share.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ..stream import Stream
from ..watching.frames import Frame
from .http import ClientStalled, Send


class WatchSink:
    """What both kinds have in common: what was delivered, and whether the client keeps up."""

    def __init__(self) -> None:
        self.bytes = 0
        """Of bodies, handed over."""
        self.events = 0
        """Lines, handed over."""
        self.cut: str = ""
        """Why the client is to be broken with; empty as long as it is not."""
        self.on_cut: Callable[[], object] = lambda: None
        """Called once when it is."""
        self._settled = 0
        self._taken = 0
        self._waits_since: float | None = None

    def write(self, frame: Frame) -> bool:
        """Takes the lines; False if the client is gone or too far behind."""
        raise NotImplementedError

    async def drained(self) -> None:
        """Returns once the client has taken most of what it was sent, or will not take any more."""
        raise NotImplementedError

    def unsent(self) -> int:
        """Bytes the client has not taken."""
        raise NotImplementedError

    def break_with(self, why: str) -> None:
        """Notes that the client has to go."""
        if not self.cut:
            self.cut = why
            self.on_cut()

    def check(self, now: float, patience_s: float) -> None:
        """Breaks with a client that has taken nothing of what waits for it for so long. `now` is loop time."""
        if self.bytes == self._settled:
            return  # nothing was written since all was taken: most watches, most of the time
        unsent = self.unsent()
        taken = self.bytes - unsent
        if not unsent:
            self._settled, self._waits_since = self.bytes, None
        elif self._waits_since is None or taken > self._taken:
            self._taken, self._waits_since = taken, now
        elif now - self._waits_since >= patience_s:
            self.break_with("stalled")


class DirectSink(WatchSink):
    """Writes to the connection itself. `limit` counts what waits in this process, beyond what the kernel holds."""

    def __init__(self, stream: Stream, limit: int) -> None:
        super().__init__()
        self._stream = stream
        self._limit = limit
        # Looked up once: `write` is on the way of every event to every watcher, and each attribute counts there.
        self._chunked = stream.chunked
        self._cycle = stream.cycle
        self._flow = stream.flow
        self._write = stream.write

    def write(self, frame: Frame) -> bool:
        """As `WatchSink`."""
        if self._cycle.disconnected or self.cut:
            return False
        chunk = frame.chunk if self._chunked else frame.lines
        self._write(chunk)
        self.bytes += len(chunk)
        self.events += frame.events
        if self._flow.write_paused and self._stream.behind > self._limit:
            self.break_with("behind")
            return False
        return True

    async def drained(self) -> None:
        """As `WatchSink`; who waits for a client that takes nothing is freed by `check`."""
        await self._stream.drained()

    def unsent(self) -> int:
        """As `WatchSink`, the kernel's part included."""
        return self._stream.unsent()


class QueuedSink(WatchSink):
    """Writes through ASGI, from a queue that `pump` empties."""

    def __init__(self, send: Send, limit: int) -> None:
        super().__init__()
        self._send = send
        self._limit = limit
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def write(self, frame: Frame) -> bool:
        """As `WatchSink`."""
        if self.cut:
            return False
        lines = frame.lines
        self._queue.append(lines)
        self._queued += len(lines)
        self.bytes += len(lines)
        self.events += frame.events
        self._filled.set()
        self._emptied.clear()
        if self._queued > self._limit:
            self.break_with("behind")
            return False
        return True

    def break_with(self, why: str) -> None:
        """As `WatchSink`; who waits for it waits no more."""
        super().break_with(why)
        self._emptied.set()

    async def drained(self) -> None:
        """As `WatchSink`: of this kind, all."""
        await self._emptied.wait()

    def unsent(self) -> int:
        """As `WatchSink`."""
        return self._queued

    async def pump(self) -> None:
        """Sends what is written, until cancelled or the client is broken with."""
        while not self.cut:
            await self._filled.wait()
            self._filled.clear()
            while self._queue:
                lines = self._queue[0]
                try:
                    await self._send({"type": "http.response.body", "body": lines, "more_body": True})
                except ClientStalled:
                    self.break_with("stalled")
                    return
                self._queue.popleft()
                self._queued -= len(lines)
            self._emptied.set()
