"""What to send so that an object is as it was when it was good, and how often that may be done. Pure.

Only fields that the settings name are touched, and the request carries the resource version that was looked at: if
anybody writes in between, the server refuses (409) and it is looked at again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from .diff import ShownChange, diff, same, shown
from .documents import ABSENT, dig, parts
from .facts import REMOVAL_APPROVED, Place
from .findings import Subject
from .settings import Rollback
from .view import View

MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
HOUR_S = 3600.0
FIELD_MANAGER = "shoal-gateway-monitor"


class Plan(msgspec.Struct, frozen=True):
    """A request that puts an object back."""

    subject: Subject
    method: str
    path: str
    content_type: str
    body: bytes
    changes: tuple[ShownChange, ...]
    """From the state it is in to the good one, without secrets."""
    version: str
    """What it is based on; "" for an object that is made again."""


def plan(view: View, subject: Subject, settings: Rollback) -> Plan | None:
    """How to put an object back; None if nothing that may be put back differs, or nothing good is known."""
    plural, _, group = subject.resource.partition(".")
    restore = settings.restore.get(plural)
    place = Place(subject.namespace, subject.name)
    good = view.good.get(subject.resource, place)
    if restore is None or good is None or group != view.settings.group:
        return None
    facts = view.facts(subject)
    api_version = (facts or good.facts).api_version or f"{group}/v1"
    collection = (
        f"/apis/{api_version}" + (f"/namespaces/{place.namespace}" if place.namespace else "") + f"/{plural}"
    )
    if facts is None:
        if not restore.recreate:
            return None
        document = {
            "apiVersion": api_version,
            "kind": good.facts.kind,
            "metadata": {
                "name": place.name,
                **({"namespace": place.namespace} if place.namespace else {}),
                "labels": dict(good.facts.labels),
                "annotations": {
                    name: value for name, value in good.facts.annotations.items() if name != REMOVAL_APPROVED
                },
            },
            "spec": good.facts.spec,
        }
        changes = tuple(shown(one) for one in diff(ABSENT, good.facts.spec, ("spec",)))
        return Plan(subject, "POST", collection, JSON, msgspec.json.encode(document), changes, "")
    patch: dict[str, Any] = {}
    changes = ()
    for path in map(parts, restore.fields):
        now, before = dig(facts.document, *path), dig(good.facts.document, *path)
        found = diff(now, before, path)
        if found:
            changes += tuple(shown(one) for one in found)
            _put(patch, path, merge_patch(now, before))
    if not patch:
        return None
    version = str(view.gateway[subject.resource].version(place))
    _put(patch, ("metadata", "resourceVersion"), version)
    body = msgspec.json.encode(patch)
    return Plan(subject, "PATCH", f"{collection}/{place.name}", MERGE_PATCH, body, changes, version)


def merge_patch(now: Any, wanted: Any) -> Any:
    """The patch (RFC 7386) that makes `wanted` of `now`. A null in a mapping of `wanted` becomes no field at all."""
    if wanted is ABSENT:
        return None
    if not isinstance(wanted, Mapping):
        return wanted
    before = now if isinstance(now, Mapping) else {}
    made: dict[str, Any] = {name: None for name in before if name not in wanted}
    for name, value in wanted.items():
        if name not in before or not same(before[name], value):
            made[name] = merge_patch(before.get(name, ABSENT), value)
    return made


def _put(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        document = document.setdefault(name, {})
    document[path[-1]] = value


class Budget:
    """How often one object was put back within the last hour. Bounded by the number of objects put back in an hour."""

    def __init__(self, per_hour_max: int) -> None:
        self._most = per_hour_max
        self._spent: dict[Subject, deque[float]] = {}

    def free_at(self, subject: Subject, now: float) -> float:
        """When the object may be put back: `now`, or later."""
        spent = self._recent(subject, now)
        return now if len(spent) < self._most else spent[0] + HOUR_S

    def spend(self, subject: Subject, now: float) -> int:
        """It is put back now; how often that makes within the hour."""
        for other in list(self._spent):
            if not self._recent(other, now):
                del self._spent[other]
        spent = self._spent.setdefault(subject, deque())
        spent.append(now)
        return len(spent)

    def _recent(self, subject: Subject, now: float) -> deque[float]:
        spent = self._spent.get(subject, deque())
        while spent and spent[0] + HOUR_S <= now:
            spent.popleft()
        return spent
