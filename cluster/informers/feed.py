"""`Feed`: all objects of a resource, or a part of them, in this process, and handlers told of each change.

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
- A resource that does not exist is waited for as long as one user wants to. Who does not is told so by a look at
  discovery that began after they asked, and may stay: the feed goes on for all when it appears.

Neighbours: `informer` is what each of its `users` has, `following` fetches, `store` holds, `registration` tells,
`factory` makes feeds and shares them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable
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
from .errors import InformerClosed, UnknownResource
from .following import FAILED_RETRY_S, Following, Past, holding
from .handlers import Callbacks
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
from .users import User, Users

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

log = logging.getLogger("shoal.cluster.informers")


class Feed:
    """One resource followed. Made by `InformerFactory.informer`; belongs to that one's event loop."""

    def __init__(
        self,
        resource: Resource | str,
        *,
        namespace: str | None,
        narrowing: Narrowing,
        transform: Transform | None,
        connection: ApiConnection,
        looks: Looks,
        permits: Permits,
        settings: InformerSettings,
        rng: random.Random,
        on_close: Callable[[Feed], None],
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
        self.failure: ShoalError | None = None
        """Why it has ended by itself: the resource is unknown, has no namespaces, or no such field."""
        self.missing: UnknownResource | None = None
        """The resource did not exist when that was looked at last, and somebody waits for it."""
        self.users = Users()
        """Who shares it."""
        self._connection = connection
        self._permits = permits
        self._settings = settings
        self._rng = rng
        self._on_close = on_close
        self._tracer_provider = tracer_provider
        self._reshape = None if transform is None else Reshaper(transform, self.name)
        self._indexers = Indexers(self.name)
        self._appearing = Appearing(
            resource, namespace=namespace, looks=looks, settings=settings, rng=rng, listener=self
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
        self.closed = False
        self._broken: dict[Registration, str] = {}
        self.lister = LocalLister(self.name, lambda: self._store, self._indexers, namespace)
        """What is held, to be read at once and without waiting."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"informer {self.name}")
        self._task.add_done_callback(self._ended)

    # -- users -----------------------------------------------------------------------------------------------

    def join(self, user: User) -> None:
        """One more."""
        self.users.add(user)
        if not user.wait:
            self.look_again()

    def leave(self, user: User, drain_s: float | None = None) -> Coroutine[Any, Any, None] | None:
        """One less. What is to be awaited then: the end of their handlers, or of the feed if nobody is left; None:
        there is nothing to be ended.
        """
        self.users.remove(user)
        if self.closed:
            return None
        if not len(self.users):
            self._on_close(self)
            return self.aclose(drain_s)
        if not self.users.any_waits:
            self.look_again()
        theirs = user.registrations
        for registration in theirs:
            self.drop(registration)
        return self._close(theirs, drain_s) if theirs else None

    def look_again(self) -> None:
        """Somebody asks who does not want to wait: what is known of a missing resource may be old."""
        if self._known is None:
            self.missing = None
            self._appearing.hurry()

    # -- handlers and indexes --------------------------------------------------------------------------------

    def add_handler(
        self,
        callbacks: Callbacks,
        *,
        name: str,
        queue_max: int,
        resync_s: float | None,
        thread: bool,
        on_removed: Callable[[Registration], None],
    ) -> Registration:
        """As `Informer.add_handler`. `on_removed` is called by `Registration.remove` and has to call `drop`."""
        self._require_open()
        registration = registration_of(
            callbacks,
            provider=self._tracer_provider,
            resource=lambda: str(self.resource or self.spelling),
            name=name,
            informer=self.name,
            queue_max=queue_max,
            resync_s=resync_s,
            thread=thread,
            settings=self._settings,
            held=lambda: () if self._store is None else self._store.entries(),
            on_removed=on_removed,
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

    def drop(self, registration: Registration) -> None:
        """Nothing more is told to a handler."""
        self._registrations = tuple(one for one in self._registrations if one is not registration)
        self._broken.pop(registration, None)

    def add_index(self, name: str, function: IndexFunction) -> None:
        """As `Informer.add_index`."""
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
    def has_synced(self) -> bool:
        """Whether a list has been complete."""
        return not self._initial

    async def resolved(self, *, wait: bool, check: Callable[[], None] = lambda: None) -> ResourceType:
        """Waits until it is known which resource is meant. As `synced`."""
        await self._until(lambda: self._known is not None, "its resource was known", wait=wait, check=check)
        assert self._known is not None
        return self._known

    async def synced(self, *, wait: bool, check: Callable[[], None] = lambda: None) -> None:
        """Waits until the first list is complete; with `wait` also for a resource that does not exist. `check` raises
        what is to end that, whenever there is news. Raises as `Informer.synced`.
        """
        await self._until(lambda: not self._initial, "it was synced", wait=wait, check=check)

    async def _until(
        self, reached: Callable[[], bool], what: str, *, wait: bool, check: Callable[[], None]
    ) -> None:
        if not wait:
            self.look_again()
        await self.users.until(reached, what, self, wait=wait, check=check)

    @property
    def _store(self) -> InformerStore | None:
        """What is read. Until a resource that came back is listed, that is nothing of the one that vanished."""
        store = None if self._following is None else self._following.store
        return self._emptied if store is None or (self._emptied is not None and not store.synced) else store

    @property
    def state(self) -> InformerState:
        """See `InformerState`."""
        if self.closed:
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
            users=len(self.users),
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
        self.missing = None
        self.users.announce()
        await following.run()
        self.say("gone", following.message)
        following.store.clear()
        self._past.add(following)
        if following.store.synced:
            self._emptied = following.store
        self._following = None

    # -- what is heard of discovery (`appearing.Listener`) -----------------------------------------------------

    def say(self, state: InformerState | None, message: str) -> None:
        """As `Listener.say`."""
        if message != self._message:
            log.info("informer waits", extra={"informer": self.name, "reason": message})
        self._state, self._message = state or self._state, message

    def is_missing(self, error: UnknownResource) -> None:
        """As `Listener.is_missing`."""
        self.missing = error
        self.users.miss(error)

    @property
    def wanted_missing(self) -> bool:
        """As `Listener.wanted_missing`."""
        return self.users.any_waits

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
            self.users.announce()
            for registration in self._registrations:
                registration.listed()

    def went_back(self, objects: int) -> None:
        """As `Listener.went_back`."""
        self._went_back += 1
        log.warning("the API server lost its past", extra={"informer": self.name, "older_objects": objects})

    # -- the end ---------------------------------------------------------------------------------------------

    async def aclose(self, drain_s: float | None = None) -> None:
        """Ends it, whoever uses it. Handlers are told what is pending for `drain_s` seconds (`InformerSettings.drain_s`
        if None); what is left by then is dropped.
        """
        self.closed = True
        self._on_close(self)
        self._task.cancel()
        await asyncio.wait([self._task])
        self._let_go(self.failure or InformerClosed(f"the informer of {self.name} was closed"))
        registrations, self._registrations = self._registrations, ()
        await self._close(registrations, drain_s)

    async def _close(self, registrations: Iterable[Registration], drain_s: float | None) -> None:
        limit_s = self._settings.drain_s if drain_s is None else drain_s
        await asyncio.gather(*(registration.close(limit_s) for registration in registrations))

    def _handler_failed(self, registration: Registration) -> None:
        self._broken[registration] = (
            f"handler {registration.name} has ended by itself: remove it, and add another"
        )

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The task has ended, as it should, or by something that nobody foresaw."""
        error = None if task.cancelled() else task.exception()
        if self.closed or self.failure is not None:
            return
        log.error("informer ended although it was not closed", exc_info=error, extra={"informer": self.name})
        self.failure = InformerClosed(f"informer {self.name} ended although it was not closed: {error!r}")
        self._state, self._message = "failed", self.failure.message
        self._let_go(self.failure)

    def _require_open(self) -> None:
        if self.closed:
            raise InformerClosed(f"the informer of {self.name} was closed: ask the factory for a new one")

    def _let_go(self, error: ShoalError) -> None:
        """Lets everybody go who waits."""
        if self._initial:
            for registration in self._registrations:
                registration.fail(error)
        self.users.announce()
