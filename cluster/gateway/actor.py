"""A gateway as a Ray actor: a thin shell around the ASGI application, its server and the routing behind it.

It starts in a task of its own, because a constructor that fails on a restart would end the actor for good: a
restarted gateway tries to get its port back for as long as that takes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import ray

from ...coordinator.handle_ray import RayCoordinatorHandle
from ...shards.api.kubeconfig import Access
from ...shards.handle_ray import NAMESPACE, answered, shard_directory
from ...shards.logs import Level, configure_logging
from ...shards.model.errors import NotReady, SettingsError, ShoalError
from ...shards.settings import ApiSettings
from ..listening import HttpServer
from ..query.routing import Routing
from ..settings import GatewaySettings
from .assembly import Upstream, assemble
from .server import parse_listen, serve
from .status import GatewayReport, InstallationStatus
from .trimming import keep_trimmed

log = logging.getLogger("shoal.cluster.gateway.actor")

BIND_RETRY_S = 1.0


PEER_TIMEOUT_S = 2.0
GATEWAY_PREFIX = "gateway-"


def gateway_names(count: int) -> tuple[str, ...]:
    """The actors' names of an installation with so many gateways."""
    return tuple(f"{GATEWAY_PREFIX}{number}" for number in range(count))


class GatewayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway is started with, and restarted."""

    access: Access
    """Of the API server: for questions about users, OpenAPI, and writes that are passed on."""
    settings: GatewaySettings
    """With a port in ``listen`` that is not 0: a gateway that is restarted comes back where its clients know it."""
    api: ApiSettings = ApiSettings()
    log_level: Level = "warning"


class GatewayActor:
    """Serves on ``HOST:PORT`` of its node."""

    def __init__(self, plan: GatewayPlan) -> None:
        configure_logging(plan.log_level)
        self._plan = plan
        self._problem = ""
        coordinator = RayCoordinatorHandle()
        self._routing = Routing(coordinator)
        access = plan.access
        nobody = access.anonymous()
        streaming = msgspec.structs.replace(plan.api, connections=plan.settings.forwarding.streams)
        self._upstream = Upstream(
            access.connect(plan.api), nobody.connect(plan.api), nobody.connect(streaming)
        )
        self._gateway = assemble(
            self._routing, shard_directory, coordinator, self._upstream, plan.settings, peers=self._peers
        )
        self._server: asyncio.Future[HttpServer] = asyncio.get_running_loop().create_future()
        self._tasks = {
            asyncio.create_task(self._routing.run(), name="routing"),
            asyncio.create_task(self._serve(), name="serve"),
            asyncio.create_task(keep_trimmed(), name="trimming"),
        }

    async def _serve(self) -> None:
        settings = self._plan.settings
        host, port = parse_listen(settings.listen)
        while not self._server.done():
            try:
                server = await serve(self._gateway, host, port, settings, shared=settings.gateways > 1)
                self._server.set_result(server)
            except SettingsError as error:
                self._problem = str(error)
                log.warning("cannot listen yet", extra={"problem": self._problem})
                await asyncio.sleep(BIND_RETRY_S)

    async def url(self) -> str:
        """Where it serves, once it does."""
        return (await asyncio.shield(self._server)).url

    async def problem(self) -> str:
        """Why it does not serve yet; empty if it does, or has not tried."""
        return "" if self._server.done() else self._problem

    async def status(self) -> InstallationStatus:
        """What the installation reports about itself, for those who started it. Raises NotReady until it serves."""
        if not self._server.done():
            raise NotReady(f"a gateway does not listen yet{': ' if self._problem else ''}{self._problem}")
        return await self._gateway.status()

    async def report(self, name: str) -> GatewayReport:
        """What it is doing; `name` is what the caller knows it by."""
        return self._gateway.report(name)

    async def _peers(self) -> tuple[GatewayReport, ...]:
        return tuple(await asyncio.gather(*map(_ask, gateway_names(self._plan.settings.gateways))))

    async def stop(self) -> None:
        """Ends watches properly, lets answers under way finish for some seconds, then ends serving."""
        for task in self._tasks:
            task.cancel()
        await self._gateway.stop_watches()
        if self._server.done() and not self._server.cancelled():
            await self._server.result().stop()
        await self._gateway.aclose()
        await self._upstream.aclose()


async def _ask(name: str) -> GatewayReport:
    try:
        async with asyncio.timeout(PEER_TIMEOUT_S):
            gateway: Any = await asyncio.to_thread(ray.get_actor, name, namespace=NAMESPACE)
            report: GatewayReport = await answered(gateway.report.remote(name), name)
            return report
    except TimeoutError:
        return GatewayReport(gateway=name, problem=f"no answer within {PEER_TIMEOUT_S:g} s")
    except (ShoalError, ValueError) as error:  # Ray's word for an actor that is not there
        return GatewayReport(gateway=name, problem=str(error))
