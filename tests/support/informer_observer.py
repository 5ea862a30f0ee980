"""A handler that judges what it is told, by the promises informers make to handlers."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from support.guarantees import GuaranteeBroken, Past

from shoal.cluster.informers.objects import KubeObject

ALTERNATE = "Adds and deletes of one object alternate, and an update begins at the state told last"
NEVER_BACK = "The states of one object never go back"
TRUE = "Every state told is one that the server had"
INITIAL = "What was there at first is marked, and nothing else"
STORY_LINES = 80


class Seen(tuple[int, str, str]):
    """Version, uid and the label ``n`` of one state: no two writes give the same one."""

    __slots__ = ()

    @classmethod
    def of(cls, obj: KubeObject) -> Seen:
        return cls((int(obj.resource_version), obj.uid, obj.labels.get("n", "")))


class Observer:
    """The base: judges and remembers. It runs as fast as it is called."""

    kind = "fast"

    def __init__(self, name: str, past: Past, rng: random.Random, clock: Callable[[], float]) -> None:
        self.name = f"{self.kind} handler of {name}"
        self.past = past
        self.rng = rng
        self.clock = clock
        self.state: dict[str, Seen] = {}
        self.newest: dict[str, int] = {}
        self.story: deque[str] = deque(maxlen=STORY_LINES)
        self.has_synced: Callable[[], bool] = lambda: False
        """What its registration says."""
        self.calls = self.missed = self.initial = 0
        self.past_lost = False
        """The server may have been restored from a backup: its versions mean nothing."""

    def fail(self, promise: str, seen: str) -> NoReturn:
        raise GuaranteeBroken(promise, f"{self.name} {seen}\n  " + "\n  ".join(self.story))

    def note(self, what: str) -> None:
        self.calls += 1
        self.story.append(f"{self.clock():9.3f} {what}")

    def added(self, obj: KubeObject, is_initial: bool) -> None:
        key, seen = obj.key, Seen.of(obj)
        self.note(f"add {key} {seen[0]}{' initial' if is_initial else ''}")
        if key in self.state:
            self.fail(ALTERNATE, f"was told twice that {key} is there")
        if is_initial == self.has_synced():
            self.fail(
                INITIAL,
                f"was told that {key} is {'' if is_initial else 'not '}initial; synced: {not is_initial}",
            )
        self.initial += is_initial
        self._shows(key, seen, at_least=1)
        self.state[key] = seen

    def updated(self, old: KubeObject, new: KubeObject) -> None:
        key, seen = new.key, Seen.of(new)
        self.note(f"update {key} {old.resource_version} -> {seen[0]}")
        if self.state.get(key) != Seen.of(old):
            self.fail(ALTERNATE, f"was told of {key} {Seen.of(old)} -> {seen}, and had {self.state.get(key)}")
        if old.uid != new.uid:
            self.fail(ALTERNATE, f"was told of an update of {key} to another object")
        self._shows(key, seen, at_least=0)
        self.state[key] = seen

    def deleted(self, obj: KubeObject, last_state_known: bool) -> None:
        key, version = obj.key, int(obj.resource_version)
        self.note(f"delete {key} {version}{'' if last_state_known else ' missed'}")
        known = self.state.pop(key, None)
        if known is None:
            self.fail(ALTERNATE, f"was told that {key} is gone, and did not have it")
        if known[1] != obj.uid:
            self.fail(ALTERNATE, f"was told that another {key} is gone than it had")
        self.missed += not last_state_known
        if not self.past_lost and version < self.newest[key] + last_state_known:
            self.fail(NEVER_BACK, f"was told of the end of {key} at {version} after {self.newest[key]}")
        self.newest[key] = version

    def _shows(self, key: str, seen: Seen, *, at_least: int) -> None:
        if self.past_lost:
            self.newest[key] = seen[0]
            return
        if seen[0] < self.newest.get(key, 0) + at_least:
            self.fail(NEVER_BACK, f"was told of {key} at {seen[0]} after {self.newest[key]}")
        self.newest[key] = seen[0]
        if self.past.at(key, seen[0]) != seen[:2]:
            self.fail(TRUE, f"was told of {key} at {seen}; the server had {self.past.at(key, seen[0])}")

    # -- as informers call it

    def on_add(self, obj: KubeObject, is_initial: bool) -> object:
        return self.added(obj, is_initial)

    def on_update(self, old: KubeObject, new: KubeObject) -> object:
        return self.updated(old, new)

    def on_delete(self, obj: KubeObject, last_state_known: bool) -> object:
        return self.deleted(obj, last_state_known)


class SlowObserver(Observer):
    """Takes its time, so that its queue is mostly full."""

    kind = "slow"

    async def on_add(self, obj: KubeObject, is_initial: bool) -> None:
        self.added(obj, is_initial)
        await self.dawdle()

    async def on_update(self, old: KubeObject, new: KubeObject) -> None:
        self.updated(old, new)
        await self.dawdle()

    async def on_delete(self, obj: KubeObject, last_state_known: bool) -> None:
        self.deleted(obj, last_state_known)
        await self.dawdle()

    async def dawdle(self) -> None:
        await asyncio.sleep(self.rng.choice((0.0, 0.5, 4.0)))


class Trouble(Exception):  # noqa: N818 - what it is
    """What the raising observer raises."""


class RaisingObserver(Observer):
    """Raises now and then, after it has taken note."""

    kind = "raising"
    raised = 0

    def on_add(self, obj: KubeObject, is_initial: bool) -> None:
        self.added(obj, is_initial)
        self.trip()

    async def on_update(self, old: KubeObject, new: KubeObject) -> None:
        self.updated(old, new)
        await asyncio.sleep(0)
        self.trip()

    def on_delete(self, obj: KubeObject, last_state_known: bool) -> None:
        self.deleted(obj, last_state_known)
        self.trip()

    def trip(self) -> None:
        if self.rng.random() < 0.3:
            self.raised += 1
            raise Trouble(self.name)
