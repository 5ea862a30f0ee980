"""``metadata.managedFields`` as far as a cache needs them: present, of realistic size, one entry a
writer.

kube-apiserver tracks field by field who set what. Here a writer's entry covers everything the object
holds after its write, and other writers' entries stay as they were: conflicts are never computed from
them, because server-side apply is refused (`patches`). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...shards.model.resources import ResourceType
from .objects import Document

_NOT_OWNED = frozenset(
    {
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
    }
)
_MAP_FIELDS = frozenset(
    {"labels", "annotations", "data", "binaryData", "matchLabels", "nodeSelector", "limits", "requests"}
)
"""Fields that are maps in the built-in kinds: their entry says ``"."`` besides the keys."""
_KEYED_LISTS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "conditions": "type",
    "ownerReferences": "uid",
}
_DEPTH = 12
"""Deeper than this a field is owned as a whole."""


def manager_name(user_agent: str, field_manager: str) -> str:
    """Who writes: the ``fieldManager`` parameter, else the product name of the User-Agent."""
    return (field_manager or user_agent.partition("/")[0] or "unknown")[:128]


def record_writer(
    document: Document, resource_type: ResourceType, *, manager: str, time: str, subresource: str | None
) -> None:
    """Puts the writer's entry into the document's metadata, in place."""
    metadata = document["metadata"]
    entry: dict[str, Any] = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": resource_type.resource.api_version,
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": owned_fields(document, custom=resource_type.custom, subresource=subresource),
    }
    if subresource:
        entry["subresource"] = subresource
    entries = list(metadata.get("managedFields") or [])
    for at, known in enumerate(entries):
        if known.get("manager") == manager and known.get("subresource") == subresource:
            entries[at] = entry
            break
    else:
        entries.append(entry)
    metadata["managedFields"] = entries


def owned_fields(document: Document, *, custom: bool, subresource: str | None) -> dict[str, Any]:
    """FieldsV1 over what `document` sets: a subresource's writer owns that part, others all but the
    status.
    """
    owned: dict[str, Any] = {}
    for name, value in sorted(document.items()):
        if name in ("apiVersion", "kind"):
            continue
        if name == "metadata":
            metadata = {key: part for key, part in value.items() if key not in _NOT_OWNED}
            if metadata and not subresource:
                owned["f:metadata"] = _fields(metadata, "metadata", custom=False, depth=1)
        elif (name == subresource) if subresource else (name != "status"):
            owned[f"f:{name}"] = _fields(value, name, custom=custom, depth=1)
    return owned


def _fields(value: Any, name: str, *, custom: bool, depth: int) -> dict[str, Any]:
    if depth > _DEPTH:
        return {}
    if isinstance(value, dict):
        owned: dict[str, Any] = {".": {}} if custom or name in _MAP_FIELDS else {}
        for key, part in sorted(value.items()):
            owned[f"f:{key}"] = _fields(part, key, custom=custom, depth=depth + 1)
        return owned
    merge_key = None if custom else _KEYED_LISTS.get(name)
    if merge_key and isinstance(value, list):
        return {
            f'k:{{"{merge_key}":"{part[merge_key]}"}}': {
                ".": {},
                **_fields(part, "", custom=custom, depth=depth + 1),
            }
            for part in value
            if isinstance(part, dict) and merge_key in part
        }
    return {}
