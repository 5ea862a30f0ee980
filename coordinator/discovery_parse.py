"""What the API server's discovery documents say: aggregated (v2, v2beta1) and legacy forms, to one shape.
Pure.

The shape is `DiscoveredGroup`: versions in the server's order of preference, each with its resources. A
version that is *stale* is one the server (or its aggregation layer) could not ask; `keep_known` makes sure
that its resources do not vanish for that: they are those known before. Which of all this is followed is
decided in `coordinator.catalogue`; the requests are made in `coordinator.discovery`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from ..shards.model.errors import Garbage
from ..shards.model.fields import SELECTABLE_FIELDS
from ..shards.model.resources import Resource, ResourceType, SubresourceType

Form: TypeAlias = Literal["aggregated", "legacy"]

ACCEPT_AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,"
    "application/json"
)
"""What client-go sends: the newest form first, and the legacy one from servers before 1.26."""


class DiscoveredVersion(NamedTuple):
    """One version of a group."""

    version: str
    resources: tuple[ResourceType, ...]
    stale: bool = False
    """The server could not learn what it serves; `resources` may be out of date or empty."""


class DiscoveredGroup(NamedTuple):
    """One group, empty name for the core group."""

    name: str
    versions: tuple[DiscoveredVersion, ...]
    """The preferred one first."""


class GroupVersions(NamedTuple):
    """A group in the legacy list: only which versions there are."""

    name: str
    versions: tuple[str, ...]
    """The preferred one first."""


class Discovered(NamedTuple):
    """One of ``/api`` and ``/apis`` as answered: the groups, or (legacy) what to ask next."""

    groups: tuple[DiscoveredGroup, ...] = ()
    legacy: tuple[GroupVersions, ...] | None = None
    """Set if the server answered in the legacy form; `groups` is then empty."""


# -- the documents
# --------------------------------------------------------------------------------------------


class _Meta(msgspec.Struct):
    name: str = ""


class _ResponseKind(msgspec.Struct):
    kind: str = ""
    group: str = ""
    version: str = ""


class _Subresource(msgspec.Struct):
    subresource: str
    responseKind: _ResponseKind | None = None  # noqa: N815 - the document's own name
    verbs: list[str] | None = None


class _Resource(msgspec.Struct):
    resource: str
    scope: str = "Namespaced"
    responseKind: _ResponseKind | None = None  # noqa: N815
    singularResource: str = ""  # noqa: N815
    verbs: list[str] | None = None
    shortNames: list[str] | None = None  # noqa: N815
    categories: list[str] | None = None
    subresources: list[_Subresource] | None = None


class _Version(msgspec.Struct):
    version: str
    resources: list[_Resource] | None = None
    freshness: str = "Current"


class _Group(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    versions: list[_Version] | None = None


class _GroupVersion(msgspec.Struct):
    version: str


class _LegacyGroup(msgspec.Struct):
    name: str
    versions: list[_GroupVersion] | None = None
    preferredVersion: _GroupVersion | None = None  # noqa: N815


class _Root(msgspec.Struct):
    """Any of the three documents ``/api`` and ``/apis`` answer with; `kind` says which."""

    kind: str
    items: list[_Group] | None = None
    versions: list[str] | None = None
    groups: list[_LegacyGroup] | None = None


class _LegacyResource(msgspec.Struct):
    name: str
    kind: str
    group: str = ""
    version: str = ""
    namespaced: bool = False
    singularName: str = ""  # noqa: N815
    verbs: list[str] | None = None
    shortNames: list[str] | None = None  # noqa: N815
    categories: list[str] | None = None


class _LegacyResources(msgspec.Struct):
    kind: str
    resources: list[_LegacyResource] | None = None


_ROOT: msgspec.json.Decoder[_Root] = msgspec.json.Decoder(_Root)
_LEGACY: msgspec.json.Decoder[_LegacyResources] = msgspec.json.Decoder(_LegacyResources)


def parse_root(body: bytes, path: str) -> Discovered:
    """Reads the answer of ``/api`` or ``/apis`` (`path`, for the message), whichever form it has.

    Raises:
        Garbage: not one of the documents.
    """
    root = _decode(_ROOT, body, path)
    match root.kind:
        case "APIGroupDiscoveryList":
            return Discovered(tuple(_group(group) for group in root.items or ()))
        case "APIVersions":
            return Discovered(legacy=(GroupVersions("", tuple(root.versions or ())),))
        case "APIGroupList":
            return Discovered(legacy=tuple(_legacy_group(group) for group in root.groups or ()))
        case other:
            raise Garbage(f"discovery at {path} answered with a {other!r}, not with groups")


def parse_resources(body: bytes, group: str, version: str) -> DiscoveredVersion:
    """Reads a legacy ``APIResourceList`` (``/api/v1``, ``/apis/apps/v1``).

    Raises:
        Garbage: not such a document.
    """
    path = Resource(group, version, "").root
    document = _decode(_LEGACY, body, path)
    if document.kind != "APIResourceList":
        raise Garbage(f"discovery at {path} answered with a {document.kind!r}, not with resources")
    listed = document.resources or ()
    below: dict[str, list[SubresourceType]] = {}
    for entry in listed:
        name, slash, subresource = entry.name.partition("/")
        if slash:
            answered = _ResponseKind(entry.kind, entry.group, entry.version)
            known = _subresource_type(Resource(group, version, name), subresource, answered, entry.verbs)
            below.setdefault(name, []).append(known)
    return DiscoveredVersion(
        version,
        tuple(
            _resource_type(
                Resource(group, version, entry.name),
                kind=entry.kind,
                namespaced=entry.namespaced,
                singular=entry.singularName,
                short_names=tuple(entry.shortNames or ()),
                categories=tuple(entry.categories or ()),
                verbs=tuple(entry.verbs or ()),
                below=below.get(entry.name, ()),
                # The legacy form does not tell; definitions do, if they may be read.
                custom=group not in BUILTIN_GROUPS,
            )
            for entry in listed
            if "/" not in entry.name
        ),
    )


def keep_known(
    known: Iterable[DiscoveredGroup], found: Sequence[DiscoveredGroup]
) -> tuple[tuple[DiscoveredGroup, ...], tuple[str, ...]]:
    """Fills stale versions that came without resources with those known before; also says which are stale."""
    before = {
        (group.name, version.version): version.resources for group in known for version in group.versions
    }
    stale: list[str] = []
    groups: list[DiscoveredGroup] = []
    for group in found:
        versions: list[DiscoveredVersion] = []
        for version in group.versions:
            kept = version
            if version.stale:
                stale.append(f"{group.name}/{version.version}" if group.name else version.version)
                if not version.resources:
                    kept = version._replace(resources=before.get((group.name, version.version), ()))
            versions.append(kept)
        groups.append(group._replace(versions=tuple(versions)))
    return tuple(groups), tuple(stale)


BUILTIN_GROUPS = frozenset(
    {
        "",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apiregistration.k8s.io",
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "extensions",
        "flowcontrol.apiserver.k8s.io",
        "internal.apiserver.k8s.io",
        "metrics.k8s.io",
        "networking.k8s.io",
        "node.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "resource.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
        "storagemigration.k8s.io",
    }
)
"""Groups whose kinds are compiled into a server (``k8s.io/api``). Used only where nothing says it better."""


def _group(group: _Group) -> DiscoveredGroup:
    name = group.metadata.name
    return DiscoveredGroup(name, tuple(_version(name, version) for version in group.versions or ()))


def _version(group: str, version: _Version) -> DiscoveredVersion:
    resources = tuple(
        _resource_type(
            Resource(group, version.version, entry.resource),
            kind=entry.responseKind.kind if entry.responseKind else "",
            namespaced=entry.scope == "Namespaced",
            singular=entry.singularResource,
            short_names=tuple(entry.shortNames or ()),
            categories=tuple(entry.categories or ()),
            verbs=tuple(entry.verbs or ()),
            below=[
                _subresource_type(
                    Resource(group, version.version, entry.resource),
                    below.subresource,
                    below.responseKind or _ResponseKind(),
                    below.verbs,
                )
                for below in entry.subresources or ()
            ],
            # Compiled-in kinds leave the group of their kind empty, custom ones fill it in (v1.36.2).
            custom=bool(entry.responseKind and entry.responseKind.group),
        )
        for entry in version.resources or ()
    )
    return DiscoveredVersion(version.version, resources, stale=version.freshness == "Stale")


def _legacy_group(group: _LegacyGroup) -> GroupVersions:
    versions = [version.version for version in group.versions or ()]
    preferred = group.preferredVersion.version if group.preferredVersion else ""
    if preferred in versions:
        versions.remove(preferred)
        versions.insert(0, preferred)
    return GroupVersions(group.name, tuple(versions))


def _resource_type(resource: Resource, *, below: Sequence[SubresourceType], **known: Any) -> ResourceType:
    return ResourceType(
        resource=resource,
        selectable_fields=SELECTABLE_FIELDS.get(resource.qualified_name, ()),
        subresources=tuple(entry.name for entry in below),
        subresource_types=tuple(below),
        **known,
    )


def _subresource_type(
    resource: Resource, name: str, answered: _ResponseKind, verbs: Iterable[str] | None
) -> SubresourceType:
    # The aggregated form spells out a custom resource's own group and version, the legacy one leaves them out.
    own = (answered.group, answered.version) == (resource.group, resource.version)
    return SubresourceType(
        name=name,
        kind=answered.kind,
        group="" if own else answered.group,
        version="" if own else answered.version,
        verbs=tuple(verbs or ()),
    )


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes, path: str) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        excerpt = body[:80].decode("utf-8", "replace")
        raise Garbage(
            f"discovery at {path} answered with what is no discovery document ({error}): {excerpt!r}"
        ) from error
