"""`Observed`: a client and the controllers, queues and candidates beside it, read all at one moment, from any thread.

What it reads belongs to the client's event loop. On that loop it is read at once; from another thread the loop is
asked, and waited for no longer than `READ_S`: a loop that is blocked is a finding, not a reason to hang as well.
Nothing is read or kept in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import CancelledError
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
    ) -> None:
        """Raises ValueError: two of a kind have the same name, or a queue has none."""
        self.client = client
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

    def now(self, bounds: HealthBounds | None = None) -> Snapshot:
        """Everything. On the event loop."""
        controllers = self._controllers
        queues = {name: one.queue for name, one in controllers.items() if one.queue is not None}
        own = {id(queue) for queue in queues.values()}
        queues |= {name: queue for name, queue in self._queues.items() if id(queue) not in own}
        return Snapshot(
            informers=tuple(informer.status for informer in self.client.informers.informers),
            queues={name: queue.statistics() for name, queue in queues.items()},
            controllers={name: one.statistics() for name, one in controllers.items()},
            leaders=tuple(leader.statistics() for leader in self._leaders.values()),
            health=look(self.client.informers, controllers.values(), bounds),
        )

    def snapshot(self, timeout_s: float = READ_S) -> Snapshot | None:
        """Everything, from any thread; None if the event loop has ended, or has not answered in time."""
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            return self.now()
        if self._loop.is_closed() or not self._loop.is_running():
            return None
        reading = self._read()
        try:
            asked = asyncio.run_coroutine_threadsafe(reading, self._loop)
        except RuntimeError:
            # It was closed just now.
            reading.close()
            return None
        try:
            return asked.result(timeout_s)
        except (TimeoutError, CancelledError):
            asked.cancel()
            return None

    async def _read(self) -> Snapshot:
        return self.now()


def _add(known: dict[str, Any], kind: str, name: str, one: Any) -> None:
    if known.setdefault(name, one) is not one:
        raise ValueError(f"two {kind} are called {name!r}: give each a name of its own")
