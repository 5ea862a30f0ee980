"""The parameters of LIST and WATCH, with kube-apiserver's rules and texts."""

from __future__ import annotations

import pytest

from shoal.cluster.serving.options import (
    AnyVersion,
    BadWatchVersion,
    Demand,
    Exact,
    ListOptions,
    MostRecent,
    NotOlderThan,
)
from shoal.shards.model.errors import BadRequest, Invalid
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
PODS = ResourceType(resource=Resource("", "v1", "pods"), kind="Pod", namespaced=True)
WIDGETS = ResourceType(
    resource=Resource("example.com", "v1", "widgets"),
    kind="Widget",
    namespaced=True,
    custom=True,
    selectable_fields=("spec.color",),
)


def parse(known: ResourceType = CONFIG_MAPS, *, watch_list: bool = True, **query: str) -> ListOptions:
    return ListOptions.parse(query.items(), known, watch_list=watch_list)


def test_nothing_said() -> None:
    options = parse()
    assert options == ListOptions()
    assert options.demand() == MostRecent()
    assert options.initial_events


def test_booleans_are_false_only_for_false_and_zero() -> None:
    assert [parse(watch=text).watch for text in ("1", "true", "yes", "", "0", "False")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip


def test_the_first_of_two_parameters_counts() -> None:
    assert ListOptions.parse([("limit", "3"), ("limit", "x")], CONFIG_MAPS).limit == 3


@pytest.mark.parametrize("text", ["x", "1.5", "", " 1", "٣"])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(limit=text)
    assert caught.value.message == f'strconv.ParseInt: parsing "{text}": invalid syntax'


def test_numbers_out_of_range() -> None:
    with pytest.raises(BadRequest, match="value out of range"):
        parse(timeoutSeconds=str(1 << 63))


def test_a_negative_limit_is_none() -> None:
    assert parse(limit="-1").limit == 0


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, MostRecent()),
        ({"resourceVersion": "0"}, AnyVersion()),
        ({"resourceVersion": "0", "limit": "5"}, AnyVersion()),
        ({"resourceVersion": "7"}, NotOlderThan(Version(7))),
        ({"resourceVersion": "7", "limit": "5"}, Exact(Version(7))),
        ({"resourceVersion": "7", "resourceVersionMatch": "Exact"}, Exact(Version(7))),
        (
            {"resourceVersion": "7", "resourceVersionMatch": "NotOlderThan", "limit": "5"},
            NotOlderThan(Version(7)),
        ),
    ],
)
def test_the_state_a_list_asks_for(query: dict[str, str], expected: Demand) -> None:
    assert parse(**query).demand() == expected


def test_a_bad_version_is_400_on_list_and_500_on_watch() -> None:
    with pytest.raises(BadRequest) as on_list:
        parse(resourceVersion="abc").demand()
    assert on_list.value.message.startswith("invalid resource version: resourceVersion: Invalid value")
    with pytest.raises(BadWatchVersion) as on_watch:
        parse(watch="1", resourceVersion="abc").watch_version()
    assert on_watch.value.code == 500
    assert "reason" not in on_watch.value.status()


@pytest.mark.parametrize(
    ("query", "fragment"),
    [
        ({"resourceVersionMatch": "Exact"}, "forbidden unless resourceVersion is provided"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 'forbidden for resourceVersion "0"'),
        (
            {"resourceVersionMatch": "Exact", "resourceVersion": "1", "continue": "x"},
            "forbidden when continue is provided",
        ),
        (
            {"resourceVersionMatch": "Newest", "resourceVersion": "1"},
            'Unsupported value: "Newest": supported values: "", "Exact", "NotOlderThan"',
        ),
        ({"sendInitialEvents": "true"}, "sendInitialEvents is forbidden for list"),
        (
            {"watch": "1", "resourceVersionMatch": "NotOlderThan"},
            "forbidden for watch unless sendInitialEvents is provided",
        ),
        (
            {"watch": "1", "sendInitialEvents": "true"},
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
    ],
)
def test_parameters_that_exclude_each_other(query: dict[str, str], fragment: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(**query)
    assert fragment in caught.value.message
    causes = (caught.value.details or {})["causes"]
    assert any(fragment in cause["message"] for cause in causes)


def test_several_problems_are_all_named() -> None:
    with pytest.raises(Invalid) as caught:
        parse(resourceVersionMatch="Newest", sendInitialEvents="true")
    assert len((caught.value.details or {})["causes"]) == 3
    assert 'ListOptions.meta.k8s.io "" is invalid: [' in caught.value.message


def test_a_server_without_streaming_lists_says_so() -> None:
    query = {"watch": "1", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    assert parse(**query).initial_events
    with pytest.raises(Invalid, match="WatchList feature gate"):
        parse(watch_list=False, **query)


@pytest.mark.parametrize(
    ("version", "said", "expected"),
    [("", None, True), ("0", None, True), ("5", None, False), ("5", "true", True), ("0", "false", False)],
)
def test_when_a_watch_begins_with_what_there_is(version: str, said: str | None, expected: bool) -> None:
    query = {"watch": "1", "resourceVersion": version}
    if said is not None:
        query |= {"sendInitialEvents": said, "resourceVersionMatch": "NotOlderThan"}
    assert parse(**query).initial_events is expected


def test_fields_that_can_be_selected_by() -> None:
    assert parse(PODS, fieldSelector="spec.nodeName=n,metadata.namespace!=a").field_selector
    assert parse(WIDGETS, fieldSelector="spec.color=red").field_selector.exact("spec.color") == "red"


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (CONFIG_MAPS, '"data.k" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        (PODS, "field label not supported: data.k"),
        (WIDGETS, "field label not supported: data.k"),
    ],
)
def test_fields_that_cannot(known: ResourceType, text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(known, fieldSelector="data.k=v")
    assert caught.value.message == text
