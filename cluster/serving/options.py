"""The query of a LIST or WATCH as a value, with kube-apiserver's rules and error texts.

Sources: ``metav1.ListOptions`` and its conversions (a boolean is false only for ``false`` and ``0``), and
``apimachinery/pkg/apis/meta/internalversion/validation.ValidateListOptions``. Resource versions are read
late, because a bad one is a 400 on LIST and a 500 on WATCH. Pure; waiting for a version
is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from ...shards.model.errors import BadRequest, Invalid, ShoalError
from ...shards.model.fields import METADATA_FIELDS, SELECTABLE_FIELDS
from ...shards.model.resources import ResourceType
from ...shards.model.selector_tests import echoed
from ...shards.model.selectors import EVERY_FIELD, EVERY_LABEL, FieldSelector, LabelSelector
from ...shards.model.versions import VERSION_DIGITS, Version

EXACT = "Exact"
NOT_OLDER_THAN = "NotOlderThan"
CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new "
    "list without the continue parameter, or use the continue token in this response to retrieve the "
    "remainder of the results. Continuing with the provided token results in an inconsistent list - objects "
    "that were created, modified, or deleted between the time the first chunk was returned and now may show "
    "up in the list."
)
"""Message of the 410 for a continue token whose state is forgotten."""
VERSION_EXPIRED = "The resourceVersion for the provided list is too old."
"""Message of the 410 for an exact version that is forgotten."""
_INT64_MAX = (1 << 63) - 1
_UINT64_MAX = (1 << 64) - 1
_DIGITS_MAX = 4000
"""Of a number, zeros in front included."""


class BadWatchVersion(ShoalError):  # noqa: N818 - named like the Status reasons
    """A resource version that is no number, on a WATCH: the server answers 500 without a reason."""

    code = 500
    reason = ""


@dataclass(frozen=True, slots=True)
class MostRecent:
    """The newest state at the time of the request."""


@dataclass(frozen=True, slots=True)
class AnyVersion:
    """Whatever is at hand (``resourceVersion=0``); a limit is ignored."""


@dataclass(frozen=True, slots=True)
class NotOlderThan:
    """A state that includes `version`."""

    version: Version


@dataclass(frozen=True, slots=True)
class Exact:
    """The state at `version`."""

    version: Version


Demand: TypeAlias = MostRecent | AnyVersion | NotOlderThan | Exact
"""Which state a LIST asks for, when it has no continue token."""


class ListOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a LIST or WATCH may say in its query. Made by `parse`."""

    watch: bool = False
    label_selector: LabelSelector = EVERY_LABEL
    field_selector: FieldSelector = EVERY_FIELD
    shard_selector: str = ""
    """As sent; kube-apiserver ignores it unless its gate is on."""
    limit: int = 0
    """0: none. Negative ones are taken as none."""
    continue_token: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    timeout_s: int | None = None
    """None or 0: the server chooses."""
    allow_bookmarks: bool = False
    send_initial_events: bool | None = None
    """None: not said, which on a WATCH means initial events exactly for an unset version and for 0."""

    @classmethod
    def parse(
        cls,
        query: Iterable[tuple[str, str]],
        resource_type: ResourceType,
        *,
        watching: bool = False,
        watch_list: bool = True,
    ) -> ListOptions:
        """Reads the decoded pairs of a query. The first pair of a name counts; unknown names are ignored.

        `watching` is true for paths below ``/watch/``; `watch_list` says whether streaming lists are offered.

        Raises:
            BadRequest: a number or selector that cannot be read.
            Invalid: parameters that exclude each other.
        """
        values: dict[str, str] = {}
        for name, value in query:
            values.setdefault(name, value)
        try:
            options = cls(
                watch=watching or _boolean(values.get("watch")) or False,
                label_selector=LabelSelector.parse(values.get("labelSelector", "")),
                field_selector=parse_field_selector(values.get("fieldSelector", ""), resource_type),
                shard_selector=values.get("shardSelector", ""),
                limit=max(0, _integer(values.get("limit")) or 0),
                continue_token=values.get("continue", ""),
                resource_version=values.get("resourceVersion", ""),
                resource_version_match=values.get("resourceVersionMatch", ""),
                timeout_s=_integer(values.get("timeoutSeconds")),
                allow_bookmarks=_boolean(values.get("allowWatchBookmarks")) or False,
                send_initial_events=_boolean(values.get("sendInitialEvents")),
            )
        except _BadNumberError as error:
            raise BadRequest(f"strconv.ParseInt: {error}") from None
        problems = (
            _watch_problems(options, watch_list=watch_list) if options.watch else _list_problems(options)
        )
        if problems:
            raise _invalid(problems)
        return options

    def demand(self) -> Demand:
        """The state a LIST without continue token asks for.

        Raises:
            BadRequest: the version is not a number.
        """
        if not self.resource_version:
            return MostRecent()
        try:
            version = _unsigned(self.resource_version)
        except _BadNumberError as error:
            raise BadRequest(
                f"invalid resource version: {_bad_version(self.resource_version, error)}"
            ) from None
        if version == 0:
            return AnyVersion()
        # A limit without a match meant Exact before resourceVersionMatch existed (API concepts page).
        if self.resource_version_match == EXACT or (self.limit and not self.resource_version_match):
            return Exact(version)
        return NotOlderThan(version)

    def watch_version(self) -> Version:
        """The version a WATCH starts from; 0 if it is unset or 0 (`resource_version` tells them apart).

        Raises:
            BadWatchVersion: it is not a number.
        """
        if not self.resource_version:
            return Version(0)
        try:
            return _unsigned(self.resource_version)
        except _BadNumberError as error:
            raise BadWatchVersion(_bad_version(self.resource_version, error)) from None

    def naming(self, name: str) -> ListOptions:
        """A WATCH of one object, which its path names (``/watch/`` paths alone do).

        Raises:
            BadRequest: the field selector does not demand that name (``handlers/get.go``, `ListResource`).
        """
        if not self.field_selector:
            # As ``fields.EscapeValue``.
            value = name.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
            return msgspec.structs.replace(self, field_selector=FieldSelector.parse(f"metadata.name={value}"))
        if self.field_selector.exact("metadata.name") != name:
            raise BadRequest("fieldSelector metadata.name doesn't match requested name")
        return self

    @property
    def initial_events(self) -> bool:
        """Whether a WATCH begins with an ADDED line for every object there is."""
        if self.send_initial_events is None:
            return not self.resource_version.strip("0")
        return self.send_initial_events


def selectable_fields(resource_type: ResourceType) -> tuple[str, ...]:
    """Fields beyond the metadata ones that a field selector on this resource may name."""
    return resource_type.selectable_fields or SELECTABLE_FIELDS.get(resource_type.resource.qualified_name, ())


def parse_field_selector(text: str, resource_type: ResourceType) -> FieldSelector:
    """Reads a ``fieldSelector`` for a resource.

    Raises:
        BadRequest: bad grammar, or a field that cannot be selected by; the text is kube-apiserver's.
    """
    if not text:
        return EVERY_FIELD
    own = selectable_fields(resource_type)
    selector = FieldSelector.parse(text)
    for test in selector.tests:
        field = test.field
        if field in METADATA_FIELDS or field in own:
            continue
        if own or resource_type.custom:
            raise BadRequest(f"field label not supported: {echoed(field)}")
        raise BadRequest(
            f'"{echoed(field)}" is not a known field selector: only "metadata.name", "metadata.namespace"'
        )
    return selector


# -- scalars ----------------------------------------------------------------------------------------


class _BadNumberError(Exception):
    """Go's text for a number that cannot be read, without the function's name."""


def _boolean(text: str | None) -> bool | None:
    return None if text is None else text.lower() not in ("false", "0")


def _integer(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise _BadNumberError(f"parsing {_quoted(text)}: invalid syntax")
    number = int(text) if _is_short(digits) else None
    if number is None or not -_INT64_MAX - 1 <= number <= _INT64_MAX:
        raise _BadNumberError(f"parsing {_quoted(text)}: value out of range")
    return number


def _unsigned(text: str) -> Version:
    if not (text.isascii() and text.isdigit()):
        raise _BadNumberError(f"parsing {_quoted(text)}: invalid syntax")
    number = int(text) if _is_short(text) else None
    if number is None or number > _UINT64_MAX:
        raise _BadNumberError(f"parsing {_quoted(text)}: value out of range")
    return Version(number)


def _is_short(digits: str) -> bool:
    """Whether the number may be in range at all: Python refuses to read more than some thousand digits."""
    return len(digits.lstrip("0")) <= VERSION_DIGITS and len(digits) <= _DIGITS_MAX


def _bad_version(text: str, error: _BadNumberError) -> str:
    return f"resourceVersion: Invalid value: {_quoted(text)}: strconv.ParseUint: {error}"


def _quoted(text: str) -> str:
    escaped = echoed(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# -- combinations -----------------------------------------------------------------------------------

_Problem: TypeAlias = Mapping[str, str]


def _forbidden(field: str, text: str) -> _Problem:
    return {"reason": "FieldValueForbidden", "message": f"Forbidden: {text}", "field": field}


def _not_supported(value: str, allowed: Iterable[str]) -> _Problem:
    supported = ", ".join(f'"{one}"' for one in sorted(allowed))
    return {
        "reason": "FieldValueNotSupported",
        "message": f"Unsupported value: {_quoted(value)}: supported values: {supported}",
        "field": "resourceVersionMatch",
    }


def _list_problems(options: ListOptions) -> list[_Problem]:
    problems: list[_Problem] = []
    match = options.resource_version_match
    if match:
        if not options.resource_version:
            problems.append(
                _forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                )
            )
        if options.continue_token:
            problems.append(_with_continue())
        if match not in (EXACT, NOT_OLDER_THAN):
            problems.append(_not_supported(match, (EXACT, NOT_OLDER_THAN, "")))
        if match == EXACT and options.resource_version == "0":
            problems.append(
                _forbidden(
                    "resourceVersionMatch",
                    'resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
                )
            )
    if options.send_initial_events is not None:
        problems.append(_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return problems


def _watch_problems(options: ListOptions, *, watch_list: bool) -> list[_Problem]:
    problems: list[_Problem] = []
    match = options.resource_version_match
    if options.send_initial_events is not None and match != NOT_OLDER_THAN:
        problems.append(
            _forbidden(
                "resourceVersionMatch",
                f"sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER_THAN}",
            )
        )
    if options.send_initial_events is not None and not watch_list:
        problems.append(
            _forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
            )
        )
    if match:
        if options.send_initial_events is None:
            problems.append(
                _forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )
            )
        if match != NOT_OLDER_THAN:
            problems.append(_not_supported(match, (NOT_OLDER_THAN,)))
        if options.continue_token:
            problems.append(_with_continue())
    return problems


def _with_continue() -> _Problem:
    return _forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")


def _invalid(problems: list[_Problem]) -> Invalid:
    texts = [f"{problem['field']}: {problem['message']}" for problem in problems]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return Invalid(
        f'ListOptions.meta.k8s.io "" is invalid: {text}',
        details={"group": "meta.k8s.io", "kind": "ListOptions", "causes": [dict(one) for one in problems]},
    )
