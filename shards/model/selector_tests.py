"""What a selector compares, put together so that looking at an object has a bounded cost. Pure.

A selector may repeat itself: fifty thousand ``metadata.name!=x`` are one field with fifty thousand values it must not
have. Requirements on one field become one `FieldTest`; those on one label that are of one kind become one requirement;
and of many labels only those that an object has are looked at. So the cost for an object grows with the object, not
with the selector, and `REQUIREMENTS_MAX` bounds what is left for indexes to do. kube-apiserver has no such bounds but
the length of a request, and evaluates every requirement on every object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from .errors import BadRequest

REQUIREMENTS_MAX: Final = 1000
"""Labels, each in one way, that one selector may compare; kube-apiserver knows no limit."""
TERMS_MAX: Final = 5000
"""Requirements on labels that one selector may hold before they are put together: reading them takes time too."""
SELECTOR_CHARS_MAX: Final = 128 << 10
"""Of one selector's text; kube-apiserver's limit is the request's, 1 MiB. Both limits make 400."""
ECHOED_CHARS: Final = 1024
"""Of a selector's text in a message."""
ONE_BY_ONE: Final = 8
"""With no more tests than this each is looked at; with more, those that concern a label the object has."""


class OfLabel(Protocol):
    """A requirement on one label."""

    @property
    def key(self) -> str:
        """The label."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets it."""


def check_length(kind: str, text: str) -> None:
    """Refuses a selector that is too long to be read.

    Raises:
        BadRequest: it is.
    """
    if len(text) > SELECTOR_CHARS_MAX:
        raise BadRequest(
            f"the {kind} is {len(text)} characters long: at most {SELECTOR_CHARS_MAX} are allowed here; select by "
            "less, or filter what is listed"
        )


def echoed(text: str) -> str:
    """As much of a text as belongs in a message."""
    return text if len(text) <= ECHOED_CHARS else f"{text[:ECHOED_CHARS]}..."


@dataclass(frozen=True, slots=True)
class FieldTest:
    """All that is asked of one field."""

    field: str
    wanted: frozenset[str] = frozenset()
    """Values it must have: all of them, so that two different ones are met by nothing."""
    excluded: frozenset[str] = frozenset()
    """Values it must not have."""

    def meets(self, value: str) -> bool:
        """Whether the field having this value (``""`` where absent) meets it."""
        if self.wanted and (len(self.wanted) > 1 or value not in self.wanted):
            return False
        return value not in self.excluded


def field_tests(comparisons: Iterable[tuple[str, str, bool]]) -> tuple[FieldTest, ...]:
    """One test for each field of ``(field, value, negated)``, in the order in which they are first named."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for name, value, negated in comparisons:
        found.setdefault(name, (set(), set()))[negated].add(value)
    return tuple(
        FieldTest(name, frozenset(wanted), frozenset(excluded)) for name, (wanted, excluded) in found.items()
    )


class LabelTests:
    """Requirements on labels, no two of them on one label in one way."""

    __slots__ = ("_by_label", "_present", "tests")

    def __init__(self, tests: tuple[OfLabel, ...]) -> None:
        self.tests = tests
        self._by_label: dict[str, list[OfLabel]] = {}
        if len(tests) <= ONE_BY_ONE:
            self._present: frozenset[str] = frozenset()
            return
        for test in tests:
            self._by_label.setdefault(test.key, []).append(test)
        self._present = frozenset(test.key for test in tests if not test.matches({}))
        """Labels that an object must have to meet all."""

    def meet(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets all."""
        if not self._by_label:
            return all(test.matches(labels) for test in self.tests)
        if len(self._present) > len(labels) or not self._present <= labels.keys():
            return False
        by_label = self._by_label
        return all(test.matches(labels) for key in labels for test in by_label.get(key, ()))
