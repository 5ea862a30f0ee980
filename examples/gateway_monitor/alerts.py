"""Telling people: what `grouping` has gathered goes to Alertmanager, to webhooks and into the log.

Each receiver has an outbox of its own (`outbox`), so that one which does not answer delays no other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from .findings import Transition
from .grouping import Grouper
from .outbox import Outbox, Receiver
from .posting import AlertmanagerReceiver, LogReceiver, Posts, WebhookReceiver
from .settings import Alerts


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
    ) -> None:
        """`now` is the wall clock; `more` are receivers besides those of the settings and the log."""
        links = settings.generator_url or links
        self._now = now
        alertmanagers = [
            AlertmanagerReceiver(one, poster, links=links, now=now) for one in settings.alertmanagers
        ]
        webhooks = [WebhookReceiver(one, poster) for one in settings.webhooks]
        receivers: list[Receiver] = [LogReceiver(), *alertmanagers, *webhooks, *more]
        self.outboxes: list[Outbox] = []
        """One for each receiver, also if several are on one host: those are numbered."""
        self._repeating: list[tuple[Outbox, float]] = []
        """Outboxes of those who want to hear of what lasts, and how often."""
        named: Counter[str] = Counter()
        for receiver in receivers:
            named[receiver.name] += 1
            count = named[receiver.name]
            name = receiver.name if count == 1 else f"{receiver.name} ({count})"
            repeating = receiver if isinstance(receiver, AlertmanagerReceiver) else None
            outbox = Outbox(receiver, settings, name=name, repeating=repeating)
            self.outboxes.append(outbox)
            if repeating is not None:
                self._repeating.append((outbox, repeating.resend_s))
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
            asyncio.create_task(outbox.work(), name=f"alerts to {outbox.name}") for outbox in self.outboxes
        ]
        resending = [
            asyncio.create_task(self._resend(outbox, every_s), name=f"alerts again to {outbox.name}")
            for outbox, every_s in self._repeating
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
        for notification in self._grouper.due(now):
            for outbox in self.outboxes:
                outbox.put(notification)

    async def _until_due(self) -> None:
        self._happened.clear()
        at = self._grouper.next_at
        try:
            async with asyncio.timeout(None if at is None else max(0.0, at - self._now())):
                await self._happened.wait()
        except TimeoutError:
            return

    async def _resend(self, outbox: Outbox, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            outbox.again(lambda: self._grouper.told)
