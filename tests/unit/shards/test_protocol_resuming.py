"""Before a watch is resumed the server is asked where it is, however the last one ended: another may answer by now."""

import pytest

from shoal.shards.settings import WatchSettings
from shoal.shards.watch.protocol import Machine
from shoal.shards.watch.steps import (
    Accepted,
    AskVersion,
    AskWatch,
    AwaitPermit,
    Begin,
    CloseStream,
    Granted,
    InitialEventsEnded,
    ReadEvents,
    StreamEnded,
    VersionTold,
)


def watching(version=5):
    """A machine that watches from a version on."""
    made = Machine(WatchSettings(), lambda: 0.0)
    made.step(Begin(version), 0.0)
    assert made.step(Accepted(), 0.0).activity == ReadEvents()
    return made


@pytest.mark.parametrize(
    ("ended", "lived_s"),
    [
        (StreamEnded("clean", 9, delivered=True), 300.0),
        (StreamEnded("clean", 9, delivered=True), 7.0),
        (StreamEnded("clean", 9), 7.0),
        (StreamEnded("overlong", 9), 310.0),
    ],
    ids=["in time", "early", "early, with nothing", "overlong"],
)
def test_a_watch_that_ended_without_an_error_is_asked_about_before_the_next(ended, lived_s):
    made = watching()
    assert made.step(ended, lived_s) == ((CloseStream(),), AskVersion(9))
    assert made.step(VersionTold(9), lived_s) == ((), AskWatch(9, 300))


def test_a_server_that_is_behind_is_listed_and_counted():
    made = watching()
    made.step(StreamEnded("clean", 9), 300.0)
    assert made.step(VersionTold(8), 300.0) == ((), AwaitPermit())
    assert made.errors["went_back"] == 1


def test_what_was_listed_just_now_is_watched_without_a_question():
    made = Machine(WatchSettings(), lambda: 0.0)
    made.step(Begin(), 0.0)
    made.step(Granted(), 0.0)
    made.step(Accepted(), 0.0)
    assert made.step(InitialEventsEnded(9), 0.0).activity == ReadEvents()
