"""What happens in the demonstration, and what the monitor has to make of it.

Two lives of a monitor over one state file. The first only shows what it would put back; the second enforces. Every
`Stage.expects` waits until something was seen, and is a line of the summary either way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .findings import Check, Finding, Opened, Resolved, Subject, Transition
from .monitor import Monitor
from .operators import Operators
from .receivers import Received
from .rollback import AuditLine, Outcome

POLL_S = 0.1
"""How often it is looked without having heard anything."""
PATIENCE_S = 15.0
"""How long anything may take that the monitor has to notice."""
GROUP = "gateway.example.com"
NAMESPACE = "payments"
BROKEN = "auth-v2"
"""Its route is in production, and has 12 endpoints."""
RELAXED = "api-svc"
"""Its route is in production and has a rate limit."""
AUTHENTICATED = "auth-v2"
GUARDED = "thumbs-svc"
"""Its route is in production and has a firewall that blocks."""
ORDINALS = ("first", "second", "third", "fourth")


class Seen(msgspec.Struct):
    """One line of the summary."""

    what: str
    after_s: float | None
    """Since somebody acted; None: it was not seen."""
    detail: str = ""


class Stage:
    """Where it all happens: what the monitor said so far, and what was expected of it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seen: list[Seen] = []
        self.transitions: list[Transition] = []
        self.audit: list[AuditLine] = []
        self.received = Received(self._changed)
        self.monitor: Monitor | None = None
        """The one that runs, or ran last."""
        self._say = say
        self._news = asyncio.Event()
        self._acted_at = asyncio.get_running_loop().time()

    def take_transitions(self, transitions: Sequence[Transition]) -> None:
        """The monitor said something about findings."""
        for one in transitions:
            finding = one.finding
            if isinstance(one, Opened):
                self._say(f"  monitor: {finding.severity} {finding.check}: {finding.summary}")
                for line in (*finding.details[:3], *map(str, finding.changes)):
                    self._say(f"             {line}")
            elif isinstance(one, Resolved):
                self._say(f"  monitor: resolved {finding.check}: {finding.subject}")
        self.transitions += transitions
        self._changed()

    def take_audit(self, line: AuditLine) -> None:
        """The monitor put something back, or did not."""
        self._say(
            f"  monitor: rollback {line.outcome} of {line.subject}: {'; '.join(map(str, line.changes))}"
        )
        self.audit.append(line)
        self._changed()

    def acts(self, text: str) -> None:
        """Somebody is about to do something; what is expected from now on is measured from here."""
        self._say(f"somebody: {text}")
        self._acted_at = asyncio.get_running_loop().time()

    async def expects(self, what: str, check: Callable[[], Any]) -> None:
        """Waits until `check` gives something true, and notes how long that took; or that it was never true."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (found := check()):
                    self._news.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await self._news.wait()
        except TimeoutError:
            self._say(f"  NOT SEEN within {PATIENCE_S:g} s: {what}")
            self.seen.append(Seen(what, None))
            return
        self.seen.append(Seen(what, loop.time() - self._acted_at, found if isinstance(found, str) else ""))

    # -- what can be looked for ------------------------------------------------------------------------------

    def mark(self) -> int:
        """To look only at what comes after now."""
        return len(self.transitions)

    def opened(self, check: Check, plural: str, name: str, *, since: int = 0) -> Finding | None:
        """A finding that was opened, or changed, after a mark."""
        return self._last(check, plural, name, since, over=False)

    def resolved(self, check: Check, plural: str, name: str, *, since: int = 0) -> Finding | None:
        """A finding that was resolved after a mark."""
        return self._last(check, plural, name, since, over=True)

    def rolled_back(self, outcome: Outcome, plural: str, name: str) -> list[AuditLine]:
        """Lines of the audit."""
        subject = str(Subject(f"{plural}.{GROUP}", NAMESPACE, name))
        return [line for line in self.audit if line.outcome == outcome and line.subject == subject]

    def knows(self, plural: str, name: str) -> bool:
        """The monitor has seen this object."""
        subject = Subject(f"{plural}.{GROUP}", NAMESPACE, name)
        return self.monitor is not None and self.monitor.model.view.facts(subject) is not None

    def _last(self, check: Check, plural: str, name: str, since: int, *, over: bool) -> Finding | None:
        subject = Subject(f"{plural}.{GROUP}", NAMESPACE, name)
        for one in reversed(self.transitions[since:]):
            if (
                one.finding.check == check
                and one.finding.subject == subject
                and isinstance(one, Resolved) == over
            ):
                return one.finding
        return None

    def _changed(self) -> None:
        self._news.set()


def _told(finding: Finding | None) -> str:
    return "" if finding is None else finding.summary


async def first_life(stage: Stage, people: Operators) -> None:
    """An outage and its end; a relaxed policy that is only shown."""
    await stage.expects(
        "a healthy cluster has no findings", lambda: not stage.transitions and "nothing is wrong"
    )
    stage.acts(f"makes a bad release; all pods of {NAMESPACE}/{BROKEN} crash")
    await people.break_service(NAMESPACE, BROKEN)
    await stage.expects("outage: route_down", lambda: _told(stage.opened("route_down", "apiroutes", BROKEN)))
    await stage.expects(
        "outage: the unready pods and why",
        lambda: any(
            "CrashLoopBackOff" in line for line in _details(stage.opened("route_down", "apiroutes", BROKEN))
        ),
    )
    await stage.expects(
        "outage: alert at Alertmanager", lambda: stage.received.firing("GatewayRouteDown", BROKEN)
    )
    await stage.expects("outage: message at the webhook", lambda: stage.received.message("is down"))
    stage.acts("takes the release back")
    await people.repair_service(NAMESPACE, BROKEN)
    await stage.expects("outage: over", lambda: stage.resolved("route_down", "apiroutes", BROKEN) is not None)
    await stage.expects(
        "outage: resolved at Alertmanager", lambda: stage.received.over("GatewayRouteDown", BROKEN)
    )
    await stage.expects("outage: resolved at the webhook", lambda: stage.received.message("over after"))

    stage.acts(f"raises the rate limit of {NAMESPACE}/{RELAXED}, only for a test")
    await people.change("ratelimitpolicies", NAMESPACE, RELAXED, requestsPerSecond=100_000)
    await stage.expects(
        "relaxed limit: policy_relaxed",
        lambda: _told(stage.opened("policy_relaxed", "ratelimitpolicies", RELAXED)),
    )
    await stage.expects(
        "relaxed limit: limit_out_of_bounds",
        lambda: _told(stage.opened("limit_out_of_bounds", "ratelimitpolicies", RELAXED)),
    )
    await stage.expects(
        "relaxed limit: alert at Alertmanager", lambda: stage.received.firing("GatewayPolicyRelaxed", RELAXED)
    )
    await stage.expects(
        "relaxed limit: the patch is shown", lambda: stage.rolled_back("would", "ratelimitpolicies", RELAXED)
    )
    await stage.expects(
        "relaxed limit: the patch at Alertmanager",
        lambda: stage.received.firing("GatewayRollbackProposed", RELAXED),
    )
    limit = (await people.read("ratelimitpolicies", NAMESPACE, RELAXED))["spec"]["requestsPerSecond"]
    await stage.expects("relaxed limit: nothing was written", lambda: limit == 100_000)


async def between(stage: Stage, people: Operators) -> None:
    """While no monitor runs."""
    stage.acts(f"makes authentication of {NAMESPACE}/{AUTHENTICATED} optional while the monitor is away")
    await people.change("authnpolicies", NAMESPACE, AUTHENTICATED, optional=True)


async def second_life(stage: Stage, people: Operators, before: dict[str, Any]) -> None:
    """Everything forbidden is put back, up to a limit; a route goes; a kind comes and goes."""
    await stage.expects(
        "changed while away: policy_relaxed",
        lambda: _told(stage.opened("policy_relaxed", "authnpolicies", AUTHENTICATED)),
    )
    await stage.expects(
        "rollback: the limit is put back", lambda: stage.rolled_back("done", "ratelimitpolicies", RELAXED)
    )
    await stage.expects(
        "rollback: authentication is put back",
        lambda: stage.rolled_back("done", "authnpolicies", AUTHENTICATED),
    )
    await stage.expects(
        "rollback: the findings are over",
        lambda: (
            stage.resolved("policy_relaxed", "ratelimitpolicies", RELAXED)
            and stage.resolved("policy_relaxed", "authnpolicies", AUTHENTICATED) is not None
        ),
    )
    await stage.expects(
        "rollback: alerts at Alertmanager",
        lambda: (
            stage.received.firing("GatewayRollbackDone", RELAXED)
            and stage.received.firing("GatewayRollbackDone", AUTHENTICATED)
        ),
    )
    now = await people.read("ratelimitpolicies", NAMESPACE, RELAXED)
    await stage.expects("rollback: the object is as it was", lambda: now["spec"] == before["spec"])
    await _stubborn(stage, people)

    mark = stage.mark()
    stage.acts(f"deletes the production route {NAMESPACE}/{RELAXED}")
    await people.delete("apiroutes", NAMESPACE, RELAXED)
    await stage.expects(
        "removed route: production_route_removed",
        lambda: _told(stage.opened("production_route_removed", "apiroutes", RELAXED, since=mark)),
    )
    await stage.expects(
        "removed route: alert at Alertmanager",
        lambda: stage.received.firing("GatewayProductionRouteRemoved", RELAXED),
    )
    await _new_kind(stage, people)


async def _stubborn(stage: Stage, people: Operators) -> None:
    """Somebody fights with the monitor, which gives in and calls for people."""
    for attempt in range(1, 4):
        stage.acts(
            f"turns the firewall of {NAMESPACE}/{GUARDED} to detect, for the {ORDINALS[attempt - 1]} time"
        )
        await people.change("securitypolicies", NAMESPACE, GUARDED, wafMode="detect")
        await stage.expects(
            f"rollback {attempt} of the firewall's mode",
            lambda: len(stage.rolled_back("done", "securitypolicies", GUARDED)) >= attempt,  # noqa: B023 - awaited here
        )
    stage.acts(f"turns the firewall of {NAMESPACE}/{GUARDED} to detect, for the {ORDINALS[-1]} time")
    await people.change("securitypolicies", NAMESPACE, GUARDED, wafMode="detect")
    await stage.expects(
        "the fourth time: rollback_suspended",
        lambda: _told(stage.opened("rollback_suspended", "securitypolicies", GUARDED)),
    )
    mode = (await people.read("securitypolicies", NAMESPACE, GUARDED))["spec"]["wafMode"]
    await stage.expects("the fourth time: nothing was written", lambda: mode == "detect")


async def _new_kind(stage: Stage, people: Operators) -> None:
    """A kind that nobody named is followed like all others, and its going is no outage."""
    stage.acts("adds a kind to the gateway, CircuitBreaker")
    await people.define("circuitbreakers", "CircuitBreaker")
    await people.create("circuitbreakers", "CircuitBreaker", NAMESPACE, RELAXED, {"consecutiveErrors": 5})
    await stage.expects("new kind: followed", lambda: stage.knows("circuitbreakers", RELAXED))
    stage.acts("changes an object of it")
    await people.change("circuitbreakers", NAMESPACE, RELAXED, consecutiveErrors=5000)
    await stage.expects(
        "new kind: field_changed", lambda: _told(stage.opened("field_changed", "circuitbreakers", RELAXED))
    )
    stage.acts("takes the kind away again")
    await people.undefine("circuitbreakers")
    await stage.expects(
        "new kind: gone", lambda: stage.resolved("field_changed", "circuitbreakers", RELAXED) is not None
    )


def _details(finding: Finding | None) -> tuple[str, ...]:
    return () if finding is None else finding.details
