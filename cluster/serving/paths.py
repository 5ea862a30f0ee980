"""Reads the path of a request as kube-apiserver does: a resource, a discovery document, or something else.

Rules are those of ``k8s.io/apiserver/pkg/endpoints/request.RequestInfoFactory``. Whether the resource exists
is not decided here; the simulator and the gateway look it up in what they serve. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ...shards.model.resources import Resource

_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
"""``namespaces/NAME/X`` is a resource in a namespace, except for these two parts of the namespace itself."""


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """A collection (`name` is None), one object, or a subresource of it."""

    group: str
    version: str
    resource: str
    """Plural name: ``pods``."""
    namespace: str | None = None
    """None: all namespaces, or a cluster-scoped resource."""
    name: str | None = None
    subresource: str | None = None
    """What follows the name: ``status``; deeper paths stay joined by slashes."""
    watching: bool = False
    """Below the deprecated ``/watch/`` prefix, which means the same as ``watch=1``."""

    @property
    def identity(self) -> Resource:
        """The resource as the value that is looked up."""
        return Resource(self.group, self.version, self.resource)


@dataclass(frozen=True, slots=True)
class DiscoveryPath:
    """``/api``, ``/apis``, ``/apis/GROUP``, ``/api/VERSION`` or ``/apis/GROUP/VERSION``."""

    root: Literal["api", "apis"]
    group: str | None = None
    """None for ``/apis``; empty for everything below ``/api``."""
    version: str | None = None


@dataclass(frozen=True, slots=True)
class OtherPath:
    """Anything that is neither: ``/version``, ``/livez``, ``/metrics``, …"""

    path: str


RequestPath: TypeAlias = ResourcePath | DiscoveryPath | OtherPath


def parse_path(path: str) -> RequestPath:
    """What `path` (percent-decoded, without the query) asks for. Never fails: the rest is `OtherPath`."""
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["api"]:
            return DiscoveryPath("api", "")
        case ["apis"]:
            return DiscoveryPath("apis")
        case ["api", version]:
            return DiscoveryPath("api", "", version)
        case ["apis", group]:
            return DiscoveryPath("apis", group)
        case ["apis", group, version]:
            return DiscoveryPath("apis", group, version)
        case ["api", version, *rest]:
            return _resource("", version, rest) or OtherPath(path)
        case ["apis", group, version, *rest]:
            return _resource(group, version, rest) or OtherPath(path)
        case _:
            return OtherPath(path)


def _resource(group: str, version: str, parts: list[str]) -> ResourcePath | None:
    watching = parts[0] == "watch" and len(parts) > 1
    if watching:
        parts = parts[1:]
    namespace: str | None = None
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, parts = parts[1], parts[2:]
    return ResourcePath(
        group,
        version,
        parts[0],
        namespace,
        parts[1] if len(parts) > 1 else None,
        "/".join(parts[2:]) or None,
        watching,
    )
