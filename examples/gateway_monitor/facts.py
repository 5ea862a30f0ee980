"""What the checks need to know of an object, taken out of its document once, when it arrives. Pure.

Documents come from anybody: a field of the wrong type counts as absent, and nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .documents import ABSENT, Document, dig, items, mapping, text, texts

APPROVED = "shoal.dev/approved-generation"
"""Annotation: the state with this ``metadata.generation`` is good. ``7.1`` approves a change of labels at 7."""
REMOVAL_APPROVED = "shoal.dev/removal-approved"
"""Annotation ``true``: the object may be deleted."""

SERVICE_NAME = "kubernetes.io/service-name"
"""Label by which an EndpointSlice belongs to a service."""


class Place(msgspec.Struct, frozen=True, order=True):
    """Namespace and name: which object of its kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Endpoint(msgspec.Struct, frozen=True):
    """One backend of a service."""

    ready: bool
    pod: Place | None
    address: str


class SliceFacts(msgspec.Struct, frozen=True):
    """An EndpointSlice."""

    service: Place | None
    ports: frozenset[str]
    """Names of the ports that all its endpoints have, "" for one without a name; empty: it does not say."""
    endpoints: tuple[Endpoint, ...]


class ServiceFacts(msgspec.Struct, frozen=True):
    """A service."""

    external: bool
    """It is a name elsewhere: there are no endpoints to look at."""
    selector: Mapping[str, str]
    ports: Mapping[int | str, frozenset[str]]
    """By number and by name: names of the ports meant, "" for one without a name. Two protocols may share a number."""

    def selects(self, labels: Mapping[str, str]) -> bool:
        """A pod with these labels is behind it. A service without a selector selects nothing."""
        return bool(self.selector) and all(labels.get(name) == value for name, value in self.selector.items())


class PodFacts(msgspec.Struct, frozen=True):
    """A pod."""

    labels: Mapping[str, str]
    ready: bool
    why: str
    """Why it is not ready; "" if it is."""


class Approval(msgspec.Struct, frozen=True, order=True):
    """Which of two approved states counts: of the younger object, then of the later generation, then revision."""

    created: str
    generation: int
    revision: int


class GatewayFacts(msgspec.Struct, frozen=True):
    """A custom resource of the gateway."""

    uid: str
    spec: Any
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    approval: Approval | None
    removal_approved: bool
    api_version: str
    kind: str

    @property
    def document(self) -> Document:
        """What is compared and put back, as a document."""
        return {"spec": self.spec, "metadata": {"labels": dict(self.labels)}}


def gateway_facts(document: Document) -> GatewayFacts:
    """Of a route, a policy or whatever else the group has."""
    spec = dig(document, "spec")
    annotations = texts(document, "metadata", "annotations")
    return GatewayFacts(
        uid=text(document, "metadata", "uid"),
        spec={} if spec is ABSENT else spec,
        labels=texts(document, "metadata", "labels"),
        annotations={name: value for name, value in annotations.items() if "last-applied" not in name},
        approval=_approval(document, annotations.get(APPROVED, "")),
        removal_approved=annotations.get(REMOVAL_APPROVED, "").lower() == "true",
        api_version=text(document, "apiVersion"),
        kind=text(document, "kind"),
    )


def _approval(document: Document, annotation: str) -> Approval | None:
    generation = dig(document, "metadata", "generation")
    number, _, revision = annotation.partition(".")
    if isinstance(generation, bool) or not isinstance(generation, int):
        return None
    if not _is_number(number) or not _is_number(revision or "0") or int(number) != generation:
        return None
    created = text(document, "metadata", "creationTimestamp")
    return Approval(created, generation, int(revision or "0"))


def _is_number(written: str) -> bool:
    return written.isascii() and written.isdigit() and len(written) < 16


def service_facts(document: Document) -> ServiceFacts:
    """Of a Service."""
    ports: dict[int | str, frozenset[str]] = {}
    for port in items(document, "spec", "ports"):
        number, name = dig(port, "port"), text(port, "name")
        if isinstance(number, int) and not isinstance(number, bool):
            ports[number] = ports.get(number, frozenset()) | {name}
        if name:
            ports[name] = frozenset({name})
    return ServiceFacts(
        external=text(document, "spec", "type") == "ExternalName",
        selector=texts(document, "spec", "selector"),
        ports=ports,
    )


def slice_facts(document: Document) -> SliceFacts:
    """Of an EndpointSlice. An endpoint that does not say whether it is ready counts as ready, as the API has it."""
    namespace = text(document, "metadata", "namespace")
    service = texts(document, "metadata", "labels").get(SERVICE_NAME)
    return SliceFacts(
        service=Place(namespace, service) if service else None,
        ports=frozenset(text(port, "name") for port in items(document, "ports")),
        endpoints=tuple(_endpoint(one, namespace) for one in items(document, "endpoints")),
    )


def _endpoint(document: Any, namespace: str) -> Endpoint:
    addresses = items(document, "addresses")
    pod = text(document, "targetRef", "name") if text(document, "targetRef", "kind") == "Pod" else ""
    return Endpoint(
        ready=dig(document, "conditions", "ready") is not False,
        pod=Place(text(document, "targetRef", "namespace") or namespace, pod) if pod else None,
        address=str(addresses[0]) if addresses else "",
    )


def pod_facts(document: Document) -> PodFacts:
    """Of a Pod."""
    conditions = {text(one, "type"): one for one in items(document, "status", "conditions")}
    ready = text(conditions.get("Ready"), "status") == "True"
    leaving = bool(text(document, "metadata", "deletionTimestamp"))
    return PodFacts(
        labels=texts(document, "metadata", "labels"),
        ready=ready and not leaving,
        why="" if ready and not leaving else _why(document, conditions, leaving=leaving),
    )


def _why(document: Document, conditions: Mapping[str, Any], *, leaving: bool) -> str:
    """The most telling reason there is, and what it belongs to."""
    if leaving:
        return "being deleted"
    phase = text(document, "status", "phase")
    reasons = [
        f"container {text(one, 'name')} {_state(one)}"
        for one in items(document, "status", "containerStatuses")
        if dig(one, "ready") is not True
    ]
    if not reasons:
        reasons = [
            " ".join(
                filter(None, (f"{name} is {text(one, 'status')}", text(one, "reason"), text(one, "message")))
            )
            for name, one in conditions.items()
            if text(one, "status") == "False" and name in ("PodScheduled", "Initialized", "Ready")
        ][:1]
    outer = text(document, "status", "reason") or (phase if phase not in ("", "Running") else "")
    return ", ".join(filter(None, (outer, *reasons))) or "not ready"


def _state(status: Any) -> str:
    """``CrashLoopBackOff`` or ``OOMKilled (exit code 137)``; and how often it was started again."""
    restarts = dig(status, "restartCount")
    counted = isinstance(restarts, int) and not isinstance(restarts, bool) and restarts > 0
    again = f" ({restarts} {'restart' if restarts == 1 else 'restarts'})" if counted else ""
    waiting = text(status, "state", "waiting", "reason")
    if waiting:
        return f"{waiting}{again}"
    ended = mapping(status, "state", "terminated")
    if ended:
        return f"{text(ended, 'reason') or 'ended'} (exit code {dig(ended, 'exitCode')}){again}"
    return f"not ready{again}"
