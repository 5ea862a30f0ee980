"""One HTTP connection of a server: uvicorn's httptools protocol with bounds, and a way past ASGI for streams.

uvicorn takes a head of any length for any time, queues pipelined requests without bound, and answers garbage in the
middle of an answer. Here a head has a size and a deadline (as in kube-apiserver: 1 MiB, 431; 32 s), as has a body that
nobody reads, and what cannot be read is answered with Go's own 400 and the end of the connection. The target is taken
apart here too: httptools counts in 16 bits and would cut a URL of more than 64 KiB short without a word.

Applications find `CONNECTION` among the scope's extensions. Neighbours: `listening` binds and serves,
`gateway.http` and `gateway.watches` use the extension.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .crowd import Crowd, Member
from .stream import Flow, Stream, Unframed, unacknowledged

CONNECTION = "shoal.connection"
"""Name of the scope extension, a dictionary:

``abort``    coroutine function: breaks the connection at once
``unsent``   says how many bytes of answers the client has not taken; a send that is cancelled while it waits for room
             has sent nothing
``stream``   gives a `Stream`, once the head of an answer has been sent
``crowded``  there are more connections than there should be: answer what matters and no more
``tls``      gives the connection's ``ssl.SSLObject``, None without TLS
"""
ABORT_WAIT_S = 5.0
"""A broken connection is gone within some turns of the loop."""
HEADERS_MAX = 1000
"""Header lines of one request."""
PIPELINED_MAX = 64
"""Requests sent ahead of their answers; a client that sends more is broken with."""
UNREAD_BYTES = 256 << 10
"""How much of a body nobody reads is let through, so that the client sees its answer (Go:
``maxPostHandlerReadBytes``)."""
UNREAD_S = 10.0
"""How long it may take to arrive."""
LINGER_S = 0.5
"""Between the last byte of an answer and the end of a connection whose client may still be sending: Go's
``rstAvoidanceDelay``."""
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?]*")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of a connection, and of their number."""

    head_bytes: int = 1 << 20
    """Request line and headers: ``http.DefaultMaxHeaderBytes``."""
    head_s: float = 32.0
    """For a head to arrive: kube-apiserver's ``ReadHeaderTimeout``."""
    connections: int | None = None
    """One more takes the place of an idle one (`crowd`); while none is idle it is marked as crowded, and a quarter more
    than that are closed at once. None: no limit."""


class _Refused(Exception):  # noqa: N818 - it carries an answer
    """The request is answered here, with this status, and is the connection's last."""


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        *args: Any,
        limits: ConnectionLimits | None = None,
        crowd: Crowd | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._limits = limits or ConnectionLimits()
        self._crowd = Crowd() if crowd is None else crowd
        self._handshake: Member | None = None
        self._lost = asyncio.Event()
        self._crowded = False
        self._answering: RequestResponseCycle | None = None
        """The request being answered; `cycle` is the last one read."""
        self._refused = ""
        """Status of the answer to a request that is refused. NB: a text, not the exception, whose traceback would keep
        this connection and all it was sent until the garbage collector comes by."""
        self._deaf = False
        """Nothing more is read: what follows could not be understood."""
        self._in_head = True
        self._head_bytes = 0
        self._head_parsed = 0
        self._hosts = 0
        self._unread = 0
        self._deadline: asyncio.TimerHandle | None = None

    # -- life ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn; the first head has to arrive in time."""
        super().connection_made(transport)
        self.flow = self._flow = Flow(transport)
        if self._handshake is not None:
            self._crowded = not self._crowd.follows(self, self._handshake)
            self._handshake = None
        else:
            self._crowded = not self._crowd.begins(self)
        if self._crowded and self._crowd.unbearable:
            transport.abort()
            return
        self._within(self._limits.head_s)

    def after(self, handshake: Member) -> None:
        """Takes over the place that this connection's handshake has; before `connection_made`."""
        self._handshake = handshake

    def give_way(self) -> None:
        """Ends the connection, which is idle, for another."""
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn, which tells only the last request read that its client is gone. Whoever broke the connection may
        then end.
        """
        self._in_time()
        self._crowd.ends(self)
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self.url = b""
        self.headers = []
        self._unset_keepalive_if_required()
        self._lost.set()

    def _within(self, seconds: float) -> None:
        """Breaks the connection after that time, unless `_in_time` is called."""
        self._in_time()
        self._deadline = self.loop.call_later(seconds, self._too_late)

    def _in_time(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        self.transport.abort()

    # -- what the client sends -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """As uvicorn, with bounds; and nothing is written into an answer under way."""
        if self._deaf:
            self._overlook(len(data))
            return
        if self._in_head:
            self._head_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Not for us: the request is answered as any other, and nobody knows what would follow it.
            self._end_after_answer()
            return
        except httptools.HttpParserError:
            self._refuse(self._refused or "400 Bad Request")
            return
        if not self._in_head:
            return
        if self._head_bytes > self._limits.head_bytes:
            self._refuse("431 Request Header Fields Too Large")
        elif self._head_bytes and self._deadline is None:
            self._within(self._limits.head_s)

    def _refuse(self, answer: str) -> None:
        if self._busy:
            self._end_after_answer()
            if not self._in_head:  # in its body, which somebody may be waiting for
                self.transport.abort()
            return
        self._deaf = True
        self._in_time()
        status = answer.encode()
        self.transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n%b"
            % (status, status)
        )
        self._linger()

    def _end_after_answer(self) -> None:
        self._deaf = True
        self._in_time()
        if self._busy:
            self.cycle.keep_alive = False

    @property
    def _busy(self) -> bool:
        """Whether a request is waiting for its answer, or for the end of it."""
        last: RequestResponseCycle | None = self.cycle  # None before the first, whatever uvicorn declares
        return last is not None and not last.response_complete

    def _linger(self) -> None:
        """Ends the connection without taking back what was written, should the client still be sending."""
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self._close)

    def _close(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _overlook(self, size: int) -> None:
        self._unread += size
        if self._unread > UNREAD_BYTES:
            self.transport.abort()

    # -- parser callbacks ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Adds the extension to the scope."""
        if len(self.pipeline) >= PIPELINED_MAX:
            self.transport.abort()
            self._deaf = True
            raise self._refusal("400 Bad Request")
        super().on_message_begin()
        grows: Any = bytearray()  # uvicorn adds to bytes, which copies them each time
        self.url = grows
        self._head_parsed = self._hosts = 0
        self.scope["extensions"] = {
            CONNECTION: {
                "abort": self._abort,
                "unsent": self.unsent,
                "crowded": self._crowded,
                "tls": self._tls,
            }
        }

    def on_url(self, url: bytes) -> None:
        """As uvicorn, counted."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn, counted."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)
        if len(self.headers) > HEADERS_MAX:
            raise self._refusal("431 Request Header Fields Too Large")
        self._hosts += self.headers[-1][0] == b"host"

    def _count(self, size: int) -> None:
        self._head_parsed += size
        if self._head_parsed > self._limits.head_bytes:
            raise self._refusal("431 Request Header Fields Too Large")

    def _refusal(self, status: str) -> _Refused:
        self._refused = status
        return _Refused(status)

    def on_headers_complete(self) -> None:
        """As uvicorn, with the target taken apart here."""
        self._in_head = False
        self._head_bytes = 0
        self._in_time()
        self._crowd.busy(self)
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise self._refusal("505 HTTP Version Not Supported: unsupported protocol version")
        if self._hosts > 1 or (version == "1.1" and not self._hosts):
            many = "too many Host headers" if self._hosts else "missing required Host header"
            raise self._refusal(f"400 Bad Request: {many}")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if version == "1.1" and codings and codings != [b"chunked"]:
            # Nobody knows where its body ends.
            raise self._refusal("501 Not Implemented: Unsupported transfer encoding")
        path, raw_path, query = self._target()
        self.url = b"/"
        super().on_headers_complete()
        self.scope["path"], self.scope["raw_path"], self.scope["query_string"] = path, raw_path, query
        if version == "1.0":
            self.cycle.__class__ = Unframed
        # Of this request: with pipelining, `self.cycle` is that of the last one read.
        self.scope["extensions"][CONNECTION]["stream"] = partial(
            Stream, self.transport, self._flow, self.cycle, self.unsent
        )

    def _target(self) -> tuple[str, bytes, bytes]:
        """Path, path as sent, and query of the request's target, as Go reads them."""
        target = bytes(self.url)
        absolute = _ABSOLUTE.match(target)
        if absolute is not None:
            target = target[absolute.end() :]
            if not target.startswith(b"/"):
                target = b"/" + target
        raw_path, _, query = target.partition(b"#")[0].partition(b"?")
        if not raw_path.startswith(b"/") or _BAD_ESCAPE.search(raw_path):
            raise self._refusal("400 Bad Request")
        return unquote_to_bytes(raw_path).decode("utf-8", "replace"), raw_path, query

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """As uvicorn; of what comes after the answer only so much is let through."""
        if self.cycle.response_complete:
            self._overlook(len(body))
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As uvicorn; the next head may begin."""
        self._in_head = True
        self._head_bytes = self._unread = 0
        if self.cycle.response_complete:
            self._in_time()
            self.cycle.more_body = False
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
            return
        super().on_message_complete()

    # -- answers ---------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """As uvicorn, which closes once the last byte is sent: for a client that reads nothing, never."""
        super().on_response_complete()
        if not self._busy:
            self._crowd.idle(self)
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self.loop.call_later(self.timeout_keep_alive, self.transport.abort)
        elif self.cycle.response_complete and self.cycle.more_body:
            self._within(UNREAD_S)

    def timeout_keep_alive_handler(self) -> None:
        """The same for a connection that was to be kept."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    # -- the extension ---------------------------------------------------------------------------------------

    async def _abort(self) -> None:
        """Returns once uvicorn knows, which would log an answer without an end otherwise."""
        self.transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABORT_WAIT_S):
                await self._lost.wait()

    def unsent(self) -> int:
        """Bytes of answers the client has not taken."""
        return self.transport.get_write_buffer_size() + unacknowledged(self.transport)

    def _tls(self) -> Any:
        return self.transport.get_extra_info("ssl_object")
