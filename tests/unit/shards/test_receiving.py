"""Partitions come from other shards with their past, and are followed without a list."""

from __future__ import annotations

import asyncio

import pytest
from support.moving import WHOLE, A, B, Bad, Bench, on, part

from shoal.cluster.simulator.faults import Fault
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace
from shoal.shards.settings import StoreSettings

HOT = part(OneNamespace("hot"))
REST = part(ExceptNamespaces(("hot",)))
PIECE_S, RECEIVE_S = 10.0, 120.0


def now() -> float:
    return asyncio.get_running_loop().time()


# -- what comes ----------------------------------------------------------------------------------------------


def test_a_partition_comes_with_its_past_and_is_followed_without_a_list() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        began = bench.revision
        bench.change("map-007", color="red")
        changed = bench.change("map-007", color="blue")
        gone = bench.delete("map-008")
        await asyncio.sleep(1)
        held = await bench.receive(B, WHOLE, (A, WHOLE))
        before = bench.statistics(A)
        assert (held.state, held.frontier, held.objects) == ("synced", before.frontier, 99)
        assert (held.audit, held.body_bytes) == (before.audit, before.body_bytes)
        assert (held.oldest_version, held.history_events) == (before.oldest_version, before.history_events)
        assert (held.source_shards, held.transferred_objects) == ((A,), 99)
        assert held.transferred_bytes > 4 * 65536, "in several pieces"
        assert held.lists == {}
        later = bench.change("map-009", color="green")
        await asyncio.sleep(1)
        assert bench.statistics(B).frontier == later
        assert await bench.changes(B, began) == await bench.changes(A, began)
        assert [at for _, at in await bench.changes(B, changed)] == [gone, later]
        assert await bench.keys(B, at=began) == await bench.keys(A, at=began), (
            "a list at an old version goes on"
        )
        bench.sound((B, WHOLE))
        assert bench.lists == 1

    on(main)


def test_what_happens_while_it_comes_is_told_by_the_watch() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bench.bad[A] = Bad(bench.shard(A), "is slow", pieces=3)
        held = await bench.receive(B, WHOLE, (A, WHOLE))
        assert held.state == "arriving"
        assert 0 < held.transferred_objects < 100
        assert held.message == f"is received from shard-a: {held.transferred_objects} of 100 objects"
        with pytest.raises(NotReady, match=r"not here yet: it is received from shard-a: \d+ of 100 objects"):
            await bench.keys(B)
        while bench.statistics(B).state == "arriving":
            bench.create(f"new-{bench.revision}", "hot")
            bench.change("map-001", seen=str(bench.revision))
            await asyncio.sleep(1)
        await asyncio.sleep(1)
        assert bench.statistics(B).frontier == bench.revision
        bench.sound((A, WHOLE), (B, WHOLE))
        assert bench.statistics(B).audit == bench.statistics(A).audit
        assert bench.lists == 1

    on(main)


def test_the_past_is_as_old_as_it_was() -> None:
    """Its events leave history when they would have left it."""

    async def main(bench: Bench) -> None:
        await bench.filled()
        await asyncio.sleep(20)
        bench.change("map-001", color="red")
        bench.change("map-002", color="red")
        await asyncio.sleep(70)
        bench.bad[A] = Bad(bench.shard(A), "is slow")
        await bench.receive(B, WHOLE, (A, WHOLE), wait_s=50)
        assert bench.statistics(B).history_events == 2
        await asyncio.sleep(95)
        assert (bench.statistics(A).history_events, bench.statistics(B).history_events) == (0, 0)

    on(main, store=StoreSettings(history_s=180.0))


def test_a_part_of_it_comes_to_another_shard_and_the_rest_stays() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        since = bench.revision
        versions = [bench.create("a", "hot"), bench.create("b"), bench.change("a", "hot", color="red")]
        await asyncio.sleep(1)
        hot = await bench.receive(B, HOT, (A, WHOLE))
        rest = await bench.receive(A, REST, (A, WHOLE))
        assert (hot.state, hot.objects, hot.source_shards) == ("synced", 1, (A,))
        assert (rest.state, rest.objects, rest.source_shards) == ("synced", 101, (A,))
        assert hot.transferred_bytes < 20_000, "what is not wanted is not sent"
        assert rest.transferred_bytes == 0, "what is here is taken by reference"
        assert await bench.changes(B, since, HOT) == [("hot/a", versions[0]), ("hot/a", versions[2])]
        assert await bench.changes(A, since, REST) == [("default/b", versions[1])]
        bench.create("c", "hot")
        bench.create("d")
        await asyncio.sleep(1)
        bench.sound((B, HOT), (A, REST), (A, WHOLE))
        assert hot.audit ^ rest.audit != 0
        assert bench.statistics(B, HOT).audit ^ bench.statistics(A, REST).audit == bench.statistics(A).audit
        assert bench.lists == 1

    on(main)


def test_two_partitions_become_one_without_a_list() -> None:
    async def main(bench: Bench) -> None:
        for number in range(20):
            bench.create(f"map-{number}", "hot" if number % 2 else "default")
        await bench.follow(A, HOT)
        await bench.follow(B, REST)
        bench.create("late", "hot")
        bench.create("idle-for-longer")
        await asyncio.sleep(1)
        bench.create("only-hot-moves", "hot")
        await asyncio.sleep(1)
        held = await bench.receive(B, WHOLE, (A, HOT), (B, REST), wait_s=4)
        assert (held.state, held.objects, held.source_shards) == ("synced", 23, (A, B))
        assert bench.statistics(A, HOT).audit ^ bench.statistics(B, REST).audit == held.audit
        bench.create("after")
        bench.create("after", "hot")
        await asyncio.sleep(1)
        bench.sound((B, WHOLE))
        assert bench.lists == 2

    on(main)


def test_events_that_come_between_two_captures_are_neither_lost_nor_doubled() -> None:
    async def main(bench: Bench) -> None:
        for number in range(60):
            bench.create(f"map-{number}", "hot" if number % 2 else "default", kilobytes=4)
        await bench.follow(A, HOT)
        await bench.follow(B, REST)
        bench.bad[A] = Bad(bench.shard(A), "is slow")
        churn = asyncio.create_task(bench.churned())
        held = await bench.receive(B, WHOLE, (A, HOT), (B, REST), wait_s=0)
        while held.state == "arriving":
            await asyncio.sleep(0.5)
            held = bench.statistics(B)
        assert held.state == "synced", held.message
        await asyncio.sleep(5)
        churn.cancel()
        await asyncio.sleep(1)
        bench.sound((B, WHOLE), (A, HOT), (B, REST))
        assert bench.lists == 2

    on(main)


def test_a_server_that_has_forgotten_the_version_is_listed_as_always() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bench.bad[A] = Bad(bench.shard(A), "is slow")
        await bench.receive(B, WHOLE, (A, WHOLE), wait_s=0.5)
        bench.create("missed")
        bench.app.faults.arm(Fault(kind="compact"))
        bench.create("also")
        await asyncio.sleep(60)
        held = bench.statistics(B)
        assert (held.state, held.objects, held.lists) == ("synced", 102, {"stream": 1})
        bench.sound((B, WHOLE))

    on(main)


def test_several_wait_for_their_turn() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bench.create("a", "hot")
        await asyncio.sleep(1)
        bench.bad[A] = Bad(bench.shard(A), "is slow")
        await bench.receive(B, REST, (A, WHOLE))
        held = await bench.receive(B, HOT, (A, WHOLE))
        assert held.state == "arriving"
        assert held.message == "waits until other partitions have been received, then comes from shard-a"
        await asyncio.sleep(60)
        assert [bench.statistics(B, one).state for one in (REST, HOT)] == ["synced", "synced"]

    on(main, receptions_max=1)
