"""What is asked: one object, or a collection with its selectors, paging and version demand. Pure values.

A query says nothing of shards, routes or media types: `consistency` decides which state answers it, `router`
who is asked, and the gateway in which form the answer goes out. The parameters of a list were read and
checked by `ListOptions.parse`, so that a bad one costs no shard anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from ...shards.model.covers import only_namespace
from ...shards.model.partitions import Cover, HashRange, Partition, hashed
from ...shards.model.refs import Key, key_of
from ...shards.model.resources import Resource
from ...shards.model.shard_selectors import ShardSelector, parse_shard_selector
from ..serving.options import ListOptions

NAMESPACE_FIELD = "metadata.namespace"
NAMESPACE_PATH = f"object.{NAMESPACE_FIELD}"
"""How a shardSelector names it."""
NO_OPTIONS = ListOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectQuery:
    """One object by name."""

    resource: Resource
    name: str
    namespace: str = ""
    """Empty for a cluster-scoped object."""
    resource_version: str = ""
    """As the caller gave it: a minimum; 0 or empty for whatever is held."""

    @property
    def key(self) -> Key:
        """The key the object is held by."""
        return key_of(self.namespace, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionQuery:
    """The objects of a resource, or those of them that selectors match."""

    resource: Resource
    namespace: str | None = None
    """None: all namespaces, or a cluster-scoped resource."""
    options: ListOptions = NO_OPTIONS

    @property
    def labels(self) -> str:
        """The label selector in canonical spelling; empty if there is none."""
        return str(self.options.label_selector)

    @property
    def fields(self) -> str:
        """The field selector in canonical spelling; empty if there is none."""
        return str(self.options.field_selector)

    @property
    def shards(self) -> str:
        """The ``shardSelector`` in canonical spelling, which a list echoes; empty if there is none.

        Raises:
            BadShardSelector: it cannot be read; as kube-apiserver answers it while its gate is on.
        """
        selector = parse_shard_selector(self.options.shard_selector)
        return "" if selector is None else str(selector)

    @property
    def selective(self) -> bool:
        """Whether a label or field selector restricts it: the API server then does not say how many objects remain.

        A shardSelector does not count: the server says the number with it (in v1.36 of all objects, here of those
        that are meant).
        """
        return bool(self.options.label_selector or self.options.field_selector)

    @property
    def fingerprint(self) -> bytes:
        """Eight bytes that differ for questions whose pages do not belong together; paging is left out."""
        namespace = "*" if self.namespace is None else f"={self.namespace}"
        digest = hashlib.blake2b(digest_size=8)
        parts = (str(self.resource), namespace, self.labels, self.fields)
        shards = self.shards
        for part in (*parts, shards) if shards else parts:
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(len(encoded).to_bytes(4, "big") + encoded)
        return digest.digest()

    def concerns(self, partition: Partition) -> bool:
        """False if no object in `partition` can be part of the answer."""
        if partition.resource != self.resource or not partition.may_hold(self.namespace):
            return False
        for test in self.options.field_selector.tests:
            if test.field != NAMESPACE_FIELD:
                continue
            if not all(map(partition.may_hold, test.wanted)):
                return False
            if only_namespace(partition.cover) in test.excluded:
                return False
        shards = parse_shard_selector(self.options.shard_selector)
        return shards is None or _may_match(shards, partition.cover, self._only_namespace)

    @property
    def _only_namespace(self) -> str | None:
        """The one namespace that is meant, if there is only one."""
        if self.namespace is not None:
            return self.namespace
        return self.options.field_selector.exact(NAMESPACE_FIELD)


def _may_match(shards: ShardSelector, cover: Cover, namespace: str | None) -> bool:
    """False if no object of `cover`, in `namespace` if that is given, has its hash in a range selected."""
    if isinstance(cover, HashRange) and shards.field == f"object.metadata.{cover.field}":
        return any(low < cover.high and cover.low < high for low, high in shards.united)
    namespace = only_namespace(cover) or namespace
    if namespace is None or shards.field != NAMESPACE_PATH:
        return True
    return shards.holds(hashed(namespace))


Query: TypeAlias = ObjectQuery | CollectionQuery
