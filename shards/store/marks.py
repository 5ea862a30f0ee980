"""Which versions readers of other partitions may have been shown, as gateways announce them (`OvertakeQuery`).

The newest mark counts, until the API server refutes it: an API server that was restored from a backup starts below what
was shown before, and a gateway that has not noticed may go on to announce versions of the lost past. A consistent list
is at least as new as everything that had been shown when it was asked for. So a mark that was there by then and is
newer than the list is of a lost past, and only what came meanwhile still counts.

Limits: what is kept is one number for each mark that is older than those announced after it, which is about one a
gateway, because each of them announces newer and newer versions.
"""

from __future__ import annotations

from typing import NamedTuple

from ..model.versions import UNKNOWN, Version


class Moment(NamedTuple):
    """When something was asked of the API server."""

    mark: int
    """How many marks had been noted."""
    at: float
    """By the store's clock, seconds."""


class Marks:
    """The marks of one partition."""

    def __init__(self) -> None:
        self.noted = 0
        """How many; never goes back."""
        self._kept: list[tuple[int, Version]] = []
        """Each newer than all that were noted after it; the newest first."""

    @property
    def newest(self) -> Version:
        """The newest version that may have been shown; `UNKNOWN` if none was announced."""
        return self._kept[0][1] if self._kept else UNKNOWN

    @property
    def kept(self) -> tuple[Version, ...]:
        """All that still count, the newest first. Noted in this order elsewhere, they are the same there."""
        return tuple(version for _, version in self._kept)

    def note(self, version: Version) -> None:
        """`version` is about to be shown."""
        self.noted += 1
        while self._kept and self._kept[-1][1] <= version:
            self._kept.pop()
        self._kept.append((self.noted, version))

    def refute(self, noted: int, version: Version) -> bool:
        """The API server, asked when so many marks had been noted, said that it is at `version`: whether one of them is
        newer than that. It then counts as `version`, which all true ones are up to.
        """
        if not self._kept or self._kept[0][0] > noted or self._kept[0][1] <= version:
            return False
        meanwhile = [mark for mark in self._kept if mark[0] > noted]
        if not meanwhile or meanwhile[0][1] < version:
            meanwhile.insert(0, (noted, version))
        self._kept = meanwhile
        return True

    def clear(self) -> None:
        """Forgets all: they were of a past that is void."""
        self._kept.clear()
