"""The people of the demonstration: they break things, repair them, and change policies nobody should change."""

from __future__ import annotations

from typing import Any

import msgspec

import shoal

MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
SLICES = "discovery.k8s.io/v1/endpointslices"


class WriteRefused(Exception):  # noqa: N818 - read as a sentence
    """The API server did not do what the demonstration needs."""


class Operators:
    """Writes to a cluster. Each method is one thing that somebody does."""

    def __init__(self, client: shoal.Client, group: str) -> None:
        self._client = client
        self._group = group

    async def read(self, plural: str, namespace: str, name: str) -> dict[str, Any]:
        """A custom resource as it is."""
        found = await self._client.lister(f"{plural}.{self._group}").get(name, namespace)
        if found is None:
            raise WriteRefused(f"there is no {plural} {namespace}/{name}")
        return found.to_dict()

    async def change(self, plural: str, namespace: str, name: str, **spec: Any) -> None:
        """Changes fields of a spec; None takes one away."""
        await self._patch(self._path(plural, namespace, name), {"spec": spec})

    async def delete(self, plural: str, namespace: str, name: str) -> None:
        """Deletes a custom resource."""
        await self._write("DELETE", self._path(plural, namespace, name), JSON, None)

    async def create(self, plural: str, kind: str, namespace: str, name: str, spec: dict[str, Any]) -> None:
        """Makes a custom resource."""
        document = {
            "apiVersion": f"{self._group}/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        await self._write("POST", self._path(plural, namespace, ""), JSON, document)

    async def define(self, plural: str, kind: str) -> None:
        """Adds a kind to the group."""
        names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        document = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{self._group}"},
            "spec": {"group": self._group, "names": names, "scope": "Namespaced", "versions": [version]},
        }
        await self._write("POST", self._definition(""), JSON, document)

    async def undefine(self, plural: str) -> None:
        """Takes a kind out of the group, with all its objects."""
        await self._write("DELETE", self._definition(f"{plural}.{self._group}"), JSON, None)

    async def break_service(self, namespace: str, service: str) -> int:
        """All pods of a service crash; how many that are. The controllers of a cluster would tell the slices."""
        return await self._turn(namespace, service, ready=False)

    async def repair_service(self, namespace: str, service: str) -> int:
        """They run again."""
        return await self._turn(namespace, service, ready=True)

    async def _turn(self, namespace: str, service: str, *, ready: bool) -> int:
        selector = f"kubernetes.io/service-name={service}"
        slices = await self._client.lister(SLICES).list(namespace, label_selector=selector)
        count = 0
        for document in [one.to_dict() for one in slices]:
            for endpoint in document["endpoints"]:
                await self._turn_pod(namespace, endpoint["targetRef"]["name"], ready=ready)
                endpoint["conditions"]["ready"] = ready
                count += 1
            name = document["metadata"]["name"]
            path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}"
            await self._patch(path, {"endpoints": document["endpoints"]})
        return count

    async def _turn_pod(self, namespace: str, name: str, *, ready: bool) -> None:
        found = await self._client.lister("v1/pods").get(name, namespace)
        if found is None:
            raise WriteRefused(f"there is no pod {namespace}/{name}")
        status = found.to_dict()["status"]
        waiting = {
            "waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}
        }
        running = {"running": {"startedAt": "2026-11-20T10:00:00Z"}}
        containers = [
            {
                **container,
                "ready": ready,
                "restartCount": container.get("restartCount", 0) + (0 if ready else 1),
                "state": running if ready else waiting,
            }
            for container in status.get("containerStatuses", ())
        ]
        conditions = [
            {**condition, "status": str(ready)}
            if condition["type"] in ("Ready", "ContainersReady")
            else condition
            for condition in status.get("conditions", ())
        ]
        changed = {"phase": "Running", "containerStatuses": containers, "conditions": conditions}
        await self._patch(f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": changed})

    def _path(self, plural: str, namespace: str, name: str) -> str:
        collection = f"/apis/{self._group}/v1/namespaces/{namespace}/{plural}"
        return f"{collection}/{name}" if name else collection

    def _definition(self, name: str) -> str:
        collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        return f"{collection}/{name}" if name else collection

    async def _patch(self, path: str, document: Any) -> None:
        await self._write("PATCH", path, MERGE_PATCH, document)

    async def _write(self, method: str, path: str, content_type: str, document: Any) -> None:
        body = b"" if document is None else msgspec.json.encode(document)
        headers = (("Accept", JSON), ("Content-Type", content_type))
        query = (("fieldManager", "somebody"),) if document is not None else ()
        async with self._client.connection.open(
            shoal.ApiRequest(method, path, query, headers, body)
        ) as answer:
            said = await answer.read()
            if answer.status // 100 != 2:
                raise WriteRefused(
                    f"{method} {path}: {answer.status} {said[:300].decode('utf-8', 'replace')}"
                )
