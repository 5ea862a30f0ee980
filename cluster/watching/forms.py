"""The lines of a watch in the form its client accepts: whole objects, metadata only, or Tables.

Forms are values: watchers whose forms are equal share the bytes of their lines. As in kube-apiserver only the
first event of a stream of Tables defines the columns, so a Table form comes in two variants; `following` is
the one that all lines but the first take. Bookmarks are rendered like objects and are never the first event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Protocol

from ...shards.model.depth import at_any_depth
from ...shards.model.errors import ShoalError
from ...shards.model.resources import ResourceType
from ...shards.model.versions import Version
from ..serving import tables
from ..serving.documents import encode_object, partial_metadata, status_body, watch_event
from ..serving.negotiation import Accepted, IncludeObject, MetaVersion


class LineForm(Protocol):
    """How one client wants its events. Hashable; equal forms give equal lines."""

    @property
    def following(self) -> LineForm:
        """The form of all lines after the first event; the same object where they do not differ."""

    def line(self, event_type: str, body: bytes, resource_type: ResourceType) -> bytes:
        """One event with its newline.

        Raises:
            Garbage: the body cannot be brought into this form.
        """

    def bookmark(self, version: Version, resource_type: ResourceType, *, initial_events_end: bool) -> bytes:
        """A BOOKMARK line: an object of the kind with nothing but a version."""


def line_form(accepted: Accepted, now: Callable[[], datetime]) -> LineForm:
    """The form that was agreed on; `now` gives the moment that ages in Tables are counted to.

    Raises:
        NotAcceptable: a form that only lists have.
    """
    accepted.require(is_list=False)
    match accepted.convert:
        case "Table":
            return TableForm(accepted.include_object, accepted.meta_version, now=now)
        case "PartialObjectMetadata" | "PartialObjectMetadataList":
            return MetadataForm(accepted.meta_version)
        case "":
            return ObjectForm()


def error_line(error: ShoalError) -> bytes:
    """The ERROR line a watch ends with: a Status, in every form."""
    return watch_event("ERROR", status_body(error))


@dataclass(frozen=True, slots=True)
class ObjectForm:
    """Whole objects, as the API server sent them."""

    @property
    def following(self) -> LineForm:
        """The same."""
        return self

    def line(self, event_type: str, body: bytes, resource_type: ResourceType) -> bytes:  # noqa: ARG002 - one signature
        """As `LineForm.line`."""
        return watch_event(event_type, body)

    def bookmark(self, version: Version, resource_type: ResourceType, *, initial_events_end: bool) -> bytes:
        """As `LineForm.bookmark`."""
        return watch_event("BOOKMARK", _bookmark_body(version, resource_type, initial_events_end))


@dataclass(frozen=True, slots=True)
class MetadataForm:
    """PartialObjectMetadata."""

    version: MetaVersion = "v1"

    @property
    def following(self) -> LineForm:
        """The same."""
        return self

    def line(self, event_type: str, body: bytes, resource_type: ResourceType) -> bytes:  # noqa: ARG002 - one signature
        """As `LineForm.line`."""
        return watch_event(event_type, at_any_depth(partial(partial_metadata, version=self.version), body))

    def bookmark(self, version: Version, resource_type: ResourceType, *, initial_events_end: bool) -> bytes:
        """As `LineForm.bookmark`."""
        return self.line(
            "BOOKMARK", _bookmark_body(version, resource_type, initial_events_end), resource_type
        )


@dataclass(frozen=True, slots=True)
class TableForm:
    """Tables of one row each."""

    include_object: IncludeObject = "Metadata"
    version: MetaVersion = "v1"
    first: bool = True
    """Define the columns."""
    now: Callable[[], datetime] = field(kw_only=True, compare=False)

    @property
    def following(self) -> LineForm:
        """Without the columns."""
        return replace(self, first=False) if self.first else self

    def line(self, event_type: str, body: bytes, resource_type: ResourceType) -> bytes:
        """As `LineForm.line`."""
        return at_any_depth(
            partial(self._line, event_type, resource_type=resource_type, first=self.first), body
        )

    def bookmark(self, version: Version, resource_type: ResourceType, *, initial_events_end: bool) -> bytes:
        """As `LineForm.bookmark`."""
        body = _bookmark_body(version, resource_type, initial_events_end)
        return self._line("BOOKMARK", body, resource_type=resource_type, first=False)

    def _line(self, event_type: str, body: bytes, *, resource_type: ResourceType, first: bool) -> bytes:
        return tables.table_event(
            resource_type,
            event_type,
            body,
            now=self.now(),
            first=first,
            include_object=self.include_object,
            version=self.version,
        )


def _bookmark_body(version: Version, resource_type: ResourceType, initial_events_end: bool) -> bytes:  # noqa: FBT001
    metadata: dict[str, object] = {"resourceVersion": str(version)}
    if initial_events_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return encode_object({"metadata": metadata}, resource_type)
