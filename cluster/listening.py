"""An ASGI application on a socket: uvicorn with httptools, on an event loop that is already there.

Used by the gateway and by the embedded API server. It binds before it starts, so that a port in use is an error that
says so; it takes no signals, because it may run in the loop thread of a Ray actor or inside somebody else's
program. What may be listened on is its owners' business.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn

from ..shards.model.errors import SettingsError
from .connection import CONNECTION, Connection, ConnectionLimits
from .crowd import Crowd
from .handshake import Handshake

__all__ = ["CONNECTION", "AddressUnavailable", "HttpServer", "bind"]

BACKLOG = 2048
START_TIMEOUT_S = 10.0
DATE_S = 1.0
"""The resolution of the Date header."""
STOP_GRACE_S = 5
"""Seconds answers under way may take to finish once the server is stopped."""
KEEP_ALIVE_S = 75
"""Seconds an idle connection stays open: kubectl and client-go keep theirs for 90."""
KEEPALIVE_PROBE_S = 15
"""A connection on which nothing happens is probed that often, and given up after nine probes: Go's way. Without it a
watch whose client has lost its power stays until its timeout."""

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


class AddressUnavailable(SettingsError):  # noqa: N818 - named like its siblings
    """The address cannot be listened on; the message says which and why."""


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; port 0 takes a free one. `shared`: other processes may listen on the same address as well, if
    they all say so; the kernel divides the connections among them.

    Raises:
        AddressUnavailable: the address is in use, not ours, or not permitted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What is accepted inherits these. Nagle's algorithm would have the body of an answer wait until its head is
        # acknowledged, which clients put off by 40 ms; asyncio does not turn it off on a socket it did not make.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
            if hasattr(socket, name):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), KEEPALIVE_PROBE_S)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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


class _QuietServer(uvicorn.Server):
    """uvicorn without its signal handlers, and asleep while there is nothing to do: of its own it looks ten times a
    second whether it is to end.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        """Ends the server, as soon as answers under way allow."""
        self.should_exit = True
        self._leaving.set()

    async def main_loop(self) -> None:
        """Until it is to end; the date that answers carry is written anew every second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_S):
                    await self._leaving.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes none: the process belongs to somebody else."""
        yield


class HttpServer:
    """Serves one application on one socket. `options` are uvicorn's, for what its owner needs besides `limits` and
    `tls`.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        listener: socket.socket,
        *,
        limits: ConnectionLimits | None = None,
        tls: ssl.SSLContext | None = None,
        **options: Any,
    ) -> None:
        limits = limits or ConnectionLimits()
        self.crowd = Crowd(limits.connections)
        make = partial(Connection, limits=limits, crowd=self.crowd)

        def shake_hands(**made_with: Any) -> Handshake:
            assert tls is not None
            return Handshake(partial(make, **made_with), tls, self.crowd, timeout_s=limits.head_s)

        settings: dict[str, Any] = {
            "http": make if tls is None else shake_hands,
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
        self._scheme = "http" if tls is None and config.ssl is None else "https"
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
        """What clients on this machine dial."""
        host = _ANY.get(self.host, self.host)
        host = f"[{host}]" if ":" in host else host
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
        self._server.leave()
        if self._task is not None:
            await asyncio.wait([self._task])
        self._listener.close()
