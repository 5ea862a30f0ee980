"""One resource followed into an `InformerStore`, until it vanishes.

What it keeps true: while it runs there is one reflector feeding one store. A failure that has no place in the
reflector's machine is a bug; it must neither stay unseen nor end the informer, so it shows, is counted, and a new
reflector goes on where the store stands.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from ...shards.api.client import ApiConnection
from ...shards.api.decode import Decoder
from ...shards.model.errors import BadRequest
from ...shards.model.partitions import EVERYTHING, OneNamespace, Partition
from ...shards.model.resources import ResourceType
from ...shards.model.versions import UNKNOWN
from ...shards.watch.permits import Permits
from ...shards.watch.reflector import Reflector
from .narrowing import NarrowedConnection, Narrowing
from .settings import InformerSettings
from .statistics import InformerState
from .store import InformerStore, Listener
from .transforms import Reshaping

log = logging.getLogger("shoal.cluster.informers")

FAILED_RETRY_S: Final = 10.0
"""Before a reflector that failed in a way nobody foresaw is replaced. Slow: it may well fail again."""
_COUNTERS: Final = ("lists", "watch_restarts", "errors")


def partition_of(resource_type: ResourceType, namespace: str | None) -> Partition:
    """The part of a resource that an informer follows.

    Raises:
        BadRequest: a namespace of a resource that has none.
    """
    if namespace is None:
        return Partition(resource_type.resource, EVERYTHING)
    if not resource_type.namespaced:
        raise BadRequest(
            f"{resource_type.resource} is cluster-scoped: it has no objects in namespace {namespace!r}; leave the "
            "namespace out"
        )
    return Partition(resource_type.resource, OneNamespace(namespace))


class Following:
    """A resource, as discovery described it, from `run` on."""

    def __init__(
        self,
        resource_type: ResourceType,
        *,
        name: str,
        namespace: str | None,
        narrowing: Narrowing,
        reshape: Reshaping | None,
        connection: ApiConnection,
        permits: Permits,
        settings: InformerSettings,
        rng: random.Random,
        listener: Listener,
    ) -> None:
        self.resource_type = resource_type
        self.failures = 0
        self._name = name
        self._partition = partition_of(resource_type, namespace)
        self._permits = permits
        self._settings = settings
        self._rng = rng
        self._failure = ""
        self._earlier: dict[str, Counter[str]] = {counter: Counter() for counter in _COUNTERS}
        self.store = InformerStore(
            self._partition,
            resource_type,
            settings=settings.store,
            clock=asyncio.get_running_loop().time,
            narrowing=narrowing,
            reshape=reshape,
            listener=listener,
        )
        self._connection = NarrowedConnection(
            connection,
            resource_type.resource.path(namespace),
            narrowing,
            on_gateway=self._met_gateway,
            listed=lambda: self.store.synced,
        )
        self._reflector = self._make_reflector()

    async def run(self) -> None:
        """Follows; returns when the resource is gone.

        Raises:
            BadRequest: the server does not select as it is asked to.
        """
        while True:
            try:
                await self._reflector.run()
            except BadRequest:
                raise
            except Exception as error:
                log.exception("reflector failed", extra={"informer": self._name})
                self.failures += 1
                self._failure = f"{type(error).__name__}: {error}; starts again in {FAILED_RETRY_S:.0f} s"
            else:
                return
            self.store.abandon()
            await asyncio.sleep(FAILED_RETRY_S)
            status = self._reflector.status
            for name, counter in self._earlier.items():
                counter.update(getattr(status, name))
            self._reflector = self._make_reflector()
            self._failure = ""

    @property
    def state(self) -> InformerState:
        """How it is going."""
        if self._failure:
            return "failed"
        match self._reflector.status.state:
            case "pending":
                return "synced" if self.store.synced else "listing"
            case other:
                return other

    @property
    def message(self) -> str:
        """For people; empty while everything is well."""
        return self._failure or self._reflector.status.message

    def counted(self) -> Mapping[str, Counter[str]]:
        """``events``, and ``lists``, ``watch_restarts`` and ``errors`` over all its reflectors."""
        status = self._reflector.status
        found = {name: self._earlier[name] + Counter(getattr(status, name)) for name in _COUNTERS}
        found["events"] = Counter(self.store.events)
        if self.failures:
            found["errors"]["failed"] = self.failures
        return found

    @property
    def story(self) -> str:
        """The last steps of the reflector, one a line."""
        return self._reflector.story

    def _met_gateway(self) -> None:
        self.store.behind_gateway = True

    def _make_reflector(self) -> Reflector:
        settings = self._settings
        return Reflector(
            partition=self._partition,
            resource_type=self.resource_type,
            connection=self._connection,
            store=self.store,
            decoder=Decoder(
                self.resource_type,
                keep_managed_fields=settings.store.keep_managed_fields,
                line_bytes_max=settings.watch.line_bytes_max,
            ),
            permits=self._permits,
            settings=settings.watch,
            rng=random.Random(self._rng.getrandbits(64)),
        )


class Past:
    """What was counted of a resource before it vanished, each time it did."""

    def __init__(self) -> None:
        self.dropped = 0
        self._counters: dict[str, Counter[str]] = {}

    def add(self, following: Following) -> None:
        """It has ended."""
        self.dropped += following.store.dropped
        for name, counter in following.counted().items():
            self._counters.setdefault(name, Counter()).update(counter)

    def status(self, following: Following | None) -> dict[str, Any]:
        """What an `InformerStatus` says of it."""
        restarts = self._counted("watch_restarts", following)
        return {
            "events": self._counted("events", following),
            "lists": self._counted("lists", following),
            "reconnects": sum(restarts.values()),
            "watch_restarts": restarts,
            "errors": self._counted("errors", following),
            "dropped": self.dropped + (0 if following is None else following.store.dropped),
        }

    def _counted(self, name: str, following: Following | None) -> dict[str, int]:
        """A counter of `Following.counted` over all times, with that of the present one."""
        total = Counter(self._counters.get(name, ()))
        if following is not None:
            total.update(following.counted()[name])
        return dict(total)


def holding(store: InformerStore | None) -> dict[str, Any]:
    """What an `InformerStatus` says of what is held."""
    if store is None:
        return {"objects": 0, "body_bytes": 0, "frontier": UNKNOWN, "age_s": 0.0}
    return {
        "objects": len(store),
        "body_bytes": store.body_bytes,
        "frontier": store.frontier,
        "age_s": store.frontier_age_s,
    }
