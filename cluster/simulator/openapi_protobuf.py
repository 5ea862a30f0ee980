"""Version 2 of OpenAPI as the protobuf message client-go asks for (``openapi.v2.Document`` of gnostic). Pure.

Only writing, and only what the documents made here contain. A message is a table from JSON names to field numbers and
kinds; values that may be anything (defaults, extensions) travel as text in YAML, of which JSON is a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

_TABLE: Final = """
Document: 1 swagger str, 2 info Info, 8 paths Paths, 9 definitions Definitions
Info: 1 title str, 2 version str
Paths: 2 * PathItem
Definitions: 1 * Schema
PathItem: 2 get Operation, 3 put Operation, 4 post Operation, 5 delete Operation, 8 patch Operation,
    9 parameters []Parameter
Operation: 1 tags []str, 3 description str, 5 operationId str, 6 produces []str, 7 consumes []str,
    8 parameters []Parameter, 9 responses Responses, 10 schemes []str, 13 x- any
Body: 1 description str, 2 name str, 3 in str, 4 required bool, 5 schema Schema
Query: 1 required bool, 2 in str, 3 description str, 4 name str, 6 type str, 7 format str, 20 uniqueItems bool
Path: 1 required bool, 2 in str, 3 description str, 4 name str, 5 type str, 6 format str, 19 uniqueItems bool
Responses: 1 * Response
Response: 1 description str, 2 schema SchemaItem
Schema: 1 $ref str, 2 format str, 3 title str, 4 description str, 5 default any, 6 multipleOf double,
    7 maximum double, 8 exclusiveMaximum bool, 9 minimum double, 10 exclusiveMinimum bool, 11 maxLength int,
    12 minLength int, 13 pattern str, 14 maxItems int, 15 minItems int, 16 uniqueItems bool, 17 maxProperties int,
    18 minProperties int, 19 required []str, 20 enum []any, 21 additionalProperties Additional, 22 type Type,
    23 items Items, 24 allOf []Schema, 25 properties Properties, 30 example any, 31 x- any
Properties: 1 * Schema
"""
"""``*``: every member, as a pair of its name (1) and its value (2); ``x-``: every member whose name begins so."""


def _read_table(text: str) -> dict[str, dict[str, tuple[int, str]]]:
    tables: dict[str, dict[str, tuple[int, str]]] = {}
    fields: dict[str, tuple[int, str]] = {}
    for line in text.strip().splitlines():
        head, colon, rest = line.partition(": ")
        if colon and not line.startswith(" "):
            fields = tables[head] = {}
        entries = rest if fields is tables.get(head) else line
        for entry in filter(None, (part.strip() for part in entries.split(","))):
            number, name, kind = entry.split()
            fields[name] = int(number), kind
    return tables


_MESSAGES = _read_table(_TABLE)


def swagger_protobuf(document: Mapping[str, Any]) -> bytes:
    """A Swagger 2.0 document as an ``openapi.v2.Document``."""
    return _message("Document", document)


def _message(name: str, value: Mapping[str, Any]) -> bytes:
    fields = _MESSAGES[name]
    parts: list[bytes] = []
    every = fields.get("*")
    if every is not None:
        number, kind = every
        for member, content in value.items():
            pair = _delimited(1, member.encode()) + _delimited(2, _nested(kind, content))
            parts.append(_delimited(number, pair))
        return b"".join(parts)
    for member, content in value.items():
        known = fields.get("x-" if member.startswith("x-") else member)
        if known is None:
            continue
        number, kind = known
        if member.startswith("x-"):
            parts.append(_delimited(number, _delimited(1, member.encode()) + _delimited(2, _any(content))))
        elif kind.startswith("[]"):
            parts.extend(_field(number, kind[2:], one) for one in content)
        else:
            parts.append(_field(number, kind, content))
    return b"".join(parts)


def _field(number: int, kind: str, value: Any) -> bytes:
    match kind:
        case "str":
            return _delimited(number, str(value).encode())
        case "bool":
            return _varint(number << 3) + _varint(int(bool(value)))
        case "int":
            return _varint(number << 3) + _varint(int(value) & (1 << 64) - 1)
        case "double":
            import struct

            return _varint(number << 3 | 1) + struct.pack("<d", float(value))
        case "any":
            return _delimited(number, _any(value))
        case _:
            return _delimited(number, _nested(kind, value))


def _nested(kind: str, value: Any) -> bytes:
    """A message that is not simply a table of the value's members."""
    match kind:
        case "Parameter":
            # ParametersItem, Parameter, and, unless it is the body, NonBodyParameter.
            where = value["in"]
            if where == "body":
                return _delimited(1, _delimited(1, _message("Body", value)))
            number, name = (3, "Query") if where == "query" else (4, "Path")
            return _delimited(1, _delimited(2, _delimited(number, _message(name, value))))
        case "Response":
            return _delimited(1, _message("Response", value))
        case "SchemaItem":
            return _delimited(1, _message("Schema", value))
        case "Type":
            return b"".join(_delimited(1, one.encode()) for one in _listed(value))
        case "Items":
            return b"".join(_delimited(1, _message("Schema", one)) for one in _listed(value))
        case "Additional":
            if isinstance(value, Mapping):
                return _delimited(1, _message("Schema", value))
            return _varint(2 << 3) + _varint(int(bool(value)))
        case _:
            return _message(kind, value)


def _listed(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else (value,)


def _any(value: Any) -> bytes:
    return _delimited(2, msgspec.json.encode(value) + b"\n")


def _delimited(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
