"""What one watcher has rebuilt, and what every line it is sent must be like.

The rules are those an informer relies on.

- *Never back*: the versions shown of one object only grow.
- *Sense*: within a stream ADDED is of an object that is not there, MODIFIED and DELETED of one that is. Where the
  resource is cut into several partitions, lines up to the first bookmark may repeat what is known (the newest state
  of an object is sent, whatever of it the client had already seen), and say nothing of whether the client has it. That
  an object has gone may be said again by any of the partitions it was in, however long ago, to a client without it.
- *Selected*: what is shown matches the selectors.
- *True*: the server had the object in that very state at that version.
- *Honest*, *No gap*: who is told that everything up to a version has been sent has been sent it.

A broken rule raises `OracleBroken` with the watcher's last lines.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from support.watcher_oracle_flavours import Flavour
from support.watcher_oracle_truth import Seen, Truth

STORY_LINES = 60


class OracleBroken(AssertionError):  # noqa: N818 - reads as what happened
    """A watcher was told something no API server would have told it."""


@dataclass(frozen=True)
class Memory:
    """A state a client may have written down, and the version it would come back with."""

    objects: Mapping[str, Seen]
    newest: Mapping[str, int]
    version: int


@dataclass
class Replica:
    """The objects of one watcher."""

    flavour: Flavour
    where: str
    clock: Callable[[], float]
    truth: Truth | None = None
    """None where the server is another process: then only what lines say of themselves is judged."""
    divided: bool = False
    """What is watched is served from several partitions."""
    cut: bool = False
    """The resource is, of which what is watched may be one: whoever resumes at a version that was shown of several is
    told again what came late, because nobody knows what the version was shown of."""
    objects: dict[str, Seen] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)
    """The newest version shown of every object, of its removal as well."""
    version: int = 0
    """Where to resume: what the last line said."""
    lines: int = 0
    repeated: int = 0
    """Lines that told what was known."""
    story: deque[str] = field(default_factory=lambda: deque(maxlen=STORY_LINES))
    _floor: dict[str, int] = field(default_factory=dict)
    """Of a client that begins afresh: what it had been shown before."""
    _settled: bool = False
    """A bookmark has come: this stream does not repeat anything any more."""
    _bookmark: int = 0

    def note(self, what: str) -> None:
        """One line of the story that failures print."""
        self.story.append(f"{self.clock():9.3f} {what}")

    def fail(self, promise: str, seen: str) -> NoReturn:
        """Raises OracleBroken."""
        told = "\n  ".join(self.story)
        raise OracleBroken(f"{promise}: {self.where} ({self.flavour.name}) {seen}\n  {told}")

    def remember(self) -> Memory:
        """A state to come back to."""
        return Memory(dict(self.objects), dict(self.newest), self.version)

    def forget_since(self, memory: Memory) -> None:
        """Goes on as a client that was restarted and had written down `memory`."""
        self.objects, self.newest = dict(memory.objects), dict(memory.newest)
        self.version = memory.version

    def afresh(self) -> None:
        """Goes on with nothing, and expects everything to be sent."""
        self._floor, self.newest, self.objects = {**self._floor, **self.newest}, {}, {}

    # -- lists -----------------------------------------------------------------------------------------------

    def replace(self, listed: Mapping[str, Seen], version: int, *, demanded: int = 0) -> None:
        """A complete list, of a LIST or of initial events, in the place of everything before."""
        self.note(f"a list of {len(listed)} at {version}")
        if version < demanded:
            self.fail("Honest", f"was given a list of {version} and had demanded {demanded}")
        for state in listed.values():
            self._shown(state)
            if state.version < self.newest.get(state.key, 0):
                self.fail(
                    "Never back", f"was listed {state.key} at {state.version} after {self.newest[state.key]}"
                )
        self.objects = dict(listed)
        self.newest |= {key: state.version for key, state in listed.items()}
        self.version = version
        self._complete(version, f"a list of {version}")

    def collect(self, initial: dict[str, Seen], kind: str, state: Seen) -> None:
        """A line of a streaming list that is not complete yet."""
        self.lines += 1
        self.note(f"{kind} {state.key} {state.version} (initial)")
        known = initial.get(state.key)
        if (kind == "ADDED") != (known is None) and not self.divided:
            self.fail("Sense", f"was sent {kind} {state.key} in a streaming list that had it at {known}")
        if known is not None and state.version < known.version + (not self.divided):
            self.fail("Never back", f"was sent {kind} {state.key} at {state.version} after {known.version}")
        if kind == "DELETED":
            self._removed(state)
            initial.pop(state.key, None)
        else:
            self._shown(state)
            initial[state.key] = state

    def begins(self) -> None:
        """A new stream."""
        self._settled = False
        self._bookmark = 0

    # -- lines -----------------------------------------------------------------------------------------------

    def apply(self, kind: str, state: Seen) -> None:
        """ADDED, MODIFIED or DELETED."""
        self.lines += 1
        key, version = state.key, state.version
        self.note(f"{kind} {key} {version}")
        if not self.flavour.shows(state):
            self.fail("Selected", f"was sent {kind} of {state}, which its selectors leave out")
        before = self.newest.get(key, 0)
        lenient = self.cut and not self._settled
        known = self.objects.get(key)
        if lenient and kind == "DELETED" and known is None:
            self._removed(state)
            self.repeated += version <= before
            self.newest[key], self.version = max(before, version), version
            return
        if version < self._floor.get(key, 0):
            self.fail("Never back", f"was sent {kind} {key} at {version} after {self._floor[key]}")
        if version < before or (version == before and not lenient):
            self.fail("Never back", f"was sent {kind} {key} at {version} after {before}")
        self.repeated += version == before
        if not lenient:
            if kind == "ADDED" and known is not None:
                self.fail("Sense", f"was sent ADDED {key} at {version} and had it at {known.version}")
            if kind != "ADDED" and known is None:
                self.fail("Sense", f"was sent {kind} {key} at {version} and did not have it")
        if kind == "DELETED":
            self._removed(state)
            self.objects.pop(key, None)
        else:
            self._shown(state)
            self.objects[key] = state
        self.newest[key] = version
        self.version = version

    def bookmark(self, version: int) -> None:
        """Everything up to `version` has been sent."""
        self.lines += 1
        self.note(f"BOOKMARK {version}")
        if version < self._bookmark:
            self.fail("Honest", f"was sent a bookmark of {version} after one of {self._bookmark}")
        self._bookmark = self.version = version
        self._settled = True
        # Of several partitions a bookmark says where a client may come back, not that all were heard: see
        # `cluster.watching.lanes`.
        if not self.divided:
            self._complete(version, f"a bookmark of {version}")

    # -- judgement -------------------------------------------------------------------------------------------

    def _shown(self, state: Seen) -> None:
        """An object as it is."""
        if not self.flavour.shows(state):
            self.fail("Selected", f"was shown {state}, which its selectors leave out")
        if self.truth is None:
            return
        past = self.truth.at(state.key, state.version)
        if past is None or past.version != state.version or past.uid != state.uid:
            self.fail("True", f"was shown {state}; the server had {past} at that version")
        if past is not None and not self.flavour.wants(past):
            self.fail("Selected", f"was shown {state}, which its selectors leave out at that version")

    def _removed(self, state: Seen) -> None:
        """A last state, at the version of what removed it."""
        if self.truth is None:
            return
        past = self.truth.at(state.key, state.version)
        if state.version > self.truth.revision:
            self.fail(
                "Honest", f"was told of a removal at {state.version}; the server is at {self.truth.revision}"
            )
        if past is not None and self.flavour.wants(past) and past.uid == state.uid:
            # What a list revealed carries a version from before the list, which may be from before the removal.
            if self._gone_after(state.key, state.version):
                return
            self.fail("True", f"was told that {state} has gone; the server had {past} at that version")

    def _complete(self, version: int, claim: str) -> None:
        """Whoever was told `claim` knows of everything up to that version."""
        if self.truth is None:
            return
        if version > self.truth.revision:
            self.fail("Honest", f"was sent {claim}; the server is at {self.truth.revision}")
        for key, changed, state in self.truth.moments(version):
            known = self.objects.get(key)
            if known is not None and known.version >= changed:
                continue
            if state is not None and self.flavour.wants(state):
                # Single objects may be newer than what is claimed of all: a list may know that one has gone since.
                if known is not None or not self._gone_after(key, changed):
                    self.fail("No gap", f"was sent {claim} and has {key} at {known}; the server had {state}")
            elif known is not None:
                self.fail("No gap", f"was sent {claim} and still has {known}, gone or changed at {changed}")

    def _gone_after(self, key: str, version: int) -> bool:
        assert self.truth is not None
        return any(state is None or not self.flavour.wants(state) for state in self.truth.later(key, version))

    def equals(self, wanted: Mapping[str, int]) -> str:
        """Empty if the rebuilt objects are these versions by key, else what differs."""
        for key in sorted(self.objects.keys() | wanted.keys()):
            known = self.objects.get(key)
            if (known.version if known else None) != wanted.get(key):
                return (
                    f"{self.where} ({self.flavour.name}) has {key} at {known and known.version}, "
                    f"the server has it at {wanted.get(key)}"
                )
        return ""
