"""What each receiver was told and has not heard the end of: kept in the state file over restarts. Pure.

Only what was delivered counts. A receiver that could not be reached is told after a restart what it has missed, and one
that is new is told everything; the end of a finding is told to those that know of it, and to nobody else. What was
delivered right before the monitor was killed, and was not saved yet, is told twice: better than not at all.

The whole finding is kept, and not its identity alone: Alertmanager wants its text until the end. Findings have no
secrets in them (`secrets`). `grouping` makes use of it for each receiver, `correlation` for since when a finding has
lasted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from .findings import Finding, Identity, Telling
from .grouping import Notification
from .lastgood import FORMAT, StateInvalid


class Entry(msgspec.Struct, frozen=True):
    """A receiver, in the state file."""

    receiver: str
    tellings: tuple[Telling, ...]


class _File(msgspec.Struct, frozen=True):
    """What is read here of the state file; `lastgood` reads the rest."""

    told: tuple[Entry, ...] = ()


class Heard:
    """What one receiver has heard of, and not the end. `changes` counts what happened to it."""

    def __init__(self, tellings: Iterable[Telling] = ()) -> None:
        self._by_identity = {telling.finding.identity: telling for telling in tellings}
        self.changes = 0

    @property
    def tellings(self) -> Sequence[Telling]:
        """What was told last of each finding, in order."""
        return sorted(self._by_identity.values(), key=lambda one: one.finding.identity)

    @property
    def identities(self) -> Collection[Identity]:
        """Of these findings it has heard."""
        return self._by_identity.keys()

    def delivered(self, notification: Notification, now: float) -> None:
        """It took a notification."""
        for finding in notification.firing:
            self._by_identity[finding.identity] = Telling(finding, now)
        self._ended(notification)
        self.changes += 1

    def lasting(self, findings: Iterable[Finding], now: float) -> None:
        """It was sent again what lasts."""
        for finding in findings:
            known = self._by_identity.get(finding.identity)
            if known is None or known.finding != finding:
                self._by_identity[finding.identity] = Telling(finding, now)
                self.changes += 1

    def given_up(self, notification: Notification) -> None:
        """A notification was dropped: nobody is going to tell these ends any more."""
        self._ended(notification)
        self.changes += 1

    def _ended(self, notification: Notification) -> None:
        for resolved in notification.resolved:
            # Also where the finding has come back in another group meanwhile: then that is told again.
            known = self._by_identity.get(resolved.finding.identity)
            if known is not None and known.finding.severity == notification.group.severity:
                del self._by_identity[resolved.finding.identity]


class Told:
    """Receivers by name. What was read from a file is offered by `of` to the receivers that there still are."""

    def __init__(self) -> None:
        self._receivers: dict[str, Heard] = {}
        self._kept = 0

    @property
    def changes(self) -> int:
        """Grows with everything that happens, so that a writer knows."""
        return self._kept + sum(heard.changes for heard in self._receivers.values())

    def of(self, receiver: str) -> Heard:
        """What this receiver has heard; nothing if there was none of that name."""
        return self._receivers.setdefault(receiver, Heard())

    def keep(self, receivers: Collection[str]) -> None:
        """There are no others any more."""
        for name in set(self._receivers) - set(receivers):
            self._kept += 1 + self._receivers.pop(name).changes

    def findings(self) -> dict[Identity, Finding]:
        """What anybody was told of, as it was told last."""
        newest: dict[Identity, Telling] = {}
        for heard in self._receivers.values():
            for telling in heard.tellings:
                known = newest.get(telling.finding.identity)
                if known is None or known.at < telling.at:
                    newest[telling.finding.identity] = telling
        return {identity: telling.finding for identity, telling in sorted(newest.items())}

    def entries(self) -> tuple[Entry, ...]:
        """For a file."""
        return tuple(
            Entry(name, tuple(heard.tellings))
            for name, heard in sorted(self._receivers.items())
            if heard.tellings
        )

    @classmethod
    def of_entries(cls, entries: Iterable[Entry]) -> Told:
        """From a file."""
        made = cls()
        made._receivers = {entry.receiver: Heard(entry.tellings) for entry in entries}
        return made

    @classmethod
    def decode(cls, encoded: bytes) -> Told:
        """From a state file, whose good states have been read.

        Raises:
            StateInvalid: this part of it is damaged, or it was written by a version that did not have it.
        """
        try:
            found: Any = msgspec.json.decode(encoded)
            if found.get("format") != FORMAT:
                raise StateInvalid("an earlier version of the monitor wrote it")
            return cls.of_entries(msgspec.convert(found, _File).told)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StateInvalid(f"it is damaged: {error}") from error
