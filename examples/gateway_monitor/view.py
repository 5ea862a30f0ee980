"""The cluster as the checks look at it: objects, and how they lead to one another. Pure.

``route -> service -> endpoint slices -> pods`` and ``policy -> route``. `View.take` says whose findings a delivery may
have changed, so that one changed pod costs a look at the routes in front of it and not at all routes.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from .documents import dig, text
from .facts import (
    GatewayFacts,
    Place,
    PodFacts,
    SliceFacts,
    gateway_facts,
    pod_facts,
    service_facts,
    slice_facts,
)
from .findings import Subject
from .lastgood import LastGood
from .settings import Checks
from .world import Delivery, Index, Register

SERVICES = "services"
SLICES = "endpointslices.discovery.k8s.io"
PODS = "pods"


class View:
    """Registers of all resources and the indexes between them."""

    def __init__(self, settings: Checks, good: LastGood) -> None:
        self.settings = settings
        self.good = good
        self.services = Register(service_facts)
        self.slices = Register(slice_facts)
        self.pods = Register(pod_facts)
        self.gateway: dict[str, Register[GatewayFacts]] = {}
        self.routes = f"{settings.routes}.{settings.group}"
        self.unseen: set[str] = set()
        """Resources that cannot be read: what is not held of them may be there."""
        self._slices_of: Index[Place, Place] = Index()
        self._slices_with: Index[Place, Place] = Index()
        self._pods_in: Index[Place, str] = Index()
        self._routes_to: Index[Place, Place] = Index()
        self._routed_in: dict[str, set[Place]] = {}
        """By namespace: services that routes lead to, or did."""
        self._policies_of: Index[Subject, Place] = Index()
        for resource, place, _ in good.items():
            self.link(Subject(resource, place.namespace, place.name))

    # -- taking ----------------------------------------------------------------------------------------------

    def take(self, delivery: Delivery, now: float) -> set[Subject]:
        """Takes a delivery; subjects whose findings may have changed."""
        if delivery.resource == SERVICES:
            return self._in_front_of(delivery.place) if self.services.take(delivery, now) else set()
        if delivery.resource == SLICES:
            return self._take_slice(delivery, now)
        if delivery.resource == PODS:
            return self._take_pod(delivery, now)
        return self._take_gateway(delivery, now)

    def register(self, resource: str) -> Register[Any]:
        """The objects of a resource."""
        core: dict[str, Register[Any]] = {SERVICES: self.services, SLICES: self.slices, PODS: self.pods}
        return (
            core[resource] if resource in core else self.gateway.setdefault(resource, Register(gateway_facts))
        )

    def expire(self, before: float) -> None:
        """Forgets deletions that were heard of earlier than that."""
        registers: list[Register[Any]] = [self.services, self.slices, self.pods, *self.gateway.values()]
        for register in registers:
            register.expire(before)

    def link(self, subject: Subject) -> None:
        """Indexes a custom resource by what it leads to, in its present and its last good state."""
        place = Place(subject.namespace, subject.name)
        facts, good = self.facts(subject), self.good.get(subject.resource, place)
        if subject.resource == self.routes:
            backend = backend_of(facts, place) if facts is not None else None
            self._routes_to.set(place, () if backend is None else (backend,))
            if backend is not None:
                self._routed_in.setdefault(backend.namespace, set()).add(backend)
            return
        states = [one for one in (facts, None if good is None else good.facts) if one is not None]
        targets = (self.target(one, place) for one in states)
        self._policies_of.set(subject, (target for target in targets if target is not None))

    def _take_slice(self, delivery: Delivery, now: float) -> set[Subject]:
        before = self.slices.get(delivery.place)
        if not self.slices.take(delivery, now):
            return set()
        after = self.slices.get(delivery.place)
        services = {one.service for one in (before, after) if one is not None and one.service is not None}
        self._slices_of.set(delivery.place, (after.service,) if after and after.service else ())
        endpoints = after.endpoints if after is not None else ()
        self._slices_with.set(delivery.place, (one.pod for one in endpoints if one.pod is not None))
        return {route for service in services for route in self._in_front_of(service)}

    def _take_pod(self, delivery: Delivery, now: float) -> set[Subject]:
        place = delivery.place
        before = self.pods.get(place)
        if not self.pods.take(delivery, now):
            return set()
        after = self.pods.get(place)
        if before == after:
            return set()
        self._pods_in.set(place, () if after is None else (place.namespace,))
        services = {
            facts.service
            for name in self._slices_with.get(place)
            if (facts := self.slices.get(name)) is not None and facts.service is not None
        }
        labels = [one.labels for one in (before, after) if one is not None]
        for service in self._routed_in.get(place.namespace, ()):
            known = self.services.get(service)
            if known is not None and any(known.selects(one) for one in labels):
                services.add(service)
        return {route for service in services for route in self._in_front_of(service)}

    def _take_gateway(self, delivery: Delivery, now: float) -> set[Subject]:
        resource, place = delivery.resource, delivery.place
        register = self.gateway.setdefault(resource, Register(gateway_facts))
        changed = register.take(delivery, now)
        # Late deliveries count too: which state was first does not depend on when one hears of it.
        told, known = gateway_facts(delivery.document), self.good.changes
        if delivery.document:
            self.good.offer(resource, place, delivery.version, told)
        if delivery.deleted and told.removal_approved:
            self.good.let_go(resource, place, told.uid)
            current, version = register.get(place), register.version(place)
            if current is not None and version is not None:
                self.good.offer(resource, place, version, current)
        if not changed and self.good.changes == known:
            return set()
        subject = Subject(resource, place.namespace, place.name)
        self.link(subject)
        return {subject, *self._policies_of.get(place)} if resource == self.routes else {subject}

    def _in_front_of(self, service: Place) -> set[Subject]:
        return {Subject(self.routes, place.namespace, place.name) for place in self._routes_to.get(service)}

    # -- looking ---------------------------------------------------------------------------------------------

    def facts(self, subject: Subject) -> GatewayFacts | None:
        """A custom resource as it is now; None if there is none."""
        register = self.gateway.get(subject.resource)
        return None if register is None else register.get(Place(subject.namespace, subject.name))

    def subjects(self) -> set[Subject]:
        """Every custom resource that there is, or that was good."""
        there = {
            Subject(resource, place.namespace, place.name)
            for resource, register in self.gateway.items()
            for place, _ in register.versions()
        }
        return there | {Subject(name, place.namespace, place.name) for name, place, _ in self.good.items()}

    def api_version(self, subject: Subject) -> str:
        """Group and version of a custom resource as it is, or was; "" if it was never seen."""
        good = self.good.get(subject.resource, Place(subject.namespace, subject.name))
        facts = self.facts(subject) or (good.facts if good is not None else None)
        return facts.api_version if facts is not None else ""

    def slices_of(self, service: Place) -> list[SliceFacts]:
        """Of a service, in the order of their names."""
        names = sorted(self._slices_of.get(service))
        return [facts for name in names if (facts := self.slices.get(name)) is not None]

    def pods_behind(self, service: Place) -> Iterator[tuple[Place, PodFacts]]:
        """Pods that the service selects, by name."""
        known = self.services.get(service)
        if known is None or not known.selector:
            return
        for place in sorted(self._pods_in.get(service.namespace)):
            facts = self.pods.get(place)
            if facts is not None and known.selects(facts.labels):
                yield place, facts

    def target(self, facts: GatewayFacts, place: Place) -> Place | None:
        """The route a policy is about."""
        name = text(facts.spec, "targetRef", "name")
        return Place(text(facts.spec, "targetRef", "namespace") or place.namespace, name) if name else None

    def is_production(self, subject: Subject) -> bool:
        """The settings select it, or the route that it is about, by its present or by its last good state."""
        place = Place(subject.namespace, subject.name)
        if any(fnmatchcase(subject.namespace, pattern) for pattern in self.settings.production.namespaces):
            return True
        good = self.good.get(subject.resource, place)
        states = [
            one for one in (self.facts(subject), None if good is None else good.facts) if one is not None
        ]
        if any(self._selected(one) for one in states):
            return True
        if subject.resource == self.routes:
            return False
        targets = {self.target(one, place) for one in states}
        return any(
            self.is_production(Subject(self.routes, one.namespace, one.name))
            for one in targets
            if one is not None
        )

    def _selected(self, facts: GatewayFacts) -> bool:
        production = self.settings.production
        return any(facts.labels.get(name) == value for name, value in production.labels.items()) or any(
            facts.annotations.get(name) == value for name, value in production.annotations.items()
        )


def backend_of(facts: GatewayFacts, place: Place) -> Place | None:
    """The service a route leads to."""
    name = text(facts.spec, "backend", "service")
    return Place(text(facts.spec, "backend", "namespace") or place.namespace, name) if name else None


def port_of(facts: GatewayFacts) -> int | str | None:
    """The port of the service a route leads to; None: not said, any will do."""
    port = dig(facts.spec, "backend", "port")
    if isinstance(port, str) and port.isascii() and port.isdigit():
        return int(port)  # names of ports have a letter in them
    return port if isinstance(port, int | str) and not isinstance(port, bool) else None
