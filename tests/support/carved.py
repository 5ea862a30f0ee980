"""Pods of four namespaces over three partitions, and how tests ask for them."""

from __future__ import annotations

from typing import Any

from support.local_shards import NODES, PODS, LocalInstallation, made, named
from support.queries import collection_query

from shoal.cluster.query.answers import Listing
from shoal.cluster.query.request import CollectionQuery
from shoal.cluster.query.router import QueryRouter
from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace
from shoal.shards.model.resources import ResourceType

NAMESPACES = ("a", "a-b", "b", "c")
ALL = sorted(f"{namespace}/web-{number}" for namespace in NAMESPACES for number in range(5))


def pod(namespace: str, name: str, version: int = 1, **more: Any) -> bytes:
    return made(PODS, name, namespace=namespace, version=version, **more)


def query(
    namespace: str | None = None, resource_type: ResourceType = PODS, **parameters: object
) -> CollectionQuery:
    """A list; a parameter that is a Python word has an underscore behind it."""
    pairs = [(name.rstrip("_"), str(value)) for name, value in parameters.items()]
    return collection_query(resource_type, pairs, namespace=namespace)


async def listed(router: QueryRouter, asked: CollectionQuery, **how: Any) -> tuple[list[bytes], Listing]:
    """All bodies of a list, and the listing."""
    listing = await router.list(asked, **how)
    try:
        bodies = list(listing.first)
        async for chunk in listing.rest:
            bodies.extend(chunk)
    finally:
        await listing.aclose()
    return bodies, listing


def keys(bodies: list[bytes]) -> list[str]:
    return [named(body) for body in bodies]


def carved(shards: int = 3, **options: Any) -> LocalInstallation:
    """Pods of namespaces a and b in partitions of their own, all others in a third; a node."""
    installation = LocalInstallation(shards, **options)

    def pods(*namespaces: str) -> list[bytes]:
        return [
            pod(namespace, f"web-{number}", labels={"app": "web" if number else "db"})
            for namespace in namespaces
            for number in range(5)
        ]

    installation.hold(PODS, pods("a"), cover=OneNamespace("a"), shard=0, version=100)
    installation.hold(PODS, pods("b"), cover=OneNamespace("b"), shard=1, version=95)
    installation.hold(PODS, pods("a-b", "c"), cover=ExceptNamespaces(("a", "b")), shard=2, version=98)
    installation.hold(NODES, [made(NODES, "node-1")], shard=0)
    installation.publish()
    return installation
