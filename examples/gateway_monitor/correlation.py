"""The correlation model: deliveries of objects in, findings that open, change and end out. Pure.

`Model.take` may be given deliveries in any order, several times, late: the same deliveries lead to the same world, the
same good states and the same findings (`world`, `lastgood` say how). `Model.evaluate` then looks at what may have
changed since the last time. Which findings there are is a function of what is known (`checks`); the only thing the
model remembers about a finding is since when. That it may also be given, of findings from before a restart
(`remembered`): one that is found again has lasted since then, and one that is not is over, once it could have been.

Nothing is evaluated before its resource is `complete`, and all that it is measured against: a route whose service is
not known *yet* is not down. What is `out_of_sight` is not waited for: judged is what follows from the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from .checks import findings_of
from .documents import Document
from .facts import Place
from .findings import Changed, Check, Finding, Identity, Opened, Resolved, Subject, Transition
from .lastgood import LastGood
from .settings import Checks
from .view import PODS, SERVICES, SLICES, View
from .world import Delivery


class Model:
    """All that is known, and what is wrong with it.

    `good` are last good states from before, if there are any. `incomplete` are resources of which not everything is
    known yet.
    """

    def __init__(
        self,
        settings: Checks | None = None,
        good: LastGood | None = None,
        *,
        incomplete: Iterable[str] = (),
        remembered: Mapping[Identity, Finding] | None = None,
    ) -> None:
        self.settings = settings or Checks()
        self.good = good if good is not None else LastGood()
        self.view = View(self.settings, self.good)
        self._remembered = dict(remembered or {})
        """Findings from before a restart, until they are found again or are over."""
        self._looked_for: set[Check] = set()
        """Checks whose findings have been found by now, if they are there."""
        self._open: dict[Identity, Finding] = {}
        self._by_subject: dict[Subject, set[Identity]] = {}
        self._noted: dict[Identity, Finding | None] = {}
        self._removed: dict[Subject, float] = {}
        self._incomplete = set(incomplete)
        # What was good and is not there any more is not going to be delivered.
        self._dirty = {
            Subject(resource, place.namespace, place.name) for resource, place, _ in self.good.items()
        }

    @property
    def findings(self) -> Mapping[Identity, Finding]:
        """Everything that was wrong when it was evaluated last."""
        return self._open

    @property
    def dirty(self) -> bool:
        """Something was delivered or noted since then, or could not be evaluated yet."""
        return bool(self._dirty or self._noted)

    # -- events ----------------------------------------------------------------------------------------------

    def added(self, resource: str, document: Document, now: float) -> None:
        """An object is there."""
        self.take(delivery_of(resource, document), now)

    def updated(self, resource: str, old: Document, new: Document, now: float) -> None:
        """An object has changed."""
        self.take(delivery_of(resource, new, replaces=delivery_of(resource, old).version), now)

    def deleted(self, resource: str, document: Document, now: float) -> None:
        """An object is gone; `document` is what it was last, or what is known of that."""
        self.take(delivery_of(resource, document, deleted=True), now)

    def take(self, delivery: Delivery, now: float) -> None:
        """Any of these."""
        self._dirty |= self.view.take(delivery, now)

    def replaced(self, resource: str, documents: Iterable[Document], now: float) -> None:
        """These are all objects of a resource, whatever was said before: the server has lost its past."""
        register = self.view.register(resource)
        register.expire(now + 1)
        there = set()
        for document in documents:
            delivery = delivery_of(resource, document)
            there.add(delivery.place)
            known = register.version(delivery.place)
            self.take(msgspec.structs.replace(delivery, replaces=known), now)
        for place, version in register.versions():
            if place not in there:
                # Nothing is known of its last state; {} says nothing that could be taken for good.
                self.take(Delivery(resource, place, version, {}, deleted=True), now)
        register.expire(now + 1)

    def complete(self, *resources: str) -> None:
        """Everything there is of these resources has been delivered, or there are no such resources."""
        self._incomplete.difference_update(resources)

    def looked_for(self, checks: Collection[Check]) -> None:
        """Everything was looked at that these checks look at, but for what is not complete: what is remembered of them
        and has not been found by the next evaluation is over.
        """
        self._looked_for.update(checks)

    def out_of_sight(self, resource: str, unseen: bool) -> None:  # noqa: FBT001 - read as a sentence
        """The resource cannot be read, or can be again. Meanwhile nothing follows from an object not being there."""
        if unseen == (resource in self.view.unseen):
            return
        (self.view.unseen.add if unseen else self.view.unseen.discard)(resource)
        self._dirty |= self.view.subjects()

    def note(self, finding: Finding) -> None:
        """Something is wrong that does not follow from objects: a rollback given up, a resource that cannot be read."""
        self._noted[finding.identity] = finding

    def withdraw(self, identity: Identity) -> None:
        """What was noted is over."""
        if identity in self._open or identity in self._noted:
            self._noted[identity] = None

    # -- findings --------------------------------------------------------------------------------------------

    def evaluate(self, now: float) -> list[Transition]:
        """What has changed about findings since the last time. `now`: seconds since 1970."""
        self._forget(now)
        dirty = {subject for subject in self._dirty if not self._waits_for(subject)}
        self._dirty -= dirty
        transitions: list[Transition] = []
        for subject in sorted(dirty):
            found = {finding.identity: finding for finding in findings_of(self.view, subject)}
            transitions += self._settle(subject, found, now)
            self._remember_removal(subject, now)
        noted, self._noted = self._noted, {}
        for identity, finding in sorted(noted.items(), key=lambda item: item[0]):
            transitions += self._moved(identity, finding, now)
        return [*transitions, *self._not_found_again(now)]

    def _not_found_again(self, now: float) -> list[Transition]:
        over = [
            identity
            for identity in sorted(self._remembered)
            if identity.check in self._looked_for and not self._waits_for(identity.subject)
        ]
        return [Resolved(self._remembered.pop(identity), now) for identity in over]

    def _waits_for(self, subject: Subject) -> set[str]:
        """Resources that are not known well enough to judge it."""
        explaining = {SERVICES, SLICES, PODS} if subject.resource == self.view.routes else {self.view.routes}
        return self._incomplete & {subject.resource, *(explaining - self.view.unseen)}

    def _settle(self, subject: Subject, found: Mapping[Identity, Finding], now: float) -> list[Transition]:
        known = self._by_subject.get(subject, set())
        transitions: list[Transition] = []
        for identity in sorted({*known, *found}):
            transitions += self._moved(identity, found.get(identity), now)
        if found:
            self._by_subject[subject] = set(found)
        else:
            self._by_subject.pop(subject, None)
        return transitions

    def _moved(self, identity: Identity, finding: Finding | None, now: float) -> list[Transition]:
        known = self._open.get(identity)
        if finding is not None and not finding.api_version:
            version = self.view.api_version(identity.subject)
            finding = msgspec.structs.replace(finding, api_version=version)
        if finding is None:
            self._open.pop(identity, None)
            return [] if known is None else [Resolved(known, now)]
        if known is None:
            remembered = self._remembered.pop(identity, None)
            # Not after now: the clock may have been set.
            since = now if remembered is None else min(remembered.since, now)
            self._open[identity] = opened = msgspec.structs.replace(finding, since=since)
            return [Opened(opened)]
        if known.says_the_same_as(finding):
            return []
        self._open[identity] = changed = msgspec.structs.replace(finding, since=known.since)
        return [Changed(changed)]

    # -- forgetting ------------------------------------------------------------------------------------------

    def _remember_removal(self, subject: Subject, now: float) -> None:
        place = Place(subject.namespace, subject.name)
        if self.view.facts(subject) is None and self.good.get(subject.resource, place) is not None:
            self._removed.setdefault(subject, now)
        else:
            self._removed.pop(subject, None)

    def _forget(self, now: float) -> None:
        self.view.expire(now - self.settings.tombstone_s)
        before = now - self.settings.forget_removed_s
        for subject in [one for one, at in self._removed.items() if at < before]:
            del self._removed[subject]
            self.good.forget(subject.resource, Place(subject.namespace, subject.name))
            self.view.link(subject)
            self._dirty.add(subject)


def delivery_of(
    resource: str, document: Document, *, replaces: int | None = None, deleted: bool = False
) -> Delivery:
    """What an informer says, about the object that a document is."""
    metadata = document.get("metadata") or {}
    place = Place(str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))
    version = str(metadata.get("resourceVersion") or "0")
    return Delivery(
        resource,
        place,
        int(version) if version.isdecimal() else 0,
        document,
        deleted=deleted,
        replaces=replaces,
    )
