"""An ASGI application on a socket: uvicorn with httptools, on an event loop that is already there.

Used by the gateway and by the embedded API server. It binds before it starts, so that a port in use is an error that
says so; it takes no signals, because it may run in the loop thread of a Ray actor or inside somebody else's
program. What may be listened on is its owners' business.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..shards.model.errors import SettingsError

BACKLOG = 2048
START_TIMEOUT_S = 10.0
STOP_GRACE_S = 5
"""Seconds answers under way may take to finish once the server is stopped."""
KEEP_ALIVE_S = 75
"""Seconds an idle connection stays open: kubectl and client-go keep theirs for 90."""
CONNECTION = "shoal.connection"
"""Name of the scope extension ``{"abort": coroutine function, "unsent": callable}``: it breaks the connection at
once; it says how many bytes of answers the client has not taken. A send that is cancelled while it waits for room
has sent nothing."""
ABORT_WAIT_S = 5.0
"""A broken connection is gone within some turns of the loop."""


class AddressUnavailable(SettingsError):  # noqa: N818 - named like its siblings
    """The address cannot be listened on; the message says which and why."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        AddressUnavailable: the address is in use, not ours, or not permitted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        match error.errno:
            case errno.EADDRINUSE:
                why = (
                    f"port {port} is in use: stop what listens there, or choose another port (0: a free one)"
                )
            case errno.EACCES:
                why = "not permitted; ports below 1024 need privileges"
            case _:
                why = error.strerror or str(error)
        raise AddressUnavailable(f"cannot listen on {host}:{port}: {why}") from error
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return listener


class _Protocol(HttpToolsProtocol):
    """Lets the application see whether its client takes anything, and break with one that does not."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn."""
        self._lost = asyncio.Event()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """As uvicorn; whoever broke the connection may then end."""
        super().connection_lost(exc)
        self._lost.set()

    def on_message_begin(self) -> None:
        """Adds the extension to the scope."""
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: {"abort": self._abort, "unsent": self._unsent}}

    def on_response_complete(self) -> None:
        """As uvicorn, which closes once the last byte is sent: for a client that reads nothing, never."""
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """The same for a connection that was to be kept."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    async def _abort(self) -> None:
        """Returns once uvicorn knows, which would log an answer without an end otherwise."""
        self.transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABORT_WAIT_S):
                await self._lost.wait()

    def _unsent(self) -> int:
        return self.transport.get_write_buffer_size() + _unacknowledged(self.transport)


def _unacknowledged(transport: asyncio.Transport) -> int:
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


class _QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes none: the process belongs to somebody else."""
        yield


class HttpServer:
    """Serves one application on one socket. `options` are uvicorn's, for what its owner needs besides."""

    def __init__(self, app: Callable[..., Any], listener: socket.socket, **options: Any) -> None:
        settings: dict[str, Any] = {
            "http": _Protocol,
            "loop": "none",
            "ws": "none",
            "lifespan": "off",
            "interface": "asgi3",
            "log_config": None,
            # Its warnings are of what clients send, and would go to stderr from a program without logging.
            "log_level": "error",
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
            "backlog": BACKLOG,
            "timeout_keep_alive": KEEP_ALIVE_S,
            "timeout_graceful_shutdown": STOP_GRACE_S,
        }
        config = uvicorn.Config(app, **(settings | options))
        config.load()
        self._listener = listener
        # Asked now: uvicorn closes the socket, and who stopped a server may still want to name it.
        self._address: tuple[str, int] = listener.getsockname()[:2]
        self._scheme = "https" if config.is_ssl else "http"
        self._server = _QuietServer(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._address[0]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._address[1]

    @property
    def url(self) -> str:
        """What clients dial."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._scheme}://{host}:{self.port}"

    async def start(self) -> None:
        """Returns once connections are accepted.

        Raises:
            AddressUnavailable: the server ended instead.
        """
        task = asyncio.get_running_loop().create_task(
            self._server.serve(sockets=[self._listener]), name=f"server {self.url}"
        )
        self._task = task
        async with asyncio.timeout(START_TIMEOUT_S):
            # uvicorn sets a flag and tells nobody; it takes a few turns of the loop.
            while not self._server.started:
                if task.done():
                    await task
                    raise AddressUnavailable(f"the server on {self.url} ended while it started")
                await asyncio.sleep(0.002)

    async def stop(self) -> None:
        """Stops accepting, lets answers under way finish for some seconds, and ends. Safe to repeat."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task])
        self._listener.close()
