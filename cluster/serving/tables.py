"""Tables: objects as kubectl shows them, rows of cells under column definitions.

Built-in kinds have the columns kube-apiserver gives them (`columns`), custom resources those of their
definition, everything else its name and age. An object comes as JSON bytes; only the fields its cells rest
on are decoded, and its metadata goes into the row as the bytes it came as. An object whose fields are not
what its kind says still gets a row, with its name alone: one odd object must not hide the others.

Pure: the present moment is passed in. Whether a Table is wanted is decided in `negotiation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, assert_never

import msgspec

from ...shards.model.errors import Garbage
from ...shards.model.resources import ResourceType
from .columns import cluster, network, pods, policies, storage, workloads
from .columns.cells import AGE, NAME, Cell, Column, Meta, Printer, View, created
from .columns.custom import custom_cells, custom_columns
from .documents import ListMetadata, go_escaped, list_metadata, partial_metadata, watch_event
from .negotiation import IncludeObject, MetaVersion

TABLE_TAIL: Final = b"]}\n"


def _name_and_age(view: View, meta: Meta, now: datetime) -> list[Cell]:
    del view
    return [meta.name, created(meta, now)]


_PLAIN = Printer((NAME, AGE), View, _name_and_age)

PRINTERS: Mapping[str, Printer[Any]] = {
    "pods": pods.PODS,
    "deployments.apps": workloads.DEPLOYMENTS,
    "replicasets.apps": workloads.REPLICA_SETS,
    "statefulsets.apps": workloads.STATEFUL_SETS,
    "daemonsets.apps": workloads.DAEMON_SETS,
    "replicationcontrollers": workloads.REPLICATION_CONTROLLERS,
    "jobs.batch": workloads.JOBS,
    "cronjobs.batch": workloads.CRON_JOBS,
    "services": network.SERVICES,
    "endpoints": network.ENDPOINTS,
    "endpointslices.discovery.k8s.io": network.ENDPOINT_SLICES,
    "ingresses.networking.k8s.io": network.INGRESSES,
    "ingressclasses.networking.k8s.io": network.INGRESS_CLASSES,
    "networkpolicies.networking.k8s.io": network.NETWORK_POLICIES,
    "ipaddresses.networking.k8s.io": network.IP_ADDRESSES,
    "servicecidrs.networking.k8s.io": network.SERVICE_CIDRS,
    "nodes": cluster.NODES,
    "namespaces": cluster.NAMESPACES,
    "events": cluster.EVENTS,
    "events.events.k8s.io": cluster.NEW_EVENTS,
    "leases.coordination.k8s.io": cluster.LEASES,
    "apiservices.apiregistration.k8s.io": cluster.API_SERVICES,
    "priorityclasses.scheduling.k8s.io": cluster.PRIORITY_CLASSES,
    "customresourcedefinitions.apiextensions.k8s.io": cluster.CREATION_DATES,
    "roles.rbac.authorization.k8s.io": cluster.CREATION_DATES,
    "clusterroles.rbac.authorization.k8s.io": cluster.CREATION_DATES,
    "limitranges": cluster.CREATION_DATES,
    "rolebindings.rbac.authorization.k8s.io": policies.ROLE_BINDINGS,
    "clusterrolebindings.rbac.authorization.k8s.io": policies.CLUSTER_ROLE_BINDINGS,
    "configmaps": policies.CONFIG_MAPS,
    "secrets": policies.SECRETS,
    "serviceaccounts": policies.SERVICE_ACCOUNTS,
    "horizontalpodautoscalers.autoscaling": policies.AUTOSCALERS,
    "poddisruptionbudgets.policy": policies.BUDGETS,
    "persistentvolumes": storage.VOLUMES,
    "persistentvolumeclaims": storage.CLAIMS,
    "storageclasses.storage.k8s.io": storage.STORAGE_CLASSES,
}
"""By qualified name of the resource: all versions of a kind are printed alike."""

_META = msgspec.json.Decoder(Meta)
_DOCUMENT = msgspec.json.Decoder(dict[str, Any])
_DECODERS = {view: msgspec.json.Decoder(view) for view in {p.view for p in (*PRINTERS.values(), _PLAIN)}}


def column_definitions(resource_type: ResourceType) -> tuple[Column, ...]:
    """The columns of a resource, those of ``-o wide`` (priority above 0) included."""
    if resource_type.custom:
        return custom_columns(resource_type.printer_columns)
    return PRINTERS.get(resource_type.resource.qualified_name, _PLAIN).columns


def rows(
    resource_type: ResourceType,
    objects: Iterable[bytes],
    *,
    now: datetime,
    include_object: IncludeObject = "Metadata",
    version: MetaVersion = "v1",
) -> Iterator[bytes]:
    """One row an object, as JSON without separators.

    Args:
        resource_type: what the objects are.
        objects: bodies.
        now: the moment ages are counted to, with a time zone.
        include_object: what a row carries besides its cells.
        version: version of meta.k8s.io in which the metadata is written.

    Raises:
        Garbage: a body that is not an object with metadata at all.
    """
    row = _custom_row(resource_type) if resource_type.custom else _builtin_row(resource_type)
    for body in objects:
        cells, conditions = row(body, now)
        parts = [b'{"cells":', go_escaped(msgspec.json.encode(cells))]
        if conditions:
            parts += (b',"conditions":', msgspec.json.encode(conditions))
        parts += (b',"object":', _shown(body, include_object, version), b"}")
        yield b"".join(parts)


def _shown(body: bytes, include_object: IncludeObject, version: MetaVersion) -> bytes:
    match include_object:
        case "Metadata":
            return partial_metadata(body, version)
        case "Object":
            return body
        case "None":
            return b"null"
        case _ as unreachable:
            assert_never(unreachable)


def table_head(resource_type: ResourceType, metadata: ListMetadata, version: MetaVersion = "v1") -> bytes:
    """A Table up to and with the bracket that opens its rows; it ends with `TABLE_TAIL`."""
    columns = [column._asdict() for column in column_definitions(resource_type)]
    return _head(metadata, version, go_escaped(msgspec.json.encode(columns)))


def table(
    resource_type: ResourceType,
    objects: Iterable[bytes],
    metadata: ListMetadata,
    *,
    now: datetime,
    include_object: IncludeObject = "Metadata",
    version: MetaVersion = "v1",
) -> bytes:
    """A whole Table at once, for answers of bounded size; raises as `rows`.

    For one object, `metadata` carries that object's resource version and nothing else.
    """
    content = b",".join(rows(resource_type, objects, now=now, include_object=include_object, version=version))
    return b"".join((table_head(resource_type, metadata, version), content, TABLE_TAIL))


def table_event(
    resource_type: ResourceType,
    event_type: str,
    body: bytes,
    *,
    now: datetime,
    first: bool,
    include_object: IncludeObject = "Metadata",
    version: MetaVersion = "v1",
) -> bytes:
    """One line of a watch whose objects are Tables; only the first event of a stream defines the columns.

    Raises:
        Garbage: as `rows`.
    """
    metadata = ListMetadata(_object_version(body))
    head = table_head(resource_type, metadata, version) if first else _head(metadata, version, b"null")
    row = next(rows(resource_type, (body,), now=now, include_object=include_object, version=version))
    return watch_event(event_type, b"".join((head, row, TABLE_TAIL)))


def _head(metadata: ListMetadata, version: MetaVersion, columns: bytes) -> bytes:
    return b'{"kind":"Table","apiVersion":"meta.k8s.io/%b","metadata":%b,"columnDefinitions":%b,"rows":[' % (
        version.encode(),
        list_metadata(metadata),
        columns,
    )


class _Versioned(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _WithVersion(msgspec.Struct):
    metadata: _Versioned


_WITH_VERSION = msgspec.json.Decoder(_WithVersion)


def _object_version(body: bytes) -> str:
    try:
        return _WITH_VERSION.decode(body).metadata.resource_version
    except msgspec.MsgspecError as error:
        raise Garbage(f"an object without readable metadata: {error}") from error


# -- rows -----------------------------------------------------------------------------------------------

_Row = Callable[[bytes, datetime], tuple[list[Cell], Any]]
"""Takes a body and the present moment; gives cells and conditions."""


def _builtin_row(resource_type: ResourceType) -> _Row:
    printer = PRINTERS.get(resource_type.resource.qualified_name, _PLAIN)
    decoder = _DECODERS[printer.view]

    def row(body: bytes, now: datetime) -> tuple[list[Cell], Any]:
        try:
            view = decoder.decode(body)
            cells = printer.cells(view, _META.decode(view.metadata), now)
        except (msgspec.MsgspecError, ValueError):
            return _name_only(body, printer.columns), ()
        return cells, printer.conditions(view) if printer.conditions is not None else ()

    return row


def _custom_row(resource_type: ResourceType) -> _Row:
    declared = resource_type.printer_columns

    def row(body: bytes, now: datetime) -> tuple[list[Cell], Any]:
        try:
            return custom_cells(declared, _DOCUMENT.decode(body), now), ()
        except msgspec.MsgspecError as error:
            raise Garbage(f"an object that is not JSON cannot be a row: {error}") from error

    return row


class _Named(msgspec.Struct):
    name: str = ""


class _WithName(msgspec.Struct):
    metadata: _Named


_WITH_NAME = msgspec.json.Decoder(_WithName)


def _name_only(body: bytes, columns: tuple[Column, ...]) -> list[Cell]:
    try:
        name = _WITH_NAME.decode(body).metadata.name
    except msgspec.MsgspecError as error:
        raise Garbage(f"an object without readable metadata: {error}") from error
    return [name if column.format == "name" else None for column in columns]
