"""The operations of a group and version, as OpenAPI paths. Pure.

Each resource has its collection and its objects, in a namespace and across all of them, and of its subresources those
that are served. An operation says which verb it is and of which kind (``x-kubernetes-action``,
``x-kubernetes-group-version-kind``): that is how kubectl finds a kind's schema, and whether PATCH takes
``fieldValidation`` and ``dryRun``. Operations are made for version 3; `as_version_2` turns them around.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ...shards.model.resources import ResourceType
from .openapi_models import META
from .patches import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH

Names = Callable[[str, str, str], str | None]
"""The component of a group's, version's and kind's schema; None if there is no schema of it."""

MEDIA: Final = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
SUBRESOURCES: Final = ("status", "scale")
"""Those that are served."""

_TEXT: Mapping[str, str] = {"type": "string"}
_NUMBER: Mapping[str, str] = {"type": "integer"}
_FLAG: Mapping[str, str] = {"type": "boolean"}
_PARAMETERS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "pretty": (_TEXT, "If 'true', then the output is pretty printed."),
    "dryRun": (_TEXT, "All: the request is checked and nothing is stored."),
    "fieldManager": (_TEXT, "Name of who makes the change, for managedFields."),
    "fieldValidation": (
        _TEXT,
        "What is done about unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
    ),
    "force": (_FLAG, "Takes fields over from other managers; for apply patches only."),
    "labelSelector": (_TEXT, "Only objects whose labels match."),
    "fieldSelector": (_TEXT, "Only objects whose fields match."),
    "limit": (_NUMBER, "At most so many objects; the rest is had with the list's continue token."),
    "continue": (_TEXT, "The token of the page before."),
    "resourceVersion": (_TEXT, "Which version the answer may be made from."),
    "resourceVersionMatch": (_TEXT, "How resourceVersion is meant: Exact or NotOlderThan."),
    "timeoutSeconds": (_NUMBER, "How long a list or watch may take."),
    "watch": (_FLAG, "Answer a stream of what changes instead of a list."),
    "allowWatchBookmarks": (_FLAG, "Send bookmarks in the stream."),
    "sendInitialEvents": (_FLAG, "Begin the stream with everything there is, and a bookmark."),
    "gracePeriodSeconds": (_NUMBER, "How long the object may take to end."),
    "orphanDependents": (_FLAG, "Leave what belongs to the object."),
    "propagationPolicy": (_TEXT, "What becomes of what belongs to it: Orphan, Background or Foreground."),
}
_LISTING = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_DELETING = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_WRITING = ("dryRun", "fieldManager", "fieldValidation")
_VERBS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "list": ("get", "list", _LISTING),
    "create": ("post", "post", _WRITING),
    "deletecollection": ("delete", "deletecollection", (*_LISTING[1:7], *_DELETING)),
    "get": ("get", "get", ()),
    "update": ("put", "put", _WRITING),
    "patch": ("patch", "patch", (*_WRITING, "force")),
    "delete": ("delete", "delete", _DELETING),
}
"""By verb: HTTP method, ``x-kubernetes-action``, parameters."""
_COLLECTION = ("list", "create", "deletecollection")
_OBJECT = ("get", "update", "patch", "delete")
_WORDS: Mapping[str, str] = {
    "list": "list",
    "create": "create",
    "deletecollection": "delete",
    "get": "read",
    "update": "replace",
    "patch": "patch",
    "delete": "delete",
}


def paths(resources: Iterable[ResourceType], names: Names, *, root: str) -> dict[str, Any]:
    """The path items of one group and version; `root` is where it is, ``/apis/apps/v1``."""
    listing = {
        "get": {
            "description": "get available resources",
            "operationId": f"get{_group_word(root)}APIResources",
            "responses": _responses({"$ref": f"{META}.APIResourceList"}),
            "tags": [_tag(root)],
        }
    }
    found: dict[str, Any] = {f"{root}/": listing}
    for known in resources:
        found |= _paths_of(known, names, root)
    return dict(sorted(found.items()))


def _paths_of(known: ResourceType, names: Names, root: str) -> dict[str, Any]:
    plural = known.resource.name
    inside = f"{root}/namespaces/{{namespace}}/{plural}" if known.namespaced else f"{root}/{plural}"
    found: dict[str, Any] = {}
    for path, verbs in ((inside, _COLLECTION), (f"{inside}/{{name}}", _OBJECT)):
        served = [verb for verb in verbs if verb in known.verbs]
        if served:
            found[path] = _item(known, names, root, served, path)
    if known.namespaced and "list" in known.verbs:
        found[f"{root}/{plural}"] = _item(known, names, root, ["list"], f"{root}/{plural}")
    for sub in known.subresource_types or ():
        allowed = [verb for verb in _OBJECT if verb in sub.verbs]
        if sub.name in SUBRESOURCES and allowed:
            path = f"{inside}/{{name}}/{sub.name}"
            place = (sub.group or known.resource.group, sub.version or known.resource.version, sub.kind)
            found[path] = _item(known, names, root, allowed, path, kind=place, suffix=sub.name.capitalize())
    return found


def _item(
    known: ResourceType,
    names: Names,
    root: str,
    verbs: Iterable[str],
    path: str,
    *,
    kind: tuple[str, str, str] | None = None,
    suffix: str = "",
) -> dict[str, Any]:
    place = kind or (known.resource.group, known.resource.version, known.kind)
    scope = "Namespaced" if "{namespace}" in path else ""
    tail = "ForAllNamespaces" if known.namespaced and not scope else suffix
    item: dict[str, Any] = {}
    for verb in verbs:
        method, action, parameters = _VERBS[verb]
        plural = "Collection" if verb == "deletecollection" else ""
        identity = f"{_WORDS[verb]}{_group_word(root)}{plural}{scope}{known.kind}{tail}"
        operation: dict[str, Any] = {
            "description": _described(verb, known.kind, suffix),
            "operationId": identity,
            "parameters": [_parameter(name) for name in parameters],
            "responses": _responses(_answered(verb, place, known, names)),
            "tags": [_tag(root)],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": dict(zip(("group", "version", "kind"), place, strict=True)),
        }
        if body := _request(verb, place, known, names):
            operation["requestBody"] = body
        item[method] = operation
    shared = [name for name in ("name", "namespace") if f"{{{name}}}" in path]
    item["parameters"] = [*(_path_parameter(name, known.kind) for name in shared), _parameter("pretty")]
    return item


def _described(verb: str, kind: str, suffix: str) -> str:
    what = f"{suffix.lower()} of the specified {kind}" if suffix else f"the specified {kind}"
    match verb:
        case "list":
            return f"list or watch objects of kind {kind}"
        case "create":
            return f"create a {kind}"
        case "deletecollection":
            return f"delete collection of {kind}"
        case "patch":
            return f"partially update {what}"
        case _:
            return f"{_WORDS[verb]} {what}"


def _answered(verb: str, place: tuple[str, str, str], known: ResourceType, names: Names) -> dict[str, Any]:
    if verb in ("delete", "deletecollection"):
        return {"$ref": f"{META}.Status"}
    if verb == "list":
        place = (*place[:2], known.list_kind or f"{known.kind}List")
    name = names(*place)
    return {"$ref": name} if name else {"type": "object"}


def _request(
    verb: str, place: tuple[str, str, str], known: ResourceType, names: Names
) -> dict[str, Any] | None:
    match verb:
        case "create" | "update":
            name = names(*place)
            schema = {"$ref": name} if name else {"type": "object"}
            return {"content": {"*/*": {"schema": schema}}, "required": True}
        case "patch":
            offered = (
                (JSON_PATCH, MERGE_PATCH) if known.custom else (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH)
            )
            patch = {"$ref": f"{META}.Patch"}
            return {"content": {media: {"schema": patch} for media in offered}, "required": True}
        case "delete" | "deletecollection":
            return {"content": {"*/*": {"schema": {"$ref": f"{META}.DeleteOptions"}}}}
        case _:
            return None


PATCH_SCHEMA: Mapping[str, Any] = {
    "description": "Patch is a change of an object in one of the formats its media type names.",
    "type": "object",
}


def _responses(schema: Mapping[str, Any]) -> dict[str, Any]:
    content = {media: {"schema": dict(schema)} for media in MEDIA}
    return {"200": {"content": content, "description": "OK"}, "401": {"description": "Unauthorized"}}


def _parameter(name: str) -> dict[str, Any]:
    schema, description = _PARAMETERS[name]
    return {
        "description": description,
        "in": "query",
        "name": name,
        "schema": {**schema, "uniqueItems": True},
    }


def _path_parameter(name: str, kind: str) -> dict[str, Any]:
    description = f"name of the {kind}" if name == "name" else "the namespace of the object"
    schema = {**_TEXT, "uniqueItems": True}
    return {"description": description, "in": "path", "name": name, "required": True, "schema": schema}


def _group_word(root: str) -> str:
    """``AppsV1``, ``CoreV1``, ``RbacAuthorizationV1``: a part of every operationId."""
    group, version = _place(root)
    parts = group.removesuffix(".k8s.io").replace("-", ".").split(".")
    return "".join(part[:1].upper() + part[1:] for part in (*parts, version))


def _tag(root: str) -> str:
    group, version = _place(root)
    return f"{'_'.join(_camel(group.removesuffix('.k8s.io').split('.')))}_{version}"


def _camel(parts: list[str]) -> list[str]:
    return ["".join((parts[0], *(part.capitalize() for part in parts[1:])))]


def _place(root: str) -> tuple[str, str]:
    parts = root.strip("/").split("/")
    return ("core", parts[1]) if parts[0] == "api" else (parts[1], parts[2])


# -- version 2 ----------------------------------------------------------------------------------------------


def as_version_2(item: Mapping[str, Any]) -> dict[str, Any]:
    """A path item as Swagger 2.0 writes it: types beside names, bodies among the parameters."""
    turned: dict[str, Any] = {}
    for method, operation in item.items():
        if method == "parameters":
            turned[method] = [_flat(parameter) for parameter in operation]
            continue
        kept = {name: value for name, value in operation.items() if name not in ("requestBody", "parameters")}
        parameters = [_flat(parameter) for parameter in operation.get("parameters", ())]
        body = operation.get("requestBody")
        if body is not None:
            content = body["content"]
            schema = next(iter(content.values()))["schema"]
            parameters.insert(
                0, {"in": "body", "name": "body", "required": "required" in body, "schema": schema}
            )
            kept["consumes"] = list(content)
        kept["parameters"] = parameters
        kept["produces"] = list(MEDIA)
        kept["schemes"] = ["https"]
        kept["responses"] = {
            code: _flat_response(response) for code, response in operation["responses"].items()
        }
        turned[method] = dict(sorted(kept.items()))
    return turned


def _flat(parameter: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in parameter.items() if name != "schema"}
    return flat | dict(parameter["schema"])


def _flat_response(response: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {"description": response["description"]}
    if "content" in response:
        flat["schema"] = response["content"]["application/json"]["schema"]
    return flat
