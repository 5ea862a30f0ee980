"""`InformerFactory`: makes informers, shares them, and ends them.

    async with InformerFactory(connection) as factory:
        pods = factory.informer("v1/pods", namespace="shop", label_selector="app=web")
        pods.add_handler(on_add=lambda pod, initial: print(pod.key))
        await pods.synced()

An informer begins its work when it is asked for. Two who ask for the same (resource, namespace, selectors, transform,
and whether to wait for the resource) get the same one: one list, one watch, one copy of the objects; its handlers and
indexes are everybody's to see, and who closes it instead of releasing it closes it for all. Each gives it back by
`release`, once; the last one ends it. Selectors are compared by what they say, not how. Different spellings of a
resource are the same once discovery is known (`start`, or an informer that has resolved).

The connection decides whom is asked: an API server itself, or Shoal's gateway, which is one. It belongs to whoever
made it and stays open.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ...shards.api.client import ApiConnection
from ...shards.model.partitions import PartitionId
from ...shards.model.resources import Resource, ResourceType
from .discovered import DiscoveryEvent, Scope, discovered
from .errors import InformerClosed, UnknownResource
from .informer import Informer
from .looking import Looks
from .narrowing import Narrowing, check_namespace
from .registration import CANCEL_S
from .resolving import identity, resolve
from .settings import InformerSettings
from .transforms import Transform

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


class _Permits:
    """So many lists at the same time."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def permit(self, partition: PartitionId) -> AsyncIterator[None]:  # noqa: ARG002 - see Permits
        """As `shards.watch.permits.Permits.permit`."""
        async with self._free:
            yield


class InformerFactory:
    """Informers over one connection. Belongs to one event loop.

    Args:
        connection: Whom to ask.
        settings: Of all its informers.
        rng: Where jitter comes from; a seeded one makes runs repeatable.
        tracer_provider: Of OpenTelemetry, for the spans of handlers (`tracing`); None: the one of the process, if it
            has one.
    """

    def __init__(
        self,
        connection: ApiConnection,
        *,
        settings: InformerSettings | None = None,
        rng: random.Random | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self._tracer_provider = tracer_provider
        self._connection = connection
        self._settings = settings or InformerSettings()
        self._rng = rng or random.Random()
        self._looks = Looks(connection, self._settings)
        self._permits = _Permits(self._settings.lists_at_once)
        self._informers: list[Informer] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- informers -------------------------------------------------------------------------------------------

    def informer(
        self,
        resource: Resource | str,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        shard_selector: str = "",
        transform: Transform | None = None,
        resync_s: float | None = None,
        wait: bool = False,
    ) -> Informer:
        """The informer of a resource, or a part of it; to be called with the event loop running.

        Args:
            resource: ``v1/pods``, ``apps/v1/deployments``, ``deployments.apps``, a name alone, or a `Resource`.
            namespace: Only the objects of this namespace.
            label_selector: As of kubectl; as are the others.
            field_selector: Only fields the API server selects by; by others `Informer.synced` raises BadRequest.
            shard_selector: Ranges of hashes, for programs that divide a resource among themselves.
            transform: What is to be held of each object (`transforms`).
            resync_s: For its handlers that do not say themselves. Of several who share it, the shortest.
            wait: Wait for a resource that does not exist yet, instead of failing.

        Raises:
            TypeError: a selector that is no text, or a transform that is no plain function.
            ValueError: it names no resource, or no namespace; `resync_s` is not positive.
            BadRequest, BadShardSelector: a selector that cannot be parsed.
            InformerClosed: the factory was closed.
            RuntimeError: it belongs to another event loop.
        """
        self._require_here()
        if resync_s is not None and not resync_s > 0:
            raise ValueError(f"resync_s is {resync_s}: expected seconds, more than 0, or None")
        check_namespace(namespace)
        narrowing = Narrowing.parse(label_selector, field_selector, shard_selector)
        found = self._known(resource, namespace, narrowing, transform, wait=wait)
        if found is None:
            found = Informer(
                resource,
                namespace=namespace,
                narrowing=narrowing,
                transform=transform,
                resync_s=resync_s,
                wait=wait,
                connection=self._connection,
                looks=self._looks,
                permits=self._permits,
                settings=self._settings,
                rng=random.Random(self._rng.getrandbits(64)),
                on_release=self.release,
                on_close=self._forget,
                tracer_provider=self._tracer_provider,
            )
            self._informers.append(found)
        elif resync_s is not None:
            found.resync_s = resync_s if found.resync_s is None else min(found.resync_s, resync_s)
        found.users += 1
        return found

    @property
    def closes_in_s(self) -> float:
        """Seconds that `aclose` takes at most, if every handler hangs."""
        return self._settings.drain_s + CANCEL_S

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def informers(self) -> tuple[Informer, ...]:
        """Those in use."""
        return tuple(self._informers)

    def release(self, informer: Informer) -> asyncio.Task[None] | None:
        """Gives an informer back; the last one to do so ends it. The task that ends it is returned, for who wants to
        wait for that. Of an informer that was closed meanwhile there is nothing to be ended.

        Raises:
            ValueError: it is not in use here.
        """
        if informer.users < 1:
            raise ValueError(f"the informer of {informer.name} was released more often than it was asked for")
        informer.users -= 1
        if informer.users > 0 or informer not in self._informers:
            return None
        self._informers.remove(informer)
        ending = asyncio.get_running_loop().create_task(
            informer.aclose(), name=f"end informer {informer.name}"
        )
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return ending

    def _forget(self, informer: Informer) -> None:
        """It was closed."""
        if informer in self._informers:
            self._informers.remove(informer)

    def _require_here(self) -> None:
        if self._closed:
            raise InformerClosed("the informer factory was closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "the informer factory belongs to another event loop (asyncio.run makes a new one each time): make a "
                "factory, or a client, in each"
            )

    def _known(
        self,
        resource: Resource | str,
        namespace: str | None,
        narrowing: Narrowing,
        transform: Transform | None,
        *,
        wait: bool,
    ) -> Informer | None:
        """The informer in use for the same."""
        names = {identity(resource)}
        if self._looks.groups is not None:
            try:
                found = resolve(resource, self._looks.groups)
            except UnknownResource:
                found = None
            if found is not None:
                names.add(str(found.resource))
        for informer in self._informers:
            if (
                informer.failure is None
                and informer.state != "closed"
                and (informer.namespace, informer.narrowing, informer.wait) == (namespace, narrowing, wait)
                and (informer.transform is transform or informer.transform == transform)
                and (informer.spelling in names or str(informer.resource) in names)
            ):
                return informer
        return None

    # -- discovery -------------------------------------------------------------------------------------------

    async def resolve(self, resource: Resource | str) -> ResourceType:
        """Which resource is meant, as discovery describes it.

        Raises:
            ValueError: it names no resource.
            UnknownResource: there is none, or it cannot be followed; `close` are names it may have been.
            ConnectionFailed, Upstream, Garbage: discovery failed.
            InformerClosed: the factory was closed.
        """
        self._require_here()
        mark = self._looks.mark
        known = self._looks.groups is not None
        try:
            found = resolve(resource, await self._looks.look())
        except UnknownResource:
            if not known:
                raise
            found = None
        if found is None:
            # What is known may be old.
            found = resolve(resource, await self._looks.look(after=mark))
        if found is None:
            raise UnknownResource(
                f"discovery does not show the group of {resource} at the moment: try again later"
            )
        return found

    async def discovered(
        self, group: str | None = None, *, pattern: str | None = None
    ) -> AsyncIterator[DiscoveryEvent]:
        """Resources that can be followed, as they come and go: first all there are, then each change. Ends when the
        factory is closed.

        Args:
            group: Only of this API group; ``*`` stands for any characters, ``""`` is the core group.
            pattern: In its place, a pattern such as ``*.gateway.example.com`` (`coordinator.patterns`).

        Raises:
            ValueError: both were given, or the pattern cannot be read.
            InformerClosed: the factory was closed before.
        """
        self._require_here()
        discovery = self._settings.discovery
        events = discovered(
            self._looks,
            Scope.of(group, pattern),
            poll_s=discovery.poll_s,
            backoff_max_s=discovery.backoff_max_s,
        )
        async for event in events:
            yield event

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Waits until discovery is known, and the resource of each informer so far that is not to wait for one.

        Raises:
            UnknownResource, BadRequest: one of them cannot be followed.
            ConnectionFailed, Upstream, Garbage: discovery failed.
            InformerClosed: the factory was closed.
        """
        self._require_here()
        await self._looks.look()
        for informer in self.informers:
            if not informer.wait:
                await informer.resolved()

    async def synced(self) -> None:
        """Waits until every informer so far has synced. Raises as `Informer.synced`."""
        for informer in self.informers:
            await informer.synced()

    async def aclose(self, drain_s: float | None = None) -> None:
        """Ends all informers (`Informer.aclose`). The connection stays open."""
        self._closed = True
        informers, self._informers = self._informers, []
        await asyncio.gather(*(informer.aclose(drain_s) for informer in informers), *self._ending)
        await self._looks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
