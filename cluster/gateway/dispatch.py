"""Who answers: a request that may be answered, to the part of the gateway that can.

============================  ===============================================================================
an object, a collection       `reading`, `watches`
``/api``, ``/apis``           `discovery`
``/openapi``                  `openapi`: the API server's own, mirrored
``/shoal/v1/count``           `counting`
other pages                   `pages`
a review of oneself           `self_reviews`
``/shoal/v1/explain``         `operating`, and ``/shoal/v1/orders``: what people ask of the coordinator
a method that writes          405 where the API server has something, or `writing`, which forwards it there
============================  ===============================================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from ...shards.model.errors import MethodNotAllowed
from ..query.request import CollectionQuery
from ..query.routing import Routing
from ..serving.options import ListOptions
from ..serving.paths import DiscoveryPath, OtherPath, RequestPath, ResourcePath
from ..watching.forms import line_form
from . import counting, description
from .asked import Asked
from .authorization import Authorization
from .counting import Counting
from .discovery import Discovery
from .http import NO_CACHE, Answer, Request, no_such_page
from .openapi import OpenApiMirror, is_openapi
from .operating import Operating
from .pages import PAGES, Pages
from .reading import Reading, accepted_form
from .resources import Resources
from .self_reviews import SelfReviews
from .watches import Watches
from .writing import LONG_SUBRESOURCES, Forwarder

READ_ONLY = "the server does not allow this method on the requested resource: Shoal is read-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """The parts of one gateway."""

    routing: Routing
    resources: Resources
    discovery: Discovery
    reading: Reading
    watches: Watches
    counting: Counting
    pages: Pages
    openapi: OpenApiMirror | None
    forwarder: Forwarder | None
    operating: Operating
    self_reviews: SelfReviews
    authorization: Authorization
    now: Callable[[], datetime]

    async def answer(self, asked: Asked) -> None:
        """Answers one request.

        Raises:
            ShoalError: why it cannot be, as a Status; once something has been sent, why it cannot be completed.
        """
        request, exchange = asked.request, asked.exchange
        if self.self_reviews.takes(request, asked.path):
            await self.self_reviews.answer(asked)
        elif self.operating.takes(asked.path):
            await self.operating.answer(asked)
        elif self.forwards(request, asked.path):
            await self._forward(asked)
        elif request.method == "OPTIONS":
            await exchange.send(Answer(200, body=b"", headers=(NO_CACHE, ("Allow", self.methods))))
        elif not request.reads:
            await self._write(asked)
        elif isinstance(asked.path, ResourcePath):
            await self._read(asked, asked.path)
        elif isinstance(asked.path, OtherPath) and asked.path.path.rstrip("/") == counting.PATH:
            exchange.verb = "count"
            await self.counting.count(asked)
        else:
            await exchange.send(await self._page(asked, asked.path))

    @property
    def methods(self) -> str:
        """What an ``Allow`` header says."""
        return "GET, HEAD, OPTIONS" + (", POST, PUT, PATCH, DELETE" if self.forwarder is not None else "")

    # -- resources -------------------------------------------------------------------------------------------

    async def _read(self, asked: Asked, path: ResourcePath) -> None:
        exchange, request = asked.exchange, asked.request
        exchange.verb = "list" if path.name is None else "get"
        resource_type = self.resources.readable(path)
        if resource_type is None:
            await exchange.send(no_such_page())
            return
        exchange.resource = str(path.identity)
        if path.name is not None and not path.watching:
            await exchange.send(await self.reading.get(asked, path, resource_type))
            return
        options = ListOptions.parse(request.parameters, resource_type, watching=path.watching)
        if options.watch:
            exchange.verb = "watch"
            await self._watch(asked, path, options)
        elif not await self.reading.list(asked, path, resource_type, options) and not exchange.stalled:
            exchange.metrics.aborted.labels("client gone").inc()

    async def _watch(self, asked: Asked, path: ResourcePath, options: ListOptions) -> None:
        if path.name is not None:
            options = options.naming(path.name)
        accepted = accepted_form(asked.request, stream=True)
        form = line_form(accepted, self.now)
        query = CollectionQuery(resource=path.identity, namespace=path.namespace, options=options)

        def revoked() -> Awaitable[object]:
            return self.authorization.revoked(asked.user, asked.attributes)

        await self.watches.serve(asked, query, form, accepted.content_type, revoked)

    # -- everything else -------------------------------------------------------------------------------------

    async def _page(self, asked: Asked, path: RequestPath) -> Answer:
        exchange, request = asked.exchange, asked.request
        if isinstance(path, DiscoveryPath):
            exchange.verb = "discovery"
            return self.discovery.answer(path, request, self.routing.index)
        if self.openapi is not None and is_openapi(request.path):
            exchange.verb = "openapi"
            return await self.openapi.answer(request) or no_such_page()
        page = request.path.rstrip("/")
        if page == description.PATH:
            exchange.verb = "openapi"
            return description.answer(request)
        if page in PAGES:
            exchange.verb = page.strip("/").partition("/")[0]
        return await self.pages.answer(page, request) or no_such_page()

    async def _write(self, asked: Asked) -> None:
        asked.exchange.verb = "write"
        if self._exists(asked.path):
            raise MethodNotAllowed(READ_ONLY)
        await asked.exchange.send(no_such_page())

    def forwards(self, request: Request, path: RequestPath) -> bool:
        """Whether the API server answers, which then also decides who may."""
        if self.forwarder is None or self.self_reviews.takes(request, path):
            return False
        return self.forwarder.takes(request, path)

    async def _forward(self, asked: Asked) -> None:
        forwarder, request, path = self.forwarder, asked.request, asked.path
        assert forwarder is not None
        assert isinstance(path, ResourcePath)
        exchange = asked.exchange
        exchange.verb = "forward"
        exchange.compresses = False  # what trickles in, such as a log, must not wait for more
        if request.reads and path.subresource in LONG_SUBRESOURCES:  # it stays as a watch does
            asked.place.becomes_watch()
        try:
            await forwarder.forward(asked)
        finally:
            if self.routing.index.resource_type(path.identity) is None:
                exchange.resource = ""

    def _exists(self, path: RequestPath) -> bool:
        """Whether there is anything at a path, subresources taken on trust. Raises as `Resources.known`."""
        match path:
            case ResourcePath():
                return self.resources.served(path.identity)
            case DiscoveryPath():
                return self.discovery.serves(path, self.routing.index)
            case OtherPath():
                return path.path.rstrip("/") in ("", *PAGES)
