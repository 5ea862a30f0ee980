"""What never leaves: tokens in any page, error or log; Secrets, unless the settings let them, and then as they say."""

import asyncio
import base64
import itertools
import json
import logging

import pytest
from support.apiserver import in_virtual_time
from support.guarded import ROOT, Guarded, bearer

from shoal.cluster.gateway.settings import AuthenticationSettings
from shoal.cluster.settings import GatewaySettings
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.settings import User
from shoal.coordinator.settings import FollowSettings
from shoal.shards.api.requests import ApiRequest

PLANTED = "planted-5ecret-t0ken"
VALUE = "the-5ecret-value"
ENCODED = base64.b64encode(VALUE.encode()).decode()
MOLE = User(name="mole", token=PLANTED, groups=("system:masters",))
FORWARDING = GatewaySettings(authentication=AuthenticationSettings(tokens=True), writes="forward")
PAGES = ("/metrics", "/shoal/v1/status", "/version", "/api", "/apis", "/readyz?verbose", "/", "/nothing")
PODS = "/api/v1/namespaces/default/pods"
SECRETS = "/api/v1/namespaces/default/secrets"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


async def collected(connection, request):
    """Everything of an answer, its headers included."""
    async with connection.open(request) as response:
        return repr(response.headers) + (await response.read()).decode()


def test_no_token_is_in_any_page_error_or_log(caplog):
    shown = []

    async def main():
        guarded = Guarded(MOLE, settings=FORWARDING)
        async with guarded.running(follow=("pods",)):
            given = (
                *bearer(PLANTED).items(),
                ("Accept", "application/json"),
                ("Content-Type", "application/json"),
            )

            async def ask(method, path, *headers, body=b""):
                bare, _, query = path.partition("?")
                pairs = ((query, ""),) if query else ()
                asked = ApiRequest(method, bare, pairs, (*given, *headers), body)
                shown.append(await collected(guarded.gateway.connection, asked))

            for trouble in (None, "status-500", "status-429", "drop", "slow"):
                await asyncio.sleep(60)
                for path in (PODS, f"{PODS}/absent", *PAGES):
                    if trouble is not None:
                        guarded.source.faults.arm(Fault(kind=trouble, seconds=20.0, resource="pods"))
                        guarded.source.faults.arm(
                            Fault(kind=trouble, seconds=20.0, resource="tokenreviews.authentication.k8s.io")
                        )
                    await ask("GET", path)
                    await ask(
                        "GET", path, ("Impersonate-User", PLANTED[::-1]), ("Authorization", "Bearer again")
                    )
                    await ask("POST", path, body=b"{")
            guarded.source.access.forget(PLANTED)
            await asyncio.sleep(60)
            for path in (PODS, *PAGES):
                await ask("GET", path)

    with caplog.at_level(logging.DEBUG):
        in_virtual_time(main())
    assert len(shown) > 150
    assert {'"code":401' in one for one in shown} == {True, False}
    assert PLANTED not in "".join(shown)
    assert PLANTED not in caplog.text
    assert not [record for record in caplog.records if PLANTED in repr(record.__dict__)]


async def plant(guarded):
    applied = json.dumps({"data": {"password": ENCODED}})
    document = {
        "metadata": {
            "name": "planted",
            "labels": {"a": "b"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied},
        },
        "data": {"password": ENCODED},
        "type": "Opaque",
    }
    await guarded.root("POST", SECRETS, document)
    document["data"]["later"] = ENCODED
    del document["metadata"]["annotations"]
    await guarded.root("PUT", f"{SECRETS}/planted", document)


@pytest.mark.parametrize("rule", ["exclude", "redact", "include"])
def test_secrets_are_seen_as_the_settings_say(rule, caplog):
    shown = {}

    async def main():
        guarded = Guarded()
        follow = FollowSettings(include=("configmaps", "secrets"), secrets=rule)
        async with guarded.running(follow=follow):
            before = (await guarded.root("GET", SECRETS))["metadata"]["resourceVersion"]
            await plant(guarded)
            await asyncio.sleep(10)
            gateway = guarded.gateway.connection
            paths = (SECRETS, f"{SECRETS}/planted", "/api/v1/secrets", "/api/v1", "/api", "/shoal/v1/status")
            accepts = ("application/json", TABLE, METADATA, "application/yaml")
            queries = ((), (("watch", "1"), ("timeoutSeconds", "1")), (("includeObject", "Object"),))
            queries += ((("watch", "1"), ("timeoutSeconds", "1"), ("resourceVersion", before)),)
            for path, accept, query in itertools.product(paths, accepts, queries):
                headers = (*bearer(ROOT.token).items(), ("Accept", accept))
                request = ApiRequest("GET", path, query, headers)
                shown[path, accept, query[-1:]] = await collected(gateway, request)
            shown["history"] = shown[SECRETS, "application/json", (("resourceVersion", before),)]

    with caplog.at_level(logging.DEBUG):
        in_virtual_time(main())
    assert ('"type":"ADDED"' in shown["history"] and '"type":"MODIFIED"' in shown["history"]) is (
        rule != "exclude"
    )
    everything = "".join(shown.values()) + caplog.text
    assert VALUE not in everything
    assert (ENCODED in everything) is (rule == "include")
    listed = shown[SECRETS, "application/json", ()]
    table = shown[SECRETS, TABLE, (("includeObject", "Object"),)]
    match rule:
        case "exclude":
            assert "Secrets are left out unless follow.secrets says include or redact" in listed
            assert "planted" not in everything
        case "redact":
            for answer in (listed, table):
                assert '"later":""' in answer
                assert '"password":""' in answer
        case "include":
            for answer in (listed, table):
                assert f'"password":"{ENCODED}"' in answer
