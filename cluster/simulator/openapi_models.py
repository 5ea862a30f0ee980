"""Schemas of the built-in kinds, made from the models of the ``kubernetes`` package. Pure but for its imports.

The package's models were generated from the API server's own OpenAPI document, and most of it can be had back from
them: fields with their JSON names, types, descriptions, which ones are required. What the generator dropped is put back
from the tables here where clients look at it: which Go package a type is from (its component's name), Quantity and
MicroTime, the keys by which lists are merged. Lost are formats of integers, defaults and enumerations.

Importing a model takes a millisecond and 0.1 MB, and there are 850: each is imported when a schema first needs it, and
nothing here is called on the event loop (`openapi`).

A schema is *neutral*: its ``$ref`` is the bare name of a component and may have a description beside it. `rendered`
makes it fit for version 2 or 3.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, TypeAlias

from ...shards.model.resources import ResourceType
from .patches import MERGE_KEYS, MERGED_PRIMITIVES

Schema: TypeAlias = dict[str, Any]

META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
OBJECT_META: Final = f"{META}.ObjectMeta"
LIST_META: Final = f"{META}.ListMeta"
QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
TIME: Final = f"{META}.Time"
MICRO_TIME: Final = f"{META}.MicroTime"

ALWAYS: Final = ("V1APIResourceList", "V1DeleteOptions", "V1Status", "V1WatchEvent")
"""Models that every document describes, because its operations take or answer them."""

SCALARS: Mapping[str, Schema] = {
    QUANTITY: {
        "description": "Quantity is a fixed-point number with an optional suffix: 100m, 1500m, 64Mi, 2G, 1e3.",
        "oneOf": [{"type": "string"}, {"type": "number"}],
    },
    INT_OR_STRING: {
        "description": "IntOrString is a number or a text: a port or its name, a count or a percentage.",
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
    TIME: {
        "description": "Time is a moment in RFC 3339, in seconds.",
        "format": "date-time",
        "type": "string",
    },
    MICRO_TIME: {
        "description": "MicroTime is a moment in RFC 3339, in microseconds.",
        "format": "date-time",
        "type": "string",
    },
}
"""Types that Go encodes by itself. They have no models: in those they are plain texts and numbers."""

_META_MODELS = frozenset(
    """APIGroup APIGroupList APIResource APIResourceList APIVersions Condition DeleteOptions FieldSelectorRequirement
    GroupVersionForDiscovery LabelSelector LabelSelectorRequirement ListMeta ManagedFieldsEntry ObjectMeta
    OwnerReference Preconditions ServerAddressByClientCIDR ShardInfo Status StatusCause StatusDetails
    WatchEvent""".split()  # noqa: SIM905 - a list of literals would be one a line
)
_PACKAGES: Mapping[str, str] = {
    "": "io.k8s.api.core",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
    "internal.apiserver.k8s.io": "io.k8s.api.apiserverinternal",
}
_ELSEWHERE: Mapping[str, str] = {
    "BoundObjectReference": "authentication",
    "Eviction": "policy",
    "Scale": "autoscaling",
    "ScaleSpec": "autoscaling",
    "ScaleStatus": "autoscaling",
    "TokenRequestSpec": "authentication",
    "TokenRequestStatus": "authentication",
}
"""Kinds that other groups' subresources take, and the group they belong to."""
_SHARED_ALPHA: Final = "scheduling"
"""The group whose alpha types kinds of stable groups refer to."""
_QUANTITIES: Mapping[str, frozenset[str]] = {
    owner: frozenset(fields.split())
    for owner, fields in {
        "CSIStorageCapacity": "capacity maximumVolumeSize",
        "CapacityRequestPolicy": "default validValues",
        "CapacityRequestPolicyRange": "max min step",
        "CapacityRequirements": "requests",
        "ContainerStatus": "allocatedResources",
        "Counter": "value",
        "DeviceCapacity": "value",
        "EmptyDirVolumeSource": "sizeLimit",
        "LimitRangeItem": "default defaultRequest max maxLimitRequestRatio min",
        "MetricTarget": "averageValue value",
        "MetricValueStatus": "averageValue value",
        "NodeAllocatableMappedResources": "quantity",
        "NodeAllocatableOverhead": "perContainer perPod",
        "NodeAllocatableOverheadResources": "perContainer perPod",
        "NodeStatus": "allocatable capacity",
        "Overhead": "podFixed",
        "PersistentVolumeClaimStatus": "allocatedResources capacity",
        "PersistentVolumeSpec": "capacity",
        "PodSpec": "overhead",
        "PodStatus": "allocatedResources",
        "ResourceFieldSelector": "divisor",
        "ResourceQuotaSpec": "hard",
        "ResourceQuotaStatus": "hard used",
        "ResourceRequirements": "limits requests",
        "VolumeResourceRequirements": "limits requests",
    }.items()
}
_MICRO_TIMES: Mapping[str, frozenset[str]] = {
    "Event": frozenset({"eventTime"}),
    "EventSeries": frozenset({"lastObservedTime"}),
    "LeaseSpec": frozenset({"acquireTime", "renewTime"}),
}
_NAME = re.compile(r"([A-Z][a-z]+)?(V\d+(?:(?:alpha|beta)\d+)?)([A-Z]\w*)")
_REFERENCE = re.compile(r"[A-Z][A-Za-z]*V\d\w*|V\d\w*")
_CONTAINER = re.compile(r"(List\[|Dict\[str, )(.*)\]")
_PRIMITIVES: Mapping[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "bytes": {"type": "string", "format": "byte"},
}
_UNIONS: Final = (typing.Union, types.UnionType)
_METADATA_TEXT: Final = (
    "Standard metadata. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)


# -- models -------------------------------------------------------------------------------------------------


@cache
def _model(name: str) -> Any | None:
    """A model class by its name, imported now if it was not before."""
    from kubernetes.client import models

    return getattr(models, name, None)


def model_of(group: str, version: str, kind: str) -> str | None:
    """The name of the model of a kind; None if the package has none."""
    prefix = version[:1].upper() + version[1:]
    word = (group.partition(".")[0] or "core").capitalize()
    return next((name for name in (f"{word}{prefix}{kind}", f"{prefix}{kind}") if _model(name)), None)


def closure(names: Iterable[str]) -> frozenset[str]:
    """Models, and all that they refer to."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found and _model(name) is not None:
            found.add(name)
            left.extend(_referred(name))
    return frozenset(found)


@cache
def _referred(name: str) -> tuple[str, ...]:
    model = _model(name)
    named = model.openapi_types.values() if model is not None else ()
    return tuple(reference for text in named for reference in _REFERENCE.findall(text))


@cache
def core_models(core_kinds: tuple[str, ...]) -> frozenset[str]:
    """Everything the core group's kinds are made of: what other groups' kinds share with them is core's."""
    return closure(name for kind in core_kinds if (name := model_of("", "v1", kind)))


class Components:
    """Names and schemas of one group's and version's types. `core` are the models that belong to the core group."""

    def __init__(self, group: str, version: str, core: frozenset[str]) -> None:
        self._package = _package(group)
        self._version = version
        self._core = core

    def name(self, model: str) -> str:
        """The component's name as kube-apiserver has it: ``io.k8s.api.core.v1.Pod``."""
        match = _NAME.fullmatch(model)
        if match is None:
            return f"io.k8s.apimachinery.pkg.{model}"
        group, version, kind = (match[1] or "").lower(), match[2].lower(), match[3]
        if version == "v1" and kind in _META_MODELS:
            return f"{META}.{kind}"
        package = self._package
        if group == "authentication":  # elsewhere a prefix only tells kinds of one name apart
            package = _package(group)
        elif kind in _ELSEWHERE and model not in self._core:
            package = _package(_ELSEWHERE[kind])
        elif model in self._core:
            package = _package("")
        elif version != self._version:
            package = _package(_SHARED_ALPHA)
        return f"{package}.{version}.{kind}"

    def schemas(self, models: Iterable[str]) -> dict[str, Schema]:
        """The schemas of these models and of all that they are made of, by component."""
        made = {self.name(model): self._schema(model) for model in closure(models)}
        used = {reference for schema in made.values() for reference in references(schema)}
        return made | {name: dict(schema) for name, schema in SCALARS.items() if name in used}

    def _schema(self, name: str) -> Schema:
        model: Any = _model(name)
        fields = {
            field.serialization_alias or field.alias or own: field
            for own, field in model.model_fields.items()
        }
        properties: dict[str, Schema] = {}
        for own, text in sorted(model.openapi_types.items(), key=lambda pair: model.attribute_map[pair[0]]):
            field = model.attribute_map[own]
            properties[field] = self._property(kind_of(name), field, text, fields[field])
        schema: Schema = {"description": _description(model), "properties": properties}
        if not schema["description"]:
            del schema["description"]
        if required := [field for field in properties if fields[field].is_required()]:
            schema["required"] = required
        return {**schema, "type": "object"}

    def _property(self, owner: str, name: str, text: str, field: Any) -> Schema:
        schema = self._typed(owner, name, text, field.annotation)
        description = field.description
        if description is None and name == "metadata" and text in ("V1ObjectMeta", "V1ListMeta"):
            description = _METADATA_TEXT
        if description:
            schema["description"] = description
        if schema.get("type") == "array":
            schema |= _merging(name, text)
        return schema

    def _typed(self, owner: str, name: str, text: str, annotation: Any) -> Schema:
        container = _CONTAINER.fullmatch(text)
        if container is not None:
            inner = self._typed(owner, name, container[2], Any)
            if container[1] == "List[":
                return {"items": inner, "type": "array"}
            return {"additionalProperties": inner, "type": "object"}
        if text == "datetime":
            return {"$ref": MICRO_TIME if name in _MICRO_TIMES.get(owner, ()) else TIME}
        if text == "str" and name in _QUANTITIES.get(owner, ()):
            return {"$ref": QUANTITY}
        if text == "object":
            return _untyped(annotation)
        primitive = _PRIMITIVES.get(text)
        return dict(primitive) if primitive is not None else {"$ref": self.name(text)}


def kind_of(model: str) -> str:
    """``V1Pod`` is a Pod, ``CoreV1Event`` an Event."""
    match = _NAME.fullmatch(model)
    return match[3] if match else model


def _package(group: str) -> str:
    return _PACKAGES.get(group) or f"io.k8s.api.{group.partition('.')[0]}"


def _description(model: Any) -> str:
    """What a model's documentation says before it lists its attributes."""
    return " ".join((model.__doc__ or "").partition("Attributes:")[0].split())


def _untyped(annotation: Any) -> Schema:
    """What the package calls ``object``: a number or text, a map, or anything."""
    parts = typing.get_args(annotation) if typing.get_origin(annotation) in _UNIONS else (annotation,)
    kinds = {_plain(part) for part in parts} - {types.NoneType}
    if kinds == {int, str}:
        return {"$ref": INT_OR_STRING}
    return {"type": "object"} if kinds == {dict} else {}


def _plain(part: Any) -> Any:
    if typing.get_origin(part) is typing.Annotated:
        part = typing.get_args(part)[0]
    return typing.get_origin(part) or part


def _merging(name: str, text: str) -> Schema:
    """How a strategic merge patch merges a list, if it does."""
    if text == "List[str]":
        return {"x-kubernetes-patch-strategy": "merge"} if name in MERGED_PRIMITIVES else {}
    match = _REFERENCE.search(text)
    item = _model(match[0]) if match else None
    own = set(item.attribute_map.values()) if item is not None else set()
    key = next((key for key in MERGE_KEYS.get(name, ()) if key in own), None)
    if key is None:
        return {}
    return {"x-kubernetes-patch-merge-key": key, "x-kubernetes-patch-strategy": "merge"}


# -- kinds --------------------------------------------------------------------------------------------------


def kinds(resources: Iterable[ResourceType]) -> Iterator[tuple[str, str, str]]:
    """Group, version and kind of everything these resources take and answer."""
    for known in resources:
        resource = known.resource
        yield resource.group, resource.version, known.kind
        if "list" in known.verbs:
            yield resource.group, resource.version, known.list_kind or f"{known.kind}List"
        for sub in known.subresource_types:
            yield sub.group or resource.group, sub.version or resource.version, sub.kind


def with_kind(schema: Schema, group: str, version: str, kind: str) -> Schema:
    """A schema that says which kind it is of."""
    found = schema.get("x-kubernetes-group-version-kind", [])
    entry = {"group": group, "kind": kind, "version": version}
    return schema if entry in found else {**schema, "x-kubernetes-group-version-kind": [*found, entry]}


# -- references ---------------------------------------------------------------------------------------------


def references(schema: Any) -> Iterator[str]:
    """The components a schema names."""
    match schema:
        case {"$ref": str(name)}:
            yield name
        case dict():
            for part in schema.values():
                yield from references(part)
        case list():
            for part in schema:
                yield from references(part)


def rendered(schema: Any, version: int) -> Any:
    """A neutral schema in OpenAPI version 2 or 3. In 3 nothing may stand beside a ``$ref``."""
    match schema:
        case {"$ref": str(name), **beside}:
            if version == 2:
                return {"$ref": f"#/definitions/{name}", **beside}
            reference = {"$ref": f"#/components/schemas/{name}"}
            return {"allOf": [reference], **beside} if beside else reference
        case dict():
            return {name: rendered(part, version) for name, part in schema.items()}
        case list():
            return [rendered(part, version) for part in schema]
        case _:
            return schema


def scalar(name: str, schema: Schema, version: int) -> Schema:
    """A component; version 2 knows no alternatives, so there Quantity and IntOrString are texts."""
    if version == 2 and name in (QUANTITY, INT_OR_STRING):
        return {**{key: value for key, value in schema.items() if key != "oneOf"}, "type": "string"}
    return schema
