"""From the resources followed to how they may be cut: whole, and the namespaces that settings carve out. Pure.

Settings say how a resource is cut to begin with, and what of that planning has to keep; cutting by load builds on it
(`coordinator.planning`). Invariant: the covers of one resource divide it, whatever the settings say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..shards.model.partitions import Partition
from ..shards.model.resources import ResourceType
from .patterns import parse_resource_name
from .planning.orders import Divisible
from .wanting import settled_cut


class Partitioning(NamedTuple):
    """The resources in the order they are followed in, and the carvings that have no effect."""

    resources: tuple[Divisible, ...]
    warnings: tuple[str, ...]

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """What there is if nothing but the settings cuts."""
        return tuple(
            partition
            for divisible in self.resources
            for partition in settled_cut(divisible).partitions(divisible.resource)
        )


def partition_resources(followed: Iterable[ResourceType], carve: Mapping[str, Sequence[str]]) -> Partitioning:
    """Cuts each resource as `carve` (``FollowSettings.carve``) says; what it does not name stays whole."""
    followed = tuple(followed)
    wanted = {text: (parse_resource_name(text), namespaces) for text, namespaces in carve.items()}
    resources: list[Divisible] = []
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
        resources.append(
            Divisible(
                known.resource,
                namespaced=known.namespaced,
                carved=tuple(sorted(carved)),
            )
        )
    warnings.extend(
        f"follow.carve[{text!r}] matches no resource that is followed" for text in wanted if text not in used
    )
    return Partitioning(tuple(resources), tuple(warnings))
