"""Field validation: members of a written object that its schema does not have, and members named twice. Pure.

What kube-apiserver does for ``fieldValidation=Strict`` and ``Warn`` (``kubectl create --validate``), in its words:
``unknown field "spec.containers[0].imag"``. The schema decides, of built-in kinds and of custom ones; where it is open
(maps, unknown fields preserved, embedded objects) nothing is unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from .openapi_custom import PRESERVES
from .openapi_models import OBJECT_META, Schema

_EMBEDDED: Final = "x-kubernetes-embedded-resource"
_TYPE_META = frozenset({"apiVersion", "kind"})


class _Twice(dict[str, Any]):
    """An object of which some members were named more than once."""

    names: tuple[str, ...] = ()


def duplicate_fields(body: bytes) -> list[str]:
    """A problem for each member that JSON names twice; none for what is not JSON."""
    try:
        document = json.loads(body, object_pairs_hook=_noticing)
    except ValueError:
        return []
    return [f'duplicate field "{path}"' for path in _duplicates(document, "")]


def _noticing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    counts = Counter(name for name, _ in pairs)
    repeated = _Twice(plain)
    repeated.names = tuple(name for name, count in counts.items() if count > 1)
    return repeated


def _duplicates(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Twice):
        yield from (_member(path, name) for name in value.names)
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _duplicates(part, _member(path, name))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from _duplicates(part, f"{path}[{at}]")


def unknown_fields(document: Any, name: str, components: Mapping[str, Schema]) -> list[str]:
    """A problem for each member that the component `name` does not have, in the document's order.

    Directives of a strategic merge patch (``$patch``) are no members.
    """
    schema = components.get(name, {})
    return [f'unknown field "{path}"' for path in _unknown(document, schema, "", components, root=True)]


def _unknown(
    value: Any, schema: Any, path: str, components: Mapping[str, Schema], *, root: bool = False
) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return
    if "$ref" in schema:
        schema = components.get(schema["$ref"], {})
    match value:
        case list():
            items = schema.get("items")
            for at, part in enumerate(value):
                yield from _unknown(part, items, f"{path}[{at}]", components)
        case dict():
            yield from _unknown_members(value, schema, path, components, root=root)


def _unknown_members(
    value: dict[str, Any],
    schema: Mapping[str, Any],
    path: str,
    components: Mapping[str, Schema],
    *,
    root: bool,
) -> Iterator[str]:
    properties: Mapping[str, Any] = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    embedded = bool(schema.get(_EMBEDDED))
    # An object of which nothing is said may hold anything, and one that keeps what it does not know as well.
    open_ended = bool(schema.get(PRESERVES)) or others is True or not (properties or others)
    for name, part in value.items():
        place = _member(path, name)
        if name in properties:
            yield from _unknown(part, properties[name], place, components)
        elif (root or embedded) and name in _TYPE_META:
            continue
        elif embedded and name == "metadata":
            yield from _unknown(part, components.get(OBJECT_META, {}), place, components)
        elif isinstance(others, Mapping):
            yield from _unknown(part, others, place, components)
        elif not open_ended and not name.startswith("$"):
            yield place


def _member(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
