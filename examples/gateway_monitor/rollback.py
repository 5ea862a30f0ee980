"""Putting forbidden changes back to the last good state, or showing what would be sent.

A finding of a check that the settings name puts its object into a work queue; the worker looks at the object as it is
then. Without `enforce` the request is only asked for with ``dryRun=All``, so that the server says whether it would
do it, and the finding ``rollback_proposed`` shows it for as long as the change lasts. With it the object is put back,
and ``rollback_done`` tells of it for a while, because the change itself is over at once. That happens at most
`per_hour_max` times an hour: after that there is a finding ``rollback_suspended``, and the object is left alone until
the hour is over.

Every attempt leaves a line in the log ``gateway_monitor.audit`` and in the audit file, if there is one:

=========== ===========================================================================
outcome     what happened
=========== ===========================================================================
would       nothing was written; the server would have accepted it (`enforce` is off)
done        it was put back
conflict    somebody wrote in between; it is looked at again
refused     the server does not want it: it is tried again, `attempts_max` times and later from time to time;
            or it could not be asked, or was busy: it is tried again until it can be
suspended   it was put back too often already
=========== ===========================================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, TypeAlias, assert_never, get_args

import msgspec

import shoal

from .correlation import Model
from .diff import ShownChange
from .documents import printable
from .files import append_line
from .findings import (
    Changed,
    Check,
    Finding,
    Identity,
    Opened,
    Resolved,
    Restorable,
    Severity,
    Subject,
    Transition,
)
from .messages import timestamp
from .secrets import unquoted
from .settings import Rollback
from .undoing import FIELD_MANAGER, Budget, Plan, plan

log = logging.getLogger("gateway_monitor.rollback")
audit_log = logging.getLogger("gateway_monitor.audit")

Outcome: TypeAlias = Literal["would", "done", "conflict", "refused", "suspended"]
RETRY_FIRST_S, RETRY_LONGEST_S = 0.5, 60.0
GIVEN_UP_S = 900.0
"""After the server has refused often enough, until it is asked again: permissions and admission rules change."""
LOOK_AGAIN_S = 0.5
"""After an object was put back. If the informer is later than that, the server refuses what is based on the past."""


class Answer(msgspec.Struct, frozen=True):
    """What the server said to a write."""

    status: int
    message: str = ""
    version: str = ""
    """Of the object as it was written."""
    reason: str = ""
    """In one word, if the server has one for it."""


class Writer(Protocol):
    """A way to write. Never raises because of what the server says."""

    async def write(self, wanted: Plan, query: tuple[tuple[str, str], ...]) -> Answer:
        """Sends a request; status 0: nobody answered."""


class ClientWriter:
    """Writes over the connection of a Shoal client, as whoever it belongs to."""

    def __init__(self, client: shoal.Client) -> None:
        self._connection = client.connection

    async def write(self, wanted: Plan, query: tuple[tuple[str, str], ...]) -> Answer:
        """As `Writer.write`."""
        headers = (("Accept", "application/json"), ("Content-Type", wanted.content_type))
        request = shoal.ApiRequest(wanted.method, wanted.path, query, headers, wanted.body)
        try:
            async with self._connection.open(request) as response:
                body = await response.read()
                return _read(response.status, body)
        except shoal.errors.ShoalError as error:
            return Answer(0, str(error))


class _Metadata(msgspec.Struct):
    resource_version: str = msgspec.field(name="resourceVersion", default="")


class _Said(msgspec.Struct):
    message: str = ""
    reason: str = ""
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


def _read(status: int, body: bytes) -> Answer:
    try:
        said = msgspec.json.decode(body, type=_Said)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Answer(status, body[:200].decode("utf-8", "replace"))
    return Answer(status, said.message, said.metadata.resource_version, said.reason)


class AuditLine(msgspec.Struct, frozen=True):
    """One attempt."""

    at: str
    outcome: Outcome
    subject: str
    checks: tuple[str, ...]
    """Why."""
    changes: tuple[ShownChange, ...]
    """From what was found to what is good."""
    version: str = ""
    """What was found."""
    new_version: str = ""
    message: str = ""


class Rollbacks:
    """Looks at findings and puts objects back. `run` does the work."""

    def __init__(
        self,
        settings: Rollback,
        model: Model,
        writer: Writer,
        *,
        now: Callable[[], float],
        noted: Callable[[], None],
        audit_file: str = "",
        audited: Callable[[AuditLine], None] | None = None,
    ) -> None:
        """`noted` is called when the model was given a finding; `audited` with every line of the audit."""
        self._settings = settings
        self._model = model
        self._writer = writer
        self._now = now
        self._noted = noted
        self._audit_file = audit_file
        self._audited = audited
        self._budget = Budget(settings.per_hour_max)
        self._told_until: dict[Subject, float] = {}
        self._refusals: dict[Subject, int] = {}
        """How often the server has refused what is being tried."""
        self._shown: dict[Subject, str] = {}
        """Without `enforce`: versions whose undoing was shown."""
        self._queue: shoal.WorkQueue[Subject] = shoal.WorkQueue(
            "rollbacks", limiter=shoal.ExponentialLimiter(RETRY_FIRST_S, RETRY_LONGEST_S)
        )

    def consider(self, transitions: Iterable[Transition]) -> None:
        """Something happened to findings."""
        for transition in transitions:
            finding = transition.finding
            if finding.check not in self._settings.checks or not self._is_declared(finding.subject):
                continue
            match transition:
                case Opened() | Changed():
                    self._queue.add_after(finding.subject, self._settings.delay_s)
                case Resolved():
                    self._calm(finding.subject)
                case _:
                    assert_never(transition)

    async def run(self) -> None:
        """Puts back until cancelled."""
        try:
            while True:
                async with self._queue.item() as subject:
                    await self._put_back(subject)
        finally:
            self._queue.shut_down()

    # -- one object ------------------------------------------------------------------------------------------

    async def _put_back(self, subject: Subject) -> None:
        reasons = self._reasons(subject)
        wanted = plan(self._model.view, subject, self._settings) if reasons else None
        if wanted is None:
            self._over(subject)
            return
        if not self._settings.enforce:
            await self._show(wanted, reasons)
            return
        free_at = self._budget.free_at(subject, self._now())
        if free_at > self._now():
            self._suspend(wanted, reasons, free_at)
            return
        query: tuple[tuple[str, str], ...] = (("fieldManager", FIELD_MANAGER),)
        answer = await self._ask(wanted, query)
        if answer.status // 100 == 2:
            self._budget.spend(subject, self._now())
            self._audit("done", wanted, reasons, answer)
            self._tell_done(wanted, reasons)
            self._over(subject)
            # Whoever changes it again at once may make the very finding that there was: no transition tells of that.
            self._queue.add_after(subject, self._settings.delay_s + LOOK_AGAIN_S)
        else:
            self._again(wanted, reasons, answer)

    async def _show(self, wanted: Plan, reasons: tuple[str, ...]) -> None:
        subject = wanted.subject
        if self._shown.get(subject) == wanted.version:
            self._queue.forget(subject)
            return
        answer = await self._ask(wanted, (("dryRun", "All"), ("fieldManager", FIELD_MANAGER)))
        if answer.status // 100 == 2:
            self._shown[subject] = wanted.version
            self._audit("would", wanted, reasons, answer)
            request = f"{wanted.method} {wanted.path}, as enforce would do it"
            self._note(
                "rollback_proposed", wanted, f"{subject} could be put back", (because(reasons), request)
            )
            self._withdraw("rollback_suspended", subject)
            self._over(subject)
        else:
            self._again(wanted, reasons, answer)

    async def _ask(self, wanted: Plan, query: tuple[tuple[str, str], ...]) -> Answer:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._writer.write(wanted, query)
        except TimeoutError:
            return Answer(0, f"no answer within {self._settings.timeout_s:g} s")

    def _again(self, wanted: Plan, reasons: tuple[str, ...], answer: Answer) -> None:
        """Not put back: tried again with what is known then. What the server refuses often enough is left alone for a
        while; what only could not be asked, or came in between of something, is tried until it can be.
        """
        subject, most = wanted.subject, self._settings.attempts_max
        self._audit("conflict" if answer.status == 409 else "refused", wanted, reasons, answer)
        said = _told(wanted, answer)
        if answer.status // 100 == 4 and answer.status not in (409, 429):
            self._refusals[subject] = refused = self._refusals.get(subject, 0) + 1
            if refused >= most:
                log.error("rollback given up", extra={"subject": str(subject), "reason": said})
                self._note_end(wanted, f"it was tried {refused} times: {said}")
                self._over(subject)
                self._queue.add_after(subject, GIVEN_UP_S)
                return
        elif self._queue.requeues(subject) + 1 == most:
            log.error("rollback delayed", extra={"subject": str(subject), "reason": said})
            summary = f"{subject} could not be put back so far"
            self._note("rollback_suspended", wanted, summary, (f"it is tried again: {said}",))
        self._queue.add_rate_limited(subject)

    def _over(self, subject: Subject) -> None:
        """What failed before does not count any more."""
        self._refusals.pop(subject, None)
        self._queue.forget(subject)

    def _suspend(self, wanted: Plan, reasons: tuple[str, ...], free_at: float) -> None:
        often = f"it was put back {self._settings.per_hour_max} times within an hour"
        self._audit("suspended", wanted, reasons, Answer(0, often))
        self._note_end(wanted, f"{often}, and somebody changes it again")
        self._over(wanted.subject)
        self._queue.add_after(wanted.subject, free_at - self._now())

    # -- findings --------------------------------------------------------------------------------------------

    def _note_end(self, wanted: Plan, why: str) -> None:
        self._note("rollback_suspended", wanted, f"{wanted.subject} is not put back any more", (why,))

    def _tell_done(self, wanted: Plan, reasons: tuple[str, ...]) -> None:
        loop, subject = asyncio.get_running_loop(), wanted.subject
        self._note(
            "rollback_done", wanted, f"{subject} was put back to its last good state", (because(reasons),)
        )
        self._told_until[subject] = until = loop.time() + self._settings.told_s
        loop.call_at(until, self._told, subject, until)

    def _told(self, subject: Subject, until: float) -> None:
        if self._told_until.get(subject) == until:
            del self._told_until[subject]
            self._withdraw("rollback_done", subject)

    def _calm(self, subject: Subject) -> None:
        """Once nothing is forbidden about it, there is nothing to complain of."""
        if not self._reasons(subject):
            self._shown.pop(subject, None)
            self._withdraw("rollback_proposed", subject)
            self._withdraw("rollback_suspended", subject)

    def _note(self, check: Check, wanted: Plan, summary: str, details: tuple[str, ...]) -> None:
        worst: Severity = "critical" if self._model.view.is_production(wanted.subject) else "warning"
        self._model.note(
            Finding(
                check=check,
                subject=wanted.subject,
                severity=worst if check == "rollback_suspended" else "warning",
                summary=summary,
                details=details,
                changes=wanted.changes,
            )
        )
        self._noted()

    def _withdraw(self, check: Check, subject: Subject) -> None:
        self._model.withdraw(Identity(check, subject))
        self._noted()

    # -- looking ---------------------------------------------------------------------------------------------

    def _is_declared(self, subject: Subject) -> bool:
        return subject.resource.partition(".")[0] in self._settings.restore

    def _reasons(self, subject: Subject) -> tuple[str, ...]:
        """Checks by which the present state of an object is forbidden."""
        found = (Identity(check, subject) for check in get_args(Restorable) if check in self._settings.checks)
        return tuple(one.check for one in found if one in self._model.findings)

    def _audit(self, outcome: Outcome, wanted: Plan, reasons: tuple[str, ...], answer: Answer) -> None:
        line = AuditLine(
            at=timestamp(self._now()),
            outcome=outcome,
            subject=str(wanted.subject),
            checks=reasons,
            changes=wanted.changes,
            version=wanted.version,
            new_version=answer.version if outcome == "done" else "",
            message=_told(wanted, answer),
        )
        encoded = msgspec.json.encode(line).decode()
        audit_log.warning("%s", encoded)
        if self._audit_file:
            append_line(self._audit_file, encoded)
        if self._audited is not None:
            self._audited(line)


def _told(wanted: Plan, answer: Answer) -> str:
    """What the server said, for people: what it quotes may be a value of the object."""
    subject = wanted.subject
    plural, _, group = subject.resource.partition(".")
    known = {subject.name, subject.namespace, subject.resource, plural, group}
    said = printable(unquoted(answer.message, known))
    head = " ".join(filter(None, (str(answer.status or ""), unquoted(answer.reason, known))))
    if answer.status // 100 == 2 or not head:
        return said
    return f"{head}: {said}" if said else head


def because(reasons: tuple[str, ...]) -> str:
    """Why, as a line for people."""
    return f"because of {', '.join(reasons)}"
