"""Requests as they stand on the wire, and what the head of an answer means."""

import json
from pathlib import Path

import pytest

from shoal.shards.api.requests import (
    ApiRequest,
    Refusal,
    document_request,
    list_request,
    meaning,
    refusal,
    retry_after,
    streaming_list_request,
    upstream_error,
    watch_request,
)
from shoal.shards.model.partitions import EVERYTHING, ExceptNamespaces, HashRange, OneNamespace, Partition
from shoal.shards.model.resources import Resource

WIRE = Path(__file__).resolve().parents[2] / "wire"
PODS = Resource("", "v1", "pods")
DEPLOYMENTS = Resource("apps", "v1", "deployments")


def recorded(name):
    return json.loads((WIRE / f"{name}.json").read_text())


def test_a_list_of_everything_is_a_consistent_read():
    assert list_request(Partition(DEPLOYMENTS)).target == "/apis/apps/v1/deployments"


def test_a_page_carries_its_limit_token_and_selectors():
    part = Partition(PODS, ExceptNamespaces(("a", "b")))
    assert list_request(part, limit=500, continue_token="eyJ2+/=").target == (
        "/api/v1/pods?fieldSelector=metadata.namespace%21%3Da%2Cmetadata.namespace%21%3Db"
        "&limit=500&continue=eyJ2%2B%2F%3D"
    )


def test_the_cover_decides_path_and_selector():
    assert list_request(Partition(PODS, OneNamespace("a"))).path == "/api/v1/namespaces/a/pods"
    assert list_request(Partition(PODS, ExceptNamespaces(()))).query == ()
    shard = list_request(Partition(PODS, HashRange("uid", 0, 1 << 63))).query
    assert shard == (
        ("shardSelector", "shardRange(object.metadata.uid, '0x0000000000000000', '0x8000000000000000')"),
    )
    for request in (watch_request(Partition(PODS, OneNamespace("a")), version=7, timeout_s=300),):
        assert request.path == "/api/v1/namespaces/a/pods"


def test_a_watch_resumes_at_a_version_and_always_asks_for_bookmarks():
    request = watch_request(Partition(PODS), version=7, timeout_s=301)
    assert (
        request.target == "/api/v1/pods?watch=1&resourceVersion=7&allowWatchBookmarks=true&timeoutSeconds=301"
    )
    assert request.stream


def test_a_streaming_list_is_the_one_a_real_server_was_asked():
    request = streaming_list_request(
        Partition(Resource("", "v1", "configmaps"), OneNamespace("alpha")), timeout_s=3
    )
    path, _, query = recorded("watchlist")["request"]["path"].partition("?")
    assert request.path == path
    assert sorted("=".join(pair) for pair in request.query) == sorted(query.split("&"))


def test_documents():
    assert document_request("/apis", etag='"1"').headers == (
        ("Accept", "application/json"),
        ("If-None-Match", '"1"'),
    )


def test_a_target_cannot_leave_its_path():
    assert ApiRequest("GET", "/api/v1/pods/a b?c#d").target == "/api/v1/pods/a%20b%3Fc%23d"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("list-full", "ok"),
        ("list-exact-expired", "expired"),
        ("list-continue-expired", "expired"),
        ("watchlist-no-match", "unsupported"),
        ("list-bad-limit", "unsupported"),
        ("crd-gone-list", "vanished"),
        ("list-unknown-resource", "vanished"),
        ("unauthorized", "unauthorized"),
        ("forbidden", "forbidden"),
        ("watch-bad-rv", "failed"),
        ("list-future-rv", "failed"),
        ("method-not-allowed", "unsupported"),
    ],
)
def test_what_the_recorded_answers_of_a_real_server_mean(name, expected):
    response = recorded(name)["response"]
    assert meaning(response["status"]) == expected
    if expected != "ok":
        body = response.get("body") or response["lines"][0]["line"]
        headers = {key.lower(): value for key, value in response["headers"].items()}
        found = refusal(response["status"], headers, body.encode())
        assert found.meaning == expected
        assert found.message
        if body.startswith("{"):
            assert found.message == json.loads(body)["message"]
            assert found.document == json.loads(body)


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_server_says_when_to_come_back(status):
    assert refusal(status, {"retry-after": "7"}, b"").meaning == "overloaded"
    assert refusal(status, {"retry-after": "7"}, b"").retry_after_s == 7.0


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "\u0661"])
def test_a_retry_after_that_is_no_number_of_seconds_is_none(text):
    assert retry_after({"retry-after": text}) is None


@pytest.mark.parametrize(
    "body", [b"", b"<html>bad gateway</html>", b"\xff\xfe", b"[]", b'{"kind":"Status"', b'{"kind":1}']
)
def test_a_refusal_with_any_body_is_readable(body):
    found = refusal(502, {}, body)
    assert (found.meaning, found.document) == ("failed", None)
    assert found.message


def test_labels_of_refusals_for_counters():
    statuses = (401, 403, 410, 429, 503, 404, 500)
    assert [Refusal(status, "").label for status in statuses] == [
        "unauthorized",
        "forbidden",
        "expired",
        "overloaded",
        "overloaded",
        "http_404",
        "http_500",
    ]


def test_an_upstream_error_says_what_was_asked_and_answered():
    refused = refusal(403, {"retry-after": "2"}, b'{"kind":"Status","message":"no","reason":"Forbidden"}')
    error = upstream_error(document_request(PODS.path("a", "b")), refused)
    assert error.message == "the API server answered GET /api/v1/namespaces/a/pods/b with 403: no"
    assert (error.http_status, error.retry_after_s) == (403, 2)
    assert error.upstream_status["reason"] == "Forbidden"


def test_everything_means_something():
    assert {meaning(status) for status in range(200, 600)} == {
        "ok", "expired", "vanished", "unsupported", "unauthorized", "forbidden", "overloaded", "failed"
    }  # fmt: skip
    assert list_request(Partition(PODS, EVERYTHING)) == list_request(Partition(PODS))
