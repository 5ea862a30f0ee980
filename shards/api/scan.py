"""The structs one resource's objects are scanned into: identity, labels and the selectable fields, nothing
else.

`FieldScan.read` is one msgspec scan and one attribute getter, both in C. The structs are built for each
resource from the paths of its selectable fields; a member that is absent is an empty struct or the field's
default, so the getter always arrives. Types are as narrow as the field allows (text, number, true/false): a
value of another type fails the scan, and the decoder then takes its slow path, which asks `values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Raw

from ..model.fields import SELECTABLE_FIELDS, FieldSource, field_source, field_text, field_value
from ..model.resources import ResourceType

ABSENT: Final = -1
"""What a scan gives for ``metadata.managedFields`` where there is none, or where it is kept."""
MARKED: Final = 170_141_183
MARK: Final = b',"managedFields":170141183'
"""Stands where managedFields was cut out, so that the scan proves which member it was. Any number but this
one fails the scan, and API servers send lists."""

IDENTITY: Final = 6
"""So many values of `FieldScan.read` come before the fields."""

_Tree: TypeAlias = "dict[str, _Tree | tuple[Any, Any]]"
"""Members by JSON name: a struct's members, or a leaf's type and default."""

_MANAGED: Final = b',"managedFields":['
_LOWER_A: Final = ord("a")
_LOWER_Z: Final = ord("z")

_NOWHERE: Final = "nowhere"
_EMPTY: Final = b""
_NO_TEXT: Final = b"{[n"
"""What objects, lists and null begin with."""


def cut_managed_fields(text: bytes, at: int, end: int) -> tuple[int, int]:
    """Where ``,"managedFields":[…]`` begins and ends in the object ``text[at:end]``; ``(-1, end)`` if
    unknown.

    Why the cut is exact although nothing between is scanned. In JSON a quote that closes a string is followed
    by a colon, comma, bracket or blank, never by a letter. So the quote before ``managedFields`` opens a
    string, and that string is a key. Likewise ``]},"s`` (or ``],"s``) cannot lie inside a string: its bracket
    is a bracket, and so is the ``]`` of ``]}}`` where the object ends with it. Being the first ``]`` at all,
    it closes the array, unless another array is nested in it: then the text that is left has more closing
    than opening brackets and fails the scan. Whether the key was ``metadata.managedFields`` and not one
    deeper, the caller sees from where its mark turns up.
    """
    cut = text.find(_MANAGED, at, end)
    if cut < 0:
        return -1, end
    stop = text.find(b"]", cut, end)
    if stop < 0:
        return -1, end
    rest = stop + 1
    if text.startswith(b'},"', rest):
        letter = rest + 3
    elif text.startswith(b',"', rest):
        letter = rest + 2
    elif rest + 2 == end and text.startswith(b"}}", rest):
        return cut, rest
    else:
        return -1, end
    return (cut, rest) if letter < end and _LOWER_A <= text[letter] <= _LOWER_Z else (-1, end)


class FieldScan:
    """Reads identity, labels and field values of one resource's objects."""

    def __init__(self, resource_type: ResourceType, *, keep_managed_fields: bool) -> None:
        self._qualified_name = resource_type.resource.qualified_name
        self._fields = resource_type.selectable_fields
        metadata: _Tree = {
            "name": (str, ""),
            "namespace": (str, ""),
            "uid": (str, ""),
            "resourceVersion": (str, ""),
            "labels": (Raw, Raw(_EMPTY)),
        }
        getters = [f"metadata.{name}" for name in metadata]
        if keep_managed_fields:
            getters.append("unscanned")
        else:
            metadata["managedFields"] = (Literal[170_141_183], ABSENT)
            getters.append("metadata.managedFields")
        tree: _Tree = {"metadata": metadata}
        declared = frozenset(resource_type.indexed_fields).difference(
            SELECTABLE_FIELDS.get(self._qualified_name, ())
        )
        mixed: list[int] = []
        others: list[tuple[int, str]] = []
        for position, field in enumerate(self._fields):
            source = field_source(self._qualified_name, field)
            leaf = _leaf(source, custom=resource_type.custom)
            if field in declared:
                # Of any type: a number must not send every event of the resource the slow way.
                leaf = (Raw, Raw(_EMPTY))
            paths = [path for path in source.paths if _grow(tree, path.split("."), leaf)]
            getters.append(paths[0] if paths else _NOWHERE)
            others += [(position, path) for path in paths[1:]]
            if leaf[0] is not str:
                mixed.append(position)
        self._end = IDENTITY + len(self._fields)
        self._mixed = tuple(mixed)
        self._others = tuple((position, self._end + at) for at, (position, _) in enumerate(others))
        getters += [path for _, path in others]
        names = _Names()
        constants = {_NOWHERE: "", "unscanned": ABSENT}
        self._decode = msgspec.json.Decoder(_struct("Object", tree, names, constants)).decode
        self._get: attrgetter[tuple[Any, ...]] = attrgetter(
            *(path if path in constants else ".".join(map(names.of, path.split("."))) for path in getters)
        )

    def read(self, text: bytes) -> tuple[Any, ...]:
        """Name, namespace, uid, version, labels, managedFields (`IDENTITY` values), then what `texts` takes.

        Raises:
            msgspec.DecodeError, UnicodeError, RecursionError: not the JSON of such an object, or of another
            shape. AttributeError: a null stands where an object is expected.
        """
        return self._get(self._decode(text))

    def texts(self, found: tuple[Any, ...]) -> tuple[str, ...]:
        """`Observation.fields` from all that `read` gave."""
        fields = found[IDENTITY : self._end]
        for position in self._mixed:
            if type(fields[position]) is not str:
                fields = tuple([_text(value) for value in fields])
                break
        for position, other in self._others:
            if not fields[position]:
                fields = (*fields[:position], found[other], *fields[position + 1 :])
        return fields

    def values(self, document: Mapping[str, Any]) -> tuple[str, ...]:
        """The same from a parsed object of any shape."""
        return tuple(field_value(document, self._qualified_name, field) for field in self._fields)


def _text(value: object) -> str:
    if isinstance(value, Raw):
        raw = bytes(value)
        if not raw or raw[0] in _NO_TEXT:
            return ""
        value = msgspec.json.decode(raw)
    return field_text(value) or ""


class _Names:
    """Attribute names for JSON names, which need not be Python identifiers."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def of(self, original: str) -> str:
        return self._names.setdefault(original, f"m{len(self._names)}")


def _leaf(source: FieldSource, *, custom: bool) -> tuple[Any, Any]:
    if custom:
        return str | int | float | bool | None, source.default
    match source.default:
        case "":
            return str, ""
        case "true" | "false":
            return bool, source.default
        case _:
            return int, source.default


def _grow(tree: _Tree, path: list[str], leaf: tuple[Any, str]) -> bool:
    """Adds a leaf; False if another field has declared a part of its path to be a value."""
    for step in path[:-1]:
        below = tree.setdefault(step, {})
        if not isinstance(below, dict):
            return False
        tree = below
    return not isinstance(tree.setdefault(path[-1], leaf), dict)


def _struct(name: str, tree: _Tree, names: _Names, constants: Mapping[str, Any]) -> type[msgspec.Struct]:
    members: list[tuple[str, Any, Any]] = []
    for original, part in tree.items():
        if isinstance(part, dict):
            below = _struct("Member", part, names, {})
            members.append((names.of(original), below, msgspec.field(default_factory=below)))
        else:
            members.append((names.of(original), *part))
    return msgspec.defstruct(
        name,
        members,
        namespace=dict(constants),
        gc=False,
        rename={names.of(original): original for original in tree},
    )
