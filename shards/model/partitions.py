"""A partition: a resource and a cover, that is which part of it. What is placed, followed and moved.

The covers of one resource never overlap and together are everything. A cover says how the API server is
asked for it *and* decides on each object that arrives (`admits`), because a server may ignore a selector.
What covers have to do with each other is `covers`' to say; which of them divide a resource, the coordinator's.

Limits: a hash of the uid needs the uid, so nothing follows from a name alone; and an object that is deleted and made
again under its name may then be in another partition.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NewType, TypeAlias

import msgspec

from .resources import Resource

PartitionId = NewType("PartitionId", str)
"""A partition as text: ``v1/pods``, ``v1/pods[a]``, ``v1/pods[!a,b]``, ``v1/pods[a:uid:LOW-HIGH]``."""

ShardId = NewType("ShardId", str)
"""Name of a shard, also of its actor: ``shard-0``."""

Epoch = NewType("Epoch", int)
"""Generation of the route table; grows by one with every publication that changes a route."""

HASH_END: Final = 1 << 64
HASH_FIELDS: Final = ("namespace", "uid")
"""What ranges are made of, below ``metadata``."""
HASHES_REMEMBERED: Final = 1 << 14
"""Of the texts hashed last, for `hashed`; at 36 characters each some 5 MB if all are uids."""


class Everything(msgspec.Struct, frozen=True, tag="everything"):
    """All objects of the resource."""

    def admits(self, namespace: str, uid: str) -> bool:  # noqa: ARG002 - one signature for all covers
        """Always true."""
        return True

    def __str__(self) -> str:
        return ""


class OneNamespace(msgspec.Struct, frozen=True, tag="namespace"):
    """The objects of one namespace, asked for by the namespaced path."""

    namespace: str

    def admits(self, namespace: str, uid: str) -> bool:  # noqa: ARG002
        """True for objects of that namespace."""
        return namespace == self.namespace

    def __str__(self) -> str:
        return f"[{self.namespace}]"


class ExceptNamespaces(msgspec.Struct, frozen=True, tag="except"):
    """What is left after carving namespaces out: ``metadata.namespace!=a,metadata.namespace!=b``."""

    namespaces: tuple[str, ...]
    """Sorted, so that equal covers are equal values."""

    def admits(self, namespace: str, uid: str) -> bool:  # noqa: ARG002
        """True for objects of any other namespace."""
        return namespace not in self.namespaces

    def __str__(self) -> str:
        return f"[!{','.join(self.namespaces)}]"


class HashRange(msgspec.Struct, frozen=True, tag="hash"):
    """Objects whose FNV-1a 64 of ``metadata.namespace`` or ``metadata.uid`` lies in ``[low, high)`` (KEP-5866): of all
    namespaces, of one, or of all except some. Asked for by path or field selector, and the selector of the range.

    Raises:
        ValueError: made of what is no range, or of what can hold nothing.
    """

    field: str
    """``namespace`` or ``uid``."""
    low: int
    high: int
    namespace: str | None = None
    """Only objects of this one, of which ranges of uid are the only parts."""
    excluded: tuple[str, ...] = ()
    """No objects of these. Sorted, so that equal covers are equal values; empty together with `namespace`."""

    def __post_init__(self) -> None:
        """Refuses what is no cover."""
        if self.field not in HASH_FIELDS:
            raise ValueError(f"hash ranges are of namespace or uid, not of {self.field!r}")
        if not 0 <= self.low < self.high <= HASH_END:
            raise ValueError(f"{self.low:#x} to {self.high:#x} is no range of 64-bit hashes")
        if self.namespace is not None and (self.field != "uid" or self.excluded):
            raise ValueError(
                f"one namespace ({self.namespace!r}) is divided by ranges of uid, and excludes none"
            )
        if list(self.excluded) != sorted(set(self.excluded)):
            raise ValueError(f"excluded namespaces are not sorted, or not different: {self.excluded}")

    def admits(self, namespace: str, uid: str) -> bool:
        """True for objects of the namespaces meant where the hash of the field is in the range."""
        if self.namespace is None:
            if namespace in self.excluded:
                return False
        elif namespace != self.namespace:
            return False
        return self.low <= hashed(namespace if self.field == "namespace" else uid) < self.high

    @property
    def selector(self) -> str:
        """The ``shardSelector`` parameter, in the server's own spelling (16 digits; the end has 17)."""
        return f"shardRange(object.metadata.{self.field}, '0x{self.low:016x}', '0x{self.high:016x}')"

    def __str__(self) -> str:
        part = f"{self.field}:{self.low:016x}-{self.high:016x}]"
        if self.namespace is not None:
            return f"[{self.namespace}:{part}"
        return f"[!{','.join(self.excluded)}:{part}" if self.excluded else f"[{part}"


Cover: TypeAlias = Everything | OneNamespace | ExceptNamespaces | HashRange
EVERYTHING = Everything()


class Partition(msgspec.Struct, frozen=True):
    """A resource and the part of it that is meant."""

    resource: Resource
    cover: Cover = EVERYTHING

    @property
    def id(self) -> PartitionId:
        """Text form, unique among partitions; what routes, statistics and logs say (`covers.parse_partition`)."""
        return PartitionId(f"{self.resource}{self.cover}")

    def may_hold(self, namespace: str | None) -> bool:
        """False if no object of `namespace` (None: any) can be in this partition."""
        if namespace is None:
            return True
        match self.cover:
            case OneNamespace(namespace=own):
                return own == namespace
            case ExceptNamespaces(namespaces=carved):
                return namespace not in carved
            case HashRange(field="namespace") as part:
                return part.admits(namespace, "")
            case HashRange(namespace=None, excluded=carved):
                return namespace not in carved
            case HashRange(namespace=own):
                return own == namespace
            case _:
                return True


def fnv1a64(text: str) -> int:
    """FNV-1a, 64 bits, of the UTF-8 bytes: the hash kube-apiserver shards by (no seed)."""
    value = 0xCBF29CE484222325
    octets = text.encode()
    four = iter(octets)
    # NB: what exceeds 64 bits changes nothing below, so one mask for four bytes will do.
    for a, b, c, d in zip(four, four, four, four, strict=False):
        value = (((((((value ^ a) * _PRIME) ^ b) * _PRIME) ^ c) * _PRIME) ^ d) * _PRIME & _MASK
    for octet in octets[len(octets) & ~3 :]:
        value = (value ^ octet) * _PRIME & _MASK
    return value


_PRIME: Final = 0x100000001B3
_MASK: Final = HASH_END - 1

hashed: Final = lru_cache(maxsize=HASHES_REMEMBERED)(fnv1a64)
"""The same, remembered: objects that change arrive again, and a namespace with each of its objects."""
