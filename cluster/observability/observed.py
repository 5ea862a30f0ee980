"""`Observed`: a client and the controllers, queues and candidates beside it, read all at one moment, from any thread.

What it reads belongs to the client's event loop. On that loop it is read at once; from another thread the loop is
asked, and waited for no longer than `READ_S`: a loop that is blocked is a finding, not a reason to hang as well.
Nothing is read or kept in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from ..controller.controller import Controller
from ..controller.leader import LeaderElector, LeaderStatistics
from ..controller.statistics import ControllerStatistics
from ..informers.factory import InformerFactory
from ..informers.statistics import InformerStatus
from ..workqueue.queue import WorkQueue
from ..workqueue.statistics import QueueStatistics
from .health import ControllerHealth, Health, HealthBounds, health_of

log = logging.getLogger("shoal.cluster.observability")

READ_S: Final = 4.0
"""Prometheus itself waits for a scrape for 10 s."""


@runtime_checkable
class ObservedClient(Protocol):
    """What is looked at of a client."""

    @property
    def where(self) -> str:
        """What messages call its server."""

    @property
    def informers(self) -> InformerFactory:
        """Its informers."""

    def at_close(self, function: Callable[[], Awaitable[None] | None]) -> None:
        """Has it called, and awaited, when the client is closed."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at one moment."""

    informers: tuple[InformerStatus, ...]
    queues: Mapping[str, QueueStatistics]
    controllers: Mapping[str, ControllerStatistics]
    leaders: tuple[LeaderStatistics, ...]
    health: Health


def look(
    informers: InformerFactory, controllers: Iterable[Controller] = (), bounds: HealthBounds | None = None
) -> Health:
    """How they are. On their event loop."""
    return health_of(
        [informer.status for informer in informers.informers],
        [_controller(controller) for controller in controllers],
        closed=informers.closed,
        bounds=bounds,
    )


def _controller(controller: Controller) -> ControllerHealth:
    leader = controller.leader
    return ControllerHealth(
        name=controller.name,
        running=controller.running,
        synced=controller.synced,
        waiting=leader is not None and not leader.statistics().leading,
        hung_s=controller.hung_s(),
        parked=tuple(controller.parked.values()),
    )


class Observed:
    """A client and what works with it. Made on its event loop.

    The queue and the candidate of a controller are observed with it.
    """

    def __init__(
        self,
        client: ObservedClient,
        *,
        controllers: Iterable[Controller] = (),
        queues: Iterable[WorkQueue[Any]] = (),
        leaders: Iterable[LeaderElector] = (),
        bounds: HealthBounds | None = None,
    ) -> None:
        """Raises ValueError: two of a kind have the same name, or a queue has none."""
        self.client = client
        self.bounds = bounds or HealthBounds()
        self._loop = asyncio.get_running_loop()
        self._controllers: dict[str, Controller] = {}
        self._queues: dict[str, WorkQueue[Any]] = {}
        self._leaders: dict[str, LeaderElector] = {}
        for controller in controllers:
            _add(self._controllers, "controllers", controller.name, controller)
        for queue in queues:
            if not queue.name:
                raise ValueError("a queue without a name cannot have metrics: WorkQueue(name)")
            controller_of_name = self._controllers.get(queue.name)
            if controller_of_name is not None and controller_of_name.queue is not queue:
                raise ValueError(
                    f"a queue is called {queue.name!r}, as a controller and its own queue are: rename it"
                )
            _add(self._queues, "queues", queue.name, queue)
        own = [one.leader for one in self._controllers.values() if one.leader is not None]
        for leader in dict.fromkeys([*own, *leaders]):
            _add(self._leaders, "candidates for the lease", leader.statistics().lease, leader)

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Those that were given."""
        return tuple(self._controllers.values())

    def now(self) -> Snapshot:
        """Everything. On the event loop."""
        controllers, factory = self._controllers, self.client.informers
        queues = {name: one.queue for name, one in controllers.items() if one.queue is not None}
        own = {id(queue) for queue in queues.values()}
        queues |= {name: queue for name, queue in self._queues.items() if id(queue) not in own}
        informers = tuple(informer.status for informer in factory.informers)
        health = [_controller(controller) for controller in controllers.values()]
        return Snapshot(
            informers=informers,
            queues={name: queue.statistics() for name, queue in queues.items()},
            controllers={name: one.statistics() for name, one in controllers.items()},
            leaders=tuple(leader.statistics() for leader in self._leaders.values()),
            health=health_of(informers, health, closed=factory.closed, bounds=self.bounds),
        )

    def ask(self) -> Future[Snapshot] | None:
        """Has everything read, from any thread; None if the event loop has ended."""
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        answer: Future[Snapshot] = Future()

        def read() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(self.now())
            except Exception as error:  # noqa: BLE001 - told to who asked
                answer.set_exception(error)

        if here is self._loop:
            read()
            return answer
        if not self._loop.is_running():
            return None
        try:
            self._loop.call_soon_threadsafe(read)
        except RuntimeError:
            # It was closed just now.
            return None
        return answer


def snapshots(observed: Mapping[str, Observed], timeout_s: float = READ_S) -> dict[str, Snapshot | None]:
    """All of them, from any thread, within `timeout_s` together; None for those who did not answer."""
    asked = {name: one.ask() for name, one in observed.items()}
    wait([answer for answer in asked.values() if answer is not None], timeout_s)
    return {name: _answer(name, answer) for name, answer in asked.items()}


def _answer(name: str, answer: Future[Snapshot] | None) -> Snapshot | None:
    # One that can still be cancelled has not been begun.
    if answer is None or answer.cancel() or not answer.done():
        return None
    try:
        return answer.result()
    except Exception:
        log.exception("client cannot be read", extra={"client": name})
        return None


def _add(known: dict[str, Any], kind: str, name: str, one: Any) -> None:
    if known.setdefault(name, one) is not one:
        raise ValueError(f"two {kind} are called {name!r}: give each a name of its own")
