"""Patterns over resources: what ``follow.include``, ``follow.exclude`` and ``follow.carve`` are written in.

Grammar (GROUP, VERSION and NAME are the parts of a resource; NAME is its plural, in lower case)::

    NAME                   pods                     that name in every group
    NAME.GROUP             deployments.apps         as kubectl writes it; *.gateway.example.com: a whole group
    GROUP/NAME             apps/*
    VERSION/NAME           v1/events                the core group (a part like v1 or v2beta1 is a version)
    GROUP/VERSION/NAME     apps/v1/deployments

``*`` stands for any run of characters inside its part, dots included: ``*.*.example.com`` is every resource
of every group below ``example.com`` and not of ``example.com`` itself. A form without VERSION means the
version that is followed, whichever it is. Pure; knows nothing of what the API server really serves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ..shards.model.resources import Resource

_PART = re.compile(r"[a-z0-9*]([a-z0-9*.-]*[a-z0-9*])?")
_NAME = re.compile(r"[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?")
_VERSION = re.compile(r"v[0-9]+((alpha|beta)[0-9]+)?")
_FORMS = "NAME, NAME.GROUP, GROUP/NAME, VERSION/NAME or GROUP/VERSION/NAME, with * for any characters"


@dataclass(frozen=True, slots=True)
class ResourcePattern:
    """One pattern, read. Each part is a glob; an empty group is the core group."""

    text: str
    group: str
    version: str
    name: str

    def matches(self, resource: Resource) -> bool:
        """Whether `resource` is meant."""
        return (
            _glob(self.name).fullmatch(resource.name) is not None
            and _glob(self.group).fullmatch(resource.group) is not None
            and _glob(self.version).fullmatch(resource.version) is not None
        )

    @property
    def exact(self) -> bool:
        """True if no part that was written holds a ``*``: the pattern means one resource."""
        return "*" not in self.text


def parse_pattern(text: str) -> ResourcePattern:
    """Reads one pattern.

    Raises:
        ValueError: none of the forms; the message says what was expected.
    """
    if text != text.lower():
        raise ValueError(
            f"{text!r} is not a resource pattern: resources go by their plural name in lower case, "
            f"such as {_plural_hint(text)!r}"
        )
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise ValueError(f"{text!r} is not a resource pattern: expected {_FORMS}")
    match parts:
        case [one]:
            name, dot, group = one.partition(".")
            pattern = ResourcePattern(text, group if dot else "*", "*", name)
            if dot and not group:
                raise ValueError(
                    f"{text!r} is not a resource pattern: nothing after the dot; expected {_FORMS}"
                )
        case [first, name] if _VERSION.fullmatch(first):
            pattern = ResourcePattern(text, "", first, name)
        case [first, name]:
            pattern = ResourcePattern(text, first, "*", name)
        case _:
            pattern = ResourcePattern(text, *parts)
    for part, grammar in ((pattern.group, _PART), (pattern.version, _PART), (pattern.name, _NAME)):
        if part and not grammar.fullmatch(part):
            raise ValueError(
                f"{text!r} is not a resource pattern: {part!r} cannot be a part of one; expected {_FORMS}"
            )
    return pattern


def parse_resource_name(text: str) -> ResourcePattern:
    """Reads a pattern that must mean one resource, as the keys of ``follow.carve`` do.

    Raises:
        ValueError: not a pattern, or one with a ``*``.
    """
    pattern = parse_pattern(text)
    if not pattern.exact:
        raise ValueError(f"{text!r} has a *; name one resource, such as 'pods' or 'deployments.apps'")
    return pattern


@lru_cache(maxsize=4096)
def _glob(part: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in part.split("*")))


def _plural_hint(text: str) -> str:
    lower = text.lower()
    return lower if lower.endswith("s") or "*" in lower else f"{lower}s"
