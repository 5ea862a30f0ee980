"""The reflector machine and answers that refuse: soon asked again, then ever more slowly."""

import pytest

from shoal.shards.api.requests import Refusal
from shoal.shards.settings import WatchSettings
from shoal.shards.watch.protocol import Machine
from shoal.shards.watch.steps import (
    Accepted,
    AskWatch,
    Begin,
    Declined,
    Elapsed,
    Granted,
    StreamEnded,
    VersionTold,
    Wait,
)

FORBIDDEN = Refusal(403, "pods is forbidden", "Forbidden")
UNAUTHORIZED = Refusal(401, "Unauthorized", "Unauthorized")


def machine(*events):
    made = Machine(WatchSettings(), lambda: 0.0)
    for event in events:
        made.step(event, 0.0)
    return made


def resumed(made, now):
    made.step(Elapsed(), now)
    return made.step(VersionTold(1 << 40), now)


@pytest.mark.parametrize("refusal", [FORBIDDEN, UNAUTHORIZED])
def test_forbidden_and_unauthorized_are_reported_and_retried_ever_more_slowly(refusal):
    made = machine(Begin(), Granted())
    for seconds in (0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0):
        assert made.step(Declined(refusal), 0.0).activity == Wait(pytest.approx(seconds))
        assert made.condition == "refused"
        assert refusal.message in made.message
        made.step(Elapsed(), 60.0)
        made.step(Granted(), 60.0)
    for _ in range(5000):
        step = made.step(Declined(refusal), 0.0)
        made.step(Elapsed(), 60.0)
        made.step(Granted(), 60.0)
    assert step.activity == Wait(60.0), "for however long it takes"
    made.step(Accepted(), 60.0)
    assert made.condition == "pending"


@pytest.mark.parametrize("refusal", [FORBIDDEN, UNAUTHORIZED])
def test_what_is_refused_for_a_moment_is_asked_again_soon(refusal):
    made = machine(Begin(5))
    for at in (0.0, 100.0, 200.0):
        assert made.step(Declined(refusal), at).activity == Wait(0.8), "each time anew"
        assert resumed(made, at + 0.8).activity == AskWatch(5, 300)
        made.step(Accepted(), at + 0.8)
        assert made.condition == "synced"
        made.step(StreamEnded("clean", version=5, delivered=True), at + 90)


def test_a_list_that_is_allowed_does_not_make_a_watch_that_is_not_be_asked_in_haste():
    made = machine(Begin(5), Declined(FORBIDDEN))
    for seconds in (1.6, 3.2, 6.4):
        resumed(made, 60.0)
        assert made.step(Declined(FORBIDDEN), 60.0).activity == Wait(seconds)
