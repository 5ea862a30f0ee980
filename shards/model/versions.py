"""Resource versions. Clients are to treat them as opaque text, except for the comparison below.

Since Kubernetes 1.35 (KEP-5504) the resource versions of one resource compare as integers; in fact every
server that stores in etcd has always used its revision. Shoal keeps them as ``int`` and never makes one up:
each one served was received. ``0`` stands for "nothing known yet".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NewType

Version = NewType("Version", int)
"""A resource version as a number; 0 before the first is known."""

UNKNOWN = Version(0)
VERSION_DIGITS = 20
"""Of the greatest number in 64 bits."""


def parse_version(text: str) -> Version:
    """Reads the ``resourceVersion`` of an object or list.

    Raises:
        ValueError: not a decimal number without sign, or longer than any revision.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= VERSION_DIGITS):
        raise ValueError(f"{text[:64]!r} is not a resource version")
    return Version(int(text))


def oldest(versions: Iterable[Version]) -> Version:
    """The version a combined answer may claim: everything up to it has been seen by all parts.

    Returns `UNKNOWN` for no versions at all.
    """
    return min(versions, default=UNKNOWN)
