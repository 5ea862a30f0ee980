"""The gateway's application: its pages, what it refuses, how it sends, and what happens when things break."""

import asyncio
import json

import msgspec
import pytest
from support.clock import run_virtual
from support.local_shards import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NODES,
    PODS,
    WIDGETS,
    LocalInstallation,
    made,
)

from shoal.cluster.gateway.status import InstallationStatus
from shoal.cluster.settings import GatewaySettings, LimitSettings
from shoal.shards.model.errors import NotReady, NotServed
from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def installation(**options):
    """Two shards with a few kinds; pods in two partitions."""
    built = LocalInstallation(2, **options)
    built.hold(
        PODS, [made(PODS, f"web-{n}", namespace="a", version=5) for n in range(4)], cover=OneNamespace("a")
    )
    built.hold(
        PODS,
        [made(PODS, "db-0", namespace="b", version=6)],
        cover=ExceptNamespaces(("a",)),
        shard=1,
        version=90,
    )
    built.hold(NODES, [made(NODES, "node-1")])
    built.hold(CONFIG_MAPS)
    built.hold(DEPLOYMENTS, shard=1)
    built.hold(WIDGETS, [made(WIDGETS, "w-0", namespace="a", spec={"size": 3})])
    built.excluded = (("v1/secrets", "Secrets are left out unless the settings say include or redact"),)
    built.publish()
    return built


def names(reply):
    return [item["metadata"]["name"] for item in reply.json["items"]]


# -- get and list -------------------------------------------------------------------------------------------


async def test_an_answer_says_what_it_rests_on():
    reply = await installation().ask("/api/v1/pods")
    assert names(reply) == ["web-0", "web-1", "web-2", "web-3", "db-0"]
    assert reply.json["metadata"] == {"resourceVersion": "90"}
    assert reply.headers["shoal-frontier"] == "90"
    assert reply.headers["shoal-age"] == "0.250"
    assert reply.headers["shoal-shards"] == "shard-0,shard-1"
    assert reply.headers["content-length"] == str(len(reply.body))


async def test_custom_resources_keep_their_kind_in_lists_and_their_own_order():
    reply = await installation().ask("/apis/example.com/v1/widgets")
    body = made(WIDGETS, "w-0", namespace="a", spec={"size": 3})
    assert reply.body == (
        b'{"apiVersion":"example.com/v1","items":['
        + body
        + b'],"kind":"WidgetList","metadata":{"continue":"","resourceVersion":"100"}}\n'
    )


async def test_a_cluster_scoped_object_is_got():
    reply = await installation().ask("/api/v1/nodes/node-1")
    assert reply.status == 200
    assert reply.body == made(NODES, "node-1") + b"\n"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/a/nodes",
        "/api/v1/namespaces/a/nodes/node-1",
        "/api/v1/pods/web-0",
        "/api/v1/namespaces/a/pods/web-0/status",
        "/api/v1/namespaces/a/pods/web-0/log",
        "/apis/apps/v1/nothings",
    ],
)
async def test_what_is_not_served_is_the_servers_404(path):
    reply = await installation().ask(path)
    assert reply.status == 404
    assert reply.json["reason"] == "NotFound"
    assert reply.json["message"].startswith("the server could not find the requested resource")


@pytest.mark.parametrize(
    "path",
    ["/apis/example.com/v1/gadgets", "/apis/none/v1/x", "/openapi/v2", "/openapi/v3", "/nothing", "/api/v7"],
)
async def test_pages_there_are_not_are_plain_text(path):
    reply = await installation().ask(path)
    assert reply.status == 404
    assert reply.body == b"404 page not found\n"
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"


async def test_a_resource_left_out_says_why():
    reply = await installation().ask("/api/v1/secrets")
    assert reply.status == 404
    assert "v1/secrets is not followed: Secrets are left out" in reply.json["message"]


async def test_yaml_and_indented_json_are_the_same_document():
    built = installation()
    plain = await built.ask("/api/v1/namespaces/b/pods")
    yaml = await built.ask("/api/v1/namespaces/b/pods", accept="application/yaml")
    assert yaml.headers["content-type"] == "application/yaml"
    assert yaml.body.startswith(b"apiVersion: v1\nitems:\n- metadata:\n")
    pretty = await built.ask("/api/v1/namespaces/b/pods?pretty=true")
    assert pretty.json == plain.json
    assert b'\n  "kind": "PodList"' in pretty.body


async def test_a_table_of_one_object_and_of_none():
    built = installation()
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    one = await built.ask("/api/v1/namespaces/a/pods/web-0", accept=table)
    assert one.json["kind"] == "Table"
    assert one.json["metadata"] == {"resourceVersion": "5"}
    assert [row["cells"][0] for row in one.json["rows"]] == ["web-0"]
    none = await built.ask("/api/v1/configmaps", accept=table)
    assert none.json["rows"] == []
    several = await built.ask("/api/v1/pods?includeObject=None", accept=table)
    assert [row["cells"][0] for row in several.json["rows"]] == ["web-0", "web-1", "web-2", "web-3", "db-0"]
    assert several.json["rows"][0]["object"] is None


async def test_the_metadata_of_an_object_cannot_be_asked_of_a_list():
    reply = await installation().ask(
        "/api/v1/pods", accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    )
    assert reply.status == 406


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/api/v1/namespaces/a/pods", "/api/v1/namespaces/a/pods/web-0", "/version"])
async def test_writes_are_refused(method, path):
    reply = await installation().ask(path, method=method)
    assert reply.status == 405
    assert "Shoal is read-only" in reply.json["message"]
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nothing", None),
        ("/openapi/v2", None),
        ("/api/v7", None),
        ("/apis/none.example.com", None),
        ("/apis/example.com/v1/gadgets", None),
        ("/api/v1/gadgets", "NotFound"),
        ("/apis/apps/v1/gadgets", "NotFound"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_write_to_what_is_not_there_is_not_found(method, path, reason):
    reply = await installation().ask(path, method=method)
    assert reply.status == 404
    if reason is None:
        assert reply.body == b"404 page not found\n"
    else:
        assert reply.json["reason"] == reason


@pytest.mark.parametrize("path", ["/", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/metrics"])
async def test_a_write_to_a_page_that_is_there_is_refused(path):
    assert (await installation().ask(path, method="POST")).status == 405


@pytest.mark.parametrize(
    "query",
    [
        "limit=x",
        "timeoutSeconds=x",
        "labelSelector=%zz",
        "labelSelector=a%20in",
        "fieldSelector=spec.none%3D1",
        "sendInitialEvents=true",
        "resourceVersionMatch=Exact",
        "continue=bogus",
        "watch=1",
        "watch=x&allowWatchBookmarks=true",
    ],
)
async def test_a_get_reads_no_options_of_a_list(query):
    built = installation()
    reply = await built.ask(f"/api/v1/nodes/node-1?{query}")
    assert (reply.status, reply.body) == (200, made(NODES, "node-1") + b"\n")
    assert (await built.ask(f"/api/v1/nodes/node-9?{query}")).status == 404


async def test_a_get_reads_its_version():
    reply = await installation().ask("/api/v1/nodes/node-1?limit=1&resourceVersion=x")
    assert (reply.status, reply.json["reason"]) == (400, "BadRequest")


async def test_head_has_the_head_only_and_options_says_what_is_allowed():
    built = installation()
    for path in ("/api/v1/pods", "/api/v1/nodes/node-1", "/version"):
        reply = await built.ask(path, method="HEAD")
        assert reply.status == 200
        assert reply.body == b""
    assert (await built.ask("/api/v1/nodes/node-9", method="HEAD")).status == 404
    reply = await built.ask("/api/v1/pods", method="OPTIONS")
    assert (reply.status, reply.headers["allow"]) == (200, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/api/v1/namespaces/a%20b/pods", 200),
        ("/api/v1/namespaces/%ff%fe/pods", 200),
        ("/api/v1//pods", 200),
        ("/api/v1/pods/", 200),
        ("/api/v1/pods?limit=%zz", 400),
        ("/api/v1/pods?limit=99999999999999999999", 400),
        ("/api/v1/pods?labelSelector=%00", 400),
        ("/api/v1/pods?" + "a=b&" * 300, 200),
        ("/api/v1/pods?" + "a=b&" * 10_001, 400),
        ("/api/v1/pods?&&=&limit=1&limit=x", 200),
        ("/api/v1/pods?fieldSelector=metadata.name%3D..%2F..", 200),
        ("/api/v1/pods?continue=%ff", 400),
        ("/api/v1/pods?resourceVersion=-1", 400),
        ("/api/v1/pods?resourceVersionMatch=Sometimes&resourceVersion=1", 422),
    ],
)
async def test_strange_urls_get_an_answer(target, status):
    reply = await installation().ask(target)
    assert reply.status == status
    assert reply.json["kind"] in ("PodList", "Status")


# -- discovery ----------------------------------------------------------------------------------------------


async def test_discovery_lists_what_is_followed_with_the_verbs_that_are_served():
    built = installation()
    core = await built.ask("/api", accept=AGGREGATED)
    assert core.headers["content-type"] == AGGREGATED
    (group,) = core.json["items"]
    (version,) = group["versions"]
    assert [entry["resource"] for entry in version["resources"]] == ["configmaps", "nodes", "pods"]
    assert {tuple(entry["verbs"]) for entry in version["resources"]} == {("get", "list", "watch")}
    apis = await built.ask("/apis", accept=AGGREGATED)
    assert [group["metadata"]["name"] for group in apis.json["items"]] == [
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "example.com",
    ]


async def test_unchanged_discovery_is_not_sent_again():
    built = installation()
    first = await built.ask("/apis", accept=AGGREGATED)
    again = await built.ask("/apis", accept=AGGREGATED, if_none_match=first.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    built.catalogue.remove(WIDGETS)
    built.publish()
    changed = await built.ask("/apis", accept=AGGREGATED, if_none_match=first.headers["etag"])
    assert changed.status == 200
    assert changed.headers["etag"] != first.headers["etag"]
    assert [group["metadata"]["name"] for group in changed.json["items"]] == [
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
    ]


async def test_legacy_discovery():
    built = installation()
    assert (await built.ask("/api")).json == {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:7480"}],
    }
    assert [group["name"] for group in (await built.ask("/apis")).json["groups"]] == [
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "example.com",
    ]
    assert (await built.ask("/apis/apps")).json["preferredVersion"]["version"] == "v1"
    resources = (await built.ask("/apis/apps/v1")).json["resources"]
    assert [(entry["name"], entry["verbs"]) for entry in resources] == [
        ("deployments", ["get", "list", "watch"])
    ]
    assert [entry["name"] for entry in (await built.ask("/api/v1")).json["resources"]] == [
        "configmaps",
        "nodes",
        "pods",
    ]
    assert (await built.ask("/apis/none.example.com")).status == 404
    assert "/apis/apps/v1" in (await built.ask("/")).json["paths"]


@pytest.mark.parametrize("path", ["/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"])
async def test_discovery_is_not_sent_in_a_form_that_was_not_asked_for(path):
    built = installation()
    refused = await built.ask(path, accept="text/html")
    assert (refused.status, refused.json["reason"]) == (406, "NotAcceptable")
    for accept in ("text/html,application/json", "*/*"):
        assert (await built.ask(path, accept=accept)).status == 200
    aggregated = await built.ask(path, accept=AGGREGATED)
    assert aggregated.status == (200 if path in ("/api", "/apis") else 406)
    assert (await built.ask("/apis/none.example.com", accept="text/html")).status == 404


# -- health -------------------------------------------------------------------------------------------------


async def test_before_there_are_routes_the_gateway_lives_and_is_not_ready():
    async def main():
        built = LocalInstallation()
        assert (await built.ask("/livez")).body == b"ok"
        ready = await built.ask("/readyz")
        assert ready.status == 503
        assert ready.body.decode().splitlines() == [
            "[+]ping ok",
            "[-]routes not published: the coordinator has not published routes yet",
            "readyz check failed",
        ]
        for path in ("/api/v1/pods", "/api/v1/namespaces/a/pods/x", "/version"):
            reply = await built.ask(path)
            assert reply.status == 503
            assert reply.headers["retry-after"] == "1"

    await main()


async def test_ready_once_every_followed_resource_is_synced():
    built = installation()
    assert (await built.ask("/readyz")).body == b"ok"
    verbose = await built.ask("/readyz?verbose")
    assert verbose.body.decode().splitlines() == [
        "[+]ping ok",
        "[+]routes ok",
        "[+]v1/pods ok",
        "[+]v1/nodes ok",
        "[+]v1/configmaps ok",
        "[+]apps/v1/deployments ok",
        "[+]example.com/v1/widgets ok",
        "readyz check passed",
    ]


async def test_not_ready_says_which_resources_and_why():
    built = installation()
    shard = built.shards["shard-1"]
    shard.partitions["v1/pods[!a]"].state = "pending"
    shard.partitions["v1/pods[!a]"].message = "waiting for a permit"
    del shard.partitions["apps/v1/deployments"]
    reply = await built.ask("/readyz")
    assert reply.status == 503
    lines = reply.body.decode().splitlines()
    assert (
        "[-]v1/pods not synced: 1 of 2 partitions, v1/pods[!a] on shard-1: pending, waiting for a permit"
        in lines
    )
    assert "[-]apps/v1/deployments not synced: apps/v1/deployments on shard-1: not held yet" in lines
    assert "[+]v1/nodes ok" in lines
    assert lines[-1] == "readyz check failed"
    listed = await built.ask("/api/v1/pods")
    assert listed.status == 503
    assert listed.headers["retry-after"] == "1"
    assert "not synced" in listed.json["message"]
    assert (await built.ask("/api/v1/namespaces/a/pods")).status == 200


async def test_a_refused_resource_blocks_readiness_unless_it_is_left_out():
    for overlook, status in ((False, 503), (True, 200)):
        built = installation(overlook_refused=overlook)
        built.shards["shard-0"].partitions["v1/nodes"].state = "refused"
        reply = await built.ask("/readyz")
        assert reply.status == status
        assert (await built.ask("/readyz?exclude=v1/nodes")).status == 200
    assert (await built.ask("/readyz?exclude=v1/unknown&verbose")).body.decode().splitlines()[-2] == (
        "warn: some health checks cannot be excluded: no matches for 'v1/unknown'"
    )


async def test_a_resource_that_vanished_holds_nobody_up():
    built = installation()
    built.shards["shard-0"].partitions["example.com/v1/widgets"].state = "gone"
    assert (await built.ask("/readyz")).status == 200


def test_a_silent_shard_makes_everything_it_holds_not_ready():
    async def main():
        built = installation()
        built.shards["shard-1"].silent = True
        reply = await built.ask("/readyz")
        assert reply.status == 503
        failed = [line for line in reply.body.decode().splitlines() if line.startswith("[-]")]
        assert len(failed) == 2
        assert all("shard shard-1 did not answer within 2 s" in line for line in failed)
        assert (await built.ask("/livez")).status == 200

    run_virtual(main())


# -- status -------------------------------------------------------------------------------------------------


async def test_the_status_document_reads_back_as_the_value_it_was_made_of():
    built = installation()
    built.away.add("shard-1")
    reply = await built.ask("/shoal/v1/status")
    status = msgspec.json.decode(reply.body, type=InstallationStatus)
    assert not status.ready
    assert any("apps/v1/deployments" in reason for reason in status.waiting_for)
    assert status.report.coordinator.permits.limit == 16
    assert [shard.shard for shard in status.report.shards] == ["shard-0", "shard-1"]
    assert status.report.shards[0].statistics.cpu_seconds == 1.5
    assert status.report.shards[1].statistics is None
    assert "not running" in status.report.shards[1].problem
    built.coordinator.problem = NotReady("the coordinator is being restarted")
    await asyncio.sleep(0)


def test_shards_are_asked_once_however_many_look():
    async def main():
        built = installation()
        asked = 0
        statistics = built.shards["shard-0"].statistics

        async def counted():
            nonlocal asked
            asked += 1
            await asyncio.sleep(0.1)
            return await statistics()

        built.shards["shard-0"].statistics = counted
        async with asyncio.TaskGroup() as group:
            for path in ("/readyz", "/metrics", "/shoal/v1/status", "/readyz"):
                group.create_task(built.ask(path))
        assert asked == 1
        await asyncio.sleep(0.5)
        await built.ask("/readyz")
        assert asked == 1
        built.publish()
        await built.ask("/readyz")
        assert asked == 2, "a report of older routes is not used"
        await asyncio.sleep(1.5)
        await built.ask("/readyz")
        assert asked == 3

    run_virtual(main())


def test_one_who_leaves_does_not_take_the_report_from_the_others():
    async def main():
        built = installation()
        built.shards["shard-0"].delay_s = 0.5
        first = asyncio.create_task(built.ask("/readyz"))
        second = asyncio.create_task(built.ask("/readyz"))
        await asyncio.sleep(0.1)
        first.cancel()
        assert (await second).status == 200

    run_virtual(main())


# -- long lists ---------------------------------------------------------------------------------------------


def long_installation(objects=3500, **options):
    built = LocalInstallation(2, **options)
    pods = [made(PODS, f"web-{n:05}", namespace="a") for n in range(objects)]
    built.hold(PODS, pods, cover=OneNamespace("a"))
    built.hold(PODS, [made(PODS, "db-0", namespace="b")], cover=ExceptNamespaces(("a",)), shard=1)
    built.publish()
    return built


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    ],
)
async def test_a_long_list_goes_out_in_chunks_and_is_whole(accept):
    built = long_installation(1200)
    reply = await built.ask("/api/v1/pods", accept=accept)
    assert reply.complete
    assert reply.chunks > 2
    assert "content-length" not in reply.headers
    table = "Table" in accept
    found = [row["cells"][0] for row in reply.json["rows"]] if table else names(reply)
    assert found == [*(f"web-{n:05}" for n in range(1200)), "db-0"]


def test_a_client_that_leaves_half_way_leaves_nothing_behind():
    async def main():
        built = long_installation()
        reply = await built.ask("/api/v1/pods", gone_after=1)
        assert not reply.complete
        assert [shard.open_streams for shard in built.shards.values()] == [0, 0]
        assert built.gateway.turns.taken == 0
        assert counted(built, "shoal_gateway_aborted_total", reason="client gone") == 1
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())


def test_a_client_that_leaves_while_a_version_is_waited_for_ends_the_wait():
    async def main():
        built = long_installation()
        built.shards["shard-0"].delay_s = 100.0
        asked = asyncio.create_task(built.ask("/api/v1/pods"))
        await asyncio.sleep(1)
        asked.cancel()
        await asyncio.wait([asked])
        assert len(asyncio.all_tasks()) == 1
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)

    run_virtual(main())


@pytest.mark.parametrize("accept", ["application/json", "application/yaml"])
async def test_a_list_that_cannot_be_completed_is_broken_off(accept):
    built = long_installation()
    held = built.shards["shard-0"].partitions["v1/pods[a]"]

    def dies(sent):
        if sent == 2:
            held.put(version=200)
            held.forget(before=200)
            built.shards["shard-0"].raises.append(NotServed("v1/pods[a]", 1))

    built.shards["shard-0"].on_page = dies
    built.publish(epoch=2)
    built.coordinator.publish(built.table(3))
    following = asyncio.create_task(built.routing.run())
    reply = await built.ask("/api/v1/pods", accept=accept)
    following.cancel()
    assert reply.status == 200
    assert not reply.complete
    assert counted(built, "shoal_gateway_aborted_total", reason="incomplete") == 1
    with pytest.raises(json.JSONDecodeError):
        reply.json  # noqa: B018
    assert [shard.open_streams for shard in built.shards.values()] == [0, 0]


def test_too_many_lists_at_once_are_told_to_come_back():
    async def main():
        built = long_installation(10, settings=GatewaySettings(limits=LimitSettings(lists=1)))
        built.shards["shard-0"].delay_s = 9.0
        first = asyncio.create_task(built.ask("/api/v1/pods"))
        await asyncio.sleep(0)
        second = asyncio.create_task(built.ask("/api/v1/pods"))
        await asyncio.sleep(0)
        third = asyncio.create_task(built.ask("/api/v1/pods"))
        assert (await first).status == 200
        reply = await third
        assert reply.status == 429
        assert reply.headers["retry-after"] == "1"
        assert (await second).status == 200

    run_virtual(main())


class Client:
    """One that asks over ASGI and takes so many messages, each after so many seconds, and then none."""

    def __init__(self, takes, every_s=0.0, extensions=None):
        self.takes, self.every_s = takes, every_s
        self.extensions = extensions
        self.taken = []

    async def ask(self, app, path):
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": "GET",
            "path": target,
            "query_string": query.encode(),
            "headers": (),
            "extensions": self.extensions,
        }
        await app(scope, self.receive, self.send)

    async def receive(self):
        await asyncio.Event().wait()

    async def send(self, message):
        await asyncio.sleep(self.every_s)
        if len(self.taken) == self.takes:
            await asyncio.Event().wait()
        self.taken.append(message)


def elapsed():
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    "path", ["/api/v1/pods", "/api/v1/pods?limit=3000", "/api/v1/namespaces/b/pods/db-0"]
)
@pytest.mark.parametrize("takes", [0, 1])
def test_a_client_that_takes_nothing_is_left_after_half_a_minute(path, takes):
    async def main():
        built = long_installation()
        client = Client(takes)
        await client.ask(built.gateway, path)
        assert elapsed() == pytest.approx(30.0)
        assert len(client.taken) == takes
        assert built.gateway.turns.taken == 0
        assert [shard.open_streams for shard in built.shards.values()] == [0, 0]
        assert counted(built, "shoal_gateway_aborted_total", reason="client stalled") == 1
        await asyncio.sleep(0.001)  # generators nobody reads any more end in tasks of their own
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())


def test_clients_that_take_nothing_do_not_keep_others_from_their_lists():
    async def main():
        built = long_installation(settings=GatewaySettings(limits=LimitSettings(lists=2)))
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(Client(1).ask(built.gateway, "/api/v1/pods"))
            await asyncio.sleep(1)
            assert built.gateway.turns.taken == 2
            await asyncio.sleep(25)
            assert (await built.ask("/api/v1/pods")).complete
            assert elapsed() == pytest.approx(30.0)

    run_virtual(main())


def test_a_short_list_that_nobody_takes_keeps_no_place():
    async def main():
        built = long_installation(10, settings=GatewaySettings(limits=LimitSettings(lists=1)))
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(Client(1).ask(built.gateway, "/api/v1/pods"))
            await asyncio.sleep(1)
            assert (await built.ask("/api/v1/pods")).status == 200
            assert elapsed() == pytest.approx(1.0)

    run_virtual(main())


def test_a_client_that_reads_slowly_gets_all_of_it():
    async def main():
        built = long_installation()
        client = Client(1000, every_s=29.0)
        await client.ask(built.gateway, "/api/v1/pods")
        body = b"".join(message.get("body", b"") for message in client.taken)
        assert len(json.loads(body)["items"]) == 3501
        assert not client.taken[-1].get("more_body")
        assert elapsed() > 60

    run_virtual(main())


def test_a_long_body_goes_out_in_slices_and_is_whole():
    async def main():
        built = long_installation()
        reply = await built.ask("/api/v1/pods?limit=3500")
        assert len(reply.json["items"]) == 3500
        assert reply.headers["content-length"] == str(len(reply.body))
        assert reply.chunks == -(-len(reply.body) // (256 << 10)) > 1

    run_virtual(main())


def test_the_server_says_whether_a_client_takes_anything():
    async def main():
        built = long_installation()
        aborts = []

        async def abort():
            aborts.append(elapsed())

        # Two minutes of slow reading, then none: every deadline that passes finds less unsent, but the last.
        unsent = iter((400, 300, 200, 100, 100))
        server = {"shoal.connection": {"abort": abort, "unsent": lambda: next(unsent)}}
        client = Client(0, extensions=server)
        await client.ask(built.gateway, "/api/v1/pods")
        assert aborts == [pytest.approx(120.0)]
        assert built.gateway.turns.taken == 0

    run_virtual(main())


async def test_a_bug_is_a_500_and_a_line_in_the_log(caplog):
    built = installation()

    async def broken(query):
        raise RuntimeError("boom")

    built.shards["shard-0"].get = broken
    reply = await built.ask("/api/v1/nodes/node-1")
    assert reply.status == 500
    assert reply.json["reason"] == "InternalError"
    assert "boom" not in reply.body.decode()
    assert "request failed" in caplog.text


def counted(built, name, **labels):
    return built.gateway.metrics.registry.get_sample_value(name, labels)


async def test_only_http_is_spoken():
    with pytest.raises(ValueError, match="websocket"):
        await installation().gateway({"type": "websocket"}, None, None)
