"""Partitions that do not come from other shards, or are not wanted any more: it shows, and nothing is left of them."""

from __future__ import annotations

import asyncio

import pytest
from support.moving import CONFIG_MAPS, WHOLE, A, B, Bad, Bench, on, part

from shoal.shards.handle import Assignment
from shoal.shards.model.errors import NotReady, NotServed
from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace
from shoal.shards.model.transfers import Source

HOT = part(OneNamespace("hot"))
REST = part(ExceptNamespaces(("hot",)))
PIECE_S, RECEIVE_S = 10.0, 120.0


def now() -> float:
    return asyncio.get_running_loop().time()


# -- what does not come --------------------------------------------------------------------------------------


async def stranded(bench: Bench, *, within_s: float) -> str:
    """Why the partition is stranded, having made sure that nothing is left of it."""
    began = now()
    while (held := bench.statistics(B)).state == "arriving":
        assert now() - began <= within_s
        await asyncio.sleep(0.25)
    assert held.state == "stranded"
    assert (held.objects, held.body_bytes) == (0, 0)
    with pytest.raises(NotReady, match="v1/configmaps could not be received: ") as caught:
        await bench.keys(B)
    assert held.message in str(caught.value)
    assert bench.lists == 1
    return held.message


@pytest.mark.parametrize(
    ("how", "within_s", "why"),
    [
        ("stalls", PIECE_S + 1, "v1/configmaps from shard-a: nothing came for 10 s"),
        ("dies", 1, "v1/configmaps from shard-a: the connection to shard shard-a is lost: it died"),
        ("ends early", 1, "cut off after 1 frames"),
        ("garbles", 1, "frame 1: it is damaged"),
    ],
)
def test_a_source_that_fails_leaves_the_partition_stranded(how: str, within_s: float, why: str) -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bad = bench.bad[A] = Bad(bench.shard(A), how)
        await bench.receive(B, WHOLE, (A, WHOLE), wait_s=0)
        assert why in await stranded(bench, within_s=within_s)
        assert bad.closed == 1, "the source keeps nothing for it"
        await asyncio.sleep(300)
        assert bad.sent <= 2, "it is not tried again unasked"
        del bench.bad[A]
        held = await bench.receive(B, WHOLE, (A, WHOLE))
        assert (held.state, held.objects) == ("synced", 100)
        bench.sound((B, WHOLE))
        assert bench.lists == 1

    on(main)


def test_a_source_that_is_too_slow_in_all_is_given_up() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bench.bad[A] = Bad(bench.shard(A), "is slow")
        await bench.receive(B, WHOLE, (A, WHOLE), wait_s=0)
        assert await stranded(bench, within_s=7) == "it was not complete within 6 s"

    on(main, receive_timeout_s=6.0)


def test_a_source_that_is_away_or_does_not_hold_it_is_named() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A)
        bench.away.add(A)
        await bench.receive(B, WHOLE, (A, WHOLE), wait_s=0)
        assert await stranded(bench, within_s=1) == "v1/configmaps from shard-a: shard shard-a is not running"
        bench.away.clear()
        await bench.release(A, WHOLE)
        await bench.receive(B, WHOLE, (A, WHOLE), wait_s=0)
        assert "v1/configmaps from shard-a: partition v1/configmaps is not served here" in await stranded(
            bench, within_s=1
        )
        await bench.receive(A, WHOLE, (B, WHOLE))
        assert "could not be received" in bench.statistics(A).message

    on(main)


def test_sources_that_are_not_enough_are_refused() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(A, HOT)
        await bench.receive(B, WHOLE, (A, HOT), wait_s=0)
        assert "is not all of v1/configmaps" in await stranded(bench, within_s=1)

    on(main)


def test_a_source_that_lets_go_in_between_is_noticed() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bench.bad[A] = Bad(bench.shard(A), "is slow")
        await bench.receive(B, WHOLE, (A, WHOLE), wait_s=0.5)
        await bench.release(A, WHOLE)
        assert "was let go of while it was sent" in await stranded(bench, within_s=5)

    on(main)


def test_a_source_that_has_not_heard_of_a_new_field_is_not_taken() -> None:
    """The values of fields travel in the order of the fields: another order would be other values."""

    async def main(bench: Bench) -> None:
        await bench.filled(3)
        newer = CONFIG_MAPS.__class__(
            resource=CONFIG_MAPS.resource,
            kind="ConfigMap",
            namespaced=True,
            selectable_fields=("data.noise",),
        )
        assignment = Assignment(partition=WHOLE, resource_type=newer)
        await bench.shard(B).adopt([assignment], bench.epoch, {WHOLE.id: (Source(A, WHOLE.id),)})
        assert "is held in another form here" in await stranded(bench, within_s=1)

    on(main)


def test_too_many_at_once_are_told_to_come_back() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bench.bad[A] = Bad(bench.shard(A), "stalls")
        await bench.receive(B, REST, (A, WHOLE))
        await bench.receive(B, WHOLE, (A, WHOLE), wait_s=0)
        assert "shard shard-a sends too much at once already" in await stranded(bench, within_s=5)
        await asyncio.sleep(PIECE_S)
        del bench.bad[A]
        assert (await bench.receive(B, WHOLE, (A, WHOLE))).state == "synced"

    on(main, exports_max=1)


# -- what is changed meanwhile -------------------------------------------------------------------------------


def test_what_is_released_on_its_way_is_forgotten() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bad = bench.bad[A] = Bad(bench.shard(A), "is slow")
        await bench.receive(B, WHOLE, (A, WHOLE))
        await bench.release(B, WHOLE)
        assert bench.holds(B) == []
        with pytest.raises(NotServed):
            await bench.keys(B)
        await asyncio.sleep(0)
        assert bad.closed == 1
        await asyncio.sleep(60)
        assert bench.holds(B) == []
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("receive")] == []

    on(main)


def test_adopted_again_from_the_same_sources_it_goes_on_undisturbed_and_from_others_anew() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        await bench.follow(B, HOT)
        bad = bench.bad[A] = Bad(bench.shard(A), "is slow")
        await bench.receive(B, WHOLE, (A, WHOLE))
        came = bench.statistics(B).transferred_objects
        await bench.receive(B, WHOLE, (A, WHOLE))
        assert (bad.closed, bench.statistics(B).transferred_objects) == (0, came)
        await bench.follow(A, REST)
        await bench.receive(B, WHOLE, (A, REST), (B, HOT), wait_s=0)
        assert bad.closed == 1
        await asyncio.sleep(60)
        assert (bench.statistics(B).state, bench.statistics(B).source_shards) == ("synced", (A, B))

    on(main)


@pytest.mark.parametrize("how", ["is slow", "dies"])
def test_adopted_again_without_sources_it_is_listed(how: str) -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bad = bench.bad[A] = Bad(bench.shard(A), how)
        await bench.receive(B, WHOLE, (A, WHOLE))
        await bench.follow(B)
        await asyncio.sleep(0)
        assert bad.closed == 1
        held = bench.statistics(B)
        assert (held.state, held.objects, held.source_shards) == ("synced", 100, ())
        assert sum(held.lists.values()) == 1
        assert held.history_events == 0

    on(main)


def test_what_is_followed_already_takes_no_sources() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        await bench.follow(B)
        assert bench.lists == 2
        held = await bench.receive(B, WHOLE, (A, WHOLE))
        assert (held.state, held.source_shards, sum(held.lists.values())) == ("synced", (), 1)
        assert bench.lists == 2

    on(main)


def test_a_shard_that_stops_leaves_nothing_behind() -> None:
    async def main(bench: Bench) -> None:
        await bench.filled()
        bad = bench.bad[A] = Bad(bench.shard(A), "stalls")
        await bench.receive(B, WHOLE, (A, WHOLE))
        await bench.shard(B).stop()
        assert bad.closed == 1
        assert bench.holds(B) == []

    on(main)
