"""One cluster, asked in four ways: asynchronously and blocking, through a gateway and straight.

The embedded API server and an installation that follows it run on a loop of their own in a thread. `Face` makes the
four clients look alike, so that one suite tests them all: methods of the blocking twins are called in threads.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from support.gateway_installation import running
from support.hosted import Hosted

import shoal
from shoal.cluster.client.portal import BlockingIterator, Twin
from shoal.shards.api.client import fetch
from shoal.shards.api.requests import ApiRequest

INDEXED = {"v1/configmaps": ("data.color",)}
SPACE = "shop"
PODS = {"db-0": "db", "web-0": "web", "web-1": "web"}
COLORS = ("green", "red", "red", "red", "green")
"""Of the config maps c0, c1, …"""
FACES = ("connect", "local", "sync.connect", "sync.local")


@dataclass(frozen=True)
class Cluster:
    """Where it is asked."""

    api: str
    gateway: str

    def client(self, face: str, **options: Any) -> Any:
        """A client; of the blocking ones the twin itself."""
        module = shoal.sync if face.startswith("sync.") else shoal
        if face.endswith("connect"):
            return module.connect(self.gateway, **options)
        return module.local(url=self.api, **options)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster with some pods, config maps and nodes, which the gateway has heard of."""
    settings = {"indexed_fields": INDEXED, "writes": "forward"}
    with Hosted(lambda: running(**settings), name="installation") as hosted:
        found = Cluster(hosted.held.source.url, hosted.held.url)
        with shoal.sync.local(url=found.api) as client:
            newest = client.run(_fill)
        with shoal.sync.connect(found.gateway) as client:
            for resource in ("v1/namespaces", "v1/pods", "v1/configmaps", "v1/nodes"):
                client.lister(resource).count(not_older_than=newest)
        yield found


async def create(client: Any, resource: str, name: str, **members: Any) -> str:
    """Creates an object in `SPACE`, or of a cluster-scoped resource; its version."""
    kind = await client.discovery.resolve(resource)
    path = kind.resource.path(SPACE if kind.namespaced else None)
    metadata = {"name": name, "labels": members.pop("labels", {})}
    return await _write(client, "POST", path, {"metadata": metadata, **members})


async def delete(client: Any, resource: str, name: str) -> None:
    """Deletes an object of `SPACE`."""
    kind = await client.discovery.resolve(resource)
    await _write(client, "DELETE", kind.resource.path(SPACE if kind.namespaced else None, name), {})


async def _write(client: Any, method: str, path: str, document: Any) -> str:
    headers = (("Accept", "application/json"), ("Content-Type", "application/json"))
    request = ApiRequest(method, path, (), headers, json.dumps(document).encode())
    _, body = await fetch(client.connection, request)
    return str(json.loads(body).get("metadata", {}).get("resourceVersion", ""))


async def _fill(client: Any) -> str:
    await create(client, "v1/namespaces", SPACE)
    for number in range(2):
        await create(client, "v1/nodes", f"node-{number}")
    for number, (name, app) in enumerate(PODS.items()):
        spec = {
            "nodeName": f"node-{(number + 1) % 2}",
            "containers": [{"name": "main", "image": "nginx:1.29"}],
        }
        await create(client, "v1/pods", name, labels={"app": app}, spec=spec)
    newest = ""
    for number, color in enumerate(COLORS):
        data = {"color": color, "n": str(number)}
        newest = await create(
            client, "v1/configmaps", f"c{number}", labels={"even": str(number % 2 == 0)}, data=data
        )
    return newest


class Face:
    """An object of a client, asynchronous whichever it is."""

    def __init__(self, it: Any) -> None:
        self._it = it

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._it, name)
        if isinstance(found, Twin):
            return Face(found)
        if not callable(found) or not isinstance(self._it, Twin):
            return found
        if name in ("lister", "in_namespace", "writer"):
            return lambda *args, **named: Face(found(*args, **named))
        if name in ("pages", "objects"):
            return lambda *args, **named: _iterate(found, *args, **named)
        return lambda *args, **named: asyncio.to_thread(found, *args, **named)

    def lister(self, *args: Any) -> Face:
        return Face(self._it.lister(*args))

    def writer(self, *args: Any) -> Face:
        return Face(self._it.writer(*args))

    async def run(self, function: Any, *args: Any, **named: Any) -> Any:
        """Calls a coroutine function with the asynchronous client."""
        if isinstance(self._it, Twin):
            return await asyncio.to_thread(self._it.run, function, *args, **named)
        return await function(self._it, *args, **named)

    async def aclose(self) -> None:
        if isinstance(self._it, Twin):
            await asyncio.to_thread(self._it.close)
        else:
            await self._it.aclose()


async def _iterate(function: Any, *args: Any, **named: Any) -> AsyncIterator[Any]:
    iterator: BlockingIterator[Any] = await asyncio.to_thread(function, *args, **named)
    try:
        while True:
            # StopIteration cannot leave a thread by a future.
            found = await asyncio.to_thread(
                lambda: [element for _, element in zip((1,), iterator, strict=False)]
            )
            if not found:
                return
            yield found[0]
    finally:
        await asyncio.to_thread(iterator.close)
