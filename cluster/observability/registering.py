"""`metrics`: puts a client and what works with it into a registry of prometheus_client, and takes it out again.

    >>> async def scraped():
    ...     registry = prometheus_client.CollectorRegistry()  # by default, the one that start_http_server exposes
    ...     async with shoal.local(url=api_server_url) as client:
    ...         pods = client.informer("v1/pods", namespace="shop")
    ...         await pods.synced()
    ...         with shoal.metrics(client, registry=registry, name="main"):
    ...             return registry.get_sample_value(
    ...                 "shoal_informer_objects", {"client": "main", "informer": "v1/pods in shop"}
    ...             )
    >>> asyncio.run(scraped())
    3

Any number of clients may be in one registry: they are one collector there, and the label ``client`` tells them apart.
Names are in `families`. Everything is read when it is scraped, on the clients' event loops, whichever thread scrapes,
and costs nothing in between. A client that does not answer, because its loop blocks or has ended, shows as
``shoal_client_up`` 0 and hides nobody else; one that is closed is taken out.

A scrape on the event loop of one client stands still while it reads a client of another loop: scrape from a thread, as
prometheus_client's own server does, where there are several.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar, runtime_checkable

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..controller.controller import Controller
from ..controller.leader import LeaderElector
from ..workqueue.queue import WorkQueue
from .families import described, families
from .health import HealthBounds
from .observed import Observed, ObservedClient, snapshots

R = TypeVar("R")


@runtime_checkable
class Blocking(Protocol):
    """A client that lives on an event loop of its own, in a thread."""

    def run(self, function: Any, /, *args: Any, **named: Any) -> Any:
        """Calls a coroutine function with the asynchronous client, there."""


class Registered:
    """A client in a registry. Taken out by `close`, or at the end of a ``with`` block; both may be repeated."""

    def __init__(self, hub: _Hub, name: str, observed: Observed) -> None:
        self.name = name
        """Value of the label ``client``."""
        self.observed = observed
        self._hub = hub

    def close(self) -> None:
        """Takes its series out of the registry."""
        self._hub.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Hub(Collector):
    """All clients in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = weakref.ref(registry)
        self._lock = threading.Lock()
        self._registered: dict[str, Registered] = {}

    def add(self, name: str, observed: Observed) -> Registered:
        """One more client; the first brings the collector into the registry."""
        with self._lock:
            known = next(
                (one for one in self._registered.values() if one.observed.client is observed.client), None
            )
            if known is not None:
                raise ValueError(
                    f"the {observed.client!r} is in this registry already, as {known.name!r}: close that registration "
                    "first, and name everything in the new one"
                )
            if name in self._registered:
                raise ValueError(f"another client is called {name!r} in this registry: give it another name")
            name = name or self._free(observed.client.where)
            if not self._registered:
                self._enter()
            found = self._registered[name] = Registered(self, name, observed)
        observed.client.at_close(found.close)
        return found

    def remove(self, registered: Registered) -> None:
        """A client less; the last takes the collector along."""
        with self._lock:
            if self._registered.get(registered.name) is not registered:
                return
            del self._registered[registered.name]
            registry = self._registry()
            if not self._registered and registry is not None:
                registry.unregister(self)

    def find(self, client: ObservedClient) -> Registered | None:
        """What a client is registered as."""
        with self._lock:
            return next((one for one in self._registered.values() if one.observed.client is client), None)

    def describe(self) -> list[Metric]:
        """As prometheus_client asks it, without looking at anybody."""
        return described()

    def collect(self) -> list[Metric]:
        """As prometheus_client asks it."""
        with self._lock:
            observed = {name: one.observed for name, one in self._registered.items()}
        return families(snapshots(observed))

    def _free(self, name: str) -> str:
        names = [name, *(f"{name} #{number}" for number in range(2, len(self._registered) + 2))]
        return next(free for free in names if free not in self._registered)

    def _enter(self) -> None:
        registry = self._registry()
        assert registry is not None
        try:
            registry.register(self)
        except ValueError as error:
            raise ValueError(
                f"the registry has metrics of the same names already (a QueueCollector of your own?): {error}"
            ) from error


_hubs: Final[weakref.WeakKeyDictionary[CollectorRegistry, _Hub]] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def hub_of(registry: CollectorRegistry) -> _Hub:
    """The collector of all clients in a registry; not in it yet if there are none."""
    with _making:
        return _hubs.setdefault(registry, _Hub(registry))


def metrics(
    client: ObservedClient | Blocking,
    *,
    controllers: Iterable[Controller] = (),
    queues: Iterable[WorkQueue[Any]] = (),
    leaders: Iterable[LeaderElector] = (),
    registry: CollectorRegistry = REGISTRY,
    name: str = "",
    bounds: HealthBounds | None = None,
) -> Registered:
    """Has a registry expose the informers of a client, and what works with them, until the result is closed.

    An asynchronous client is registered on its event loop; a blocking one from any thread but that.

    Args:
        client: Of `shoal.connect` or `shoal.local`, or of `shoal.sync`.
        controllers: Their queues and candidates come with them.
        queues: Others, which need names.
        leaders: Others.
        registry: Where to; by default the one that prometheus_client's own functions expose.
        name: Value of the label ``client``; by default where the client's server is.
        bounds: From when on something is a problem, for ``shoal_client_live`` and whoever serves this client's health.

    Raises:
        ValueError: two of a kind have the same name; the client is in this registry already, or its name is taken.
        TypeError: it is no client.
        RuntimeError: an asynchronous client, and no event loop runs here.
    """
    hub = hub_of(registry)
    controllers, queues, leaders = tuple(controllers), tuple(queues), tuple(leaders)

    def observed(it: ObservedClient) -> Registered:
        return hub.add(
            name, Observed(it, controllers=controllers, queues=queues, leaders=leaders, bounds=bounds)
        )

    if isinstance(client, ObservedClient):
        return observed(client)
    if not isinstance(client, Blocking):
        raise TypeError(f"{client!r} is no client of Shoal: expected what shoal.connect or shoal.local gives")

    async def there(it: ObservedClient) -> Registered:
        return observed(it)

    registered: Registered = client.run(there)
    return registered
