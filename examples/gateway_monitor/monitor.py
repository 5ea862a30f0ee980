"""The monitor: informers feed the model, the model's findings go to people and to rollbacks.

::

    informers (services, slices, pods; every custom resource of the group, as they come and go)
        -> Model.take -> evaluate, soon after -> Alerting.offer, Rollbacks.consider
                                                 state file, every save_s if something changed

Handlers only hand over to the model, which is quick; everything that waits is a task of its own. The model is used
from the event loop alone.

What cannot be seen is a finding as well: a resource that cannot be listed, or whose informer is stuck, would otherwise
look like a cluster in which nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence

import shoal

from .alerts import Alerting, Poster, Receiver
from .correlation import Model, delivery_of
from .files import read_state, write_state
from .findings import Finding, Identity, Subject, Transition
from .rollback import AuditLine, ClientWriter, Rollbacks
from .settings import Settings
from .view import PODS, SERVICES, SLICES

log = logging.getLogger("gateway_monitor")

FOLLOWED = {SERVICES: "v1/services", SLICES: "discovery.k8s.io/v1/endpointslices", PODS: "v1/pods"}
SETTLE_S = 0.05
"""Between a delivery and the evaluation: deliveries come in bursts, and one look is enough for a burst."""
EXPIRE_S = 60.0
"""Evaluated at least so often, because some things end by time alone."""
HEALTH_S = 5.0
STALE_S = 180.0
"""An informer whose newest proof of being up to date is older than that is stuck: watches end every few minutes."""
QUIET_S, GRACE_S = 1.0, 10.0
"""Discovery has told of everything there is once it says nothing more for QUIET_S, or has said nothing for GRACE_S."""


class Monitor:
    """Follows one gateway with a client. `run` does it; until then nothing is asked."""

    def __init__(
        self,
        client: shoal.Client,
        settings: Settings,
        *,
        links: str = "",
        now: Callable[[], float] = time.time,
        receivers: Iterable[Receiver] = (),
        on_transitions: Callable[[Sequence[Transition]], None] | None = None,
        on_audit: Callable[[AuditLine], None] | None = None,
    ) -> None:
        """`links` is the base of links to objects; `now` the wall clock; `receivers` are told besides the settings'.

        Raises:
            StateInvalid: the state file cannot be used.
        """
        good = read_state(settings.state_file) if settings.state_file else None
        remembered = () if good is None else {resource for resource, _, _ in good.items()}
        routes = f"{settings.checks.routes}.{settings.checks.group}"
        self.model = Model(settings.checks, good, incomplete={*FOLLOWED, routes, *remembered})
        self.ready = asyncio.Event()
        """Everything there was at first has been looked at."""
        self._client = client
        self._settings = settings
        self._links = links
        self._now = now
        self._receivers = tuple(receivers)
        self._on_transitions = on_transitions
        self._on_audit = on_audit
        self._informers: dict[str, shoal.Informer] = {}
        self._listing: dict[str, asyncio.Task[None]] = {}
        """By resource: done once everything there was has been handed to the model."""
        self._went_back: dict[str, int] = {}
        self._saved = 0
        self._complete = False
        self._delivered = asyncio.Event()
        self._heard_at: float | None = None

    @property
    def followed(self) -> Sequence[str]:
        """Resources that are followed."""
        return tuple(self._informers)

    @property
    def objects(self) -> int:
        """Objects that are held."""
        return sum(len(informer.lister) for informer in self._informers.values())

    async def run(self) -> None:
        """Monitors until cancelled; then tells what there is still to tell, and saves."""
        settings = self._settings
        async with Poster(settings.alerts.timeout_s) as poster:
            alerting = Alerting(
                settings.alerts, poster, links=self._links, now=self._now, more=self._receivers
            )
            rollbacks = Rollbacks(
                settings.rollback,
                self.model,
                ClientWriter(self._client),
                now=self._now,
                noted=self._delivered.set,
                audit_file=settings.audit_file,
                audited=self._on_audit,
            )
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(alerting.run(), name="alerts")
                    group.create_task(rollbacks.run(), name="rollbacks")
                    group.create_task(self._evaluating(alerting, rollbacks), name="evaluate")
                    group.create_task(self._saving(), name="save")
                    group.create_task(self._watching_over(), name="health")
                    for resource, asked in FOLLOWED.items():
                        self._listing[resource] = group.create_task(
                            self._follow(resource, asked), name=f"follow {resource}"
                        )
                    group.create_task(self._discovering(group), name="discover")
                    group.create_task(self._starting(), name="start")
            finally:
                for informer in self._informers.values():
                    # The client may have been closed before, and its informers with it.
                    with contextlib.suppress(ValueError):
                        informer.release()
                self._save()

    # -- following -------------------------------------------------------------------------------------------

    async def _follow(self, resource: str, asked: str) -> None:
        """Follows a resource from now on; returns once everything there is has been handed to the model."""
        informer = self._client.informers.informer(asked, wait=True)
        self._informers[resource] = informer
        registration = informer.add_handler(
            _Feed(resource, self.model, self._now, self._delivered), name="model"
        )
        await informer.synced()
        await registration.synced()
        self.model.complete(resource)
        self._delivered.set()
        log.info("following", extra={"resource": resource, "objects": informer.status.objects})

    async def _discovering(self, group: asyncio.TaskGroup) -> None:
        """Follows what appears. What vanishes needs nothing: its informer tells of deletes and waits for its return."""
        loop = asyncio.get_running_loop()
        async for event in self._client.informers.discovered(self._settings.checks.group):
            self._heard_at = loop.time()
            found = event.resource_type.resource
            resource = found.qualified_name
            if isinstance(event, shoal.Vanished):
                log.warning("resource vanished", extra={"resource": resource})
            elif resource not in self._listing:
                log.info("resource appeared", extra={"resource": resource})
                self._listing[resource] = group.create_task(
                    self._follow(resource, resource), name=f"follow {resource}"
                )

    async def _starting(self) -> None:
        """Says when everything is known that was there at first."""
        await asyncio.wait([self._listing[resource] for resource in FOLLOWED])
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() < began + GRACE_S:
            if self._heard_at is not None and loop.time() >= self._heard_at + QUIET_S:
                break
            await asyncio.sleep(QUIET_S / 4)
        await asyncio.wait(list(self._listing.values()))
        # What discovery has not told of by now does not exist.
        for resource in {
            f"{self._settings.checks.routes}.{self._settings.checks.group}",
            *self._remembered(),
        }:
            if resource not in self._listing:
                self.model.complete(resource)
        self._complete = True
        self._delivered.set()

    def _remembered(self) -> set[str]:
        return {resource for resource, _, _ in self.model.good.items()}

    # -- evaluating ------------------------------------------------------------------------------------------

    async def _evaluating(self, alerting: Alerting, rollbacks: Rollbacks) -> None:
        while True:
            try:
                async with asyncio.timeout(EXPIRE_S):
                    await self._delivered.wait()
                await asyncio.sleep(SETTLE_S)
            except TimeoutError:
                pass
            self._delivered.clear()
            complete = self._complete
            transitions = self.model.evaluate(self._now())
            if transitions:
                alerting.offer(transitions)
                rollbacks.consider(transitions)
                if self._on_transitions is not None:
                    self._on_transitions(transitions)
            if complete and not self.ready.is_set():
                log.info(
                    "everything is known", extra={"resources": len(self._informers), "objects": self.objects}
                )
                self.ready.set()

    # -- looking after itself --------------------------------------------------------------------------------

    async def _watching_over(self) -> None:
        """Notices resources that cannot be seen, and servers that lost their past."""
        while True:
            await asyncio.sleep(HEALTH_S)
            for resource, informer in list(self._informers.items()):
                status = informer.status
                if status.went_back > self._went_back.get(resource, 0):
                    self._went_back[resource] = status.went_back
                    log.warning("the server lost its past", extra={"resource": resource})
                    documents = [one.to_dict() for one in informer.lister.list()]
                    self.model.replaced(resource, documents, self._now())
                    self._delivered.set()
                self._judge(resource, informer)

    def _judge(self, resource: str, informer: shoal.Informer) -> None:
        status = informer.status
        subject = Subject(resource, "", resource)
        stale = status.state == "synced" and status.age_s > STALE_S
        missing = resource in FOLLOWED and status.state in ("waiting", "unknown", "gone")
        if status.state in ("refused", "failed") or stale or missing:
            why = status.message or (f"nothing heard for {status.age_s:.0f} s" if stale else status.state)
            self.model.note(
                Finding(
                    check="resource_unreadable",
                    subject=subject,
                    severity="critical",
                    summary=f"the monitor cannot see {resource}",
                    details=(why,),
                )
            )
        else:
            self.model.withdraw(Identity("resource_unreadable", subject))
        if self.model.dirty:
            self._delivered.set()

    # -- keeping ---------------------------------------------------------------------------------------------

    async def _saving(self) -> None:
        while True:
            await asyncio.sleep(self._settings.save_s)
            if self._settings.state_file and self.ready.is_set():
                await asyncio.to_thread(self._save_encoded, *self._unsaved())

    def _save(self) -> None:
        if self._settings.state_file and self.ready.is_set():
            self._save_encoded(*self._unsaved())

    def _unsaved(self) -> tuple[bytes | None, int]:
        changes = self.model.good.changes
        return (None if changes == self._saved else self.model.good.encode()), changes

    def _save_encoded(self, encoded: bytes | None, changes: int) -> None:
        if encoded is None:
            return
        try:
            write_state(self._settings.state_file, encoded)
        except OSError as error:
            extra = {"path": self._settings.state_file, "reason": error.strerror}
            log.error("state file not written", extra=extra)  # noqa: TRY400 - the reason says it all
        else:
            self._saved = changes


class _Feed(shoal.EventHandler):
    """Hands what an informer tells over to the model."""

    def __init__(
        self, resource: str, model: Model, now: Callable[[], float], delivered: asyncio.Event
    ) -> None:
        self._resource = resource
        self._model = model
        self._now = now
        self._delivered = delivered

    def on_add(self, obj: shoal.KubeObject, is_initial: bool) -> None:  # noqa: ARG002, FBT001 - as in EventHandler
        """The object is there."""
        self._take(obj)

    def on_update(self, old: shoal.KubeObject, new: shoal.KubeObject) -> None:
        """The object has changed."""
        self._take(new, replaces=int(old.resource_version or 0))

    def on_delete(self, obj: shoal.KubeObject, last_state_known: bool) -> None:  # noqa: ARG002, FBT001
        """The object is gone."""
        self._take(obj, deleted=True)

    def _take(self, obj: shoal.KubeObject, *, replaces: int | None = None, deleted: bool = False) -> None:
        delivery = delivery_of(self._resource, obj.to_dict(), replaces=replaces, deleted=deleted)
        self._model.take(delivery, self._now())
        self._delivered.set()
