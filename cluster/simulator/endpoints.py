"""What is served besides resources, discovery and OpenAPI: version and health. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ..serving.documents import encode, indented

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

VERSION: Mapping[str, str] = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "$Format:%H$",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.26.6",
    "compiler": "gc",
    "platform": "linux/amd64",
}
"""Of the server whose answers are imitated."""

_CHECKS = (
    "ping",
    "log",
    "loopback-serving-certificate",
    "etcd",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/peer-endpoint-reconciler-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
    "poststarthook/storage-readiness",
    "poststarthook/start-legacy-token-tracking-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-wait-for-first-sync",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
)
_READY_CHECKS = (*_CHECKS[:2], "informer-sync", *_CHECKS[4:], "shutdown")
_HEALTH = ("healthz", "livez", "readyz")


class Answer(NamedTuple):
    """A finished answer."""

    status: int
    content_type: str
    body: bytes


def endpoint(path: str, query: Collection[tuple[str, str]], failing: Collection[str]) -> Answer | None:
    """The answer to GET of `path`, or None if there is nothing there. `failing` are checks that do not pass."""
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["version"]:
            return Answer(200, JSON, indented(encode(VERSION)))
        case [name, *check] if name in _HEALTH:
            return _health(name, "/".join(check), query, failing)
        case _:
            return None


def _health(
    name: str, check: str, query: Collection[tuple[str, str]], failing: Collection[str]
) -> Answer | None:
    checks = _READY_CHECKS if name == "readyz" else _CHECKS
    if check:
        if check not in checks:
            return None
        return (
            Answer(200, TEXT, b"ok")
            if check not in failing
            else Answer(500, TEXT, b"internal server error: ")
        )
    verbose = any(key == "verbose" for key, _ in query)
    lines = [f"[-]{one} failed: reason withheld" if one in failing else f"[+]{one} ok" for one in checks]
    if any(one in failing for one in checks):
        return Answer(500, TEXT, "\n".join([*lines, f"{name} check failed", ""]).encode())
    if verbose:
        return Answer(200, TEXT, "\n".join([*lines, f"{name} check passed", ""]).encode())
    return Answer(200, TEXT, b"ok")
