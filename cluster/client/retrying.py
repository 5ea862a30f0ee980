"""Questions asked until they are answered, or for as long as may be: `Asking`.

Only questions are asked this way (GET), so asking again changes nothing. Asked again is what comes right by itself:
429, 503 and the 504 of a version that is not reached yet, after the seconds Retry-After names or a pause that doubles;
and a connection that failed. One exception: as long as this client was never answered at all, a server that cannot be
connected to is told at once, because the address is wrong more often than the server is down.

Time is the running loop's; every question ends within its deadline, with the server's last word where there was one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Final, NamedTuple

from ...shards.api.client import ERROR_BODY_BYTES_MAX, ApiConnection
from ...shards.api.requests import ApiRequest, refusal
from ...shards.model.errors import BadRequest, CertificateRejected, ConnectionFailed, ShoalError, TimedOut
from .errors import comes_right, refused

log = logging.getLogger("shoal.cluster.client")

PAUSE_FIRST_S: Final = 0.25
PAUSE_MAX_S: Final = 8.0
"""Pauses where no Retry-After says otherwise: doubled each time, and shortened by up to a half by chance, so that
clients that were refused together do not come back together."""
TIMEOUT_S: Final = 30.0
"""For one call, unless it says otherwise."""


class Answer(NamedTuple):
    """An answer that is not an error."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Deadline:
    """The time one call has, over all its requests. Made on the loop that it is used on."""

    def __init__(self, timeout_s: float) -> None:
        if not timeout_s > 0:
            raise BadRequest(f"timeout_s is {timeout_s}: expected seconds, more than 0")
        self.timeout_s = timeout_s
        self.at = asyncio.get_running_loop().time() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds that are left; none are 0."""
        return max(0.0, self.at - asyncio.get_running_loop().time())


class Asking:
    """Asks over one connection."""

    def __init__(self, connection: ApiConnection, *, timeout_s: float, rng: random.Random) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._rng = rng
        self._answered = False

    def deadline(self, timeout_s: float | None) -> Deadline:
        """The time of one call; None for the client's own.

        Raises:
            BadRequest: no time at all.
        """
        return Deadline(self._timeout_s if timeout_s is None else timeout_s)

    async def ask(self, request: ApiRequest, deadline: Deadline) -> Answer:
        """The answer to a GET.

        Raises:
            ShoalError: as `errors.refused`, for an answer that does not come right in time.
            TimedOut: there was no answer in time.
            ConnectionFailed, KubeconfigError: nobody could be asked.
        """
        pause_s = PAUSE_FIRST_S
        last: ShoalError | None = None
        while True:
            try:
                async with asyncio.timeout_at(deadline.at):
                    return await self._once(request)
            except TimeoutError:
                raise last or TimedOut(
                    f"no answer to {request.method} {request.path} within {deadline.timeout_s:g} s"
                ) from last
            except ShoalError as error:
                if not self._again(error):
                    raise
                last = error
            wait_s = pause_s * self._rng.uniform(0.5, 1.0)
            pause_s = min(PAUSE_MAX_S, 2 * pause_s)
            if last.retry_after_s is not None:
                wait_s = last.retry_after_s + wait_s
            if wait_s >= deadline.left_s:
                last.add_note(f"given up: it would be asked again later than {deadline.timeout_s:g} s allow")
                raise last
            log.debug(
                "asking again",
                extra={"path": request.path, "problem": last.message, "pause_s": round(wait_s, 3)},
            )
            await asyncio.sleep(wait_s)

    async def _once(self, request: ApiRequest) -> Answer:
        async with self._connection.open(request) as response:
            self._answered = True
            if response.status == 200:
                return Answer(response.headers, await response.read())
            body = await response.read(ERROR_BODY_BYTES_MAX)
            raise refused(request, refusal(response.status, response.headers, body))

    def _again(self, error: ShoalError) -> bool:
        match error:
            case CertificateRejected():
                return False
            case ConnectionFailed():
                return self._answered or error.sent
            case _:
                return comes_right(error)
