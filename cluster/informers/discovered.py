"""Which resources come and go: `Appeared` and `Vanished`, as an asynchronous iterator sees them.

Level-triggered: an iterator compares what it has told with the newest look, so one that is slow misses resources that
came and went meanwhile, and nothing else. A resource is told once, in its preferred version that can be followed; if
that changes, the old version vanishes and the new one appears. Where two groups serve the same objects (events), one
of them is told, as Shoal itself follows it (`coordinator.catalogue`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

from ...coordinator.catalogue import Catalogue, build_catalogue, compare_catalogues
from ...coordinator.patterns import parse_pattern
from ...coordinator.settings import FollowSettings
from ...shards.model.errors import ShoalError
from ...shards.model.resources import ResourceType
from .errors import InformerClosed
from .looking import Groups, Looks

log = logging.getLogger("shoal.cluster.informers")


@dataclass(frozen=True, slots=True)
class Appeared:
    """The API server serves this resource (also: it was there from the beginning), and it can be followed."""

    resource_type: ResourceType


@dataclass(frozen=True, slots=True)
class Vanished:
    """It does not any more."""

    resource_type: ResourceType


DiscoveryEvent: TypeAlias = Appeared | Vanished


@dataclass(frozen=True, slots=True)
class Scope:
    """Which resources are told of."""

    pattern: str
    """As `coordinator.patterns` has it."""
    core_only: bool = False
    """No pattern says "the core group"."""

    @classmethod
    def of(cls, group: str | None, pattern: str | None) -> Scope:
        """All of a group, whose name may hold ``*`` (empty: the core group), or what a pattern means.

        Raises:
            ValueError: both were given, or one that cannot be read.
        """
        if group is not None and pattern is not None:
            raise ValueError("give a group or a pattern, not both")
        if group == "":
            return cls("*", core_only=True)
        text = pattern if pattern is not None else "*" if group is None else f"*.{group}"
        parse_pattern(text)
        return cls(text)

    def catalogue(self, groups: Groups) -> Catalogue:
        """What of the API server's resources is told of."""
        found = build_catalogue(groups, FollowSettings(include=(self.pattern,), secrets="include"))
        if self.core_only:
            found = found._replace(followed=tuple(one for one in found.followed if not one.resource.group))
        return found


async def discovered(
    looks: Looks, scope: Scope, *, poll_s: float, backoff_max_s: float
) -> AsyncIterator[DiscoveryEvent]:
    """Tells what there is, then what comes and goes, for as long as somebody listens and looks are made."""
    told, pause_s = Catalogue(), poll_s
    max_age_s = None
    while True:
        try:
            groups = await looks.look(max_age_s=max_age_s)
        except InformerClosed:
            return
        except ShoalError as error:
            log.warning("discovery failed", extra={"reason": error.message, "again_s": pause_s})
            pause_s = min(2 * pause_s, max(backoff_max_s, poll_s))
        else:
            pause_s = poll_s
            found = scope.catalogue(groups)
            change = compare_catalogues(told, found)
            before = {known.resource: known for known in told.followed}
            now = {known.resource: known for known in found.followed}
            told = found
            for resource in change.removed:
                yield Vanished(before[resource])
            for resource in change.added:
                yield Appeared(now[resource])
        await looks.pause(pause_s)
        # A look of another's will do if it is not older than half a pause.
        max_age_s = pause_s / 2
