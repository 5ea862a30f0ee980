"""Malformed and impossible requests that a real kube-apiserver was recorded with: the gateway answers them the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from support.gateway_installation import running
from yarl import URL

WIRE = Path(__file__).parents[2] / "wire"
SAME_WORDS = (
    "list-bad-field-selector",
    "list-bad-limit",
    "list-bad-rv",
    "list-sharded-bad",
    "list-unknown-resource",
    "not-acceptable",
    "watch-bad-rv",
    "watch-sharded-bad",
    "watchlist-no-match",
    "get-missing",
)
"""Those whose message is in the server's own words, to the letter."""
OWN_WORDS = (
    "list-bad-continue",
    "list-bad-label-selector",
    "list-sharded-garbage",
    "method-not-allowed",
    "watch-sharded-garbage",
)
"""Those that explain in words of ours what cannot be read; status and shape are the same."""
NO_STATUS = ("crd-gone-list", "list-unknown-group")
COVERED_ELSEWHERE = (
    *("anonymous", "forbidden", "unauthorized"),  # who may read
    *("list-continue-expired", "list-exact-expired", "list-future-rv"),  # what is forgotten or to come
    *("healthz", "livez", "readyz"),  # of the recorded server's own state
    *("create-conflict", "create-invalid", "create-not-an-object", "update-conflict"),  # writes
)


def recorded(name: str) -> dict[str, Any]:
    return json.loads((WIRE / f"{name}.json").read_text())


def body_of(response: dict[str, Any]) -> str:
    return response["body"] if "body" in response else response["lines"][0]["line"]


def test_every_recorded_refusal_is_looked_at() -> None:
    refused = {
        path.stem for path in WIRE.glob("*.json") if json.loads(path.read_text())["response"]["status"] >= 400
    }
    assert refused == {*SAME_WORDS, *OWN_WORDS, *NO_STATUS, *COVERED_ELSEWHERE}


@pytest.fixture
async def gateway():
    async with running() as installation, aiohttp.ClientSession() as client:
        root = f"{installation.source.url}/api/v1/namespaces"
        for name in ("alpha", "beta"):
            async with client.post(root, json={"metadata": {"name": name}}) as made:
                assert made.status == 201
        yield installation.url, client


async def replayed(gateway: Any, name: str) -> tuple[aiohttp.ClientResponse, str, dict[str, Any]]:
    url, client = gateway
    request, response = (recorded(name)[part] for part in ("request", "response"))
    path, mark, query = request["path"].partition("?")
    target = URL(f"{url}{path}{mark}{quote(query, safe='=&%,!()')}", encoded=True)
    headers = {"Accept": request["headers"]["Accept"]}
    body = request.get("body")
    async with client.request(request["method"], target, headers=headers, json=body) as answer:
        return answer, await answer.text(), response


async def test_refusals_are_the_recorded_ones(gateway) -> None:
    for name in (*SAME_WORDS, *OWN_WORDS):
        answer, text, response = await replayed(gateway, name)
        assert answer.status == response["status"], (name, text)
        ours, theirs = json.loads(text), json.loads(body_of(response))
        assert list(ours) == list(theirs), name
        if name in OWN_WORDS:
            assert ours.pop("message"), name
            theirs.pop("message")
        assert ours == theirs, name
        for header in ("Content-Type", "Cache-Control", "X-Content-Type-Options"):
            assert answer.headers.get(header) == response["headers"].get(header), (name, header)
    for name in NO_STATUS:
        answer, text, response = await replayed(gateway, name)
        assert (answer.status, text) == (response["status"], response["body"]), name


async def test_what_is_odd_and_not_refused_is_answered(gateway) -> None:
    answer, text, response = await replayed(gateway, "list-negative-limit")
    assert answer.status == response["status"] == 200
    assert list(json.loads(text)) == list(json.loads(response["body"]))
    assert "continue" not in json.loads(text)["metadata"]
