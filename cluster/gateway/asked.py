"""A request that has passed protection, authentication and authorization, on its way to whoever answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..connection import CONNECTION
from ..serving.identity import Attributes, User
from ..serving.paths import RequestPath
from .exchange import Exchange
from .http import Receive, Request, Scope, Send
from .protection import Place


@dataclass(frozen=True, slots=True)
class Client:
    """The other end of a request, as ASGI has it."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def connection(self) -> dict[str, Any]:
        """The extension of our own server (`connection.CONNECTION`); empty with any other."""
        extensions: dict[str, Any] = self.scope.get("extensions") or {}
        found: dict[str, Any] = extensions.get(CONNECTION) or {}
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    request: Request
    path: RequestPath
    user: User
    attributes: Attributes
    """What was authorized."""
    exchange: Exchange
    place: Place
    client: Client
