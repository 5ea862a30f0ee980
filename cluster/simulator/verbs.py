"""Writing: create, update, patch, delete, and what a write brings with it (generation, managed fields,
events).

Every verb is one synchronous step, so there is nothing between reading an object and writing it.
Namespaces and definitions have a life beyond their own object; `lifecycle` looks after that. Pure: time
and uids come from outside, so a seeded server is deterministic. Absent, because no client here depends on
them: admission, quotas, garbage collection by owner, graceful deletion of pods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...shards.model.errors import BadRequest
from ...shards.model.refs import Key, key_of
from ...shards.model.resources import Resource
from . import validation
from .defaults import fill_defaults
from .lifecycle import Lifecycle
from .objects import NO_GENERATION, Document, adopt, arrange, parse_object, reversion, same, store
from .ownership import record_writer
from .patches import Patch, apply_patch
from .selection import Predicate
from .served import Catalogue, Served
from .storage import Collection, Storage, Stored

_SYSTEM_METADATA = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
"""What an update cannot change."""
_NAMESPACES = Resource("", "v1", "namespaces")


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes, and how."""

    manager: str = "unknown"
    """Goes into ``managedFields``."""
    dry_run: bool = False
    """Everything is checked and nothing stored."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a delete did: the object's last state, and whether it is really gone (finalizers keep it)."""

    stored: Stored
    gone: bool


class Verbs:
    """The writing half of the server, also called directly by whoever fills or churns it."""

    def __init__(
        self,
        catalogue: Catalogue,
        storage: Storage,
        *,
        now: Callable[[], datetime],
        new_uid: Callable[[], str],
        name_suffix: Callable[[], str],
    ) -> None:
        """`new_uid` gives a UUID, `name_suffix` five characters for ``generateName``."""
        self.catalogue = catalogue
        self.storage = storage
        self._now = now
        self._new_uid = new_uid
        self._name_suffix = name_suffix
        self._lifecycle = Lifecycle(catalogue, storage, self.timestamp)

    def timestamp(self) -> str:
        """The time as the API server writes it: seconds, UTC."""
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def served(self, resource: Resource) -> Served:
        """The resource, for callers that know it is served.

        Raises:
            KeyError: it is not.
        """
        found = self.catalogue.find(resource)
        if found is None:
            raise KeyError(f"{resource} is not served")
        return found

    def collection(self, served: Served) -> Collection:
        """Where the objects of a served resource are."""
        return self.storage.collection(served.collection)

    def get(self, served: Served, namespace: str | None, name: str) -> Stored:
        """One object.

        Raises:
            NotFound: there is none.
        """
        stored: Stored | None = self.collection(served).objects.get(key_of(namespace or "", name))
        if stored is None:
            raise validation.not_found(served.type.resource, name)
        return stored

    # -- create -------------------------------------------------------------------------------------

    def create(
        self,
        served: Served,
        namespace: str | None,
        document: Document,
        writer: Writer = Writer(),
    ) -> Stored:
        """Stores a new object and returns it.

        Raises:
            AlreadyExists, BadRequest, Invalid, NotFound: as kube-apiserver would; NotFound for the namespace.
        """
        new = served.to_storage(document)
        new["metadata"] = metadata = dict(document.get("metadata") or {})
        space = validation.check_namespace(document, namespace, served.type)
        if metadata.get("resourceVersion"):
            raise validation.NotCreatable("resourceVersion should not be set on objects to be created")
        name = self._name(metadata, served)
        resource = served.type.resource
        if space and key_of("", space) not in self.storage.collection("namespaces").objects:
            raise validation.not_found(_NAMESPACES, space)
        collection = self.collection(served)
        if key_of(space, name) in collection.objects:
            raise validation.already_exists(resource, name)
        if space:
            metadata["namespace"] = space
        for absent in ("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields", "generation"):
            metadata.pop(absent, None)
        metadata["name"] = name
        metadata["uid"] = self._new_uid()
        metadata["creationTimestamp"] = self.timestamp()
        if self._counts_generations(served):
            metadata["generation"] = 1
        if served.type.custom and "status" in served.type.subresources:
            new.pop("status", None)
        fill_defaults(new, served.collection)
        new = self._lifecycle.prepare(served, new)
        return self._write(served, new, writer, None)

    def _name(self, metadata: dict[str, Any], served: Served) -> str:
        name = metadata.get("name")
        if not name and metadata.get("generateName"):
            name = f"{metadata['generateName']}{self._name_suffix()}"
        if not name:
            why = "Required value: name or generateName is required"
            raise validation.invalid(served.type, "", "metadata.name", "FieldValueRequired", why)
        validation.check_name(str(name), served.type)
        return str(name)

    # -- change -------------------------------------------------------------------------------------

    def replace(
        self,
        served: Served,
        namespace: str | None,
        name: str,
        document: Document,
        writer: Writer = Writer(),
        *,
        subresource: str | None = None,
    ) -> Stored:
        """Replaces an object (or its status), as PUT does.

        Raises:
            NotFound, Conflict, BadRequest, Invalid: as kube-apiserver would.
        """
        validation.check_namespace(document, namespace, served.type)
        given = (document.get("metadata") or {}).get("name")
        if given != name:
            raise BadRequest(
                f"the name of the object ({given or ''}) does not match the name on the URL ({name})"
            )
        stored = self.get(served, namespace, name)
        if served.type.custom and not document["metadata"].get("resourceVersion"):
            raise validation.invalid(
                served.type,
                name,
                "metadata.resourceVersion",
                "FieldValueInvalid",
                "Invalid value: 0: must be specified for an update",
            )
        return self._change(served, stored, served.to_storage(document), writer, subresource)

    def patch(
        self,
        served: Served,
        namespace: str | None,
        name: str,
        patch: Patch,
        writer: Writer = Writer(),
        *,
        subresource: str | None = None,
    ) -> Stored:
        """Patches an object (or its status).

        Raises:
            NotFound, Conflict, BadRequest, Invalid, UnsupportedMediaType: as kube-apiserver would.
        """
        stored = self.get(served, namespace, name)
        document = parse_object(served.body(stored))
        changed = validation.check_patched(apply_patch(document, patch, served.type), served.type)
        return self._change(served, stored, served.to_storage(changed), writer, subresource)

    def update(
        self,
        served: Served,
        key: Key,
        change: Callable[[Document], None],
        writer: Writer = Writer(),
    ) -> Stored:
        """Changes an object in place by a function, status included: for controllers inside this process.

        Raises:
            KeyError: there is no such object.
        """
        stored: Stored = self.collection(served).objects[key]
        document = parse_object(stored.body)
        before = parse_object(stored.body).get("spec")
        change(document)
        if self._counts_generations(served) and not same(document.get("spec"), before):
            document["metadata"]["generation"] = document["metadata"].get("generation", 0) + 1
        return self._write(served, document, writer, None)

    def _change(
        self, served: Served, stored: Stored, new: Document, writer: Writer, subresource: str | None
    ) -> Stored:
        """What PUT and PATCH have in common: preconditions, what cannot change, and nothing written for
        nothing.
        """
        current = parse_object(stored.body)
        old = current["metadata"]
        given = dict(new.get("metadata") or {})
        self._check_preconditions(served.type.resource, stored, given)
        if subresource == "status":
            changed = {**current, "metadata": dict(old), "status": new.get("status")}
        else:
            kept = {name: old[name] for name in _SYSTEM_METADATA if name in old}
            metadata = {name: value for name, value in given.items() if name not in _SYSTEM_METADATA} | kept
            metadata["resourceVersion"] = old["resourceVersion"]
            metadata["managedFields"] = old.get("managedFields") or []
            changed = {**new, "metadata": metadata}
            if "status" in served.type.subresources:
                changed.pop("status", None)
                if "status" in current:
                    changed["status"] = current["status"]
            fill_defaults(changed, served.collection)
            changed = self._lifecycle.prepare(served, changed)
            if self._counts_generations(served) and not same(_content(changed), _content(current)):
                changed["metadata"]["generation"] = old.get("generation", 0) + 1
        if changed.get("status", ...) is None:
            del changed["status"]
        if same(arrange(changed, served.stored_as), arrange(current, served.stored_as)):
            return stored  # the API server does not write what would change nothing
        if old.get("deletionTimestamp") and not changed["metadata"].get("finalizers"):
            return self._forget(served, stored).stored
        return self._write(served, changed, writer, subresource)

    def _check_preconditions(self, resource: Resource, stored: Stored, given: Mapping[str, Any]) -> None:
        """Raises Conflict if the writer named another version or uid than the object has."""
        uid, version = given.get("uid"), given.get("resourceVersion")
        if uid and uid != stored.uid:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {stored.uid}"
            raise validation.conflict(resource, stored.name, why)
        if version and version != str(stored.version):
            raise validation.conflict(resource, stored.name, validation.MODIFIED)

    def _counts_generations(self, served: Served) -> bool:
        return served.type.custom or served.collection not in NO_GENERATION

    def _write(self, served: Served, document: Document, writer: Writer, subresource: str | None) -> Stored:
        record_writer(
            document,
            served.type,
            manager=writer.manager,
            time=self.timestamp(),
            subresource=subresource,
        )
        if writer.dry_run:
            return store(document, served.stored_as, self.storage.revision)
        event = self.storage.write(
            self.collection(served), lambda version: store(document, served.stored_as, version)
        )
        self._lifecycle.written(served, event.stored)
        return event.stored

    # -- delete -------------------------------------------------------------------------------------

    def delete(
        self,
        served: Served,
        namespace: str | None,
        name: str,
        options: Mapping[str, Any] | None = None,
        writer: Writer = Writer(),
    ) -> Deletion:
        """Deletes an object; `options` is a DeleteOptions document, of which the preconditions count.

        Raises:
            NotFound, Conflict, Forbidden: as kube-apiserver would.
        """
        stored = self.get(served, namespace, name)
        given = dict((options or {}).get("preconditions") or {})
        version = given.pop("resourceVersion", None)
        self._check_preconditions(served.type.resource, stored, given)
        if version and version != str(stored.version):
            why = (
                f"Precondition failed: ResourceVersion in precondition: {version}, "
                f"ResourceVersion in object meta: {stored.version}"
            )
            raise validation.conflict(served.type.resource, stored.name, why)
        if writer.dry_run:
            return Deletion(stored, gone=True)
        return self._remove(served, stored)

    def delete_collection(
        self,
        served: Served,
        namespace: str | None,
        matches: Predicate | None,
        writer: Writer = Writer(),
    ) -> list[Stored]:
        """Deletes every object of the collection that matches; returns what they were."""
        found = self.collection(served).page(namespace=namespace, matches=matches).objects
        if not writer.dry_run:
            for stored in found:
                self._remove(served, stored)
        return found

    def _remove(self, served: Served, stored: Stored) -> Deletion:
        if self._lifecycle.has_contents(served):
            shown = self._lifecycle.empty(served, stored)
            self._forget(served, shown)
            return Deletion(shown, gone=False)
        document = parse_object(stored.body)
        metadata = document["metadata"]
        if metadata.get("finalizers"):
            if not metadata.get("deletionTimestamp"):
                metadata["deletionTimestamp"] = self.timestamp()
                metadata["deletionGracePeriodSeconds"] = 0
                stored = self.storage.write(
                    self.collection(served), lambda version: store(document, served.stored_as, version)
                ).stored
            return Deletion(stored, gone=False)
        return self._forget(served, stored)

    def _forget(self, served: Served, stored: Stored) -> Deletion:
        event = self.storage.delete(self.collection(served), stored.key, reversion)
        self._lifecycle.removed(served, event.stored)
        return Deletion(event.stored, gone=True)

    # -- filling ------------------------------------------------------------------------------------

    def put(self, served: Served, document: Document, *, exists: bool) -> Document:
        """Stores a whole document as it stands, and returns it with what the server adds.

        For controllers inside this process: nothing is defaulted, compared or recorded as managed; uid and
        creation time are added where they are missing.

        Raises:
            NotFound, AlreadyExists: the object is not there though it should be, or the reverse.
        """
        metadata = dict(document["metadata"])
        name, resource = metadata["name"], served.type.resource
        collection = self.collection(served)
        if (key_of(metadata.get("namespace", ""), name) in collection.objects) is not exists:
            raise (validation.not_found if exists else validation.already_exists)(resource, name)
        metadata.setdefault("uid", self._new_uid())
        metadata.setdefault("creationTimestamp", self.timestamp())
        whole = served.to_storage({**document, "metadata": metadata})
        event = self.storage.write(collection, lambda version: store(whole, served.stored_as, version))
        self._lifecycle.written(served, event.stored, settled=True)
        metadata["resourceVersion"] = str(event.version)
        return {**document, "metadata": metadata}

    def restore(self, served: Served, body: bytes, *, keep_version: bool = False) -> Stored:
        """Puts an object that some API server once sent: uid, times and the rest stay as they are.

        Its version becomes the next revision, unless `keep_version`; then it must be newer than the revision.

        Raises:
            ValueError: not an object of the resource, or a version that is not newer.
        """
        adopted = adopt(body, served.stored_as)
        collection = self.collection(served)
        if keep_version:
            event = self.storage.restore(collection, adopted)
        else:
            event = self.storage.write(collection, lambda version: reversion(adopted, version))
        self._lifecycle.written(served, event.stored, settled=True)
        return event.stored


def _content(document: Document) -> Document:
    """What generations count: everything but metadata and status."""
    return {name: value for name, value in document.items() if name not in ("metadata", "status")}
