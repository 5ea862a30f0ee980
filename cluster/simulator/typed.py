"""The types of what typed clients decode: metadata of every kind, and the whole of ConfigMaps and Secrets. Pure.

kube-apiserver decodes a body into Go structs and refuses what does not fit. Here one msgspec conversion decides, which
costs a few microseconds an object; only a refusal is then put into the words of Go's decoder. Specs and statuses are
not looked at. Times must be RFC 3339, as ``metav1.Time`` has it; Secret data must be base64.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, TypeAlias

import msgspec

from ...shards.model.resources import ResourceType
from .objects import Document

_Time: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)] | None
_Text: TypeAlias = str | None
_Texts: TypeAlias = dict[str, str | None] | None
_Binary: TypeAlias = dict[str, bytes | None] | None


class _OwnerReference(msgspec.Struct, rename="camel"):
    api_version: _Text = None
    kind: _Text = None
    name: _Text = None
    uid: _Text = None
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class _ManagedFieldsEntry(msgspec.Struct, rename="camel"):
    manager: _Text = None
    operation: _Text = None
    api_version: _Text = None
    time: _Time = None
    fields_type: _Text = None
    subresource: _Text = None


class _ObjectMeta(msgspec.Struct, rename="camel"):
    name: _Text = None
    generate_name: _Text = None
    namespace: _Text = None
    self_link: _Text = None
    uid: _Text = None
    resource_version: _Text = None
    generation: int | None = None
    creation_timestamp: _Time = None
    deletion_timestamp: _Time = None
    deletion_grace_period_seconds: int | None = None
    labels: _Texts = None
    annotations: _Texts = None
    owner_references: list[_OwnerReference | None] | None = None
    finalizers: list[str | None] | None = None
    managed_fields: list[_ManagedFieldsEntry | None] | None = None


class _Object(msgspec.Struct):
    metadata: _ObjectMeta | None = None


class _ConfigMap(_Object, rename="camel"):
    immutable: bool | None = None
    data: _Texts = None
    binary_data: _Binary = None


class _Secret(_Object, rename="camel"):
    immutable: bool | None = None
    data: _Binary = None
    string_data: _Texts = None
    type: _Text = None


_KINDS: Mapping[str, type[_Object]] = {"configmaps": _ConfigMap, "secrets": _Secret}
_META, _OWNER, _MANAGED = "ObjectMeta", "OwnerReference", "ManagedFieldsEntry"
_GO_TYPES: Mapping[str, tuple[str, str]] = {
    "metadata": ("", "v1.ObjectMeta"),
    "metadata.uid": (_META, "types.UID"),
    "metadata.generation": (_META, "int64"),
    "metadata.deletionGracePeriodSeconds": (_META, "int64"),
    "metadata.labels": (_META, "map[string]string"),
    "metadata.annotations": (_META, "map[string]string"),
    "metadata.finalizers": (_META, "[]string"),
    "metadata.ownerReferences": (_META, "[]v1.OwnerReference"),
    "metadata.ownerReferences[]": (_META, "v1.OwnerReference"),
    "metadata.ownerReferences[].uid": (_OWNER, "types.UID"),
    "metadata.ownerReferences[].controller": (_OWNER, "bool"),
    "metadata.ownerReferences[].blockOwnerDeletion": (_OWNER, "bool"),
    "metadata.managedFields": (_META, "[]v1.ManagedFieldsEntry"),
    "metadata.managedFields[]": (_META, "v1.ManagedFieldsEntry"),
    "metadata.managedFields[].operation": (_MANAGED, "v1.ManagedFieldsOperationType"),
    "immutable": ("", "bool"),
    "type": ("", "v1.SecretType"),
    "stringData": ("", "map[string]string"),
    "binaryData": ("", "map[string][]uint8"),
    "binaryData[]": ("", "[]uint8"),
}
"""By path: the struct that has the field (empty: the kind's own) and the field's type, where that is not ``string``."""
_SECRET_DATA: Mapping[str, tuple[str, str]] = {"data": ("", "map[string][]uint8"), "data[]": ("", "[]uint8")}
_CONFIG_DATA: Mapping[str, tuple[str, str]] = {"data": ("", "map[string]string")}
GO_KINDS: Mapping[type, str] = {
    dict: "object",
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "bool",
}
"""What Go's decoder calls values of JSON."""
_MISMATCH = re.compile(r"got `(\w+)`")
_PLACE = re.compile(r" - at `\$\.?(.*?)`$")
_INDEX = re.compile(r"\[[^\]]*\]")
_BASE64 = re.compile(r"[A-Za-z0-9+/\r\n]*")


class WrongType(Exception):  # noqa: N818 - what it says about the object is the caller's answer
    """A value of a type its field does not have; the text is that of Go's decoder."""


def check_types(document: Document, resource_type: ResourceType) -> None:
    """Whether a typed client could decode the object.

    Raises:
        WrongType: it could not.
    """
    kind = _Object if resource_type.custom else _KINDS.get(resource_type.resource.qualified_name, _Object)
    try:
        msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise WrongType(_explained(document, resource_type.kind, str(error))) from error


def _explained(document: Document, kind: str, problem: str) -> str:
    place = _PLACE.search(problem)
    path = place[1] if place else ""
    mismatch = _MISMATCH.search(problem)
    value = _value_at(document, path)
    if mismatch is None:
        if "base64" in problem:
            return _base64_problem(document, path)
        layout = "2006-01-02T15:04:05Z07:00"
        return f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "{layout}"'
    got = {"int": "number", "float": "number", "str": "string", "bool": "bool"}.get(mismatch[1], mismatch[1])
    field = _INDEX.sub("", path)
    if field.lower().endswith(("timestamp", ".time")):
        return f"json: cannot unmarshal {got} into Go value of type string"
    shape = _INDEX.sub("[]", path)
    special = _SECRET_DATA if kind == "Secret" else _CONFIG_DATA
    owner, wanted = special.get(shape) or _GO_TYPES.get(shape) or (_owner_of(shape), "string")
    return f"json: cannot unmarshal {got} into Go struct field {owner or kind}.{field} of type {wanted}"


def _owner_of(shape: str) -> str:
    if shape.startswith("metadata.ownerReferences[]"):
        return _OWNER
    if shape.startswith("metadata.managedFields[]"):
        return _MANAGED
    return _META if shape.startswith("metadata") else ""


def _value_at(document: Document, path: str) -> Any:
    """What stands at a path of msgspec's; of maps' values, which it does not name, None."""
    value: Any = document
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(value, list) and step.isdecimal():
            value = value[int(step)]
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            return None
    return value


def _base64_problem(document: Document, path: str) -> str:
    """Go's words for the first value of a map that is not base64."""
    values = document.get(_INDEX.sub("", path)) or {}
    for text in values.values():
        if isinstance(text, str):
            end = _BASE64.match(text)
            at = end.end() if end else 0
            if text[at:].rstrip("\r\n").strip("=") or len(text) % 4:
                return f"illegal base64 data at input byte {at}"
    return "illegal base64 data at input byte 0"
