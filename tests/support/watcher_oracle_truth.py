"""What the watched server really did: every state of every object of a resource, as watchers are judged by it.

Needs the embedded API server in this process. It is read from the server's log as it is written, so nothing between
server and watcher can colour it. Selectors are decided here by plain predicates (`Flavour.wants`), not by the code
under test.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from shoal.cluster.simulator.storage import Stored
from shoal.cluster.simulator.verbs import Verbs
from shoal.shards.model.resources import Resource


@dataclass(frozen=True)
class Seen:
    """One state of one object: what a line, a list or the server's log says of it."""

    key: str
    version: int
    uid: str
    namespace: str
    labels: dict[str, str] = field(default_factory=dict)
    fields: dict[str, str] | None = field(default_factory=dict)
    """None where the form does not carry them (metadata only, Table)."""


def seen_of(document: dict[str, Any], *, whole: bool = True) -> Seen:
    """Reads an object or its metadata."""
    metadata = document["metadata"]
    namespace = metadata.get("namespace", "")
    fields = None
    if whole:
        fields = {
            "spec.nodeName": document.get("spec", {}).get("nodeName", ""),
            "status.phase": document.get("status", {}).get("phase", ""),
        }
    return Seen(
        key=f"{namespace}/{metadata['name']}" if namespace else metadata["name"],
        version=int(metadata["resourceVersion"]),
        uid=metadata.get("uid", ""),
        namespace=namespace,
        labels=metadata.get("labels") or {},
        fields=fields,
    )


class Truth:
    """Everything that happened to the objects of one resource."""

    def __init__(self, verbs: Verbs, resource: Resource) -> None:
        self._storage = verbs.storage
        self._collection = verbs.collection(verbs.served(resource))
        self._position = self._collection.end_position
        self._states: dict[str, list[tuple[int, Seen | None]]] = {}
        for stored in self._collection.objects.values():
            self._happened(stored.key, stored.version, _seen(stored))
        self._collection.subscribers.add(self._read)

    def _read(self) -> None:
        position = max(self._position, self._collection.first_position)
        for event in self._collection.since(position, 1 << 30):
            gone = event.type == "DELETED"
            self._happened(event.stored.key, event.version, None if gone else _seen(event.stored))
        self._position = self._collection.end_position

    def _happened(self, key: str, version: int, state: Seen | None) -> None:
        states = self._states.setdefault(key, [])
        assert not states or states[-1][0] < version, f"{key} went from {states[-1]} to {version}"
        states.append((version, state))

    @property
    def revision(self) -> int:
        """Newest version of the whole server; nobody may claim more."""
        return self._storage.revision

    def at(self, key: str, version: int) -> Seen | None:
        """The state of an object at a version of the server; None if there was none."""
        states = self._states.get(key, [])
        place = bisect_right(states, version, key=lambda state: state[0])
        return states[place - 1][1] if place else None

    def later(self, key: str, version: int) -> list[Seen | None]:
        """The states of an object after a version; None where it was removed."""
        states = self._states.get(key, [])
        place = bisect_right(states, version, key=lambda state: state[0])
        return [state for _, state in states[place:]]

    def moments(self, version: int) -> list[tuple[str, int, Seen | None]]:
        """Of every object that ever was: key, version of its last change up to `version`, and its state then."""
        found = []
        for key, states in self._states.items():
            place = bisect_right(states, version, key=lambda state: state[0])
            if place:
                changed, state = states[place - 1]
                found.append((key, changed, state))
        return found

    def objects(self) -> list[Seen]:
        """What there is now."""
        return [state for states in self._states.values() if (state := states[-1][1]) is not None]


def _seen(stored: Stored) -> Seen:
    return seen_of(json.loads(stored.body))
