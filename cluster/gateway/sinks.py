"""Where the lines of a watch go: to the client's transport, or, on a server that is not ours, through ASGI.

A sink never waits: whoever writes to it goes on to the next client at once. `DirectSink` is the way of almost all
bytes this process sends: one call into the transport for each frame, whose bytes all watchers share. What a
transport has no room for, a burst or the backlog of a shard that stood still, waits in the sink, still shared, and
follows as the client takes it; lines are never overtaken. A client that reads is thus not cut off by a burst, and
three bounds cut off the one that does not, or not fast enough: it takes nothing for a while, or what waits for it is
too much (`limit`) or too old (`LATE_S`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ..stream import Stream
from ..watching.frames import Frame
from .http import ClientStalled, Send

LATE_S = 30.0
"""Lines that wait longer for a client are of a past nobody should act upon: it does better to begin again."""


class WatchSink:
    """What both kinds have in common: what was delivered, what waits, and whether the client keeps up."""

    def __init__(self, limit: int) -> None:
        self.bytes = 0
        """Of bodies, handed over."""
        self.events = 0
        """Lines, handed over."""
        self.cut: str = ""
        """Why the client is to be broken with; empty as long as it is not."""
        self.on_cut: Callable[[], object] = lambda: None
        """Called once when it is."""
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, float]] = deque()
        """Bytes in order, each with the loop time it came at."""
        self._waiting_bytes = 0
        self._settled = 0
        self._taken = 0
        self._stuck_since: float | None = None

    def write(self, frame: Frame) -> bool:
        """Takes the lines; False if the client is gone or too far behind."""
        raise NotImplementedError

    async def drained(self) -> None:
        """Returns once the client has taken most of what it was sent, or will not take any more."""
        raise NotImplementedError

    def unsent(self) -> int:
        """Bytes the client has not taken."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of the connection. The sink is of no use afterwards."""

    def break_with(self, why: str) -> None:
        """Notes that the client has to go."""
        if not self.cut:
            self.cut = why
            self.on_cut()

    def check(self, now: float, patience_s: float) -> None:
        """Breaks with a client that has taken nothing of what waits for it for so long, or is too late. `now` is loop
        time.
        """
        if self.bytes == self._settled:
            return  # nothing was written since all was taken: most watches, most of the time
        if self._waiting and now - self._waiting[0][1] >= LATE_S:
            self.break_with("behind")
            return
        unsent = self.unsent()
        taken = self.bytes - unsent
        if not unsent:
            self._settled, self._stuck_since = self.bytes, None
        elif self._stuck_since is None or taken > self._taken:
            self._taken, self._stuck_since = taken, now
        elif now - self._stuck_since >= patience_s:
            self.break_with("stalled")

    def _wait(self, lines: bytes) -> bool:
        """Puts lines at the end of what waits, as `write`. One frame may be longer than the limit."""
        if self._waiting and self._waiting_bytes + len(lines) > self._limit:
            self.break_with("behind")
            return False
        self._waiting.append((lines, self._loop.time()))
        self._waiting_bytes += len(lines)
        return True


class DirectSink(WatchSink):
    """Writes to the connection itself. `limit` counts what waits here, beyond what transport and kernel hold."""

    def __init__(self, stream: Stream, limit: int) -> None:
        super().__init__(limit)
        self._stream = stream
        self._drained: list[asyncio.Future[None]] = []
        # Looked up once: `write` is on the way of every event to every watcher, and each attribute counts there.
        self._chunked = stream.chunked
        self._cycle = stream.cycle
        self._flow = stream.flow
        self._write = stream.write
        self._flow.on_room = self._pump_soon

    def write(self, frame: Frame) -> bool:
        """As `WatchSink`."""
        if self._cycle.disconnected or self.cut:
            return False
        chunk = frame.chunk if self._chunked else frame.lines
        if self._waiting or self._flow.write_paused:
            if not self._wait(chunk):
                return False
        else:
            self._write(chunk)
        self.bytes += len(chunk)
        self.events += frame.events
        return True

    def _pump_soon(self) -> None:
        # Not at once: transports are in the middle of something when they tell.
        self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Hands over what waits as long as there is room; the transport tells when there is again."""
        waiting = self._waiting
        if self._cycle.disconnected or self.cut:
            self.close()
            return
        while waiting and not self._flow.write_paused:
            chunk, _ = waiting.popleft()
            self._waiting_bytes -= len(chunk)
            self._write(chunk)
        if not waiting and not self._flow.write_paused:
            self._release()

    def _release(self) -> None:
        drained, self._drained = self._drained, []
        for waiter in drained:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """As `WatchSink`; the connection may serve another request, and be another sink's."""
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._flow.on_room == self._pump_soon:
            self._flow.on_room = None
        self._release()

    def break_with(self, why: str) -> None:
        """As `WatchSink`; who waits for it waits no more."""
        super().break_with(why)
        self._release()

    async def drained(self) -> None:
        """As `WatchSink`; who waits for a client that takes nothing is freed by `check`."""
        while (self._waiting or self._flow.write_paused) and not (self._cycle.disconnected or self.cut):
            waiter = self._loop.create_future()
            self._drained.append(waiter)
            await waiter

    def unsent(self) -> int:
        """As `WatchSink`, the kernel's part included."""
        return self._waiting_bytes + self._stream.unsent()


class QueuedSink(WatchSink):
    """Writes through ASGI, from a queue that `pump` empties."""

    def __init__(self, send: Send, limit: int) -> None:
        super().__init__(limit)
        self._send = send
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()

    def write(self, frame: Frame) -> bool:
        """As `WatchSink`."""
        if self.cut or not self._wait(frame.lines):
            return False
        self.bytes += len(frame.lines)
        self.events += frame.events
        self._filled.set()
        self._emptied.clear()
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
        return self._waiting_bytes

    async def pump(self) -> None:
        """Sends what is written, until cancelled or the client is broken with."""
        while not self.cut:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                lines, _ = self._waiting[0]
                try:
                    await self._send({"type": "http.response.body", "body": lines, "more_body": True})
                except ClientStalled:
                    self.break_with("stalled")
                    return
                self._waiting.popleft()
                self._waiting_bytes -= len(lines)
            self._emptied.set()
