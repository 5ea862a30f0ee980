"""What the conformance suite runs against: the embedded API server, Shoal's gateway, a real cluster.

Each is one server to its clients: it is written to and read from at the same address. The gateway passes what is
written to it on to the API server it follows, and reads from shards what they have heard of it.

As a cluster does, a server serves one test after the other: it is shared by a module's tests, each of which has a
namespace and a connection of its own, and none may ask for more than what is in there to be as it left it. To add a
backend, give `BACKENDS` a name and a context manager that yields how to connect.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from support.hosted import Hosted

from shoal.cluster.gateway.assembly import Upstream, assemble
from shoal.cluster.gateway.server import serve
from shoal.cluster.query.routing import Routing
from shoal.cluster.settings import GatewaySettings
from shoal.cluster.simulator.server import ApiServer
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.coordinator.coordinator import Coordinator
from shoal.coordinator.handle import LocalCoordinatorHandle
from shoal.coordinator.settings import CoordinatorSettings, DiscoverySettings, FollowSettings
from shoal.shards.api.client import ApiConnection, HttpConnection, PlainCredentials
from shoal.shards.api.kubeconfig import load_kubeconfig
from shoal.shards.api.requests import ApiRequest
from shoal.shards.local import LocalShardProvider
from shoal.shards.model.partitions import ShardId
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

KUBECONFIG = "SHOAL_TEST_KUBECONFIG"
Connect: TypeAlias = Callable[[], ApiConnection]
"""Makes a connection to a server, for the running event loop."""
FOLLOWED = ("namespaces", "configmaps", "pods", "secrets", "deployments.apps", "*.*.example.com")
"""What the gateway's installation follows: what the suite asks about, so that it starts quickly."""
COLLECTIONS = ("/api/v1/namespaces", "/api/v1/configmaps", "/api/v1/pods", "/apis/apps/v1/deployments")
PATIENCE_S = 20.0
"""Longest wait for anything a server does on its own."""


@dataclass(frozen=True)
class Answer:
    """Status, headers and parsed body; a body that is no JSON is text."""

    status: int
    headers: dict[str, str]
    document: Any
    body: bytes


class Client:
    """One side of a backend."""

    def __init__(self, connection: ApiConnection) -> None:
        self.connection = connection

    async def ask(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        accept: str = "application/json",
        content_type: str = "application/json",
        **query: str,
    ) -> Answer:
        headers = [("Accept", accept)]
        body = b""
        if document is not None:
            body = json.dumps(document).encode()
            headers.append(("Content-Type", content_type))
        request = ApiRequest(method, path, tuple(query.items()), tuple(headers), body)
        async with self.connection.open(request) as response:
            raw = await response.read()
            try:
                parsed = json.loads(raw)
            except ValueError:
                parsed = raw.decode(errors="replace")
            return Answer(response.status, dict(response.headers), parsed, raw)

    async def get(self, path: str, *, accept: str = "application/json", **query: str) -> Any:
        """The parsed body of a GET that must succeed."""
        answer = await self.ask("GET", path, accept=accept, **query)
        assert answer.status == 200, answer.document
        return answer.document

    async def events(
        self,
        path: str,
        *,
        during: Callable[[], Any] | None = None,
        accept: str = "application/json",
        **query: str,
    ) -> list[tuple[str, Any]]:
        """Everything a watch sends until the server ends it; `during` runs once it is open."""
        pairs = (("watch", "1"), *query.items())
        request = ApiRequest("GET", path, pairs, (("Accept", accept),), stream=True)
        async with asyncio.timeout(PATIENCE_S + float(query.get("timeoutSeconds", "0"))):
            async with self.connection.open(request) as response:
                assert response.status == 200, await response.read()
                if during is not None:
                    await during()
                raw = await response.read()
        lines = [json.loads(line) for line in raw.splitlines() if line]
        return [(line["type"], line["object"]) for line in lines]


@dataclass
class Backend:
    """A server, and a namespace in it."""

    writer: Client
    """Who writes."""
    reader: Client
    """Who reads: the same server."""
    space: str = field(default_factory=lambda: f"shoal-conformance-{secrets.token_hex(4)}")
    """A namespace of its own."""

    def path(self, resource: str, name: str = "") -> str:
        """A path in the backend's namespace: ``configmaps``, or ``apps/v1/deployments``."""
        *group, plural = resource.split("/")
        root = f"/apis/{'/'.join(group)}" if group else "/api/v1"
        return f"{root}/namespaces/{self.space}/{plural}" + (f"/{name}" if name else "")

    async def create(self, resource: str, name: str, **members: Any) -> Any:
        """Creates an object; `labels` go into its metadata."""
        metadata = {"name": name, "labels": members.pop("labels", {})}
        answer = await self.writer.ask("POST", self.path(resource), {"metadata": metadata, **members})
        assert answer.status == 201, answer.document
        return answer.document

    async def patch(self, resource: str, name: str, change: Any) -> Any:
        """Merge-patches an object."""
        path = self.path(resource, name)
        answer = await self.writer.ask("PATCH", path, change, content_type="application/merge-patch+json")
        assert answer.status == 200, answer.document
        return answer.document

    async def delete(self, resource: str, name: str) -> None:
        """Deletes an object."""
        assert (await self.writer.ask("DELETE", self.path(resource, name))).status == 200

    async def version(self, resource: str = "configmaps") -> str:
        """The present version of the namespace's collection, as the written side says."""
        listed = await self.writer.get(self.path(resource), limit="1")
        return str(listed["metadata"]["resourceVersion"])

    async def newest(self, resource: str = "configmaps") -> dict[str, str]:
        """Parameters that make a list include everything written so far."""
        return {"resourceVersion": await self.version(resource), "resourceVersionMatch": "NotOlderThan"}


def _plain(url: str) -> Connect:
    return lambda: HttpConnection(PlainCredentials(url))


@contextmanager
def _simulator() -> Iterator[Connect]:
    with Hosted(lambda: ApiServer(settings=SimulatorSettings(seed=1)), name="API server") as server:
        yield _plain(server.held.url)


@contextmanager
def _cluster() -> Iterator[Connect]:
    path = os.environ.get(KUBECONFIG)
    if not path:
        pytest.skip(f"{KUBECONFIG} names no cluster")
    yield load_kubeconfig(path).connect


@contextmanager
def _gateway() -> Iterator[Connect]:
    with Hosted(_installation, name="gateway") as server:
        yield _plain(server.held)


@asynccontextmanager
async def _installation() -> AsyncIterator[str]:
    """Shoal's gateway over two shards in this process, following the embedded API server over HTTP: its URL."""
    async with ApiServer(settings=SimulatorSettings(seed=1)) as source, AsyncExitStack() as stack:

        def connection(url: str) -> HttpConnection:
            opened = HttpConnection(PlainCredentials(url))
            stack.push_async_callback(opened.aclose)
            return opened

        provider = LocalShardProvider(
            lambda shard_id: Shard(
                shard_id,
                connection=HttpConnection(PlainCredentials(source.url)),
                permits=NoPermits(),
                settings=ShardSettings(),
                incarnation=shard_id,
                rng=random.Random(1),
            )
        )
        coordinator = Coordinator(
            connection=connection(source.url),
            provider=provider,
            settings=CoordinatorSettings(
                follow=FollowSettings(include=FOLLOWED, secrets="include"),
                discovery=DiscoverySettings(poll_s=0.2),
            ),
            shard_count=2,
        )
        await coordinator.start()
        stack.push_async_callback(coordinator.stop)
        handle = LocalCoordinatorHandle(coordinator)
        routing = Routing(handle)
        following = asyncio.create_task(routing.run(), name="routing")
        stack.callback(following.cancel)
        # The embedded server asks nobody who they are, so there is nothing to keep apart.
        upstream = Upstream(connection(source.url), connection(source.url))
        settings = GatewaySettings(writes="forward")
        gateway = assemble(routing, provider.handles.__getitem__, handle, upstream, settings)
        server = await serve(gateway, "127.0.0.1", 0, settings)
        for shard_id in ("shard-0", "shard-1"):
            stack.push_async_callback(provider.retire, ShardId(shard_id))
        stack.push_async_callback(gateway.aclose)
        stack.push_async_callback(server.stop)
        stack.push_async_callback(gateway.stop_watches)
        client = Client(connection(server.url))
        async with asyncio.timeout(PATIENCE_S):
            # A report on all shards is used again for a second, so readiness is asked when everything is there.
            for path in COLLECTIONS:
                while (await client.ask("GET", path, limit="1")).status != 200:
                    await asyncio.sleep(0.02)
            while (await client.ask("GET", "/readyz")).status != 200:
                await asyncio.sleep(0.05)
        yield server.url


BACKENDS: dict[str, Callable[[], AbstractContextManager[Connect]]] = {
    "simulator": _simulator,
    "gateway": _gateway,
    "cluster": _cluster,
}


@asynccontextmanager
async def opened(connect: Connect) -> AsyncIterator[Backend]:
    """A server with a namespace of one's own, which is deleted at the end."""
    connection = connect()
    try:
        client = Client(connection)
        backend = Backend(client, client)
        made = await client.ask("POST", "/api/v1/namespaces", {"metadata": {"name": backend.space}})
        assert made.status == 201, made.document
        try:
            yield backend
        finally:
            await client.ask("DELETE", f"/api/v1/namespaces/{backend.space}")
    finally:
        await connection.aclose()
