"""An API server's discovery in memory: a `Connection` that answers ``/api``, ``/apis``, definitions and
``/version``.

Changes are made by methods and are visible at once, under a new ETag; failures are set by path. Recorded
exchanges can be answered instead (`recorded`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import ConnectionFailed

WIRE = Path(__file__).resolve().parents[1] / "wire"
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def recorded(name: str) -> dict[str, Any]:
    """The response of one recorded exchange."""
    response: dict[str, Any] = json.loads((WIRE / f"{name}.json").read_text())["response"]
    return response


def recorded_body(name: str) -> bytes:
    return str(recorded(name)["body"]).encode()


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    async def read(self, limit: int = 0) -> bytes:
        return self.body


class DiscoveryServer:
    """Groups with versions with resources."""

    def __init__(self, *, legacy: bool = False) -> None:
        self.groups: dict[str, dict[str, list[dict[str, Any]]]] = {"": {"v1": []}}
        self.stale: set[tuple[str, str]] = set()
        self.definitions: dict[str, dict[str, Any]] = {}
        self.version = b'{"gitVersion":"v1.36.2"}'
        self.legacy = legacy
        self.away = False
        self.closed = False
        self.statuses: dict[str, int] = {}
        """Paths that answer with an error status."""
        self.slow: dict[str, float] = {}
        self.requests: list[ApiRequest] = []

    # -- what it serves
    # ---------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        *,
        group: str = "",
        version: str = "v1",
        kind: str = "",
        verbs: list[str] | None = None,
        namespaced: bool = True,
        custom: bool = False,
        subresources: tuple[str, ...] = (),
    ) -> None:
        kind = kind or name.removesuffix("s").capitalize()
        own = {"group": group, "version": version} if custom else {"group": "", "version": ""}
        self.groups.setdefault(group, {}).setdefault(version, []).append(
            {
                "resource": name,
                "responseKind": {**own, "kind": kind},
                "scope": "Namespaced" if namespaced else "Cluster",
                "singularResource": kind.lower(),
                "verbs": VERBS if verbs is None else verbs,
                "subresources": [
                    {
                        "subresource": below,
                        "responseKind": {"group": "", "version": "", "kind": kind},
                        "verbs": ["get"],
                    }
                    for below in subresources
                ],
            }
        )

    def remove(self, name: str, *, group: str = "", version: str = "v1") -> None:
        versions = self.groups[group]
        versions[version] = [entry for entry in versions[version] if entry["resource"] != name]
        if group and not versions[version]:
            del versions[version]
        if group and not versions:
            del self.groups[group]

    def define(
        self, name: str, *, group: str = "example.com", version: str = "v1", fields: tuple[str, ...] = ()
    ) -> None:
        """A CustomResourceDefinition and the resource it makes."""
        if "apiextensions.k8s.io" not in self.groups:
            self.add(
                "customresourcedefinitions",
                group="apiextensions.k8s.io",
                kind="CustomResourceDefinition",
                namespaced=False,
            )
        self.add(name, group=group, version=version, custom=True)
        self.definitions[f"{name}.{group}"] = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{name}.{group}", "uid": f"{name}-1", "generation": 1},
            "spec": {
                "group": group,
                "names": {"plural": name, "kind": name.capitalize()},
                "scope": "Namespaced",
                "versions": [
                    {
                        "name": version,
                        "served": True,
                        "storage": True,
                        "schema": {"openAPIV3Schema": {"type": "object"}},
                        "additionalPrinterColumns": [
                            {"name": "Size", "type": "string", "jsonPath": ".spec.size"}
                        ],
                        "selectableFields": [{"jsonPath": field} for field in fields],
                    }
                ],
            },
        }

    def undefine(self, name: str, *, group: str = "example.com", version: str = "v1") -> None:
        del self.definitions[f"{name}.{group}"]
        self.remove(name, group=group, version=version)

    # -- answering
    # --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[Answer]:
        self.requests.append(request)
        if self.away:
            raise ConnectionFailed("https://server:6443: connection refused")
        if request.path in self.slow:
            await asyncio.sleep(self.slow[request.path])
        if request.path in self.statuses:
            yield Answer(self.statuses[request.path], {}, b"refused")
            return
        headers = dict(request.headers)
        document = self._document(request.path)
        if document is None:
            yield Answer(404, {"content-type": "text/plain"}, b"404 page not found\n")
            return
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        etag = (
            f'"{hashlib.sha256(body).hexdigest()}"'
            if request.path in ("/api", "/apis") and not self.legacy
            else ""
        )
        if etag and headers.get("If-None-Match") == etag:
            yield Answer(304, {"etag": etag}, b"")
        else:
            yield Answer(200, {"etag": etag} if etag else {}, body)

    async def aclose(self) -> None:
        self.closed = True

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def _document(self, path: str) -> Any:
        if path == "/version":
            return self.version
        if path == DEFINITIONS:
            items = [{"metadata": definition["metadata"]} for definition in self.definitions.values()]
            return {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {},
                "items": items,
            }
        if path.startswith(f"{DEFINITIONS}/"):
            return self.definitions.get(path.removeprefix(f"{DEFINITIONS}/"))
        if path in ("/api", "/apis"):
            names = [name for name in self.groups if (name == "") == (path == "/api")]
            return self._legacy_root(names) if self.legacy else self._aggregated(names)
        return self._legacy_resources(path)

    def _aggregated(self, names: list[str]) -> dict[str, Any]:
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": [
                {
                    "metadata": {"name": name} if name else {},
                    "versions": [
                        {
                            "version": version,
                            "resources": [] if (name, version) in self.stale else resources,
                            "freshness": "Stale" if (name, version) in self.stale else "Current",
                        }
                        for version, resources in self.groups[name].items()
                    ],
                }
                for name in names
            ],
        }

    def _legacy_root(self, names: list[str]) -> dict[str, Any]:
        if names == [""]:
            return {"kind": "APIVersions", "versions": list(self.groups[""])}
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": name,
                    "versions": [
                        {"groupVersion": f"{name}/{version}", "version": version}
                        for version in self.groups[name]
                    ],
                    "preferredVersion": {"groupVersion": "", "version": next(iter(self.groups[name]))},
                }
                for name in names
            ],
        }

    def _legacy_resources(self, path: str) -> dict[str, Any] | None:
        parts = path.strip("/").split("/")
        group, version = ("", parts[-1]) if parts[0] == "api" else (parts[1], parts[-1])
        if version not in self.groups.get(group, {}):
            return None
        entries = []
        for entry in self.groups[group][version]:
            entries.append(
                {
                    "name": entry["resource"],
                    "singularName": entry["singularResource"],
                    "namespaced": entry["scope"] == "Namespaced",
                    "kind": entry["responseKind"]["kind"],
                    "verbs": entry["verbs"],
                }
            )
            entries += [
                {
                    "name": f"{entry['resource']}/{below['subresource']}",
                    "singularName": "",
                    "namespaced": True,
                    "kind": "X",
                    "verbs": ["get"],
                }
                for below in entry["subresources"]
            ]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}",
            "resources": entries,
        }
