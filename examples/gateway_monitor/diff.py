"""What differs between two documents, field by field, and how it is shown without showing secrets. Pure.

A `Change` has the real values and can be applied; `shown` makes text of it for alerts and logs, in which values that
look like secrets are replaced by a few words. A list is compared as one value, unless both have the same number of
mappings: then each is compared with its counterpart. So a diff stays readable when an element is inserted, and
applying it always leads from one document to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from .documents import ABSENT, Absent, pointer
from .secrets import is_secret_field, named_secret, redacted

SHOWN_CHARS_MAX = 120
"""Of a value in an alert; the whole is in the cluster."""


class Change(msgspec.Struct, frozen=True):
    """One field that differs. `old` or `new` is `ABSENT` where there is no such field."""

    path: tuple[str, ...]
    old: Any
    new: Any
    secret: bool = False
    """By the name beside it; `shown` judges by the path as well."""


class ShownChange(msgspec.Struct, frozen=True):
    """A change as people may see it."""

    path: str
    """A JSON pointer."""
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}: {self.old} -> {self.new}"


def diff(old: Any, new: Any, path: tuple[str, ...] = ()) -> tuple[Change, ...]:
    """Every field that differs, in the order of paths. Two equal documents give ()."""
    return tuple(_changes(old, new, path))


def _changes(old: Any, new: Any, path: tuple[str, ...], *, secret: bool = False) -> Iterator[Change]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        named = named_secret(old) | named_secret(new)
        for name in sorted({*old, *new}, key=str):
            hidden = secret or name in named
            yield from _changes(old.get(name, ABSENT), new.get(name, ABSENT), (*path, name), secret=hidden)
    elif _paired(old, new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(before, after, (*path, str(index)), secret=secret)
    elif not same(old, new):
        yield Change(path, old, new, secret)


def _paired(old: Any, new: Any) -> bool:
    return (
        isinstance(old, list)
        and isinstance(new, list)
        and len(old) == len(new)
        and all(isinstance(one, Mapping) for one in (*old, *new))
    )


def same(old: Any, new: Any) -> bool:
    """Equal as JSON: ``true`` is not ``1``, also deep inside of lists."""
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(same, old, new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(same(old[name], new[name]) for name in old)
    return bool(old == new)


def apply(document: Any, changes: Iterable[Change]) -> Any:
    """The document with each field as `Change.new` has it. The one that is given stays as it is.

    Raises:
        ValueError: a change is about a field whose parent is not there.
    """
    for change in changes:
        document = _applied(document, change.path, change.new)
    return document


def _applied(document: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    name, *rest = path
    if isinstance(document, list):
        index = int(name)
        return [*document[:index], _applied(document[index], tuple(rest), value), *document[index + 1 :]]
    if not isinstance(document, Mapping):
        raise ValueError(f"there is nothing at {pointer(path)}")  # noqa: TRY004 - of the document, not of an argument
    made = dict(document)
    if not rest and value is ABSENT:
        made.pop(name, None)
    else:
        made[name] = _applied(made.get(name, ABSENT if not rest else None), tuple(rest), value)
    return made


# -- showing -------------------------------------------------------------------------------------------------


def shown(change: Change) -> ShownChange:
    """A change for people: values short, and without secrets."""
    secret = change.secret or any(is_secret_field(part) for part in change.path)
    return ShownChange(pointer(change.path), _value(change.old, secret), _value(change.new, secret))


def _value(value: Any, secret: bool) -> str:  # noqa: FBT001 - private, named at its callers
    if isinstance(value, Absent):
        return "(absent)"
    text = msgspec.json.encode(redacted(value, secret=secret)).decode()
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[: SHOWN_CHARS_MAX - 1]}…"
