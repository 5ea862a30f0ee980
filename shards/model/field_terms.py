"""The grammar of field selectors: terms, operators, escapes (``k8s.io/apimachinery/pkg/fields``). Pure.

What the terms mean is `selectors`'. Every step is linear in the text: whoever asks may send a long one.
"""

from __future__ import annotations

import re

from .errors import BadRequest

_OPERATOR = re.compile("!=|==|=")
_SPECIAL = re.compile(r"[\\,=]")


def field_terms(text: str) -> list[str]:
    """Splits at commas that no backslash escapes."""
    if "\\" not in text:
        return text.split(",")
    terms, start, escaped = [], 0, False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            terms.append(text[start:at])
            start = at + 1
    terms.append(text[start:])
    return terms


def split_field_term(term: str) -> tuple[str, str, str]:
    """Field, operator and value, still escaped; the operator is empty if there is none."""
    found = _OPERATOR.search(term)
    return (term[: found.start()], found[0], term[found.end() :]) if found else (term, "", "")


def unescape_field_value(value: str) -> str:
    """The value as it is meant.

    Raises:
        BadRequest: a bad escape, or a character that needs one.
    """
    if not _SPECIAL.search(value):
        return value
    out, escaped = [], False
    for char in value:
        if escaped:
            if char not in "\\,=":
                raise BadRequest(f"invalid field selector: invalid escape sequence: \\{char}")
            out.append(char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in ",=":
            raise BadRequest(f"invalid field selector: unescaped character in value: {char}")
        else:
            out.append(char)
    if escaped:
        raise BadRequest("invalid field selector: invalid escape sequence: \\")
    return "".join(out)
