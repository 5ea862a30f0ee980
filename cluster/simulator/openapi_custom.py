"""Schemas of custom resources, from the ``openAPIV3Schema`` of their definitions. Pure.

As kube-apiserver publishes them (``apiextensions-apiserver/pkg/controller/openapi/builder``): the schema with
apiVersion, kind and metadata described, and a list of it. Version 2 knows less: there what it cannot express is left
out, so that a client which validates by it refuses nothing that the server takes. Fields of a number or a text, of any
value, and objects with unknown fields lose their type; alternatives and validation rules go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...shards.model.resources import ResourceType
from .openapi_models import LIST_META, OBJECT_META, Schema, with_kind

PRESERVES: Final = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_EMBEDDED: Final = "x-kubernetes-embedded-resource"
_NOT_IN_VERSION_2 = ("allOf", "anyOf", "oneOf", "not", "nullable", "default", "x-kubernetes-validations")
_API_VERSION: Schema = {
    "description": "APIVersion says in which version of its schema an object is written. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    "type": "string",
}
_KIND: Schema = {
    "description": "Kind says which kind of resource an object is. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    "type": "string",
}
_METADATA_TEXT: Final = (
    "Standard metadata. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)


def component(group: str, version: str, kind: str) -> str:
    """The component of a custom kind: its group backwards, as ``com.example.v1.Widget``."""
    return ".".join((*reversed(group.split(".")), version, kind))


def custom_schemas(
    known: ResourceType, declared: Mapping[str, Any] | None, *, version: int
) -> dict[str, Schema]:
    """A custom kind and its list as neutral schemas, for OpenAPI version 2 or 3.

    `declared` is the ``openAPIV3Schema``; without one, and where it keeps unknown fields at the top, version 2 says no
    more than that it is an object.
    """
    resource = known.resource
    schema: Schema = dict(declared) if isinstance(declared, Mapping) else {"type": "object", PRESERVES: True}
    if version == 2:
        schema = _plainer(schema)
    properties = dict(schema.get("properties") or {})
    opaque = version == 2 and not properties
    if not opaque:
        properties |= {"apiVersion": _API_VERSION, "kind": _KIND}
        properties["metadata"] = {"$ref": OBJECT_META, "description": _METADATA_TEXT}
        schema["properties"] = dict(sorted(properties.items()))
    name = component(resource.group, resource.version, known.kind)
    list_kind = known.list_kind or f"{known.kind}List"
    listed: Schema = {
        "description": f"{list_kind} is a list of {known.kind}",
        "properties": {
            "apiVersion": _API_VERSION,
            "items": {"description": f"List of {resource.name}.", "items": {"$ref": name}, "type": "array"},
            "kind": _KIND,
            "metadata": {"$ref": LIST_META, "description": _METADATA_TEXT},
        },
        "required": ["items"],
        "type": "object",
    }
    place = resource.group, resource.version
    return {
        name: with_kind({"type": "object", **schema}, *place, known.kind),
        component(*place, list_kind): with_kind(listed, *place, list_kind),
    }


def _plainer(schema: Any) -> Any:
    """A structural schema in the words of version 2."""
    if not isinstance(schema, Mapping):
        return schema
    kept = {name: value for name, value in schema.items() if name not in _NOT_IN_VERSION_2}
    if schema.get(_INT_OR_STRING) or schema.get("nullable"):
        for absent in ("type", "items", "properties", "additionalProperties", "format"):
            kept.pop(absent, None)
        return kept
    if schema.get(PRESERVES) or schema.get(_EMBEDDED):
        for absent in ("items", "properties", "required", "additionalProperties"):
            kept.pop(absent, None)
        return kept if kept.get("type") != "array" else {**kept, "items": {}}
    if isinstance(kept.get("properties"), Mapping):
        kept["properties"] = {name: _plainer(part) for name, part in kept["properties"].items()}
    for inner in ("items", "additionalProperties"):
        if inner in kept:
            kept[inner] = _plainer(kept[inner])
    return kept
