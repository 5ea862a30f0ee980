"""What the monitor finds: values with a stable identity, and what can happen to them. Pure.

The identity of a finding is its check and its subject, so the same trouble is the same finding however often it is
looked at, by whichever monitor, before and after a restart. Its text may change while it lasts.
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias, get_args

import msgspec

from .diff import ShownChange

Check: TypeAlias = Literal[
    "route_down",
    "production_route_removed",
    "policy_relaxed",
    "limit_out_of_bounds",
    "field_changed",
    "rollback_proposed",
    "rollback_done",
    "rollback_suspended",
    "resource_unreadable",
]
Restorable: TypeAlias = Literal[
    "policy_relaxed", "limit_out_of_bounds", "production_route_removed", "field_changed"
]
"""Checks that compare with the last good state, or with bounds: what can be put back."""
CHECKS: tuple[Check, ...] = get_args(Check)
NOTED: tuple[Check, ...] = ("rollback_proposed", "rollback_done", "rollback_suspended", "resource_unreadable")
"""Checks that do not follow from objects: whoever finds them out notes them."""
Severity: TypeAlias = Literal["critical", "warning", "info"]

SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")


class Subject(msgspec.Struct, frozen=True, order=True):
    """The object a finding is about."""

    resource: str
    """Plural and group: ``apiroutes.gateway.example.com``, ``services``."""
    namespace: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.resource} {self.namespace}/{self.name}"
            if self.namespace
            else f"{self.resource} {self.name}"
        )


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be."""

    check: Check
    subject: Subject
    severity: Severity
    summary: str
    """One sentence."""
    details: tuple[str, ...] = ()
    """What explains it, a line each: the pods that are not ready and why, the rules that were relaxed."""
    changes: tuple[ShownChange, ...] = ()
    """Against the last good state, without secrets."""
    since: float = 0.0
    """Seconds since 1970 when it was first seen."""
    api_version: str = ""
    """Group and version by which the subject is served, for links; "" if that is not known."""

    @property
    def identity(self) -> Identity:
        """The same for as long as it is the same trouble."""
        return Identity(self.check, self.subject)

    @property
    def fingerprint(self) -> str:
        """The identity as 16 hexadecimal digits, for systems that want a key."""
        subject = self.subject
        spelled = f"{self.check} {subject.resource} {subject.namespace}/{subject.name}"
        return hashlib.sha256(spelled.encode()).hexdigest()[:16]

    def says_the_same_as(self, other: Finding) -> bool:
        """Equal but for when it was first seen."""
        return msgspec.structs.replace(self, since=other.since) == other


class Identity(msgspec.Struct, frozen=True, order=True):
    """Which finding."""

    check: Check
    subject: Subject


class Telling(msgspec.Struct, frozen=True):
    """A receiver was told of a finding."""

    finding: Finding
    """As it was told last."""
    at: float
    """Seconds since 1970."""


class Opened(msgspec.Struct, frozen=True):
    """It was not there before."""

    finding: Finding


class Changed(msgspec.Struct, frozen=True):
    """It is still there, with another text, severity or diff."""

    finding: Finding


class Resolved(msgspec.Struct, frozen=True):
    """It is over; `finding` is what was said last."""

    finding: Finding
    at: float
    """Seconds since 1970."""


Transition: TypeAlias = Opened | Changed | Resolved
