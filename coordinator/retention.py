"""Keeps resources that discovery does not show for a moment. Pure; time is passed in.

A resource that is dropped is released by its shard and has to be listed again, so a document that is merely
incomplete (a server that has just started, an aggregation layer that restarts) must not drop hundreds of
them. What is missing is kept until it has been missing, look after look, for a while; longer if a definition
still declares it, and not at all if its definition went with it. Time in which there was no look does not
count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..shards.model.resources import Resource, ResourceType
from .discovery_parse import DiscoveredGroup, DiscoveredVersion
from .settings import DiscoverySettings


class Retention:
    """What was seen lately, and since when it is missing."""

    def __init__(self, settings: DiscoverySettings) -> None:
        self._settings = settings
        self._seen: dict[Resource, ResourceType] = {}
        self._missing_since: dict[Resource, float] = {}
        self._declared: frozenset[Resource] = frozenset()

    @property
    def missing(self) -> tuple[Resource, ...]:
        """Resources kept although the last look did not show them."""
        return tuple(sorted(self._missing_since))

    def update(
        self, found: Sequence[DiscoveredGroup], *, declared: Collection[Resource], now: float
    ) -> tuple[DiscoveredGroup, ...]:
        """Takes a look in; the groups with what is kept added behind what was found.

        `declared` are the resources of all definitions. What was declared before, is not any more and is not
        found either, is gone for certain and dropped at once.
        """
        undeclared = self._declared.difference(declared)
        self._declared = frozenset(declared)
        present = {
            known.resource: known
            for group in found
            for version in group.versions
            for known in version.resources
        }
        for resource in list(self._seen):
            if resource in present:
                self._missing_since.pop(resource, None)
                continue
            since = self._missing_since.setdefault(resource, now)
            limit_s = self._settings.vanish_defined_s if resource in declared else self._settings.vanish_s
            if now - since >= limit_s or resource in undeclared:
                del self._seen[resource], self._missing_since[resource]
        self._seen.update(present)
        return _with(found, (self._seen[resource] for resource in self.missing))


def _with(found: Sequence[DiscoveredGroup], kept: Iterable[ResourceType]) -> tuple[DiscoveredGroup, ...]:
    groups = {group.name: group for group in found}
    for known in kept:
        resource = known.resource
        group = groups.get(resource.group, DiscoveredGroup(resource.group, ()))
        versions = {version.version: version for version in group.versions}
        version = versions.get(resource.version, DiscoveredVersion(resource.version, ()))
        versions[resource.version] = version._replace(resources=(*version.resources, known))
        groups[resource.group] = group._replace(versions=tuple(versions.values()))
    return tuple(groups.values())
