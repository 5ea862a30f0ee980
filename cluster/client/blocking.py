"""The client for programs that block: `BlockingClient` and the twins of what it gives.

Each method here is the asynchronous one, called on the client's own event loop by whichever thread wants it;
parameters, results and errors are its own, and so is its documentation. What is written here is what differs: iterators
instead of asynchronous ones, a time for `BlockingInformer.synced`, and handlers that run in a thread of their own, so
that they may block and may call the client themselves.

    >>> with shoal.sync.connect(gateway_url) as client:
    ...     pods = client.lister("v1/pods", "shop")
    ...     print(pods.count(), pods.get("web-0").spec.nodeName, dict(pods.group_by("metadata.labels[app]")))
    3 node-0 {'web': 2, 'db': 1}

    >>> with shoal.sync.local(url=api_server_url) as client:
    ...     pods = client.informer("v1/pods", namespace="shop")
    ...     pods.synced(timeout_s=30)
    ...     print([pod.name for pod in pods.lister.list(label_selector="app=web")])
    ['web-0', 'web-1']
"""

from __future__ import annotations

import asyncio
import atexit
import os
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar, overload

from ...shards.model.errors import TimedOut
from ...shards.model.resources import Resource, ResourceType
from ..informers.discovered import DiscoveryEvent
from ..informers.factory import InformerFactory
from ..informers.handlers import OnAdd, OnDelete, OnUpdate
from ..informers.informer import Informer
from ..informers.lister import LocalLister
from ..informers.objects import KubeObject
from ..informers.registration import Registration
from ..informers.statistics import HandlerStatistics, InformerState, InformerStatus
from ..informers.transforms import Transform
from .connect import Client
from .lister import AnyVersion, Lister
from .portal import Portal, Twin, blocking, calling, iterating
from .resources import Served
from .writing import Writer

P = ParamSpec("P")
R = TypeVar("R")

OBJECTS_AHEAD: Final = 500
"""Objects that are read before they are taken: a page."""
PAGES_AHEAD: Final = 1
EVENTS_AHEAD: Final = 64


class BlockingLister(Twin[Lister]):
    """`Lister`."""

    resource_type = blocking(Lister.resource_type)
    list = blocking(Lister.list)
    by_index = blocking(Lister.by_index)
    count = blocking(Lister.count)
    group_by = blocking(Lister.group_by)
    pages = iterating(Lister.pages, ahead=PAGES_AHEAD)
    objects = iterating(Lister.objects, ahead=OBJECTS_AHEAD)

    # A descriptor would know the first of the two forms alone.
    @overload
    def get(
        self,
        name: str,
        namespace: str | None = None,
        *,
        not_older_than: AnyVersion | None = None,
        timeout_s: float | None = None,
    ) -> KubeObject: ...
    @overload
    def get(
        self,
        name: str,
        namespace: str | None = None,
        *,
        default: R,
        not_older_than: AnyVersion | None = None,
        timeout_s: float | None = None,
    ) -> KubeObject | R: ...
    def get(self, *args: Any, **kwargs: Any) -> Any:
        """As `Lister.get`."""
        return self._portal.run(lambda: self._it.get(*args, **kwargs))

    def in_namespace(self, namespace: str | None) -> BlockingLister:
        """As `Lister.in_namespace`."""
        return BlockingLister(self._portal, self._it.in_namespace(namespace))


class BlockingWriter(Twin[Writer]):
    """`Writer`."""

    create = blocking(Writer.create)
    replace = blocking(Writer.replace)
    patch = blocking(Writer.patch)
    apply = blocking(Writer.apply)
    delete = blocking(Writer.delete)


class BlockingServed(Twin[Served]):
    """`Served`."""

    resolve = blocking(Served.resolve)
    resources = blocking(Served.resources)


class BlockingRegistration(Twin[Registration]):
    """`Registration`: a handler that was added."""

    remove = blocking(Registration.remove)

    def synced(self, timeout_s: float | None = None) -> None:
        """Waits until the handler was told of all initial objects; None: for as long as that takes.

        Raises:
            TimedOut: it was not, in time.
            ShoalError: as `Informer.synced`.
        """
        self._portal.run(lambda: _within(self._it.synced, timeout_s, f"handler {self._it.name}"))

    @property
    def has_synced(self) -> bool:
        """`Registration.has_synced`."""
        return self._portal.call(lambda: self._it.has_synced)

    @property
    def statistics(self) -> HandlerStatistics:
        """`Registration.statistics`."""
        return self._portal.call(lambda: self._it.statistics)


class BlockingLocalLister(Twin[LocalLister]):
    """`LocalLister`: reads what the informer holds, of one moment each time."""

    get = calling(LocalLister.get)
    get_by_key = calling(LocalLister.get_by_key)
    list = calling(LocalLister.list)
    count = calling(LocalLister.count)
    by_index = calling(LocalLister.by_index)
    keys_by_index = calling(LocalLister.keys_by_index)
    index_values = calling(LocalLister.index_values)
    __len__ = calling(LocalLister.__len__)
    __contains__ = calling(LocalLister.__contains__)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[KubeObject]:
        return iter(self.list())


class BlockingInformer(Twin[Informer]):
    """`Informer`."""

    add_index = calling(Informer.add_index)
    resolved = blocking(Informer.resolved)

    def __init__(self, portal: Portal, it: Informer) -> None:
        super().__init__(portal, it)
        self.lister: Final = BlockingLocalLister(portal, it.lister)
        """What is held, read from any thread."""

    @property
    def name(self) -> str:
        """What logs call it."""
        return self._it.name

    def add_handler(
        self,
        handler: Any | None = None,
        *,
        on_add: OnAdd | None = None,
        on_update: OnUpdate | None = None,
        on_delete: OnDelete | None = None,
        name: str = "",
        queue_max: int = 10_000,
        resync_s: float | None = None,
    ) -> BlockingRegistration:
        """As `Informer.add_handler`; the handler runs in a thread of its own, one call after the other.

        Raises:
            TypeError: it is no handler, or a coroutine function.
        """

        def added() -> Registration:
            return self._it.add_handler(
                handler,
                on_add=on_add,
                on_update=on_update,
                on_delete=on_delete,
                name=name,
                queue_max=queue_max,
                resync_s=resync_s,
                thread=True,
            )

        return BlockingRegistration(self._portal, self._portal.call(added))

    def synced(self, timeout_s: float | None = None) -> None:
        """Waits until everything there is, is held; None: for as long as that takes.

        Raises:
            TimedOut: it was not, in time; the message says what it waits for.
            ShoalError: as `Informer.synced`.
        """

        def state() -> str:
            status = self._it.status
            return (
                f"informer {self._it.name} is {status.state}{': ' if status.message else ''}{status.message}"
            )

        self._portal.run(lambda: _within(self._it.synced, timeout_s, state))

    @property
    def has_synced(self) -> bool:
        """`Informer.has_synced`."""
        return self._portal.call(lambda: self._it.has_synced)

    @property
    def state(self) -> InformerState:
        """`Informer.state`."""
        return self._portal.call(lambda: self._it.state)

    @property
    def status(self) -> InformerStatus:
        """`Informer.status`."""
        return self._portal.call(lambda: self._it.status)

    @property
    def resource_type(self) -> ResourceType | None:
        """`Informer.resource_type`."""
        return self._it.resource_type

    @property
    def resource(self) -> Resource | None:
        """`Informer.resource`."""
        return self._it.resource

    @property
    def namespace(self) -> str | None:
        """`Informer.namespace`."""
        return self._it.namespace

    def release(self) -> None:
        """As `Informer.release`; the last one to do so waits until it has ended."""

        async def released() -> None:
            ending = self._it.release()
            if ending is not None:
                # An interrupt ends the waiting, not what is waited for.
                await asyncio.shield(ending)

        self._portal.run(released)


async def _discovered(
    factory: InformerFactory, group: str | None = None, *, pattern: str | None = None
) -> AsyncGenerator[DiscoveryEvent, None]:
    async for event in factory.discovered(group, pattern=pattern):
        yield event


_discovered.__doc__ = InformerFactory.discovered.__doc__


class BlockingInformers(Twin[InformerFactory]):
    """`InformerFactory`."""

    resolve = blocking(InformerFactory.resolve)
    start = blocking(InformerFactory.start)
    discovered = iterating(_discovered, ahead=EVENTS_AHEAD)

    def synced(self, timeout_s: float | None = None) -> None:
        """Waits until every informer so far has synced; None: for as long as that takes.

        Raises:
            TimedOut: they have not, in time; the message says which.
            ShoalError: as `Informer.synced`.
        """

        def waited_for() -> str:
            return ", ".join(f"{one.name} is {one.state}" for one in self._it.informers if not one.has_synced)

        self._portal.run(lambda: _within(self._it.synced, timeout_s, waited_for))

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
    ) -> BlockingInformer:
        """As `InformerFactory.informer`."""

        def made() -> Informer:
            return self._it.informer(
                resource,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                shard_selector=shard_selector,
                transform=transform,
                resync_s=resync_s,
                wait=wait,
            )

        return BlockingInformer(self._portal, self._portal.call(made))


class BlockingClient(Twin[Client]):
    """`Client`, with an event loop in a thread of its own. To be used from any number of threads.

    Made by `sync.connect` and `sync.local`. Close it; one that is left open is closed when the interpreter ends. One
    that is dropped before that is a ResourceWarning: nobody can close it any more, and its thread goes on, because
    what it has given may be in use.
    """

    def __init__(self, make: Callable[[], Client]) -> None:
        self._process = os.getpid()
        self._ending: list[Callable[[], object]] = []
        portal = Portal("the blocking client of Shoal")
        try:
            it = portal.call(make)
        except BaseException:
            portal.close()
            raise
        portal.closes(it.aclose, it.informers.closes_in_s)
        super().__init__(portal, it)
        self.discovery: Final = BlockingServed(portal, it.discovery)
        """What the server serves."""
        self.informers: Final = BlockingInformers(portal, it.informers)
        """The factory of this client's informers."""
        self.informer = self.informers.informer

    health = calling(Client.health)

    def lister(self, resource: Resource | str, namespace: str | None = None) -> BlockingLister:
        """As `Client.lister`."""
        return BlockingLister(self._portal, self._it.lister(resource, namespace))

    def writer(self, resource: Resource | str, namespace: str | None = None) -> BlockingWriter:
        """As `Client.writer`."""
        return BlockingWriter(self._portal, self._it.writer(resource, namespace))

    def run(
        self,
        function: Callable[Concatenate[Client, P], Coroutine[Any, Any, R]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Calls a coroutine function with the asynchronous client, on its loop: for what has no method here."""
        return self._portal.run(lambda: function(self._it, *args, **kwargs))

    def at_close(self, function: Callable[[], object]) -> None:
        """Has `close` call a function in its thread before it ends anything, the last one first. It may block, and use
        the client. At the interpreter's end as well, until when such a client is kept.
        """
        if not self._ending:
            atexit.register(self.close)
        self._ending.append(function)

    def close(self) -> None:
        """Calls what was to be called (`at_close`), then ends informers, calls under way and the connection. Safe to
        repeat, and from any thread but a handler's event loop.
        """
        if self._process != os.getpid():
            return
        try:
            while self._ending:
                self._ending.pop()()
        finally:
            atexit.unregister(self.close)
            self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        portal: Portal | None = getattr(self, "_portal", None)  # None: it could not be made
        if portal is not None and not portal.closed and self._process == os.getpid():
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)


async def _within(
    wait: Callable[[], Coroutine[Any, Any, None]], timeout_s: float | None, what: str | Callable[[], str]
) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await wait()
    except TimeoutError:
        text = what if isinstance(what, str) else what()
        raise TimedOut(f"{text}: not synced within {timeout_s:g} s") from None
