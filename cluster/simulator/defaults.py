"""Defaults that clients and selectors see: the few that kube-apiserver fills in and Shoal can notice. Pure.

Not the full defaulting of the API: only fields that selectors name, columns print, or controllers are watched
for. Custom resources are not defaulted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .objects import Document

_POD_SPEC: Mapping[str, Any] = {
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "securityContext": {},
    "schedulerName": "default-scheduler",
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
}
_CONTAINER: Mapping[str, Any] = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "imagePullPolicy": "IfNotPresent",
}


def _section(document: Document, name: str) -> dict[str, Any]:
    section = document.get(name)
    if not isinstance(section, dict):
        section = {}
    document[name] = dict(section)
    found: dict[str, Any] = document[name]
    return found


def _fill(section: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for name, value in defaults.items():
        section.setdefault(name, value)


def _pod(document: Document) -> None:
    spec = _section(document, "spec")
    _fill(spec, _POD_SPEC)
    if isinstance(spec.get("containers"), list):
        spec["containers"] = [
            {**_CONTAINER, **one} if isinstance(one, dict) else one for one in spec["containers"]
        ]
    _fill(_section(document, "status"), {"phase": "Pending", "qosClass": "BestEffort"})


def _namespace(document: Document) -> None:
    metadata = document["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    _fill(_section(document, "spec"), {"finalizers": ["kubernetes"]})
    _fill(_section(document, "status"), {"phase": "Active"})


def _service(document: Document) -> None:
    _fill(_section(document, "spec"), {"type": "ClusterIP", "sessionAffinity": "None"})
    _fill(_section(document, "status"), {"loadBalancer": {}})


def _secret(document: Document) -> None:
    document.setdefault("type", "Opaque")
    written = document.pop("stringData", None)
    if isinstance(written, dict):
        import base64

        encoded = {name: base64.b64encode(str(text).encode()).decode() for name, text in written.items()}
        document["data"] = {**(document.get("data") or {}), **encoded}


def _workload(document: Document) -> None:
    _fill(_section(document, "spec"), {"replicas": 1})
    _section(document, "status")


_DEFAULTS: Mapping[str, Callable[[Document], None]] = {
    "pods": _pod,
    "namespaces": _namespace,
    "services": _service,
    "secrets": _secret,
    "deployments.apps": _workload,
    "statefulsets.apps": _workload,
    "replicasets.apps": _workload,
}


def fill_defaults(document: Document, collection: str) -> None:
    """Completes a document that is about to be created, in place (its top level and metadata are the
    caller's own).
    """
    fill = _DEFAULTS.get(collection)
    if fill is not None:
        fill(document)
