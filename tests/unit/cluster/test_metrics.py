"""One scrape for everything: the gateway's own instruments, every shard's, the coordinator's."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.clock import run_virtual
from support.local_shards import NODES, PODS, LocalInstallation, made

from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace


def installation():
    built = LocalInstallation(2)
    built.hold(PODS, [made(PODS, "web-0", namespace="a")], cover=OneNamespace("a"), version=100)
    built.hold(PODS, cover=ExceptNamespaces(("a",)), shard=1, version=90)
    built.hold(NODES, [made(NODES, "node-1")])
    built.publish()
    return built


async def scraped(built, **headers):
    reply = await built.ask("/metrics", **headers)
    assert reply.status == 200
    families = list(text_string_to_metric_families(reply.body.decode()))
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    return lambda name, **labels: samples[name, tuple(sorted(labels.items()))], reply, families


async def test_every_metric_that_is_promised_is_there():
    value, reply, families = await scraped(installation())
    assert reply.headers["content-type"].startswith("text/plain")
    where = {"resource": "v1/pods", "partition": "v1/pods[a]", "shard": "shard-0"}
    assert value("shoal_objects", **where) == 1
    assert value("shoal_body_bytes", **where) > 100
    assert value("shoal_events_total", **where, type="added") == 3
    assert value("shoal_lists_total", **where, form="stream") == 1
    assert value("shoal_watch_restarts_total", **where, reason="timeout") == 2
    assert value("shoal_errors_total", **where, kind="garbage") == 1
    assert value("shoal_frontier_proofs_total", **where, outcome="proved") == 4
    assert value("shoal_frontier_proofs_unasked_total", **where) == 0
    assert value("shoal_feeds", **where) == 2
    assert value("shoal_feeds_cut_off_total", **where) == 1
    assert value("shoal_late_events", **where) == 5
    assert value("shoal_audits_total", outcome="equal", **where) == 6
    assert value("shoal_divergence_total", kind="missing", **where) == 1
    assert value("shoal_audited_objects_total", **where) == 60
    assert value("shoal_audited_age_seconds", **where) == 12
    assert value("shoal_frontier", **where) == 100
    assert value("shoal_frontier_age_seconds", **where) == 0.25
    assert value("shoal_frontier_lag", **where) == 0
    behind = {"resource": "v1/pods", "partition": "v1/pods[!a]", "shard": "shard-1"}
    assert value("shoal_frontier_lag", **behind) == 10
    assert value("shoal_backlog", **where) == 0
    assert value("shoal_partition_state", **where, state="synced") == 1
    assert value("shoal_partition_state", **where, state="refused") == 0
    assert value("shoal_dropped_total", **where) == 0
    assert value("shoal_permits_limit") == 16
    assert value("shoal_permits_held") == 1
    assert value("shoal_permits_waiting") == 2
    assert value("shoal_shard_up", shard="shard-0") == 1
    assert value("shoal_shard_cpu_seconds_total", shard="shard-0") == 1.5
    assert value("shoal_shard_resident_bytes", shard="shard-0") == 1000
    assert value("shoal_snapshots_total", shard="shard-0", outcome="written") == 7
    assert value("shoal_coordinator_up") == 1
    assert value("shoal_routes_epoch") == 1
    assert value("shoal_partitions") == 3
    assert all(family.documentation for family in families)


async def test_the_gateway_counts_what_it_answers():
    built = installation()
    for target in ("/api/v1/pods", "/api/v1/nodes/node-1", "/api/v1/nodes/node-9", "/api/v1/none", "/xyz"):
        await built.ask(target)
    value, _, _ = await scraped(built)
    total = "shoal_gateway_requests_total"
    assert value(total, verb="list", resource="v1/pods", code="200") == 1
    assert value(total, verb="get", resource="v1/nodes", code="200") == 1
    assert value(total, verb="get", resource="v1/nodes", code="404") == 1
    # Nothing a client makes up becomes a label.
    assert value(total, verb="list", resource="", code="404") == 1
    assert value(total, verb="other", resource="", code="404") == 1
    assert value("shoal_query_seconds_count", verb="get") == 2
    assert value("shoal_gateway_response_bytes_total", verb="list") > 100
    assert value("shoal_gateway_requests_in_progress") == 1, "the scrape itself"


async def test_query_seconds_are_the_time_the_client_waited():
    built = installation()
    built.shards["shard-0"].delay_s = 0.02
    await built.ask("/api/v1/nodes/node-1")
    value, _, _ = await scraped(built)
    assert value("shoal_query_seconds_sum", verb="get") >= 0.02


def test_who_does_not_answer_is_down_and_the_others_are_there():
    async def main():
        built = installation()
        built.shards["shard-1"].silent = True
        built.coordinator.problem = NotReady("restarting")
        value, _, families = await scraped(built)
        assert value("shoal_shard_up", shard="shard-0") == 1
        assert value("shoal_shard_up", shard="shard-1") == 0
        assert value("shoal_coordinator_up") == 0
        assert value("shoal_objects", resource="v1/nodes", partition="v1/nodes", shard="shard-0") == 1
        assert not any(family.name == "shoal_permits_limit" for family in families)

    run_virtual(main())


async def test_a_partition_that_moved_leaves_no_series_behind():
    built = installation()
    await scraped(built)
    built.move(2, to=1)
    built.publish()
    value, _, families = await scraped(built)
    objects = next(family for family in families if family.name == "shoal_objects")
    assert [
        sample.labels["shard"] for sample in objects.samples if sample.labels["resource"] == "v1/nodes"
    ] == ["shard-1"]
    assert value("shoal_routes_epoch") == 2


async def test_two_gateways_in_a_process_count_apart():
    one, other = installation(), installation()
    await one.ask("/version")
    value, _, _ = await scraped(other)
    name = "shoal_gateway_requests_total"
    assert one.gateway.metrics.registry.get_sample_value(
        name, {"verb": "version", "resource": "", "code": "200"}
    )
    assert (
        other.gateway.metrics.registry.get_sample_value(
            name, {"verb": "version", "resource": "", "code": "200"}
        )
        is None
    )
    assert value("shoal_info", version="0.1.0") == 1


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
async def test_no_series_says_when_another_was_made(accept):
    built = installation()
    await built.ask("/api/v1/pods")
    reply = await built.ask("/metrics", accept=accept)
    assert b"shoal_query_seconds_count" in reply.body
    assert b"shoal_gateway_requests_total" in reply.body
    assert b"_created" not in reply.body


async def test_open_metrics_are_served_to_who_asks():
    reply = await installation().ask("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert reply.body.endswith(b"# EOF\n")
