"""A digest of a partition's state that is kept up to date by two operations an event.

The digest is the XOR over all objects of a 64-bit hash of uid and version: it depends on no order, and an
object is taken out by the same operation that put it in. Equal states have equal digests in every process, of
every Python.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from ..model.versions import Version

_MASK: Final = 0xFFFFFFFFFFFFFFFF
_GOLDEN: Final = 0x9E3779B97F4A7C15
_MIX: Final = 0xBF58476D1CE4E5B9
"""Odd constants of splitmix64. One round of it is enough: the seeds are random already, and what has to be
broken up is only the closeness of versions."""


def seed_of(uid: str) -> int:
    """64 bits of a uid. API servers make random UUIDs, whose digits are hash enough; others are hashed."""
    try:
        number = int(uid.replace("-", ""), 16)
    except ValueError:
        number = int.from_bytes(hashlib.blake2b(uid.encode(errors="surrogatepass"), digest_size=16).digest())
    return (number ^ (number >> 64)) & _MASK


def digest_of(seed: int, version: Version) -> int:
    """The hash of one object in one version, from the seed of its uid."""
    mixed = ((seed ^ version * _GOLDEN) * _MIX) & _MASK
    return mixed ^ (mixed >> 29)


def digest(objects: Iterable[tuple[str, Version]]) -> int:
    """The digest of a whole state, from the uid and version of each object."""
    found = 0
    for uid, version in objects:
        found ^= digest_of(seed_of(uid), version)
    return found
