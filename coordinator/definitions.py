"""What CustomResourceDefinitions add to discovery: selectable fields, columns, and which resources are
custom. Pure.

A definition is mostly its schema, often hundreds of kilobytes; the scan skips it. Which definitions have to
be read again is told by their uid and generation from a list of metadata alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from ..shards.model.errors import Garbage
from ..shards.model.resources import PrinterColumn, Resource, ResourceType
from .discovery_parse import BUILTIN_GROUPS, DiscoveredGroup

DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
ACCEPT_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


class Revision(NamedTuple):
    """Changes whenever the spec of a definition does; status changes leave it alone."""

    uid: str
    generation: int


class CustomVersion(NamedTuple):
    """What one version of a definition declares."""

    selectable_fields: tuple[str, ...]
    printer_columns: tuple[PrinterColumn, ...]
    served: bool = True


class Definition(NamedTuple):
    """A CustomResourceDefinition, as far as Shoal needs it."""

    group: str
    plural: str
    list_kind: str
    """Empty if it is the kind with ``List`` appended."""
    revision: Revision
    versions: Mapping[str, CustomVersion]

    @property
    def served(self) -> tuple[Resource, ...]:
        """The resources it declares."""
        return tuple(
            Resource(self.group, name, self.plural)
            for name, version in self.versions.items()
            if version.served
        )


# -- the documents
# --------------------------------------------------------------------------------------------


class _Meta(msgspec.Struct):
    name: str = ""
    uid: str = ""
    generation: int = 0
    deletionTimestamp: str | None = None  # noqa: N815 - the document's own name


class _Object(msgspec.Struct):
    metadata: _Meta


class _ListMeta(msgspec.Struct):
    continue_token: str = msgspec.field(name="continue", default="")


class _Objects(msgspec.Struct):
    items: list[_Object] | None = None
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


class _Column(msgspec.Struct):
    name: str
    type: str
    jsonPath: str = ""  # noqa: N815
    format: str = ""
    description: str = ""
    priority: int = 0


class _SelectableField(msgspec.Struct):
    jsonPath: str  # noqa: N815


class _Version(msgspec.Struct):
    name: str
    served: bool = True
    additionalPrinterColumns: list[_Column] | None = None  # noqa: N815
    selectableFields: list[_SelectableField] | None = None  # noqa: N815


class _Names(msgspec.Struct):
    plural: str
    kind: str = ""
    listKind: str = ""  # noqa: N815


class _Spec(msgspec.Struct):
    group: str
    names: _Names
    versions: list[_Version] | None = None


class _Definition(msgspec.Struct):
    metadata: _Meta
    spec: _Spec


_LIST: msgspec.json.Decoder[_Objects] = msgspec.json.Decoder(_Objects)
_ONE: msgspec.json.Decoder[_Definition] = msgspec.json.Decoder(_Definition)


class RevisionPage(NamedTuple):
    """One page of the list of definitions."""

    revisions: dict[str, Revision]
    """By name of the definition; those that are being deleted are left out."""
    continue_token: str


def parse_revisions(body: bytes) -> RevisionPage:
    """Reads a list of definitions, metadata alone or whole.

    Raises:
        Garbage: not a list of objects.
    """
    document: _Objects = _decode(_LIST, body, DEFINITIONS.path())
    return RevisionPage(
        {
            item.metadata.name: Revision(item.metadata.uid, item.metadata.generation)
            for item in document.items or ()
            if not item.metadata.deletionTimestamp
        },
        document.metadata.continue_token,
    )


def parse_definition(body: bytes) -> Definition:
    """Reads one definition.

    Raises:
        Garbage: not one.
    """
    document: _Definition = _decode(_ONE, body, DEFINITIONS.path())
    spec = document.spec
    return Definition(
        spec.group,
        spec.names.plural,
        "" if spec.names.listKind == f"{spec.names.kind}List" else spec.names.listKind,
        Revision(document.metadata.uid, document.metadata.generation),
        {version.name: _custom_version(version) for version in spec.versions or ()},
    )


def apply_definitions(
    groups: Iterable[DiscoveredGroup], definitions: Iterable[Definition] | None
) -> tuple[DiscoveredGroup, ...]:
    """Adds to each custom resource what its definition declares.

    `definitions` is None where they may not be read: what discovery says about being custom then stands. If
    they may, a resource without a definition is one an API service compiled in. Between the appearance of a
    resource and that of its definition, the group it is in decides.
    """
    if definitions is None:
        return tuple(groups)
    known = {(definition.group, definition.plural): definition for definition in definitions}

    def applied(entry: ResourceType) -> ResourceType:
        definition = known.get((entry.resource.group, entry.resource.name))
        if definition is None:
            return entry
        version = definition.versions.get(entry.resource.version, CustomVersion((), ()))
        return msgspec.structs.replace(
            entry,
            custom=True,
            list_kind=definition.list_kind,
            selectable_fields=version.selectable_fields,
            printer_columns=version.printer_columns,
        )

    return tuple(
        group
        if group.name in BUILTIN_GROUPS
        else group._replace(
            versions=tuple(
                version._replace(resources=tuple(applied(entry) for entry in version.resources))
                for version in group.versions
            )
        )
        for group in groups
    )


def _custom_version(version: _Version) -> CustomVersion:
    return CustomVersion(
        tuple(field.jsonPath.removeprefix(".") for field in version.selectableFields or ()),
        tuple(
            PrinterColumn(
                name=column.name,
                type=column.type,
                json_path=column.jsonPath,
                format=column.format,
                description=column.description,
                priority=column.priority,
            )
            for column in version.additionalPrinterColumns or ()
        ),
        version.served,
    )


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes, path: str) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise Garbage(f"{path} answered with what is no definition ({error}): {body[:80]!r}") from error
