"""A shard that is killed and started again: what it resumes from a snapshot, when it serves it, and when it lists."""

import asyncio

import pytest
from support.resumed_shard import CONFIG_MAPS, EVERY_S, PARTITION, on

from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.handle import Assignment
from shoal.shards.model.errors import Expired, NotReady
from shoal.shards.model.partitions import (
    HASH_END,
    Epoch,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    ShardId,
)
from shoal.shards.model.queries import ChangesQuery, GetQuery
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.transfers import Source, Taken
from shoal.shards.settings import StoreSettings

NAMESPACES = Resource("", "v1", "namespaces")
MIDDLE = HASH_END // 2
COVERS = (
    OneNamespace("default"),
    ExceptNamespaces(("default",)),
    HashRange("uid", 0, MIDDLE),
    HashRange("uid", MIDDLE, HASH_END),
)


async def written(bench):
    """Follows, and waits until there is a snapshot."""
    await bench.follow()
    await asyncio.sleep(EVERY_S)
    assert bench.outcomes["written"] >= 1


def test_a_shard_that_is_killed_lists_nothing_when_it_is_started_again(tmp_path):
    async def main(bench):
        bench.fill(3000)
        await written(bench)
        for number in range(20):
            bench.change(f"object-{number:05}", app="web")
        bench.delete("object-00100")
        bench.create("new")
        await asyncio.sleep(1)
        await bench.restart()
        assert await bench.served_within(5) < 2
        assert bench.lists() == 0
        assert bench.outcomes["resumed"] == 1
        assert await bench.equals_the_server()
        bench.change("object-00001", app="db")
        bench.delete("object-00002")
        assert await bench.equals_the_server()
        assert bench.lists() == 0
        assert bench.found().watch_restarts == {}

    on(tmp_path, main)


def test_what_was_resumed_is_written_and_resumed_again(tmp_path):
    async def main(bench):
        bench.fill(50)
        await written(bench)
        for number in range(5):
            bench.change("object-00007", n=str(number))
            await bench.restart()
            await asyncio.sleep(EVERY_S)
            assert bench.lists() == 0
            assert await bench.equals_the_server()

    on(tmp_path, main)


def test_nothing_is_shown_before_it_has_caught_up(tmp_path):
    async def main(bench):
        bench.fill(10)
        await written(bench)
        shown = bench.change("object-00003", app="web")
        await asyncio.sleep(0.5)
        assert (await bench.versions())[0] >= shown
        await bench.shard.stop()
        bench.app.faults.arm(Fault(kind="slow", verb="watch", resource="configmaps", seconds=7.0))
        await bench.restart()
        refused = 0
        for _ in range(60):
            try:
                version, served = await bench.versions()
            except NotReady as error:
                refused += 1
                assert "not synced yet" in error.message
                assert bench.found().state == "pending"
                assert bench.found().message
            else:
                assert version >= shown
                assert '"app":"web"' in served["default/object-00003"]
            await asyncio.sleep(0.2)
        assert refused > 0
        assert bench.found().state == "synced"
        assert bench.lists() == 0

    on(tmp_path, main)


def test_an_idle_partition_proves_that_nothing_is_missing(tmp_path):
    async def main(bench):
        bench.fill(10)
        await written(bench)
        bench.app.storage.advance(bench.app.storage.revision + 500)
        await bench.restart()
        assert await bench.served_within(5) < 3
        assert (await bench.versions())[0] == bench.app.storage.revision
        assert bench.lists() == 0

    on(tmp_path, main)


def test_a_watch_of_an_undivided_resource_goes_on_where_it_was(tmp_path):
    async def main(bench):
        bench.fill(10)
        await written(bench)
        since = bench.change("object-00001", app="web")
        await asyncio.sleep(1)
        bench.change("object-00002", app="web")
        bench.delete("object-00003")
        await bench.restart()
        await bench.served_within(5)
        query = ChangesQuery(partition=PARTITION.id, epoch=Epoch(2), since=since)
        changes = [change async for page in bench.shard.changes(query) for change in page.changes]
        assert [(change.type, change.key) for change in changes] == [
            ("MODIFIED", "default/object-00002"),
            ("DELETED", "default/object-00003"),
        ]

    on(tmp_path, main)


def test_a_watch_over_several_partitions_lists_again_because_nobody_knows_what_was_late(tmp_path):
    async def main(bench):
        bench.fill(10)
        await written(bench)
        since = bench.change("object-00001", app="web")
        bench.app.storage.advance(bench.app.storage.revision + 5)
        await bench.restart()
        await bench.served_within(5)
        for version, answered in ((since, False), (bench.found().frontier, True)):
            query = ChangesQuery(partition=PARTITION.id, epoch=Epoch(2), since=version, exact=False)
            if answered:
                # What came soon after is repeated: others may have let it be shown before it was here.
                (page,) = [page async for page in bench.shard.changes(query)]
                assert [change.key for change in page.changes] == ["default/object-00001"]
            else:
                with pytest.raises(Expired):
                    [page async for page in bench.shard.changes(query)]

    on(tmp_path, main)


def test_another_shard_that_served_it_meanwhile_makes_watches_begin_anew(tmp_path):
    async def main(bench):
        bench.fill(10)
        await written(bench)
        since = bench.change("object-00001", app="web")
        await asyncio.sleep(1)
        await bench.restart()
        await bench.shard.take_over({PARTITION.id: Taken(None)})
        await bench.served_within(5)
        await bench.shard.take_over({PARTITION.id: Taken(None)})
        bench.app.storage.advance(bench.app.storage.revision + 5)
        # It may have been divided in between, so that there were late events nobody here has heard of.
        with pytest.raises(Expired):
            query = ChangesQuery(partition=PARTITION.id, epoch=Epoch(2), since=since)
            [page async for page in bench.shard.changes(query)]

    on(tmp_path, main)


def test_a_snapshot_the_server_has_forgotten_is_replaced_by_a_list_as_a_difference(tmp_path):
    async def main(bench):
        bench.fill(30)
        await written(bench)
        await bench.shard.stop()
        for number in range(10):
            bench.change(f"object-{number:05}", app="web")
        bench.app.storage.compact()
        await bench.restart()
        await bench.served_within(10)
        assert bench.lists() == 1
        assert bench.found().events["modified"] == 10, "what is equal was not touched"
        assert await bench.equals_the_server()

    on(tmp_path, main)


def test_a_server_that_was_restored_from_a_backup_is_listed(tmp_path):
    async def main(bench):
        bench.fill(10)
        await asyncio.sleep(1)
        at = bench.app.storage.revision
        for number in range(5):
            bench.change(f"object-{number:05}", app="web")
        await written(bench)
        await bench.shard.stop()
        bench.app.storage.restart(revision=at)
        await bench.restart()
        await bench.served_within(10)
        assert bench.found().errors["went_back"] == 1
        assert bench.lists() == 1
        assert await bench.equals_the_server()

    on(tmp_path, main)


def test_a_snapshot_of_another_cluster_is_not_used(tmp_path):
    async def first(bench):
        bench.fill(10)
        await written(bench)

    async def second(bench):
        bench.fill(20)
        await bench.follow()
        await bench.served_within(10)
        assert bench.outcomes["foreign"] == 1
        assert "resumed" not in bench.outcomes
        assert bench.lists() == 1
        assert await bench.equals_the_server()

    on(tmp_path, first)
    on(tmp_path, second, server=SimulatorSettings(seed=2))


@pytest.mark.parametrize(
    "changed",
    [
        {"redact": True},
        {
            "resource_type": ResourceType(
                resource=CONFIG_MAPS.resource,
                kind="ConfigMap",
                namespaced=True,
                selectable_fields=("data.k",),
            )
        },
    ],
)
def test_a_snapshot_of_another_form_is_not_used(tmp_path, changed):
    async def main(bench):
        bench.fill(10, data={"k": "v"})
        await written(bench)
        assignment = {"partition": PARTITION, "resource_type": CONFIG_MAPS, **changed}
        await bench.restart(Assignment(**assignment))
        await bench.served_within(10)
        assert bench.outcomes["other_form"] == 1
        assert bench.lists() == 1

    on(tmp_path, main)


def test_an_old_snapshot_is_not_used_and_a_clock_that_was_set_back_does_no_harm(tmp_path):
    async def main(bench):
        bench.fill(10)
        await written(bench)
        bench.jump_s = -7200.0
        await bench.restart()
        await bench.served_within(10)
        assert bench.outcomes["resumed"] == 1
        assert bench.lists() == 0
        bench.jump_s = 7200.0
        await bench.restart()
        await bench.served_within(10)
        assert bench.outcomes["old"] == 1
        assert bench.lists() == 1

    on(tmp_path, main)


def test_an_api_server_that_is_away_is_waited_for(tmp_path):
    async def main(bench):
        bench.fill(10)
        await written(bench)
        await bench.shard.stop()
        bench.app.faults.arm(Fault(kind="drop", count=None))
        await bench.restart()
        await asyncio.sleep(120)
        with pytest.raises(NotReady):
            await bench.versions()
        bench.app.faults.disarm()
        assert await bench.served_within(60) < 40
        assert bench.lists() == 0

    on(tmp_path, main)


def test_without_an_identity_there_are_no_snapshots(tmp_path, caplog):
    async def main(bench):
        namespaces = bench.app.verbs.collection(bench.app.verbs.served(NAMESPACES))
        del namespaces.objects[Key("kube-system")]
        bench.fill(10)
        await bench.follow()
        await bench.served_within(10)
        await asyncio.sleep(3 * EVERY_S)
        assert bench.outcomes.keys() == {"unknown_server"}
        assert list(tmp_path.iterdir()) == []

    on(tmp_path, main)
    assert any("kube-system" in str(getattr(record, "why", "")) for record in caplog.records)


# -- covers ---------------------------------------------------------------------------------------------------


def test_a_part_is_resumed_from_a_snapshot_of_the_whole(tmp_path):
    async def main(bench):
        bench.fill(10)
        bench.create("other", "kube-system")
        await written(bench)
        parts = [Partition(CONFIG_MAPS.resource, cover) for cover in COVERS]
        await bench.restart(*(Assignment(partition=part, resource_type=CONFIG_MAPS) for part in parts))
        for part in parts:
            await bench.served_within(10, part)
            assert await bench.equals_the_server(part)
        assert bench.lists() == 0
        assert bench.outcomes["resumed"] == len(parts)

    on(tmp_path, main, server=SimulatorSettings(seed=1, shard_selector=True))


def test_the_whole_is_not_resumed_from_a_part(tmp_path):
    async def main(bench):
        bench.fill(10)
        part = Partition(CONFIG_MAPS.resource, OneNamespace("default"))
        await bench.follow(Assignment(partition=part, resource_type=CONFIG_MAPS))
        await asyncio.sleep(EVERY_S)
        assert bench.outcomes["written"] == 1
        await bench.restart()
        await bench.served_within(10)
        assert bench.outcomes == {"none": 1}
        assert bench.lists() == 1

    on(tmp_path, main)


def test_what_is_received_from_another_shard_needs_no_snapshot(tmp_path):
    async def main(bench):
        bench.fill(10)
        await written(bench)
        await bench.restart()
        await bench.served_within(10)
        part = Partition(CONFIG_MAPS.resource, OneNamespace("default"))
        sources = {part.id: (Source(ShardId("shard-0"), PARTITION.id),)}
        await bench.shard.adopt([Assignment(partition=part, resource_type=CONFIG_MAPS)], Epoch(9), sources)
        await bench.served_within(10, part)
        assert bench.outcomes["resumed"] == 1
        assert bench.found(part.id).source_shards == ("shard-0",)

    on(tmp_path, main)


def test_a_released_partition_is_given_up_while_it_is_read(tmp_path):
    async def main(bench):
        bench.fill(10)
        await written(bench)
        await bench.shard.stop()
        bench.app.faults.arm(Fault(kind="drop", count=None))
        await bench.restart()
        await asyncio.sleep(5)
        assert bench.found().state == "pending"
        await bench.shard.release([PARTITION.id], Epoch(5))
        assert bench.shard.statistics().partitions == []
        await bench.follow()
        assert bench.found().state == "pending"
        bench.app.faults.disarm()
        await bench.served_within(60)
        assert bench.lists() == 0

    on(tmp_path, main)


async def get(bench, name):
    return await bench.shard.get(GetQuery(partition=PARTITION.id, epoch=Epoch(9), key=Key(f"default/{name}")))


def test_bodies_are_the_same_to_the_byte_with_dictionaries_of_their_own(tmp_path):
    async def main(bench):
        bench.fill(400, data={"script": "#!/bin/sh\nset -e\nexec /usr/bin/env python3 main.py\n" * 8})
        await written(bench)
        before = {name: (await get(bench, name)).body for name in ("object-00000", "object-00399")}
        await bench.restart()
        await bench.served_within(10)
        assert {name: (await get(bench, name)).body for name in before} == before
        assert bench.found().body_bytes < 400 * 300, "packed with a dictionary"
        bench.create("another", data={"script": "#!/bin/sh\nset -e\nexec /usr/bin/env python3 main.py\n" * 8})
        assert await bench.equals_the_server()

    on(tmp_path, main, store=StoreSettings(dictionary_samples=100))
