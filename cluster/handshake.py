"""The TLS handshake of one connection to a server: counted, limited in time, and able to give way.

asyncio's own servers tell nobody of a connection before its handshake is done, and wait for a minute. Here it is one
of the `Crowd` from the moment it is accepted. Neighbours: `listening` makes it, `connection` goes on from it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from .crowd import Crowd

if TYPE_CHECKING:
    from .connection import Connection

log = logging.getLogger("shoal.cluster.handshake")


class Handshake(asyncio.Protocol):
    """What a connection is until `make` makes the real thing."""

    def __init__(
        self, make: Callable[[], Connection], tls: ssl.SSLContext, crowd: Crowd, *, timeout_s: float
    ) -> None:
        self._make = make
        self._tls = tls
        self._crowd = crowd
        self._timeout_s = timeout_s
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        """Bytes that came before TLS was there to read them, and then what came right behind the handshake."""
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        # Cast and not checked, because uvloop's transports are of no class of asyncio's.
        transport = self._transport = cast("asyncio.Transport", transport)
        # Nothing should be read before TLS is there to read it; uvloop does all the same.
        transport.pause_reading()
        self._crowd.begins(self)
        if self._crowd.unbearable:
            self._crowd.ends(self)
            transport.abort()
            return
        self._task = asyncio.get_running_loop().create_task(self._shake(), name="TLS handshake")

    def data_received(self, data: bytes) -> None:
        """What came before the handshake, or right behind it."""
        self._early.append(data)

    def eof_received(self) -> None:
        """The client has hung up."""
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is gone before anything was made of it."""
        self._ended = True
        self._crowd.ends(self)

    def give_way(self) -> None:
        """As `Member.give_way`."""
        self._ended = True
        self._transport.abort()

    def _give_to_tls(self) -> None:
        """Gives what was read too early to who should have read it; by now that is the transport's protocol."""
        early, self._early = b"".join(self._early), []
        tls = cast("asyncio.BufferedProtocol", self._transport.get_protocol())
        while early and not self._transport.is_closing():
            room = memoryview(tls.get_buffer(len(early)))
            count = min(len(room), len(early))
            room[:count] = early[:count]
            early = early[count:]
            tls.buffer_updated(count)

    async def _shake(self) -> None:
        loop = asyncio.get_running_loop()
        # uvloop has begun to read after `connection_made`, and believes it is pausing.
        self._transport.resume_reading()
        self._transport.pause_reading()
        beginning = loop.create_task(
            loop.start_tls(
                self._transport, self, self._tls, server_side=True, ssl_handshake_timeout=self._timeout_s
            ),
            name="TLS",
        )
        try:
            # Once that has taken its first step, its protocol is connected and reading resumed in the next turn of the
            # loop. What is called behind them comes in the same turn, before anything more can be read: a greeting
            # that came in two segments, as those with post-quantum keys do, is not put together in the wrong order.
            await asyncio.sleep(0)
            if self._early:
                loop.call_soon(self._give_to_tls)
            transport = await beginning
        except (OSError, ssl.CertificateError) as error:  # of TLS, of the connection, and too late
            log.debug("no TLS", extra={"problem": str(error)})
            self._crowd.ends(self)
            self._transport.abort()
            return
        except BaseException:
            beginning.cancel()
            self._crowd.ends(self)
            self._transport.abort()
            raise
        if transport is None or self._ended:
            self._crowd.ends(self)
            self._transport.abort()
            return
        connection = self._make()
        transport.set_protocol(connection)
        connection.after(self)
        connection.connection_made(transport)
        if self._early:
            connection.data_received(b"".join(self._early))
