"""The gateway's ASGI application: Shoal answering as a Kubernetes API server.

A request passes: reading -> protection -> authentication -> authorization -> dispatch, and one error boundary around
it all. Each step is another module's; the order is what is here, and it is kube-apiserver's: who is not known learns
nothing, and who may not read a resource does not learn whether there is one.

Health is answered before any of it: whoever asks whether this process lives must get an answer when it is busiest.
Paths that are open to everybody are the authenticator's to name.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from ...shards.model.errors import Forbidden, MethodNotAllowed, ShoalError, Unauthorized
from ..query.directory import ShardDirectory
from ..query.router import QueryRouter
from ..serving.identity import Attributes, User, request_attributes
from ..serving.paths import OtherPath, RequestPath, parse_path
from ..settings import GatewaySettings
from ..watching.router import WatchRouter
from .asked import Asked, Client
from .authentication import NOBODY, Authenticator, Caller, Untrusted
from .authorization import Authorization, EverythingAllowed
from .counting import PATH as COUNT
from .counting import Counting, count_attributes
from .delegation import Delegation
from .discovery import VERBS, Discovery
from .dispatch import Dispatch
from .doorway import check_unguarded
from .exchange import Exchange
from .http import Receive, Request, Scope, Send, error_answer, patient, read_request
from .metrics import GatewayMetrics
from .openapi import OpenApiMirror
from .operating import Operating
from .pages import HEALTH, METRICS, PINGS, Pages
from .protection import CONNECTIONS, Overloaded, Protection
from .reading import Reading
from .resources import Resources
from .self_reviews import SelfReviews
from .status import GatewayReport, InstallationStatus, Operated, Peers, Reports
from .tls import client_certificate
from .turns import Turns
from .watches import Watches
from .writing import Forwarder

log = logging.getLogger("shoal.cluster.gateway")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Gateway:
    """A plain ASGI callable. Needs `QueryRouter.routing` to be followed by somebody."""

    def __init__(
        self,
        router: QueryRouter,
        shards: ShardDirectory,
        coordinator: Operated,
        *,
        settings: GatewaySettings | None = None,
        watching: WatchRouter | None = None,
        authenticator: Authenticator | None = None,
        authorization: Authorization | None = None,
        openapi: OpenApiMirror | None = None,
        forwarder: Forwarder | None = None,
        peers: Peers | None = None,
        delegation: Delegation | None = None,
        now: Callable[[], datetime] = _utc_now,
        overlook_refused: bool = False,
    ) -> None:
        """Without `authenticator` everybody is let in, without `openapi` there is none, without `forwarder` writes are
        refused, without `peers` this gateway is the only one. What is passed in is closed with the gateway.
        """
        settings = settings or GatewaySettings()
        watching = watching or WatchRouter(router.routing, shards, router, settings=settings.watching)
        self.metrics = GatewayMetrics(watching.statistics)
        self.protection = Protection(
            settings.limits, refused=lambda limit: self.metrics.refused.labels(limit).inc()
        )
        self.turns = Turns(self.protection)
        self.watches = Watches(watching, self.metrics, buffer_bytes=settings.watch_buffer_bytes)
        self._authenticator = authenticator
        self._authorization = authorization or EverythingAllowed()
        self._reports = Reports(router.routing, shards, coordinator, peers or self._alone)
        self._watching = watching
        self._openapi = openapi
        self._delegation = delegation
        self._pages = Pages(
            router.routing,
            self._reports,
            self.metrics,
            delegation=delegation,
            openapi=openapi is not None,
            overlook_refused=overlook_refused,
        )
        discovery = Discovery(verbs=VERBS if forwarder is None else None)
        resources = Resources(router.routing, discovery)
        self._dispatch = Dispatch(
            routing=router.routing,
            resources=resources,
            discovery=discovery,
            reading=Reading(router, self.turns, now),
            watches=self.watches,
            counting=Counting(router, resources),
            pages=self._pages,
            openapi=openapi,
            forwarder=forwarder,
            operating=Operating(coordinator),
            self_reviews=SelfReviews(self._authorization, asks=self._asks, forwarder=forwarder),
            authorization=self._authorization,
            now=now,
        )

    @property
    def _asks(self) -> bool:
        """Whether anybody is asked who they are."""
        return self._authenticator is not None and self._authenticator.asks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            raise ValueError(f"the gateway speaks HTTP only, not {scope['type']}")
        client = Client(scope, receive, patient(scope, send))
        exchange = Exchange(self.metrics, scope["method"], client.send, asyncio.get_running_loop().time)
        with self.metrics.in_progress.track_inprogress():
            try:
                await self._settle(exchange, self._respond(exchange, client))
            finally:
                exchange.finish()

    def report(self, name: str = "") -> GatewayReport:
        """What this process is doing, under that name."""
        guard = self.protection
        return GatewayReport(gateway=name, pid=os.getpid(), requests=guard.requests, watches=guard.watches)

    async def status(self) -> InstallationStatus:
        """What the whole installation reports about itself: the page ``/shoal/v1/status``."""
        return await self._pages.status()

    async def _alone(self) -> tuple[GatewayReport, ...]:
        return (self.report(),)

    async def stop_watches(self) -> None:
        """Ends all watches, properly, and lets no new ones begin: the first step of an orderly end."""
        await self.watches.aclose()

    async def aclose(self) -> None:
        """Ends what runs besides requests."""
        await self.watches.aclose()
        await self._watching.aclose()
        await self._reports.aclose()
        if self._openapi is not None:
            await self._openapi.aclose()
        if self._authenticator is not None:
            await self._authenticator.aclose()
        await self._authorization.aclose()
        if self._delegation is not None:
            await self._delegation.aclose()

    # -- one request -----------------------------------------------------------------------------------------

    async def _settle(self, exchange: Exchange, work: Awaitable[None]) -> None:
        """Does `work`; an error becomes the answer, or, once one has begun, its end.

        NB: an answer that is not sent to its end makes the server close the connection, and the client sees
        that it is broken: the one thing a list that cannot be completed may look like.
        """
        try:
            await work
        except ShoalError as error:
            problem = error
        except Exception:
            log.exception("request failed", extra={"verb": exchange.verb, "resource": exchange.resource})
            problem = ShoalError("the gateway failed to answer; its log says why")
        else:
            return
        if not exchange.code:
            methods = self._dispatch.methods if isinstance(problem, MethodNotAllowed) else ""
            crowded = isinstance(problem, Overloaded) and problem.limit == CONNECTIONS
            last = crowded or isinstance(problem, Untrusted)
            await exchange.send(error_answer(problem, allow=methods, close=last))
            return
        if not exchange.stalled:
            self.metrics.aborted.labels("incomplete").inc()
            log.warning("answer broken off", extra={"resource": exchange.resource, "problem": str(problem)})

    async def _respond(self, exchange: Exchange, client: Client) -> None:
        request = exchange.request = read_request(client.scope)
        path = parse_path(request.path)
        page = path.path.rstrip("/") if isinstance(path, OtherPath) else ""
        if page in (*HEALTH, *PINGS) and request.reads:
            exchange.verb = page.split("/")[1]
            await exchange.send(await self._pages.health(page, request))
            return
        if not self._asks:
            check_unguarded(request)
        crowded = client.connection.get("crowded", False)
        if crowded and page != METRICS:
            raise self.protection.refusal(CONNECTIONS)
        known = self._authenticator is None or self._authenticator.knows(request)
        place = self.protection.enter(counted=page != METRICS, known=known)
        try:
            user = await self._authenticate(request, client)
            place.belongs_to(user.name)
            attributes = _attributes(request, path, page)
            if not self._dispatch.forwards(request, path):
                await self._authorize(user, attributes, request.path)
            await self._dispatch.answer(Asked(request, path, user, attributes, exchange, place, client))
        finally:
            place.leave()

    async def _authenticate(self, request: Request, client: Client) -> User:
        if self._authenticator is None or self._authenticator.is_open(request.path):
            return NOBODY
        tls = client.connection.get("tls")
        certificate = client_certificate(tls()) if tls is not None else None
        counter = self.metrics.authentications
        try:
            caller: Caller = await self._authenticator.authenticate(request, certificate)
        except (Unauthorized, Forbidden) as error:
            counter.labels(error.reason.lower()).inc()
            raise
        except ShoalError:
            counter.labels("failed").inc()
            raise
        counter.labels(caller.credential).inc()
        return caller

    async def _authorize(self, user: User, attributes: Attributes, path: str) -> None:
        if self._authenticator is None or self._authenticator.is_open(path):
            return
        counter = self.metrics.authorizations
        try:
            await self._authorization.require(user, attributes)
        except Forbidden:
            counter.labels("forbidden").inc()
            raise
        except ShoalError:
            counter.labels("failed").inc()
            raise
        counter.labels("allowed").inc()


def _attributes(request: Request, path: RequestPath, page: str) -> Attributes:
    if page == COUNT and request.reads:
        return count_attributes(request)
    return request_attributes(request.method, request.path, request.parameters, path)
