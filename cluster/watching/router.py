"""Watches of a gateway: opened here, each run by whoever speaks to its client.

What can be wrong with a watch as a request is found out before it is opened, so that the client gets a Status; what
becomes of it later is told in its lines, or ends it. One hub for each resource with watchers; a hub without any
goes some time after the last, so that clients that come back find their feeds open.

`Routing` has to be followed by somebody. Which basis a watch begins on is `consistency`'s to decide.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from random import Random

from ...shards.model.errors import NotReady
from ...shards.model.partitions import PartitionId
from ...shards.model.resources import Resource, ResourceType
from ..query.consistency import decide_watch
from ..query.directory import RETRY_AFTER_S, KnownShards, ShardDirectory
from ..query.fanout import followed
from ..query.request import CollectionQuery
from ..query.router import QueryRouter
from ..query.routing import RouteIndex, Routing
from .asking import Asking
from .feeds import REFRESH_S
from .forms import LineForm
from .frames import Frame, Sink
from .hub import Hub
from .selection import Selection, Selector
from .settings import WatchServingSettings
from .statistics import WatchStatistics
from .watcher import Watch

__all__ = ["Frame", "LineForm", "Sink", "Watch", "WatchRouter"]

ROUTES_S = 30.0
"""How long one wait for new routes lasts; then it is begun again."""


class WatchRouter:
    """Opens watches. Belongs to the event loop it was made on."""

    def __init__(
        self,
        routing: Routing,
        shards: ShardDirectory,
        router: QueryRouter,
        *,
        settings: WatchServingSettings | None = None,
        rng: Random | None = None,
    ) -> None:
        self.statistics = WatchStatistics()
        self._routing = routing
        self._shards = KnownShards(shards)
        self._router = router
        self._settings = settings or WatchServingSettings()
        self._rng = rng or Random()
        self._hubs: dict[Resource, Hub] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def watchers(self) -> Mapping[str, int]:
        """Open watches by resource, those included that are still told the past."""
        return Counter({str(resource): len(hub) for resource, hub in self._hubs.items()})

    async def open(self, query: CollectionQuery, form: LineForm) -> Watch:
        """A watch, ready to be run.

        Raises:
            BadWatchVersion: the version is not a number.
            BadShardSelector: the shard selector cannot be read.
            UnknownResource: the resource is not followed.
            NotReady: a shard that is needed is away, or has not listed its part yet.
        """
        basis = decide_watch(query.options, self._router.floor(query))
        if self._routing.index.epoch == 0:
            await self._routing.published(REFRESH_S)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.patience_s
        while True:
            routes = self._routing.index
            resource_type = followed(routes, query)
            Selection(Selector.of(query), resource_type)
            hub = self._hub(resource_type, routes)
            partitions = _concerned(routes, query)
            try:
                await hub.ready(partitions)
                break
            except NotReady:
                # Divided anew or moved while we waited: that is no reason to refuse anybody.
                outdated = hub.over or self._routing.index.epoch > routes.epoch
                if not outdated or loop.time() >= deadline:
                    raise
        return Watch(
            query,
            form,
            basis=basis,
            hub=hub,
            partitions=partitions,
            router=self._router,
            asking=Asking(self._routing, self._shards, self._settings.patience_s),
            settings=self._settings,
            rng=self._rng,
            statistics=self.statistics,
        )

    async def aclose(self) -> None:
        """Ends all watches, in order, and all feeds."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait((self._keeping,))
        hubs, self._hubs = tuple(self._hubs.values()), {}
        for hub in hubs:
            await hub.aclose()
        if self._closing:
            await asyncio.wait(self._closing)

    # -- hubs ------------------------------------------------------------------------------------------------

    def _hub(self, resource_type: ResourceType, routes: RouteIndex) -> Hub:
        resource = resource_type.resource
        partitions = [route.partition for route in routes.of(resource)]
        hub = self._hubs.get(resource)
        if hub is not None:
            if not hub.closed and hub.partitions == {partition.id for partition in partitions}:
                return hub
            hub.rerouted()
            self._close(self._hubs.pop(resource))
        hub = self._hubs[resource] = Hub(
            resource_type,
            partitions,
            routing=self._routing,
            shards=self._shards,
            settings=self._settings,
            rng=self._rng,
            statistics=self.statistics,
        )
        if self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep(), name="hubs of watches")
        return hub

    async def _keep(self) -> None:
        """Tells hubs of new routes, and lets go of those nobody has used for long."""
        loop = asyncio.get_running_loop()
        interval_s = min(ROUTES_S, self._settings.linger_s / 2)
        while True:
            seen = self._routing.table.epoch
            routes = await self._routing.refresh(seen, interval_s)
            for resource, hub in tuple(self._hubs.items()):
                if routes.epoch > seen:
                    hub.rerouted()
                idle = not len(hub) and loop.time() - hub.used_at > self._settings.linger_s
                if hub.closed or idle:
                    self._close(self._hubs.pop(resource))

    def _close(self, hub: Hub) -> None:
        task = asyncio.get_running_loop().create_task(hub.aclose(), name="closing a hub of watches")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _concerned(routes: RouteIndex, query: CollectionQuery) -> tuple[PartitionId, ...]:
    """The partitions that can hold what is watched; all of them where none can, because bookmarks need a version.

    Raises:
        NotReady: no shard has them yet.
    """
    placed = [route for route in routes.of(query.resource) if route.partition.may_hold(query.namespace)]
    if not placed:
        where = f" in namespace {query.namespace}" if query.namespace else ""
        raise NotReady(f"{query.resource}{where} is with no shard yet", retry_after_s=RETRY_AFTER_S)
    concerned = [route for route in placed if query.concerns(route.partition)] or placed
    return tuple(sorted(route.partition.id for route in concerned))
