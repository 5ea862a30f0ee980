"""Reconciles under way, of every run of a controller: one a key at a time.

A reconcile that ignores its cancellation, or runs in a thread, goes on after the run that began it. The next run must
not begin another one for the same object, so such a key is held back until its straggler has ended; then it goes into
the queue of the run that held it back. Everything else of a straggler concerns nobody any more.

A run on another event loop knows nothing of those of an earlier one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...shards.model.refs import Key
from ..workqueue.queue import WorkQueue
from .statistics import Outcome, Tally

log = logging.getLogger("shoal.cluster.controller")


@dataclass(slots=True, eq=False)
class Round:
    """One reconcile."""

    key: Key
    began: float
    watch: asyncio.TimerHandle | None = None
    hung: bool = False
    in_thread: bool = False
    """A plain function, which nothing can end."""
    outcome: Outcome | None = None
    """None: its worker is still at it."""


class Rounds:
    """All of one controller."""

    def __init__(self, name: str, hung_after_s: float) -> None:
        self._name = name
        self._hung_after_s = hung_after_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rounds: dict[Key, Round] = {}
        self._held: dict[Key, tuple[WorkQueue[Key], int]] = {}
        self.tally = Tally()

    @property
    def began(self) -> Mapping[Key, float]:
        """Those under way, and when they began."""
        return {key: one.began for key, one in self._rounds.items()}

    @property
    def hung(self) -> Sequence[Key]:
        """Those that have been under way for too long."""
        return sorted(key for key, one in self._rounds.items() if one.hung)

    @property
    def held(self) -> Sequence[Key]:
        """Keys that this run may not begin with yet."""
        return sorted(self._held)

    @property
    def in_tasks(self) -> int:
        """Those whose worker is at them."""
        return sum(one.outcome is None for one in self._rounds.values())

    @property
    def in_threads(self) -> int:
        """Plain functions that run."""
        return sum(one.in_thread for one in self._rounds.values())

    def __len__(self) -> int:
        return len(self._rounds)

    def renew(self) -> None:
        """A new run."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._rounds.clear()
        self._held.clear()

    def hold_back(self, queue: WorkQueue[Key], key: Key, priority: int) -> bool:
        """Whether the key has a straggler. If so, it is added to the queue when that has ended."""
        if key not in self._rounds:
            return False
        known = self._held.get(key)
        if known is None:
            log.warning("an item waits for a reconcile of an earlier run", extra=self._extra(key))
        self._held[key] = (queue, priority if known is None else max(priority, known[1]))
        return True

    def begin(self, key: Key) -> Round:
        """A reconcile begins; there is none of this key."""
        loop = asyncio.get_running_loop()
        begun = self._rounds[key] = Round(key, loop.time())
        begun.watch = loop.call_later(self._hung_after_s, self._hangs, begun)
        return begun

    def end(self, ended: Round, outcome: Outcome) -> None:
        """Its worker has left it. If its function still runs in a thread, it is not over."""
        ended.outcome = outcome
        self.tally.ended(outcome, asyncio.get_running_loop().time() - ended.began)
        self._settle(ended)

    def thread_ended(self, ended: Round) -> None:
        """Its plain function has ended."""
        ended.in_thread = False
        self._settle(ended)

    def _settle(self, ended: Round) -> None:
        if ended.outcome is None or ended.in_thread or self._rounds.get(ended.key) is not ended:
            return
        del self._rounds[ended.key]
        if ended.watch is not None:
            ended.watch.cancel()
        if ended.hung:
            log.info("a hung reconcile has ended", extra=self._extra(ended.key, outcome=ended.outcome))
        held = self._held.pop(ended.key, None)
        if held is not None:
            queue, priority = held
            queue.add(ended.key, priority=priority)

    def _hangs(self, one: Round) -> None:
        one.hung = True
        self.tally.hung_total += 1
        log.warning("a reconcile hangs", extra=self._extra(one.key, seconds=self._hung_after_s))

    def _extra(self, key: Key, **more: object) -> dict[str, object]:
        return {"controller": self._name, "key": key, **more}
