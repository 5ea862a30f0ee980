"""The reflector machine when what is held is not to be believed: found to differ, or from before its time."""

import pytest

from shoal.shards.api.requests import Refusal
from shoal.shards.settings import WatchSettings
from shoal.shards.watch.protocol import Machine
from shoal.shards.watch.states import Opening, Probing, Watching
from shoal.shards.watch.steps import (
    Accepted,
    AskVersion,
    AskWatch,
    AwaitPermit,
    Begin,
    CloseStream,
    CompleteGeneration,
    Declined,
    Distrusted,
    Elapsed,
    Failed,
    Granted,
    InitialEventsEnded,
    OpenGeneration,
    ReturnPermit,
    StreamEnded,
    VersionTold,
    Wait,
)


def machine(*events):
    made = Machine(WatchSettings(), lambda: 0.0)
    for event in events:
        made.step(event, 0.0)
    return made


def test_what_was_found_to_differ_is_listed_at_once_and_served_meanwhile():
    made = machine(Begin(5), Accepted())
    assert made.step(Distrusted("one differs", 8, delivered=True), 10.0) == ((CloseStream(),), AwaitPermit())
    assert made.condition == "synced"
    assert made.watch_restarts == {"distrusted": 1}
    assert made.errors == {}, "the server has done nothing wrong"
    assert made.step(Granted(), 10.0).effects == (OpenGeneration(),)
    made.step(Accepted(), 10.0)
    step = made.step(InitialEventsEnded(9), 10.0)
    assert step.effects == (CompleteGeneration(9), ReturnPermit())
    assert isinstance(made.state, Watching)


def test_a_list_that_fails_then_is_asked_for_again():
    made = machine(Begin(5), Accepted(), Distrusted("one differs"), Granted())
    assert isinstance(made.step(Failed("connection", "refused"), 1.0).activity, Wait)
    assert made.step(Elapsed(), 2.0).activity == AwaitPermit()


def test_what_a_distrusted_watch_brought_is_not_forgotten():
    made = machine(Begin(5), Accepted(), Distrusted("one differs", 8, delivered=True), Granted(), Accepted())
    made.step(InitialEventsEnded(9), 10.0)
    assert made.step(StreamEnded("clean", 9), 400.0) == ((CloseStream(),), AskVersion(9))
    assert made.step(VersionTold(9), 400.0) == ((), AskWatch(9, 300))


def test_what_is_held_from_before_is_watched_only_after_the_server_said_where_it_is():
    made = machine()
    assert made.step(Begin(17, old=True), 0.0) == ((), AskVersion(17))
    assert isinstance(made.state, Probing)
    assert made.condition == "synced"
    assert made.step(VersionTold(17), 0.0) == ((), AskWatch(17, 300))
    assert isinstance(made.state, Opening)
    assert sum(made.lists.values()) == 0


def test_a_server_that_is_behind_what_is_held_from_before_is_listed():
    made = machine(Begin(17, old=True))
    assert made.step(VersionTold(16), 0.0) == ((), AwaitPermit())
    assert made.errors == {"went_back": 1}


@pytest.mark.parametrize("event", [Failed("connection", "refused"), Declined(Refusal(500, "boom"))])
def test_a_server_that_does_not_say_where_it_is_is_asked_again(event):
    made = machine(Begin(17, old=True))
    assert isinstance(made.step(event, 0.0).activity, Wait)
    assert made.step(Elapsed(), 1.0) == ((), AskVersion(17))


def test_a_server_that_has_forgotten_what_came_since_is_listed():
    made = machine(Begin(17, old=True), VersionTold(4000))
    assert made.step(Declined(Refusal(410, "too old", "Expired")), 0.0) == ((), AwaitPermit())
    assert made.condition == "synced", "what is held is replaced by the list, never dropped before"
