"""The table of `cluster.query.consistency`, row by row."""

import pytest
from support.local_shards import PODS

from shoal.cluster.query.consistency import (
    Continued,
    Decision,
    Exactly,
    FromNow,
    FromVersion,
    InitialEvents,
    Newest,
    decide_get,
    decide_list,
    decide_watch,
)
from shoal.cluster.serving.options import BadWatchVersion, ListOptions
from shoal.shards.model.errors import BadRequest, Invalid
from shoal.shards.model.versions import Version


def decide(**parameters):
    pairs = [(name, str(value)) for name, value in parameters.items()]
    return decide_list(ListOptions.parse(pairs, PODS))


V = Version(7)


@pytest.mark.parametrize(
    ("parameters", "decision"),
    [
        ({}, Decision(Newest())),
        ({"limit": 2}, Decision(Newest(), 2)),
        ({"limit": -1}, Decision(Newest())),
        ({"resourceVersion": 0}, Decision(Newest())),
        ({"resourceVersion": 0, "limit": 2}, Decision(Newest())),
        ({"resourceVersion": 7}, Decision(Newest(V))),
        ({"resourceVersion": 7, "limit": 2}, Decision(Exactly(V), 2)),
        ({"continue": "t", "limit": 2}, Decision(Continued("t"), 2)),
        ({"continue": "t"}, Decision(Continued("t"))),
        ({"continue": "t", "resourceVersion": 0, "limit": 2}, Decision(Continued("t"), 2)),
        ({"resourceVersionMatch": "NotOlderThan", "resourceVersion": 0, "limit": 2}, Decision(Newest())),
        ({"resourceVersionMatch": "NotOlderThan", "resourceVersion": 7}, Decision(Newest(V))),
        ({"resourceVersionMatch": "NotOlderThan", "resourceVersion": 7, "limit": 2}, Decision(Newest(V), 2)),
        ({"resourceVersionMatch": "Exact", "resourceVersion": 7}, Decision(Exactly(V))),
        ({"resourceVersionMatch": "Exact", "resourceVersion": 7, "limit": 2}, Decision(Exactly(V), 2)),
    ],
)
def test_each_combination_has_one_answer(parameters, decision):
    assert decide(**parameters) == decision


@pytest.mark.parametrize(
    ("parameters", "kind", "text"),
    [
        (
            {"resourceVersion": "abc"},
            BadRequest,
            'invalid resource version: resourceVersion: Invalid value: "abc": strconv.ParseUint: ',
        ),
        (
            {"continue": "t", "resourceVersion": 7},
            BadRequest,
            "specifying resource version is not allowed when using continue",
        ),
        ({"resourceVersionMatch": "Exact"}, Invalid, "is forbidden unless resourceVersion is provided"),
        (
            {"resourceVersionMatch": "Exact", "resourceVersion": 0},
            Invalid,
            'forbidden for resourceVersion "0"',
        ),
        (
            {"resourceVersionMatch": "Exact", "resourceVersion": 7, "continue": "t"},
            Invalid,
            "is forbidden when continue is provided",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_the_api_servers_words(parameters, kind, text):
    with pytest.raises(kind) as caught:
        decide(**parameters)
    assert text in str(caught.value)


def test_the_version_of_a_get_is_a_minimum():
    assert decide_get("") == decide_get("0") == Newest()
    assert decide_get("7") == Newest(V)
    with pytest.raises(BadRequest, match="invalid syntax"):
        decide_get("abc")


FLOOR = Version(50)


@pytest.mark.parametrize(
    ("parameters", "basis"),
    [
        ({}, Newest(FLOOR)),
        ({"limit": 2}, Newest(FLOOR)),
        ({"resourceVersion": 0}, Newest()),
        ({"resourceVersion": 7}, Newest(V)),
        ({"resourceVersion": 7, "limit": 2}, Exactly(V)),
        ({"resourceVersion": 7, "resourceVersionMatch": "NotOlderThan"}, Newest(V)),
        ({"continue": "t"}, Continued("t")),
    ],
)
def test_what_was_written_here_concerns_lists_that_name_no_version(parameters, basis):
    options = ListOptions.parse([(name, str(value)) for name, value in parameters.items()], PODS)
    assert decide_list(options, FLOOR).basis == basis


def test_what_was_written_here_concerns_gets_that_name_no_version():
    assert decide_get("", FLOOR) == Newest(FLOOR)
    assert decide_get("0", FLOOR) == Newest()
    assert decide_get("7", FLOOR) == Newest(V)


STREAMING = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
SILENT = {"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
MARKED = {**STREAMING, "allowWatchBookmarks": "1"}


@pytest.mark.parametrize(
    ("parameters", "basis"),
    [
        ({}, InitialEvents(FLOOR)),
        ({"allowWatchBookmarks": "1"}, InitialEvents(FLOOR)),
        ({"resourceVersion": 0}, InitialEvents()),
        ({"resourceVersion": "00"}, InitialEvents()),
        ({"resourceVersion": 7}, FromVersion(V)),
        ({"resourceVersion": 7, "limit": 2, "continue": "t"}, FromVersion(V)),
        (STREAMING, InitialEvents(FLOOR)),
        (MARKED, InitialEvents(FLOOR, bookmark_end=True)),
        ({**MARKED, "resourceVersion": 0}, InitialEvents(bookmark_end=True)),
        ({**MARKED, "resourceVersion": 7}, InitialEvents(V, bookmark_end=True)),
        (SILENT, FromNow(FLOOR)),
        ({**SILENT, "resourceVersion": 0}, FromNow()),
        ({**SILENT, "resourceVersion": 7}, FromVersion(V)),
    ],
)
def test_each_watch_has_one_beginning(parameters, basis):
    pairs = [("watch", "1"), *((name, str(value)) for name, value in parameters.items())]
    assert decide_watch(ListOptions.parse(pairs, PODS), FLOOR) == basis


def test_the_initial_events_are_a_list_without_limit():
    assert InitialEvents(V, bookmark_end=True).decision == Decision(Newest(V))


def test_a_bad_version_is_found_out_late_on_a_watch():
    with pytest.raises(BadWatchVersion) as caught:
        decide_watch(ListOptions.parse([("watch", "1"), ("resourceVersion", "abc")], PODS))
    assert caught.value.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax',
        "code": 500,
    }
