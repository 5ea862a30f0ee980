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
from collections.abc import Callable, Collection, Iterable, Sequence

import shoal

from .alerts import Alerting
from .correlation import Model, delivery_of
from .files import read_state, read_told
from .findings import CHECKS, NOTED, Finding, Identity, Subject, Transition
from .keeping import StateFile
from .outbox import Receiver
from .posting import Poster
from .rollback import AuditLine, ClientWriter, Rollbacks
from .served import Unanswered, served
from .settings import Settings
from .told import Told
from .view import PODS, SERVICES, SLICES

log = logging.getLogger("gateway_monitor")

FOLLOWED = {SERVICES: "v1/services", SLICES: "discovery.k8s.io/v1/endpointslices", PODS: "v1/pods"}
SETTLE_S = 0.05
"""Between a delivery and the evaluation: deliveries come in bursts, and one look is enough for a burst."""
EXPIRE_S = 60.0
"""Evaluated at least so often, because some things end by time alone."""
HEALTH_S = 5.0
OUT_OF_SIGHT = ("refused", "failed")
"""States of an informer whose objects cannot be seen, though the server says that there is the resource."""
STALE_S = 180.0
"""An informer that cannot follow at the moment is told of when its newest proof of being up to date is older than that.
One that follows is not: nothing proves that a quiet resource is up to date, and it is."""
LOOK_S = 0.25
"""Between looks at what is still awaited at the start."""
ASK_S, ASK_SLOWLY_S = 1.0, 15.0
"""Between questions what the group has, at the start; and later, for as long as something is not known."""
GRACE_S = 10.0
"""How long a kind that is served may take until discovery tells of it, before that is a finding."""


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
        self._told = read_told(settings.state_file) if settings.state_file else Told()
        told = self._told.findings()
        self._told_of = {
            one.subject.resource
            for one in told
            if one.subject.resource.endswith(f".{settings.checks.group}") and "*" not in one.subject.resource
        }
        """Kinds of the group that people were told something about."""
        self.model = Model(
            settings.checks,
            good,
            incomplete={*FOLLOWED, routes, *remembered, *self._told_of},
            remembered=told,
        )
        self._state_file = StateFile(
            settings.state_file, self.model.good, self._told, every_s=settings.save_s
        )
        self.ready = asyncio.Event()
        """Everything there was at first has been looked at, or is known to be out of sight."""
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
        self._complete = False
        self._delivered = asyncio.Event()
        self._group_judged = asyncio.Event()
        """Which kinds there are is known, or a finding says that it is not."""

    @property
    def followed(self) -> Sequence[str]:
        """Resources that are followed."""
        return tuple(self._informers)

    @property
    def objects(self) -> int:
        """Objects that are held."""
        return sum(informer.status.objects for informer in self._informers.values())

    async def run(self) -> None:
        """Monitors until cancelled; then tells what there is still to tell, and saves."""
        settings = self._settings
        if told := len(self._told.findings()):
            log.info("people were told of findings before", extra={"findings": told})
        async with Poster(settings.alerts.timeout_s) as poster:
            alerting = Alerting(
                settings.alerts,
                poster,
                links=self._links,
                now=self._now,
                more=self._receivers,
                told=self._told,
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
                    group.create_task(self._state_file.run(), name="save")
                    group.create_task(self._watching_over(), name="health")
                    for resource, asked in FOLLOWED.items():
                        self._listing[resource] = group.create_task(
                            self._follow(resource, asked), name=f"follow {resource}"
                        )
                    group.create_task(self._discovering(group), name="discover")
                    group.create_task(self._knowing_the_group(), name="know the group")
                    group.create_task(self._starting(), name="start")
                    group.create_task(self._noting_again(), name="note again")
            finally:
                for informer in self._informers.values():
                    # The client may have been closed before, and its informers with it.
                    with contextlib.suppress(ValueError):
                        informer.release()
                self._state_file.save()

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
        async for event in self._client.informers.discovered(self._settings.checks.group):
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
        """Says when everything is known that was there at first, but for what cannot be seen."""
        await self._settled(FOLLOWED)
        await self._group_judged.wait()
        await self._settled(tuple(self._listing))
        self._complete = True
        self._delivered.set()

    async def _settled(self, resources: Iterable[str]) -> None:
        """Waits until each is listed, or refused, or has failed: that is a finding, and others do not wait for it."""
        for resource in resources:
            while not self._listing[resource].done():
                informer = self._informers.get(resource)
                if informer is not None and informer.status.state in OUT_OF_SIGHT:
                    self._judge(resource, informer)
                    break
                await asyncio.sleep(LOOK_S)

    async def _knowing_the_group(self) -> None:
        """Tells the model which remembered kinds do not exist, once the API server has said so; until then that is a
        finding. A group that could not be asked for, or that is not there, does not mean that its objects are gone.
        """
        loop, group = asyncio.get_running_loop(), self._settings.checks.group
        routes = f"{self._settings.checks.routes}.{group}"
        identity = Identity("resource_unreadable", Subject(f"*.{group}", "", group))
        began, warned = loop.time(), False
        while True:
            remembered, kinds, why = self._remembered(), None, ""
            try:
                kinds = await served(self._client, group)
            except Unanswered as error:
                why = str(error)
            if kinds is not None:
                if not warned:
                    self._warn_of_unserved(kinds)
                    warned = True
                late = sorted(f"{kind}.{group}" for kind in kinds if "/" not in kind)
                self.model.complete(*({routes, *remembered} - set(late) - set(self._listing)))
                late = [one for one in late if one in {routes, *remembered} - set(self._listing)]
                why = f"discovery has not told of {', '.join(late)} yet" if late else ""
            elif not why and len(self.model.good):
                why = f"the group is not served; {len(self.model.good)} objects of it are remembered"
            elif not why:
                # Never heard of, or nothing good: it may come, and then its kinds are told of.
                self.model.complete(routes, *remembered)
            waits = kinds is not None and why and loop.time() < began + GRACE_S
            if not waits:
                self._judge_group(identity, why)
                self._group_judged.set()
            if kinds is not None and not why:
                return
            await asyncio.sleep(ASK_S if waits else ASK_SLOWLY_S)

    def _judge_group(self, identity: Identity, why: str) -> None:
        if why:
            summary = f"the monitor cannot see what there is of {identity.subject.name}"
            self.model.note(_unreadable(identity.subject, summary, why))
        else:
            self.model.withdraw(identity)
        self._delivered.set()

    def _warn_of_unserved(self, kinds: Collection[str]) -> None:
        """A name in the settings that means nothing would disable what it is for, in silence."""
        checks, rollback = self._settings.checks, self._settings.rollback
        named = {
            "checks.routes": (checks.routes,),
            "checks.rules": checks.rules,
            "checks.limits": checks.limits,
            "rollback.restore": rollback.restore,
        }
        for setting, names in named.items():
            for kind in sorted(set(names) - set(kinds)):
                log.warning(
                    "settings name a kind that is not served",
                    extra={"setting": setting, "kind": kind, "group": checks.group},
                )

    def _remembered(self) -> set[str]:
        return {*self._told_of, *(resource for resource, _, _ in self.model.good.items())}

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
            if complete:
                self.model.looked_for(set(CHECKS) - set(NOTED))
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
                alerting.known()
                self.ready.set()

    async def _noting_again(self) -> None:
        """Says when what does not follow from objects has been noted again, if it is still so."""
        await self.ready.wait()
        rollback = self._settings.rollback
        await asyncio.sleep(HEALTH_S + rollback.delay_s + rollback.timeout_s)
        self.model.looked_for(NOTED)
        self._delivered.set()

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
        stale = status.state == "synced" and bool(status.message) and status.age_s > STALE_S
        missing = resource in FOLLOWED and status.state in ("waiting", "unknown", "gone")
        unseen = status.state in OUT_OF_SIGHT
        self.model.out_of_sight(resource, unseen)
        if unseen or stale or missing:
            why = status.message or (f"nothing heard for {status.age_s:.0f} s" if stale else status.state)
            version = "" if informer.resource is None else informer.resource.api_version
            summary = f"the monitor cannot see {resource}"
            self.model.note(_unreadable(subject, summary, why, api_version=version))
        else:
            self.model.withdraw(Identity("resource_unreadable", subject))
        if self.model.dirty:
            self._delivered.set()


def _unreadable(subject: Subject, summary: str, why: str, *, api_version: str = "") -> Finding:
    return Finding(
        check="resource_unreadable",
        subject=subject,
        severity="critical",
        summary=summary,
        details=(why,),
        api_version=api_version,
    )


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
