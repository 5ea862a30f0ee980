"""How long an item that failed waits before it is tried again: client-go's rate limiters. Pure.

The current time is passed in, in seconds of any clock that does not go back. `default_limiter` is what
controllers use unless told otherwise, with the figures of client-go's ``DefaultTypedControllerRateLimiter``
(``util/workqueue/default_rate_limiters.go``): per item 5 ms, doubled with every failure up to 1 000 s, and over
all items a bucket of 100 tokens that fills at 10 a second, so that a thousand items that fail together do not
come back together.

A limiter remembers an item until `forget`; whoever adds rate-limited forgets what succeeded.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T", bound=Hashable)
T_contra = TypeVar("T_contra", bound=Hashable, contravariant=True)

FIRST_S, LONGEST_S = 0.005, 1000.0
RATE, BURST = 10.0, 100
_DOUBLINGS_MAX = 1000
"""2.0 to this power is still a float; any delay has long been cut off."""


class RateLimiter(Protocol[T_contra]):
    """Decides about delays, one failure at a time."""

    def delay_s(self, item: T_contra, now: float) -> float:
        """Seconds the item has to wait from `now`. Counts as one more failure of it."""

    def forget(self, item: T_contra) -> None:
        """The item succeeded, or is given up: its failures no longer count. Unknown items are fine."""

    def requeues(self, item: T_contra) -> int:
        """Failures since it was last forgotten; 0 from limiters that do not count by item."""


class ExponentialLimiter(Generic[T]):
    """`first_s`, doubled with every failure of the item, at most `longest_s`."""

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        _require(0 < first_s <= longest_s < math.inf, f"0 < first_s <= longest_s, not {first_s}, {longest_s}")
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures: dict[T, int] = {}

    def delay_s(self, item: T, now: float) -> float:  # noqa: ARG002 - one signature for all limiters
        """As `RateLimiter.delay_s`."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        return min(self._first_s * 2.0 ** min(failures, _DOUBLINGS_MAX), self._longest_s)

    def forget(self, item: T) -> None:
        """As `RateLimiter.forget`."""
        self._failures.pop(item, None)

    def requeues(self, item: T) -> int:
        """As `RateLimiter.requeues`."""
        return self._failures.get(item, 0)


class FastSlowLimiter(Generic[T]):
    """`fast_s` for the first `fast_attempts` failures of an item, `slow_s` from then on."""

    def __init__(self, fast_s: float, slow_s: float, fast_attempts: int) -> None:
        _require(0 <= fast_s < math.inf and 0 <= slow_s < math.inf, f"delays >= 0, not {fast_s}, {slow_s}")
        _require(fast_attempts >= 0, f"fast_attempts >= 0, not {fast_attempts}")
        self._fast_s = fast_s
        self._slow_s = slow_s
        self._fast_attempts = fast_attempts
        self._failures: dict[T, int] = {}

    def delay_s(self, item: T, now: float) -> float:  # noqa: ARG002 - one signature for all limiters
        """As `RateLimiter.delay_s`."""
        failures = self._failures.get(item, 0) + 1
        self._failures[item] = failures
        return self._fast_s if failures <= self._fast_attempts else self._slow_s

    def forget(self, item: T) -> None:
        """As `RateLimiter.forget`."""
        self._failures.pop(item, None)

    def requeues(self, item: T) -> int:
        """As `RateLimiter.requeues`."""
        return self._failures.get(item, 0)


class BucketLimiter(Generic[T]):
    """Over all items: `burst` at once, then `rate` a second.

    A token that is not there yet is promised: the bucket goes below zero and the delay is the time until
    it is above again, as ``Reserve`` of ``golang.org/x/time/rate`` has it.
    """

    def __init__(self, rate: float = RATE, burst: int = BURST) -> None:
        _require(0 < rate < math.inf, f"rate > 0 a second, not {rate}")
        _require(burst >= 1, f"burst >= 1, not {burst}")
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._filled_at: float | None = None

    def delay_s(self, item: T, now: float) -> float:  # noqa: ARG002 - one signature for all limiters
        """As `RateLimiter.delay_s`."""
        since = 0.0 if self._filled_at is None else max(0.0, now - self._filled_at)
        self._filled_at = now
        self._tokens = min(self._burst, self._tokens + since * self._rate) - 1.0
        return max(0.0, -self._tokens / self._rate)

    def forget(self, item: T) -> None:
        """Nothing is remembered of an item."""

    def requeues(self, item: T) -> int:  # noqa: ARG002 - one signature for all limiters
        """Not counted by item: 0."""
        return 0


class MaxOfLimiter(Generic[T]):
    """The longest delay that any of `limiters` asks for; each of them counts every failure."""

    def __init__(self, *limiters: RateLimiter[T]) -> None:
        _require(bool(limiters), "at least one limiter")
        self._limiters = limiters

    def delay_s(self, item: T, now: float) -> float:
        """As `RateLimiter.delay_s`."""
        return max(limiter.delay_s(item, now) for limiter in self._limiters)

    def forget(self, item: T) -> None:
        """As `RateLimiter.forget`."""
        for limiter in self._limiters:
            limiter.forget(item)

    def requeues(self, item: T) -> int:
        """The most that any of them counts."""
        return max(limiter.requeues(item) for limiter in self._limiters)


class WithMaxWaitLimiter(Generic[T]):
    """Another limiter, whose delays are cut off at `longest_s`."""

    def __init__(self, limiter: RateLimiter[T], longest_s: float) -> None:
        _require(0 <= longest_s < math.inf, f"longest_s >= 0, not {longest_s}")
        self._limiter = limiter
        self._longest_s = longest_s

    def delay_s(self, item: T, now: float) -> float:
        """As `RateLimiter.delay_s`."""
        return min(self._limiter.delay_s(item, now), self._longest_s)

    def forget(self, item: T) -> None:
        """As `RateLimiter.forget`."""
        self._limiter.forget(item)

    def requeues(self, item: T) -> int:
        """As `RateLimiter.requeues`."""
        return self._limiter.requeues(item)


def default_limiter() -> MaxOfLimiter[T]:
    """A new limiter of the default kind; see the module's text."""
    exponential: ExponentialLimiter[T] = ExponentialLimiter()
    bucket: BucketLimiter[T] = BucketLimiter()
    return MaxOfLimiter(exponential, bucket)


def _require(condition: bool, expected: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not condition:
        raise ValueError(f"a rate limiter needs {expected}")
