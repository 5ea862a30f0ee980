"""The parts every kind's columns are made of: columns, printers, ages and the ways lists are cut short.

A `Printer` belongs to one kind: its columns, the *view* of an object it needs, and the function that turns a
view into cells. A view is a struct with only the fields the cells rest on, so that printing a pod of 5 KB
decodes a few hundred bytes of it. Texts and rules follow kube-apiserver's printers
(``pkg/printers/internalversion``); kubectl shows what comes out of here unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

Cell: TypeAlias = str | int | float | bool | None
"""One value of a row; None is shown as nothing."""

NONE = "<none>"
UNSET = "<unset>"
UNKNOWN = "<unknown>"
INVALID = "<invalid>"

NAME_TEXT = (
    "Name must be unique within a namespace. Is required when creating resources, although some "
    "resources may "
    "allow a client to request the generation of an appropriate name automatically. Name is "
    "primarily intended "
    "for creation idempotence and configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
CREATED_TEXT = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not "
    "guaranteed to be set in happens-before order across separate operations. Clients may not set "
    "this value. It "
    "is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for "
    "lists. More "
    "info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)


class Column(NamedTuple):
    """One column definition of a Table, its fields in the order of the wire."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0
    """Above 0: only shown by ``-o wide``."""


NAME = Column("Name", "string", "name", NAME_TEXT)
AGE = Column("Age", description=CREATED_TEXT)
CREATED_AT = Column("Created At", "date", description=CREATED_TEXT)


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """What cells need of an object's metadata."""

    name: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class View(msgspec.Struct, frozen=True, rename="camel"):
    """What is decoded of an object: its metadata, as the bytes it came as, and the fields of its kind."""

    metadata: msgspec.Raw


V = TypeVar("V", bound=View)


@dataclass(frozen=True, slots=True)
class Printer(Generic[V]):
    """Columns of one kind and the function that fills them."""

    columns: tuple[Column, ...]
    view: type[V]
    cells: Callable[[V, Meta, datetime], list[Cell]]
    """Takes the view, its metadata and the present moment; returns one cell a column."""
    conditions: Callable[[V], Sequence[Mapping[str, Any]]] | None = None
    """Conditions of the row itself: only pods that have run to their end have one."""


# -- time -----------------------------------------------------------------------------------------------


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago an RFC 3339 timestamp was, for people; ``<unknown>`` if there is none."""
    if not timestamp:
        return UNKNOWN
    try:
        return human_duration(now - datetime.fromisoformat(timestamp))
    except (ValueError, TypeError):
        return INVALID


def created(meta: Meta, now: datetime) -> str:
    """The Age cell."""
    return age(meta.creation_timestamp, now)


def created_at(meta: Meta) -> str:
    """The Created At cell: the timestamp itself, in UTC and without fraction."""
    if not meta.creation_timestamp:
        return UNKNOWN
    try:
        moment = datetime.fromisoformat(meta.creation_timestamp)
    except ValueError:
        return INVALID
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def human_duration(elapsed: timedelta) -> str:
    """A duration in two units at most, as Kubernetes' ``duration.HumanDuration`` writes it.

    Up to 2 s in the future count as now, because clocks differ.
    """
    total = elapsed / timedelta(seconds=1)
    seconds = int(total)
    if seconds < -1:
        return INVALID
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    minutes, hours = seconds // 60, seconds // 3600
    days = hours // 24
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


# -- text -----------------------------------------------------------------------------------------------


def label_text(labels: Mapping[str, str] | None) -> str:
    """``a=1,b=2`` sorted by key, or ``<none>``."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) if labels else NONE


class Requirement(msgspec.Struct, frozen=True):
    """One of a label selector's ``matchExpressions``."""

    key: str
    operator: str
    values: list[str] | None = None


class Selector(msgspec.Struct, frozen=True, rename="camel"):
    """A LabelSelector."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[Requirement] | None = None


def selector_text(selector: Selector | None) -> str:
    """A label selector in its textual form, sorted by key; ``<none>`` if it selects nothing or everything."""
    if selector is None:
        return NONE
    terms = [(key, f"{key}={value}") for key, value in (selector.match_labels or {}).items()]
    for requirement in selector.match_expressions or ():
        key, values = requirement.key, ",".join(sorted(requirement.values or ()))
        match requirement.operator:
            case "In":
                terms.append((key, f"{key} in ({values})"))
            case "NotIn":
                terms.append((key, f"{key} notin ({values})"))
            case "Exists":
                terms.append((key, key))
            case "DoesNotExist":
                terms.append((key, f"!{key}"))
            case _:
                return "<error>"
    return ",".join(text for _, text in sorted(terms, key=lambda term: term[0])) or NONE


def cut_short(values: Iterable[str], *, most: int = 3, empty: str = UNSET, separator: str = ",") -> str:
    """The first `most` values, and how many more there are."""
    listed = list(values)
    if not listed:
        return empty
    shown = separator.join(listed[:most])
    return shown if len(listed) <= most else f"{shown} + {len(listed) - most} more..."


def yes_no(value: bool | None) -> str:  # noqa: FBT001 - the value shown is what the function is about
    """``True``, ``False`` or ``<unset>``."""
    return UNSET if value is None else str(value)
