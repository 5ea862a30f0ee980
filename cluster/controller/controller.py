"""`Controller`: sources, a work queue, workers and a reconcile function, from the first list to the last item.

A run goes through these stages; `stop`, a cancellation or a lost leadership lead to the last from any of them::

    elected (if there is a `leader`) -> handlers added -> sources synced -> workers run -> wound down

Only keys go through the queue: a reconcile looks at the world as it is then, so that events which were missed, came
twice or out of order make no difference, and neither does a restart. One key is reconciled by one worker at a time.

Winding down: handlers are removed, workers finish what is in the queue for `stop_grace_s`, then they are cancelled. A
controller that has lost its leadership has no such grace, nor one whose workers are lost, and it begins nothing while
its lease is over. What was not finished is found again by whoever runs next, because everything there is comes as
initial objects.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from ...shards.model.refs import Key
from ..workqueue.queue import ShutDown, WorkQueue
from .crew import CANCEL_S, Crew
from .errors import NotSynced
from .leader import LeaderElector
from .parking import Parked
from .ports import InformerLike, Reconcile, Registration, Tracing
from .reconciling import Reconciler, is_async
from .rounds import Rounds
from .sources import Causes, Feeder, Source
from .statistics import ControllerStatistics
from .tracing import find_tracing

log = logging.getLogger("shoal.cluster.controller")

RETRIES_MAX = 15
"""As in Kubernetes' own controllers (deployments): with the default limiter, a bit over two and a half minutes."""
SYNC_TIMEOUT_S = 120.0
"""controller-runtime's ``CacheSyncTimeout``."""
NOT_LEADING_S = 0.1
"""How often a worker looks whether it may begin."""


class Controller:
    """Calls `reconcile` for objects of `sources` that were added, changed or deleted.

    `reconcile(key)` is async, or a plain function, which then runs in a thread. `queue` replaces the controller's
    own, which is new in each run and called like the controller; `fair_by` is for the controller's own. `workers`
    is how many keys are reconciled at once. `retries_max`, `timeout_s`, `hung_after_s` and parking are explained in
    `reconciling`; None for the first two means without limit. `on_parked`, plain or async, is told of each item that
    is given up, before the item is done; an async one may take `reconciling.ON_PARKED_S`. `leader`: run only while
    elected. `sync_timeout_s` None waits for sources for ever. `tracing` follows events to reconciles; by default
    OpenTelemetry does, if a tracer provider is set up when the controller begins to run (`tracing`).
    """

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        sources: Sequence[Source | InformerLike],
        workers: int = 2,
        queue: WorkQueue[Key] | None = None,
        fair_by: Callable[[Key], Hashable] | None = None,
        retries_max: int | None = RETRIES_MAX,
        timeout_s: float | None = None,
        hung_after_s: float = 60.0,
        stop_grace_s: float = 30.0,
        sync_timeout_s: float | None = SYNC_TIMEOUT_S,
        parked_max: int = 1000,
        on_parked: Callable[[Parked], object] | None = None,
        leader: LeaderElector | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Raises ValueError where an argument cannot be used; the message says which."""
        self.name = name
        self._sources = [one if isinstance(one, Source) else Source(one) for one in sources]
        _check(
            name,
            (bool(name), "it needs a name"),
            (bool(self._sources), "it needs at least one source"),
            (workers >= 1, f"workers is {workers}: expected at least 1"),
            (
                retries_max is None or retries_max >= 0,
                f"retries_max is {retries_max}: expected 0 or more, or None",
            ),
            (timeout_s is None or timeout_s > 0, f"timeout_s is {timeout_s}: expected more than 0, or None"),
            (
                timeout_s is None or is_async(reconcile),
                "timeout_s needs an async reconcile, because a thread cannot be cancelled (see hung_after_s)",
            ),
            (hung_after_s > 0, f"hung_after_s is {hung_after_s}: expected more than 0"),
            (stop_grace_s >= 0, f"stop_grace_s is {stop_grace_s}: expected 0 or more"),
            (parked_max >= 1, f"parked_max is {parked_max}: expected at least 1"),
            (queue is None or fair_by is None, "give fair_by to the queue that it is to use"),
        )
        self._given = queue
        self._fair_by = fair_by
        self._queue: WorkQueue[Key] | None = queue
        self._workers = workers
        self._stop_grace_s = stop_grace_s
        self._sync_timeout_s = sync_timeout_s
        self._leader = leader
        self._tracing = tracing
        self._rounds = Rounds(name, hung_after_s)
        self._new_reconciler = partial(
            Reconciler,
            name,
            reconcile,
            self._rounds,
            retries_max=retries_max,
            timeout_s=timeout_s,
            parked_max=parked_max,
            on_parked=on_parked,
        )
        self._reconciler = self._new_reconciler()
        self._stop: asyncio.Event | None = None
        self._begun = self._synced = False

    # -- what can be seen ------------------------------------------------------------------------------------

    @property
    def queue(self) -> WorkQueue[Key] | None:
        """The queue of this run, or of the last; None before the first."""
        return self._queue

    @property
    def parked(self) -> Mapping[Key, Parked]:
        """Items that were given up and have not changed since, oldest first."""
        return self._reconciler.parked

    @property
    def hung(self) -> Sequence[Key]:
        """Keys whose reconcile has been under way for too long, also if the run that began it is over."""
        return self._rounds.hung

    def hung_s(self) -> Mapping[Key, float]:
        """The same, and for how many seconds each has been."""
        began, now = self._rounds.began, asyncio.get_running_loop().time()
        return {key: now - began[key] for key in self._rounds.hung}

    @property
    def leader(self) -> LeaderElector | None:
        """What it has to be elected by before it works; None: nothing."""
        return self._leader

    @property
    def running(self) -> bool:
        """Between the beginning of `run` and its end, also while it waits to be elected."""
        return self._stop is not None

    @property
    def synced(self) -> bool:
        """Its sources had everything, and workers run."""
        return self._synced

    def statistics(self) -> ControllerStatistics:
        """The controller at this moment."""
        tally = self._rounds.tally
        return ControllerStatistics(
            outcomes=dict(tally.outcomes),
            reconcile_s=tally.seconds.distribution(),
            workers=self._workers,
            active=len(self._rounds),
            hung=len(self._rounds.hung),
            hung_total=tally.hung_total,
            parked=len(self._reconciler.parked),
            parked_total=tally.parked_total,
            synced=self._synced,
        )

    # -- running ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Runs until `stop`, or until it is cancelled, and winds down. May be called again afterwards: an object whose
        reconcile goes on from an earlier run is held back until that has ended.

        Raises:
            NotSynced: sources did not have everything within `sync_timeout_s`.
            LeadershipLost: another leads, or may; everything under way was cancelled.
            RuntimeError: it runs already, or the queue it was given is shut down, or somebody cancelled a worker.
            Exception: what ended a worker: the queue's limiter or grouping raised it, no reconcile does.
        """
        if self._stop is not None:
            raise RuntimeError(f"controller {self.name} runs already")
        if self._given is not None and self._given.shutting_down:
            raise RuntimeError(f"controller {self.name}: its queue is shut down; a run needs a new one")
        self._stop = asyncio.Event()
        self._begun = False
        running = asyncio.create_task(
            self._work() if self._leader is None else self._leader.run(self._work), name=f"run {self.name}"
        )
        stopping = asyncio.create_task(self._stop.wait(), name=f"stop {self.name}")
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done() and not self._begun:
                # It is not elected yet, so there is nothing to wind down.
                running.cancel()
            await asyncio.wait({running})
            if not running.cancelled():
                running.result()
        finally:
            stopping.cancel()
            await self._ended(running)
            self._stop = None

    async def _ended(self, running: asyncio.Task[None]) -> None:
        """Cancels what runs, and waits for its end; being cancelled again makes it shorter."""
        if running.done():
            return
        while not running.done():
            running.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait({running})
        if not running.cancelled() and (error := running.exception()) is not None:
            log.error("controller failed at its end", extra={"controller": self.name}, exc_info=error)

    def stop(self) -> None:
        """Winds down; `run` returns then."""
        if self._stop is not None:
            self._stop.set()

    def enqueue(self, key: Key, *, priority: int = 0) -> None:
        """Has an object reconciled for a reason that no source knows of.

        Raises:
            RuntimeError: the controller does not run; everything is reconciled when it begins to.
        """
        if self._queue is None or self._queue.shutting_down:
            raise RuntimeError(f"controller {self.name} does not run: {key} cannot be enqueued")
        self._queue.add(key, priority=priority)

    async def _work(self) -> None:
        assert self._stop is not None
        self._begun = True
        queue = self._given if self._given is not None else WorkQueue[Key](self.name, fair_by=self._fair_by)
        self._queue = queue
        tracing = self._tracing if self._tracing is not None else find_tracing()
        self._rounds.renew()
        reconciler = self._reconciler = self._new_reconciler(tracing=tracing)
        causes = Causes(self.name, tracing)
        registrations: list[Registration] = []
        crew = Crew(self.name, queue)
        stopping = asyncio.create_task(self._stop.wait(), name=f"stop {self.name}")
        try:
            for source in self._sources:
                feeder = Feeder(source, queue, causes)
                registrations.append(
                    source.informer.add_handler(
                        feeder, name=self.name, queue_max=source.queue_max, resync_s=source.resync_s
                    )
                )
            if await self._sync(registrations, stopping):
                crew.start(self._workers, lambda: self._worker(queue, causes, reconciler))
                self._synced = True
                log.info("controller runs", extra={"controller": self.name, "workers": self._workers})
                await crew.ended(stopping)
        finally:
            self._synced = False
            stopping.cancel()
            await self._wind_down(queue, registrations, crew)
        crew.raise_for_lost()

    async def _sync(self, registrations: Sequence[Registration], stopping: asyncio.Task[Any]) -> bool:
        """Waits until every source has everything and has handed it over; False if told to stop before."""
        waits = {
            asyncio.create_task(_synced(source, registration)): source.informer.name
            for source, registration in zip(self._sources, registrations, strict=True)
        }
        pending: set[asyncio.Task[Any]] = set(waits)
        loop = asyncio.get_running_loop()
        end = None if self._sync_timeout_s is None else loop.time() + self._sync_timeout_s
        try:
            while pending and not stopping.done():
                left_s = None if end is None else end - loop.time()
                done, _ = await asyncio.wait(
                    {*pending, stopping}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
                for one in done - {stopping}:
                    one.result()
                pending -= done
                if not done:
                    names = ", ".join(sorted(waits[one] for one in pending))
                    raise NotSynced(
                        f"controller {self.name}: {names} did not have everything within {self._sync_timeout_s:g} s"
                    )
        finally:
            for one in waits:
                one.cancel()
            if pending:
                await asyncio.wait(pending, timeout=CANCEL_S)
        return not stopping.done()

    async def _worker(self, queue: WorkQueue[Key], causes: Causes, reconciler: Reconciler) -> None:
        while True:
            try:
                key, priority, queue_s = await queue.take()
            except ShutDown:
                return
            try:
                await self._may_begin()
                if not self._rounds.hold_back(queue, key, priority):
                    await reconciler.once(queue, key, priority, causes.take(key), queue_s)
            finally:
                queue.done(key)
            # A reconcile that never waits must not keep everybody else from running.
            await asyncio.sleep(0)

    async def _may_begin(self) -> None:
        """Waits while the lease is over by its own clock. Mostly that is for good, and the worker is cancelled then:
        the item is left undone, and found again by whoever leads next.
        """
        while self._leader is not None and not self._leader.is_leader:  # noqa: ASYNC110 - time alone decides
            await asyncio.sleep(NOT_LEADING_S)

    # -- winding down ----------------------------------------------------------------------------------------

    async def _wind_down(
        self, queue: WorkQueue[Key], registrations: Sequence[Registration], crew: Crew
    ) -> None:
        may_finish = self._leader is None or self._leader.is_leader
        if not may_finish:
            # At once: whatever else there is to wait for, somebody else may lead any moment.
            crew.cancel()
        try:
            await _removed(self.name, registrations)
            drained = await crew.drain(self._stop_grace_s if may_finish else 0.0)
            held = self._rounds.held
            if not drained or held:
                extra = {"waiting": len(queue) + len(held), "keys": list(self._rounds.began)}
                log.warning("work is left undone", extra={"controller": self.name, **extra})
        finally:
            queue.shut_down()
            try:
                await crew.dismiss()
            finally:
                self._reconciler.close()
                self._tell_of_stragglers()

    def _tell_of_stragglers(self) -> None:
        """Those of earlier runs, too: as long as they go on, nobody else may lead."""
        tasks, threads = self._rounds.in_tasks, self._rounds.in_threads
        if not tasks and not threads:
            return
        log.error(
            "reconciles go on after the controller's end",
            extra={"controller": self.name, "tasks": tasks, "threads": threads},
        )
        if self._leader is not None:
            self._leader.withhold_release()


async def _synced(source: Source, registration: Registration) -> None:
    await source.informer.synced()
    await registration.synced()


async def _removed(name: str, registrations: Sequence[Registration]) -> None:
    """Takes handlers out. One that does not let itself be removed in time only feeds a queue that ignores it."""
    for registration in registrations:
        try:
            async with asyncio.timeout(CANCEL_S):
                await registration.remove()
        except Exception:
            log.exception("a handler was not removed", extra={"controller": name})


def _check(name: str, *expected: tuple[bool, str]) -> None:
    """Raises ValueError with the first text whose condition does not hold."""
    for condition, text in expected:
        if not condition:
            raise ValueError(f"controller {name or '(unnamed)'}: {text}")
