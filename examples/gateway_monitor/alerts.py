"""Telling people: what `grouping` has gathered goes to Alertmanager, to webhooks and into the log.

Each receiver has an outbox of its own (`outbox`), so that one which does not answer delays no other, and a grouper of
its own: after a restart it is told what it has not heard, and of the end of what it has (`told`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

from .findings import Finding, Transition
from .grouping import Grouper
from .outbox import Outbox, Receiver
from .posting import AlertmanagerReceiver, LogReceiver, Posts, WebhookReceiver
from .settings import Alerts
from .told import Told


class Alerting:
    """Transitions in, notifications out. `run` does the work."""

    def __init__(
        self,
        settings: Alerts,
        poster: Posts,
        *,
        links: str,
        now: Callable[[], float],
        more: Iterable[Receiver] = (),
        told: Told | None = None,
    ) -> None:
        """`now` is the wall clock; `more` are receivers besides those of the settings and the log; `told` is what they
        were told before, and takes what they are told.
        """
        links = settings.generator_url or links
        self._now = now
        alertmanagers = [
            AlertmanagerReceiver(one, poster, links=links, now=now) for one in settings.alertmanagers
        ]
        webhooks = [WebhookReceiver(one, poster) for one in settings.webhooks]
        receivers: list[Receiver] = [LogReceiver(), *alertmanagers, *webhooks, *more]
        urls = ["", *(one.url for one in settings.alertmanagers), *(one.url for one in settings.webhooks)]
        self.outboxes: list[Outbox] = []
        """One for each receiver, also if several are on one host: those are numbered."""
        self._groupers: list[Grouper] = []
        """One for each outbox."""
        self._repeating: list[tuple[Outbox, Grouper, float]] = []
        """Those who want to hear of what lasts, and how often."""
        urls += [""] * (len(receivers) - len(urls))
        keys = _numbered(_key(receiver, url) for receiver, url in zip(receivers, urls, strict=True))
        told = told if told is not None else Told()
        told.keep(keys)
        names = _numbered(receiver.name for receiver in receivers)
        for receiver, name, key in zip(receivers, names, keys, strict=True):
            repeating = receiver if isinstance(receiver, AlertmanagerReceiver) else None
            heard = told.of(key)
            outbox = Outbox(receiver, settings, name=name, repeating=repeating, heard=heard, now=now)
            grouper = Grouper(
                group_wait_s=settings.group_wait_s,
                repeat_s=settings.repeat_s,
                hold_s=settings.hold_s,
                told=heard.tellings,
            )
            self.outboxes.append(outbox)
            self._groupers.append(grouper)
            if repeating is not None:
                self._repeating.append((outbox, grouper, repeating.resend_s))
        self._known = False
        self._happened = asyncio.Event()

    def offer(self, transitions: Iterable[Transition]) -> None:
        """Something happened to findings."""
        happened, now = tuple(transitions), self._now()
        for grouper in self._groupers:
            grouper.offer(happened, now)
        self._happened.set()

    def known(self) -> None:
        """Everything there was at first has been looked at, and offered: what was told before and could not be looked
        at is taken to last. Alertmanager hears at once of what does: its alerts may be about to expire.
        """
        self._known = True
        for outbox, grouper, _ in self._repeating:
            if self._lasting(grouper):
                outbox.again(partial(self._lasting, grouper))

    async def run(self) -> None:
        """Tells people until cancelled; what is due by then is still told. The rest is found again after a start."""
        workers = [
            asyncio.create_task(outbox.work(), name=f"alerts to {outbox.name}") for outbox in self.outboxes
        ]
        resending = [
            asyncio.create_task(self._resend(outbox, grouper, every_s), name=f"alerts again to {outbox.name}")
            for outbox, grouper, every_s in self._repeating
        ]
        try:
            while True:
                self._tell(self._now())
                await self._until_due()
        finally:
            for task in resending:
                task.cancel()
            self._tell(self._now())
            await asyncio.gather(*(outbox.close() for outbox in self.outboxes))
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, *resending, return_exceptions=True)

    def _tell(self, now: float) -> None:
        for grouper, outbox in zip(self._groupers, self.outboxes, strict=True):
            for notification in grouper.due(now):
                outbox.put(notification)

    async def _until_due(self) -> None:
        self._happened.clear()
        at = min((at for one in self._groupers if (at := one.next_at) is not None), default=None)
        try:
            async with asyncio.timeout(None if at is None else max(0.0, at - self._now())):
                await self._happened.wait()
        except TimeoutError:
            return

    async def _resend(self, outbox: Outbox, grouper: Grouper, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            outbox.again(partial(self._lasting, grouper))

    def _lasting(self, grouper: Grouper) -> list[Finding]:
        """Until everything is known, what was told before a restart may be over, and its alert may have expired."""
        return [*grouper.told, *grouper.awaited] if self._known else grouper.told


def _key(receiver: Receiver, url: str) -> str:
    """By which what it was told is kept: without the URL, which may be a secret, and whatever its place in a list."""
    return f"{receiver.name} {hashlib.sha256(url.encode()).hexdigest()[:16]}" if url else receiver.name


def _numbered(names: Iterable[str]) -> list[str]:
    """Those that come again with a number."""
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return made
