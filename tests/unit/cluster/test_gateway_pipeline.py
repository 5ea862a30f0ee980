"""The way of a request through the gateway: protection, who asks, whether they may, and who answers."""

import asyncio
import contextlib
import gzip
import io
import json
import os
import re

import msgspec
import pytest
from rich.console import Console
from support.clock import run_virtual
from support.local_shards import NODES, PODS, LocalInstallation, ask, made

from shoal.cluster.cli.status import overview
from shoal.cluster.gateway.authentication import Caller
from shoal.cluster.gateway.http import text_answer
from shoal.cluster.gateway.server import serve
from shoal.cluster.gateway.status import GatewayReport, InstallationStatus
from shoal.cluster.serving.identity import forbidden
from shoal.cluster.settings import GatewaySettings, LimitSettings
from shoal.shards.model.errors import NotReady, Unauthorized
from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace


class Door:
    """Knows users by token."""

    asks = True

    def __init__(self, *users):
        self.users = users
        self.closed = False
        self.problem = None

    def is_open(self, path):
        return path == "/livez"

    def knows(self, request):
        return True

    async def authenticate(self, request, certificate=None):
        if self.problem:
            raise self.problem
        name = request.headers.get("authorization", "").removeprefix("Bearer ")
        if name not in self.users:
            raise Unauthorized("Unauthorized")
        return Caller(name, credential="token")

    async def aclose(self):
        self.closed = True


class Rules:
    """Allows what is listed."""

    def __init__(self, *allowed):
        self.allowed = allowed
        self.asked = []

    async def require(self, user, attributes):
        self.asked.append(attributes)
        if (user.name, attributes.verb, attributes.combined or attributes.path) not in self.allowed:
            raise forbidden(user, attributes)

    async def revoked(self, user, attributes):
        await asyncio.Event().wait()

    async def aclose(self):
        pass


def installation(**options):
    built = LocalInstallation(2, **options)
    built.hold(
        PODS,
        [made(PODS, f"web-{n}", namespace="a", labels={"app": "web"}) for n in range(3)],
        cover=OneNamespace("a"),
    )
    built.hold(
        PODS,
        [made(PODS, "db-0", namespace="b")],
        cover=ExceptNamespaces(("a",)),
        shard=1,
        version=90,
    )
    built.hold(NODES, [made(NODES, "node-1")])
    built.publish()
    return built


def guarded(*allowed, **options):
    return installation(authenticator=Door("ada"), authorization=Rules(*allowed), **options)


def counted(built, name, **labels):
    return built.gateway.metrics.registry.get_sample_value(name, labels)


# -- who asks, and whether they may -------------------------------------------------------------------------


async def test_who_is_not_known_learns_nothing():
    built = guarded()
    for path in ("/api/v1/pods", "/nothing", "/metrics", "/version", "/shoal/v1/status", "/apis"):
        reply = await built.ask(path, authorization="Bearer nobody")
        assert (reply.status, reply.json["reason"]) == (401, "Unauthorized")
    assert counted(built, "shoal_gateway_authentications_total", result="unauthorized") == 6
    assert built.gateway.protection.requests == 0


async def test_who_may_not_read_does_not_learn_whether_there_is_anything():
    built = guarded()
    for path in ("/api/v1/namespaces/a/pods", "/api/v1/namespaces/a/gadgets"):
        reply = await built.ask(path, authorization="Bearer ada")
        assert (reply.status, reply.json["reason"]) == (403, "Forbidden")
    reply = await built.ask("/api/v1/namespaces/a/pods/web-0", authorization="Bearer ada")
    assert reply.json["message"] == (
        'pods "web-0" is forbidden: User "ada" cannot get resource "pods" in API group "" in the namespace "a"'
    )
    reply = await built.ask("/metrics", authorization="Bearer ada")
    assert reply.json["message"] == 'forbidden: User "ada" cannot get path "/metrics"'
    assert counted(built, "shoal_gateway_authorizations_total", decision="forbidden") == 4


async def test_who_may_is_answered():
    built = guarded(("ada", "list", "pods"), ("ada", "get", "/metrics"))
    for path in ("/api/v1/pods", "/metrics"):
        assert (await built.ask(path, authorization="Bearer ada")).status == 200
    assert counted(built, "shoal_gateway_authorizations_total", decision="allowed") == 2
    assert counted(built, "shoal_gateway_authentications_total", result="token") == 2


async def test_a_watch_takes_its_own_permission():
    built = guarded(("ada", "list", "pods"))
    reply = await built.ask("/api/v1/pods?watch=1", authorization="Bearer ada")
    assert reply.status == 403
    assert "cannot watch resource" in reply.json["message"]


async def test_health_is_open_to_everybody():
    built = guarded()
    for path in ("/livez", "/healthz", "/readyz"):
        assert (await built.ask(path)).status == 200
    assert built.gateway._authorization.asked == []


async def test_an_api_server_that_cannot_be_asked_is_503_and_nobody_gets_in():
    built = guarded(("ada", "list", "pods"))
    built.gateway._authenticator.problem = NotReady("the API server is away", retry_after_s=1)
    reply = await built.ask("/api/v1/pods", authorization="Bearer ada")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert counted(built, "shoal_gateway_authentications_total", result="failed") == 1


async def test_what_is_passed_in_is_closed():
    built = guarded()
    await built.gateway.aclose()
    assert built.gateway._authenticator.closed


# -- counts -------------------------------------------------------------------------------------------------


async def test_a_count_of_everything_and_by_groups():
    built = installation()
    reply = await built.ask("/shoal/v1/count?resource=v1/pods&groupBy=metadata.namespace")
    assert reply.json == {
        "resource": "v1/pods",
        "count": 4,
        "groups": {"a": 3, "b": 1},
        "resourceVersion": "90",
        "ageSeconds": 0.25,
        "shards": ["shard-0", "shard-1"],
    }
    assert reply.headers["shoal-frontier"] == "90"
    assert reply.headers["shoal-shards"] == "shard-0,shard-1"
    selected = await built.ask("/shoal/v1/count?resource=v1/pods&labelSelector=app%3Dweb&namespace=a")
    assert (selected.json["count"], selected.json["namespace"]) == (3, "a")
    assert "groups" not in selected.json
    assert counted(built, "shoal_gateway_requests_total", verb="count", resource="v1/pods", code="200") == 2


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 400, "parameter resource"),
        ("resource=pods", 400, "parameter resource"),
        ("resource=v1/pods&limit=1", 400, "a count has no parameter limit"),
        ("resource=v1/pods&labelSelector=a%20in", 400, ""),
        ("resource=v1/pods&fieldSelector=spec.none%3D1", 400, "field label not supported"),
        ("resource=v1/nodes&namespace=a", 400, "is not in namespaces"),
        ("resource=v1/gadgets", 404, "could not find"),
        ("resource=v1/pods&shoalPartial=maybe", 400, "shoalPartial"),
    ],
)
async def test_a_count_that_cannot_be_made_says_why(query, status, said):
    reply = await installation().ask(f"/shoal/v1/count?{query}")
    assert reply.status == status
    assert said in reply.json["message"]


async def test_a_count_takes_the_permission_to_list():
    built = guarded(("ada", "list", "pods"))
    allowed = await built.ask("/shoal/v1/count?resource=v1/pods&namespace=a", authorization="Bearer ada")
    assert allowed.status == 200
    attributes = built.gateway._authorization.asked[-1]
    assert (attributes.verb, attributes.resource, attributes.namespace) == ("list", "pods", "a")
    refused = await built.ask("/shoal/v1/count?resource=v1/nodes", authorization="Bearer ada")
    assert (refused.status, refused.json["reason"]) == (403, "Forbidden")


# -- less than everything -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/api/v1/pods", "/api/v1/pods?limit=10", "/shoal/v1/count?resource=v1/pods"]
)
async def test_a_missing_shard_is_503_unless_less_will_do(path):
    built = installation()
    built.away.add("shard-1")
    whole = await built.ask(path)
    assert (whole.status, whole.headers["retry-after"]) == (503, "1")
    parameter = f"{path}{'&' if '?' in path else '?'}shoalPartial=true"
    for reply in (await built.ask(path, shoal_partial="allow"), await built.ask(parameter)):
        assert reply.status == 200
        assert reply.headers["shoal-partial"] == "missing shard-1 (v1/pods[!a])"
        assert reply.headers["shoal-shards"] == "shard-0"
        assert reply.headers["shoal-frontier"] == "100"
        assert (len(reply.json["items"]) if "items" in reply.json else reply.json["count"]) == 3
    verb = "count" if "count" in path else "list"
    assert counted(built, "shoal_gateway_partial_answers_total", verb=verb) == 2


async def test_a_whole_answer_says_nothing_of_parts():
    reply = await installation().ask("/api/v1/pods", shoal_partial="allow")
    assert "shoal-partial" not in reply.headers


async def test_another_word_there_is_refused():
    reply = await installation().ask("/api/v1/pods", shoal_partial="yes")
    assert reply.status == 400
    assert "the one value there is is allow" in reply.json["message"]


# -- overload -----------------------------------------------------------------------------------------------


def test_under_overload_health_and_metrics_are_answered_and_nothing_else():
    async def main():
        built = installation(settings=GatewaySettings(limits=LimitSettings(requests=1)))
        built.shards["shard-0"].delay_s = 5.0
        busy = asyncio.create_task(built.ask("/api/v1/pods"))
        await asyncio.sleep(1)
        for path in ("/api/v1/pods", "/version", "/apis", "/nothing"):
            reply = await built.ask(path)
            assert (reply.status, reply.headers["retry-after"]) == (429, "1")
            assert reply.json["reason"] == "TooManyRequests"
        built.shards["shard-0"].delay_s = 0.0
        for path in ("/livez", "/healthz", "/readyz", "/metrics"):
            assert (await built.ask(path)).status == 200
        assert (await busy).status == 200
        assert counted(built, "shoal_gateway_refused_total", limit="requests") == 4
        assert (await built.ask("/api/v1/pods")).status == 200

    run_virtual(main())


def test_one_user_is_not_all():
    async def main():
        limits = LimitSettings(requests_per_user=1)
        built = installation(
            authenticator=Door("ada", "bob"),
            authorization=Rules(("ada", "list", "pods"), ("bob", "list", "pods")),
            settings=GatewaySettings(limits=limits),
        )
        built.shards["shard-0"].delay_s = 5.0
        busy = asyncio.create_task(built.ask("/api/v1/pods", authorization="Bearer ada"))
        await asyncio.sleep(1)
        assert (await built.ask("/api/v1/pods", authorization="Bearer ada")).status == 429
        assert (await built.ask("/api/v1/pods", authorization="Bearer bob")).status == 200
        assert (await busy).status == 200
        assert built.gateway.protection.users == 0

    run_virtual(main())


async def test_on_too_many_connections_only_health_is_answered():
    settings = GatewaySettings(limits=LimitSettings(connections=1))
    built = installation(settings=settings)
    server = await serve(built.gateway, "127.0.0.1", 0, settings)
    async with contextlib.AsyncExitStack() as stack:
        answers = []

        async def asking(path):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            return reader

        async def asked(path):
            reader = await asking(path)
            head = await reader.readuntil(b"\r\n\r\n")
            answers.append(head.split()[1])
            assert (b"connection: close" in head) is (answers[-1] == b"429")

        built.shards["shard-0"].delay_s = 60.0
        await asking("/api/v1/pods")  # a connection in use, which gives way to nobody
        while not built.gateway.protection.requests:
            await asyncio.sleep(0)
        await asked("/api/v1/pods")
        # Those that were answered on are idle, and give way.
        for path in ("/livez", "/metrics", "/livez"):
            await asked(path)
        assert answers == [b"429", b"200", b"200", b"200"]
    assert counted(built, "shoal_gateway_refused_total", limit="connections") == 1
    await server.stop()
    await built.gateway.aclose()


def test_who_is_not_known_yet_takes_no_place_from_who_is():
    class Waiting(Door):
        def knows(self, request):
            return "ada" in request.headers.get("authorization", "")

        async def authenticate(self, request, certificate=None):
            if not self.knows(request):
                await asyncio.sleep(5)
            return await super().authenticate(request, certificate)

    async def main():
        built = installation(
            authenticator=Waiting("ada"),
            authorization=Rules(("ada", "list", "pods")),
            settings=GatewaySettings(limits=LimitSettings(requests=2, unidentified=3)),
        )
        guard = built.gateway.protection
        unknown = [
            asyncio.create_task(built.ask("/api/v1/pods", authorization=f"Bearer {n}")) for n in range(5)
        ]
        await asyncio.sleep(1)
        assert (guard.unidentified, guard.requests) == (3, 0)
        assert (await built.ask("/api/v1/pods", authorization="Bearer ada")).status == 200
        assert sorted([(await task).status for task in unknown]) == [401, 401, 401, 429, 429]
        assert (guard.unidentified, guard.requests) == (0, 0)
        assert counted(built, "shoal_gateway_refused_total", limit="unidentified") == 2

    run_virtual(main())


async def test_with_authentication_any_host_name_will_do():
    built = guarded(("ada", "list", "pods"))
    reply = await built.ask("/api/v1/pods", host="shoal.example", authorization="Bearer ada")
    assert reply.status == 200


# -- writes -------------------------------------------------------------------------------------------------


class Passing:
    """In place of a `Forwarder`: answers by itself."""

    def __init__(self):
        self.asked = []

    def takes(self, request, path):
        return request.method in ("POST", "DELETE") or getattr(path, "subresource", None) is not None

    async def forward(self, asked):
        self.asked.append((asked.request.method, asked.request.path, asked.user.name))
        asked.exchange.resource = str(asked.path.identity)
        await asked.exchange.send(text_answer("x" * 200_000))


async def test_writes_and_subresources_are_passed_on_whatever_is_followed_and_the_api_server_decides():
    forwarder = Passing()
    built = installation(authenticator=Door("ada"), authorization=Rules(), forwarder=forwarder)
    for method, path in (
        ("POST", "/api/v1/namespaces/a/pods"),
        ("DELETE", "/apis/none/v1/gadgets/x"),
        ("GET", "/api/v1/namespaces/a/pods/web-0/log"),
    ):
        reply = await built.ask(path, method=method, authorization="Bearer ada", accept_encoding="gzip")
        assert reply.status == 200
        assert "content-encoding" not in reply.headers
        assert forwarder.asked[-1] == (method, path, "ada")
    assert built.gateway._authorization.asked == []
    assert built.gateway.protection.watches == 0
    counter = "shoal_gateway_requests_total"
    assert counted(built, counter, verb="forward", resource="v1/pods", code="200") == 2
    assert counted(built, counter, verb="forward", resource="", code="200") == 1
    assert (await built.ask("/api/v1/pods", method="POST")).status == 401


async def test_discovery_lists_the_verbs_that_are_answered():
    for forwarder, verbs in ((None, {"get", "list", "watch"}), (Passing(), set(PODS.verbs))):
        built = installation(forwarder=forwarder)
        resources = (await built.ask("/api/v1")).json["resources"]
        pods = next(entry for entry in resources if entry["name"] == "pods")
        assert set(pods["verbs"]) == verbs
        reply = await built.ask("/api/v1/pods", method="OPTIONS")
        assert ("POST" in reply.headers["allow"]) is (forwarder is not None)


# -- gzip, OpenAPI ------------------------------------------------------------------------------------------


class Documents:
    """In place of an `OpenApiMirror`."""

    def __init__(self):
        self.closed = False

    async def answer(self, request):
        return text_answer(f"document {request.path}")

    async def aclose(self):
        self.closed = True


async def test_openapi_is_answered_by_the_mirror_and_is_not_there_without_one():
    documents = Documents()
    built = installation(openapi=documents)
    reply = await built.ask("/openapi/v3/apis/apps/v1")
    assert reply.body == b"document /openapi/v3/apis/apps/v1"
    assert counted(built, "shoal_gateway_requests_total", verb="openapi", resource="", code="200") == 1
    await built.gateway.aclose()
    assert documents.closed
    assert (await installation().ask("/openapi/v2")).status == 404


async def test_long_answers_are_sent_in_gzip_to_who_takes_it():
    built = LocalInstallation(1)
    built.hold(PODS, [made(PODS, f"web-{n}", namespace="a") for n in range(1500)])
    built.publish()
    plain = await built.ask("/api/v1/pods")
    for path in ("/api/v1/pods", "/api/v1/pods?limit=1500"):
        reply = await built.ask(path, accept_encoding="gzip")
        assert reply.headers["content-encoding"] == "gzip"
        assert json.loads(gzip.decompress(reply.body))["items"] == plain.json["items"]
    assert (
        "content-encoding" not in (await built.ask("/api/v1/pods?limit=10", accept_encoding="gzip")).headers
    )


async def test_made_up_names_make_no_time_series():
    built = installation()
    for path in ("/api/v1/x1", "/apis/g1/v1/x2", "/x3", "/shoal/v1/count?resource=v1/x4", "/x5/y"):
        await ask(built.gateway, path)
        await ask(built.gateway, path, method="POST")
    text = (await built.ask("/metrics")).body.decode()
    assert set(re.findall(r'resource="([^"]*)"', text)) == {"", "v1/pods", "v1/nodes"}


async def test_the_status_names_every_gateway():
    alone = (await installation().ask("/shoal/v1/status")).json["report"]["gateways"]
    assert [(gateway["gateway"], gateway["pid"], gateway["requests"]) for gateway in alone] == [
        ("", os.getpid(), 1)
    ]

    async def peers():
        return (GatewayReport(gateway="gateway-0", pid=7), GatewayReport(gateway="gateway-1", problem="away"))

    reply = await installation(peers=peers).ask("/shoal/v1/status")
    status = msgspec.json.decode(reply.body, type=InstallationStatus)
    assert status.report.gateways == await peers()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(overview(status))
    assert "gateway-1" in console.export_text()


async def test_the_status_warns_of_what_audits_have_found():
    reply = await installation().ask("/shoal/v1/status")
    status = msgspec.json.decode(reply.body, type=InstallationStatus)
    assert any(one.partitions for one in status.report.statistics().values())
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(overview(status))
    found = "v1/pods[a] on shard-0 was not as the API server has it: 1 object (1 missing)"
    expected = f"{found}; each time it was listed again"
    assert expected in console.export_text()
