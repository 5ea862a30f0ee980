"""Objects whose coming and going changes what else there is: namespaces and CustomResourceDefinitions.
Pure.

What controllers do over seconds in a real cluster happens here in the same step as the write: a
definition is established and its resources appear in discovery; a namespace or definition that is deleted
takes its objects with it, each with its own DELETED event (finalizers do not hold them up). The
intermediate states are written too, so a watcher sees Terminating before DELETED.
"""

from __future__ import annotations

from collections.abc import Callable

from ...shards.model.errors import Forbidden
from . import validation
from .crds import (
    DEFINITIONS,
    collection_of,
    default_definition,
    established,
    served_by,
    terminating,
)
from .objects import Document, parse_object, reversion, store
from .served import Catalogue, Served
from .storage import Storage, Stored

NAMESPACES = "namespaces"
DEFINITIONS_COLLECTION = DEFINITIONS.qualified_name
_PROTECTED = frozenset({"default", "kube-system", "kube-public"})


class Lifecycle:
    """Follows what is written and removed, and keeps catalogue and collections in step."""

    def __init__(self, catalogue: Catalogue, storage: Storage, timestamp: Callable[[], str]) -> None:
        self._catalogue = catalogue
        self._storage = storage
        self._timestamp = timestamp
        storage.went_back.add(self._serve_what_is_defined)

    def has_contents(self, served: Served) -> bool:
        """Whether deleting an object of this resource deletes others."""
        return served.collection in (NAMESPACES, DEFINITIONS_COLLECTION)

    def prepare(self, served: Served, document: Document) -> Document:
        """The document as it is to be stored.

        Raises:
            Invalid: a definition that cannot be served.
        """
        return default_definition(document) if served.collection == DEFINITIONS_COLLECTION else document

    def written(self, served: Served, stored: Stored, *, settled: bool = False) -> None:
        """An object was created or changed. `settled`: it carries the status it is to have."""
        if served.collection != DEFINITIONS_COLLECTION:
            return
        definition = parse_object(stored.body)
        if settled:
            definition = default_definition(definition)
        name = collection_of(definition)
        if definition["metadata"].get("deletionTimestamp"):
            return
        if name not in self._storage.collections:
            self._storage.open(name)
        self._catalogue.install(name, served_by(definition))
        conditions = definition["status"].get("conditions") or []
        if settled or any(one.get("type") == "Established" for one in conditions):
            return
        done = established(definition, self._timestamp())
        self._storage.write(
            self._storage.collection(served.collection),
            lambda version: store(done, served.stored_as, version),
        )

    def _serve_what_is_defined(self) -> None:
        """Brings the catalogue in step with definitions that came, went or changed without an event.

        Objects of a definition that is back are gone: they were deleted with it, and so was their log.
        """
        objects = self._storage.collection(DEFINITIONS_COLLECTION).objects
        definitions = {
            stored.name: default_definition(parse_object(stored.body)) for stored in objects.values()
        }
        for name in {served.collection for served in self._catalogue.all() if served.type.custom}:
            if name not in definitions:
                self._catalogue.install(name, ())
                self._storage.drop(name)
        for name, definition in definitions.items():
            if definition["metadata"].get("deletionTimestamp"):
                continue
            if name not in self._storage.collections:
                self._storage.open(name)
            self._catalogue.install(name, served_by(definition))

    def empty(self, served: Served, stored: Stored) -> Stored:
        """Marks the object as terminating and deletes what is in it; returns the marked object.

        Raises:
            Forbidden: a namespace that may not be deleted.
        """
        document = parse_object(stored.body)
        if served.collection == NAMESPACES:
            if stored.name in _PROTECTED:
                raise Forbidden(
                    f'namespaces "{stored.name}" is forbidden: this namespace may not be deleted',
                    details=validation.details(served.type.resource, stored.name),
                )
            document["metadata"]["deletionTimestamp"] = self._timestamp()
            document["status"] = {**(document.get("status") or {}), "phase": "Terminating"}
        else:
            document = terminating(document, self._timestamp())
        marked = self._storage.write(
            self._storage.collection(served.collection),
            lambda version: store(document, served.stored_as, version),
        ).stored
        if served.collection == NAMESPACES:
            for collection in tuple(self._storage.collections.values()):
                for one in collection.page(namespace=stored.name).objects:
                    self._storage.delete(collection, one.key, reversion)
        else:
            name = collection_of(document)
            # No longer served before its objects go, as in kube-apiserver: a list meanwhile is a 404.
            self._catalogue.install(name, ())
            collection = self._storage.collection(name)
            for one in collection.page().objects:
                self._storage.delete(collection, one.key, reversion)
            self._storage.drop(name)
        return marked

    def removed(self, served: Served, stored: Stored) -> None:
        """An object is gone for good; a definition that went without `empty` takes its resources along."""
        if served.collection == DEFINITIONS_COLLECTION:
            self._catalogue.install(stored.name, ())
            self._storage.drop(stored.name)
