"""From the resources followed to partitions: whole resources, and the namespaces that settings carve out.
Pure.

Invariant: the covers of one resource never overlap and together are everything, whatever the settings say.
Cutting by load and by hash ranges builds on this and is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..shards.model.partitions import ExceptNamespaces, OneNamespace, Partition
from ..shards.model.resources import ResourceType
from .patterns import parse_resource_name


class Partitioning(NamedTuple):
    """The partitions, in the order of the resources, and the carvings that have no effect."""

    partitions: tuple[Partition, ...]
    warnings: tuple[str, ...]


def partition_resources(followed: Iterable[ResourceType], carve: Mapping[str, Sequence[str]]) -> Partitioning:
    """Cuts each resource as `carve` (``FollowSettings.carve``) says; what it does not name stays whole."""
    followed = tuple(followed)
    wanted = {text: (parse_resource_name(text), namespaces) for text, namespaces in carve.items()}
    partitions: list[Partition] = []
    used: set[str] = set()
    warnings: list[str] = []
    for known in followed:
        carved: set[str] = set()
        for text, (pattern, namespaces) in wanted.items():
            if not pattern.matches(known.resource):
                continue
            used.add(text)
            if known.namespaced:
                carved.update(namespaces)
            else:
                warnings.append(
                    f"follow.carve[{text!r}]: {known.resource} has no namespaces, so it stays whole"
                )
        partitions.extend(cut(known, carved))
    warnings.extend(
        f"follow.carve[{text!r}] matches no resource that is followed" for text in wanted if text not in used
    )
    return Partitioning(tuple(partitions), tuple(warnings))


def cut(known: ResourceType, namespaces: Iterable[str]) -> tuple[Partition, ...]:
    """A partition for each of `namespaces` and one for all the rest; the whole resource for none."""
    carved = tuple(sorted(set(namespaces)))
    if not carved:
        return (Partition(known.resource),)
    rest = Partition(known.resource, ExceptNamespaces(carved))
    return (*(Partition(known.resource, OneNamespace(namespace)) for namespace in carved), rest)
