"""What the server serves, looked up when it is needed: `Served`, the client's discovery.

A resource that is written in full (``v1/pods``, ``apps/v1/deployments``) costs one small request, about its group and
version; any other spelling a look at all groups. What was found is remembered until the server answers that it has no
such resource. Spellings and close matches are those of informers (`informers.resolving`); reading needs resources that
can be listed, not followed, so ``metrics.k8s.io/v1beta1/pods`` will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ...coordinator.discovery_parse import (
    ACCEPT_AGGREGATED,
    DiscoveredGroup,
    DiscoveredVersion,
    parse_resources,
    parse_root,
)
from ...shards.api.requests import document_request
from ...shards.model.errors import BadRequest, NotFound, ShoalError
from ...shards.model.refs import Key, key_of
from ...shards.model.resources import Resource, ResourceType
from ..informers.errors import UnknownResource
from ..informers.resolving import resolve, wanted
from .retrying import Asking, Deadline


class Served:
    """The resources of one server."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._known: dict[str, ResourceType] = {}

    async def resolve(self, resource: Resource | str, *, timeout_s: float | None = None) -> ResourceType:
        """What is meant by ``v1/pods``, ``apps/v1/deployments``, ``deployments.apps``, ``deploy`` or ``Deployment``.

        Raises:
            BadRequest: it is no name of a resource.
            UnknownResource: there is none of that name; the message names close ones.
            ShoalError: discovery could not be asked.
        """
        return await self.find(resource, self._asking.deadline(timeout_s))

    async def resources(self, *, timeout_s: float | None = None) -> tuple[ResourceType, ...]:
        """Everything that is served, in the server's order of preference. Raises ShoalError as `resolve`."""
        groups = await self._groups(self._asking.deadline(timeout_s))
        return tuple(known for group in groups for version in group.versions for known in version.resources)

    async def find(self, resource: Resource | str, deadline: Deadline) -> ResourceType:
        """As `resolve`, within a deadline."""
        text = str(resource)
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = await self._find(resource, deadline)
        return known

    def forget(self, kind: ResourceType) -> None:
        """The server says that it has no such resource: it is looked up again when it is next needed."""
        self._known = {text: known for text, known in self._known.items() if known.resource != kind.resource}

    async def _find(self, resource: Resource | str, deadline: Deadline) -> ResourceType:
        first = wanted(resource)[0]
        if first.group is not None and first.version is not None:
            version = await self._version(first.group, first.version, deadline)
            for known in version.resources:
                if known.resource.name == first.name and "list" in known.verbs:
                    return known
        groups = await self._groups(deadline)
        every = {
            known.resource: known
            for group in groups
            for version in group.versions
            for known in version.resources
        }
        found = resolve(resource, _as_if_watchable(groups))
        if found is None:
            raise UnknownResource(
                f"the server serves no resource {first.text!r} at the moment: a part of its discovery does not answer"
            )
        return every[found.resource]

    async def _groups(self, deadline: Deadline) -> tuple[DiscoveredGroup, ...]:
        groups: list[DiscoveredGroup] = []
        for path in ("/api", "/apis"):
            answer = await self._asking.ask(document_request(path, accept=ACCEPT_AGGREGATED), deadline)
            found = parse_root(answer.body, path)
            groups += found.groups
            # Servers before 1.26 have only the legacy form.
            for group in found.legacy or ():
                versions = [await self._version(group.name, version, deadline) for version in group.versions]
                groups.append(DiscoveredGroup(group.name, tuple(versions)))
        return tuple(groups)

    async def _version(self, group: str, version: str, deadline: Deadline) -> DiscoveredVersion:
        """One group version; empty if there is none, stale if it cannot be asked."""
        path = Resource(group, version, "").root
        try:
            answer = await self._asking.ask(document_request(path), deadline)
        except NotFound:
            return DiscoveredVersion(version, ())
        except ShoalError as error:
            if error.code < 500 or deadline.left_s <= 0:
                raise
            return DiscoveredVersion(version, (), stale=True)
        return parse_resources(answer.body, group, version)


def object_key(
    kind: ResourceType, name: str, namespace: str | None = None, default: str | None = None
) -> Key:
    """The key of the object that a caller names.

    Args:
        kind: Of the object.
        name: Its name, or ``namespace/name`` where no namespace is given.
        namespace: Where it is.
        default: The namespace that the lister or writer is about, for names without one.

    Raises:
        BadRequest: it is no name, or the namespace is missing, or is one too many.
    """
    before, slash, after = name.partition("/")
    if slash and namespace is None:
        namespace, name = before, after
    if not name or "/" in name or name in (".", ".."):
        raise BadRequest(f"{name!r} is not the name of an object")
    namespace = checked_namespace(kind, namespace or default)
    if not kind.namespaced:
        return Key(name)
    if not namespace:
        raise BadRequest(f"{kind.resource} are in namespaces: say in which {name!r} is")
    return key_of(namespace, name)


def checked_namespace(kind: ResourceType, namespace: str | None) -> str | None:
    """The namespace, as it may stand in a path; None: none, or all of them.

    Raises:
        BadRequest: it is no name, or objects of this kind are in no namespace.
    """
    if not namespace:
        return None
    if "/" in namespace or namespace in (".", ".."):
        raise BadRequest(f"{namespace!r} is not the name of a namespace")
    if not kind.namespaced:
        raise BadRequest(f"{kind.resource} are not in namespaces: leave {namespace!r} out")
    return namespace


def _as_if_watchable(groups: Iterable[DiscoveredGroup]) -> Sequence[DiscoveredGroup]:
    """The groups with a watch for whatever can be listed, which is all that is asked of it here."""

    def taken(known: ResourceType) -> ResourceType:
        return (
            msgspec.structs.replace(known, verbs=(*known.verbs, "watch")) if "list" in known.verbs else known
        )

    return [
        group._replace(
            versions=tuple(
                version._replace(resources=tuple(map(taken, version.resources))) for version in group.versions
            )
        )
        for group in groups
    ]
