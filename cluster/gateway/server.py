"""Where the gateway listens: on loopback only, because whoever reaches it reads everything that is followed.

Nobody is asked who he is yet; serving and its errors are `cluster.listening`'s.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from ...shards.model.errors import SettingsError
from .. import listening
from ..listening import HttpServer


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
    return listening.bind(_loopback(host), port)


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


async def serve(app: Callable[..., Any], host: str, port: int) -> HttpServer:
    """Serves an ASGI application on the running event loop.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    server = HttpServer(app, bind(host, port))
    await server.start()
    return server
