"""Proofs of an idle partition's frontier against the embedded API server, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.asgi_connection import AsgiConnection
from support.idle_partitions import CONFIG_MAPS, IDLE, REST, Bench, now, on

from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.api.requests import list_request
from shoal.shards.model.errors import ConnectionFailed, TooLargeVersion
from shoal.shards.model.partitions import Epoch, OneNamespace, Partition
from shoal.shards.model.queries import (
    ChangesQuery,
    CountQuery,
    PageQuery,
)
from shoal.shards.model.resources import Resource
from shoal.shards.model.versions import Version
from shoal.shards.shard import PROOFS_MAX


def test_an_idle_partition_proves_its_frontier_within_a_second_or_two() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        version = bench.other()
        began = now()
        answer = await bench.get(version)
        assert answer.frontier >= version
        assert 1.0 <= now() - began <= 1.5
        await asyncio.sleep(1)
        assert bench.proofs == {"proved": 1}
        first, second = bench.connection.targets
        assert "limit=1" in first
        assert "watch=1" in second
        assert "timeoutSeconds=1" in second
        assert all(target.startswith("/api/v1/namespaces/idle/configmaps?") for target in (first, second))
        # It was the newest: whoever asks again waits for nothing.
        assert (await bench.get(version, wait_s=0.01)).frontier >= version

    on(main)


def test_every_question_about_a_newer_version_is_answered_by_one_proof() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        version = Version(bench.other())
        common = {"partition": IDLE.id, "epoch": Epoch(1)}

        async def changes() -> Any:
            query = ChangesQuery(since=version, **common)
            return [page async for page in bench.shard.changes(query)]

        answers = await asyncio.gather(
            bench.get(version),
            bench.shard.page(PageQuery(not_older_than=version, **common)),
            bench.shard.page(PageQuery(at=version, **common)),
            bench.shard.count(CountQuery(not_older_than=version, **common)),
            changes(),
        )
        assert answers[1].version >= version
        assert answers[2].version == version
        assert answers[3].count == 0
        assert [page.changes for page in answers[4]] == [[]]
        await asyncio.sleep(0)  # they were answered before the proof had ended
        assert (bench.connection.pins, bench.proofs) == (1, {"proved": 1})

    on(main)


def test_the_selector_of_the_cover_is_sent() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(REST)
        await bench.get(bench.other(), REST)
        assert all("metadata.namespace%21%3Didle" in target for target in bench.connection.targets)
        assert len(bench.connection.targets) == 2

    on(main)


def test_what_the_own_watch_brings_soon_needs_no_proof() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        version = bench.create("a", "idle")
        assert (await bench.get(version)).body is not None
        assert bench.connection.pins == 0

    on(main)


def test_a_version_that_does_not_exist_is_refused_after_the_wait_and_asked_for_with_pauses() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        began = now()
        with pytest.raises(TooLargeVersion):
            await bench.get(10**6)
        assert now() - began == pytest.approx(3.0)
        assert set(bench.proofs) == {"unreached"}
        assert 3 <= bench.proofs["unreached"] <= 6
        assert not any("watch" in target for target in bench.connection.targets)
        await asyncio.sleep(10)
        assert bench.connection.pins == bench.proofs["unreached"], "nobody waits, nothing is asked"

    on(main)


def test_a_version_that_comes_while_it_is_waited_for_is_proved() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        began = now()
        wanted = bench.app.storage.revision + 1
        waiting = asyncio.create_task(bench.get(wanted))
        await asyncio.sleep(0.5)
        assert bench.other() >= wanted
        assert (await waiting).frontier >= wanted
        assert now() - began < 3.0

    on(main)


def test_what_the_own_watch_never_brought_is_replayed() -> None:
    """The partition's watch stands still; the proof applies what it withholds, in order."""

    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        bench.app.faults.arm(Fault(kind="stall", seconds=0, count=1))
        bench.create("a", "idle")
        version = bench.create("b", "idle")
        answer = await bench.get(version)
        assert (answer.frontier, answer.body is not None) == (version, True)
        page = await bench.shard.page(PageQuery(partition=IDLE.id, epoch=Epoch(1)))
        assert page.keys == ["idle/a", "idle/b"]
        await asyncio.sleep(1)
        assert bench.proofs == {"proved": 1}

    on(main)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault(kind="status-500", count=1), "refused"),
        (Fault(kind="drop", count=1), "failed"),
    ],
    ids=lambda case: getattr(case, "kind", case),
)
def test_a_request_that_fails_proves_nothing_and_is_made_again(fault: Fault, outcome: str) -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        bench.app.faults.arm(fault)
        version = bench.other()
        assert (await bench.get(version)).frontier >= version
        await asyncio.sleep(1)
        assert bench.proofs == {outcome: 1, "proved": 1}

    on(main)


@pytest.mark.parametrize("kind", ["cut", "truncate", "garbage", "line-410"])
def test_a_replay_that_ends_uncleanly_proves_nothing(kind: Any) -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        bench.app.faults.arm(Fault(kind="stall", seconds=0, count=1))
        first = bench.create("a", "idle")
        await asyncio.sleep(0.01)
        bench.app.faults.arm(Fault(kind=kind, verb="watch"))
        version = bench.create("b", "idle")
        with pytest.raises(TooLargeVersion):
            await bench.get(version, wait_s=0.15)
        assert bench.app.faults.injected[kind] == 1
        assert bench.proofs.get("proved", 0) == 0
        # What came before the end is true, and no more than that is claimed.
        assert bench.shard.statistics().partitions[0].frontier <= first

    on(main)


def test_a_server_that_is_behind_proves_nothing() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        behind = build_app(SimulatorSettings(seed=2))
        frontier = bench.shard.statistics().partitions[0].frontier
        assert behind.storage.revision < frontier
        bench.connection._app = behind
        with pytest.raises(TooLargeVersion):
            await bench.get(bench.other())
        assert set(bench.proofs) == {"behind"}

    on(main)


def test_a_server_that_restarts_between_the_requests_proves_nothing() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        restarted = []

        def between() -> None:
            if not restarted:
                restarted.append(True)
                bench.app.storage.restart()

        bench.connection.between = between
        version = bench.other()
        assert (await bench.get(version)).frontier >= version
        assert bench.proofs["failed"] == 1

    on(main)


def test_a_list_that_begins_meanwhile_makes_a_proof_void() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        held = bench.shard._followed[IDLE.id]
        frontier = held.store.frontier
        bench.connection.between = held.store.begin
        version = bench.other()
        with pytest.raises(TooLargeVersion):
            await bench.get(version)
        assert set(bench.proofs) == {"void"}
        assert held.store.frontier == frontier
        held.store.abandon()
        bench.connection.between = lambda: None
        assert (await bench.get(version)).frontier >= version

    on(main)


def test_no_more_proofs_than_allowed_are_under_way_at_once() -> None:
    async def main(bench: Bench) -> None:
        spaces = bench.app.verbs.served(Resource("", "v1", "namespaces"))
        names = [f"ns-{number}" for number in range(PROOFS_MAX + 4)]
        for name in names:
            bench.app.verbs.create(spaces, None, {"metadata": {"name": name}})
        partitions = [Partition(CONFIG_MAPS.resource, OneNamespace(name)) for name in names]
        await bench.follow(*partitions)
        version = bench.other()
        answers = await asyncio.gather(*(bench.get(version, partition) for partition in partitions))
        assert all(answer.frontier >= version for answer in answers)
        assert bench.connection.pinned_most == PROOFS_MAX
        assert bench.connection.pins == len(names)

    on(main)


def test_a_partition_that_is_not_followed_is_not_proved() -> None:
    async def main(bench: Bench) -> None:
        await bench.follow(IDLE)
        held = bench.shard._followed[IDLE.id]
        held.failure = "something"
        with pytest.raises(TooLargeVersion):
            await bench.get(bench.other())
        assert bench.connection.pins == 0

    on(main)


def test_the_test_connection_does_not_outlive_its_server() -> None:
    async def main(bench: Bench) -> None:
        async with AsgiConnection(bench.app).pinned() as pinned:
            async with pinned.open(list_request(IDLE, limit=1)) as response:
                await response.read()
            bench.app.storage.restart()
            with pytest.raises(ConnectionFailed):
                async with pinned.open(list_request(IDLE, limit=1)):
                    pass

    on(main)
