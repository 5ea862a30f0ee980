"""A partition: a resource and a cover, that is which part of it. What is placed, followed and moved.

The covers of one resource never overlap and together are everything. A cover says how the API server is
asked for it *and* decides on each object that arrives (`admits`), because a server may ignore a selector.
"""

from __future__ import annotations

from typing import NewType, TypeAlias

import msgspec

from .resources import Resource

PartitionId = NewType("PartitionId", str)
"""A partition as text: ``v1/pods``, ``v1/pods[a]``, ``v1/pods[!a,b]``."""

ShardId = NewType("ShardId", str)
"""Name of a shard, also of its actor: ``shard-0``."""

Epoch = NewType("Epoch", int)
"""Generation of the route table; grows by one with every publication that changes a route."""

HASH_END = 1 << 64


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
    """Objects whose FNV-1a 64 of ``metadata.namespace`` or ``metadata.uid`` lies in ``[low, high)`` (KEP-5866)."""

    field: str
    """``namespace`` or ``uid``."""
    low: int
    high: int

    def admits(self, namespace: str, uid: str) -> bool:
        """True where the hash of the field is in the range."""
        return self.low <= fnv1a64(namespace if self.field == "namespace" else uid) < self.high

    @property
    def selector(self) -> str:
        """The ``shardSelector`` parameter, in the server's own spelling (16 digits; the end has 17)."""
        return f"shardRange(object.metadata.{self.field}, '0x{self.low:016x}', '0x{self.high:016x}')"

    def __str__(self) -> str:
        return f"[{self.field}:{self.low:016x}-{self.high:016x}]"


Cover: TypeAlias = Everything | OneNamespace | ExceptNamespaces | HashRange
EVERYTHING = Everything()


class Partition(msgspec.Struct, frozen=True):
    """A resource and the part of it that is meant."""

    resource: Resource
    cover: Cover = EVERYTHING

    @property
    def id(self) -> PartitionId:
        """Text form, unique among partitions; what routes, statistics and logs say."""
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
            case _:
                return True


def fnv1a64(text: str) -> int:
    """FNV-1a, 64 bits, of the UTF-8 bytes: the hash kube-apiserver shards by (no seed)."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value
