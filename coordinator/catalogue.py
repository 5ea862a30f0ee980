"""Which of the resources discovered are followed, and why the others are not. Pure.

Followed is every resource that can be listed and watched and that the rules of `FollowSettings` let through,
once: in the version its group prefers among those let through, and in one group where two serve the same
objects. Every other resource gets a reason in words, which the route table, ``shoal
status`` and ``shoal explain`` carry. Subresources belong to their resource and are never mentioned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from ..shards.model.resources import Resource, ResourceType
from .discovery_parse import DiscoveredGroup
from .patterns import ResourcePattern, parse_pattern
from .settings import FollowSettings

SAME_OBJECTS: Mapping[str, tuple[str, ...]] = {
    "events": ("", "events.k8s.io"),
    # The groups below left "extensions" in 1.16 and 1.22; older servers serve both.
    "daemonsets": ("apps", "extensions"),
    "deployments": ("apps", "extensions"),
    "replicasets": ("apps", "extensions"),
    "ingresses": ("networking.k8s.io", "extensions"),
    "networkpolicies": ("networking.k8s.io", "extensions"),
    "podsecuritypolicies": ("policy", "extensions"),
}
"""Groups that serve the same objects under one name, the one to follow first. Settings add and replace."""

SECRETS = ("", "secrets")
"""Group and name of the one resource that settings treat apart."""


class Catalogue(NamedTuple):
    """What is followed, sorted by resource, and everything else with its reason."""

    followed: tuple[ResourceType, ...] = ()
    excluded: tuple[tuple[str, str], ...] = ()
    """Resource as text and reason, sorted."""
    warnings: tuple[str, ...] = ()
    """Rules that match nothing the server has, and fields that cannot be indexed."""


class CatalogueChange(NamedTuple):
    """From one catalogue to the next."""

    added: tuple[Resource, ...] = ()
    removed: tuple[Resource, ...] = ()
    changed: tuple[Resource, ...] = ()
    """Followed in both, and described differently."""

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.changed)


def build_catalogue(groups: Iterable[DiscoveredGroup], settings: FollowSettings) -> Catalogue:
    """Decides about every resource of every group."""
    include = [parse_pattern(text) for text in settings.include]
    exclude = [parse_pattern(text) for text in settings.exclude]
    all_types: list[ResourceType] = []
    reasons: dict[Resource, str] = {}
    candidates: list[ResourceType] = []
    for group in groups:
        served: dict[str, Resource] = {}  # by name: the version whose objects are followed
        for version in group.versions:
            for known in version.resources:
                all_types.append(known)
                reason = (
                    _unfollowable(known)
                    or _ruled_out(known, include, exclude, settings)
                    or _other_version(known, served)
                )
                if reason:
                    reasons[known.resource] = reason
                else:
                    served[known.resource.name] = known.resource
                    candidates.append(known)
    candidates, unusable = _with_indexed_fields(candidates, settings)
    doubles = _doubles(candidates, {**SAME_OBJECTS, **settings.same_objects})
    reasons.update(doubles)
    followed = sorted(
        (known for known in candidates if known.resource not in doubles), key=lambda known: known.resource
    )
    return Catalogue(
        tuple(followed),
        tuple((str(resource), reasons[resource]) for resource in sorted(reasons)),
        tuple(
            _without_effect("include", include, all_types)
            + _without_effect("exclude", exclude, all_types)
            + unusable
        ),
    )


def compare_catalogues(before: Catalogue, after: Catalogue) -> CatalogueChange:
    """What came, went and changed."""
    old = {known.resource: known for known in before.followed}
    new = {known.resource: known for known in after.followed}
    return CatalogueChange(
        added=tuple(resource for resource in new if resource not in old),
        removed=tuple(resource for resource in old if resource not in new),
        changed=tuple(resource for resource in new if resource in old and old[resource] != new[resource]),
    )


def _unfollowable(known: ResourceType) -> str:
    missing = [verb for verb in ("list", "watch") if verb not in known.verbs]
    if missing:
        return f"it cannot be followed: the server offers no {' and no '.join(missing)} for it"
    if not known.kind:
        return "discovery does not name its kind"
    return ""


def _other_version(known: ResourceType, served: Mapping[str, Resource]) -> str:
    preferred = served.get(known.resource.name)
    return f"its objects are followed as {preferred}, the preferred version" if preferred else ""


def _ruled_out(
    known: ResourceType,
    include: Iterable[ResourcePattern],
    exclude: Iterable[ResourcePattern],
    settings: FollowSettings,
) -> str:
    excluding = next((rule for rule in exclude if rule.matches(known.resource)), None)
    if excluding is not None:
        return f"follow.exclude names it ({excluding.text!r})"
    if not any(rule.matches(known.resource) for rule in include):
        return "follow.include does not name it"
    if (known.resource.group, known.resource.name) == SECRETS and settings.secrets == "exclude":
        return "Secrets are left out unless follow.secrets says include or redact"
    return ""


def _with_indexed_fields(
    candidates: Iterable[ResourceType], settings: FollowSettings
) -> tuple[list[ResourceType], list[str]]:
    """The resources with the fields that the settings declare, and what is wrong with these."""
    declared = [(parse_pattern(text), paths) for text, paths in settings.indexed_fields.items()]
    unused = set(settings.indexed_fields)
    problems: list[str] = []
    found: list[ResourceType] = []
    for known in candidates:
        fields, indexed = list(known.selectable_fields), list(known.indexed_fields)
        for pattern, paths in declared:
            if not pattern.matches(known.resource):
                continue
            unused.discard(pattern.text)
            for path in paths:
                if path not in fields and (other := _overlapping(path, fields)):
                    problems.append(
                        f"follow.indexed_fields[{pattern.text!r}]: {path} is left out, {other} has a value already"
                    )
                    continue
                if path not in fields:
                    fields.append(path)
                if path not in indexed:
                    indexed.append(path)
        found.append(
            msgspec.structs.replace(known, selectable_fields=tuple(fields), indexed_fields=tuple(indexed))
        )
    problems += [
        f"follow.indexed_fields: {text!r} is no resource that is followed" for text in sorted(unused)
    ]
    return found, problems


def _overlapping(path: str, fields: Iterable[str]) -> str | None:
    """A field that is a part of this path, or that this path is a part of."""
    return next(
        (field for field in fields if field.startswith(f"{path}.") or path.startswith(f"{field}.")), None
    )


def _doubles(
    candidates: Iterable[ResourceType], same_objects: Mapping[str, tuple[str, ...]]
) -> dict[Resource, str]:
    """The resources whose objects another group serves that comes first."""
    first: dict[str, tuple[int, Resource]] = {}
    ranked: list[tuple[Resource, int]] = []
    for known in candidates:
        resource = known.resource
        groups = same_objects.get(resource.name, ())
        if resource.group not in groups:
            continue
        rank = groups.index(resource.group)
        ranked.append((resource, rank))
        if resource.name not in first or rank < first[resource.name][0]:
            first[resource.name] = (rank, resource)
    return {
        resource: f"the same objects are followed as {first[resource.name][1]}"
        for resource, rank in ranked
        if rank > first[resource.name][0]
    }


def _without_effect(
    field: str, patterns: Iterable[ResourcePattern], known: Iterable[ResourceType]
) -> list[str]:
    resources = [entry.resource for entry in known]
    return [
        f"follow.{field}: {pattern.text!r} matches no resource of this server"
        for pattern in patterns
        if not any(pattern.matches(resource) for resource in resources)
    ]
