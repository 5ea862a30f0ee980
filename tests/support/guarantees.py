"""The guarantees of the README as validators: each takes what was seen and raises its sentence when broken.

The truth is what the API server did, as a `Past`: every state of every object, by version. Everything is in
plain values, so that the same validators serve simulations, conformance runs and tests of themselves with bad
histories.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field


class GuaranteeBroken(AssertionError):  # noqa: N818 - reads as what happened
    """What was promised did not hold. The text is the promise, then what was seen instead."""

    def __init__(self, promise: str, seen: str) -> None:
        super().__init__(f"{promise}\nbut {seen}")


@dataclass
class Past:
    """Everything that happened to the objects of one resource: (version, uid or None for deleted), by key."""

    states: dict[str, list[tuple[int, str | None]]] = field(default_factory=dict)
    newest: int = 0

    def happened(self, key: str, version: int, uid: str | None) -> None:
        """An object was written (`uid`) or deleted (None). Versions of one object only grow."""
        states = self.states.setdefault(key, [])
        assert not states or states[-1][0] < version, f"{key} went from {states[-1]} to {version}"
        states.append((version, uid))
        self.newest = max(self.newest, version)

    def at(self, key: str, version: int) -> tuple[int, str] | None:
        """Version and uid an object had at some version of the resource; None if there was none."""
        states = self.states.get(key, [])
        place = bisect_right(states, version, key=lambda state: state[0])
        if not place:
            return None
        then, uid = states[place - 1]
        return None if uid is None else (then, uid)

    def all_at(self, version: int, admits: Callable[[str, str], bool]) -> dict[str, int]:
        """Versions of all objects of a cover, by key, at some version of the resource."""
        found = {key: self.at(key, version) for key in self.states}
        return {
            key: state[0]
            for key, state in found.items()
            if state is not None and admits(key.rpartition("/")[0], state[1])
        }


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a reader saw of one partition at one moment: versions by key, and the frontier it was told."""

    at: float
    frontier: int
    versions: Mapping[str, int]


COMPLETE = "Complete: once ready, every object of a followed resource is held, and nothing else"
SUBSEQUENCE = (
    "Subsequence: the states a reader sees of one object are a subsequence of the API server's, "
    "never backwards"
)
NO_GAP = "No gap: a watcher sees the last state of every object"
NO_DOUBLE = "No double: one object is served by exactly one partition; a list never shows it twice"
SNAPSHOT_PAGES = "Snapshot pages: the pages of one list are one state"
HONEST = "Honest: an answer says how fresh it is"


def complete(held: Mapping[str, int], wanted: Mapping[str, int], *, where: str) -> None:
    """At rest: what is held equals what the server has, by key and version."""
    for key in sorted(wanted.keys() | held.keys()):
        if held.get(key) != wanted.get(key):
            seen = f"{where} holds {key} at {held.get(key)}, the server has it at {wanted.get(key)}"
            raise GuaranteeBroken(COMPLETE, seen)


def subsequence(sightings: Sequence[Sighting], past: Past, *, where: str) -> None:
    """One reader's sightings in order: frontier and objects never go back, and every state did exist."""
    newest: dict[str, int] = {}
    frontier = 0
    for sighting in sightings:
        if sighting.frontier < frontier:
            seen = f"the frontier of {where} went from {frontier} back to {sighting.frontier}"
            raise GuaranteeBroken(SUBSEQUENCE, seen)
        frontier = sighting.frontier
        for key, version in sighting.versions.items():
            state = past.at(key, version)
            if state is None or state[0] != version:
                seen = f"{where} showed {key} at {version}, which the server never had"
                raise GuaranteeBroken(SUBSEQUENCE, seen)
            if version < newest.get(key, 0):
                seen = f"{where} showed {key} at {version} after {newest[key]}, at {sighting.at:.3f} s"
                raise GuaranteeBroken(SUBSEQUENCE, seen)
            newest[key] = version
        for key in newest.keys() - sighting.versions.keys():
            # Gone at this version; if it comes back, then as a newer one.
            newest[key] = max(newest[key], frontier + 1)


def snapshot(sighting: Sighting, past: Past, admits: Callable[[str, str], bool], *, where: str) -> None:
    """All objects of one list are the server's state at the version the list claims."""
    truth = past.all_at(sighting.frontier, admits)
    for key in sorted(truth.keys() | sighting.versions.keys()):
        if truth.get(key) != sighting.versions.get(key):
            seen = (
                f"{where} showed {key} at {sighting.versions.get(key)} in a list of version "
                f"{sighting.frontier}, when the server had it at {truth.get(key)}"
            )
            raise GuaranteeBroken(SNAPSHOT_PAGES, seen)


def snapshot_pages(pages: Iterable[tuple[int, Sequence[str]]], *, where: str) -> None:
    """The pages of one list claim one version, and their keys follow each other."""
    version, last = None, ""
    for number, (claimed, keys) in enumerate(pages, start=1):
        if version is not None and claimed != version:
            seen = f"page {number} of {where} is of version {claimed}, the one before it of {version}"
            raise GuaranteeBroken(SNAPSHOT_PAGES, seen)
        version = claimed
        for key in keys:
            if key <= last:
                seen = f"page {number} of {where} shows {key} after {last}"
                raise GuaranteeBroken(SNAPSHOT_PAGES, seen)
            last = key


def no_double(parts: Mapping[str, Iterable[str]]) -> None:
    """The keys of a resource's partitions have nothing in common."""
    owners: dict[str, str] = {}
    for part, keys in parts.items():
        for key in keys:
            if key in owners:
                raise GuaranteeBroken(NO_DOUBLE, f"{key} is held by {owners[key]} and by {part}")
            owners[key] = part


def no_gap(events: Sequence[tuple[str, int, bool]], wanted: Mapping[str, int], *, where: str) -> None:
    """A watcher's events (key, version, deleted) in order, from nothing on, add up to what there is at the
    end."""
    result: dict[str, int] = {}
    newest: dict[str, int] = {}
    for key, version, deleted in events:
        if version <= newest.get(key, 0):
            raise GuaranteeBroken(NO_GAP, f"{where} was sent {key} at {version} after {newest[key]}")
        newest[key] = version
        if deleted:
            result.pop(key, None)
        else:
            result[key] = version
    for key in sorted(result.keys() | wanted.keys()):
        if result.get(key) != wanted.get(key):
            seen = f"{where} last saw {key} at {result.get(key)}, the server has it at {wanted.get(key)}"
            raise GuaranteeBroken(NO_GAP, seen)


def honest(sighting: Sighting, past_newest: int, *, where: str) -> None:
    """Nobody claims a version the server has not reached."""
    if sighting.frontier > past_newest:
        seen = f"{where} claimed version {sighting.frontier} when the server was at {past_newest}"
        raise GuaranteeBroken(HONEST, seen)
