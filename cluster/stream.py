"""Answers that leave the ways of ASGI: written straight to a connection, or sent to clients that know no chunks.

Part of `connection`, which gives a `Stream` to applications that ask for one.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import sys
import termios
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class Flow(FlowControl):
    """uvicorn's, which also tells whoever writes a `Stream` that there is room again."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self.on_room: Callable[[], object] | None = None
        """Called from within the transport, when it has written most of what waited, and when the client is gone."""

    def resume_writing(self) -> None:
        """As uvicorn."""
        if self.write_paused:
            super().resume_writing()
            if self.on_room is not None:
                self.on_room()


class Stream:
    """The rest of an answer, written to the transport as it is, without a coroutine or a queue of ours.

    `write` is the transport's own; nothing may be written once the client is `gone`.
    """

    __slots__ = ("_unsent", "chunked", "cycle", "flow", "transport", "write")

    def __init__(
        self,
        transport: asyncio.Transport,
        flow: Flow,
        cycle: RequestResponseCycle,
        unsent: Callable[[], int],
    ) -> None:
        self.transport = transport
        self.write = transport.write
        self.chunked = cycle.chunked_encoding is True
        """Whether what is written has to be framed as chunks: not for HTTP/1.0."""
        self.cycle = cycle
        """`cycle.disconnected` is `gone` for whoever cannot afford a call."""
        self.flow = flow
        """`flow.write_paused` likewise says whether the transport is crowded: more waits in it than its high-water
        mark, and who writes on only fills memory. `flow.on_room` tells when it is not any more."""
        self._unsent = unsent

    @property
    def gone(self) -> bool:
        """Whether the client has left, or was left."""
        return self.cycle.disconnected

    def unsent(self) -> int:
        """Bytes the client has not taken, those in the kernel included."""
        return self._unsent()

    async def drained(self) -> None:
        """Returns once there is room, or the client is gone."""
        if self.flow.write_paused and not self.cycle.disconnected:
            await self.flow.drain()


class Unframed(RequestResponseCycle):
    """Answers to HTTP/1.0, which knows no chunks: the end of the connection ends the body."""

    async def send(self, message: Any) -> None:
        """As uvicorn, which would send chunks all the same."""
        if message["type"] == "http.response.start":
            if not any(name == b"content-length" for name, _ in message.get("headers", ())):
                self.chunked_encoding = False
        elif message["type"] == "http.response.body" and self.chunked_encoding is False:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


def unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes the kernel holds for the client. It makes room in big steps (of megabytes, on loopback), so without
    this a client that reads slowly looks as if it did not read. 0 where the kernel does not say.
    """
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform != "linux":
        return 0
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    except (OSError, ValueError):  # closed meanwhile
        return 0
    return int(struct.unpack("i", answer)[0])
