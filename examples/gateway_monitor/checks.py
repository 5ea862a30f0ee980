"""The checks: what is wrong with one object, given everything that is known. Pure; a function of `View` alone.

=========================  ========================================================================= ==============
check                      what                                                                       severity
=========================  ========================================================================= ==============
route_down                 no such service or port, no EndpointSlice, no ready endpoint with the port critical *
production_route_removed   a production route that was good is not there                              critical
policy_relaxed             laxer than its last good state, or deleted while its route is there        critical *
limit_out_of_bounds        a limit outside of the declared bounds                                     critical *
field_changed              any other difference from the last good state                              warning **
=========================  ========================================================================= ==============

``*`` in production, else warning; ``**`` in production, else info.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec

from .diff import Change, diff, shown
from .documents import ABSENT, dig, number, parts, plain, within
from .facts import Endpoint, GatewayFacts, Place, ServiceFacts
from .findings import Finding, Severity, Subject
from .lastgood import GoodState
from .relaxation import relaxed
from .view import PODS, SERVICES, SLICES, View, backend_of, port_of

LINES_MAX = 30
"""Details and changes of one finding that are told; the others are counted."""


def findings_of(view: View, subject: Subject) -> list[Finding]:
    """Everything that is wrong with an object now; `Finding.since` is left open."""
    version = view.api_version(subject)
    return [msgspec.structs.replace(finding, api_version=version) for finding in _found(view, subject)]


def _found(view: View, subject: Subject) -> list[Finding]:
    facts = view.facts(subject)
    good = view.good.get(subject.resource, Place(subject.namespace, subject.name))
    if facts is None:
        return [] if good is None else list(_removed(view, subject, good))
    found = list(_route_down(view, subject, facts)) if subject.resource == view.routes else []
    limits, broken = _out_of_bounds(view, subject, facts, good)
    found += limits
    if good is None:
        return found
    changes = differences(view, good, facts)
    policy, relaxing = _relaxed(view, subject, facts, good, changes)
    found += policy
    found += _changed(view, subject, [one for one in changes if not _explained(one, (*broken, *relaxing))])
    return found


def differences(view: View, good: GoodState, facts: GatewayFacts) -> tuple[Change, ...]:
    """What differs from the last good state in the fields that are compared."""
    before, after = good.facts.document, facts.document
    return tuple(
        change
        for path in map(parts, view.settings.compared)
        for change in diff(dig(before, *path), dig(after, *path), path)
    )


# -- routes --------------------------------------------------------------------------------------------------


def _route_down(view: View, subject: Subject, facts: GatewayFacts) -> Iterator[Finding]:
    service = backend_of(facts, Place(subject.namespace, subject.name))
    why, details = ("it names no service", ()) if service is None else _why_down(view, facts, service)
    if why:
        yield Finding(
            check="route_down",
            subject=subject,
            severity=_severity(view, subject),
            summary=f"route {subject.namespace}/{subject.name} is down: {why}",
            details=_lines(details),
        )


def _why_down(view: View, facts: GatewayFacts, service: Place) -> tuple[str, tuple[str, ...]]:
    """Why nothing answers behind a service, or ""; and what explains it."""
    known, port = view.services.get(service), port_of(facts)
    if known is None and SERVICES not in view.unseen:
        return f"there is no service {service}", ()
    if known is not None and known.external:
        return "", ()
    if known is not None and port is not None and known.ports and port not in known.ports:
        ports = ", ".join(sorted(map(str, known.ports)))
        return f"service {service} has no port {port}", (f"its ports: {ports}",)
    slices = view.slices_of(service)
    if not slices and (known is None or SLICES in view.unseen):
        return (
            "",
            (),
        )  # a service that is not seen may be a name elsewhere, and slices that are not seen may be ready
    unseen = () if known is not None else (f"service {service}: not known, {SERVICES} cannot be read",)
    if not slices:
        return f"service {service} has no EndpointSlice", _selected_pods(view, service)
    names = _port_names(known, port)
    counted = [one for one in slices if not names or not one.ports or names & one.ports]
    endpoints = [endpoint for one in counted for endpoint in one.endpoints]
    others = sum(len(one.endpoints) for one in slices) - len(endpoints)
    if any(endpoint.ready for endpoint in endpoints):
        return "", ()
    if not endpoints and others:
        theirs = ", ".join(sorted({name or "one without a name" for one in slices for name in one.ports}))
        lines = (f"ports of its endpoints: {theirs}", *_selected_pods(view, service))
        return f"no endpoint of service {service} has port {port}", lines
    if not endpoints:
        return f"service {service} has no endpoints", (*unseen, *_selected_pods(view, service))
    explained = (*unseen, *_endpoint_lines(view, endpoints))
    if others:
        count = f"{others} endpoints" if others > 1 else "1 endpoint"
        explained = (*explained, f"without port {port}, so not counted: {count}")
    return f"none of the {len(endpoints)} endpoints of service {service} is ready", explained


def _port_names(service: ServiceFacts | None, port: int | str | None) -> frozenset[str]:
    """What slices call the port that a route leads to; empty if any will do, or nobody knows."""
    return frozenset() if service is None or port is None else service.ports.get(port, frozenset())


def _endpoint_lines(view: View, endpoints: list[Endpoint]) -> list[str]:
    """What each of them is not ready for."""
    pods = tuple(sorted({one.pod for one in endpoints if one.pod is not None}))
    lines = [_pod_line(view, pod) for pod in pods[: view.settings.pods_shown]]
    if len(pods) > len(lines):
        lines.append(f"and {len(pods) - len(lines)} more pods")
    unnamed = sorted(one.address for one in endpoints if one.pod is None)
    lines += [f"address {address}: not ready" for address in unnamed[: view.settings.pods_shown]]
    return lines


def _pod_line(view: View, pod: Place) -> str:
    facts = view.pods.get(pod)
    if facts is None:
        return f"pod {pod}: {f'not known, {PODS} cannot be read' if PODS in view.unseen else 'there is no such pod'}"
    return f"pod {pod}: {facts.why or 'ready itself, but not as an endpoint'}"


def _selected_pods(view: View, service: Place) -> tuple[str, ...]:
    found = list(view.pods_behind(service))
    if PODS in view.unseen:
        return (f"which pods it selects is not known: {PODS} cannot be read",)
    if view.services.get(service) is None:
        return ()
    if not found:
        return ("no pod matches its selector",)
    lines = [f"pod {place}: {facts.why or 'ready'}" for place, facts in found[: view.settings.pods_shown]]
    if len(found) > len(lines):
        lines.append(f"and {len(found) - len(lines)} more pods")
    return tuple(lines)


# -- what is gone --------------------------------------------------------------------------------------------


def _removed(view: View, subject: Subject, good: GoodState) -> Iterator[Finding]:
    place = Place(subject.namespace, subject.name)
    if subject.resource == view.routes:
        if view.is_production(subject):
            host = dig(good.facts.spec, "host")
            yield Finding(
                check="production_route_removed",
                subject=subject,
                severity="critical",
                summary=f"production route {place} was removed",
                details=(f"it served {host}",) if isinstance(host, str) else (),
            )
        return
    if _plural(subject) not in view.settings.rules:
        return
    target = view.target(good.facts, place)
    if target is None or view.facts(Subject(view.routes, target.namespace, target.name)) is None:
        return
    kind = good.facts.kind or subject.resource
    yield Finding(
        check="policy_relaxed",
        subject=subject,
        severity=_severity(view, subject),
        summary=f"{kind} {place} was removed, and route {target} is still there",
    )


# -- policies ------------------------------------------------------------------------------------------------


def _relaxed(
    view: View, subject: Subject, facts: GatewayFacts, good: GoodState, changes: tuple[Change, ...]
) -> tuple[list[Finding], list[tuple[str, ...]]]:
    """The finding, if any, and the paths that it explains."""
    rules = view.settings.rules.get(_plural(subject), ())
    found = relaxed(rules, good.facts.document, facts.document, view.settings.limit_factor)
    if not found:
        return [], []
    explained = [one.path for one in found]
    finding = Finding(
        check="policy_relaxed",
        subject=subject,
        severity=_severity(view, subject),
        summary=f"{facts.kind or subject.resource} {subject.namespace}/{subject.name} was relaxed",
        details=_lines(tuple(one.why for one in found)),
        changes=tuple(shown(one) for one in changes if _explained(one, explained))[:LINES_MAX],
    )
    return [finding], explained


def _out_of_bounds(
    view: View, subject: Subject, facts: GatewayFacts, good: GoodState | None
) -> tuple[list[Finding], list[tuple[str, ...]]]:
    """The finding, if any, and the paths that it explains."""
    lines, broken, changes = [], [], []
    for path, bounds in view.settings.limits.get(_plural(subject), {}).items():
        at = parts(path)
        value = dig(facts.document, *at)
        limit = number(value)
        if value is ABSENT or value is None:
            continue
        if limit is None or not math.isfinite(limit):
            lines.append(f"{path} is no number")
        elif bounds.most is not None and limit > bounds.most:
            lines.append(f"{path} is {plain(limit)}: at most {plain(bounds.most)} is allowed")
        elif bounds.least is not None and limit < bounds.least:
            lines.append(f"{path} is {plain(limit)}: at least {plain(bounds.least)} is wanted")
        else:
            continue
        broken.append(at)
        before = ABSENT if good is None else dig(good.facts.document, *at)
        changes += [shown(one) for one in diff(before, value, at)]
    if not lines:
        return [], []
    finding = Finding(
        check="limit_out_of_bounds",
        subject=subject,
        severity=_severity(view, subject),
        summary=f"{facts.kind or subject.resource} {subject.namespace}/{subject.name} has a limit out of bounds",
        details=_lines(tuple(lines)),
        changes=tuple(changes[:LINES_MAX]),
    )
    return [finding], broken


def _changed(view: View, subject: Subject, changes: list[Change]) -> Iterator[Finding]:
    if not changes:
        return
    fields = f"{len(changes)} fields" if len(changes) > 1 else "a field"
    kind = (facts.kind if (facts := view.facts(subject)) is not None else "") or subject.resource
    more = len(changes) - LINES_MAX
    yield Finding(
        check="field_changed",
        subject=subject,
        severity="warning" if view.is_production(subject) else "info",
        summary=f"{kind} {subject.namespace}/{subject.name} differs from its last good state in {fields}",
        details=(f"and {more} more changes",) if more > 0 else (),
        changes=tuple(shown(one) for one in changes[:LINES_MAX]),
    )


def _explained(change: Change, by: list[tuple[str, ...]] | tuple[tuple[str, ...], ...]) -> bool:
    """A finding that says more is about this field already: about itself, what it is in, or what is in it."""
    return any(within(change.path, path) or within(path, change.path) for path in by)


def _severity(view: View, subject: Subject) -> Severity:
    return "critical" if view.is_production(subject) else "warning"


def _plural(subject: Subject) -> str:
    return subject.resource.partition(".")[0]


def _lines(lines: tuple[str, ...]) -> tuple[str, ...]:
    return lines if len(lines) <= LINES_MAX else (*lines[:LINES_MAX], f"and {len(lines) - LINES_MAX} more")
