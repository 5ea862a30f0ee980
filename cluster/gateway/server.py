"""The HTTP server around the gateway: uvicorn with httptools, on an event loop that is already there.

It binds before it starts, so that a port in use is an error that says so; it takes no signals, because it
may run in the loop thread of a Ray actor, where somebody else ends the process. It listens on loopback
only: whoever can reach it reads everything that is followed, since nobody is asked who he is yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from ...shards.model.errors import SettingsError

BACKLOG = 2048
START_TIMEOUT_S = 10.0
STOP_GRACE_S = 5
"""Seconds answers under way may take to finish once the server is stopped."""
KEEP_ALIVE_S = 75
"""Seconds an idle connection stays open: kubectl and client-go keep theirs for 90."""


def parse_listen(text: str) -> tuple[str, int]:
    """Reads ``HOST:PORT``; an IPv6 host may stand in brackets.

    Raises:
        SettingsError: it is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"listen address {text!r}: expected HOST:PORT, such as 127.0.0.1:7480")
    return host.removeprefix("[").removesuffix("]"), int(port)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket on a loopback address; port 0 takes a free one.

    Raises:
        SettingsError: the address is not loopback, is in use, or cannot be bound.
    """
    address = _loopback(host)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} on {host} is in use: stop what listens there, or choose another port "
                "(0 takes a free one)"
            ) from error
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    listener.settimeout(0)
    return listener


def _loopback(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if address is None or not address.is_loopback:
        raise SettingsError(
            f"listen address {host!r} is refused: this version serves without authentication, so it "
            "listens on loopback only (127.0.0.1, ::1 or localhost)"
        )
    return str(address)


class _QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers, saying when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets=sockets)
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes none: the process belongs to somebody else."""
        yield


class GatewayServer:
    """A running server. Made by `serve`; `stop` ends it."""

    def __init__(self, server: _QuietServer, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self._task: asyncio.Task[None] | None = None
        self.host: str = listener.getsockname()[0]
        """The address it listens on."""
        self.port: int = listener.getsockname()[1]
        """The port it listens on."""

    @property
    def url(self) -> str:
        """What clients dial."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Returns once connections are accepted."""
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._server.serve(sockets=[self._listener]), name="gateway server")
        accepting = loop.create_task(self._server.accepting.wait(), name="gateway accepting")
        await asyncio.wait(
            (self._task, accepting), timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED
        )
        accepting.cancel()
        if not self._server.accepting.is_set():
            await self.stop()
            raise SettingsError(f"the server on {self.url} could not start; the log says why")

    async def serve_forever(self) -> None:
        """Returns when the server ends."""
        assert self._task is not None
        await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Stops accepting, lets answers under way finish for some seconds, and ends. Safe to repeat."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task])
        self._listener.close()


async def serve(app: Callable[..., Any], host: str, port: int) -> GatewayServer:
    """Serves an ASGI application on the running event loop.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    listener = bind(host, port)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="none",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_GRACE_S,
    )
    server = GatewayServer(_QuietServer(config), listener)
    await server.start()
    return server


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What to run a process of one's own with: uvloop where it is installed, else asyncio's loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
