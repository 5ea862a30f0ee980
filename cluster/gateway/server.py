"""Where the gateway listens, and with what: HTTPS as the settings have it, and the bounds of its connections.

What may be listened on is `tls.check_exposure`'s to say: on loopback anything, elsewhere only what is protected.
Binding and serving are `cluster.listening`'s.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from ...shards.model.errors import SettingsError
from .. import listening
from ..connection import ConnectionLimits
from ..crowd import open_files
from ..listening import HttpServer
from ..settings import GatewaySettings
from .tls import ServerContext, check_exposure

_DEFAULTS = GatewaySettings()


def parse_listen(text: str) -> tuple[str, int]:
    """Reads ``HOST:PORT``; an IPv6 host may stand in brackets.

    Raises:
        SettingsError: it is not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"listen address {text!r}: expected HOST:PORT, such as 127.0.0.1:7480")
    return host.removeprefix("[").removesuffix("]"), int(port)


def bind(
    host: str, port: int, settings: GatewaySettings = _DEFAULTS, *, shared: bool = False
) -> socket.socket:
    """A listening socket; port 0 takes a free one. `shared` as for `listening.bind`.

    Raises:
        SettingsError: the address is open to others and not protected, is in use, or cannot be bound.
    """
    check_exposure(host, settings.tls, settings.authentication)
    return listening.bind(_address(host), port, shared=shared)


def check(settings: GatewaySettings) -> None:
    """Finds what would keep every gateway from serving, without listening: so that it is said before one is started.

    Raises:
        SettingsError: the address is of no form we can use, or is open to others and not protected; or the TLS files
            cannot be used.
    """
    host, _ = parse_listen(settings.listen)
    _address(host)
    check_exposure(host, settings.tls, settings.authentication)
    if settings.tls.certificate is not None:
        ServerContext.of(settings.tls)


def _address(host: str) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise SettingsError(
            f"listen address {host!r}: expected an IP address of this machine, or 0.0.0.0 or [::] for all of them"
        ) from None


async def serve(
    app: Callable[..., Any],
    host: str,
    port: int,
    settings: GatewaySettings = _DEFAULTS,
    *,
    shared: bool = False,
) -> HttpServer:
    """Serves an ASGI application on the running event loop.

    Raises:
        SettingsError: the address cannot be listened on, or the TLS files cannot be used.
    """
    tls = ServerContext.of(settings.tls) if settings.tls.certificate is not None else None
    limits = ConnectionLimits(
        head_bytes=settings.limits.header_bytes,
        head_s=settings.limits.header_s,
        connections=open_files(settings.limits.connections),
    )
    server = HttpServer(app, bind(host, port, settings, shared=shared), limits=limits, tls=tls)
    await server.start()
    return server
