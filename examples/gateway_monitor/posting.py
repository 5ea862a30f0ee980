"""Receivers of notifications: the log, Slack-style webhooks, Alertmanager; and the HTTP that the last two need.

URLs of webhooks are secrets: nothing but their host is ever logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import aiohttp
import msgspec

from .documents import printable
from .findings import Finding
from .grouping import Notification
from .messages import alert, generator_url, lines, slack_message
from .outbox import Current, Refused
from .settings import Alertmanager, Webhook

log = logging.getLogger("gateway_monitor.alerts")

ERROR_CHARS_MAX = 200
FINAL = frozenset({400, 405, 406, 411, 413, 414, 415, 422, 431})
"""Answers that are about what was sent, and not about who sent it, or where to, or when."""


class LogReceiver:
    """Writes notifications into the log, a line for each line of text."""

    name = "log"

    async def tell(self, notification: Notification) -> None:
        """As `Receiver.tell`; never refuses."""
        level = logging.WARNING if notification.firing else logging.INFO
        for line in lines(notification):
            log.log(level, "%s", printable(line))


class Posts(Protocol):
    """A way to post JSON; `Poster` is one."""

    async def post(self, url: str, document: Any) -> None:
        """Returns once it was accepted; else raises `Refused`."""


class WebhookReceiver:
    """A Slack-style incoming webhook."""

    def __init__(self, settings: Webhook, poster: Posts) -> None:
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
        self, settings: Alertmanager, poster: Posts, *, links: str, now: Callable[[], float]
    ) -> None:
        self.name = f"alertmanager at {_host(settings.url)}"
        self.resend_s = settings.resend_s
        self._settings = settings
        self._poster = poster
        self._links = links
        self._now = now

    async def tell(self, notification: Notification) -> None:
        """As `Receiver.tell`."""
        over = [(one.finding, one.at) for one in notification.resolved]
        until = self._now() + self._settings.expire_s
        told = [*((one, until) for one in notification.firing), *over]
        for start in range(0, len(told), self._settings.batch):
            await self._send(told[start : start + self._settings.batch])

    async def send_again(self, current: Current) -> None:
        """As `Repeating.send_again`; what ends while earlier batches are on their way is not in the later ones."""
        told = current()
        for start in range(0, len(told), self._settings.batch):
            lasting = {one.identity for one in current()}
            until = self._now() + self._settings.expire_s
            batch = told[start : start + self._settings.batch]
            await self._send([(one, until) for one in batch if one.identity in lasting])

    async def _send(self, alerts: Sequence[tuple[Finding, float]]) -> None:
        if alerts:
            documents = [
                alert(finding, ends_at=at, generator_url=generator_url(self._links, finding))
                for finding, at in alerts
            ]
            await self._poster.post(f"{self._settings.url.rstrip('/')}/api/v2/alerts", documents)


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
                    f"{_host(url)} answered {answer.status}: {printable(said or answer.reason or '')}",
                    retry_after_s=_retry_after_s(answer.headers),
                    final=answer.status in FINAL,
                )
        except TimeoutError:
            raise Refused(f"{_host(url)} did not answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The text of the library may have the whole URL in it.
            raise Refused(f"{_host(url)} cannot be reached: {type(error).__name__}") from None


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2] or "(no host)"


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Of ``Retry-After``, which is a number or a date (RFC 9110, 10.2.3): then from the receiver's own time on."""
    said = headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    until = _date(said)
    if until is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(said: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(said)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
