"""Real actors, real processes killed with SIGKILL: what is promised about deaths."""

import asyncio
import os
import signal

import psutil
import pytest
from support.installation import process_of, until

from shoal.cluster.cli.server import Server
from shoal.shards.api.client import HttpConnection, PlainCredentials, fetch
from shoal.shards.api.requests import JSON, ApiRequest
from shoal.shards.model.errors import ShoalError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PODS, DEPLOYMENTS = "/api/v1/pods", "/apis/apps/v1/deployments"
WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}


async def uids(server, path):
    document = await server.fetch_json(path)
    return {item["metadata"]["uid"] for item in document["items"]}


async def send(url, method, path, document=None):
    import msgspec

    connection = HttpConnection(PlainCredentials(url))
    try:
        body = b"" if document is None else msgspec.json.encode(document)
        headers = (("Accept", JSON), ("Content-Type", JSON))
        await fetch(connection, ApiRequest(method, path, headers=headers, body=body))
    finally:
        await connection.aclose()


async def test_what_is_served_equals_the_api_server(running):
    comparison = await running.comparison()
    assert comparison.differences == []
    assert comparison.objects > 300


async def test_a_killed_shard_is_replaced_and_never_answers_less(running):
    async with Server(running.shoal) as server:
        expected = await uids(server, PODS)
        victim = await running.shard_of("v1/pods")
        before = (await running.status()).report.statistics()[victim]
        others = [
            partition.partition
            for shard, statistics in (await running.status()).report.statistics().items()
            if shard != victim
            for partition in statistics.partitions
        ]
        os.kill(before.pid, signal.SIGKILL)
        refused = 0

        async def replaced():
            nonlocal refused
            try:
                assert await uids(server, PODS) == expected  # an answer is complete, or there is none
            except ShoalError as error:
                assert "ServiceUnavailable" in str(error), error
                refused += 1
            statistics = (await running.status()).report.statistics().get(victim)
            return (
                statistics is not None
                and statistics.incarnation != before.incarnation
                and len(statistics.partitions) == len(before.partitions)
            )

        await until("the shard is back with its partitions", replaced)
        await until("everything is synced again", running.ready)
        assert refused > 0, "while nobody held the pods, lists of them were refused"
        assert await uids(server, PODS) == expected
        after = (await running.status()).report.statistics()
        still = [
            partition.partition for shard in after if shard != victim for partition in after[shard].partitions
        ]
        assert sorted(still) == sorted(others), "the other shards' partitions were left alone"
        assert await running.equal()


async def test_queries_go_on_while_the_coordinator_is_dead_and_it_learns_the_truth_from_the_shards(running):
    async with Server(running.shoal) as server:
        expected = await uids(server, DEPLOYMENTS)
        before = await running.status()
        holders = {shard: statistics.incarnation for shard, statistics in before.report.statistics().items()}
        coordinator = process_of("CoordinatorActor")
        coordinator.kill()
        coordinator.wait()
        assert await uids(server, DEPLOYMENTS) == expected
        await send(running.source, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", WIDGETS)
        try:

            async def follows_widgets():
                return any(kind.kind == "Widget" for kind in await server.resource_types())

            await until("the new resource is followed", follows_widgets)
            await until("everything is synced", running.ready)
            after = await running.status()
            assert after.report.epoch > before.report.epoch
            assert {
                shard: statistics.incarnation for shard, statistics in after.report.statistics().items()
            } == holders, "no shard was restarted"
            lists = {
                partition.partition: sum(partition.lists.values())
                for statistics in after.report.statistics().values()
                for partition in statistics.partitions
            }
            assert lists["v1/pods"] == 1, "what was held was not listed again"
        finally:
            await send(
                running.source,
                "DELETE",
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com",
            )

        async def dropped():
            return all(kind.kind != "Widget" for kind in await server.resource_types())

        await until("the deleted resource is followed no more", dropped)


async def test_after_the_coordinator_and_all_shards_died_together_gateways_take_the_new_routes(running):
    """Nobody was left to tell the epoch: the new coordinator used it again, and gateways kept their old table."""
    async with Server(running.shoal) as server:
        expected = await uids(server, PODS)
        before = await running.status()
        victims = [process_of("CoordinatorActor")]
        victims += [psutil.Process(shard.pid) for shard in before.report.statistics().values()]
        for victim in victims:
            victim.kill()

        async def new_routes():
            report = (await running.status()).report
            return report.epoch > before.report.epoch and len(report.statistics()) == len(victims) - 1

        await until("the gateway has routes of the new coordinator", new_routes)
        await until("everything is synced again", running.ready)
        assert await uids(server, PODS) == expected
        assert await running.equal()


async def test_a_killed_gateway_comes_back_on_its_port(running):
    async with Server(running.shoal) as server:
        expected = await uids(server, PODS)
        gateway = process_of("GatewayActor")
        gateway.kill()
        gateway.wait()

        async def answers():
            return await uids(server, PODS) == expected

        await until("the gateway answers again", answers)


async def test_health_is_answered_while_a_shards_loop_is_busy(installation):
    import time

    import ray

    from shoal.shards.actor import HEALTH_GROUP, ShardActor
    from shoal.shards.api.kubeconfig import Access
    from shoal.shards.settings import ShardSettings
    from shoal.shards.watch.permits import NoPermits

    class Busy(ShardActor):
        async def block(self, seconds):
            time.sleep(seconds)  # noqa: ASYNC251 - this is the point
            return "blocked"

    actor = ray.remote(concurrency_groups={HEALTH_GROUP: 2})(Busy).remote(
        "shard-busy", Access(paths="/nowhere", context="none"), NoPermits(), ShardSettings()
    )
    await actor.statistics.remote()
    blocked = asyncio.ensure_future(_await(actor.block.remote(5.0)))
    statistics = await asyncio.wait_for(_await(actor.statistics.remote()), 30)
    assert statistics.shard == "shard-busy"
    assert not blocked.done(), "the answer came while the loop was still blocked"
    assert await blocked == "blocked"
    ray.kill(actor)


async def _await(reference):
    return await reference
