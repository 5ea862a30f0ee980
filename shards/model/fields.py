"""Which fields of which kinds a field selector may name, beyond ``metadata.name`` and ``metadata.namespace``.

The lists are kube-apiserver's (``pkg/apis/*/v1/conversion.go`` and each registry's ``ToSelectableFields``);
custom resources declare theirs as ``selectableFields``. `INDEXED_FIELDS` are those whose values are spread
enough that an index answers faster than looking at the values held.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

METADATA_FIELDS = ("metadata.name", "metadata.namespace")

_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)

SELECTABLE_FIELDS: Mapping[str, tuple[str, ...]] = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    "events": _EVENT_FIELDS,
    "events.events.k8s.io": (
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicationcontrollers": ("status.replicas",),
    "replicasets.apps": ("status.replicas",),
    "jobs.batch": ("status.successful",),
    "certificatesigningrequests.certificates.k8s.io": ("spec.signerName",),
    "resourceslices.resource.k8s.io": ("spec.nodeName", "spec.driver"),
    "podcertificaterequests.certificates.k8s.io": ("spec.signerName", "spec.podName", "spec.nodeName"),
    "clustertrustbundles.certificates.k8s.io": ("spec.signerName",),
}
"""By qualified name of the resource (`Resource.qualified_name`)."""

INDEXED_FIELDS = frozenset(
    {
        "spec.nodeName",
        "status.podIP",
        "spec.clusterIP",
        "involvedObject.name",
        "involvedObject.uid",
        "regarding.name",
        "regarding.uid",
    }
)


class FieldSource(NamedTuple):
    """Where the value of a selectable field stands in an object, and what it is while it stands nowhere."""

    paths: tuple[str, ...]
    """Tried in order; the first that gives a non-empty text wins."""
    default: str = ""


_BUILT_IN_SOURCES: Mapping[tuple[str, str], FieldSource] = {
    ("pods", "spec.hostNetwork"): FieldSource(("spec.hostNetwork",), "false"),
    # Accepted as a name and never given a value (pkg/registry/core/pod/strategy.go, ToSelectableFields).
    ("pods", "status.podIPs"): FieldSource(()),
    ("nodes", "spec.unschedulable"): FieldSource(("spec.unschedulable",), "false"),
    ("events", "source"): FieldSource(("source.component", "reportingComponent")),
    ("replicationcontrollers", "status.replicas"): FieldSource(("status.replicas",), "0"),
    ("replicasets.apps", "status.replicas"): FieldSource(("status.replicas",), "0"),
    ("jobs.batch", "status.successful"): FieldSource(("status.succeeded",), "0"),
}


def field_source(qualified_name: str, field: str) -> FieldSource:
    """Source of a selectable field; for all but a few fields of built-in kinds that is its own path."""
    return _BUILT_IN_SOURCES.get((qualified_name, field)) or FieldSource((field,))


def field_text(value: object) -> str | None:
    """A JSON value as field selectors compare it: ``true``, ``3``, the text itself. None for what has no such
    form.
    """
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case _:
            return None


def field_value(document: Mapping[str, Any], qualified_name: str, field: str) -> str:
    """The value of a selectable field of a parsed object, as kube-apiserver compares it."""
    source = field_source(qualified_name, field)
    for path in source.paths:
        value: Any = document
        for step in path.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if text := field_text(value):
            return text
    return source.default
