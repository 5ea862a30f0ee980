"""The documents of API discovery, rendered from the resources that are served.

Both forms: aggregated (one APIGroupDiscoveryList with everything, and its ETag) and legacy (APIVersions,
APIGroupList, APIGroup, APIResourceList). The order of groups, versions and resources is kube-apiserver's own
whatever order the catalogue has, so equal catalogues give equal bytes and equal ETags. If-None-Match is the
caller's business.

Pure. Which form is wanted is decided in `negotiation`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ...shards.model.resources import ResourceType, SubresourceType
from .documents import encode

GROUP_ORDER = (
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
)
"""Built-in groups by falling priority of their APIService; groups of definitions all rank behind, by name."""

_RANK = {group: rank for rank, group in enumerate(GROUP_ORDER)}
_VERSION = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?")
_STABILITY = {None: 0, "beta": 1, "alpha": 2}
_STORED_AS = {"events.k8s.io": "v1"}
"""Events live in etcd as the core group's, whichever group they are asked of."""
_STATUS_VERBS = ("get", "patch", "update")


class DiscoveryDocuments:
    """Every discovery document of one catalogue; each is rendered once, when first asked for.

    With `verbs`, a resource lists only those of its verbs and no subresources, and one left without any verb
    is not listed at all: what a read-only server may promise. Those of `also` are listed as they are.
    """

    def __init__(
        self,
        catalogue: Sequence[ResourceType],
        *,
        verbs: frozenset[str] | None = None,
        also: Sequence[ResourceType] = (),
    ) -> None:
        self._verbs = verbs
        self._whole = frozenset(known.resource for known in also)
        offered = [known for known in catalogue if _allowed(known.verbs, verbs)]
        self._groups = _grouped(
            [known for known in offered if known.resource not in self._whole] + list(also)
        )
        self._rendered: dict[tuple[str, ...], bytes] = {}
        self._aggregated: dict[tuple[str, str], tuple[bytes, str]] = {}

    def aggregated(
        self, root: Literal["api", "apis"], form: Literal["v2", "v2beta1"] = "v2"
    ) -> tuple[bytes, str]:
        """The APIGroupDiscoveryList of ``/api`` or ``/apis``, and its ETag with the quotes of the header.

        The ETag is computed as kube-apiserver does it, over the list without kind and apiVersion.
        """
        known = self._aggregated.get((root, form))
        if known is None:
            items = [
                self._aggregated_group(group, versions)
                for group, versions in self._groups.items()
                if bool(group) == (root == "apis")
            ]
            content = {"metadata": {}, "items": items}
            etag = hashlib.sha512(encode(content).rstrip(b"\n")).hexdigest().upper()
            head = {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{form}"}
            known = self._aggregated[root, form] = (encode(head | content), f'"{etag}"')
        return known

    def api_versions(self, server_address: str = "") -> bytes:
        """``/api`` in the legacy form; `server_address` is ``host:port`` as clients should dial it."""
        key = ("api", server_address)
        if key not in self._rendered:
            address = {"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}
            addresses = [address] if server_address else None
            self._rendered[key] = encode(
                {
                    "kind": "APIVersions",
                    "versions": list(self._groups.get("", ())),
                    "serverAddressByClientCIDRs": addresses,
                }
            )
        return self._rendered[key]

    def groups(self) -> bytes:
        """``/apis`` in the legacy form: an APIGroupList."""
        key = ("apis",)
        if key not in self._rendered:
            named = ((group, versions) for group, versions in self._groups.items() if group)
            groups = [_legacy_group(group, list(versions)) for group, versions in named]
            self._rendered[key] = encode({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        return self._rendered[key]

    def group(self, name: str) -> bytes | None:
        """``/apis/GROUP``: an APIGroup, or None for a group that is not served."""
        versions = self._groups.get(name)
        if versions is None or not name:
            return None
        head = {"kind": "APIGroup", "apiVersion": "v1"}
        return encode(head | _legacy_group(name, list(versions)))

    def resources(self, group: str, version: str) -> bytes | None:
        """``/api/VERSION`` or ``/apis/GROUP/VERSION``: an APIResourceList, or None if it is not served."""
        types = self._groups.get(group, {}).get(version)
        if types is None:
            return None
        key = ("resources", group, version)
        if key not in self._rendered:
            document: dict[str, Any] = {"kind": "APIResourceList"}
            if group:
                document["apiVersion"] = "v1"  # the core group's list has none on the wire
            document["groupVersion"] = f"{group}/{version}" if group else version
            document["resources"] = [entry for known in types for entry in self._legacy_resource(known)]
            self._rendered[key] = encode(document)
        return self._rendered[key]

    # -- aggregated -------------------------------------------------------------------------------------

    def _aggregated_group(self, group: str, versions: Mapping[str, Sequence[ResourceType]]) -> dict[str, Any]:
        return {
            "metadata": {"name": group} if group else {},
            "versions": [
                {
                    "version": version,
                    "resources": [self._aggregated_resource(known) for known in types],
                    "freshness": "Current",
                }
                for version, types in versions.items()
            ],
        }

    def _aggregated_resource(self, known: ResourceType) -> dict[str, Any]:
        own = _response_group(known)
        entry: dict[str, Any] = {
            "resource": known.resource.name,
            "responseKind": {**own, "kind": known.kind},
            "scope": "Namespaced" if known.namespaced else "Cluster",
            "singularResource": known.singular or known.kind.lower(),
            "verbs": self._verbs_of(known),
        }
        if known.short_names:
            entry["shortNames"] = known.short_names
        if known.categories:
            entry["categories"] = known.categories
        subresources = [_aggregated_subresource(sub, own) for sub in self._subresources(known)]
        if subresources:
            entry["subresources"] = subresources
        return entry

    # -- legacy -----------------------------------------------------------------------------------------

    def _legacy_resource(self, known: ResourceType) -> Iterator[dict[str, Any]]:
        entry: dict[str, Any] = {
            "name": known.resource.name,
            "singularName": known.singular or known.kind.lower(),
            "namespaced": known.namespaced,
            "kind": known.kind,
            "verbs": self._verbs_of(known),
        }
        if known.short_names:
            entry["shortNames"] = known.short_names
        if known.categories:
            entry["categories"] = known.categories
        if self._verbs is None and "watch" in known.verbs:  # only what is stored can be watched
            entry["storageVersionHash"] = self._storage_hash(known)
        yield entry
        for sub in self._subresources(known):
            scope = {"singularName": "", "namespaced": known.namespaced}
            other = {"group": sub.group, "version": sub.version} if sub.version else {}
            name = {"name": f"{known.resource.name}/{sub.name}"}
            yield {**name, **scope, **other, "kind": sub.kind, "verbs": sub.verbs}

    def _storage_hash(self, known: ResourceType) -> str:
        """Hash of the group, version and kind an object is stored as: of a group's preferred version."""
        resource = known.resource
        preferred = next(
            version
            for version, types in self._groups[resource.group].items()
            if any(other.resource.name == resource.name for other in types)
        )
        stored = _STORED_AS.get(resource.group, f"{resource.group}/{preferred}")
        text = f"{stored if '/' in stored else '/' + stored}/{known.kind}"
        return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()

    def _verbs_of(self, known: ResourceType) -> list[str]:
        return _allowed(known.verbs, None if known.resource in self._whole else self._verbs)

    def _subresources(self, known: ResourceType) -> Sequence[SubresourceType]:
        if self._verbs is not None:
            return ()
        if known.subresource_types or not known.custom:  # of a built-in kind nothing may be made up
            return known.subresource_types
        return tuple(_default_subresources(known))


def _aggregated_subresource(sub: SubresourceType, own: Mapping[str, str]) -> dict[str, Any]:
    """`own`: the group and version that stand for the resource's."""
    entry: dict[str, Any] = {"subresource": sub.name}
    if sub.kind:
        named = {"group": sub.group, "version": sub.version} if sub.version else own
        entry["responseKind"] = {**named, "kind": sub.kind}
    return entry | {"verbs": sub.verbs}


def _default_subresources(known: ResourceType) -> Iterator[SubresourceType]:
    """What the names alone say: of custom resources, where ``status`` and ``scale`` are always alike."""
    for name in known.subresources:
        if name == "scale":
            yield SubresourceType(
                name=name, kind="Scale", group="autoscaling", version="v1", verbs=_STATUS_VERBS
            )
        else:
            yield SubresourceType(name=name, kind=known.kind, verbs=_STATUS_VERBS)


def _response_group(known: ResourceType) -> dict[str, str]:
    """Custom resources name their group and version; built-in kinds leave them to where the entry stands."""
    if known.custom:
        return {"group": known.resource.group, "version": known.resource.version}
    return {"group": "", "version": ""}


def _legacy_group(name: str, versions: Sequence[str]) -> dict[str, Any]:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def _allowed(verbs: Sequence[str], wanted: frozenset[str] | None) -> list[str]:
    return [verb for verb in verbs if wanted is None or verb in wanted]


def _grouped(catalogue: Sequence[ResourceType]) -> dict[str, dict[str, list[ResourceType]]]:
    """Resources by group and version, each level in the API server's order."""
    groups: dict[str, dict[str, list[ResourceType]]] = {}
    for known in sorted(catalogue, key=_order):
        resource = known.resource
        groups.setdefault(resource.group, {}).setdefault(resource.version, []).append(known)
    return groups


def _order(known: ResourceType) -> tuple[int, str, tuple[int, int, int, str], str]:
    resource = known.resource
    rank = _RANK.get(resource.group, len(_RANK)) if resource.group else -1
    return rank, resource.group, version_rank(resource.version), resource.name


def version_rank(version: str) -> tuple[int, int, int, str]:
    """Sorts versions as Kubernetes ranks them: v2, v1, v2beta1, v1beta2, v1alpha1, then the rest by name."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return len(_STABILITY), 0, 0, version
    return _STABILITY[match[2]], -int(match[1]), -int(match[3] or 0), ""
