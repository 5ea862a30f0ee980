"""What a gateway asks of a request when it asks nobody who they are: that it comes from here, and as nobody else.

Such a gateway listens on loopback only (`tls.check_exposure`), but a browser on this machine is everybody's: a page
whose own name resolves to 127.0.0.1 may read what it gets from there (DNS rebinding). Its requests carry that name in
their Host header, so only names of loopback are answered. Pure.
"""

from __future__ import annotations

import ipaddress

from ...shards.model.errors import BadRequest, Forbidden
from ...shards.model.selector_tests import echoed
from .http import Request


def check_unguarded(request: Request) -> None:
    """Refuses what somebody who is not asked who they are may not send.

    Raises:
        Forbidden: the Host is not a name of loopback.
        BadRequest: it wants to be done as somebody else.
    """
    host = request.headers.get("host", "")
    if host and not names_loopback(host):
        raise Forbidden(
            f"Host {echoed(host)!r} is refused: without gateway.authentication only requests to localhost, 127.0.0.1 "
            "or [::1] are answered, because a page of any other name may be somebody else's",
            details={},
        )
    impersonating = next((name for name, _ in request.fields if name.startswith("impersonate-")), "")
    if impersonating:
        raise BadRequest(
            f"the header {echoed(impersonating)} asks to act as somebody, but this gateway asks nobody who they are: "
            "switch gateway.authentication on, or leave it out"
        )


def names_loopback(host: str) -> bool:
    """Whether a Host header, with or without a port, names this machine and no other."""
    name, colon, port = host.strip().rpartition(":")
    if not colon or not (port.isascii() and (port.isdigit() or not port)) or name.endswith(":"):
        name = host.strip()
    name = name.removesuffix(".").lower()
    if name == "localhost":
        return True
    try:
        if name.startswith("["):
            return name.endswith("]") and ipaddress.IPv6Address(name[1:-1]).is_loopback
        return ipaddress.IPv4Address(name).is_loopback
    except ValueError:
        return False
