"""Documents compared byte by byte with what kube-apiserver sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from shoal.cluster.serving.documents import (
    PARTIAL_LIST_TAIL,
    ListMetadata,
    encode,
    encode_object,
    indented,
    joined_items,
    list_body,
    list_head,
    list_item,
    list_items,
    list_tail,
    partial_list_head,
    partial_metadata,
    present,
    status_body,
    to_yaml,
    watch_event,
)
from shoal.cluster.serving.negotiation import Accepted
from shoal.cluster.simulator.builtin import builtin_types
from shoal.shards.model.errors import (
    Expired,
    Forbidden,
    Garbage,
    MethodNotAllowed,
    TooLargeVersion,
    Unauthorized,
)
from shoal.shards.model.resources import Resource, ResourceType

WIRE = Path(__file__).parents[2] / "wire"
CONFIG_MAP = next(known for known in builtin_types() if known.resource.name == "configmaps")
WIDGET = ResourceType(
    resource=Resource("example.com", "v1", "widgets"), kind="Widget", namespaced=True, custom=True
)


def recorded(name):
    return json.loads((WIRE / f"{name}.json").read_text())["response"]


def list_metadata(document):
    metadata = document["metadata"]
    return ListMetadata(
        metadata["resourceVersion"],
        metadata.get("continue", ""),
        metadata.get("remainingItemCount"),
        metadata.get("shardInfo", {}).get("selector", ""),
    )


@pytest.mark.parametrize(
    "name",
    [
        "list-full",
        "list-page-1",
        "list-page-2",
        "list-missing-namespace",
        "list-sharded-uid-low",
        "list-sharded-ns-low",
        "list-label-selector",
        "list-exact",
    ],
)
def test_lists_of_built_in_kinds_are_the_servers_bytes(name):
    body = recorded(name)["body"]
    document = json.loads(body)
    bodies = [encode_object(item, CONFIG_MAP) for item in document["items"]]
    assert list_body(CONFIG_MAP, list_metadata(document), bodies).decode() == body


def test_an_object_is_the_servers_bytes():
    body = recorded("get")["body"]
    assert encode_object(json.loads(body), CONFIG_MAP).decode() + "\n" == body


def test_metadata_of_an_object_and_of_a_list_are_the_servers_bytes():
    whole = recorded("get")["body"].encode()
    assert partial_metadata(whole).decode() + "\n" == recorded("get-partial-metadata")["body"]
    expected = recorded("list-partial-metadata")["body"]
    items = [encode_object(item, CONFIG_MAP) for item in json.loads(recorded("list-page-1")["body"])["items"]]
    head = partial_list_head(list_metadata(json.loads(expected)))
    assert (head + b",".join(map(partial_metadata, items)) + PARTIAL_LIST_TAIL).decode() == expected


def test_watch_events_of_both_families_are_the_servers_lines():
    for name, known in (("watch-replay", CONFIG_MAP), ("crd-deleted-while-watched", WIDGET)):
        for entry in recorded(name)["lines"]:
            event = json.loads(entry["line"])
            body = encode_object(event["object"], known)
            assert watch_event(event["type"], body).decode() == entry["line"] + "\n"


def test_metadata_of_a_custom_resource_takes_the_order_of_the_go_struct():
    rows = json.loads(recorded("crd-list-table")["body"])["rows"]
    first = json.loads(recorded("crd-deleted-while-watched")["lines"][0]["line"])["object"]
    assert partial_metadata(encode_object(first, WIDGET)) == encode(rows[0]["object"]).rstrip()


def test_a_custom_list_is_sorted_and_its_items_keep_their_kind():
    body = encode_object({"metadata": {"name": "a"}, "spec": {"b": 1, "a": 2}}, WIDGET)
    assert (
        body
        == b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"a":2,"b":1}}'
    )
    metadata = ListMetadata(7, remaining=2, continue_token="t")
    assert list_item(body, WIDGET) is body
    assert list_head(WIDGET, metadata) + body + list_tail(WIDGET, metadata) == (
        b'{"apiVersion":"example.com/v1","items":['
        + body
        + b'],"kind":"WidgetList","metadata":{"continue":"t","remainingItemCount":2,"resourceVersion":"7"}}\n'
    )


def test_a_page_is_its_items_joined_whatever_their_spelling():
    bodies = [b'{"kind":"ConfigMap","apiVersion":"v1","data":{}}', b'{"apiVersion":"v1","kind":"ConfigMap"}']
    assert joined_items(bodies, CONFIG_MAP) == b",".join(list_items(bodies, CONFIG_MAP)) == b'{"data":{}},{}'
    custom = [b'{"apiVersion":"example.com/v1"}'] * 2
    assert joined_items(custom, WIDGET) == b",".join(custom)
    assert joined_items([], WIDGET) == joined_items([], CONFIG_MAP) == b""


def test_an_item_loses_kind_and_version_however_they_are_spelled():
    assert list_item(b'{"kind":"ConfigMap","apiVersion":"v1","data":{}}', CONFIG_MAP) == b'{"data":{}}'
    odd = b'{ "apiVersion" : "v1", "data" : {"a":"b"}, "kind" : "ConfigMap" }'
    assert json.loads(list_item(odd, CONFIG_MAP)) == {"data": {"a": "b"}}
    with pytest.raises(Garbage):
        list_item(b'{"apiVersion":', CONFIG_MAP)


def test_text_is_escaped_as_go_escapes_it():
    assert (
        encode({"a": "<b> & \u2028é\x01\n"}) == b'{"a":"\\u003cb\\u003e \\u0026 \\u2028\xc3\xa9\\u0001\\n"}\n'
    )


def test_partial_metadata_of_what_has_none_is_garbage():
    for body in (b"[]", b"{}", b'{"metadata":', b'{"apiVersion":"v1","metadata":[]}'):
        with pytest.raises(Garbage):
            partial_metadata(body)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("unauthorized", Unauthorized("Unauthorized")),
        (
            "method-not-allowed",
            MethodNotAllowed("the server does not allow this method on the requested resource"),
        ),
        (
            "forbidden",
            Forbidden(
                'configmaps is forbidden: User "viewer" cannot list resource "configmaps" in API group "" '
                'in the namespace "alpha"',
                details={"kind": "configmaps"},
            ),
        ),
    ],
)
def test_status_bodies_are_the_servers_bytes(name, error):
    assert status_body(error).decode() == recorded(name)["body"]


def test_a_status_with_causes_is_the_servers_document():
    body = json.loads(recorded("list-future-rv")["body"])
    wanted, current = (int(part) for part in body["message"].split(": ", 2)[2].split(", current: "))
    assert json.loads(status_body(TooLargeVersion(wanted, current))) == body


def test_a_status_keeps_its_metadata():
    error = Expired("too old", metadata={"continue": "next"})
    assert json.loads(status_body(error))["metadata"] == {"continue": "next"}


TRICKY = {
    "yes": "y",
    "exponent": "1e3",
    "octal": "0o7",
    "sexagesimal": "1:30",
    "null": "null",
    "tilde": "~",
    "empty": "",
    "text": "two\nlines\n",
    "trailing": "space \nnext",
    "time": "2026-11-20T09:01:49Z",
    "colon": "a: b",
    "umlaut": "ü",
    "numbers": [1, 2.5, True, None],
    "long": "word " * 60,
}


def test_yaml_says_the_same_as_json_and_sorts():
    text = to_yaml(encode(TRICKY))
    assert yaml.safe_load(text) == TRICKY
    top = [line.partition(":")[0].strip("\"'") for line in text.decode().splitlines() if line[0] not in " -"]
    assert top == sorted(TRICKY)


def test_yaml_quotes_what_other_readers_would_misread():
    text = to_yaml(b'{"a":"y","b":"1e3","c":"10.0.0.1","d":"plain"}').decode()
    assert text == 'a: "y"\nb: "1e3"\nc: "10.0.0.1"\nd: plain\n'
    with pytest.raises(Garbage):
        to_yaml(b"{")


def test_present_gives_the_form_agreed_on():
    body = encode({"a": {"b": []}, "c": {}})
    assert present(body, Accepted()) is body
    assert (
        present(body, Accepted(pretty=True))
        == indented(body)
        == b'{\n  "a": {\n    "b": []\n  },\n  "c": {}\n}'
    )
    assert present(body, Accepted(media="application/yaml")) == b"a:\n  b: []\nc: {}\n"
