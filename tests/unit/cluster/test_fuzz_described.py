"""Requests made from the gateway's own OpenAPI document by schemathesis, valid and invalid ones, over HTTP.

Whatever is asked: no crash, no hang, no 5xx that is not a Status of ours, and nothing of the inside in an answer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.gateway_installation import Thread

from shoal.cluster.gateway import description

pytestmark = pytest.mark.slow

EXAMPLES = 25
"""For each operation and mode."""
PATIENCE_S = 30.0
OURS = frozenset({"InternalError", "ServiceUnavailable", "Timeout", "BadGateway", ""})
"""Reasons of Statuses with a code of 500 and more; a bad resource version of a watch has none, as on the wire."""
LEAKS = re.compile(
    rb"Traceback|\.py\b|site-packages| object at 0x|<class '|Exception\b|its log says why|RuntimeError|KeyError"
)
PLACES = st.sampled_from(
    [
        {"group": "apps", "version": "v1", "resource": "deployments", "namespace": "shop", "name": "web"},
        {"group": "example.com", "version": "v1", "resource": "things", "namespace": "none", "name": "x"},
        {"group": "apps", "version": "v1", "resource": "configmaps", "namespace": "shop", "name": "cm-0"},
        {"group": "apps", "version": "v1", "resource": "nodes", "namespace": "shop", "name": "web"},
        {"group": "apps", "version": "v2", "resource": "secrets", "namespace": "shop", "name": "cm-0"},
    ]
)
"""What there is, and what there is not."""
GOOD = {
    "resource": "v1/configmaps",
    "labelSelector": "app in (web,db)",
    "fieldSelector": "metadata.name!=x",
    "groupBy": "metadata.labels[app]",
    "resourceVersion": "0",
    "limit": "2",
}
SCHEMA = schemathesis.openapi.from_dict(description.describe())
OPERATIONS = {f"{one.ok().method} {one.ok().path}": one.ok() for one in SCHEMA.get_all_operations()}

PARAMETERS = sorted(
    {one["name"] for item in description.describe()["paths"].values() for one in item["get"]["parameters"]}
)


@pytest.fixture(scope="module")
def gateway():
    # A short wait: a version to come is one of the things that are asked for.
    with Thread() as thread:
        name = {"name": "shop", "labels": {"app": "web"}}
        root = f"{thread.held.source.url}/api/v1"
        requests.post(f"{root}/namespaces", json={"metadata": name}, timeout=PATIENCE_S).raise_for_status()
        made = {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}}
        path = f"{root.replace('/api/v1', '/apis/apps/v1')}/namespaces/shop/deployments"
        requests.post(path, json=made, timeout=PATIENCE_S).raise_for_status()
        for at in range(5):
            body = {"metadata": {"name": f"cm-{at}", "labels": {"app": "web"}}, "data": {"k": "v"}}
            path = f"{root}/namespaces/shop/configmaps"
            requests.post(path, json=body, timeout=PATIENCE_S).raise_for_status()
        yield thread


def check(response: requests.Response, body: bytes) -> None:
    """What every answer must be like."""
    said = f"{response.request.method} {response.request.url}: {response.status_code} {body[:500]!r}"
    assert not LEAKS.search(body), said
    if response.status_code < 400:
        return
    media = response.headers.get("Content-Type", "")
    if response.status_code == 404 and media.startswith("text/plain"):
        assert body == b"404 page not found\n", said
        return
    if response.request.url.partition("?")[0].endswith(("/healthz", "/livez", "/readyz")):
        assert response.status_code == 503, said
        return
    assert media == "application/json", said
    status = json.loads(body)
    assert (status["kind"], status["status"]) == ("Status", "Failure"), said
    assert status["code"] == response.status_code, said
    assert status["message"], said
    if response.status_code >= 500:
        assert status.get("reason", "") in OURS, said


def fetch(session: requests.Session, url: str, case: Any) -> int:
    """Sends a generated request; of a stream only the head is waited for."""
    prepared = session.prepare_request(requests.Request(**case.as_transport_kwargs(base_url=url)))
    with session.send(prepared, stream=True, timeout=PATIENCE_S, allow_redirects=False) as response:
        streams = response.status_code == 200 and "watch" in (prepared.url or "")
        check(response, b"" if streams else response.content)
        return response.status_code


def cases() -> list[tuple[str, str]]:
    """Every operation with requests that fit its description, and, where there is something to get wrong, ones that
    do not.
    """
    return [
        (name, mode)
        for name, operation in sorted(OPERATIONS.items())
        for mode in ("positive", "negative")
        if mode == "positive" or operation.query or operation.path_parameters
    ]


@pytest.mark.parametrize(("name", "mode"), cases())
def test_whatever_is_asked_is_answered(gateway, name: str, mode: str) -> None:
    generated = OPERATIONS[name].as_strategy(generation_mode=schemathesis.GenerationMode(mode))
    seen: Counter[int] = Counter()
    with requests.Session() as session:
        session.trust_env = False

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=generated, place=PLACES, kept=st.lists(st.sampled_from(PARAMETERS), max_size=3))
        def asked(case: Any, place: dict[str, str], kept: list[str]) -> None:
            if kept != []:
                # What comes out of nowhere alone is refused for the first thing that is wrong with it.
                case.path_parameters = {part: place[part] for part in case.path_parameters or ()}
                good = {key: value for key, value in GOOD.items() if key in OPERATIONS[name].query}
                odd = {key: value for key, value in (case.query or {}).items() if key in kept}
                case.query = good | odd if len(kept) > 1 else good
            seen[fetch(session, gateway.url, case)] += 1

        asked()
        alive = session.get(f"{gateway.url}/livez", timeout=PATIENCE_S)
    assert alive.text == "ok"
    assert seen.total() >= 1


THERE = {
    "/api/{version}": "/api/v1",
    "/api/{version}/{resource}": "/api/v1/configmaps",
    "/api/{version}/{resource}/{name}": "/api/v1/namespaces/shop",
    "/api/{version}/namespaces/{namespace}/{resource}": "/api/v1/namespaces/shop/configmaps",
    "/api/{version}/namespaces/{namespace}/{resource}/{name}": "/api/v1/namespaces/shop/configmaps/cm-0",
    "/apis/{group}/{version}": "/apis/apps/v1",
    "/apis/{group}/{version}/{resource}": "/apis/apps/v1/deployments",
    "/apis/{group}/{version}/namespaces/{namespace}/{resource}": "/apis/apps/v1/namespaces/shop/deployments",
    "/apis/{group}/{version}/namespaces/{namespace}/{resource}/{name}": (
        "/apis/apps/v1/namespaces/shop/deployments/web"
    ),
    "/shoal/v1/count": "/shoal/v1/count?resource=v1/configmaps&groupBy=metadata.namespace",
}
NOT_FOLLOWED = {"/apis/{group}/{version}/{resource}/{name}"}
"""Nothing that is in a group and in no namespace is followed here."""


def test_what_the_document_describes_is_there_and_fits(gateway) -> None:
    newest = requests.get(f"{gateway.held.source.url}/api/v1/namespaces", timeout=PATIENCE_S).json()
    version = newest["metadata"]["resourceVersion"]
    for path in description.describe()["paths"]:
        if path in NOT_FOLLOWED:
            continue
        place = THERE.get(path, path)
        at_least = f"?resourceVersion={version}" if "{resource}" in path else ""
        response = requests.get(f"{gateway.url}{place}{at_least}", timeout=PATIENCE_S)
        assert response.status_code == 200, (path, response.text)
        operation = SCHEMA[path]["GET"]
        operation.validate_response(response)


def test_the_document_is_the_same_for_everybody(gateway) -> None:
    response = requests.get(f"{gateway.url}{description.PATH}", timeout=PATIENCE_S)
    assert response.json() == description.describe()
    headers = {"If-None-Match": response.headers["Etag"]}
    again = requests.get(f"{gateway.url}{description.PATH}", headers=headers, timeout=PATIENCE_S)
    assert (again.status_code, again.content) == (304, b"")
