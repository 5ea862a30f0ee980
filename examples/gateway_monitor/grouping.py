"""When people are told of what: findings are held, gathered in groups, and not repeated. Pure.

A group is a severity and a namespace. What happens to a finding, from left to right::

    opened --hold_s--> waits --group_wait_s--> told --repeat_s--> told again ...      resolved --> told, or forgotten

- A finding that is over before anybody was told is never told of.
- One that is over and back before its end was told has not happened.
- A change is told if it is one of severity, summary or diff. Other details, such as which pods are not ready, change
  all the time while things are bad; they wait for the next repetition.
- A group that is due takes along whatever else waits in it.
- What was told before a restart says nothing until it is found again, or is over. Found again as it was told, it is
  only to be repeated; with another text, or over, it is told as if there had been no restart.

Each receiver has a grouper of its own, because after a restart some may know what others do not.

The number of findings is bounded by the number of objects, and so is what is remembered here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from .findings import Changed, Check, Finding, Identity, Opened, Resolved, Severity, Telling, Transition


class Group(msgspec.Struct, frozen=True, order=True):
    """What is told of together."""

    severity: Severity
    namespace: str

    def __str__(self) -> str:
        return f"{self.severity} in {self.namespace}" if self.namespace else self.severity


class Notification(msgspec.Struct, frozen=True):
    """What people are to be told of one group, at one time."""

    group: Group
    firing: tuple[Finding, ...] = ()
    """New, changed, or to be repeated; oldest first."""
    resolved: tuple[Resolved, ...] = ()
    repeated: bool = False
    """Nothing in it is new."""


class _Member(msgspec.Struct):
    """A finding in its group."""

    finding: Finding
    due: float
    """When it is to be told next."""
    told: Finding | None = None
    """As it was told last."""
    over: Resolved | None = None
    awaited: bool = False
    """It was told before a restart; nobody has looked since."""


class Grouper:
    """Gathers transitions to notifications."""

    def __init__(
        self,
        *,
        group_wait_s: float,
        repeat_s: float,
        hold_s: Mapping[Check, float],
        told: Iterable[Telling] = (),
    ) -> None:
        """`told` was told before, and not its end."""
        self._group_wait_s = group_wait_s
        self._repeat_s = repeat_s
        self._hold_s = hold_s
        self._groups: dict[Group, dict[Identity, _Member]] = {}
        self._group_of: dict[Identity, Group] = {}
        for telling in told:
            finding = telling.finding
            group = _group_of(finding)
            self._groups.setdefault(group, {})[finding.identity] = _Member(
                finding, telling.at + repeat_s, finding, awaited=True
            )
            self._group_of[finding.identity] = group

    @property
    def next_at(self) -> float | None:
        """When `due` will have something to say; None: not before something happens."""
        return min((member.due for member in self._members() if not member.awaited), default=None)

    @property
    def told(self) -> list[Finding]:
        """Findings that somebody was told of and that are not over; those of before a restart if they were found."""
        return [
            member.told
            for member in self._members()
            if member.told is not None and member.over is None and not member.awaited
        ]

    @property
    def awaited(self) -> list[Finding]:
        """Findings that somebody was told of before a restart, and of which it is not known whether they last."""
        return [member.finding for member in self._members() if member.awaited]

    def offer(self, transitions: Iterable[Transition], now: float) -> None:
        """Something happened to findings."""
        for transition in transitions:
            match transition:
                case Opened(finding=finding) | Changed(finding=finding):
                    self._present(finding, now)
                case Resolved():
                    self._over(transition, now)

    def due(self, now: float) -> list[Notification]:
        """What is to be told now; it then counts as told."""
        made = []
        for group in sorted(self._groups):
            members = self._groups[group]
            if any(member.due <= now and not member.awaited for member in members.values()):
                notification = self._told(group, members, now)
                if notification.firing or notification.resolved:
                    made.append(notification)
            if not members:
                del self._groups[group]
        return made

    # -- inside ----------------------------------------------------------------------------------------------

    def _members(self) -> Iterable[_Member]:
        return (member for members in self._groups.values() for member in members.values())

    def _present(self, finding: Finding, now: float) -> None:
        identity = finding.identity
        group = _group_of(finding)
        before = self._group_of.get(identity)
        if before is not None and before != group:
            # Of another severity now: it leaves its group as if it was over, and comes new into the other.
            self._over(Resolved(self._groups[before][identity].finding, now), now)
        members = self._groups.setdefault(group, {})
        self._group_of[identity] = group
        member = members.get(identity)
        if member is None:
            hold_s = self._hold_s.get(finding.check, 0.0)
            members[identity] = _Member(finding, max(now, finding.since + hold_s) + self._group_wait_s)
            return
        member.finding, was_over, member.over = finding, member.over is not None, None
        if member.told is None:
            return
        if member.awaited:
            # Not at once if it is late, so that others come along; nor never, should the clock have gone back.
            member.awaited = False
            member.due = min(max(member.due, now + self._group_wait_s), now + self._repeat_s)
        if _worth_telling(member.told, finding):
            member.due = min(member.due, now + self._group_wait_s)
        elif was_over:
            member.due = now + self._repeat_s

    def _over(self, resolved: Resolved, now: float) -> None:
        identity = resolved.finding.identity
        group = self._group_of.pop(identity, None)
        if group is None:
            return
        members = self._groups[group]
        member = members[identity]
        if member.told is None:
            del members[identity]
            if not members:
                del self._groups[group]
            return
        if member.awaited:
            # As this receiver knows it: others may have been told something newer.
            resolved, member.awaited = Resolved(member.finding, resolved.at), False
        member.over = resolved
        member.due = now + self._group_wait_s
        # Looked up again if it comes back before this was told.
        self._group_of[identity] = group

    def _told(self, group: Group, members: dict[Identity, _Member], now: float) -> Notification:
        firing: list[Finding] = []
        resolved: list[Resolved] = []
        new = False
        for identity, member in list(members.items()):
            if member.over is not None:
                resolved.append(member.over)
                del members[identity]
                if self._group_of.get(identity) == group:
                    del self._group_of[identity]
            elif not member.awaited and (member.due <= now or self._waits(member, now)):
                new = new or member.told is None or _worth_telling(member.told, member.finding)
                firing.append(member.finding)
                member.told, member.due = member.finding, now + self._repeat_s
        firing.sort(key=lambda one: (one.since, one.identity))
        return Notification(group, tuple(firing), tuple(resolved), repeated=not new and not resolved)

    def _waits(self, member: _Member, now: float) -> bool:
        """It is held no longer, and only waits for others: they are here."""
        if member.told is not None:
            return _worth_telling(member.told, member.finding)
        return now >= member.finding.since + self._hold_s.get(member.finding.check, 0.0)


def _group_of(finding: Finding) -> Group:
    return Group(finding.severity, finding.subject.namespace)


def _worth_telling(told: Finding, finding: Finding) -> bool:
    return (told.severity, told.summary, told.changes) != (finding.severity, finding.summary, finding.changes)


def merged(earlier: Notification, later: Notification, *, known: Collection[Identity] = ()) -> Notification:
    """One notification for two of the same group, the earlier of which has not been delivered.

    `known` are findings that the receiver has heard of all the same, before.
    """
    firing = {finding.identity: finding for finding in earlier.firing}
    resolved = {one.finding.identity: one for one in earlier.resolved}
    for one in later.resolved:
        # Nobody has heard that it was there, unless its beginning was told before.
        if firing.pop(one.finding.identity, None) is None or one.finding.identity in known:
            resolved[one.finding.identity] = one
    for finding in later.firing:
        firing[finding.identity] = finding
        resolved.pop(finding.identity, None)
    return Notification(
        later.group, tuple(firing.values()), tuple(resolved.values()), earlier.repeated and later.repeated
    )
