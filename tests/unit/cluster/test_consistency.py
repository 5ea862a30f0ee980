"""The table of `cluster.query.consistency`, row by row."""

import pytest
from support.local_shards import PODS

from shoal.cluster.query.consistency import Continued, Decision, Exactly, Newest, decide_get, decide_list
from shoal.cluster.serving.options import ListOptions
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
