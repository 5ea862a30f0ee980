"""Telling people: what `grouping` has gathered goes to Alertmanager, to webhooks and into the log.

Each receiver has an outbox of its own: a work queue and one worker, so that one which does not answer delays no other.
What fails is tried again with growing delays, later if the receiver says so (Retry-After), and given up after
`give_up_s`. While it waits, newer notifications of the same group are merged into it: an outbox holds at most one
for each group, and at most `groups_max` groups.

URLs of webhooks are secrets: nothing but their host is ever logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

import shoal

from .findings import Finding, Transition
from .grouping import Group, Grouper, Notification, merged
from .messages import alert, generator_url, lines, slack_message
from .settings import Alertmanager, Alerts, Webhook

log = logging.getLogger("gateway_monitor.alerts")

DRAIN_S = 5.0
"""How long the last notifications may take when the monitor stops."""
ERROR_CHARS_MAX = 200


class Refused(Exception):  # noqa: N818 - read as a sentence
    """A receiver did not take what it was sent."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.final = final
        """It would not take it later either."""


class Receiver(Protocol):
    """Somebody to tell."""

    @property
    def name(self) -> str:
        """For logs: without secrets."""

    async def tell(self, notification: Notification) -> None:
        """Delivers it, or raises `Refused`."""


class Counts(msgspec.Struct):
    """Of one outbox, since the beginning."""

    delivered: int = 0
    failed: int = 0
    """Attempts."""
    dropped: int = 0
    """Notifications that were given up."""


class Outbox:
    """Notifications on their way to one receiver."""

    def __init__(self, receiver: Receiver, settings: Alerts) -> None:
        self.counts = Counts()
        self._receiver = receiver
        self._settings = settings
        self._pending: dict[Group, tuple[Notification, float]] = {}
        """With the loop's time at which the oldest part of it was put in."""
        self._queue: shoal.WorkQueue[Group] = shoal.WorkQueue(
            f"alerts to {receiver.name}",
            limiter=shoal.ExponentialLimiter(settings.retry_first_s, settings.retry_longest_s),
        )

    def put(self, notification: Notification) -> None:
        """To be delivered soon."""
        group = notification.group
        earlier = self._pending.pop(group, None)
        if earlier is None:
            self._pending[group] = (notification, asyncio.get_running_loop().time())
        else:
            self._pending[group] = (merged(earlier[0], notification), earlier[1])
        while len(self._pending) > self._settings.groups_max:
            self._drop(next(iter(self._pending)), "too many groups wait")
        self._queue.add(group)

    async def work(self) -> None:
        """Delivers until `close`."""
        while True:
            try:
                async with self._queue.item() as group:
                    await self._deliver(group)
            except shoal.ShutDown:
                return

    async def close(self) -> None:
        """Delivers what waits, if that is quick, and ends `work`."""
        await self._queue.drain(DRAIN_S)
        self._queue.shut_down()

    async def _deliver(self, group: Group) -> None:
        taken = self._pending.pop(group, None)
        if taken is None:
            return
        notification, since = taken
        try:
            if notification.firing or notification.resolved:
                await self._receiver.tell(notification)
        except Refused as error:
            self._failed(notification, since, error)
        except Exception as error:
            # Whatever it is, other notifications have to go on.
            log.exception("receiver failed", extra={"receiver": self._receiver.name})
            self._failed(notification, since, Refused(f"{type(error).__name__}: {error}"))
        else:
            self.counts.delivered += 1
            self._queue.forget(group)

    def _failed(self, notification: Notification, since: float, error: Refused) -> None:
        self.counts.failed += 1
        group = notification.group
        newer = self._pending.get(group)
        # What came meanwhile is newer than what was tried.
        self._pending[group] = (notification if newer is None else merged(notification, newer[0]), since)
        too_old = asyncio.get_running_loop().time() - since > self._settings.give_up_s
        extra = {"receiver": self._receiver.name, "group": str(group), "reason": str(error)}
        if error.final or too_old:
            self._drop(group, str(error))
            return
        log.warning("alert not delivered, trying again", extra=extra)
        if error.retry_after_s is None:
            self._queue.add_rate_limited(group)
        else:
            self._queue.add_after(group, min(error.retry_after_s, self._settings.retry_longest_s))

    def _drop(self, group: Group, reason: str) -> None:
        notification, _ = self._pending.pop(group)
        self.counts.dropped += 1
        self._queue.forget(group)
        told = [finding.summary for finding in notification.firing]
        log.error(
            "alert given up",
            extra={"receiver": self._receiver.name, "group": str(group), "reason": reason, "findings": told},
        )


# -- receivers -----------------------------------------------------------------------------------------------


class LogReceiver:
    """Writes notifications into the log, a line for each line of text."""

    name = "log"

    async def tell(self, notification: Notification) -> None:
        """As `Receiver.tell`; never refuses."""
        level = logging.WARNING if notification.firing else logging.INFO
        for line in lines(notification):
            log.log(level, "%s", line)


class WebhookReceiver:
    """A Slack-style incoming webhook."""

    def __init__(self, settings: Webhook, poster: Poster) -> None:
        self.name = f"webhook at {_host(settings.url)}"
        self._settings = settings
        self._poster = poster

    async def tell(self, notification: Notification) -> None:
        """As `Receiver.tell`."""
        message = slack_message(notification, shown_max=self._settings.findings_shown)
        await self._poster.post(self._settings.url, message)


class AlertmanagerReceiver:
    """Alertmanager's API v2. It groups and repeats itself, and wants to hear of an alert for as long as it lasts."""

    def __init__(
        self, settings: Alertmanager, poster: Poster, *, links: str, now: Callable[[], float]
    ) -> None:
        self.name = f"alertmanager at {_host(settings.url)}"
        self.resend_s = settings.resend_s
        self._settings = settings
        self._poster = poster
        self._links = links
        self._now = now

    async def tell(self, notification: Notification) -> None:
        """As `Receiver.tell`."""
        await self.send(notification.firing, [(one.finding, one.at) for one in notification.resolved])

    async def send(self, firing: Sequence[Finding], over: Sequence[tuple[Finding, float]] = ()) -> None:
        """Alerts that last, and alerts that ended; in batches. Raises `Refused`."""
        until = self._now() + self._settings.expire_s
        documents = [
            alert(finding, ends_at=at, generator_url=generator_url(self._links, finding.subject))
            for finding, at in (*((one, until) for one in firing), *over)
        ]
        url = f"{self._settings.url.rstrip('/')}/api/v2/alerts"
        for start in range(0, len(documents), self._settings.batch):
            await self._poster.post(url, documents[start : start + self._settings.batch])


class Poster:
    """Posts JSON. A context; one connection pool for all receivers."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, document: Any) -> None:
        """Returns once it was accepted.

        Raises:
            Refused: it was not, or nobody answered in time.
        """
        assert self._session is not None
        body = msgspec.json.encode(document)
        try:
            async with self._session.post(
                url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as answer:
                if answer.status // 100 == 2:
                    return
                said = (await answer.content.read(ERROR_CHARS_MAX)).decode("utf-8", "replace").strip()
                raise Refused(
                    f"{_host(url)} answered {answer.status}: {said or answer.reason}",
                    retry_after_s=_seconds(answer.headers.get("Retry-After", "")),
                    final=answer.status // 100 in (3, 4) and answer.status not in (408, 425, 429),
                )
        except TimeoutError:
            raise Refused(f"{_host(url)} did not answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The text of the library may have the whole URL in it.
            raise Refused(f"{_host(url)} cannot be reached: {type(error).__name__}") from None


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or "(no host)"


def _seconds(header: str) -> float | None:
    return float(header) if header.isascii() and header.isdigit() else None


# -- all of it -----------------------------------------------------------------------------------------------


class Alerting:
    """Transitions in, notifications out. `run` does the work."""

    def __init__(
        self,
        settings: Alerts,
        poster: Poster,
        *,
        links: str,
        now: Callable[[], float],
        more: Iterable[Receiver] = (),
    ) -> None:
        """`now` is the wall clock; `more` are receivers besides those of the settings and the log."""
        links = settings.generator_url or links
        self._now = now
        self._alertmanagers = [
            AlertmanagerReceiver(one, poster, links=links, now=now) for one in settings.alertmanagers
        ]
        webhooks = [WebhookReceiver(one, poster) for one in settings.webhooks]
        receivers: list[Receiver] = [LogReceiver(), *self._alertmanagers, *webhooks, *more]
        self.outboxes = {receiver.name: Outbox(receiver, settings) for receiver in receivers}
        self._grouper = Grouper(
            group_wait_s=settings.group_wait_s, repeat_s=settings.repeat_s, hold_s=settings.hold_s
        )
        self._happened = asyncio.Event()

    def offer(self, transitions: Iterable[Transition]) -> None:
        """Something happened to findings."""
        self._grouper.offer(transitions, self._now())
        self._happened.set()

    async def run(self) -> None:
        """Tells people until cancelled; what is due by then is still told. The rest is found again after a start."""
        workers = [
            asyncio.create_task(outbox.work(), name=f"alerts to {name}")
            for name, outbox in self.outboxes.items()
        ]
        resending = [
            asyncio.create_task(self._resend(one), name=f"alerts again to {one.name}")
            for one in self._alertmanagers
        ]
        try:
            while True:
                self._tell(self._now())
                await self._until_due()
        finally:
            for task in resending:
                task.cancel()
            self._tell(self._now())
            await asyncio.gather(*(outbox.close() for outbox in self.outboxes.values()))
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, *resending, return_exceptions=True)

    def _tell(self, now: float) -> None:
        for notification in self._grouper.due(now):
            for outbox in self.outboxes.values():
                outbox.put(notification)

    async def _until_due(self) -> None:
        self._happened.clear()
        at = self._grouper.next_at
        try:
            async with asyncio.timeout(None if at is None else max(0.0, at - self._now())):
                await self._happened.wait()
        except TimeoutError:
            return

    async def _resend(self, receiver: AlertmanagerReceiver) -> None:
        while True:
            await asyncio.sleep(receiver.resend_s)
            try:
                await receiver.send(self._grouper.told)
            except Refused as error:
                log.warning("alerts not sent again", extra={"receiver": receiver.name, "reason": str(error)})
