"""A gateway put together from its settings: what asks the API server, what reads from shards, what watches.

The API server is asked with Shoal's own credentials (reviews, OpenAPI), except for what is passed on, which goes over a
connection that has none. Nothing here waits or sends; credentials are read with the first request.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from ...shards.api.client import ApiConnection
from ..query.directory import ShardDirectory
from ..query.floor import ReadFloor
from ..query.router import QueryRouter
from ..query.routing import Routing
from ..settings import GatewaySettings
from .app import Gateway
from .authentication import Authenticator, asks_who
from .authorization import Authorization, Authorizer, EverythingAllowed
from .delegation import Delegation
from .openapi import OpenApiMirror
from .reviews import Reviewer
from .status import Operated, Peers
from .writing import Forwarder


class Upstream(NamedTuple):
    """The API server, and how it is reached."""

    ours: ApiConnection
    """With Shoal's own credentials."""
    nobodys: ApiConnection
    """Without any (`Access.anonymous`)."""
    streams: ApiConnection | None = None
    """The same once more, for what is read for long; None: over `nobodys`."""

    async def aclose(self) -> None:
        """Closes all."""
        for connection in filter(None, self):
            await connection.aclose()


def assemble(
    routing: Routing,
    shards: ShardDirectory,
    coordinator: Operated,
    upstream: Upstream,
    settings: GatewaySettings,
    *,
    peers: Peers | None = None,
) -> Gateway:
    """The gateway; `routing` is to be followed by the caller, `upstream` to be closed after the gateway."""
    forwarder: Forwarder | None = None
    forwards = settings.writes == "forward"
    floor = ReadFloor(asyncio.get_running_loop().time) if forwards else None
    router = QueryRouter(routing, shards, shard_timeout_s=settings.shard_timeout_s, floor=floor)
    reviewer = Reviewer(upstream.ours, audiences=settings.authentication.audiences)
    authorization: Authorization = EverythingAllowed()
    authenticator: Authenticator | None = None
    delegation: Delegation | None = None
    if asks_who(settings.authentication):
        authorization = Authorizer(reviewer, settings.authorization)
        authenticator = Authenticator(
            settings.authentication, reviewer, authorization, reviews=settings.authorization
        )
        delegation = Delegation(upstream.ours, settings.authentication)
    if forwards:
        forwarder = Forwarder(upstream.nobodys, settings.forwarding, streams=upstream.streams, floor=floor)
    return Gateway(
        router,
        shards,
        coordinator,
        settings=settings,
        authenticator=authenticator,
        authorization=authorization,
        openapi=OpenApiMirror(upstream.ours),
        forwarder=forwarder,
        peers=peers,
        delegation=delegation,
    )
