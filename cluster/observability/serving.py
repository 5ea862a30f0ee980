"""`serve_health`: a small HTTP server for whoever watches over a program: ``/metrics``, ``/healthz``, ``/readyz``.

    >>> async def serves():
    ...     async with shoal.local(url=api_server_url) as client:
    ...         await client.informer("v1/pods", namespace="shop").synced()
    ...         async with await shoal.serve_health(client, listen="127.0.0.1:0") as server:  # a free port
    ...             return await asyncio.to_thread(get, server.url + "/readyz?verbose")
    >>> print(asyncio.run(serves()))
    [+]client ok
    [+]informer/v1/pods in shop ok
    readyz check passed

For a blocking client: ``client.run(shoal.serve_health, listen="0.0.0.0:9090")``.

===================== ==================================================================================================
``/readyz``           200 once everything asked for is there, 503 before, with what lacks
``/healthz``          200 unless something hangs for too long (`HealthBounds.hung_live_s`); ``/livez`` is the same
``/metrics``          what the registry has, in the format that is asked for
===================== ==================================================================================================

Health is answered as by kube-apiserver: ``?verbose`` lists every check, and warns of problems that keep nobody from
working; ``?exclude=informer/v1/secrets`` leaves one out. The server runs on the client's event loop, so that an event
loop that is blocked fails a probe; metrics are put together in a thread meanwhile. It ends with the client.

It asks nobody who they are, as exporters do. What it tells are names and numbers, and in problems the keys of objects.
On loopback, where a page in a browser might ask, only names of this machine are answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final, Self, TypeAlias
from urllib.parse import parse_qsl

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

from ..connection import ConnectionLimits
from ..controller.controller import Controller
from ..controller.leader import LeaderElector
from ..gateway.doorway import names_loopback
from ..gateway.server import parse_listen
from ..listening import HttpServer, bind
from ..serving.checks import Check, render_checks
from ..workqueue.queue import WorkQueue
from .health import HealthBounds
from .observed import ObservedClient
from .registering import Registered, hub_of, metrics

log = logging.getLogger("shoal.cluster.observability")

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LIMITS: Final = ConnectionLimits(head_bytes=16 << 10, head_s=10.0, connections=64)
"""Kubelets and scrapers are few, and ask little."""
PATHS: Final = ("/healthz", "/livez", "/metrics", "/readyz")
_TEXT: Final = "text/plain; charset=utf-8"


class HealthServer:
    """The server; close it, or leave its ``async with`` block. Made by `serve_health`."""

    def __init__(self, server: HttpServer, ends: Callable[[], None]) -> None:
        self._server = server
        self._ends = ends

    @property
    def url(self) -> str:
        """What this machine dials."""
        return self._server.url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port

    async def aclose(self) -> None:
        """Stops serving. Safe to repeat."""
        await self._server.stop()
        self._ends()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def serve_health(
    client: ObservedClient,
    *,
    listen: str = "127.0.0.1:9090",
    controllers: Iterable[Controller] = (),
    queues: Iterable[WorkQueue[Any]] = (),
    leaders: Iterable[LeaderElector] = (),
    registry: CollectorRegistry = REGISTRY,
    bounds: HealthBounds | None = None,
) -> HealthServer:
    """Serves until the result, or the client, is closed.

    Args:
        client: Asynchronous, on whose event loop this is called.
        listen: ``HOST:PORT``; port 0 takes a free one.
        controllers: With `queues` and `leaders` as for `metrics`; to be left out if the client is in the registry
            already, with its own.
        queues: See there.
        leaders: See there.
        registry: What ``/metrics`` exposes. The client is put into it, unless it is there.
        bounds: From when on something is a problem, for health and ``shoal_client_live`` alike; those of the
            registration if the client is in the registry already.

    Raises:
        SettingsError: `listen` has another form, or cannot be listened on.
        ValueError, TypeError: as `metrics`; controllers and the like, or other bounds, are given, although the client
            is registered.
    """
    host, port = parse_listen(listen)
    controllers, queues, leaders = tuple(controllers), tuple(queues), tuple(leaders)
    registered = hub_of(registry).find(client)
    mine = registered is None
    if registered is None:
        registered = metrics(
            client, controllers=controllers, queues=queues, leaders=leaders, registry=registry, bounds=bounds
        )
    elif controllers or queues or leaders:
        raise ValueError(
            f"the {client!r} is in this registry already: give controllers, queues and leaders to shoal.metrics"
        )
    elif bounds is not None and bounds != registered.observed.bounds:
        raise ValueError(
            f"the {client!r} is in this registry already, with other bounds: give them to shoal.metrics"
        )
    ends = registered.close if mine else _nothing
    try:
        listener = bind(host, port)
        app = _App(registered, registry, guarded=names_loopback(host))
        server = HttpServer(app, listener, limits=LIMITS)
        await server.start()
    except BaseException:
        ends()
        raise
    found = HealthServer(server, ends)
    client.at_close(found.aclose)
    log.info("serving health", extra={"url": found.url})
    return found


def _nothing() -> None:
    """The registration is somebody else's."""


class _App:
    """The ASGI application."""

    def __init__(self, registered: Registered, registry: CollectorRegistry, *, guarded: bool) -> None:
        self._observed = registered.observed
        self._registry = registry
        self._guarded = guarded

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            status, content_type, body = await self._answer(scope, headers)
        except Exception:
            log.exception("request failed", extra={"path": scope["path"]})
            status, content_type, body = 500, _TEXT, b"internal error: see the log\n"
        more = [(b"allow", b"GET, HEAD")] if status == 405 else []
        head = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-cache, private"),
            (b"x-content-type-options", b"nosniff"),
            *more,
        ]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        if self._guarded and not names_loopback(headers.get("host", "localhost")):
            return 403, _TEXT, b"only requests to localhost, 127.0.0.1 or [::1] are answered here\n"
        path = scope["path"].rstrip("/")
        if path not in PATHS:
            return 404, _TEXT, f"not found; there are {', '.join(PATHS)}\n".encode()
        if scope["method"] not in ("GET", "HEAD"):
            return 405, _TEXT, b"method not allowed: only GET and HEAD are\n"
        if path == "/metrics":
            return await self._metrics(headers.get("accept", ""))
        return self._health(path.removeprefix("/"), scope["query_string"])

    def _health(self, name: str, query: bytes) -> tuple[int, str, bytes]:
        asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        verbose = any(key == "verbose" for key, _ in asked)
        health = self._observed.now().health
        checks: list[Check] = [*(health.ready_checks if name == "readyz" else health.live_checks)]
        exclude = [value for key, value in asked if key == "exclude"]
        well, text = render_checks(checks, name, exclude=exclude, verbose=verbose)
        if verbose:
            text += "".join(f"warn: {problem}\n" for problem in health.problems)
        return 200 if well else 503, _TEXT, text.encode()

    async def _metrics(self, accept: str) -> tuple[int, str, bytes]:
        encode, content_type = choose_encoder(accept)
        # In a thread: clients of other event loops may be in the registry, and have to be waited for.
        body: bytes = await asyncio.to_thread(encode, self._registry)
        return 200, content_type, body
