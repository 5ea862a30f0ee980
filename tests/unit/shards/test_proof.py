"""Proofs of an idle partition's frontier against the embedded API server, in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.asgi_connection import AsgiConnection
from support.clock import run_virtual

from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.server import build_app
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.api.requests import list_request
from shoal.shards.handle import Assignment
from shoal.shards.model.errors import ConnectionFailed, TooLargeVersion
from shoal.shards.model.partitions import Epoch, ExceptNamespaces, OneNamespace, Partition, ShardId
from shoal.shards.model.queries import ChangesQuery, CountQuery, GetQuery, PageQuery
from shoal.shards.model.refs import Key
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version
from shoal.shards.settings import ShardSettings
from shoal.shards.shard import PROOFS_MAX, Shard
from shoal.shards.watch.permits import NoPermits

CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
IDLE = Partition(CONFIG_MAPS.resource, OneNamespace("idle"))
REST = Partition(CONFIG_MAPS.resource, ExceptNamespaces(("idle",)))


class Counting(AsgiConnection):
    """Counts requests over pinned connections, and how many are under way at once."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self.pins = self.pinned_now = self.pinned_most = 0
        self.targets: list[str] = []
        self.between: Callable[[], object] = lambda: None

    def pinned(self) -> Any:
        return _counted(self, super().pinned())


class _counted:  # noqa: N801
    def __init__(self, connection: Counting, pinned: Any) -> None:
        self._connection, self._pinned = connection, pinned

    async def __aenter__(self) -> Any:
        connection = self._connection
        connection.pins += 1
        connection.pinned_now += 1
        connection.pinned_most = max(connection.pinned_most, connection.pinned_now)
        inner = await self._pinned.__aenter__()
        opened = inner.open

        def noted(request: Any) -> Any:
            if "watch" in request.target:
                connection.between()
            connection.targets.append(request.target)
            return opened(request)

        inner.open = noted
        return inner

    async def __aexit__(self, *error: object) -> None:
        self._connection.pinned_now -= 1
        await self._pinned.__aexit__(*error)


class Bench:
    """An API server whose namespace ``idle`` is a partition of its own, and a shard."""

    def __init__(self) -> None:
        self.app = build_app(SimulatorSettings(seed=1))
        self.kind = self.app.verbs.served(CONFIG_MAPS.resource)
        spaces = self.app.verbs.served(Resource("", "v1", "namespaces"))
        self.app.verbs.create(spaces, None, {"metadata": {"name": "idle"}})
        self.connection = Counting(self.app)
        self.shard = Shard(
            ShardId("shard-0"),
            connection=self.connection,
            permits=NoPermits(),
            settings=ShardSettings(),
            incarnation="one",
            rng=random.Random(1),
        )

    def create(self, name: str, namespace: str = "default") -> int:
        self.app.verbs.create(self.kind, namespace, {"metadata": {"name": name}})
        return int(self.app.storage.revision)

    def other(self) -> int:
        """Something of another resource happens: versions move on, and no watch of ours hears of it."""
        nodes = self.app.verbs.served(Resource("", "v1", "nodes"))
        self.app.verbs.create(nodes, None, {"metadata": {"name": f"node-{self.app.storage.revision}"}})
        return int(self.app.storage.revision)

    async def follow(self, *partitions: Partition) -> None:
        await self.shard.adopt(
            [Assignment(partition=partition, resource_type=CONFIG_MAPS) for partition in partitions], Epoch(1)
        )
        await asyncio.sleep(20)

    async def get(self, version: int, partition: Partition = IDLE, **query: Any) -> Any:
        return await self.shard.get(
            GetQuery(
                partition=partition.id,
                epoch=Epoch(1),
                key=Key("idle/a"),
                not_older_than=Version(version),
                **query,
            )
        )

    @property
    def proofs(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for partition in self.shard.statistics().partitions:
            for outcome, times in partition.proofs.items():
                found[outcome] = found.get(outcome, 0) + times
        return found


def on(bench_main: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        try:
            await bench_main(bench)
        finally:
            await bench.shard.stop()

    run_virtual(main())


def now() -> float:
    return asyncio.get_running_loop().time()


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
