"""The last good state of every custom resource of the gateway: what changes are measured against. Pure.

Which state is good is declared, not guessed:

- the state an object had when it was first seen is good, until
- a state is approved: its annotation ``shoal.dev/approved-generation`` is its own ``metadata.generation``. The
  approval of the latest generation counts, and of that generation the state that was approved first.

So a change is not made good by lasting, and neither is it by deleting the object and making it again. Whoever may
annotate may approve; where that is too many people, an admission policy has to say who may write this annotation.

All of it is chosen by one order over states (`_rank`), so neither duplicates nor the order of deliveries matter. States
that come from a file rank above those that are only seen: an object that was changed while nobody looked differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .facts import Approval, GatewayFacts, Place

FORMAT = "shoal-gateway-monitor/2"
"""Of the state file. Another one is not read: better no last good state than a wrong one."""
EARLIER = ("shoal-gateway-monitor/1",)
"""Formats whose good states are the same. The first had nothing of what people were told (`told`)."""
LIVES_MAX = 8
"""Of one name: objects that were deleted and made again."""


class StateInvalid(Exception):  # noqa: N818 - read as a sentence
    """A state file that cannot be used; the message says why."""


class GoodState(msgspec.Struct, frozen=True, kw_only=True):
    """A state of an object that may be good."""

    version: int
    facts: GatewayFacts
    remembered: bool = False
    """It comes from a file."""

    @property
    def approved(self) -> bool:
        """Somebody said that it is good; else it was only the first."""
        return self.facts.approval is not None


_NEVER = Approval("", 0, 0)


def _rank(state: GoodState) -> tuple[bool, Approval, bool, int]:
    """The highest is the good one: approved before first, later approvals before earlier, then what was first."""
    return state.approved, state.facts.approval or _NEVER, state.remembered, -state.version


class _Entry(msgspec.Struct, frozen=True):
    """One line of the state file."""

    resource: str
    place: Place
    version: int
    facts: GatewayFacts


class _File(msgspec.Struct, frozen=True):
    format: str
    states: tuple[_Entry, ...] = ()


class _Written(msgspec.Struct, frozen=True):
    format: str
    told: tuple[msgspec.Struct, ...]
    states: tuple[_Entry, ...]


class LastGood:
    """Good states by resource and place. `changes` counts what happened to them, so that a writer knows."""

    def __init__(self) -> None:
        self._lives: dict[tuple[str, Place], dict[str, GoodState]] = {}
        self._let_go: dict[tuple[str, Place], dict[str, None]] = {}
        """Uids whose deletion was approved, in order."""
        self.changes = 0

    def __len__(self) -> int:
        return len(self._lives)

    def get(self, resource: str, place: Place) -> GoodState | None:
        """The good state of whatever has this name, alive or not; None if there is none."""
        lives = self._lives.get((resource, place))
        return None if not lives else max(lives.values(), key=_rank)

    def offer(self, resource: str, place: Place, version: int, facts: GatewayFacts) -> None:
        """A state was seen; it is taken if it is better than the one of the same object."""
        key = (resource, place)
        if facts.uid in self._let_go.get(key, ()):
            return
        lives = self._lives.setdefault(key, {})
        offered, known = GoodState(version=version, facts=facts), lives.get(facts.uid)
        if known is None or _rank(offered) > _rank(known):
            lives[facts.uid] = offered
            self.changes += 1
        while len(lives) > LIVES_MAX:
            del lives[min(lives, key=lambda uid: _rank(lives[uid]))]

    def let_go(self, resource: str, place: Place, uid: str) -> None:
        """The deletion of this object was approved: nothing of it is good any more."""
        key = (resource, place)
        gone = self._let_go.setdefault(key, {})
        gone[uid] = None
        while len(gone) > LIVES_MAX:
            del gone[next(iter(gone))]
        lives = self._lives.get(key, {})
        if lives.pop(uid, None) is not None:
            self.changes += 1
        if not lives:
            self._lives.pop(key, None)

    def forget(self, resource: str, place: Place) -> None:
        """Nothing about this name is known any more."""
        self._let_go.pop((resource, place), None)
        if self._lives.pop((resource, place), None) is not None:
            self.changes += 1

    def items(self) -> Iterator[tuple[str, Place, GoodState]]:
        """Everything, each name once."""
        for (resource, place), lives in self._lives.items():
            yield resource, place, max(lives.values(), key=_rank)

    def encode(self, told: tuple[msgspec.Struct, ...] = ()) -> bytes:
        """For a file, with what people were `told`."""
        entries = tuple(
            _Entry(resource, place, state.version, state.facts)
            for resource, place, state in sorted(self.items(), key=lambda item: item[:2])
        )
        return msgspec.json.format(msgspec.json.encode(_Written(FORMAT, told, entries)), indent=1) + b"\n"

    @classmethod
    def decode(cls, encoded: bytes) -> LastGood:
        """From a file; what it has of what people were told is not looked at.

        Raises:
            StateInvalid: it is damaged, or of another format.
        """
        try:
            found: Any = msgspec.json.decode(encoded)
            spoken = found.get("format") if isinstance(found, dict) else None
            if spoken not in (FORMAT, *EARLIER):
                raise StateInvalid(f"its format is {spoken!r}: expected {FORMAT!r}")
            file = msgspec.convert(found, _File)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateInvalid(f"it is damaged: {error}") from error
        made = cls()
        for entry in file.states:
            state = GoodState(version=entry.version, facts=entry.facts, remembered=True)
            made._lives.setdefault((entry.resource, entry.place), {})[entry.facts.uid] = state
        return made
