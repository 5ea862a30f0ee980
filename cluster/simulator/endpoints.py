"""What is served besides resources and discovery: version, health, OpenAPI. Pure.

The OpenAPI documents are not a description of the API: they hold just what kubectl looks for before it
creates or applies (that PATCH of a kind takes ``fieldValidation``), so that it leaves validation to the
server. ``kubectl explain`` finds nothing in them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ..serving.documents import encode, indented
from .served import Catalogue, Served

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"

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


def endpoint(
    path: str, query: Collection[tuple[str, str]], catalogue: Catalogue, failing: Collection[str]
) -> Answer | None:
    """The answer to GET of `path`, or None if there is nothing there. `failing` are checks that do not
    pass.
    """
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["version"]:
            return Answer(200, JSON, indented(encode(VERSION)))
        case [name, *check] if name in _HEALTH:
            return _health(name, "/".join(check), query, failing)
        case ["openapi", "v2"]:
            return Answer(200, OPENAPI_V2, _SWAGGER)
        case ["openapi", "v3"]:
            return Answer(200, JSON, _openapi_index(catalogue))
        case ["openapi", "v3", "api", version]:
            return _openapi_group(catalogue, "", version)
        case ["openapi", "v3", "apis", group, version]:
            return _openapi_group(catalogue, group, version)
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


# -- OpenAPI ----------------------------------------------------------------------------------------

# Swagger 2.0 as the protobuf client-go asks for: field 1 "2.0", field 2 {1: "Kubernetes", 2: "v1.36.2"}.
_SWAGGER = b"\n\x032.0\x12\x15\n\nKubernetes\x12\x07v1.36.2"


def _groups(catalogue: Catalogue) -> dict[str, list[Served]]:
    groups: dict[str, list[Served]] = {}
    for served in catalogue.all():
        groups.setdefault(served.type.resource.root.lstrip("/"), []).append(served)
    return groups


def _openapi_index(catalogue: Catalogue) -> bytes:
    # The hash lets a client keep a document; the number of resources is what changes here.
    paths = {
        root: {"serverRelativeURL": f"/openapi/v3/{root}?hash={len(served)}"}
        for root, served in sorted(_groups(catalogue).items())
    }
    return encode({"paths": paths})


def _openapi_group(catalogue: Catalogue, group: str, version: str) -> Answer | None:
    root = f"apis/{group}/{version}" if group else f"api/{version}"
    found = _groups(catalogue).get(root)
    if found is None:
        return None
    paths: dict[str, Any] = {}
    for served in found:
        known = served.type
        if "patch" not in known.verbs:
            continue
        path = known.resource.path("{namespace}" if known.namespaced else None, "{name}")
        paths[path] = {"patch": _patch_operation(served)}
    document = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": paths,
    }
    return Answer(200, JSON, encode(document))


def _patch_operation(served: Served) -> dict[str, Any]:
    resource = served.type.resource
    return {
        "parameters": [
            {"name": name, "in": "query", "schema": {"type": "string"}}
            for name in ("dryRun", "fieldManager", "fieldValidation")
        ],
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {
            "group": resource.group,
            "kind": served.type.kind,
            "version": resource.version,
        },
    }
