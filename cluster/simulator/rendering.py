"""Stored objects in the form the client accepts: whole, metadata only, as a Table; JSON or YAML. Pure.

Watch lines are rendered once for each form and kept at the event, so that any number of watchers share
the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from ...shards.model.depth import at_any_depth
from ...shards.model.versions import Version
from ..serving import tables
from ..serving.documents import (
    PARTIAL_LIST_TAIL,
    ListMetadata,
    encode_object,
    list_body,
    partial_list_head,
    partial_metadata,
    present,
    watch_event,
)
from ..serving.negotiation import Accepted
from .objects import reversion
from .served import Served
from .storage import Event, EventType, Stored


@dataclass(frozen=True)
class Form:
    """How one request wants the objects of one resource."""

    served: Served
    accepted: Accepted

    def object(self, stored: Stored, *, now: datetime) -> bytes:
        """One object as the whole answer, newline included.

        Raises:
            NotAcceptable: a form only lists have was asked for.
        """
        self.accepted.require(is_list=False)
        return at_any_depth(partial(self._object, now=now), stored)

    def _object(self, stored: Stored, *, now: datetime) -> bytes:
        body, accepted = self.served.body(stored), self.accepted
        match accepted.convert:
            case "Table":
                body = tables.table(
                    self.served.type,
                    (body,),
                    ListMetadata(stored.version),
                    now=now,
                    include_object=accepted.include_object,
                    version=accepted.meta_version,
                )
            case "PartialObjectMetadata":
                body = partial_metadata(body, accepted.meta_version) + b"\n"
            case _:
                body += b"\n"
        return present(body, accepted)

    def list(self, objects: Sequence[Stored], metadata: ListMetadata, *, now: datetime) -> bytes:
        """A page as the whole answer.

        Raises:
            NotAcceptable: a form only single objects have was asked for.
        """
        self.accepted.require(is_list=True)
        return at_any_depth(partial(self._list, metadata=metadata, now=now), objects)

    def _list(self, objects: Sequence[Stored], *, metadata: ListMetadata, now: datetime) -> bytes:
        bodies, accepted = map(self.served.body, objects), self.accepted
        match accepted.convert:
            case "Table":
                body = tables.table(
                    self.served.type,
                    bodies,
                    metadata,
                    now=now,
                    include_object=accepted.include_object,
                    version=accepted.meta_version,
                )
            case "PartialObjectMetadataList":
                items = b",".join(partial_metadata(body, accepted.meta_version) for body in bodies)
                body = partial_list_head(metadata, accepted.meta_version) + items + PARTIAL_LIST_TAIL
            case _:
                body = list_body(self.served.type, metadata, bodies)
        return present(body, accepted)

    def line(self, event: Event, kind: EventType, *, now: datetime, first: bool) -> bytes:
        """The watch line of an event; `first` for a stream's first Table, which carries the columns."""
        accepted = self.accepted
        key = (
            self.served.type.resource,
            kind,
            accepted.convert,
            accepted.include_object,
            accepted.meta_version,
            first and accepted.convert == "Table",
        )
        line = event.lines.get(key)
        if line is None:
            stored = event.stored
            if kind == "DELETED" and event.type != "DELETED":
                # It left the selector: the client is shown what it knew, at the version of the change.
                stored = reversion(event.previous or event.stored, event.version)
            line = event.lines[key] = self._line(kind, self.served.body(stored), now=now, first=first)
        return line

    def added(self, stored: Stored, *, now: datetime, first: bool) -> bytes:
        """The ADDED line of an object that is there when the watch begins."""
        return self._line("ADDED", self.served.body(stored), now=now, first=first)

    def bookmark(self, version: Version, *, initial_events_end: bool, now: datetime) -> bytes:
        """A BOOKMARK line: an object of the kind with nothing but a version."""
        metadata: dict[str, object] = {"resourceVersion": str(version)}
        if initial_events_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        body = encode_object({"metadata": metadata}, self.served.type)
        return self._line("BOOKMARK", body, now=now, first=False)

    def _line(self, kind: str, body: bytes, *, now: datetime, first: bool) -> bytes:
        if not self.accepted.convert:
            return watch_event(kind, body)
        return at_any_depth(partial(self._converted, kind, now=now, first=first), body)

    def _converted(self, kind: str, body: bytes, *, now: datetime, first: bool) -> bytes:
        match self.accepted.convert:
            case "Table":
                return tables.table_event(
                    self.served.type,
                    kind,
                    body,
                    now=now,
                    first=first,
                    include_object=self.accepted.include_object,
                    version=self.accepted.meta_version,
                )
            case _:
                return watch_event(kind, partial_metadata(body, self.accepted.meta_version))
