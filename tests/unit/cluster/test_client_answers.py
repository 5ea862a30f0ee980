"""How answers are read: lists of every layout, headers that are odd, counts."""

import json
import pickle

import pytest

from shoal.cluster.client.answers import Count, Freshness, Groups, ObjectList, read_count, read_list
from shoal.shards.model.errors import Garbage
from shoal.shards.model.resources import Resource, ResourceType

PODS = ResourceType(resource=Resource("", "v1", "pods"), kind="Pod", namespaced=True)
ITEM = {"metadata": {"name": "a", "namespace": "x"}, "spec": {"b": 1}}


def page(*items, raw=None, **metadata):
    text = json.dumps({"metadata": {"resourceVersion": "9", **metadata}, "items": None})
    joined = raw or b",".join(json.dumps(item).encode() for item in items)
    return text.encode().replace(b"null", b"[" + joined + b"]")


@pytest.mark.parametrize(
    "raw",
    [
        b'{"metadata":{"name":"a","namespace":"x"},"spec":{"b":1}}',
        b'{"spec":{"b":1},"metadata":{"name":"a","namespace":"x"}}',
        b'{ "metadata" : {"name":"a","namespace":"x"},"spec":{"b":1}}',
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","namespace":"x"},"spec":{"b":1}}',
        b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"x"},"spec":{"b":1}}',
        b'{"metadata":{"name":"a","namespace":"x"},"kind":"Pod","apiVersion":"v1","spec":{"b":1}}',
    ],
)
def test_every_object_of_a_list_has_its_kind(raw):
    (found,) = read_list(page(raw=raw), {}, PODS)
    assert (found.key, found.kind, found.apiVersion) == ("x/a", "Pod", "v1")
    assert found.to_dict() == {"kind": "Pod", "apiVersion": "v1", **ITEM}


def test_the_layouts_of_an_empty_list():
    for body in (b'{"metadata":{},"items":null}', b'{"metadata":{"resourceVersion":""},"items":[]}'):
        found = read_list(body, {}, PODS)
        assert (len(found), found.resource_version, found.continue_token, found.remaining) == (
            0,
            "",
            "",
            None,
        )
        assert repr(found) == "<0 objects at no version>"


def test_an_item_that_is_no_object_of_the_kind_is_left_as_it_is():
    (found,) = read_list(page({}), {}, PODS)
    assert found.to_dict() == {}


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"items":[]}', b'{"metadata":{},"items":[1]}', b'{"metadata":']
)
def test_what_is_no_list_is_garbage(body):
    with pytest.raises(Garbage, match="not a list of v1/pods"):
        read_list(body, {}, PODS)


def test_messages_about_garbage_hold_little_of_it():
    with pytest.raises(Garbage) as found:
        read_list(b'{"kind":"Status","message":"' + b"s" * 500 + b'"}', {}, PODS)
    assert len(found.value.message) < 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Freshness()),
        (
            {"shoal-frontier": "12", "shoal-age": "0.250", "shoal-shards": "shard-0,shard-1"},
            Freshness(frontier="12", age_s=0.25, shards=("shard-0", "shard-1")),
        ),
        ({"shoal-frontier": "12", "shoal-age": "soon", "shoal-shards": ""}, Freshness(frontier="12")),
        ({"shoal-partial": "missing shard-1 (v1/pods)"}, Freshness(missing="missing shard-1 (v1/pods)")),
    ],
)
def test_headers_say_how_fresh_an_answer_is(headers, expected):
    found = read_list(page(ITEM), headers, PODS)
    assert found.freshness == expected
    assert (found.frontier, found.age_s, found.shards) == (expected.frontier, expected.age_s, expected.shards)
    assert expected.from_shoal == ("shoal-frontier" in headers)


def test_a_page_says_what_remains():
    found = read_list(page(ITEM, **{"continue": "t", "remainingItemCount": 4}), {}, PODS)
    assert (found.continue_token, found.remaining) == ("t", 4)
    assert repr(found) == "<1 objects at 9, and more>"
    assert isinstance(found, ObjectList)


def test_what_listers_answer_is_equal_after_a_journey():
    """To another process, say: a list was equal to nothing but itself."""
    headers = {"shoal-frontier": "12", "shoal-shards": "shard-0"}
    found = read_list(page(ITEM, **{"continue": "t", "remainingItemCount": 4}), headers, PODS)
    there = pickle.loads(pickle.dumps(found))
    assert there == found
    assert hash(there) == hash(found)
    assert (there.continue_token, there.remaining, there.freshness) == ("t", 4, found.freshness)
    other = {"metadata": {"name": "b", "namespace": "x"}}
    for different in (
        read_list(page(ITEM), headers, PODS),
        read_list(page(other, **{"continue": "t", "remainingItemCount": 4}), headers, PODS),
        read_list(page(ITEM, **{"continue": "t", "remainingItemCount": 4}), {}, PODS),
        list(found),
    ):
        assert different != found
    count = Count.of(3, "7", found.freshness)
    groups = Groups({"a": 1, "b": 2}, "7", found.freshness)
    for answer in (count, groups):
        there = pickle.loads(pickle.dumps(answer))
        assert (there, there.resource_version, there.freshness) == (answer, "7", found.freshness)
    assert list(pickle.loads(pickle.dumps(groups))) == ["b", "a"]


def test_counts_are_numbers_that_say_what_they_rest_on():
    body = b'{"resource":"v1/pods","count":5,"groups":{"b":2,"a":2,"c":1},"resourceVersion":"7","shards":[]}'
    count, groups = read_count(body, {"shoal-frontier": "7"})
    assert count + 1 == 6
    assert (type(count), count.resource_version, count.freshness.frontier) == (Count, "7", "7")
    assert list(groups.items()) == [("a", 2), ("b", 2), ("c", 1)]
    assert (type(groups), groups.resource_version) == (Groups, "7")
    for body in (b"404 page not found", b'{"count":"x"}', b"{}"):
        with pytest.raises(Garbage, match="not a count"):
            read_count(body, {})
