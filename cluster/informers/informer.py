"""`Informer`: all objects of a resource, or a part of them, in this process, and handlers told of each change.

::

    waiting -- discovery knows the resource --> listing -- first list --> synced <--> refused, failed
       |                                                                    |
       +-- it does not, and nobody wants to wait: unknown                   v the resource vanished
    waiting for its return <------------------ deletes for all ----------- gone

What it keeps true:

- Lister and indexes show the new state before any handler is told of it.
- Each handler is told a sequence of its own: everything there is when it is added (`is_initial`), or in the first list,
  then each change. Between the two nothing is lost or told twice, because both happen in one turn of the loop.
- A resource that vanishes has no objects: handlers are told of deletes. When it comes back, in whatever version
  discovery has it then, it is followed anew, and its objects are adds.

Neighbours: `following` fetches, `store` holds, `registration` tells, `factory` shares informers and makes them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...shards.api.client import ApiConnection
from ...shards.model.errors import BadRequest, ShoalError
from ...shards.model.refs import Key
from ...shards.model.resources import Resource, ResourceType
from ...shards.model.versions import UNKNOWN, Version
from ...shards.store.entries import Entry
from ...shards.watch.permits import Permits
from .appearing import Appearing
from .delivery import FRESH_BYTES_MAX, FRESH_MAX, Change, End
from .errors import InformerClosed, UnknownResource, again
from .following import FAILED_RETRY_S, Following, Past, holding
from .handlers import OnAdd, OnDelete, OnUpdate, callbacks_of, handler_name
from .indexers import Indexers, IndexFunction
from .lister import LocalLister
from .looking import Looks
from .narrowing import Narrowing
from .registration import Registration
from .resolving import identity
from .settings import InformerSettings
from .statistics import InformerState, InformerStatus
from .store import InformerStore
from .tracing import registration_of
from .transforms import Reshaper, Transform

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

log = logging.getLogger("shoal.cluster.informers")


class Informer:
    """One resource followed. Made, and shared, by `InformerFactory.informer`; belongs to that one's event loop."""

    def __init__(
        self,
        resource: Resource | str,
        *,
        namespace: str | None,
        narrowing: Narrowing,
        transform: Transform | None,
        resync_s: float | None,
        wait: bool,
        connection: ApiConnection,
        looks: Looks,
        permits: Permits,
        settings: InformerSettings,
        rng: random.Random,
        on_release: Callable[[Informer], asyncio.Task[None] | None],
        on_close: Callable[[Informer], None],
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.namespace = namespace
        """The namespace it is about; None: all, or a cluster-scoped resource."""
        self.narrowing = narrowing
        self.transform = transform
        self.spelling = identity(resource)
        """The resource as it was asked for."""
        place = f" in {namespace}" if namespace is not None else ""
        selectors = f" {narrowing}" if narrowing else ""
        self.name = f"{self.spelling}{place}{selectors}"
        """What logs and metrics call it."""
        self.resync_s = resync_s
        self.users = 0
        self.failure: ShoalError | None = None
        """Why it has ended by itself: the resource is unknown, has no namespaces, or no such field."""
        self._connection = connection
        self._permits = permits
        self._settings = settings
        self._rng = rng
        self._on_release = on_release
        self._on_close = on_close
        self._tracer_provider = tracer_provider
        self._reshape = None if transform is None else Reshaper(transform, self.name)
        self._indexers = Indexers(self.name)
        self._appearing = Appearing(
            resource, namespace=namespace, wait=wait, looks=looks, settings=settings, rng=rng, say=self._say
        )
        self._registrations: tuple[Registration, ...] = ()
        self._following: Following | None = None
        self._known: ResourceType | None = None
        self._emptied: InformerStore | None = None
        """The store of the resource before it vanished."""
        self._followed = False
        self._initial = True
        self._state: InformerState = "waiting"
        self._message = "has not begun"
        self._went_back = 0
        self._past = Past()
        self._resolved = asyncio.Event()
        self._synced = asyncio.Event()
        self._closed = False
        self._broken: dict[Registration, str] = {}
        self.lister = LocalLister(self.name, lambda: self._store, self._indexers, namespace)
        """What is held, to be read at once and without waiting."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"informer {self.name}")
        self._task.add_done_callback(self._ended)

    # -- handlers and indexes --------------------------------------------------------------------------------

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
        thread: bool = False,
    ) -> Registration:
        """Has a handler (`handlers`), or single functions, told of everything there is and of each change.

        Args:
            handler: An object with some of the methods of `EventHandler`.
            on_add: With `on_update` and `on_delete` in the place of a handler.
            on_update: See there.
            on_delete: See there.
            name: What logs and metrics call it; its class or function if left out.
            queue_max: So many changes wait for it one by one; more are merged object by object (`delivery`).
            resync_s: Every so many seconds it is told again of all there is. None: as the informer has it.
            thread: It runs in a thread of its own: for plain functions that take long or block.

        Raises:
            TypeError: it is no handler, or a coroutine function is to run in a thread.
            ValueError: `queue_max` or `resync_s` is not positive.
            InformerClosed: the informer has ended.
        """
        self._require_open()
        callbacks = callbacks_of(handler, on_add, on_update, on_delete)
        if thread and callbacks.coroutines:
            raise TypeError("a coroutine function runs on the event loop: leave out thread=True")
        resync_s = self.resync_s if resync_s is None else resync_s
        if resync_s is not None and not resync_s > 0:
            raise ValueError(f"resync_s is {resync_s}: expected seconds, more than 0, or None")
        registration = registration_of(
            callbacks,
            provider=self._tracer_provider,
            resource=lambda: str(self.resource or self.spelling),
            name=name or handler_name(handler, callbacks),
            informer=self.name,
            queue_max=queue_max,
            resync_s=resync_s,
            thread=thread,
            settings=self._settings,
            held=lambda: () if self._store is None else self._store.entries(),
            on_removed=self._removed,
            on_failed=self._handler_failed,
        )
        self._registrations = (*self._registrations, registration)
        if self.failure is not None:
            registration.fail(self.failure)
        elif not self._initial and self._store is not None:
            now = asyncio.get_running_loop().time()
            for entry in self._store.entries():
                registration.offer(Change(entry.key, None, entry, now, initial=True))
            registration.listed()
        return registration

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Adds a local index, of what is held and of what will be; see `LocalLister.by_index`.

        Raises:
            ValueError: there is another index of this name.
            InformerClosed: the informer has ended.
        """
        self._require_open()
        self._indexers.add(name, function, () if self._store is None else self._store.entries())

    # -- waiting and reading ---------------------------------------------------------------------------------

    @property
    def resource_type(self) -> ResourceType | None:
        """The resource as discovery describes it; None before it is known."""
        return self._known

    @property
    def resource(self) -> Resource | None:
        """The resource; None before it is known which one is meant."""
        return None if self._known is None else self._known.resource

    @property
    def wait(self) -> bool:
        """Whether it waits for a resource that does not exist."""
        return self._appearing.wait

    @property
    def has_synced(self) -> bool:
        """Whether a list has been complete."""
        return not self._initial

    async def resolved(self) -> ResourceType:
        """Waits until it is known which resource is meant.

        Raises:
            UnknownResource, BadRequest, InformerClosed: as `synced`.
        """
        await self._resolved.wait()
        self._raise_failure()
        if self._known is None:
            raise InformerClosed(f"the informer of {self.name} was closed before its resource was known")
        return self._known

    async def synced(self) -> None:
        """Waits until the first list is complete: the lister shows everything. Handlers may still be at it
        (`Registration.synced`).

        Raises:
            UnknownResource: the API server serves no such resource; names what it may have been.
            BadRequest: the resource has no namespaces, and one was given; or the server does not select by this field.
            InformerClosed: the informer was closed before.
        """
        await self._synced.wait()
        self._raise_failure()

    @property
    def _store(self) -> InformerStore | None:
        """What is read. Until a resource that came back is listed, that is nothing of the one that vanished."""
        store = None if self._following is None else self._following.store
        return self._emptied if store is None or (self._emptied is not None and not store.synced) else store

    @property
    def state(self) -> InformerState:
        """See `InformerState`."""
        if self._closed:
            return "closed"
        if self._broken:
            return "failed"
        if self._state == "listing" and self._following is not None:
            return self._following.state
        return self._state

    def _says(self, following: Following | None) -> str:
        return self._message if following is None or self._state != "listing" else following.message

    @property
    def status(self) -> InformerStatus:
        """Now."""
        following, store = self._following, self._store
        event_at = None if store is None else store.last_event_at
        return InformerStatus(
            name=self.name,
            state=self.state,
            synced=self.has_synced,
            message="; ".join(self._broken.values()) or self._says(following),
            last_event_age_s=None if event_at is None else asyncio.get_running_loop().time() - event_at,
            **self._past.status(following),
            **holding(store),
            transform_failures=0 if self._reshape is None else self._reshape.failures,
            index_failures=self._indexers.failures,
            went_back=self._went_back,
            users=self.users,
            handlers=tuple(registration.statistics for registration in self._registrations),
        )

    # -- following -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._follow(await self._appearing.resolve(returning=self._followed))
            except (UnknownResource, BadRequest) as error:
                self.failure, self._message = error, error.message
                self._state = "unknown" if isinstance(error, UnknownResource) else "refused"
                log.warning(
                    "informer has nothing to follow", extra={"informer": self.name, "reason": error.message}
                )
                self._let_go(error)
                return
            except Exception as error:
                log.exception("informer failed", extra={"informer": self.name})
                self._state, self._message = "failed", f"{type(error).__name__}: {error}"
                await asyncio.sleep(FAILED_RETRY_S)

    async def _follow(self, resource_type: ResourceType) -> None:
        """Follows until the resource vanishes, and tells of that."""
        following = self._following = Following(
            resource_type,
            name=self.name,
            namespace=self.namespace,
            narrowing=self.narrowing,
            reshape=self._reshape,
            connection=self._connection,
            permits=self._permits,
            settings=self._settings,
            rng=self._rng,
            listener=self,
        )
        self._state, self._followed, self._known = "listing", True, resource_type
        self._resolved.set()
        await following.run()
        self._say("gone", following.message)
        following.store.clear()
        self._past.add(following)
        if following.store.synced:
            self._emptied = following.store
        self._following = None

    def _say(self, state: InformerState | None, message: str) -> None:
        if message != self._message:
            log.info("informer waits", extra={"informer": self.name, "reason": message})
        self._state, self._message = state or self._state, message

    # -- what the store tells (`store.Listener`) ---------------------------------------------------------------

    def changed(  # noqa: PLR0917 - called for every event: names would cost as much as the call
        self,
        key: Key,
        before: Entry | None,
        after: Entry | None,
        at: float,
        gone: Version | None,
        body: bytes | None = None,
    ) -> None:
        """As `Listener.changed`."""
        if self._indexers:
            self._indexers.changed(key, after)
        end = None
        if before is not None and (after is None or after.uid != before.uid):
            end = End(gone or UNKNOWN, gone is not None)
        registrations = self._registrations
        if body is not None and len(body) > FRESH_BYTES_MAX:
            body = None
        for registration in registrations:
            if registration.pending >= FRESH_MAX:
                body = None
        change = Change(key, before, after, at, self._initial and before is None, end, body)
        for registration in registrations:
            registration.offer(change)

    def listed(self) -> None:
        """As `Listener.listed`."""
        self._appearing.succeeded()
        if self._initial:
            self._initial = False
            self._synced.set()
            for registration in self._registrations:
                registration.listed()

    def went_back(self, objects: int) -> None:
        """As `Listener.went_back`."""
        self._went_back += 1
        log.warning("the API server lost its past", extra={"informer": self.name, "older_objects": objects})

    # -- the end ---------------------------------------------------------------------------------------------

    def release(self) -> asyncio.Task[None] | None:
        """Gives back what `InformerFactory.informer` gave. The last one to do so ends the informer; the task that ends
        it is returned, to be awaited by who wants to.
        """
        return self._on_release(self)

    async def aclose(self, drain_s: float | None = None) -> None:
        """Ends it, whoever else uses it; they need not release it any more. Handlers are told what is pending for
        `drain_s` seconds (`InformerSettings.drain_s` if None); what is left by then is dropped.
        """
        self._closed = True
        self._on_close(self)
        self._task.cancel()
        await asyncio.wait([self._task])
        closed = InformerClosed(f"the informer of {self.name} was closed")
        self._let_go(self.failure or closed)
        limit_s = self._settings.drain_s if drain_s is None else drain_s
        registrations, self._registrations = self._registrations, ()
        await asyncio.gather(*(registration.close(limit_s) for registration in registrations))

    def _removed(self, registration: Registration) -> None:
        self._registrations = tuple(one for one in self._registrations if one is not registration)
        self._broken.pop(registration, None)

    def _handler_failed(self, registration: Registration) -> None:
        text = f"handler {registration.name} has ended by itself: remove it, and add another"
        self._broken[registration] = text

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The task has ended, as it should, or by something that nobody foresaw."""
        error = None if task.cancelled() else task.exception()
        if self._closed or self.failure is not None:
            return
        log.error("informer ended although it was not closed", exc_info=error, extra={"informer": self.name})
        self.failure = InformerClosed(f"informer {self.name} ended although it was not closed: {error!r}")
        self._state, self._message = "failed", self.failure.message
        self._let_go(self.failure)

    def _require_open(self) -> None:
        if self._closed:
            raise InformerClosed(f"the informer of {self.name} was closed: ask the factory for a new one")

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise again(self.failure)
        if self._closed and self._initial:
            raise InformerClosed(f"the informer of {self.name} was closed before it was synced")

    def _let_go(self, error: ShoalError) -> None:
        """Lets everybody go who waits."""
        if self._initial:
            for registration in self._registrations:
                registration.fail(error)
        self._resolved.set()
        self._synced.set()
