"""What the gateway itself serves, as an OpenAPI 3 document at ``/shoal/v1/openapi.json``.

It describes the questions of Shoal's own (counts, status, health) in full, and the Kubernetes API by its shape: any
followed resource in any group, its parameters and what refusals look like. What the objects are like is in the API
server's own documents, which `openapi` mirrors. The document does not depend on the installation, so every gateway of a
release serves the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from ... import __version__
from ..serving.documents import encode
from ..serving.negotiation import etag_matches
from .http import JSON, Answer, Request

PATH: Final = "/shoal/v1/openapi.json"

_STATUS: Final = {"$ref": "#/components/schemas/Status"}
_ANY: Final[Mapping[str, Any]] = {"type": "object"}
_TEXT: Final[Mapping[str, Any]] = {"type": "string"}
_FLAG: Final[Mapping[str, Any]] = {"type": "string", "enum": ["true", "false", "1", "0"]}
_COUNT: Final[Mapping[str, Any]] = {"type": "integer", "minimum": 0}
_NAME: Final[Mapping[str, Any]] = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"}

_SELECTING: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "labelSelector": (_TEXT, "Only objects whose labels match: app=web,tier!=db."),
    "fieldSelector": (_TEXT, "Only objects whose fields match: status.phase=Running."),
    "shardSelector": (_TEXT, "Only objects in hash ranges of their uid or namespace (KEP-5866)."),
    "resourceVersion": (_TEXT, "Which version the answer may be made from."),
    "resourceVersionMatch": (
        {"type": "string", "enum": ["Exact", "NotOlderThan"]},
        "How resourceVersion is meant.",
    ),
}
_LISTING: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    **_SELECTING,
    "limit": (_COUNT, "At most so many objects; the list's continue token leads to the rest."),
    "continue": (_TEXT, "The token of the page before."),
    "watch": (_FLAG, "A stream of changes instead of a list."),
    "allowWatchBookmarks": (_FLAG, "Bookmarks in the stream."),
    "sendInitialEvents": (_FLAG, "The stream begins with everything there is."),
    "timeoutSeconds": (_COUNT, "Seconds a watch lasts."),
}
_FORMS: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "pretty": (_FLAG, "Indented JSON."),
    "includeObject": (
        {"type": "string", "enum": ["None", "Metadata", "Object"]},
        "What the rows of a Table carry.",
    ),
    "shoalPartial": (_FLAG, "Whether an answer without the shards that are away will do."),
}
_COUNTING: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "resource": (_TEXT, "VERSION/NAME or GROUP/VERSION/NAME: v1/pods, apps/v1/deployments."),
    "namespace": (_NAME, "Only in this namespace."),
    **_SELECTING,
    "groupBy": (_TEXT, "metadata.namespace, a field that can be selected by, or metadata.labels[KEY]."),
    **{name: _FORMS[name] for name in ("pretty", "shoalPartial")},
}
_PROVENANCE: Final[Mapping[str, Any]] = {
    "Shoal-Frontier": {
        "description": "Everything up to this resource version is in the answer.",
        "schema": _TEXT,
    },
    "Shoal-Age": {"description": "Seconds since the API server proved it.", "schema": {"type": "number"}},
    "Shoal-Shards": {"description": "Who was asked.", "schema": _TEXT},
}
_SCHEMAS: Final[Mapping[str, Any]] = {
    "Status": {
        "type": "object",
        "description": "Why a request is not answered, as kube-apiserver says it.",
        "required": ["kind", "apiVersion", "status", "message", "code"],
        "properties": {
            "kind": {"type": "string", "enum": ["Status"]},
            "apiVersion": {"type": "string", "enum": ["v1"]},
            "metadata": _ANY,
            "status": {"type": "string", "enum": ["Failure"]},
            "message": _TEXT,
            "reason": _TEXT,
            "details": _ANY,
            "code": {"type": "integer", "minimum": 400, "maximum": 599},
        },
    },
    "Count": {
        "type": "object",
        "required": ["resource", "count", "resourceVersion", "shards"],
        "properties": {
            "resource": _TEXT,
            "namespace": _TEXT,
            "count": _COUNT,
            "groups": {"type": "object", "additionalProperties": _COUNT},
            "resourceVersion": _TEXT,
            "ageSeconds": {"type": "number", "nullable": True},
            "shards": {"type": "array", "items": _TEXT},
            "missing": _TEXT,
        },
    },
}
_OBJECT_MEDIA = (JSON, "application/yaml")


def answer(request: Request) -> Answer:
    """The document, or 304 for who has it."""
    body, etag = _document()
    headers = (("Cache-Control", "public"), ("Etag", f'"{etag}"'))
    if etag_matches(request.headers.get("if-none-match"), etag):
        return Answer(304, JSON, headers=headers)
    return Answer(200, JSON, body, headers=headers)


@cache
def _document() -> tuple[bytes, str]:
    body = encode(describe())
    return body, hashlib.sha256(body).hexdigest()


def describe() -> dict[str, Any]:
    """The document."""
    paths: dict[str, Any] = {
        PATH: _page("description", "This document.", {JSON: _ANY}),
        "/shoal/v1/status": _page("status", "What the installation holds and waits for.", {JSON: _ANY}),
        "/shoal/v1/explain": _get(
            "explain",
            "Why shards, cuts and places are as they are, and what would change them.",
            {"text/plain": _TEXT},
            _queries({"about": (_TEXT, "A resource, a partition or a shard; all of them without it.")}),
        ),
        "/shoal/v1/count": _get(
            "count",
            "How many objects match, in all or by the values of a path.",
            {JSON: {"$ref": "#/components/schemas/Count"}},
            _queries(_COUNTING, required=("resource",)),
            headers=_PROVENANCE,
        ),
        "/version": _page("version", "The version of the API server that is followed.", {JSON: _ANY}),
        "/metrics": _page("metrics", "Metrics for Prometheus.", {"text/plain": _TEXT}),
        "/": _page("paths", "The pages there are.", {JSON: _ANY}),
        "/api": _page("coreVersions", "Discovery of the core group.", {JSON: _ANY}),
        "/apis": _page("groups", "Discovery of all other groups.", {JSON: _ANY}),
        "/openapi/v2": _page("openapiV2", "The API server's Swagger document.", {JSON: _ANY}),
        "/openapi/v3": _page("openapiV3", "The API server's OpenAPI documents.", {JSON: _ANY}),
    }
    for name in ("healthz", "livez", "readyz"):
        flags = {"verbose": (_TEXT, "Every check by name."), "exclude": (_TEXT, "A check to leave out.")}
        what = "Whether it is ready." if name == "readyz" else "Whether it lives."
        health = _get(name, what, {"text/plain": _TEXT}, _queries(flags))
        health["get"]["responses"]["503"] = _response("It is not, and why.", {"text/plain": _TEXT})
        paths[f"/{name}"] = health
    for root, word in (("/api/{version}", "Core"), ("/apis/{group}/{version}", "Group")):
        paths |= _resource_paths(root, word)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Shoal",
            "version": __version__,
            "description": "The Kubernetes API for reading, served from shards.",
        },
        "paths": paths,
        "components": {"schemas": dict(_SCHEMAS)},
    }


def _resource_paths(root: str, word: str) -> dict[str, Any]:
    where = [name for name in ("group", "version") if f"{{{name}}}" in root]
    collection = dict.fromkeys(_OBJECT_MEDIA, _ANY)
    found: dict[str, Any] = {
        root: _get(f"resources{word}", "The resources of a version.", {JSON: _ANY}, _places(where))
    }
    for middle, scope in (("", ""), ("/namespaces/{namespace}", "Namespaced")):
        named = [*where, *(["namespace"] if middle else []), "resource"]
        listing = [*_places(named), *_queries({**_LISTING, **_FORMS})]
        reading = [
            *_places([*named, "name"]),
            *_queries({"resourceVersion": _LISTING["resourceVersion"], **_FORMS}),
        ]
        path = f"{root}{middle}/{{resource}}"
        found[path] = _get(
            f"list{word}{scope}",
            "The objects of a resource, or their changes.",
            collection,
            listing,
            headers=_PROVENANCE,
        )
        found[f"{path}/{{name}}"] = _get(
            f"get{word}{scope}", "One object.", collection, reading, headers=_PROVENANCE
        )
    return found


def _page(name: str, what: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return _get(name, what, content, [])


def _get(
    name: str,
    what: str,
    content: Mapping[str, Any],
    parameters: list[dict[str, Any]],
    *,
    headers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    succeeded = _response("OK", content)
    if headers:
        succeeded["headers"] = dict(headers)
    refused = {JSON: _STATUS, "text/plain": _TEXT}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": what,
        "parameters": parameters,
        "responses": {"200": succeeded, "default": _response("A Status, or 404 in words.", refused)},
    }
    return {"get": operation}


def _response(what: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": what, "content": {media: {"schema": schema} for media, schema in content.items()}}


def _queries(
    parameters: Mapping[str, tuple[Mapping[str, Any], str]], *, required: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "query",
            "description": what,
            "required": name in required,
            "schema": dict(schema),
        }
        for name, (schema, what) in parameters.items()
    ]


def _places(names: list[str]) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": dict(_NAME)} for name in names]
