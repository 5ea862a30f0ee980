"""What a list made anew changes in what is held: the events that were missed, as far as they can be known."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import TypeAlias

from ..model.refs import Key
from ..model.versions import Version
from .entries import Entry

Difference: TypeAlias = tuple[Version, Key, Entry | None, Entry | None]
"""Version, key, state before and after."""

_version_of = itemgetter(0)


def difference(
    held: Mapping[Key, Entry],
    fresh: dict[Key, Entry],
    version: Version,
    *,
    seen: Version,
    keep_newer: bool,
    roams: bool = False,
) -> list[Difference]:
    """What `fresh`, the list of `version`, changes in `held`, the state of `seen`; in version order.

    With `keep_newer`, what is held in a state newer than `version` stays, and is put into `fresh`: behind a gateway a
    list carries the oldest of several frontiers. Up to `version` the list says all there is: a held state that is no
    newer than that, but newer than what the list shows, is of a past that the server lost.

    A watcher may be cut off between any two of these events and come back at the version of the last one. So no two of
    them carry the list's version: what has gone, nobody knows when, is told below it, in the gap of history that a list
    leaves, and whoever comes back there is told to list again. Where names `roam`, because partitions are ranges of
    uid, another one may tell that there is an object of that name again: so there it is told as early in the gap as it
    can have been, which is before that.
    """
    first = Version(seen + 1)
    gone_at = min(first if roams else max(first, Version(version - 1)), version)
    changes: list[Difference] = []
    for key, entry in held.items():
        if key not in fresh:
            if keep_newer and entry.version > version:
                fresh[key] = entry
            else:
                changes.append((gone_at, key, entry, None))
    for key, entry in fresh.items():
        before = held.get(key)
        if before is entry:
            continue
        if before is not None and keep_newer and before.version > max(version, entry.version):
            fresh[key] = before
        else:
            # Readers of the old frontier must not see the change, readers of the list's version must.
            changes.append((min(max(entry.version, first), version), key, before, entry))
    changes.sort(key=_version_of)
    return changes
