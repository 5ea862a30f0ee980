"""A gateway as a Ray actor: a thin shell around the ASGI application, its server and the routing behind it.

It starts in a task of its own, because a constructor that fails on a restart would end the actor for good: a
restarted gateway tries to get its port back for as long as that takes.
"""

from __future__ import annotations

import asyncio
import logging

from ...coordinator.handle_ray import RayCoordinatorHandle
from ...shards.handle_ray import shard_directory
from ...shards.logs import Level, configure_logging
from ...shards.model.errors import SettingsError
from ..listening import HttpServer
from ..query.router import QueryRouter
from ..query.routing import Routing
from .app import Gateway
from .server import serve
from .trimming import keep_trimmed

log = logging.getLogger("shoal.cluster.gateway.actor")

BIND_RETRY_S = 1.0


class GatewayActor:
    """Serves on HOST:PORT of its node."""

    def __init__(self, host: str, port: int, shard_timeout_s: float, log_level: Level = "warning") -> None:
        configure_logging(log_level)
        self._host = host
        self._port = port
        coordinator = RayCoordinatorHandle()
        self._routing = Routing(coordinator)
        router = QueryRouter(self._routing, shard_directory, shard_timeout_s=shard_timeout_s)
        self._gateway = Gateway(router, shard_directory, coordinator)
        self._server: asyncio.Future[HttpServer] = asyncio.get_running_loop().create_future()
        self._tasks = {
            asyncio.create_task(self._routing.run(), name="routing"),
            asyncio.create_task(self._serve(), name="serve"),
            asyncio.create_task(keep_trimmed(), name="trimming"),
        }

    async def _serve(self) -> None:
        while not self._server.done():
            try:
                self._server.set_result(await serve(self._gateway, self._host, self._port))
            except SettingsError as error:
                log.warning("cannot listen yet", extra={"problem": str(error)})
                await asyncio.sleep(BIND_RETRY_S)

    async def url(self) -> str:
        """Where it serves, once it does."""
        return (await asyncio.shield(self._server)).url

    async def stop(self) -> None:
        """Lets answers under way finish for some seconds, then ends serving."""
        for task in self._tasks:
            task.cancel()
        if self._server.done():
            await self._server.result().stop()
        await self._gateway.aclose()
