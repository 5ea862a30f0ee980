"""What is meant by a resource: text to `ResourceType` among what the API server serves. Pure.

Taken are ``v1/pods``, ``apps/v1/deployments``, kubectl's ``deployments.apps`` and ``deployments.v1.apps``, and a name
alone. Names are plural, singular, short, or the kind; letters' case does not count. A name that several groups have is
the first group's in the server's order (kubectl's rule), a group without a version its preferred version that can be
followed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from ...coordinator.discovery_parse import DiscoveredGroup
from ...shards.model.errors import BadRequest
from ...shards.model.resources import Resource, ResourceType
from .errors import UnknownResource

CLOSE_MAX: Final = 3
_CLOSE_ENOUGH: Final = 0.6
FORMS: Final = "v1/pods, apps/v1/deployments, deployments.apps or deployments"


class Wanted(NamedTuple):
    """A resource as somebody named it; None: any."""

    text: str
    group: str | None
    version: str | None
    name: str


def wanted(resource: Resource | str) -> tuple[Wanted, ...]:
    """The ways to read it, the likeliest first.

    Raises:
        BadRequest: it is no name of a resource.
    """
    if isinstance(resource, Resource):
        return (Wanted(str(resource), resource.group, resource.version, resource.name.lower()),)
    text = resource.strip()
    parts = text.split("/")
    if not all(parts) or len(parts) > 3 or any(part.strip() != part or " " in part for part in parts):
        raise BadRequest(f"{resource!r} names no resource: expected a form like {FORMS}")
    match parts:
        case [group, version, name]:
            return (Wanted(text, group, version, name.lower()),)
        case [first, name]:
            # ``apps/deployments`` is not ambiguous: no version is called like a group.
            return (Wanted(text, "", first, name.lower()), Wanted(text, first, None, name.lower()))
        case _:
            name, dot, rest = text.partition(".")
            if not dot:
                return (Wanted(text, None, None, name.lower()),)
            if not name or not rest:
                raise BadRequest(f"{resource!r} names no resource: expected a form like {FORMS}")
            version, dot, group = rest.partition(".")
            # kubectl reads NAME.VERSION.GROUP first, then NAME.GROUP; ``pods.v1.`` is the core group.
            readings = [Wanted(text, group, version, name.lower())] if dot else []
            return (*readings, Wanted(text, rest, None, name.lower()))


def identity(resource: Resource | str) -> str:
    """A text that is equal for equal spellings.

    Raises:
        BadRequest: as `wanted`.
    """
    first = wanted(resource)[0]
    if first.group is not None and first.version is not None and first.text.count("/"):
        return str(Resource(first.group, first.version, first.name))
    return first.text.lower()


def resolve(resource: Resource | str, groups: Sequence[DiscoveredGroup]) -> ResourceType | None:
    """The resource that is meant; None if it is not known because a part of discovery is missing just now.

    Raises:
        BadRequest: as `wanted`.
        UnknownResource: there is none, or it cannot be listed and watched.
    """
    readings = wanted(resource)
    found = [known for reading in readings for known in _matching(reading, groups)]
    for known in found:
        if not missing_verbs(known):
            return known
    if found:
        verbs = " and no ".join(missing_verbs(found[0]))
        raise UnknownResource(
            f"{found[0].resource} cannot be followed: the API server offers no {verbs} for it"
        )
    if any(_may_be_stale(reading, groups) for reading in readings):
        return None
    close = close_matches(readings[0], groups)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise UnknownResource(f"the API server serves no resource {readings[0].text!r}{hint}", close=close)


def missing_verbs(known: ResourceType) -> list[str]:
    """What cannot be done with it and has to be, to follow it."""
    return [verb for verb in ("list", "watch") if verb not in known.verbs]


def close_matches(reading: Wanted, groups: Iterable[DiscoveredGroup]) -> tuple[str, ...]:
    """Resources whose names look like it, the closest first."""
    names: dict[str, dict[str, None]] = {}
    for known in _all(groups):
        if missing_verbs(known):
            continue
        resource = known.resource
        for name in {*_names(known), str(resource).lower(), resource.qualified_name}:
            names.setdefault(name, {})[str(resource)] = None
    candidates = difflib.get_close_matches(reading.text.lower(), names, n=2 * CLOSE_MAX, cutoff=_CLOSE_ENOUGH)
    candidates += difflib.get_close_matches(reading.name, names, n=CLOSE_MAX, cutoff=_CLOSE_ENOUGH)
    found = dict.fromkeys(text for name in candidates for text in names[name])
    # The very name in another group or version is closer than any other name.
    exact = dict.fromkeys(text for text in names.get(reading.name, ()))
    return tuple({**exact, **found})[:CLOSE_MAX]


def _matching(reading: Wanted, groups: Iterable[DiscoveredGroup]) -> Iterator[ResourceType]:
    for group in groups:
        if reading.group is not None and group.name != reading.group:
            continue
        for version in group.versions:
            if reading.version is not None and version.version != reading.version:
                continue
            for known in version.resources:
                if reading.name in _names(known):
                    yield known


def _names(known: ResourceType) -> set[str]:
    names = {known.resource.name, known.singular.lower(), known.kind.lower(), *known.short_names}
    names.discard("")
    return names


def _may_be_stale(reading: Wanted, groups: Iterable[DiscoveredGroup]) -> bool:
    """Whether a group or version that the server could not ask might have it. Of a name alone that is not looked at:
    any broken group might, for ever.
    """
    return any(
        version.stale
        for group in groups
        if reading.group == group.name
        for version in group.versions
        if reading.version in (None, version.version)
    )


def _all(groups: Iterable[DiscoveredGroup]) -> Iterator[ResourceType]:
    for group in groups:
        for version in group.versions:
            yield from version.resources
