"""The embedded API server as an ASGI application: routes a request to discovery, lists, watches and
writes.

Glue only: rules are in `listing`, `watching`, `verbs` and the others, which know nothing of HTTP. The app
runs under uvicorn (`server`) or is called directly, without a socket and in virtual time, by tests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from ...shards.model.errors import MethodNotAllowed, NotFound, ShoalError, TooLargeVersion
from ...shards.model.versions import Version
from ..serving.documents import present
from ..serving.identity import User, request_attributes
from ..serving.negotiation import (
    discovery_content_type,
    negotiate,
    negotiate_discovery,
    negotiate_document,
    wants_pretty,
)
from ..serving.options import ListOptions
from ..serving.paths import DiscoveryPath, OtherPath, ResourcePath, parse_path
from . import listing
from .access import Access
from .control import Control
from .endpoints import VERSION, endpoint
from .faults import Aborted, Faults, Refused, Target
from .openapi import OpenApi
from .rendering import Form
from .requests import Exchange, Receive, Scope, Send
from .selection import Predicate, ShardSelector, parse_shard_selector, predicate
from .served import Served
from .settings import SimulatorSettings
from .streams import FaultySink
from .verbs import Verbs
from .watching import Watch, Window
from .writing import Writing

log = logging.getLogger("shoal.cluster.simulator")

VERSION_WAIT_S = 3.0
"""How long a list waits for a version that has not been reached (``blockTimeout`` of the watch cache)."""
_COLLECTION_VERBS = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
_OBJECT_VERBS = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES = ("status", "scale", "eviction")
"""Those that are served; others answer 404, as a kind without them does."""


@dataclass
class ApiServerApp:
    """The ASGI callable. One event loop, one writer: everything between two awaits is atomic."""

    verbs: Verbs
    faults: Faults
    access: Access
    settings: SimulatorSettings
    now: Callable[[], datetime]
    rng: Random
    failing: set[str] = field(default_factory=set)
    """Health checks that do not pass; ``/readyz`` and its siblings answer 500 while there are any."""
    streams: set[Watch] = field(init=False, default_factory=set)
    _closing: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.storage = self.verbs.storage
        self.catalogue = self.verbs.catalogue
        self.openapi = OpenApi(
            self.catalogue,
            self.storage,
            server_version=VERSION["gitVersion"],
            now=self.now,
        )
        self._writing = Writing(self.verbs, self.access, self.now, self.openapi)
        self.control = Control(self.faults, self.storage)
        self._window = Window(
            self.rng,
            self.now,
            self.settings.bookmark_period_s,
            self.settings.min_timeout_s,
            self.settings.backlog_events,
        )

    def close(self) -> None:
        """Ends every stream, and every one opened from now on at once."""
        self._closing = True
        for stream in tuple(self.streams):
            stream.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI scope; anything but HTTP and lifespan is refused by returning."""
        match scope["type"]:
            case "lifespan":
                await _lifespan(receive, send)
            case "http":
                await self._serve(Exchange(scope, receive, send))
            case _:
                return

    async def _serve(self, exchange: Exchange) -> None:
        try:
            await self._route(exchange)
        except Aborted as aborted:
            if aborted.kind:
                self.faults.happened(aborted.kind)
            await exchange.abort()
        except Refused as refused:
            self.faults.happened(refused.kind)
            await exchange.error(refused.error)
        except ShoalError as error:
            if exchange.started:
                log.warning("answer broke off", extra={"path": exchange.path, "error": str(error)})
                await exchange.abort()
            else:
                await exchange.error(error)
        except Exception as accident:  # a client gets a Status from an API server, whatever happens in it
            log.exception("request failed", extra={"path": exchange.path})
            if exchange.started:
                await exchange.abort()
            else:
                await exchange.error(ShoalError(f"Internal error occurred: {accident}"))

    async def _route(self, exchange: Exchange) -> None:
        if exchange.path.startswith(Control.ROOT):
            await self.control.serve(exchange)
            return
        user = self.access.authenticate(exchange.first("authorization"), exchange.certificate)
        user = self.access.act_as(user, exchange.fields)
        match parse_path(exchange.path):
            case ResourcePath() as path:
                await self._resource(exchange, path, user)
            case DiscoveryPath() as path:
                await self._other_access(exchange, user)
                await self._discovery(exchange, path)
            case OtherPath(path=text):
                await self._other_access(exchange, user)
                if exchange.method in ("GET", "HEAD") and await self.openapi.serve(exchange):
                    return
                found = endpoint(text, exchange.query, self.failing)
                if found is None or exchange.method not in ("GET", "HEAD"):
                    await exchange.missing()
                else:
                    await exchange.answer(*found)

    async def _other_access(self, exchange: Exchange, user: User) -> None:
        await self.faults.before_answer(Target(verb="get"))
        self.access.authorize(user, request_attributes(exchange.method, exchange.path, ()))

    # -- discovery ----------------------------------------------------------------------------------

    async def _discovery(self, exchange: Exchange, path: DiscoveryPath) -> None:
        if exchange.method != "GET":
            raise _method_not_allowed()
        documents = self.catalogue.documents
        form = negotiate_discovery(exchange.header("accept"))
        if form != "legacy" and self.settings.aggregated_discovery and not (path.group or path.version):
            body, etag = documents.aggregated(path.root, form)
            headers = ((b"cache-control", b"public"), (b"etag", etag.encode()), (b"vary", b"Accept"))
            unchanged = exchange.header("if-none-match") == etag
            await exchange.answer(
                304 if unchanged else 200,
                discovery_content_type(form),
                b"" if unchanged else body,
                *headers,
            )
            return
        found: bytes | None
        match path:
            case DiscoveryPath(root="api", version=None):
                found = documents.api_versions(exchange.server_address)
            case DiscoveryPath(root="apis", group=None):
                found = documents.groups()
            case DiscoveryPath(version=None):
                found = documents.group(path.group or "")
            case _:
                found = documents.resources(path.group or "", path.version or "")
        if found is None:
            await exchange.missing()
        else:
            # A server that knows no aggregated form answers who asks for it in this one; of a group or a version
            # alone there never is one (``DefaultEndpointRestrictions``).
            rooted = not (path.group or path.version)
            accept = None if rooted and form != "legacy" else exchange.header("accept")
            accepted = negotiate_document(accept, pretty=_pretty(exchange))
            await exchange.answer(200, accepted.content_type, present(found, accepted))

    # -- resources ----------------------------------------------------------------------------------

    async def _resource(self, exchange: Exchange, path: ResourcePath, user: User) -> None:
        served = self.catalogue.find(path.identity)
        attributes = request_attributes(exchange.method, exchange.path, exchange.query, path)
        verb = (_OBJECT_VERBS if path.name else _COLLECTION_VERBS).get(exchange.method, "")
        if path.watching:
            verb = "watch" if exchange.method == "GET" else ""
        elif verb == "list" and attributes.verb == "watch":
            verb = "watch"
        if path.subresource == "eviction":  # it is made, and is nothing afterwards
            verb = "create" if exchange.method == "POST" else ""
        self.access.authorize(user, attributes)
        if served is None or (path.namespace is not None and not served.type.namespaced):
            if self.catalogue.is_builtin_group(path.group, path.version):
                raise NotFound("the server could not find the requested resource", details={})
            await exchange.missing()
            return
        target = Target(path.identity.qualified_name, verb, path.namespace)
        await self.faults.before_answer(target)
        if path.subresource is not None and (
            path.watching
            or path.subresource not in _SUBRESOURCES
            or path.subresource not in served.type.subresources
        ):
            raise NotFound("the server could not find the requested resource", details={})
        if not verb or verb not in served.type.verbs:
            raise _method_not_allowed()
        match verb:
            case "watch":
                await self._watch(exchange, path, served, target)
            case "list":
                await self._list(exchange, path, served, target)
            case _:
                await self._object(exchange, path, served, verb, user)

    async def _object(
        self, exchange: Exchange, path: ResourcePath, served: Served, verb: str, user: User
    ) -> None:
        if verb == "get":
            # NB: of a version that is no number a GET says what a WATCH says, and not what a LIST does.
            demand = ListOptions(resource_version=exchange.parameter("resourceVersion"))
            await self._reach(demand.watch_version())
        await self._writing.serve(exchange, path, served, verb, user)

    def _options(
        self, exchange: Exchange, path: ResourcePath, served: Served, target: Target, *, in_path: bool
    ) -> tuple[ListOptions, Predicate | None, ShardSelector | None]:
        """The parameters of a LIST or WATCH and what they select; `in_path` tests the path's namespace
        too.
        """
        options = ListOptions.parse(
            exchange.query, served.type, watching=path.watching, watch_list=self.settings.watch_list
        )
        if path.name is not None:
            options = options.naming(path.name)
        namespace = path.namespace if in_path else None
        shards = parse_shard_selector(options.shard_selector) if self.settings.shard_selector else None
        selecting = options.label_selector or options.field_selector or shards
        if selecting and self.faults.take(("ignore-selectors",), target):
            self.faults.happened("ignore-selectors")
            shards = None
            matches = predicate(served, namespace=namespace)
        else:
            matches = predicate(
                served,
                labels=options.label_selector,
                fields=options.field_selector,
                shards=shards,
                namespace=namespace,
            )
        return options, matches, shards

    def _form(self, exchange: Exchange, served: Served, *, stream: bool) -> Form:
        return Form(
            served,
            negotiate(
                exchange.header("accept"),
                stream=stream,
                include_object=exchange.parameter("includeObject"),
                pretty=_pretty(exchange),
            ),
        )

    async def _list(self, exchange: Exchange, path: ResourcePath, served: Served, target: Target) -> None:
        form = self._form(exchange, served, stream=False)
        options, matches, shards = self._options(exchange, path, served, target, in_path=False)
        await self._reach(listing.awaited(options))
        page = listing.answer(
            self.storage,
            self.verbs.collection(served),
            options,
            namespace=path.namespace,
            matches=matches,
            shards=shards,
        )
        body = form.list(page.objects, page.metadata, now=self.now())
        fault = self.faults.take(("cut", "truncate"), target)
        if fault is not None:
            await exchange.begin(200, form.accepted.content_type)
            await exchange.write(body[: self.faults.pick(len(body) - 2)])
            raise Aborted(fault.kind)
        if self.faults.take(("garbage",), target):
            body = body[: len(body) // 2] + self.faults.noise()
        await exchange.answer(200, form.accepted.content_type, body)

    async def _reach(self, version: Version) -> None:
        """Waits for a version.

        Raises:
            TooLargeVersion: it was not reached in time.
        """
        if version <= self.storage.revision:
            return
        moved = asyncio.Event()
        self.storage.subscribers.add(moved.set)
        try:
            async with asyncio.timeout(VERSION_WAIT_S):
                while version > self.storage.revision:
                    moved.clear()
                    await moved.wait()
        except TimeoutError:
            raise TooLargeVersion(version, self.storage.revision) from None
        finally:
            self.storage.subscribers.discard(moved.set)

    async def _watch(self, exchange: Exchange, path: ResourcePath, served: Served, target: Target) -> None:
        form = self._form(exchange, served, stream=True)
        options, matches, _ = self._options(exchange, path, served, target, in_path=True)
        form.accepted.require(is_list=False)
        watch = Watch(self.storage, self.verbs.collection(served), form, options, matches, self._window)
        await exchange.begin(200, form.accepted.content_type)
        sink = FaultySink(self.faults, target, exchange.write)
        self.streams.add(watch)
        self.faults.pokes.add(watch.poke)
        if self._closing:
            watch.end()
        gone = asyncio.create_task(exchange.disconnected(), name=f"disconnect {exchange.path}")
        pump = asyncio.create_task(watch.run(sink), name=f"watch {exchange.path}")
        try:
            await asyncio.wait((gone, pump), return_when=asyncio.FIRST_COMPLETED)
            if not pump.done():
                return  # nobody is there to be told
            pump.result()
            if watch.broken:
                raise Aborted
            await exchange.finish()
        finally:
            self.streams.discard(watch)
            self.faults.pokes.discard(watch.poke)
            gone.cancel()
            pump.cancel()
            await asyncio.gather(gone, pump, return_exceptions=True)


def _pretty(exchange: Exchange) -> bool:
    return wants_pretty(exchange.parameter("pretty"), exchange.header("user-agent"))


def _method_not_allowed() -> MethodNotAllowed:
    return MethodNotAllowed("the server does not allow this method on the requested resource", details={})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        match message["type"]:
            case "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            case "lifespan.shutdown":
                await send({"type": "lifespan.shutdown.complete"})
                return
            case _:
                pass
