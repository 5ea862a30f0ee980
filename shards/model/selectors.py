"""Label and field selectors: parse, match, render, with kube-apiserver's grammar and error texts.

Label grammar: ``k8s.io/apimachinery/pkg/labels`` (``=``, ``==``, ``!=``, ``in``, ``notin``, ``>``, ``<``, exists,
``!`` not exists; requirements joined by commas are and-ed). As there, ``!=`` and ``notin`` match objects that
lack the key. Field grammar: `field_terms`.

A requirement said twice is one. Selectors are limited in length and in what they compare (`selector_tests`), which
kube-apiserver does not do: one request must not keep a shard from all others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from .errors import BadRequest
from .field_terms import field_terms, split_field_term, unescape_field_value
from .selector_tests import (
    REQUIREMENTS_MAX,
    TERMS_MAX,
    FieldTest,
    LabelTests,
    check_length,
    echoed,
    field_tests,
)

Operator = Literal["=", "==", "!=", "in", "notin", "exists", "!", ">", "<"]

_SYMBOLS = "=!(),><"
_LEXEME = re.compile(r"==|!=|[=!(),><]|[^=!(),>< \t\r\n]+")
_OPERATORS: Mapping[str, Operator] = {
    "in": "in", "notin": "notin", "=": "=", "==": "==", "!=": "!=", ">": ">", "<": "<",
}  # fmt: skip
_END = ""

_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """One requirement on one label."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets it."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "=" | "==" | "in":
                return value is not None and value in self.values
            case "!=" | "notin":
                return value is None or value not in self.values
            case _:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        if value is None or not re.fullmatch(r"[+-]?\d+", value):
            return False
        (bound,) = self.values
        return int(value) > int(bound) if self.operator == ">" else int(value) < int(bound)

    def __str__(self) -> str:
        values = ",".join(sorted(self.values))
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({values})"
            case _:
                return f"{self.key}{self.operator}{values}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that must all be met; none at all means everything."""

    requirements: tuple[LabelRequirement, ...] = ()
    tests: tuple[LabelRequirement, ...] = field(init=False, compare=False, repr=False)
    """The same with what concerns one label in one way put together."""
    _tests: LabelTests = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tests", _together(self.requirements))
        object.__setattr__(self, "_tests", LabelTests(self.tests))

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return self._tests.meet(labels)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """Reads a ``labelSelector`` parameter.

        Raises:
            BadRequest: with the text kube-apiserver gives; or it is longer, or compares more, than is allowed.
        """
        check_length("label selector", text)
        said = tuple(islice(_LabelParser(text).requirements(), TERMS_MAX + 1))
        selector = cls(tuple(dict.fromkeys(said)))
        if len(selector.tests) > REQUIREMENTS_MAX or len(said) > TERMS_MAX:
            raise BadRequest(
                f"the label selector has more than {REQUIREMENTS_MAX} requirements on different labels, or more than "
                f"{TERMS_MAX} in all, which is not allowed here"
            )
        return selector


_KINDS: Mapping[Operator, Operator] = {"=": "in", "==": "in", "!=": "notin"}


def _together(requirements: tuple[LabelRequirement, ...]) -> tuple[LabelRequirement, ...]:
    """Requirements of one label and one kind as one: what is allowed intersected, what is not, united."""
    if len(requirements) < 2:
        return requirements
    found: dict[tuple[str, Operator], LabelRequirement] = {}
    for one in requirements:
        kind = _KINDS.get(one.operator, one.operator)
        before = found.get((one.key, kind))
        if before is None:
            found[one.key, kind] = one
            continue
        match kind:
            case "in":
                values = before.values & one.values
            case "notin":
                # NB: a set that grows by one for each of many would be copied as often; see below.
                continue
            case ">" | "<":
                bounds = (*before.values, *one.values)
                values = frozenset({max(bounds, key=int) if kind == ">" else min(bounds, key=int)})
            case _:
                continue
        found[one.key, kind] = LabelRequirement(one.key, kind, values)
    excluded: dict[str, set[str]] = {}
    for one in requirements:
        if one.operator in ("!=", "notin"):
            excluded.setdefault(one.key, set()).update(one.values)
    for key, all_values in excluded.items():
        found[key, "notin"] = LabelRequirement(key, "notin", frozenset(all_values))
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One comparison of one field with one value."""

    field: str
    value: str
    negated: bool = False

    def matches(self, value: str) -> bool:
        """Whether the field having this value (``""`` where absent) meets it."""
        return (value == self.value) != self.negated

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
        return f"{self.field}{'!=' if self.negated else '='}{escaped}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Comparisons that must all hold; none at all means everything."""

    requirements: tuple[FieldRequirement, ...] = ()
    tests: tuple[FieldTest, ...] = field(init=False, compare=False, repr=False)
    """The same, all that concerns one field put together."""

    def __post_init__(self) -> None:
        tests = field_tests((one.field, one.value, one.negated) for one in self.requirements)
        object.__setattr__(self, "tests", tests)

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def matches(self, field_value: Callable[[str], str]) -> bool:
        """Whether an object is selected; `field_value` gives the value of a field of it."""
        return all(test.meets(field_value(test.field)) for test in self.tests)

    def exact(self, field: str) -> str | None:
        """A value the selector demands of `field`, if it does."""
        for test in self.tests:
            if test.field == field:
                return min(test.wanted, default=None)
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))

    @classmethod
    def parse(cls, text: str, known: Callable[[str], bool] | None = None) -> FieldSelector:
        """Reads a ``fieldSelector`` parameter.

        `known` says which fields may be named; None accepts any.

        Raises:
            BadRequest: a term without an operator, a bad escape, or an unknown field; or it is longer than is allowed.
        """
        check_length("field selector", text)
        found: dict[FieldRequirement, None] = {}
        for term in field_terms(text):
            if not term:
                continue
            name, operator, value = split_field_term(term)
            if not operator:
                raise BadRequest(f"invalid selector: '{echoed(text)}'; can't understand '{echoed(term)}'")
            if known is not None and not known(name):
                raise BadRequest(f"field label not supported: {echoed(name)}")
            found[FieldRequirement(name, unescape_field_value(value), operator == "!=")] = None
        return cls(tuple(found))


EVERY_LABEL = LabelSelector()
EVERY_FIELD = FieldSelector()


# -- label parser ---------------------------------------------------------------------------------------------


class _LabelParser:
    """Recursive descent over the tokens, one method for each production of apimachinery's parser."""

    def __init__(self, text: str) -> None:
        self._lexemes = list(_label_lexemes(text))
        self._at = 0

    def _peek(self) -> str:
        return self._lexemes[self._at]

    def _next(self) -> str:
        lexeme = self._lexemes[self._at]
        if lexeme != _END:
            self._at += 1
        return lexeme

    def requirements(self) -> Iterable[LabelRequirement]:
        while True:
            lexeme = self._peek()
            if lexeme == _END:
                return
            if not (_is_identifier(lexeme) or lexeme == "!"):
                raise BadRequest(f"found '{echoed(lexeme)}', expected: !, identifier, or 'end of string'")
            try:
                yield self._requirement()
            except _ParseError as error:
                raise BadRequest(f"unable to parse requirement: {error}") from None
            lexeme = self._next()
            if lexeme == _END:
                return
            if lexeme != ",":
                raise BadRequest(f"found '{echoed(lexeme)}', expected: ',' or 'end of string'")
            lexeme = self._peek()
            if not (_is_identifier(lexeme) or lexeme == "!"):
                raise BadRequest(f"found '{echoed(lexeme)}', expected: identifier after ','")

    def _requirement(self) -> LabelRequirement:
        lexeme = self._next()
        absent = lexeme == "!"
        if absent:
            lexeme = self._next()
        if not _is_identifier(lexeme):
            raise _ParseError(f"found '{echoed(lexeme)}', expected: identifier")
        key = lexeme
        _check_key(key)
        if self._peek() in (_END, ","):
            return LabelRequirement(key, "!" if absent else "exists")
        lexeme = self._next()
        operator = _OPERATORS.get(lexeme)
        if operator is None or absent:
            raise _ParseError(f"found '{echoed(lexeme)}', expected: in, notin, =, ==, !=, gt, lt")
        values = self._set() if operator in ("in", "notin") else {self._exact()}
        _check_values(key, operator, values)
        return LabelRequirement(key, operator, frozenset(values))

    def _exact(self) -> str:
        if self._peek() in (_END, ","):
            return ""
        lexeme = self._next()
        if not _is_identifier(lexeme):
            raise _ParseError(f"found '{echoed(lexeme)}', expected: identifier")
        return lexeme

    def _set(self) -> set[str]:
        lexeme = self._next()
        if lexeme != "(":
            raise _ParseError(f"found '{echoed(lexeme)}' expected: '('")
        values: set[str] = set()
        expects_value = True
        while True:
            lexeme = self._next()
            if lexeme == ")":
                if expects_value and values:
                    values.add("")
                return values
            if lexeme == ",":
                if expects_value:
                    values.add("")
                expects_value = True
            elif _is_identifier(lexeme):
                values.add(lexeme)
                expects_value = False
                if self._peek() not in (",", ")"):
                    raise _ParseError(f"found '{echoed(self._peek())}', expected: ',' or ')'")
            else:
                raise _ParseError(f"found '{echoed(lexeme)}', expected: ',', ')' or identifier")


class _ParseError(Exception):
    """What is wrong with one requirement; becomes a BadRequest with kube-apiserver's preamble."""


def _is_identifier(lexeme: str) -> bool:
    return lexeme != _END and lexeme[0] not in _SYMBOLS


def _label_lexemes(text: str) -> Iterable[str]:
    yield from _LEXEME.findall(text)
    yield _END


def _check_key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    problems = []
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        problems.append(
            "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
            "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for "
            r"validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        )
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not _QUALIFIED.fullmatch(name):
        problems.append(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    if problems:
        raise _ParseError(f'<nil>: Invalid value: "{echoed(key)}": {"; ".join(problems)}')


def _check_values(key: str, operator: Operator, values: set[str]) -> None:
    if operator in ("in", "notin") and not values:
        raise _ParseError("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    for at, value in enumerate(sorted(values)):
        if operator in (">", "<") and not re.fullmatch(r"[+-]?\d+", value):
            raise _ParseError(
                f"values[{at}]: Invalid value: \"{echoed(value)}\": for 'Gt', 'Lt' operators, the value must be "
                "an integer"
            )
        problems = []
        if len(value) > 63:
            problems.append("must be no more than 63 bytes")
        if not _VALUE.fullmatch(value):
            problems.append(
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
                "must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
                "regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            )
        if problems:
            raise _ParseError(
                f'values[{at}][{echoed(key)}]: Invalid value: "{echoed(value)}": {"; ".join(problems)}'
            )
