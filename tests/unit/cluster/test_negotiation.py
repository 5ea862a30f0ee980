"""Accept headers of real clients, and the forms the API server would choose for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shoal.cluster.serving.documents import status_body
from shoal.cluster.serving.negotiation import (
    Accepted,
    discovery_content_type,
    etag_matches,
    negotiate,
    negotiate_discovery,
    negotiate_document,
    preferred_media,
    wants_pretty,
)
from shoal.shards.model.errors import BadRequest, NotAcceptable

WIRE = Path(__file__).parents[2] / "wire"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
KUBECTL_GET = f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
METADATA_CLIENT = (
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,"
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
)
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"


@pytest.mark.parametrize("accept", [None, "", "*/*", "*", "application/*", "application/json"])
def test_json_is_what_anybody_gets(accept):
    assert negotiate(accept) == Accepted()


@pytest.mark.parametrize(
    ("accept", "media", "convert", "version"),
    [
        (KUBECTL_GET, "application/json", "Table", "v1"),
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", "application/json", "Table", "v1beta1"),
        ("application/yaml;as=Table;v=v1;g=meta.k8s.io", "application/yaml", "Table", "v1"),
        (METADATA_CLIENT, "application/json", "PartialObjectMetadataList", "v1"),
        ("application/vnd.kubernetes.protobuf,application/json", "application/json", "", "v1"),
        ("application/yaml", "application/yaml", "", "v1"),
        ("text/html,application/yaml;q=0.5,*/*;q=0.1", "application/yaml", "", "v1"),
        ("application/json;as=Table;v=v7;g=meta.k8s.io,application/json", "application/json", "", "v1"),
        ("application/json;as=Pot;v=v1;g=meta.k8s.io,application/yaml", "application/yaml", "", "v1"),
        ("nonsense,application/yaml", "application/yaml", "", "v1"),
    ],
)
def test_the_first_clause_that_can_be_served_wins(accept, media, convert, version):
    accepted = negotiate(accept)
    assert (accepted.media, accepted.convert, accepted.meta_version) == (media, convert, version)


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("application/json;q=0.4,application/yaml;q=0.9", "application/yaml"),
        ("application/json;q=0.9,application/yaml;q=0.9", "application/json"),
        ("*/*,application/yaml", "application/yaml"),
        ("application/*,application/yaml", "application/yaml"),
        ("application/json;q=no,application/yaml;q=0.1", "application/yaml"),
    ],
)
def test_quality_orders_clauses_and_wildcards_come_last(accept, media):
    assert negotiate(accept).media == media


def test_a_header_that_leaves_nothing_is_406_as_recorded():
    recorded = json.loads((WIRE / "not-acceptable.json").read_text())
    with pytest.raises(NotAcceptable) as caught:
        negotiate(recorded["request"]["headers"]["Accept"])
    assert caught.value.code == recorded["response"]["status"]
    assert status_body(caught.value).decode() == recorded["response"]["body"]


@pytest.mark.parametrize(
    "accept",
    [
        "application/vnd.kubernetes.protobuf",
        "application/vnd.kubernetes.protobuf;stream=watch",
        "application/json;stream=other",
        "application/json;as=Table;v=v1;g=example.com",
        ",",
    ],
)
def test_protobuf_and_unknown_parameters_alone_are_406(accept):
    with pytest.raises(NotAcceptable):
        negotiate(accept)


def test_a_watch_is_json_and_says_its_schema_when_asked_by_it():
    plain = negotiate("application/json", stream=True)
    named = negotiate(
        "application/vnd.kubernetes.protobuf;stream=watch,application/json;stream=watch", stream=True
    )
    assert plain.content_type == "application/json"
    assert named.content_type == "application/json;stream=watch"
    with pytest.raises(NotAcceptable):
        negotiate("application/yaml", stream=True)


def test_include_object_belongs_to_tables_and_is_checked():
    assert negotiate(TABLE).include_object == "Metadata"
    assert negotiate(TABLE, include_object="None").include_object == "None"
    assert negotiate("application/json", include_object="Whatever") == Accepted()
    with pytest.raises(BadRequest, match="Whatever"):
        negotiate(TABLE, include_object="Whatever")


def test_pretty_comes_from_the_parameter_or_the_clause():
    assert negotiate("application/json;pretty=1").pretty
    assert negotiate("application/json", pretty=True).pretty
    assert not negotiate("application/json;pretty=0").pretty


def test_metadata_of_a_list_and_of_an_object_are_different_requests():
    single = negotiate("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
    several = negotiate("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
    single.require(is_list=False)
    several.require(is_list=True)
    with pytest.raises(NotAcceptable, match="is a list"):
        single.require(is_list=True)
    with pytest.raises(NotAcceptable, match="is not a list"):
        several.require(is_list=False)
    negotiate(TABLE).require(is_list=True)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (f"{DISCOVERY.format('v2')},{DISCOVERY.format('v2beta1')},application/json", "v2"),
        (f"{DISCOVERY.format('v2beta1')},application/json", "v2beta1"),
        (f"{DISCOVERY.format('v9')},application/json", "legacy"),
        ("application/json", "legacy"),
        ("application/yaml", "legacy"),
        (None, "legacy"),
        ("*/*", "legacy"),
    ],
)
def test_discovery_is_aggregated_only_for_who_asks(accept, form):
    assert negotiate_discovery(accept) == form


def test_discovery_alone_in_an_unknown_version_is_406():
    with pytest.raises(NotAcceptable):
        negotiate_discovery(DISCOVERY.format("v9"))


def test_discovery_content_type_is_the_recorded_one():
    recorded = json.loads((WIRE / "discovery-aggregated-apis.json").read_text())
    assert discovery_content_type("v2") == recorded["response"]["headers"]["Content-Type"]
    assert discovery_content_type("legacy") == "application/json"


def test_documents_are_json_or_yaml_and_nothing_is_made_of_them():
    assert negotiate_document(None) == Accepted()
    assert negotiate_document("application/yaml", pretty=True) == Accepted(
        media="application/yaml", pretty=True
    )
    assert negotiate_document(f"{TABLE},application/yaml").media == "application/yaml"
    for refused in ("text/html", TABLE, DISCOVERY.format("v2")):
        with pytest.raises(NotAcceptable):
            negotiate_document(refused)


@pytest.mark.parametrize(
    ("parameter", "user_agent", "pretty"),
    [
        (None, None, False),
        (None, "curl/8.5.0", True),
        (None, "Wget/1.21", True),
        (None, "Mozilla/5.0 (X11)", True),
        (None, "kubectl/v1.32.4 (linux/amd64)", False),
        (None, "libcurl", False),
        ("", "curl/8.5.0", True),
        ("false", "curl/8.5.0", False),
        ("1", "kubectl", True),
        ("True", None, True),
        ("yes", None, False),
    ],
)
def test_who_gets_indented_json(parameter, user_agent, pretty):
    assert wants_pretty(parameter, user_agent) is pretty


def test_the_media_type_liked_best_is_taken():
    offered = ("application/json", "application/x+protobuf")
    assert preferred_media(None, offered) == "application/json"
    assert preferred_media("application/x+protobuf,application/json;q=0.9", offered) == offered[1]
    assert preferred_media("text/html, */*;q=0.1", offered) == "application/json"
    assert preferred_media("text/html", offered) is None


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, False),
        ("", False),
        ('"E"', True),
        ("E", True),
        ('W/"E"', True),
        ('"a", "E"', True),
        ("*", True),
        ('"F"', False),
    ],
)
def test_etags_are_compared_weakly(header, matches):
    assert etag_matches(header, '"E"') is matches
    assert etag_matches(header, "E") is matches
