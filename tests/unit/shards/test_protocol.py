"""The reflector machine, step by step: every state with every event, and each decision of its docstring."""

import itertools
import re

import pytest

from shoal.shards.api.requests import Refusal
from shoal.shards.model.errors import Broken
from shoal.shards.model.observations import ErrorLine
from shoal.shards.settings import WatchSettings
from shoal.shards.watch import protocol, states, steps
from shoal.shards.watch.protocol import Machine
from shoal.shards.watch.steps import (
    Accepted,
    AskPage,
    AskStreamingList,
    AskVersion,
    AskWatch,
    AwaitPermit,
    Begin,
    CloseStream,
    CompleteGeneration,
    Declined,
    Distrusted,
    DropGeneration,
    Elapsed,
    ErrorReported,
    Failed,
    Granted,
    InitialEventsEnded,
    OpenGeneration,
    PageApplied,
    PlainBookmark,
    ReadEvents,
    ReadInitialEvents,
    ReturnPermit,
    Stop,
    StreamEnded,
    VersionTold,
    Wait,
)

EXPIRED = Refusal(410, "too old resource version: 5 (266)", "Expired")
OVERLOADED = Refusal(429, "slow down", "TooManyRequests", retry_after_s=7.0)
UNAVAILABLE = Refusal(503, "not ready", retry_after_s=3.0)
UNSUPPORTED = Refusal(422, "sendInitialEvents is forbidden", "Invalid")
NOT_FOUND = Refusal(404, "404 page not found")
FORBIDDEN = Refusal(403, "pods is forbidden", "Forbidden")
UNAUTHORIZED = Refusal(401, "Unauthorized", "Unauthorized")
BROKEN = Refusal(500, "etcdserver: leader changed")

EVENTS = {
    "Begin": Begin(),
    "Granted": Granted(),
    "PageApplied": PageApplied(9, ""),
    "Accepted": Accepted(),
    "Declined": Declined(BROKEN),
    "Failed": Failed("connection", "refused"),
    "VersionTold": VersionTold(9),
    "InitialEventsEnded": InitialEventsEnded(9),
    "PlainBookmark": PlainBookmark(),
    "ErrorReported": ErrorReported(ErrorLine(410, "Expired", "too old", {})),
    "StreamEnded": StreamEnded("clean"),
    "Distrusted": Distrusted("an object differs"),
    "Elapsed": Elapsed(),
}
WAYS = {
    "Unstarted": [],
    "Queued": [Begin()],
    "Paging": [Begin(), Granted(), Declined(UNSUPPORTED)],
    "Asking": [Begin(), Granted()],
    "Filling": [Begin(), Granted(), Accepted()],
    "Probing": [Begin(5), Failed("connection", "refused"), Elapsed()],
    "Opening": [Begin(5)],
    "Watching": [Begin(5), Accepted()],
    "Pausing": [Begin(5), Failed("connection", "refused")],
    "Vanished": [Begin()]
    + [Granted(), Declined(NOT_FOUND), Elapsed()] * 2
    + [Granted(), Declined(NOT_FOUND)],
}


def machine(*events, uniform=0.0, **settings):
    made = Machine(WatchSettings(**settings), lambda: uniform)
    for event in events:
        made.step(event, 0.0)
    return made


def resumed(made, now, *, told=1 << 40):
    """The pause is over, and the server says which version it is at."""
    step = made.step(Elapsed(), now)
    assert step.effects == ()
    assert isinstance(step.activity, AskVersion)
    return made.step(VersionTold(told), now)


def reopened(made, end, now):
    """The stream has ended in a way that is no failure, and the server is not older than what is held."""
    step = made.step(end, now)
    assert step.effects == (CloseStream(),)
    assert isinstance(step.activity, AskVersion)
    return made.step(VersionTold(1 << 40), now)


def legal_by_docstring():
    """The block of the module's docstring that lists the legal events of each state."""
    lines = re.findall(r"^    (\w+)((?: +[A-Z]\w+)*)$", protocol.__doc__, re.MULTILINE)
    return {state: set(events.split()) for state, events in lines if state in WAYS}


def test_the_docstring_lists_the_table():
    table = {state: set() for state in WAYS}
    for state, event in Machine.table:
        table[state.__name__].add(event.__name__)
    assert legal_by_docstring() == table


def test_states_and_events_are_all_in_these_tests():
    assert set(WAYS) == {state.__name__ for state in states.State.__args__}
    assert set(EVENTS) == {event.__name__ for event in steps.Event.__args__}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(WAYS, EVENTS)))
def test_every_event_in_every_state_is_legal_or_loud_and_without_effect(state, event):
    made = machine(*WAYS[state])
    assert type(made.state).__name__ == state
    before = (made.state, made.message, dict(made.lists), dict(made.errors), str(made.story))
    if event in legal_by_docstring()[state]:
        step = made.step(EVENTS[event], 1.0)
        assert isinstance(step.activity, steps.Activity)
        assert str(made.story).count("\n") == before[4].count("\n") + bool(before[4])
    else:
        with pytest.raises(Broken, match=f"{event}.* is not legal in {state}"):
            made.step(EVENTS[event], 1.0)
        assert (made.state, made.message, dict(made.lists), dict(made.errors), str(made.story)) == before


# -- lists ---------------------------------------------------------------------------------------------------


def test_a_list_waits_for_a_permit_and_is_a_streaming_list_first():
    made = machine()
    assert made.step(Begin(), 0.0) == ((), AwaitPermit())
    assert made.condition == "pending"
    assert made.step(Granted(), 0.0) == ((OpenGeneration(),), AskStreamingList(300))
    assert made.step(Accepted(), 0.0) == ((), ReadInitialEvents())
    assert made.step(InitialEventsEnded(42), 0.0) == ((CompleteGeneration(42), ReturnPermit()), ReadEvents())
    assert made.condition == "synced"
    assert made.lists == {"stream": 1}


def test_the_timeout_is_random_between_once_and_twice_the_minimum():
    assert machine(Begin(), uniform=0.0).step(Granted(), 0.0).activity == AskStreamingList(300)
    assert machine(Begin(), uniform=0.999).step(Granted(), 0.0).activity == AskStreamingList(599)


def test_a_store_that_holds_something_is_watched_from_there_without_a_list():
    made = machine()
    assert made.step(Begin(17), 0.0) == ((), AskWatch(17, 300))
    assert made.condition == "synced"


def test_a_server_without_streaming_lists_is_asked_for_pages_from_then_on():
    made = machine(Begin(), Granted())
    step = made.step(Declined(UNSUPPORTED), 0.0)
    assert step == ((DropGeneration(), OpenGeneration()), AskPage(500))
    assert made.step(PageApplied(9, "next"), 0.0) == ((), AskPage(500, "next"))
    assert made.step(PageApplied(9, ""), 0.0) == ((CompleteGeneration(9), ReturnPermit()), AskWatch(9, 300))
    made.step(Accepted(), 0.0)
    made.step(ErrorReported(ErrorLine(410, "Expired", "too old", {}), 12, delivered=True), 500.0)
    assert made.step(Granted(), 500.0).activity == AskPage(500)
    assert made.lists == {"stream": 1, "paged": 2}


def test_streaming_lists_can_be_left_out():
    assert machine(Begin(), streaming_list="never").step(Granted(), 0.0).activity == AskPage(500)


def test_a_streaming_list_that_breaks_off_is_followed_by_one_paged_list():
    made = machine(Begin(), Granted(), Accepted())
    step = made.step(StreamEnded("broken", message="reset by peer"), 1.0)
    assert step == ((CloseStream(), DropGeneration(), ReturnPermit()), Wait(0.8))
    made.step(Elapsed(), 2.0)
    assert made.step(Granted(), 2.0).activity == AskPage(500)
    made.step(Failed("connection", "refused"), 2.0)
    made.step(Elapsed(), 4.0)
    assert isinstance(made.step(Granted(), 4.0).activity, AskStreamingList)


def test_a_refused_connection_does_not_speak_against_streaming_lists():
    made = machine(Begin(), Granted(), Failed("connection", "refused"), Elapsed())
    assert isinstance(made.step(Granted(), 1.0).activity, AskStreamingList)


def test_a_bookmark_without_the_mark_proves_that_the_server_ignores_streaming_lists():
    made = machine(Begin(), Granted(), Accepted())
    step = made.step(PlainBookmark(), 1.0)
    assert step == ((CloseStream(), DropGeneration(), OpenGeneration()), AskPage(500))


@pytest.mark.parametrize(("how", "at"), [("silent", 60.0), ("clean", 299.5), ("overlong", 305.0)])
def test_two_streaming_lists_without_an_end_prove_it_as_well(how, at):
    made = machine(Begin())
    now = 0.0
    for attempt in range(2):
        assert isinstance(made.step(Granted(), now).activity, AskStreamingList), attempt
        made.step(Accepted(), now)
        made.step(StreamEnded(how), now + at)
        now += 1000.0
        made.step(Elapsed(), now)
        assert made.step(Granted(), now).activity == AskPage(500)
        made.step(PageApplied(9, ""), now)
        made.step(Declined(EXPIRED), now)
        now += 1000.0
        made.step(Elapsed(), now)
    assert made.step(Granted(), now).activity == AskPage(500)


def test_a_complete_streaming_list_clears_the_suspicion():
    made = machine(Begin(), Granted(), Accepted())
    made.step(StreamEnded("silent"), 60.0)
    made.step(Elapsed(), 61.0)
    made.step(Granted(), 61.0)
    made.step(PageApplied(9, ""), 61.0)
    for now in (100.0, 200.0, 300.0):
        made.step(Accepted() if isinstance(made.state, states.Opening) else Elapsed(), now)
        if isinstance(made.state, states.Watching):
            made.step(ErrorReported(ErrorLine(410, "Expired", "", {}), 9, delivered=True), now + 50.0)
            break
    assert isinstance(made.step(Granted(), 150.0).activity, AskStreamingList)
    made.step(Accepted(), 150.0)
    made.step(InitialEventsEnded(20), 150.0)
    made.step(ErrorReported(ErrorLine(410, "Expired", "", {}), 21, delivered=True), 200.0)
    made.step(Granted(), 200.0)
    made.step(Accepted(), 200.0)
    made.step(StreamEnded("silent"), 260.0)
    made.step(Elapsed(), 300.0)
    made.step(Granted(), 300.0)
    made.step(PageApplied(30, ""), 300.0)
    made.step(Accepted(), 300.0)
    made.step(ErrorReported(ErrorLine(410, "Expired", "", {}), 31, delivered=True), 400.0)
    assert isinstance(made.step(Granted(), 400.0).activity, AskStreamingList)


def test_a_continue_token_that_expires_is_followed_by_a_list_in_one_piece():
    made = machine(Begin(), Granted(), Declined(UNSUPPORTED), PageApplied(9, "next"))
    assert made.step(Declined(EXPIRED), 0.0) == ((DropGeneration(), OpenGeneration()), AskPage(None))
    assert made.step(PageApplied(11, ""), 0.0).activity == AskWatch(11, 300)
    assert made.lists == {"stream": 1, "paged": 1, "full": 1}


def test_a_first_page_that_is_expired_is_asked_again_later():
    made = machine(Begin(), Granted(), Declined(UNSUPPORTED))
    assert made.step(Declined(EXPIRED), 0.0) == ((DropGeneration(), ReturnPermit()), Wait(0.8))


def test_a_list_without_a_version_is_garbage():
    made = machine(Begin(), Granted(), Declined(UNSUPPORTED))
    assert made.step(PageApplied(0, ""), 0.0) == ((DropGeneration(), ReturnPermit()), Wait(0.8))
    assert made.errors == {"garbage": 1}
    made = machine(Begin(), Granted(), Accepted())
    assert made.step(InitialEventsEnded(0), 0.0).activity == Wait(0.8)


def test_an_ignored_shard_selector_is_counted():
    made = machine(Begin(), Granted(), Declined(UNSUPPORTED))
    made.step(PageApplied(9, "", selector_ignored=True), 0.0)
    assert made.errors == {"selector_ignored": 1}


def test_a_permit_is_given_back_however_the_list_ends():
    ends = [
        ([Granted(), Declined(UNSUPPORTED)], PageApplied(9, "")),
        ([Granted(), Declined(UNSUPPORTED)], Declined(BROKEN)),
        ([Granted(), Declined(UNSUPPORTED)], Failed("silent", "")),
        ([Granted()], Declined(OVERLOADED)),
        ([Granted()], Failed("connection", "")),
        ([Granted(), Accepted()], InitialEventsEnded(9)),
        ([Granted(), Accepted()], ErrorReported(ErrorLine(500, "", "", {}))),
        ([Granted(), Accepted()], StreamEnded("garbage")),
    ]
    for way, end in ends:
        step = machine(Begin(), *way).step(end, 0.0)
        assert step.effects.count(ReturnPermit()) == 1, end


# -- watches -------------------------------------------------------------------------------------------------


def watching(version=5, **settings):
    return machine(Begin(version), Accepted(), **settings)


@pytest.mark.parametrize("line", [True, False])
def test_both_forms_of_410_are_followed_by_a_fresh_list_at_once(line):
    if line:
        step = watching().step(ErrorReported(ErrorLine(410, "Expired", "too old", {}), 5), 0.1)
        assert step == ((CloseStream(),), AwaitPermit())
    else:
        assert machine(Begin(5)).step(Declined(EXPIRED), 0.1) == ((), AwaitPermit())


def test_410_straight_after_a_list_waits_first():
    made = machine(Begin(), Granted(), Declined(UNSUPPORTED), PageApplied(9, ""))
    assert made.step(Declined(EXPIRED), 0.0).activity == Wait(0.8)
    assert made.condition == "synced"


def test_a_stream_that_ended_properly_is_reopened_at_once_where_it_ended():
    made = watching()
    assert reopened(made, StreamEnded("clean", 8, delivered=True), 0.2) == ((), AskWatch(8, 300))
    made.step(Accepted(), 0.2)
    assert reopened(made, StreamEnded("clean"), 300.2) == ((), AskWatch(8, 300))
    assert made.watch_restarts == {"ended": 1, "timeout": 1}


def test_a_very_short_watch_without_anything_is_a_failure():
    assert watching().step(StreamEnded("clean"), 0.9) == ((CloseStream(),), Wait(0.8))
    assert reopened(watching(), StreamEnded("clean"), 1.0) == ((), AskWatch(5, 300))


def test_a_stream_that_outlived_its_time_is_reopened_at_once():
    made = watching()
    assert reopened(made, StreamEnded("overlong", 6, delivered=True), 305.0).activity == AskWatch(6, 300)
    assert made.watch_restarts == {"stalled": 1}


def test_a_broken_stream_is_reopened_after_a_wait_where_it_broke():
    made = watching()
    assert made.step(StreamEnded("broken", 8, delivered=True), 50.0) == ((CloseStream(),), Wait(0.8))
    assert resumed(made, 51.0).activity == AskWatch(8, 300)


def test_a_version_never_goes_back():
    made = watching(version=20)
    assert reopened(made, StreamEnded("clean", 7, delivered=True), 50.0).activity == AskWatch(20, 300)


@pytest.mark.parametrize("event", [StreamEnded("garbage"), ErrorReported(ErrorLine(500, "", "boom", {}))])
def test_a_watch_that_stumbles_again_and_again_is_replaced_by_a_list(event):
    made = watching()
    for attempt in range(protocol.RELIST_AFTER):
        made.step(event, 0.0)
        if attempt < protocol.RELIST_AFTER - 1:
            assert resumed(made, 0.0).activity == AskWatch(5, 300)
            made.step(Accepted(), 0.0)
    assert made.step(Elapsed(), 0.0).activity == AwaitPermit()


def test_what_arrives_between_two_garbage_lines_keeps_the_watch():
    made = watching()
    for version in range(6, 26):
        made.step(StreamEnded("garbage", version, delivered=True), 0.0)
        assert resumed(made, 0.0).activity == AskWatch(version, 300)
        made.step(Accepted(), 0.0)
    assert made.errors == {"garbage": 20}


@pytest.mark.parametrize("refusal", [OVERLOADED, UNAVAILABLE])
def test_retry_after_is_honoured_by_lists_and_watches(refusal):
    for way in ([Begin(5)], [Begin(), Granted()], [Begin(), Granted(), Declined(UNSUPPORTED)]):
        made = machine(*way)
        assert made.step(Declined(refusal), 0.0).activity == Wait(refusal.retry_after_s)
        assert made.errors == {"overloaded": 1}


def test_retry_after_of_an_error_line_is_in_its_details():
    status = {"details": {"retryAfterSeconds": 9}}
    step = watching().step(ErrorReported(ErrorLine(429, "TooManyRequests", "later", status)), 1.0)
    assert step.activity == Wait(9.0)


def test_an_absurd_retry_after_is_cut():
    made = machine(Begin(5))
    step = made.step(Declined(Refusal(503, "maintenance", retry_after_s=86400.0)), 0.0)
    assert step.activity == Wait(protocol.RETRY_AFTER_MAX_S)


def test_refused_watches_go_on_where_they_were_once_they_are_allowed():
    made = machine(Begin(5), Declined(FORBIDDEN))
    assert made.condition == "refused"
    assert resumed(made, 60.0).activity == AskWatch(5, 300)
    made.step(Accepted(), 60.0)
    assert made.condition == "synced"


@pytest.mark.parametrize("told", [5, 6, 0])
def test_a_server_that_is_not_behind_after_a_failure_is_watched_on(told):
    made = machine(Begin(5), Failed("connection", "refused"))
    assert resumed(made, 1.0, told=told).activity == AskWatch(5, 300)
    assert made.errors == {"connection": 1}


def test_a_server_that_went_back_is_listed_afresh():
    """A watch from a version it has not reached is silent: what is held used to be stale for ever."""
    made = machine(Begin(5), Failed("connection", "refused"))
    assert resumed(made, 1.0, told=4).activity == AwaitPermit()
    assert made.errors == {"connection": 1, "went_back": 1}
    made.step(Granted(), 1.0)
    made.step(Accepted(), 1.0)
    assert made.step(InitialEventsEnded(4), 1.0).effects[0] == CompleteGeneration(4)
    assert reopened(made, StreamEnded("clean"), 301.0).activity == AskWatch(4, 300)


def test_404_three_times_in_a_row_means_gone():
    made = machine(Begin(5))
    made.step(Declined(NOT_FOUND), 0.0)
    for now in (1.0, 2.0):
        made.step(Elapsed(), now)
        made.step(Granted(), now)
        assert isinstance(made.step(Declined(NOT_FOUND), now).activity, Wait)
    made.step(Elapsed(), 3.0)
    made.step(Granted(), 3.0)
    assert made.step(Declined(NOT_FOUND), 3.0) == ((DropGeneration(), ReturnPermit()), Stop())
    assert made.condition == "gone"


def test_an_answer_between_two_404_means_not_gone():
    made = machine(Begin(), streaming_list="never")
    for now in range(0, 100, 10):
        made.step(Granted(), now)
        made.step(Declined(NOT_FOUND), now)
        made.step(Elapsed(), now)
        made.step(Granted(), now)
        made.step(PageApplied(9, "more"), now)
        made.step(Failed("connection", "cut"), now)
        made.step(Elapsed(), now)
    assert made.condition == "pending"


def test_a_watch_refused_in_another_way_is_replaced_by_a_list():
    made = machine(Begin(5))
    made.step(Declined(Refusal(400, "bad request")), 0.0)
    assert made.step(Elapsed(), 1.0).activity == AwaitPermit()


def test_the_message_says_what_is_waited_for_and_is_empty_when_all_is_well():
    made = machine(Begin(5), Failed("connection", "cannot connect to https://a:6443: refused"))
    assert made.message == "cannot connect to https://a:6443: refused; tries again after 0.8 s"
    resumed(made, 1.0)
    made.step(Accepted(), 1.0)
    assert made.message == ""


def test_the_story_tells_the_last_steps():
    made = machine(Begin(5), Accepted())
    made.step(StreamEnded("broken", message="cut"), 3.25)
    assert str(made.story).splitlines()[-1] == (
        "3.250 StreamEnded(how='broken', version=0, delivered=False, message='cut') -> "
        "Pausing(due='watch'): CloseStream, Wait(seconds=0.8)"
    )
