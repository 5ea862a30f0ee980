"""`connect` to a running Shoal, or `local` straight to an API server: the same `Client` over another server.

A gateway is a Kubernetes API server, so listers and informers are the same code for both; what a Shoal knows beyond
(counts, indexes its settings declare, how fresh an answer is) listers ask for and do without elsewhere. `sync` has the
twin for programs that block.

    >>> async def images(address):
    ...     async with shoal.connect(address) as client:
    ...         pods = await client.lister("v1/pods").list("shop", label_selector="app=web")
    ...         return [pod.spec.containers[0].image for pod in pods]
    >>> asyncio.run(images(gateway_url))
    ['nginx:1.29', 'nginx:1.29']

    >>> async def follow(address):
    ...     async with shoal.local(url=address) as client:
    ...         pods = client.informer("v1/pods", namespace="shop")
    ...         seen = []
    ...         told = pods.add_handler(on_add=lambda pod, is_initial: seen.append(pod.name))
    ...         await told.synced()
    ...         return sorted(seen)
    >>> asyncio.run(follow(api_server_url))
    ['db-0', 'web-0', 'web-1']
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from ...shards.api.client import ApiConnection, ApiResponse, Credentials, HttpConnection
from ...shards.api.requests import ApiRequest
from ...shards.model.errors import BadRequest, ConnectionFailed
from ...shards.model.resources import Resource
from ...shards.settings import ApiSettings
from ..controller.controller import Controller
from ..informers.factory import InformerFactory
from ..informers.informer import Informer
from ..informers.loops import OneLoop
from ..informers.settings import InformerSettings
from ..informers.transforms import Transform
from ..observability.health import Health, HealthBounds
from ..observability.observed import look
from .counting import Counting
from .credentials import DEFAULT_URL, Identity, credentials_for, found_access
from .lister import Lister, Source
from .resources import Served
from .retrying import TIMEOUT_S, Asking
from .seeking import Sought, SoughtConnection

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
from .writing import Writer


class ClientOptions(TypedDict, total=False):
    """What `connect` and `local` take besides where the server is."""

    in_cluster: bool
    """Ask as the service account of this pod."""
    token: str | None
    """Bearer token."""
    token_file: str | None
    """File with one, read again every minute and when the server does not know it. While it is empty or cannot be read
    the last token is kept, and the file read again every 2 s."""
    ca: str | None
    """File with the authorities that the server's certificate may be of, PEM; else those of the system. With a
    kubeconfig they are trusted beside its own."""
    client_certificate: str | None
    client_key: str | None
    """Files, PEM. They and `ca` are read again as `token_file` is, and when TLS fails."""
    insecure_skip_tls_verify: bool
    """Believe any server. Whoever is between reads the token and the answers."""
    timeout_s: float
    """Seconds that a call may take unless it says otherwise; 30."""
    api: ApiSettings
    """Of the connection."""
    informers: InformerSettings
    """Of all informers of this client."""
    tracer_provider: TracerProvider | None
    """Of OpenTelemetry, for the spans of handlers; by default the one that is set up for the process."""


class Client:
    """A client of one server. Belongs to the event loop that uses it first; nothing is sent before its first use.

    Args:
        connection: How the server is reached; closed with the client.
        where: What messages call the server.
        timeout_s: Seconds a call may take unless it says otherwise.
        informers: Settings of the informers.
        rng: Where jitter comes from; a seeded one makes runs repeatable.
        tracer_provider: Of OpenTelemetry, for the spans of handlers; None: the one of the process, if it has one.
    """

    def __init__(
        self,
        connection: ApiConnection,
        *,
        where: str,
        timeout_s: float = TIMEOUT_S,
        informers: InformerSettings | None = None,
        rng: random.Random | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        rng = rng or random.Random()
        self.where = where
        loop = OneLoop(f"the client of {where}", "make a client in each, or use shoal.sync")
        self._connection = _Connection(connection, where, loop)
        asking = Asking(self._connection, timeout_s=timeout_s, rng=rng)
        self._source = Source(asking, Served(asking), Counting(asking))
        self._factory = InformerFactory(
            self._connection,
            settings=informers,
            rng=random.Random(rng.getrandbits(64)),
            tracer_provider=tracer_provider,
            loop=loop,
        )
        self._at_close: list[Callable[[], Awaitable[None] | None]] = []

    def __repr__(self) -> str:
        return f"<client of {self.where}>"

    @property
    def connection(self) -> ApiConnection:
        """The connection itself, for leader election and for what has no method here."""
        return self._connection

    @property
    def discovery(self) -> Served:
        """What the server serves."""
        return self._source.served

    @property
    def informers(self) -> InformerFactory:
        """The factory of this client's informers; closed with it."""
        return self._factory

    def lister(self, resource: Resource | str, namespace: str | None = None) -> Lister:
        """Reads objects of a resource: ``v1/pods``, ``apps/v1/deployments``, ``deployments.apps``, ``deploy``."""
        return Lister(self._source, resource, namespace)

    def writer(self, resource: Resource | str, namespace: str | None = None) -> Writer:
        """Writes objects of a resource. Through a Shoal only if it passes writes on (``gateway.writes: forward``)."""
        return Writer(self._connection, self._source.asking, self._source.served, resource, namespace)

    def informer(
        self,
        resource: Resource | str,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        shard_selector: str = "",
        transform: Transform | None = None,
        resync_s: float | None = None,
        wait: bool = False,
    ) -> Informer:
        """An informer, shared with whoever asks for the same; see `InformerFactory.informer`."""
        return self._factory.informer(
            resource,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            shard_selector=shard_selector,
            transform=transform,
            resync_s=resync_s,
            wait=wait,
        )

    def health(self, *, controllers: Iterable[Controller] = (), bounds: HealthBounds | None = None) -> Health:
        """How its informers are, and the controllers that are given: ready, live, and what is wrong, as sentences."""
        return look(self._factory, controllers, bounds)

    def at_close(self, function: Callable[[], Awaitable[None] | None]) -> None:
        """Has `aclose` call a function, or await a coroutine function, before it ends anything: the last one first."""
        self._at_close.append(function)

    async def aclose(self) -> None:
        """Ends what was to end with it, informers, then the connection. Safe to repeat."""
        try:
            while self._at_close:
                ending = self._at_close.pop()()
                if ending is not None:
                    await ending
        finally:
            try:
                await self._factory.aclose()
            finally:
                await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Connection:
    """`ApiConnection` that stays closed once it was, where `HttpConnection` would begin anew, and stays on its loop."""

    def __init__(self, connection: ApiConnection, where: str, loop: OneLoop) -> None:
        self._connection = connection
        self._where = where
        self._closed = False
        self._loop = loop

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[ApiResponse]:
        self._require_open()
        async with self._connection.open(request) as response:
            yield response

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[ApiConnection]:
        self._require_open()
        async with self._connection.pinned() as pinned:
            yield pinned

    async def aclose(self) -> None:
        self._closed = True
        await self._connection.aclose()

    def _require_open(self) -> None:
        if self._closed:
            closed = ConnectionFailed(f"the client of {self._where} was closed")
            closed.sent = False
            raise closed
        self._loop.require()


def connect(
    url: str | None = None,
    *,
    ray_address: str | None = None,
    kubeconfig: str | None = None,
    context: str | None = None,
    **options: Unpack[ClientOptions],
) -> Client:
    """A client of a running Shoal; ``async with`` it, or `Client.aclose` it.

    Where Shoal is: `url`; or the Ray cluster it runs on; or the server of a kubeconfig that names it; or, if nothing
    says, $SHOAL_SERVER and then its default address on this machine. Who asks: the kubeconfig, whose own server `url`
    or `ray_address` replace; or this pod (``in_cluster=True``); or a token ($SHOAL_TOKEN if none is given) or a client
    certificate.

    Args:
        url: Of a gateway, such as ``https://shoal.example.com:7480``.
        ray_address: Of the Ray cluster: ``auto``, or ``HOST:PORT`` of its head.
        kubeconfig: A file, or several separated by colons.
        context: Of that kubeconfig; alone, of $KUBECONFIG or ``~/.kube/config``.
        options: See `ClientOptions`.

    Raises:
        BadRequest: arguments that contradict each other; a token for a server that is reached over plain HTTP.
        KubeconfigError, SettingsError: a file that is not there or cannot be used.
    """
    if url is not None and ray_address is not None:
        raise BadRequest("url and ray_address exclude each other: both say where Shoal is")
    identity = _identity(kubeconfig, context, options)
    if url is None and ray_address is None and not identity.named:
        url = os.environ.get("SHOAL_SERVER") or None
        if url is None and identity.in_cluster:
            raise BadRequest(
                "in_cluster says who asks, not where Shoal is: give url or ray_address (`local` asks the API server)"
            )
        url = url or DEFAULT_URL
    identity = _with_environment(identity)
    access = identity.access()
    if ray_address is not None:
        from .ray_address import find_gateway

        address = ray_address

        async def find() -> str:
            return await find_gateway(address)

        def make(found: str) -> Credentials:
            return credentials_for(found, identity, access)

        return _client(Sought(find, make), f"the Shoal on Ray at {ray_address}", options)
    return _client(credentials_for(url, identity, access), url or f"{access}", options)


def local(
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    url: str | None = None,
    **options: Unpack[ClientOptions],
) -> Client:
    """A client straight of an API server, without any Shoal; ``async with`` it, or `Client.aclose` it.

    Without arguments it is the one that client-go would take: of $KUBECONFIG or ``~/.kube/config``, or in a pod, where
    there is neither, that of its service account. `url` replaces the server of the kubeconfig, or is, without one, a
    server to be asked with a token, a client certificate, or nothing. Raises as `connect`.
    """
    identity = _identity(kubeconfig, context, options)
    access = identity.access()
    if access is None and url is None:
        access = found_access()
    return _client(credentials_for(url, identity, access), url or f"{access}", options)


def _identity(kubeconfig: str | None, context: str | None, options: ClientOptions) -> Identity:
    unknown = options.keys() - ClientOptions.__optional_keys__
    if unknown:
        known = ", ".join(sorted(ClientOptions.__optional_keys__))
        raise TypeError(f"no option is called {', '.join(sorted(unknown))}; there are {known}")
    return Identity(
        kubeconfig=kubeconfig,
        context=context,
        in_cluster=options.get("in_cluster", False),
        token=options.get("token"),
        token_file=options.get("token_file"),
        ca=options.get("ca"),
        client_certificate=options.get("client_certificate"),
        client_key=options.get("client_key"),
        insecure_skip_tls_verify=options.get("insecure_skip_tls_verify", False),
    )


def _with_environment(identity: Identity) -> Identity:
    """What the command line takes from the environment too, where nothing is given in its place."""
    changes: dict[str, Any] = {}
    known = identity.named or identity.in_cluster or identity.token or identity.token_file
    if not known and not identity.client_certificate:
        changes["token"] = os.environ.get("SHOAL_TOKEN") or None
    if identity.ca is None and not identity.insecure_skip_tls_verify and not identity.named:
        changes["ca"] = os.environ.get("SHOAL_CERTIFICATE_AUTHORITY") or None
    return replace(identity, **changes)


def _client(credentials: Credentials, where: str, options: ClientOptions) -> Client:
    timeout_s = options.get("timeout_s", TIMEOUT_S)
    if not timeout_s > 0:
        raise BadRequest(f"timeout_s is {timeout_s}: expected seconds, more than 0")
    connection: ApiConnection = HttpConnection(credentials, options.get("api"))
    if isinstance(credentials, Sought):
        connection = SoughtConnection(connection, credentials)
    return Client(
        connection,
        where=where,
        timeout_s=timeout_s,
        informers=options.get("informers"),
        tracer_provider=options.get("tracer_provider"),
    )
