r"""The columns of custom resources: what their definition's ``additionalPrinterColumns`` say.

Each names a JSONPath. The subset here is the one the API server admits in definitions, which yields one
value without ranging over text: fields (``.spec.size``, ``.metadata.labels.app\.io/name``, ``['a.b']``),
indexes and slices (``[0]``, ``[-1]``, ``[*]``, ``[0:2]``), filters (``[?(@.type=="Ready")]``). A path that
finds nothing leaves its cell empty; so does one that cannot be read, because a table must not fail for one
column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeAlias, assert_never

import msgspec

from ....shards.model.resources import PrinterColumn
from .cells import AGE, NAME, Cell, Column, age

# -- paths ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """A member of an object; `name` None is any (``*``)."""

    name: str | None


@dataclass(frozen=True, slots=True)
class Slice:
    """Elements of an array."""

    start: int | None
    stop: int | None
    step: int | None


@dataclass(frozen=True, slots=True)
class Filter:
    """The elements of an array whose value at `path` compares to `value`; without operator, that have one."""

    path: Path
    operator: str
    value: Any


Path: TypeAlias = tuple[Field | Slice | Filter, ...]

_FIELD = re.compile(r"\.((?:[^.\[\]\\]|\\.)+)")
_QUOTED = re.compile(r"""\[(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\]""")
_INDEX = re.compile(r"\[(-?\d+|\*)\]")
_SLICE = re.compile(r"\[(-?\d*):(-?\d*)(?::(\d*))?\]")
_FILTER = re.compile(r"\[\?\(\s*@((?:[^()\"']|\"[^\"]*\"|'[^']*')*)\)\]")
_CONDITION = re.compile(r"""(.*?)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?))?\s*""")


@lru_cache(maxsize=4096)
def parse_path(text: str) -> Path:
    """Reads a JSONPath; a pair of braces around it and a ``$`` in front are taken off.

    Raises:
        ValueError: a construct outside the subset; the message says where.
    """
    path = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    if path and path[0] not in ".[":
        path = f".{path}"
    steps: list[Field | Slice | Filter] = []
    at = 0
    while at < len(path):
        step, at = _step(path, at)
        steps.append(step)
    return tuple(steps)


def _step(path: str, at: int) -> tuple[Field | Slice | Filter, int]:
    if found := _FIELD.match(path, at):
        return Field(None if found[1] == "*" else _unescaped(found[1])), found.end()
    if found := _QUOTED.match(path, at):
        return Field(_unescaped(found[1] if found[1] is not None else found[2])), found.end()
    if found := _INDEX.match(path, at):
        return _index(found[1]), found.end()
    if found := _SLICE.match(path, at):
        start, stop, step = (int(part) if part else None for part in found.groups())
        return Slice(start, stop, step or None), found.end()
    if found := _FILTER.match(path, at):
        return _filter(found[1]), found.end()
    raise ValueError(f"cannot read the JSONPath {path!r} at {path[at : at + 20]!r}")


def _index(text: str) -> Slice:
    if text == "*":
        return Slice(None, None, None)
    index = int(text)
    return Slice(index, index + 1 if index != -1 else None, None)


def _filter(text: str) -> Filter:
    found = _CONDITION.fullmatch(text)
    if found is None or any(sign in found[1] for sign in "=<>!"):
        raise ValueError(f"cannot read the JSONPath filter {text!r}")
    operator, value = found[2] or "", found[3]
    return Filter(parse_path(found[1]), operator, _literal(value) if operator else None)


def _literal(text: str) -> Any:
    if text[0] == text[-1] and text[0] in "\"'" and len(text) > 1:
        return text[1:-1]
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError as error:
        raise ValueError(f"cannot read {text!r} in a JSONPath filter") from error


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def find(path: Path, document: Any) -> Iterator[Any]:
    """The values at a path, in the document's order; nothing for keys that are missing."""
    if not path:
        yield document
        return
    for value in _children(path[0], document):
        yield from find(path[1:], value)


def _children(step: Field | Slice | Filter, value: Any) -> Iterator[Any]:
    match step:
        case Field(None):
            yield from (
                value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
            )
        case Field(name):
            if isinstance(value, Mapping) and name in value:
                yield value[name]
        case Slice(start, stop, stride):
            if isinstance(value, list):
                yield from value[start:stop:stride]
        case Filter():
            if isinstance(value, list):
                yield from (element for element in value if _admits(step, element))
        case _ as unreachable:
            assert_never(unreachable)


_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: bool(left == right),
    "!=": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
}


def _admits(condition: Filter, element: Any) -> bool:
    values = list(find(condition.path, element))
    if not condition.operator or not values:
        return bool(values)
    try:
        return _COMPARE[condition.operator](values[0], condition.value)
    except TypeError:
        return False  # values of different types have no order


# -- columns --------------------------------------------------------------------------------------------

_DEFAULT = PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp")
"""What the API server shows for a definition that names no columns."""


def custom_columns(declared: Sequence[PrinterColumn]) -> tuple[Column, ...]:
    """Column definitions of a custom resource."""
    if not declared:
        return (NAME, AGE._replace(type="date"))
    return (NAME, *map(_column, declared))


def _column(declared: PrinterColumn) -> Column:
    text = declared.description or (
        f"Custom resource definition column (in JSONPath format): {declared.json_path}"
    )
    return Column(declared.name, declared.type, declared.format, text, declared.priority)


def custom_cells(declared: Sequence[PrinterColumn], document: Mapping[str, Any], now: datetime) -> list[Cell]:
    """Cells of one custom resource, its name first."""
    metadata = document.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
    return [name, *(_cell(column, document, now) for column in declared or (_DEFAULT,))]


def _cell(column: PrinterColumn, document: Mapping[str, Any], now: datetime) -> Cell:
    try:
        path = parse_path(column.json_path)
    except ValueError:
        return None
    value = next(find(path, document), None)
    if value is None:
        return None
    match column.type, value:
        case "string", _:
            return _text(value)
        case "integer", bool():
            return None
        case "integer", int() | float():
            return int(value)
        case "number", bool():
            return None
        case "number", int() | float():
            return value
        case "boolean", bool():
            return value
        case "date", str():
            return age(value, now)
        case _:
            return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return msgspec.json.encode(value, order="sorted").decode()
