"""What is served: resources, the collection each is stored in, and how a stored object looks in each
version.

Several served resources may share a collection: the versions of a custom resource, and the two groups
that serve Events. Objects are stored in one of them (`Served.stored_as`) and converted when read through
another. Versions of a custom resource differ in ``apiVersion`` alone (conversion strategy None); Events
have a real conversion; other built-in kinds with two versions are converted like custom ones, which is
enough for their listing. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

from ...shards.model.depth import at_any_depth
from ...shards.model.resources import Resource, ResourceType
from ..serving.discovery import DiscoveryDocuments
from ..serving.documents import encode_object
from ..serving.options import selectable_fields
from .objects import Document, parse_object
from .storage import Stored

_CORE_EVENTS = Resource("", "v1", "events")
_EVENTS = Resource("events.k8s.io", "v1", "events")
_HPA_V1 = Resource("autoscaling", "v1", "horizontalpodautoscalers")

_EVENT_NAMES: Mapping[str, str] = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
"""Fields of events.k8s.io/v1 and what they are called in the core group; all others have one name."""
_API_VERSION = re.compile(rb'"apiVersion":"[^"]*"')
_EVENT_NAMES_BACK = {old: new for new, old in _EVENT_NAMES.items()}


@dataclass(frozen=True)
class Served:
    """One resource in one version."""

    type: ResourceType
    stored_as: ResourceType
    """The type objects are stored as; equal to `type` for most."""

    @property
    def collection(self) -> str:
        """Name of the collection its objects are in."""
        return self.stored_as.resource.qualified_name

    @cached_property
    def field_index(self) -> Mapping[str, int]:
        """Where `Stored.fields` has the value of a field that selectors on this resource may name."""
        stored = {field: at for at, field in enumerate(selectable_fields(self.stored_as))}
        own = selectable_fields(self.type)
        if self.type.resource == _EVENTS:
            return {field: stored[_core_field(field)] for field in own}
        return {field: stored[field] for field in own if field in stored}

    @cached_property
    def _prefix(self) -> bytes:
        return encode_object({}, self.type)[:-1]

    def body(self, stored: Stored) -> bytes:
        """The object's JSON in this version."""
        if stored.body.startswith(self._prefix):
            return stored.body
        if self.type.resource == _EVENTS:
            renamed = _renamed(parse_object(stored.body), _EVENT_NAMES_BACK)
            return at_any_depth(partial(encode_object, resource_type=self.type), renamed)
        # Stored as another version of the same kind. The first occurrence is the object's own: kind and
        # apiVersion stand in front of everything else.
        own = f'"apiVersion":"{self.type.resource.api_version}"'.encode()
        return _API_VERSION.sub(lambda _: own, stored.body, count=1)

    def to_storage(self, document: Document) -> Document:
        """A document of this version in the version it is stored in."""
        if self.type is self.stored_as:
            return document
        converted = _renamed(document, _EVENT_NAMES) if self.type.resource == _EVENTS else dict(document)
        converted["apiVersion"] = self.stored_as.resource.api_version
        return converted


class Catalogue:
    """The resources served now. Discovery documents follow every change at once."""

    def __init__(self, builtin: Iterable[ResourceType]) -> None:
        types = {known.resource: known for known in builtin}
        self._served: dict[Resource, Served] = {}
        for resource, known in types.items():
            stored_as = types.get(_stored_resource(resource, types), known)
            self._served[resource] = Served(known, stored_as)
        self._builtin_groups = {(resource.group, resource.version) for resource in types}
        self._documents: DiscoveryDocuments | None = None

    def find(self, resource: Resource) -> Served | None:
        """The resource, or None if it is not served."""
        return self._served.get(resource)

    def all(self) -> tuple[Served, ...]:
        """Every resource served."""
        return tuple(self._served.values())

    def is_builtin_group(self, group: str, version: str) -> bool:
        """Whether a resource missing there is answered with a Status, not with a plain text 404."""
        return (group, version) in self._builtin_groups

    @property
    def documents(self) -> DiscoveryDocuments:
        """Discovery of what is served now."""
        if self._documents is None:
            self._documents = DiscoveryDocuments([served.type for served in self._served.values()])
        return self._documents

    def install(self, collection: str, served: Iterable[Served]) -> None:
        """Serves exactly these resources for `collection`, instead of what was served for it before."""
        kept = {known: one for known, one in self._served.items() if one.collection != collection}
        self._served = kept | {one.type.resource: one for one in served}
        self._documents = None


def _stored_resource(resource: Resource, types: Mapping[Resource, ResourceType]) -> Resource:
    if resource == _EVENTS and _CORE_EVENTS in types:
        return _CORE_EVENTS
    if resource == _HPA_V1:
        return Resource("autoscaling", "v2", "horizontalpodautoscalers")
    return resource


def _core_field(field: str) -> str:
    first, dot, rest = field.partition(".")
    return _EVENT_NAMES.get(first, first) + dot + rest


def _renamed(document: Document, names: Mapping[str, str]) -> Document:
    return {names.get(name, name): value for name, value in document.items()}
