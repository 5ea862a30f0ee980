"""The gateway's ASGI application: Shoal answering as a read-only Kubernetes API server.

Glue only: a path becomes a query (`serving.paths`, `serving.options`), the router answers it, `forms` gives
the answer its form. What is served: discovery, get and list of the followed resources, ``/version``,
health, metrics, and ``/shoal/v1/status``. What is not: writes and watches (405), subresources, OpenAPI
(404).

Answers to get and list carry what they rest on: ``Shoal-Frontier`` (everything up to this resource version
is in the answer), ``Shoal-Age`` (seconds since the API server proved it), ``Shoal-Shards`` (who was asked).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from ... import __version__
from ...shards.model.errors import MethodNotAllowed, NotReady, ShoalError, TooManyRequests
from ...shards.model.resources import ResourceType
from ..query.answers import Provenance
from ..query.directory import ShardDirectory
from ..query.fanout import UnknownResource
from ..query.request import CollectionQuery, ObjectQuery
from ..query.router import QueryRouter
from ..serving.negotiation import Accepted, negotiate
from ..serving.options import ListOptions
from ..serving.paths import DiscoveryPath, OtherPath, ResourcePath, parse_path
from .discovery import Discovery
from .forms import has_pieces, list_form, object_form
from .http import (
    JSON,
    NO_CACHE,
    Answer,
    ClientStalled,
    Headers,
    Receive,
    Request,
    Scope,
    Send,
    error_answer,
    no_such_page,
    patient,
    read_request,
    send_answer,
    text_answer,
    unless_gone,
)
from .metrics import GatewayMetrics
from .readiness import Check, readiness, render_checks
from .status import InstallationStatus, Reports, StatusSource

log = logging.getLogger("shoal.cluster.gateway")

LISTS_AT_ONCE = 32
"""Lists being sent at the same time; each may buffer some 16 MB."""
SMALL_BYTES = 1 << 20
"""A list that is all here and no longer than this waits for its client without counting among those."""
LIST_WAIT_S = 10.0
"""How long a list waits for its turn before it is told to come back."""
READ_ONLY = "the server does not allow this method on the requested resource: Shoal is read-only"
PAGES = ("/healthz", "/livez", "/metrics", "/readyz", "/shoal/v1/status", "/version")
"""Besides discovery and resources."""
NO_WATCH = "watches are not served yet: Shoal answers get and list"
NO_SUBRESOURCES = ": Shoal does not serve subresources"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Gateway:
    """A plain ASGI callable. Needs `QueryRouter.routing` to be followed by somebody."""

    def __init__(
        self,
        router: QueryRouter,
        shards: ShardDirectory,
        coordinator: StatusSource,
        *,
        now: Callable[[], datetime] = _utc_now,
        overlook_refused: bool = False,
        lists_at_once: int = LISTS_AT_ONCE,
    ) -> None:
        self._router = router
        self._routing = router.routing
        self._reports = Reports(router.routing, shards, coordinator)
        self._discovery = Discovery()
        self._now = now
        self._overlook_refused = overlook_refused
        self._lists = asyncio.Semaphore(lists_at_once)
        self.metrics = GatewayMetrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            raise ValueError(f"the gateway speaks HTTP only, not {scope['type']}")
        exchange = _Exchange(self.metrics, scope["method"], asyncio.get_running_loop().time())
        send = patient(scope, send)
        with self.metrics.in_progress.track_inprogress():
            try:
                await self._settle(exchange, send, self._respond(exchange, scope, receive, send))
            finally:
                exchange.finish(asyncio.get_running_loop().time())

    async def aclose(self) -> None:
        """Ends what runs besides requests."""
        await self._reports.aclose()

    # -- requests --------------------------------------------------------------------------------------------

    async def _respond(self, exchange: _Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        request = read_request(scope)
        path = parse_path(request.path)
        if isinstance(path, ResourcePath) and path.name is None and request.reads:
            await self._list(exchange, path, request, receive, send)
        else:
            await exchange.send(send, await self._answer(exchange, path, request))

    async def _settle(self, exchange: _Exchange, send: Send, work: Awaitable[None]) -> None:
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
            await exchange.send(send, error_answer(problem))
            return
        self.metrics.aborted.labels("incomplete").inc()
        log.warning("answer broken off", extra={"resource": exchange.resource, "problem": str(problem)})

    async def _answer(
        self, exchange: _Exchange, path: ResourcePath | DiscoveryPath | OtherPath, request: Request
    ) -> Answer:
        if request.method == "OPTIONS":
            return Answer(200, body=b"", headers=(NO_CACHE, ("Allow", "GET, HEAD, OPTIONS")))
        if not request.reads:
            if not self._exists(path):
                return no_such_page()
            raise MethodNotAllowed(READ_ONLY)
        match path:
            case ResourcePath():
                return await self._get(exchange, path, request)
            case DiscoveryPath():
                exchange.verb = "discovery"
                return self._discovery.answer(path, request, self._routing.index)
            case OtherPath():
                return await self._other(exchange, path.path.rstrip("/"), request)

    async def _get(self, exchange: _Exchange, path: ResourcePath, request: Request) -> Answer:
        exchange.verb = "get"
        resource_type = self._resource_type(path)
        if resource_type is None:
            return no_such_page()
        exchange.resource = str(path.identity)
        if path.watching:
            raise MethodNotAllowed(NO_WATCH)
        accepted = _accepted(request)
        accepted.require(is_list=False)
        assert path.name is not None
        query = ObjectQuery(
            resource=path.identity,
            namespace=path.namespace or "",
            name=path.name,
            # All there is in GetOptions: what a list may say besides is no matter here.
            resource_version=request.parameter("resourceVersion") or "",
        )
        answer = await self._router.get(query)
        body = object_form(answer.body, resource_type, accepted, now=self._now())
        return Answer(200, accepted.content_type, body, headers=_headers(answer.provenance))

    async def _list(
        self, exchange: _Exchange, path: ResourcePath, request: Request, receive: Receive, send: Send
    ) -> None:
        exchange.verb = "list"
        resource_type = self._resource_type(path)
        if resource_type is None:
            await exchange.send(send, no_such_page())
            return
        exchange.resource = str(path.identity)
        options = ListOptions.parse(request.parameters, resource_type, watching=path.watching)
        if options.watch:
            raise MethodNotAllowed(NO_WATCH)
        accepted = _accepted(request)
        accepted.require(is_list=True)
        query = CollectionQuery(resource=path.identity, namespace=path.namespace, options=options)
        answering = self._send_list(exchange, query, resource_type, accepted, send)
        if not await unless_gone(receive, self._settle(exchange, send, answering)) and not exchange.stalled:
            self.metrics.aborted.labels("client gone").inc()

    async def _send_list(
        self,
        exchange: _Exchange,
        query: CollectionQuery,
        resource_type: ResourceType,
        accepted: Accepted,
        send: Send,
    ) -> None:
        async with self._turn():
            whole = await self._stream_list(exchange, query, resource_type, accepted, send)
            if whole is None:
                return
            if len(whole.body) > SMALL_BYTES:
                await exchange.send(send, whole)
                return
        await exchange.send(send, whole)

    async def _stream_list(
        self,
        exchange: _Exchange,
        query: CollectionQuery,
        resource_type: ResourceType,
        accepted: Accepted,
        send: Send,
    ) -> Answer | None:
        """Sends a list as it comes; or returns the answer that is all here, when its objects are let go."""
        async with aclosing(await self._router.list(query)) as listing:
            chunks = list_form(listing, resource_type, accepted, now=self._now())
            answer = Answer(200, accepted.content_type, headers=_headers(listing.provenance))
            if (listing.complete or not has_pieces(accepted)) and not exchange.head_only:
                # One write, a Content-Length, and an error can still become a Status.
                return replace(answer, body=b"".join([chunk async for chunk in chunks]))
            answer = replace(answer, chunks=chunks)
            if exchange.head_only:
                return answer
            await exchange.send(send, answer)
            return None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Held while a list is sent, so that many at once do not fill the memory."""
        try:
            async with asyncio.timeout(LIST_WAIT_S):
                await self._lists.acquire()
        except TimeoutError:
            raise TooManyRequests(
                "too many lists are being answered, please try again later", retry_after_s=1
            ) from None
        try:
            yield
        finally:
            self._lists.release()

    def _exists(self, path: ResourcePath | DiscoveryPath | OtherPath) -> bool:
        """Whether there is anything at a path, subresources taken on trust. Raises as `_known`."""
        match path:
            case ResourcePath():
                return self._known(path) is not None
            case DiscoveryPath():
                return self._discovery.serves(path, self._routing.index)
            case OtherPath():
                return path.path.rstrip("/") in ("", *PAGES)

    def _resource_type(self, path: ResourcePath) -> ResourceType | None:
        """The resource a path names; None where kube-apiserver has no page at all.

        Raises:
            UnknownResource: it would answer with a Status.
        """
        known = self._known(path)
        if known is None:
            return None
        if path.subresource is not None:
            raise UnknownResource(NO_SUBRESOURCES)
        if known.namespaced != (path.namespace is not None) and (path.name or not known.namespaced):
            raise UnknownResource
        return known

    def _known(self, path: ResourcePath) -> ResourceType | None:
        routes = self._routing.index
        if routes.epoch == 0:
            raise NotReady(self._routing.problem, retry_after_s=1)
        resource = path.identity
        known = routes.resource_type(resource)
        if known is None:
            excluded = dict(routes.table.excluded).get(str(resource))
            if excluded:
                raise UnknownResource(f": {resource} is not followed: {excluded}")
            if not self._discovery.has_built_in(resource, routes):
                return None
            raise UnknownResource
        return known

    # -- the gateway's own pages -----------------------------------------------------------------------------

    async def _other(self, exchange: _Exchange, path: str, request: Request) -> Answer:
        exchange.verb = path.strip("/").partition("/")[0]
        match path:
            case "":
                return self._paths()
            case "/version":
                if not self._routing.table.server_version:
                    raise NotReady("the API server's version is not known yet", retry_after_s=1)
                return Answer(200, JSON, self._routing.table.server_version)
            case "/livez" | "/healthz":
                return _health([Check("ping")], path[1:], request)
            case "/readyz":
                return _health(await self._checks(), "readyz", request)
            case "/metrics":
                report = await self._reports.latest()
                accept = request.headers.get("accept", "")
                body, content_type = self.metrics.scrape(self._routing.table, report, accept)
                return Answer(200, content_type, body)
            case "/shoal/v1/status":
                return await self._status()
            case _:
                exchange.verb = "other"
                return no_such_page()

    def _paths(self) -> Answer:
        groups = {known.resource.root for known in self._routing.table.catalogue}
        paths = sorted({*groups, "/api", "/apis", *PAGES})
        return Answer(200, JSON, msgspec.json.encode({"paths": paths}) + b"\n")

    async def _checks(self) -> list[Check]:
        return readiness(
            self._routing.table,
            await self._reports.latest(),
            problem=self._routing.problem,
            overlook_refused=self._overlook_refused,
        )

    async def _status(self) -> Answer:
        checks = await self._checks()
        waiting_for = tuple(f"{check.name} {check.problem}" for check in checks if check.problem)
        status = InstallationStatus(
            shoal_version=__version__,
            ready=not waiting_for,
            waiting_for=waiting_for,
            report=await self._reports.latest(),
        )
        return Answer(200, JSON, msgspec.json.encode(status) + b"\n")


class _Exchange:
    """One request being answered: what is counted about it."""

    def __init__(self, metrics: GatewayMetrics, method: str, began: float) -> None:
        self._metrics = metrics
        self._began = began
        self.head_only = method == "HEAD"
        self.verb = "other"
        self.resource = ""
        self.code = 0
        """Status sent; 0 as long as none was."""
        self.stalled = False
        """The client did not take the answer."""

    async def send(self, send: Send, answer: Answer) -> None:
        """Sends the answer, once. A client that does not take it is counted, and is nobody's problem."""
        self.code = answer.status
        try:
            sent = await send_answer(send, answer, head_only=self.head_only)
        except ClientStalled:
            self.stalled = True
            self._metrics.aborted.labels("client stalled").inc()
            log.info("answer not taken", extra={"verb": self.verb, "resource": self.resource})
            return
        self._metrics.response_bytes.labels(self.verb).inc(sent)

    def finish(self, now: float) -> None:
        """Counts it."""
        self._metrics.requests.labels(self.verb, self.resource, str(self.code)).inc()
        self._metrics.query_seconds.labels(self.verb).observe(now - self._began)


def _accepted(request: Request) -> Accepted:
    return negotiate(
        request.headers.get("accept"),
        include_object=request.parameter("includeObject") or "",
        pretty=request.parameter("pretty") in ("1", "true"),
    )


def _headers(provenance: Provenance) -> Headers:
    age = () if provenance.age_s is None else (("Shoal-Age", f"{provenance.age_s:.3f}"),)
    return (
        NO_CACHE,
        ("Shoal-Frontier", str(provenance.frontier)),
        *age,
        ("Shoal-Shards", ",".join(provenance.shards)),
    )


def _health(checks: list[Check], name: str, request: Request) -> Answer:
    excluded = [value for key, value in request.parameters if key == "exclude"]
    well, text = render_checks(
        checks, name, exclude=excluded, verbose=request.parameter("verbose") is not None
    )
    return text_answer(text, 200 if well else 503)
