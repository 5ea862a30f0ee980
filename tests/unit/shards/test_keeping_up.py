"""Idle partitions keep up with what is shown of their siblings, and notice a past that the API server lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.idle_partitions import CONFIG_MAPS, IDLE, Bench, now, on

from shoal.shards.model.errors import NotReady, PastLost
from shoal.shards.model.partitions import OneNamespace, Partition
from shoal.shards.model.resources import Resource
from shoal.shards.model.versions import Version
from shoal.shards.shard import UNASKED_PROOFS_MAX
from shoal.shards.waiting import UNASKED_AFTER_S, UNASKED_PAUSE_MAX_S

# -- unasked -------------------------------------------------------------------------------------------------


def test_a_partition_that_is_read_keeps_up_with_what_is_shown_of_its_siblings() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        feed = bench.feed()
        await anext(feed)
        version = bench.other()
        assert await bench.overtake(version) < version
        await asyncio.sleep(UNASKED_AFTER_S + 2.0)
        assert bench.idle.frontier >= version
        assert (bench.idle.proofs, bench.idle.proofs_unasked) == ({"proved": 1}, 1)
        assert (await anext(feed)).frontier >= version
        await asyncio.sleep(30)
        assert bench.connection.pins == 1, "it is not behind any more"
        await bench.overtake(bench.other())
        await asyncio.sleep(UNASKED_AFTER_S + 2.0)
        assert bench.idle.frontier == bench.app.storage.revision
        await feed.aclose()

    on(main)


def test_a_partition_that_nobody_reads_is_not_proved_unasked() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        await bench.overtake(bench.other())
        feed = bench.feed()
        await anext(feed)
        await bench.overtake(bench.other())
        await feed.aclose()
        await asyncio.sleep(30)
        assert (bench.connection.pins, bench.idle.proofs_unasked) == (0, 0)

    on(main)


def test_what_the_own_watch_brings_meanwhile_needs_no_unasked_proof() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        feed = bench.feed()
        await anext(feed)
        await bench.overtake(bench.other())
        bench.create("a", "idle")
        await asyncio.sleep(30)
        assert bench.connection.pins == 0
        await feed.aclose()

    on(main)


def test_few_unasked_proofs_are_under_way_at_once_and_fail_less_and_less_often() -> None:
    async def main(bench: Bench) -> None:
        spaces = bench.app.verbs.served(Resource("", "v1", "namespaces"))
        names = [f"ns-{number}" for number in range(UNASKED_PROOFS_MAX + 4)]
        for name in names:
            bench.app.verbs.create(spaces, None, {"metadata": {"name": name}})
        partitions = [Partition(CONFIG_MAPS.resource, OneNamespace(name)) for name in names]
        await bench.follow(*partitions)
        feeds = [bench.feed(None, partition) for partition in partitions]
        for feed in feeds:
            await anext(feed)
        version = bench.other()
        for partition in partitions:
            await bench.overtake(version, partition)
        await asyncio.sleep(UNASKED_AFTER_S + 4.0)
        assert all(found.frontier >= version for found in bench.shard.statistics().partitions)
        assert bench.connection.pinned_most == UNASKED_PROOFS_MAX
        for feed in feeds:
            await feed.aclose()

    on(main)


def test_unasked_proofs_that_bring_nothing_are_made_less_and_less_often() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        feed = bench.feed()
        await anext(feed)
        held = bench.shard._followed[IDLE.id]
        held.failure = "something"  # nothing is proved then
        await bench.overtake(bench.other())
        await asyncio.sleep(600)
        assert 600 / (UNASKED_PAUSE_MAX_S + 5) <= bench.idle.proofs_unasked <= 15
        held.failure = ""
        await feed.aclose()

    on(main)


# -- a past that was lost ------------------------------------------------------------------------------------


def test_versions_of_a_lost_past_that_were_announced_as_shown_are_refuted() -> None:
    """A gateway that has not noticed yet; else everything would be late until there were as many versions again."""

    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        feed = bench.feed()
        await anext(feed)
        await bench.overtake(10**6)
        bench.other()
        await asyncio.sleep(UNASKED_AFTER_S + 8.0)
        assert bench.idle.overtaken <= bench.idle.frontier == bench.app.storage.revision
        late = bench.idle.late_events
        bench.create("a", "idle")
        await asyncio.sleep(1)
        assert bench.idle.late_events == late
        await feed.aclose()

    on(main)


def test_a_feed_beyond_what_the_api_server_has_lost_its_past() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        began = now()
        with pytest.raises(PastLost, match="told 1000000 and is at"):
            await anext(bench.feed(10**6))
        assert now() - began < 1.0
        assert bench.idle.feeds == 0

    on(main)


def test_a_feed_that_is_ahead_of_the_shard_waits_until_the_shard_has_come_there() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        version = bench.other()
        batch = await anext(bench.feed(version))
        assert (batch.events, batch.frontier >= version) == ([], True)
        await asyncio.sleep(1)
        assert bench.proofs == {"proved": 1}

    on(main)


def test_whether_a_feed_lost_its_past_is_not_guessed() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        held = bench.shard._followed[IDLE.id]
        held.store.begin()
        began = now()
        with pytest.raises(NotReady, match="has not come to 1000000 yet"):
            await anext(bench.feed(10**6))
        assert now() - began == pytest.approx(3.0)
        held.store.abandon()

    on(main)


def test_an_answer_to_an_earlier_question_does_not_tell_who_came_later() -> None:
    """The server was asked before the version came to be."""

    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        wanted = bench.app.storage.revision + 1
        waiting = asyncio.create_task(bench.get(wanted))
        feeding: list[asyncio.Task[Any]] = []

        proof = bench.shard._followed[IDLE.id].waiters._proof
        attempt = proof.attempt

        async def late(version: Version) -> Any:
            outcome = await attempt(version)
            if not feeding:
                assert outcome == "unreached"
                feeding.append(asyncio.create_task(anext(bench.feed(bench.other()))))
                await asyncio.sleep(0.1)
            return outcome

        proof.attempt = late  # type: ignore[method-assign]
        assert (await waiting).frontier >= wanted
        assert (await feeding[0]).frontier >= wanted

    on(main)
