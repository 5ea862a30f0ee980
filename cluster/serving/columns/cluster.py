"""The columns of what a cluster is made of: nodes, namespaces, events, leases, registrations, priorities."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from .cells import (
    AGE,
    CREATED_AT,
    NAME,
    NONE,
    UNKNOWN,
    Cell,
    Column,
    Meta,
    Printer,
    View,
    age,
    created,
    created_at,
)


class _Condition(msgspec.Struct, frozen=True):
    type: str
    status: str = ""
    reason: str = ""


# -- nodes ----------------------------------------------------------------------------------------------

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"


class _NodeAddress(msgspec.Struct, frozen=True):
    type: str
    address: str = ""


class _NodeSystem(msgspec.Struct, frozen=True, rename="camel"):
    kubelet_version: str = ""
    os_image: str = ""
    kernel_version: str = ""
    container_runtime_version: str = ""


class _NodeSpec(msgspec.Struct, frozen=True):
    unschedulable: bool = False


class _NodeStatus(msgspec.Struct, frozen=True, rename="camel"):
    conditions: list[_Condition] | None = None
    addresses: list[_NodeAddress] | None = None
    node_info: _NodeSystem = _NodeSystem()


class NodeView(View, frozen=True):
    """The fields of a node that its cells rest on."""

    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


def _node(view: NodeView, meta: Meta, now: datetime) -> list[Cell]:
    system = view.status.node_info
    return [
        meta.name,
        _node_status(view),
        _roles(meta),
        created(meta, now),
        system.kubelet_version,
        _node_address(view, "InternalIP"),
        _node_address(view, "ExternalIP"),
        system.os_image or UNKNOWN,
        system.kernel_version or UNKNOWN,
        system.container_runtime_version or UNKNOWN,
    ]


def _node_status(view: NodeView) -> str:
    ready = next((c for c in reversed(view.status.conditions or ()) if c.type == "Ready"), None)
    status = "Unknown" if ready is None else "Ready" if ready.status == "True" else "NotReady"
    return f"{status},SchedulingDisabled" if view.spec.unschedulable else status


def _roles(meta: Meta) -> str:
    roles = set()
    for label, value in (meta.labels or {}).items():
        if label.startswith(_ROLE_PREFIX):
            roles.add(label.removeprefix(_ROLE_PREFIX))
        elif label == _ROLE_LABEL:
            roles.add(value)
    return ",".join(sorted(roles - {""})) or NONE


def _node_address(view: NodeView, kind: str) -> str:
    return next((a.address for a in view.status.addresses or () if a.type == kind), NONE)


NODES = Printer(
    (
        NAME,
        Column("Status", description="The status of the node"),
        Column("Roles", description="The roles of the node"),
        AGE,
        Column("Version", description="Kubelet version reported by the node."),
        Column("Internal-IP", description="Address of the node inside the cluster.", priority=1),
        Column("External-IP", description="Address of the node outside the cluster.", priority=1),
        Column("OS-Image", description="Operating system reported by the node.", priority=1),
        Column("Kernel-Version", description="Kernel version reported by the node.", priority=1),
        Column("Container-Runtime", description="Container runtime and its version.", priority=1),
    ),
    NodeView,
    _node,
)


# -- namespaces -----------------------------------------------------------------------------------------


class _Phase(msgspec.Struct, frozen=True):
    phase: str = ""


class NamespaceView(View, frozen=True):
    """The fields of a namespace that its cells rest on."""

    status: _Phase = _Phase()


def _namespace(view: NamespaceView, meta: Meta, now: datetime) -> list[Cell]:
    return [meta.name, view.status.phase, created(meta, now)]


NAMESPACES = Printer(
    (NAME, Column("Status", description="The status of the namespace"), AGE), NamespaceView, _namespace
)


# -- events: one object with two spellings, in the core group and in events.k8s.io ----------------------


class _Reference(msgspec.Struct, frozen=True, rename="camel"):
    kind: str = ""
    name: str = ""
    field_path: str = ""


class _Source(msgspec.Struct, frozen=True):
    component: str = ""
    host: str = ""


class _Series(msgspec.Struct, frozen=True, rename="camel"):
    count: int = 0
    last_observed_time: str | None = None


class _EventView(View, frozen=True):
    type: str = ""
    reason: str = ""
    event_time: str | None = None
    series: _Series | None = None
    reporting_instance: str = ""


class EventView(_EventView, frozen=True):
    """An event of the core group."""

    involved_object: _Reference = _Reference()
    source: _Source = _Source()
    reporting_component: str = ""
    message: str = ""
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    count: int = 0


class NewEventView(_EventView, frozen=True):
    """The same event as events.k8s.io spells it."""

    regarding: _Reference = _Reference()
    deprecated_source: _Source = _Source()
    reporting_controller: str = ""
    note: str = ""
    deprecated_first_timestamp: str | None = None
    deprecated_last_timestamp: str | None = None
    deprecated_count: int = 0


def _event(view: EventView, meta: Meta, now: datetime) -> list[Cell]:
    first = age(view.first_timestamp or view.event_time, now)
    last = age(view.last_timestamp, now) if view.last_timestamp else first
    count = view.count or 1  # an event that has happened once may leave it out
    if view.series is not None:
        last, count = age(view.series.last_observed_time, now), view.series.count
    target = view.involved_object
    source = (view.source.component or view.reporting_component, view.source.host or view.reporting_instance)
    return [
        last,
        view.type,
        view.reason,
        f"{target.kind.lower()}/{target.name}" if target.name else target.kind.lower(),
        target.field_path,
        ", ".join(source) if source[1] else source[0],
        view.message.strip(),
        first,
        count,
        meta.name,
    ]


def _new_event(view: NewEventView, meta: Meta, now: datetime) -> list[Cell]:
    core = EventView(
        metadata=view.metadata,
        type=view.type,
        reason=view.reason,
        event_time=view.event_time,
        series=view.series,
        reporting_instance=view.reporting_instance,
        involved_object=view.regarding,
        source=view.deprecated_source,
        reporting_component=view.reporting_controller,
        message=view.note,
        first_timestamp=view.deprecated_first_timestamp,
        last_timestamp=view.deprecated_last_timestamp,
        count=view.deprecated_count,
    )
    return _event(core, meta, now)


_EVENT_COLUMNS = (
    Column("Last Seen", description="How long ago the event happened last."),
    Column("Type", description="Normal or Warning."),
    Column("Reason", description="Why the action was taken, in one word."),
    Column("Object", description="The object this event is about."),
    Column("Subobject", description="The part of the object this event is about.", priority=1),
    Column("Source", description="Who reported the event.", priority=1),
    Column("Message", description="What happened, for people."),
    Column("First Seen", description="How long ago the event happened first.", priority=1),
    Column("Count", description="How often the event has happened.", priority=1),
    NAME._replace(priority=1),
)
EVENTS = Printer(_EVENT_COLUMNS, EventView, _event)
NEW_EVENTS = Printer(_EVENT_COLUMNS, NewEventView, _new_event)


# -- leases ---------------------------------------------------------------------------------------------


class _LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None


class LeaseView(View, frozen=True):
    """The fields of a lease that its cells rest on."""

    spec: _LeaseSpec = _LeaseSpec()


def _lease(view: LeaseView, meta: Meta, now: datetime) -> list[Cell]:
    return [meta.name, view.spec.holder_identity or "", created(meta, now)]


LEASES = Printer((NAME, Column("Holder", description="Who holds the lease."), AGE), LeaseView, _lease)


# -- registrations --------------------------------------------------------------------------------------


def _name_and_date(view: View, meta: Meta, now: datetime) -> list[Cell]:
    del view, now
    return [meta.name, created_at(meta)]


CREATION_DATES = Printer((NAME, CREATED_AT), View, _name_and_date)
"""For definitions, roles and limit ranges, which show their date instead of their age."""


class _ServiceReference(msgspec.Struct, frozen=True):
    namespace: str = ""
    name: str = ""


class _RegistrationSpec(msgspec.Struct, frozen=True):
    service: _ServiceReference | None = None


class _RegistrationStatus(msgspec.Struct, frozen=True):
    conditions: list[_Condition] | None = None


class APIServiceView(View, frozen=True):
    """The fields of an API service that its cells rest on."""

    spec: _RegistrationSpec = _RegistrationSpec()
    status: _RegistrationStatus = _RegistrationStatus()


def _api_service(view: APIServiceView, meta: Meta, now: datetime) -> list[Cell]:
    service = view.spec.service
    text = "Local" if service is None else f"{service.namespace}/{service.name}"
    return [meta.name, text, _available(view.status.conditions or ()), created(meta, now)]


def _available(conditions: Sequence[_Condition]) -> str:
    available = next((condition for condition in conditions if condition.type == "Available"), None)
    if available is None:
        return "Unknown"
    return available.status if available.status == "True" else f"{available.status} ({available.reason})"


API_SERVICES = Printer(
    (
        NAME,
        Column("Service", description="The reference to the service that hosts this API endpoint."),
        Column("Available", description="Whether this service is available."),
        AGE,
    ),
    APIServiceView,
    _api_service,
)


# -- priorities -----------------------------------------------------------------------------------------


class PriorityClassView(View, frozen=True):
    """The fields of a priority class that its cells rest on."""

    value: int = 0
    global_default: bool = False
    preemption_policy: str = ""


def _priority_class(view: PriorityClassView, meta: Meta, now: datetime) -> list[Cell]:
    return [meta.name, view.value, view.global_default, created(meta, now), view.preemption_policy]


PRIORITY_CLASSES = Printer(
    (
        NAME,
        Column("Value", "integer", description="Priority of the pods of this class."),
        Column("Global-Default", "boolean", description="The class of pods that name none."),
        AGE,
        Column("PreemptionPolicy", description="Whether pods of this class may displace others."),
    ),
    PriorityClassView,
    _priority_class,
)
