"""How long to wait after a failure or a refusal: client-go's exponential backoff with jitter, reset by health. Pure.

Clock and randomness are passed in. The figures come from client-go's reflector (``tools/cache/reflector.go``,
``NewExponentialBackoffManager(800ms, 30s, 2min, 2.0, 1.0)``): 98 % less traffic while an API server is
unhealthy, and after two minutes without a failure it counts as healthy again. One deviation: client-go's
jitter comes on top of the longest delay (30 to 60 s); here the longest delay *with* its jitter is
`WatchSettings.backoff_max_s`, and there is always jitter, so that a thousand partitions do not come back in
the same moment. Refusals (401, 403) are counted apart: nothing but an answer that allows ends their growth.
"""

from __future__ import annotations

from collections.abc import Callable

from ..settings import WatchSettings

FACTOR = 2.0


class Backoff:
    """Delays of one partition. `uniform` yields numbers in [0, 1)."""

    __slots__ = (
        "_failures",
        "_first_s",
        "_max_s",
        "_refusals",
        "_refused_max_s",
        "_reset_s",
        "_resumes_at",
        "_uniform",
    )

    def __init__(self, settings: WatchSettings, uniform: Callable[[], float]) -> None:
        self._first_s = settings.backoff_first_s
        self._max_s = max(settings.backoff_max_s, settings.backoff_first_s)
        self._reset_s = settings.backoff_reset_s
        self._refused_max_s = settings.refused_retry_s
        self._uniform = uniform
        self._failures = 0
        self._refusals = 0
        self._resumes_at = 0.0

    @property
    def failures(self) -> int:
        """Failures since the last reset."""
        return self._failures

    def after_failure(self, now: float, *, at_least_s: float = 0.0) -> float:
        """Seconds to wait after a failure at `now`.

        The n-th delay is between d and 2 d, with d doubling from `backoff_first_s` until 2 d is
        `backoff_max_s`. `at_least_s` is what the server asked for (Retry-After); the jitter is then added to
        it, because everybody else was told the same.
        """
        if self._failures and now - self._resumes_at >= self._reset_s:
            self._failures = 0
        base = min(self._first_s * FACTOR**self._failures, max(self._max_s / 2, self._first_s))
        jitter = self._uniform()
        delay = min(base * (1 + jitter), self._max_s)
        if at_least_s > delay:
            delay = at_least_s + jitter * self._first_s
        self._failures += 1
        self._resumes_at = now + delay
        return delay

    def after_refusal(self) -> float:
        """Seconds to wait after a refusal: they double up to `refused_retry_s`, and a tenth of that on top."""
        jitter = self._uniform()
        growing_s = self._first_s * FACTOR ** min(self._refusals, 30) * (1 + jitter)
        self._refusals += 1
        return min(growing_s, self._refused_max_s * (1 + 0.1 * jitter))

    def allowed(self) -> None:
        """The server has answered: the next refusal is the first."""
        self._refusals = 0
