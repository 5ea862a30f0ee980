"""Backoff: the delays themselves."""

import random

import pytest

from shoal.shards.settings import WatchSettings
from shoal.shards.watch.backoff import Backoff


def delays(uniform, count=8, between=0.0):
    backoff, now, found = Backoff(WatchSettings(), lambda: uniform), 0.0, []
    for _ in range(count):
        delay = backoff.after_failure(now)
        found.append(round(delay, 3))
        now += delay + between
    return found


def test_delays_double_up_to_half_the_longest_without_jitter():
    assert delays(0.0) == [0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0, 15.0]


def test_jitter_at_most_doubles_a_delay_and_never_passes_the_longest():
    assert delays(0.5) == [1.2, 2.4, 4.8, 9.6, 19.2, 22.5, 22.5, 22.5]
    assert delays(1.0) == [1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0, 30.0]


@pytest.mark.parametrize("seed", range(20))
def test_every_delay_is_between_the_first_and_the_longest(seed):
    backoff, now = Backoff(WatchSettings(), random.Random(seed).random), 0.0
    for _ in range(50):
        delay = backoff.after_failure(now)
        assert 0.8 <= delay <= 30.0
        now += delay


def test_two_minutes_of_health_start_it_again():
    assert delays(0.0, count=4, between=119.9) == [0.8, 1.6, 3.2, 6.4]
    assert delays(0.0, count=4, between=120.1) == [0.8, 0.8, 0.8, 0.8]


def test_what_the_server_asks_for_is_waited_for_and_jitter_added():
    backoff = Backoff(WatchSettings(), lambda: 0.5)
    assert backoff.after_failure(0.0, at_least_s=10.0) == pytest.approx(10.4)
    assert backoff.after_failure(0.0, at_least_s=1.0) == pytest.approx(2.4)
    assert backoff.failures == 2
