"""`InformerFactory`: makes informers, shares them, and ends them.

    async with InformerFactory(connection) as factory:
        pods = factory.informer("v1/pods", namespace="shop", label_selector="app=web")
        pods.add_handler(on_add=lambda pod, initial: print(pod.key))
        await pods.synced()

An informer begins its work when it is asked for. Who asks for the same (resource, namespace, selectors, transform)
shares a feed: one list, one watch, one copy of the objects, and its indexes. Each has an `Informer` of their own, with
handlers of their own, and gives that back, once; the last one ends the feed. Selectors are compared by what they say,
not how. Different spellings of a resource are the same once discovery is known (`start`, or an informer that has
resolved).

The connection decides whom is asked: an API server itself, or Shoal's gateway, which is one. It belongs to whoever
made it and stays open.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ...shards.api.client import ApiConnection
from ...shards.model.partitions import PartitionId
from ...shards.model.resources import Resource, ResourceType
from .discovered import DiscoveryEvent, Scope, discovered
from .errors import InformerClosed, UnknownResource
from .feed import Feed
from .informer import Informer
from .looking import Looks
from .loops import OneLoop
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
        loop: What it shares its event loop with, if it is a part of something.
    """

    def __init__(
        self,
        connection: ApiConnection,
        *,
        settings: InformerSettings | None = None,
        rng: random.Random | None = None,
        tracer_provider: TracerProvider | None = None,
        loop: OneLoop | None = None,
    ) -> None:
        self._tracer_provider = tracer_provider
        self._connection = connection
        self._settings = settings or InformerSettings()
        self._rng = rng or random.Random()
        self._looks = Looks(connection, self._settings)
        self._permits = _Permits(self._settings.lists_at_once)
        self._feeds: list[Feed] = []
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self._loop = loop or OneLoop("the informer factory", "make a factory, or a client, in each")

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
        """An informer of a resource, or a part of it; to be called with the event loop running.

        Args:
            resource: ``v1/pods``, ``apps/v1/deployments``, ``deployments.apps``, a name alone, or a `Resource`.
            namespace: Only the objects of this namespace.
            label_selector: As of kubectl; as are the others.
            field_selector: Only fields the API server selects by; by others `Informer.synced` raises BadRequest.
            shard_selector: Ranges of hashes, for programs that divide a resource among themselves.
            transform: What is to be held of each object (`transforms`).
            resync_s: For its handlers that do not say themselves.
            wait: Wait for a resource that does not exist yet, instead of failing.

        Raises:
            TypeError: a selector that is no text, or a transform that is no plain function.
            ValueError: it names no namespace; `resync_s` is not positive.
            BadRequest: it names no resource.
            BadRequest, BadShardSelector: a selector cannot be parsed.
            InformerClosed: the factory was closed.
            RuntimeError: it belongs to another event loop.
        """
        self._require_here()
        if resync_s is not None and not resync_s > 0:
            raise ValueError(f"resync_s is {resync_s}: expected seconds, more than 0, or None")
        check_namespace(namespace)
        narrowing = Narrowing.parse(label_selector, field_selector, shard_selector)
        feed = self._known(resource, namespace, narrowing, transform)
        if feed is None:
            feed = Feed(
                resource,
                namespace=namespace,
                narrowing=narrowing,
                transform=transform,
                connection=self._connection,
                looks=self._looks,
                permits=self._permits,
                settings=self._settings,
                rng=random.Random(self._rng.getrandbits(64)),
                on_close=self._forget,
                tracer_provider=self._tracer_provider,
            )
            self._feeds.append(feed)
        return Informer(feed, wait=wait, resync_s=resync_s, begin=self._end)

    @property
    def closes_in_s(self) -> float:
        """Seconds that `aclose` takes at most, if every handler hangs."""
        return self._settings.drain_s + CANCEL_S

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def informers(self) -> tuple[Feed, ...]:
        """What is followed; each once, however many share it."""
        return tuple(self._feeds)

    def release(self, informer: Informer) -> asyncio.Task[None] | None:
        """Gives an informer back: as `Informer.release`."""
        return informer.release()

    def _end(self, ending: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Begins what ends an informer; `aclose` waits for it."""
        task = asyncio.get_running_loop().create_task(ending, name=name)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    def _forget(self, feed: Feed) -> None:
        """It was closed."""
        if feed in self._feeds:
            self._feeds.remove(feed)

    def _require_here(self) -> None:
        if self._closed:
            raise InformerClosed("the informer factory was closed")
        self._loop.require()

    def _known(
        self,
        resource: Resource | str,
        namespace: str | None,
        narrowing: Narrowing,
        transform: Transform | None,
    ) -> Feed | None:
        """The feed in use for the same."""
        names = {identity(resource)}
        if self._looks.groups is not None:
            try:
                found = resolve(resource, self._looks.groups)
            except UnknownResource:
                found = None
            if found is not None:
                names.add(str(found.resource))
        for feed in self._feeds:
            if (
                feed.failure is None
                and feed.state != "closed"
                and (feed.namespace, feed.narrowing) == (namespace, narrowing)
                and (feed.transform is transform or feed.transform == transform)
                and (feed.spelling in names or str(feed.resource) in names)
            ):
                return feed
        return None

    # -- discovery -------------------------------------------------------------------------------------------

    async def resolve(self, resource: Resource | str) -> ResourceType:
        """Which resource is meant, as discovery describes it.

        Raises:
            BadRequest: it names no resource.
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
        """Waits until discovery is known, and the resource of each informer so far; of one that is to wait for a
        resource that does not exist, only if others who share its feed are not.

        Raises:
            UnknownResource, BadRequest: one of them cannot be followed.
            ConnectionFailed, Upstream, Garbage: discovery failed.
            InformerClosed: the factory was closed.
        """
        self._require_here()
        await self._looks.look()
        for feed in self.informers:
            if not feed.users.all_wait:
                await feed.resolved(wait=False)

    async def synced(self) -> None:
        """Waits until every informer so far has synced. Raises as `Informer.synced`."""
        for feed in self.informers:
            await feed.synced(wait=feed.users.all_wait)

    async def aclose(self, drain_s: float | None = None) -> None:
        """Ends all informers, whoever uses them. Handlers are told what is pending for `drain_s` seconds
        (`InformerSettings.drain_s` if None). The connection stays open. Where the event loop is over there is nothing
        left to be ended.

        Raises:
            RuntimeError: another event loop runs the informers.
        """
        if self._loop.elsewhere and not self._loop.ended:
            self._loop.require()
        self._closed = True
        feeds, self._feeds = self._feeds, []
        if self._loop.ended:
            return
        await asyncio.gather(*(feed.aclose(drain_s) for feed in feeds), *self._ending)
        await self._looks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
