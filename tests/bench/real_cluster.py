"""A real cluster, in which the measured pods are made and from which they are taken away again."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable
from typing import Any, Self

from asking import CredentialedClient

from shoal.shards.api.client import HttpConnection
from shoal.shards.api.kubeconfig import load_kubeconfig
from shoal.shards.api.requests import ApiRequest

AT_ONCE = 16
JSON = (("Accept", "application/json"), ("Content-Type", "application/json"))


class Cluster:
    """Pods of a population in namespaces of their own, while the context lasts."""

    def __init__(self, kubeconfig: str, loop: asyncio.AbstractEventLoop, bodies: Iterable[bytes]) -> None:
        self._connection: HttpConnection = load_kubeconfig(kubeconfig).connect()
        self._loop = loop
        self._bodies = bodies
        self.prefix = f"shoal-bench-{secrets.token_hex(3)}-"
        """Of the namespaces' names."""
        self._namespaces: set[str] = set()
        self.client = CredentialedClient(self._connection, loop)

    def __enter__(self) -> Self:
        self._loop.run_until_complete(self._make())
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._take_away())
        self.client.close()

    async def _make(self) -> None:
        free = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for body in self._bodies:
                pod = json.loads(body)
                namespace = f"{self.prefix}{pod['metadata']['namespace']}"
                if namespace not in self._namespaces:
                    self._namespaces.add(namespace)
                    await self._write("/api/v1/namespaces", {"metadata": {"name": namespace}})
                kept = ("name", "labels", "annotations")
                pod["metadata"] = {name: pod["metadata"][name] for name in kept if name in pod["metadata"]}
                pod.pop("status", None)
                await free.acquire()
                task = group.create_task(self._write(f"/api/v1/namespaces/{namespace}/pods", pod))
                task.add_done_callback(lambda _: free.release())

    async def _write(self, path: str, document: dict[str, Any]) -> None:
        request = ApiRequest("POST", path, headers=JSON, body=json.dumps(document).encode())
        async with self._connection.open(request) as response:
            body = await response.read()
            assert response.status in (201, 409), body[:500]

    async def _take_away(self) -> None:
        for namespace in self._namespaces:
            request = ApiRequest("DELETE", f"/api/v1/namespaces/{namespace}")
            async with self._connection.open(request) as response:
                await response.read()
