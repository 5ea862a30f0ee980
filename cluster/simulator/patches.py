"""The patch formats: RFC 7386 merge patch, RFC 6902 JSON patch, strategic merge patch. Pure.

A strategic merge patch merges lists of built-in kinds by a key that is part of the kind's schema. The
keys here are those of the workload, service and RBAC kinds (``patchMergeKey`` in ``k8s.io/api``), looked
up by field name; lists not named are replaced, as a list without merge key is in the API server. Where an
element order is given, elements only the server has come last. Server-side apply is not offered: its
content type is refused with 415, the answer of a server where the patch type is off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jsonpatch
import msgspec
import yaml

from ...shards.model.depth import at_any_depth
from ...shards.model.errors import BadRequest, Invalid, UnsupportedMediaType
from ...shards.model.resources import ResourceType
from .objects import Document, TooDeep, copied, parse_json
from .validation import check_object, parse_yaml

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

MERGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ports": ("containerPort", "port"),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "hostAliases": ("ip",),
    "podIPs": ("ip",),
    "topologySpreadConstraints": ("topologyKey",),
    "conditions": ("type",),
    "addresses": ("type",),
    "ownerReferences": ("uid",),
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "webhooks": ("name",),
    "matchConditions": ("name",),
}
"""By field name; of several, the first that the elements have."""
MERGED_PRIMITIVES = frozenset({"finalizers", "podCIDRs"})

_ORDER = "$setElementOrder/"
_REMOVED = "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"
_DIRECTIVE = "$patch"


class Patch(NamedTuple):
    """A patch as it came."""

    body: bytes
    content_type: str


def apply_patch(document: Document, patch: Patch, resource_type: ResourceType) -> Document:
    """A new document: `document` changed by `patch`.

    Raises:
        UnsupportedMediaType: a format that is not offered (for this resource).
        BadRequest: the patch cannot be read.
        Invalid: it cannot be applied to this object, or leaves none.
    """
    media = patch.content_type.partition(";")[0].strip()
    offered = (
        (JSON_PATCH, MERGE_PATCH) if resource_type.custom else (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH)
    )
    if media not in offered:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            + ", ".join(offered)
        )
    change = _read(patch.body)
    if media != JSON_PATCH and not isinstance(change, dict):
        raise BadRequest("error decoding patch: json: cannot unmarshal into Go value of type map")
    match media:
        case "application/json-patch+json":
            patched = at_any_depth(partial(_json_patch, document), change)
        case "application/merge-patch+json":
            patched = at_any_depth(partial(merge, document), change)
        case _:
            patched = at_any_depth(partial(strategic_merge, document), change)
    return check_object(patched)


def _read(patch: bytes) -> Any:
    try:
        return parse_json(patch)
    except msgspec.DecodeError:
        pass
    except TooDeep as error:
        raise BadRequest(f"error decoding patch: {error}") from error
    try:  # the API server converts YAML to JSON before it looks at a patch
        return parse_yaml(patch)
    except yaml.YAMLError as error:
        raise BadRequest(f"error decoding patch: {error}") from error


def _json_patch(document: Document, operations: Any) -> Any:
    if not isinstance(operations, list):
        raise BadRequest("error decoding patch: json: cannot unmarshal into Go value of type jsonpatch.Patch")
    try:
        patched = jsonpatch.JsonPatch(operations).apply(copied(document), in_place=True)
    except jsonpatch.InvalidJsonPatch as error:
        raise BadRequest(f"error decoding patch: {error}") from error
    except (
        jsonpatch.JsonPatchException,
        jsonpatch.JsonPointerException,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        # The API server hides the cause as well (NewGenericServerResponse for 422).
        raise Invalid("the server rejected our request due to an error in our request") from error
    return patched


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def strategic_merge(target: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The API server's strategic merge of one object into another.

    Raises:
        BadRequest: a ``$patch`` directive that does not exist.
    """
    plain = {name: value for name, value in patch.items() if not name.startswith("$")}
    match patch.get(_DIRECTIVE):
        case None | "merge":
            pass
        case "replace":
            return plain
        case "delete":
            return {}
        case other:
            raise BadRequest(f"Unknown patch type found: {other}")
    merged = dict(target) if isinstance(target, dict) else {}
    retained = patch.get(_RETAIN, merged)
    merged = {name: value for name, value in merged.items() if name in retained}
    for field, removed in _directed(patch, _REMOVED, merged):
        merged[field] = [value for value in merged[field] if value not in removed]
    for name, value in plain.items():
        match value:
            case None:
                merged.pop(name, None)
            case dict():
                merged[name] = strategic_merge(merged.get(name), value)
            case list():
                merged[name] = _merge_list(name, merged.get(name), value)
            case _:
                merged[name] = value
    for field, order in _directed(patch, _ORDER, merged):
        merged[field] = _ordered(field, merged[field], order)
    return merged


def _directed(
    patch: Mapping[str, Any], directive: str, merged: Mapping[str, Any]
) -> Iterator[tuple[str, list[Any]]]:
    """The lists of `merged` that a directive of the patch is about, with what it says."""
    for name, value in patch.items():
        field = name.removeprefix(directive)
        if field != name and isinstance(merged.get(field), list):
            yield field, value


def _merge_list(name: str, target: Any, patch: list[Any]) -> list[Any]:
    current: list[Any] = list(target) if isinstance(target, list) else []
    if name in MERGED_PRIMITIVES:
        return current + [value for value in patch if value not in current]
    key = _merge_key(name, [*patch, *current])
    if key is None:
        return patch
    if any(isinstance(part, dict) and part.get(_DIRECTIVE) == "replace" for part in patch):
        return [part for part in patch if not (isinstance(part, dict) and _DIRECTIVE in part)]
    for part in patch:
        at = next((i for i, known in enumerate(current) if known.get(key) == part.get(key)), None)
        if part.get(_DIRECTIVE) == "delete":
            if at is not None:
                del current[at]
        elif at is None:
            current.append({name: value for name, value in part.items() if not name.startswith("$")})
        else:
            current[at] = strategic_merge(current[at], part)
    return current


def _ordered(name: str, merged: list[Any], order: list[Any]) -> list[Any]:
    if merged and not isinstance(merged[0], dict):
        rank = {value: at for at, value in enumerate(order)}
        return sorted(merged, key=lambda value: rank.get(value, len(rank)))
    key = _merge_key(name, merged)
    if key is None:
        return merged
    ranks = {part.get(key): at for at, part in enumerate(order)}
    return sorted(merged, key=lambda part: ranks.get(part.get(key), len(ranks)))


def _merge_key(name: str, elements: list[Any]) -> str | None:
    """The key that all elements have; None if the list is to be replaced."""
    for key in MERGE_KEYS.get(name, ()):
        if all(
            isinstance(part, dict) and (key in part or part.get(_DIRECTIVE) == "replace") for part in elements
        ):
            return key
    return None
