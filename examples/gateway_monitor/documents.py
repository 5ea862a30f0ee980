"""Reading JSON documents that anybody may have written: custom resources have no schema worth relying on. Pure.

Nothing here raises because of what a document looks like: a field of another type than expected is taken as absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final, TypeAlias

Document: TypeAlias = Mapping[str, Any]


class Absent(Enum):
    """The type of `ABSENT`: there is no such field, which is something else than null."""

    ABSENT = "(absent)"

    def __repr__(self) -> str:
        return self.value


ABSENT: Final = Absent.ABSENT


def dig(document: Any, *path: str) -> Any:
    """The value at a path of field names; `ABSENT` where something on the way is missing or no mapping."""
    for name in path:
        if not isinstance(document, Mapping) or name not in document:
            return ABSENT
        document = document[name]
    return document


def text(document: Any, *path: str) -> str:
    """A string, or "" if it is none."""
    found = dig(document, *path)
    return found if isinstance(found, str) else ""


def number(value: Any) -> float | None:
    """A number, also one written as text, or None. Booleans are no numbers."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None


def plain(value: float) -> str:
    """A number for people: ``100,000`` and not ``1e+05``."""
    return f"{value:,.10g}"


def printable(text: str) -> str:
    """On one line, with characters that would do something to a terminal written as escapes."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def items(document: Any, *path: str) -> Sequence[Any]:
    """A list, or () if it is none."""
    found = dig(document, *path)
    return found if isinstance(found, list | tuple) else ()


def mapping(document: Any, *path: str) -> Document:
    """A mapping, or an empty one if it is none."""
    found = dig(document, *path)
    return found if isinstance(found, Mapping) else {}


def texts(document: Any, *path: str) -> dict[str, str]:
    """A mapping of text to text (labels, annotations, a selector) without values that are no text."""
    return {name: value for name, value in mapping(document, *path).items() if isinstance(value, str)}


# -- JSON pointers (RFC 6901) --------------------------------------------------------------------------------


def pointer(path: Sequence[str]) -> str:
    """A path as text: ``/spec/backend/port``. The whole document is ""."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def parts(path: str) -> tuple[str, ...]:
    """The path a pointer stands for.

    Raises:
        ValueError: it is neither empty nor begins with a slash.
    """
    if path and not path.startswith("/"):
        raise ValueError(f"{path!r} is no JSON pointer: it has to begin with /, as in /spec/host")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:])


def within(path: Sequence[str], prefix: Sequence[str]) -> bool:
    """`path` is `prefix` or below it."""
    return tuple(path[: len(prefix)]) == tuple(prefix)
