"""Rate limiters, in the cases of client-go's default_rate_limiters_test.go."""

from __future__ import annotations

import math

import pytest

from shoal.cluster.workqueue.limiters import (
    BucketLimiter,
    ExponentialLimiter,
    FastSlowLimiter,
    MaxOfLimiter,
    WithMaxWaitLimiter,
    default_limiter,
)


def test_exponential_delays_are_per_item_and_forgotten() -> None:
    limiter: ExponentialLimiter[str] = ExponentialLimiter(0.001, 1.0)
    assert [limiter.delay_s("one", 0.0) for _ in range(5)] == [0.001, 0.002, 0.004, 0.008, 0.016]
    assert limiter.requeues("one") == 5
    assert [limiter.delay_s("two", 0.0) for _ in range(2)] == [0.001, 0.002]
    limiter.forget("one")
    assert limiter.requeues("one") == 0
    assert limiter.delay_s("one", 0.0) == 0.001
    limiter.forget("never seen")


def test_exponential_delays_never_overflow() -> None:
    limiter: ExponentialLimiter[str] = ExponentialLimiter(0.001, 1000.0)
    assert [limiter.delay_s("one", 0.0) for _ in range(3000)][-2980:] == [1000.0] * 2980


def test_fast_then_slow() -> None:
    limiter: FastSlowLimiter[str] = FastSlowLimiter(0.005, 10.0, 3)
    assert [limiter.delay_s("one", 0.0) for _ in range(5)] == [0.005, 0.005, 0.005, 10.0, 10.0]
    assert limiter.requeues("one") == 5
    assert limiter.delay_s("two", 0.0) == 0.005
    limiter.forget("one")
    assert limiter.delay_s("one", 0.0) == 0.005


def test_a_bucket_promises_tokens_that_are_not_there_yet() -> None:
    bucket: BucketLimiter[str] = BucketLimiter(10.0, 3)
    assert [bucket.delay_s("x", 0.0) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])
    assert bucket.requeues("x") == 0
    assert bucket.delay_s("x", 0.2) == pytest.approx(0.1), "two tokens have come, three are owed"
    assert bucket.delay_s("x", 100.0) == 0.0
    assert [bucket.delay_s("x", 100.0) for _ in range(3)] == pytest.approx([0, 0, 0.1]), (
        "no more than the burst"
    )
    assert bucket.delay_s("x", 50.0) == pytest.approx(0.2), "a clock that goes back gives nothing"


def test_the_longest_of_several() -> None:
    limiter: MaxOfLimiter[str] = MaxOfLimiter(FastSlowLimiter(0.005, 3.0, 3), ExponentialLimiter(0.001, 1.0))
    assert [limiter.delay_s("one", 0.0) for _ in range(5)] == [0.005, 0.005, 0.005, 3.0, 3.0]
    assert limiter.requeues("one") == 5
    limiter.forget("one")
    assert limiter.requeues("one") == 0


def test_a_longest_wait() -> None:
    limiter: WithMaxWaitLimiter[str] = WithMaxWaitLimiter(ExponentialLimiter(1.0, 1000.0), 5.0)
    assert [limiter.delay_s("one", 0.0) for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert limiter.requeues("one") == 5
    limiter.forget("one")
    assert limiter.delay_s("one", 0.0) == 1.0


def test_the_default_is_per_item_and_overall() -> None:
    limiter = default_limiter()
    assert [limiter.delay_s("one", 0.0) for _ in range(3)] == [0.005, 0.01, 0.02]
    delays = [limiter.delay_s(f"item {n}", 0.0) for n in range(107)]
    assert delays[:97] == [0.005] * 97
    assert delays[97:] == pytest.approx([0.1 * n for n in range(1, 11)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: ExponentialLimiter(0.0, 1.0),
        lambda: ExponentialLimiter(2.0, 1.0),
        lambda: ExponentialLimiter(1.0, math.inf),
        lambda: FastSlowLimiter(-1.0, 1.0, 1),
        lambda: FastSlowLimiter(1.0, 1.0, -1),
        lambda: BucketLimiter(0.0, 1),
        lambda: BucketLimiter(1.0, 0),
        MaxOfLimiter,
        lambda: WithMaxWaitLimiter(ExponentialLimiter(), math.nan),
    ],
)
def test_limits_that_cannot_be_are_refused(make: object) -> None:
    with pytest.raises(ValueError, match="a rate limiter needs"):
        make()
