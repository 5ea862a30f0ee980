"""Putting many objects into the server without HTTP: a recorded or made-up cluster, and its churn.

`fill` takes what `cluster_file` and `population` yield; `DirectWrites` is what `churn` writes through.
Both store whole documents, status and managed fields included, as etcd would be restored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...shards.model.errors import SettingsError
from ...shards.model.refs import Key, key_of
from ...shards.model.resources import Resource
from .objects import Document, parse_object
from .verbs import Verbs


def fill(verbs: Verbs, objects: Iterable[tuple[Resource, bytes]]) -> int:
    """Stores objects as they are but for their versions, which become new; returns how many.

    Objects of a definition may come before it: they are stored last. Those that are there already are
    replaced.

    Raises:
        SettingsError: an object of a resource that nothing defines, or one that is no object.
    """
    count = 0
    waiting: list[tuple[Resource, bytes]] = []
    for resource, body in objects:
        if verbs.catalogue.find(resource) is None:
            waiting.append((resource, body))
        else:
            _restore(verbs, resource, body)
            count += 1
    for resource, body in waiting:
        if verbs.catalogue.find(resource) is None:
            raise SettingsError(
                f"no definition makes the server serve {resource}, of which there is an object"
            )
        _restore(verbs, resource, body)
        count += 1
    return count


def _restore(verbs: Verbs, resource: Resource, body: bytes) -> None:
    try:
        verbs.restore(verbs.served(resource), body)
    except ValueError as error:
        raise SettingsError(f"cannot store an object: {error}") from error


class DirectWrites:
    """Reads and writes by document, for controllers and churn inside this process."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    def create(self, resource: Resource, document: Document) -> Document:
        """Stores a new object and returns it as stored.

        Raises:
            AlreadyExists: an object of that name exists.
        """
        return self._verbs.put(self._verbs.served(resource), document, exists=False)

    def update(self, resource: Resource, document: Document) -> Document:
        """Replaces an object, status included, and returns it as stored.

        Raises:
            NotFound: there is none.
        """
        return self._verbs.put(self._verbs.served(resource), document, exists=True)

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Removes an object.

        Raises:
            NotFound: there is none.
        """
        self._verbs.delete(self._verbs.served(resource), namespace or None, name)

    def get(self, resource: Resource, namespace: str, name: str) -> Document | None:
        """A copy of one object, or None."""
        collection = self._verbs.collection(self._verbs.served(resource))
        stored = collection.objects.get(key_of(namespace, name))
        return None if stored is None else parse_object(stored.body)

    def names(self, resource: Resource) -> Sequence[Key]:
        """The keys of all objects of a resource, in order."""
        return tuple(self._verbs.collection(self._verbs.served(resource)).objects)
