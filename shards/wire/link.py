"""The asyncio driver of a connection, the same for both sides: socket in, frames to the machine, its bytes out.

Bytes are received straight into the frame reader's memory (`asyncio.BufferedProtocol`). What is to be sent is gathered
over one turn of the event loop and handed to the transport at once, earlier when it is much. When the transport has
more than `WireSettings.write_buffer_bytes` waiting, the link is `full` until most of it is written; whoever produces
bytes waits for `drained` then. Reading is never stopped: what a peer may send is bounded by the protocol.

Measured with ``tests/bench/bench_wire.py`` (uvloop, two cores, CPU of gateway and shard): a get of 5 KB 9 and 12 us
with 128 in flight, 96 MB of pages 45 and 68 ms, a feed batch of ten events of 5 KB 23 and 22 us.

A link closes once, for one reason. A peer that breaks the protocol closes it and does nothing else; so does a failure
of our own that nobody foresaw. What the events are about is the two roles', in `server` and `client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Generic, TypeVar, cast

from ..settings import WireSettings
from .frames import Frame, FrameReader, WireError
from .messages import HANDSHAKE_BYTES_MAX
from .protocol import Event, Side

log = logging.getLogger("shoal.shards.wire")

GATHERED_BYTES_MAX = 64 << 10
"""More than this is handed to the transport before the turn of the loop ends."""
LINGER_S = 1.0
"""How long a closed connection may take to send what was written before."""

SideT = TypeVar("SideT", bound=Side)


class Link(asyncio.BufferedProtocol, Generic[SideT]):
    """One connection and its machine, `side`. Roles implement the methods that raise NotImplementedError."""

    def __init__(self, side: SideT, settings: WireSettings) -> None:
        self.side = side
        self.reason: str | None = None
        """Why it was closed; None while it is not."""
        self.full = False
        """So much waits to be written that no more should be made."""
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(HANDSHAKE_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._flushing = False
        self._draining: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    # -- for the roles ----------------------------------------------------------------------------------------

    def _connected(self, transport: asyncio.Transport) -> None:
        """The connection is there (under TLS: and secure)."""
        raise NotImplementedError

    def _frame(self, frame: Frame) -> Event:
        """Has the machine receive a frame."""
        raise NotImplementedError

    def _happened(self, event: Event) -> None:
        """Acts on an event."""
        raise NotImplementedError

    def _ticked(self, now: float) -> None:
        """Acts on calls that are overdue."""
        raise NotImplementedError

    def _lost(self, reason: str) -> None:
        """The connection is no more; told once."""
        raise NotImplementedError

    # -- writing ----------------------------------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Has what the machine wants to send sent, together with what else there is in this turn of the loop."""
        if self.side.outgoing_bytes > GATHERED_BYTES_MAX:
            self.flush()
        elif not self._flushing and self.side.outgoing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Sends what the machine wants to send, now."""
        self._flushing = False
        if self.side.outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(self.side.take_outgoing(self._loop.time()))

    async def drained(self) -> None:
        """Returns when there is room again, or the connection is gone."""
        while self.full and self.reason is None:
            waiter = self._loop.create_future()
            self._draining.append(waiter)
            await waiter

    def pause_writing(self) -> None:
        """The transport has too much to write."""
        self.full = True

    def resume_writing(self) -> None:
        """The transport has written most of it."""
        self.full = False
        waiters, self._draining = self._draining, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # -- reading ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins the handshake."""
        # NB: cast and not checked, because uvloop's transports are of no class of asyncio's.
        transport = self._transport = cast("asyncio.Transport", transport)
        if self.reason is not None:  # under TLS bytes may come before this is called
            transport.abort()
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=self._settings.write_buffer_bytes)
        self._timer = self._loop.call_later(self.side.tick_s, self._tick)
        self._connected(transport)
        self.flush_soon()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Memory for the next bytes."""
        return self._reader.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Acts on what has arrived."""
        side, reader = self.side, self._reader
        side.heard(self._loop.time())
        try:
            for frame in reader.filled(nbytes):
                if self.reason is not None:
                    return
                event = self._frame(frame)
                if event is not None:
                    self._happened(event)
                if reader.payload_bytes_max != side.payload_bytes_max:
                    reader.payload_bytes_max = side.payload_bytes_max
        except WireError as error:
            self.close(str(error), rude=True)
        except Exception as error:
            log.exception("connection failed")
            self.close(f"{type(error).__name__}: {error}", rude=True)
        if side.outgoing:
            self.flush_soon()

    def eof_received(self) -> bool:
        """The peer sends nothing more: the connection is of no use."""
        self.close("the peer closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.close(str(exc) or type(exc).__name__ if exc else "the connection was closed")

    # -- the end ----------------------------------------------------------------------------------------------

    def close(self, reason: str, *, rude: bool = False) -> None:
        """Closes the connection. Safe to repeat; the first reason counts. `rude`: nothing more is waited for."""
        if self.reason is not None:
            return
        self.reason = reason
        if self._timer is not None:
            self._timer.cancel()
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self.side.say_goodbye(reason)
            self.flush()
            transport.close()
        if transport is not None and (rude or transport.get_write_buffer_size()):
            self._loop.call_later(0.0 if rude else LINGER_S, transport.abort)
        self.resume_writing()
        self._lost(reason)

    def _tick(self) -> None:
        now = self._loop.time()
        try:
            self.side.tick(now)
        except WireError as error:
            self.close(str(error), rude=True)
            return
        self._ticked(now)
        self.flush_soon()
        self._timer = self._loop.call_later(self.side.tick_s, self._tick)
