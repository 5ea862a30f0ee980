"""A shard following the embedded API server, in virtual time and without sockets."""

import asyncio
import random

import pytest
from support.asgi_connection import AsgiConnection
from support.clock import run_virtual

from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.following import FAILED_RETRY_S
from shoal.shards.handle import Assignment
from shoal.shards.local import LocalShardHandle
from shoal.shards.model.errors import Expired, NotReady, NotServed, TooLargeVersion
from shoal.shards.model.partitions import Epoch, ExceptNamespaces, OneNamespace, Partition, ShardId
from shoal.shards.model.queries import ChangesQuery, CountQuery, FeedQuery, GetQuery, OvertakeQuery, PageQuery
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.transfers import HandedOver, Taken
from shoal.shards.model.versions import Version
from shoal.shards.settings import ShardSettings, StoreSettings
from shoal.shards.shard import Shard
from shoal.shards.upkeep import EXPIRY_S
from shoal.shards.watch.permits import NoPermits

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
PARTITION = Partition(CONFIG_MAPS.resource)
ASSIGNMENT = Assignment(partition=PARTITION, resource_type=CONFIG_MAPS)


class Bench:
    """An API server and a shard."""

    def __init__(self, **store):
        self.app = build_app(SimulatorSettings(seed=1))
        self.kind = self.app.verbs.served(CONFIG_MAPS.resource)
        self.shard = Shard(
            ShardId("shard-0"),
            connection=AsgiConnection(self.app),
            permits=NoPermits(),
            settings=ShardSettings(store=StoreSettings(**store)),
            incarnation="one",
            rng=random.Random(1),
        )

    def create(self, name, namespace="default", **labels):
        self.app.verbs.create(self.kind, namespace, {"metadata": {"name": name, "labels": labels}})
        return self.app.storage.revision

    def change(self, name, **labels):
        self.app.verbs.update(
            self.kind, Key(f"default/{name}"), lambda document: document["metadata"].update(labels=labels)
        )
        return self.app.storage.revision

    async def follow(self, *assignments):
        await self.shard.adopt(assignments or [ASSIGNMENT], Epoch(1))
        await asyncio.sleep(1)

    @property
    def partition(self):
        (found,) = self.shard.statistics().partitions
        return found

    async def get(self, name, **query):
        return await self.shard.get(
            GetQuery(partition=PARTITION.id, epoch=Epoch(1), key=Key(f"default/{name}"), **query)
        )

    async def page(self, partition=PARTITION, **query):
        return await self.shard.page(PageQuery(partition=partition.id, epoch=Epoch(1), **query))


def on(bench_main, **store):
    async def main():
        bench = Bench(**store)
        try:
            return await bench_main(bench)
        finally:
            await bench.shard.stop()

    return run_virtual(main())


def test_what_is_adopted_is_followed_and_what_is_released_is_forgotten():
    async def main(bench):
        bench.create("a")
        await bench.follow()
        bench.create("b")
        await asyncio.sleep(1)
        assert (await bench.page()).keys == ["default/a", "default/b"]
        assert (await bench.get("a")).body.startswith(b'{"kind":"ConfigMap","apiVersion":"v1"')
        assert (await bench.get("none")).body is None
        await bench.shard.release([PARTITION.id], Epoch(2))
        with pytest.raises(NotServed) as caught:
            await bench.get("a")
        assert caught.value.epoch == 2
        assert bench.shard.statistics().partitions == []

    on(main)


def test_an_equal_assignment_again_lists_nothing_and_a_changed_one_does():
    async def main(bench):
        bench.create("a")
        await bench.follow()
        await bench.follow()
        assert sum(bench.partition.lists.values()) == 1
        await bench.follow(Assignment(partition=PARTITION, resource_type=CONFIG_MAPS, redact=True))
        assert sum(bench.partition.lists.values()) == 1, "counted from the adoption on"
        assert bench.partition.state == "synced"

    on(main)


def test_covers_of_one_resource_are_followed_side_by_side():
    async def main(bench):
        bench.app.verbs.create(
            bench.app.verbs.served(Resource("", "v1", "namespaces")), None, {"metadata": {"name": "hot"}}
        )
        bench.create("a")
        bench.create("b", "hot")
        carved = Partition(CONFIG_MAPS.resource, OneNamespace("hot"))
        rest = Partition(CONFIG_MAPS.resource, ExceptNamespaces(("hot",)))
        await bench.follow(
            *(Assignment(partition=part, resource_type=CONFIG_MAPS) for part in (carved, rest))
        )
        assert (await bench.page(carved)).keys == ["hot/b"]
        assert (await bench.page(rest)).keys == ["default/a"]

    on(main)


def test_before_the_first_list_nothing_is_answered():
    async def main(bench):
        await bench.shard.adopt([ASSIGNMENT], Epoch(1))
        with pytest.raises(NotReady, match="v1/configmaps is not synced yet") as caught:
            await bench.get("a")
        assert caught.value.retry_after_s == 1

    on(main)


def test_a_demanded_version_is_waited_for_and_no_longer_than_asked():
    async def main(bench):
        await bench.follow()
        loop = asyncio.get_running_loop()
        began = loop.time()
        waiting = asyncio.create_task(bench.get("late", not_older_than=bench.app.storage.revision + 1))
        await asyncio.sleep(2)
        bench.create("late")
        assert (await waiting).body is not None
        assert loop.time() - began == pytest.approx(2, abs=0.1)
        began = loop.time()
        with pytest.raises(TooLargeVersion, match=r"Too large resource version: 999, current: \d"):
            await bench.get("late", not_older_than=999)
        assert loop.time() - began == pytest.approx(3)

    on(main)


def test_who_waits_for_a_version_is_told_when_the_partition_is_released():
    async def main(bench):
        await bench.follow()
        waiting = asyncio.create_task(bench.get("a", not_older_than=999))
        await asyncio.sleep(1)
        await bench.shard.release([PARTITION.id], Epoch(2))
        with pytest.raises(NotServed):
            await waiting

    on(main)


def test_a_handle_counts_tells_changes_and_feeds():
    async def main(bench):
        handle = LocalShardHandle(bench.shard)
        common = {"partition": PARTITION.id, "epoch": Epoch(1)}
        with pytest.raises(NotServed):
            await handle.overtake(OvertakeQuery(version=Version(1), **common))
        await bench.shard.adopt([ASSIGNMENT], Epoch(1))
        for call in (
            handle.feed(FeedQuery(**common)),
            handle.changes(ChangesQuery(since=Version(1), **common)),
        ):
            with pytest.raises(NotReady):
                await anext(call)
        began = bench.create("a", app="web")
        await bench.follow()
        feed = handle.feed(FeedQuery(**common))
        first = await anext(feed)
        assert (first.frontier, first.events) == (began, [])
        changed = bench.change("a", app="db")
        batch = await anext(feed)
        assert ([event.type for event in batch.events], batch.frontier) == (["MODIFIED"], changed)
        assert await handle.overtake(OvertakeQuery(version=Version(changed + 5), **common)) == changed
        pages = [page async for page in handle.changes(ChangesQuery(since=Version(began), **common))]
        assert [change.version for page in pages for change in page.changes] == [changed]
        assert pages[0].age_s is not None
        count = await handle.count(CountQuery(group_by="metadata.labels[app]", **common))
        assert (count.groups, count.count, count.version) == ({"db": 1}, 1, changed)
        assert bench.partition.feeds == 1
        assert bench.shard.statistics().queries == {"count": 1, "changes": 2}
        await handle.release([PARTITION.id], Epoch(2))
        with pytest.raises(NotServed):
            await anext(feed)

    on(main)


def test_a_version_that_was_overtaken_is_not_waited_for():
    """What is still to come up to it is late, and told to whoever comes back later."""

    async def main(bench):
        await bench.follow()
        began = asyncio.get_running_loop().time()
        newer = Version(bench.app.storage.revision + 50)
        await bench.shard.overtake(OvertakeQuery(partition=PARTITION.id, epoch=Epoch(1), version=newer))

        async def changes(**how):
            query = ChangesQuery(partition=PARTITION.id, epoch=Epoch(1), since=newer, **how)
            return [page async for page in bench.shard.changes(query)]

        (page,) = await changes(exact=False)
        assert page.frontier < newer
        assert asyncio.get_running_loop().time() == began
        with pytest.raises(TooLargeVersion):
            await changes(exact=True)

    on(main)


def test_a_stream_shows_the_state_it_began_with():
    async def main(bench):
        for number in range(6):
            bench.create(f"a{number}")
        await bench.follow()
        stream = bench.shard.stream(PageQuery(partition=PARTITION.id, epoch=Epoch(1), limit=2))
        first = await anext(stream)
        bench.change("a5", changed="yes")
        bench.create("a9")
        await asyncio.sleep(1)
        rest = [page async for page in stream]
        assert [key for page in (first, *rest) for key in page.keys] == [f"default/a{n}" for n in range(6)]
        assert b"changed" not in b"".join(body for page in rest for body in page.bodies)
        assert {page.version for page in rest} == {first.version}

    on(main)


def test_a_failure_nobody_foresaw_shows_is_counted_and_is_over_without_a_list():
    """A reflector that ended with an exception used to leave its partition "synced" for ever."""

    async def main(bench):
        bench.create("a")
        await bench.follow()
        held = bench.shard._followed[PARTITION.id]

        def fails(chunk):
            raise OverflowError("something nobody thought of")

        held.reflector._decoder.lines = fails
        version = bench.create("b")
        await asyncio.sleep(1)
        assert bench.partition.state == "failed"
        assert "OverflowError: something nobody thought of" in bench.partition.message
        assert (await bench.page()).keys == ["default/a"], "what is held is still answered"
        await asyncio.sleep(FAILED_RETRY_S)
        assert bench.partition.state == "synced"
        assert bench.partition.frontier == version
        assert (await bench.page()).keys == ["default/a", "default/b"]
        assert bench.partition.errors["failed"] == 1
        assert sum(bench.partition.lists.values()) == 1

    on(main)


def test_an_api_server_that_was_replaced_by_an_older_one_is_noticed():
    """Its watches are silent, because they begin at versions it has not reached: nothing was ever listed again."""

    async def main(bench):
        for number in range(30):
            bench.create(f"a{number}")
        await bench.follow()
        assert bench.partition.objects == 30
        older = build_app(SimulatorSettings(seed=2))
        older.verbs.create(
            older.verbs.served(CONFIG_MAPS.resource), "default", {"metadata": {"name": "other"}}
        )
        assert older.storage.revision < bench.partition.frontier
        bench.shard._connection._app = older
        bench.app.faults.arm(Fault(kind="cut", immediate=True, count=100))
        await asyncio.sleep(60)
        assert (await bench.page()).keys == ["default/other"]
        assert bench.partition.frontier == older.storage.revision
        assert bench.partition.errors["went_back"] == 1

    on(main)


def test_history_ages_where_nothing_happens():
    """History used to age only when the next event came."""

    async def main(bench):
        await bench.follow()
        await asyncio.sleep(20)  # what comes sooner is unsettled, and kept
        for number in range(5):
            bench.create(f"a{number}")
        await asyncio.sleep(1)
        assert bench.partition.history_events == 5
        await asyncio.sleep(60 + 2 * EXPIRY_S)
        assert bench.partition.history_events == 0
        assert bench.partition.oldest_version == bench.partition.frontier

    on(main, history_s=60.0)


def test_once_the_settling_time_is_over_the_server_is_asked_where_it_is():
    async def main(bench):
        await bench.follow()
        bench.create("early")
        await asyncio.sleep(30)
        since = bench.partition.frontier
        query = OvertakeQuery(partition=PARTITION.id, epoch=Epoch(1), version=since)
        assert bench.shard._followed[PARTITION.id].store.settle_due
        await bench.shard.overtake(query)
        await asyncio.sleep(5)
        assert not bench.shard._followed[PARTITION.id].store.settle_due
        bench.create("late")
        await asyncio.sleep(1)
        newest = bench.partition.frontier
        changes = ChangesQuery(partition=PARTITION.id, epoch=Epoch(1), since=newest, exact=False)
        (page,) = [page async for page in bench.shard.changes(changes)]
        assert page.changes == []

    on(main)


def test_nothing_is_shown_any_more_by_the_leave_of_a_shard_that_has_handed_over():
    async def main(bench):
        await bench.follow()
        shard = bench.shard
        await shard.overtake(OvertakeQuery(partition=PARTITION.id, epoch=Epoch(1), version=Version(50)))
        assert await shard.hand_over([PARTITION.id, "v1/unknown"], Epoch(2)) == {
            PARTITION.id: HandedOver(Version(50), bench.partition.frontier)
        }
        with pytest.raises(NotServed):
            await shard.overtake(OvertakeQuery(partition=PARTITION.id, epoch=Epoch(2), version=Version(60)))
        assert len((await bench.page()).keys) == 0, "it answers until routes say otherwise"
        await bench.follow()
        await shard.overtake(OvertakeQuery(partition=PARTITION.id, epoch=Epoch(3), version=Version(60)))

    on(main)


def test_what_nobody_can_say_was_shown_the_api_server_is_asked():
    async def main(bench):
        await bench.follow()
        since = bench.partition.frontier
        for number in range(3):
            other = bench.app.verbs.served(Resource("", "v1", "namespaces"))
            bench.app.verbs.create(other, None, {"metadata": {"name": f"n{number}"}})
        newest = bench.app.storage.revision
        assert newest > since
        await bench.shard.take_over({PARTITION.id: Taken(None), "v1/unknown": Taken(None)})

        async def changes(version):
            query = ChangesQuery(partition=PARTITION.id, epoch=Epoch(1), since=Version(version), exact=False)
            return [page async for page in bench.shard.changes(query)]

        bench.app.faults.arm(Fault(kind="status-500", verb="list"))
        with pytest.raises(NotReady, match="not known yet"):
            await changes(since)
        with pytest.raises(Expired):
            await changes(since)
        assert (await changes(newest))[-1].changes == []

    on(main)


def test_statistics_count_what_was_asked():
    async def main(bench):
        bench.create("a")
        await bench.follow()
        await bench.get("a")
        await bench.page()
        found = bench.shard.statistics()
        assert found.queries == {"get": 1, "list": 1}
        assert (found.shard, found.incarnation, found.queries_in_progress) == ("shard-0", "one", 0)
        assert found.resident_bytes > 0
        assert bench.partition.objects == 1

    on(main)
