"""Notifications on their way to one receiver: a work queue and one worker, so that there is one order of what is sent.

What fails is tried again with growing delays, or when the receiver says so (Retry-After, which holds for everything
that it is to be sent), and given up after `give_up_s`. While it waits, newer notifications of the same group are merged
into it: an outbox holds at most one for each group, and at most `groups_max` groups. What was taken is written down in
`told`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

import shoal

from .findings import Finding
from .grouping import Group, Notification, merged
from .settings import Alerts
from .told import Heard

log = logging.getLogger("gateway_monitor.alerts")

DRAIN_S = 5.0
"""How long the last notifications may take when the monitor stops."""
RETRY_AFTER_MAX_S = 86_400.0
"""A receiver that wants to be left alone for longer is asked after that all the same."""

Current: TypeAlias = Callable[[], Sequence[Finding]]
"""What lasts at this moment, and somebody was told of."""


class _Again:
    """In the queue: what lasts is to be sent again."""


_AGAIN: Final = _Again()


class Refused(Exception):  # noqa: N818 - read as a sentence
    """A receiver did not take what it was sent."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """It does not want to be sent anything before; None: it did not say."""
        self.final = final
        """It would not take it later either."""


class Receiver(Protocol):
    """Somebody to tell."""

    @property
    def name(self) -> str:
        """For logs: without secrets."""

    async def tell(self, notification: Notification) -> None:
        """Delivers it, or raises `Refused`."""


class Repeating(Protocol):
    """Somebody who wants to hear of findings for as long as they last."""

    async def send_again(self, current: Current) -> None:
        """Sends what lasts, or raises `Refused`."""


class Counts(msgspec.Struct):
    """Of one outbox, since the beginning."""

    delivered: int = 0
    failed: int = 0
    """Attempts."""
    dropped: int = 0
    """Notifications that were given up."""


class Outbox:
    """Notifications on their way to one receiver."""

    def __init__(
        self,
        receiver: Receiver,
        settings: Alerts,
        *,
        name: str = "",
        repeating: Repeating | None = None,
        heard: Heard | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`name` is for logs and metrics; empty: the receiver's. `repeating` is the same receiver, if it is one.
        `heard` is what it was told before and takes what it is told; `now` the wall clock.
        """
        self.name = name or receiver.name
        self.counts = Counts()
        self._receiver = receiver
        self._repeating = repeating
        self._heard = heard if heard is not None else Heard()
        self._now = now
        self._current: Current | None = None
        self._not_before = float("-inf")
        """The loop's time before which the receiver does not want to be sent anything."""
        self._settings = settings
        self._pending: dict[Group, tuple[Notification, float]] = {}
        """With the loop's time at which the oldest part of it was put in."""
        self._queue: shoal.WorkQueue[Group | _Again] = shoal.WorkQueue(
            f"alerts to {self.name}",
            limiter=shoal.ExponentialLimiter(settings.retry_first_s, settings.retry_longest_s),
        )

    def put(self, notification: Notification) -> None:
        """To be delivered soon."""
        group = notification.group
        earlier = self._pending.pop(group, None)
        if earlier is None:
            self._pending[group] = (notification, asyncio.get_running_loop().time())
        else:
            self._pending[group] = (self._merged(earlier[0], notification), earlier[1])
        while len(self._pending) > self._settings.groups_max:
            self._drop(next(iter(self._pending)), "too many groups wait")
        self._queue.add(group)

    def again(self, current: Current) -> None:
        """What lasts is to be sent again, in its turn: as it is then."""
        self._current = current
        self._queue.add(_AGAIN)

    async def work(self) -> None:
        """Delivers until `close`."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with self._queue.item() as item:
                    if loop.time() < self._not_before:
                        self._queue.add_after(item, self._not_before - loop.time())
                    elif isinstance(item, _Again):
                        await self._send_again()
                    else:
                        await self._deliver(item)
            except shoal.ShutDown:
                return

    async def close(self) -> None:
        """Delivers what waits, if that is quick, and ends `work`."""
        await self._queue.drain(DRAIN_S)
        self._queue.shut_down()

    async def _send_again(self) -> None:
        if self._repeating is None or self._current is None:
            return
        before = self._current()
        try:
            await self._repeating.send_again(self._current)
        except Refused as error:
            self._leave_alone(error)
            extra = {"receiver": self.name, "reason": str(error)}
            log.warning("alerts not sent again", extra=extra)
        except Exception:
            log.exception("receiver failed", extra={"receiver": self.name})
        else:
            # What has ended or changed meanwhile may not have been among it, and is told of in its turn.
            current = set(self._current())
            self._heard.lasting((one for one in before if one in current), self._now())

    def _leave_alone(self, error: Refused) -> float | None:
        """For as long as the receiver said, if it did."""
        if error.retry_after_s is None:
            return None
        seconds = min(error.retry_after_s, RETRY_AFTER_MAX_S)
        self._not_before = max(self._not_before, asyncio.get_running_loop().time() + seconds)
        return seconds

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
            log.exception("receiver failed", extra={"receiver": self.name})
            self._failed(notification, since, Refused(f"{type(error).__name__}: {error}"))
        else:
            self.counts.delivered += 1
            self._heard.delivered(notification, self._now())
            self._queue.forget(group)

    def _failed(self, notification: Notification, since: float, error: Refused) -> None:
        self.counts.failed += 1
        wait_s = self._leave_alone(error)
        group = notification.group
        newer = self._pending.get(group)
        # What came meanwhile is newer than what was tried.
        self._pending[group] = (
            notification if newer is None else self._merged(notification, newer[0]),
            since,
        )
        too_old = asyncio.get_running_loop().time() - since > self._settings.give_up_s
        extra = {"receiver": self.name, "group": str(group), "reason": str(error)}
        if error.final or too_old:
            self._drop(group, str(error))
            return
        log.warning("alert not delivered, trying again", extra=extra)
        if wait_s is None:
            self._queue.add_rate_limited(group)
        else:
            self._queue.add_after(group, wait_s)

    def _merged(self, earlier: Notification, later: Notification) -> Notification:
        return merged(earlier, later, known=self._heard.identities)

    def _drop(self, group: Group, reason: str) -> None:
        notification, _ = self._pending.pop(group)
        self.counts.dropped += 1
        self._heard.given_up(notification)
        self._queue.forget(group)
        told = [finding.summary for finding in notification.firing]
        log.error(
            "alert given up",
            extra={"receiver": self.name, "group": str(group), "reason": reason, "findings": told},
        )
