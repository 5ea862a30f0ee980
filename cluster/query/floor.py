"""Read-your-writes: how new a read through this gateway must be because of what was written through it.

A write that a gateway forwards is answered by the API server, with a version that the shards hear of a moment
later. Its writer may read at once. So the version is noted here, and reads that name none are "not older than
that" (`consistency`); a read that names a version gets what it names.

A note concerns the namespace written to, and with it every read that may show that namespace, so that a write
in one namespace makes nobody wait for a quiet partition that holds another. It is forgotten after `KEEP_S`:
by then the shards have seen the write, or are so far behind that their readers had better see what there is
than wait; and after an API server was restored from a backup its versions start anew below what was noted.
Memory is bounded: with more than `NOTES_MAX` namespaces the oldest notes become one of their whole resource.

A deletion answered with a Status carries no version, so it leaves no note. Knowledge of one gateway: another
one's readers are not concerned. Pure; the clock is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from ...shards.model.depth import at_any_depth
from ...shards.model.resources import Resource
from ...shards.model.versions import UNKNOWN, Version, parse_version

KEEP_S: Final = 60.0
NOTES_MAX: Final = 4096


class _Note(NamedTuple):
    version: Version
    at: float


class _Metadata(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815 - Kubernetes' own spelling


class _Written(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_WRITTEN = msgspec.json.Decoder(_Written)


def written_version(body: bytes) -> str:
    """The version in the API server's JSON answer to a write; empty if it tells none (or is no JSON)."""
    try:
        return at_any_depth(_WRITTEN.decode, body).metadata.resourceVersion
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


class ReadFloor:
    """The newest version written, by resource and namespace. `now` gives seconds that never go back."""

    def __init__(
        self, now: Callable[[], float], *, keep_s: float = KEEP_S, notes_max: int = NOTES_MAX
    ) -> None:
        self._now = now
        self._keep_s = keep_s
        self._notes_max = notes_max
        self._notes: dict[Resource, dict[str | None, _Note]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def note(self, resource: Resource, version: Version | str, namespace: str | None = None) -> None:
        """A write was answered with `version`; anything that is not a version is ignored.

        `namespace` is the one written to; None concerns every read of the resource.
        """
        try:
            known = parse_version(version) if isinstance(version, str) else version
        except ValueError:
            return
        if known <= UNKNOWN:
            return
        notes = self._notes.setdefault(resource, {})
        held = notes.pop(namespace, None)
        self._count += held is None
        newest = known if held is None else max(known, held.version)
        notes[namespace] = _Note(newest, self._now())  # last in order: the most recently written
        if self._count > self._notes_max:
            self._forget()

    def of(self, resource: Resource, namespace: str | None = None) -> Version:
        """The version a read must include; None: of all namespaces. 0 if nothing was written of late."""
        notes = self._notes.get(resource)
        if notes is None:
            return UNKNOWN
        since = self._now() - self._keep_s
        if namespace is not None:
            concerned = [note for note in (notes.get(namespace), notes.get(None)) if note is not None]
        else:
            concerned = list(notes.values())
        return max((note.version for note in concerned if note.at > since), default=UNKNOWN)

    def _forget(self) -> None:
        """Drops what is past its time; if that is not enough, takes the largest resource's notes together."""
        since = self._now() - self._keep_s
        for resource, notes in list(self._notes.items()):
            kept = {namespace: note for namespace, note in notes.items() if note.at > since}
            self._count -= len(notes) - len(kept)
            if kept:
                self._notes[resource] = kept
            else:
                del self._notes[resource]
        if self._count > self._notes_max:
            resource = max(self._notes, key=lambda known: len(self._notes[known]))
            largest = self._notes[resource].values()
            together = _Note(max(note.version for note in largest), max(note.at for note in largest))
            self._count -= len(largest) - 1
            self._notes[resource] = {None: together}
