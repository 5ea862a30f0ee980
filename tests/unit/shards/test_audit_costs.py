"""What an audit costs, when it is not made, and when nothing can be concluded: over the embedded API server."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from support.audited_shard import PARTITION, PERIOD_S, on

from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.settings import SimulatorSettings
from shoal.shards.auditing import OVERLOADED_FIRST_S, PAGE_FIRST, PAGE_MAX
from shoal.shards.model.partitions import Epoch, ExceptNamespaces, Partition
from shoal.shards.settings import StoreSettings

TWICE = 2.5 * PERIOD_S
"""Long enough for an audit, and for another."""


# -- when nothing can be concluded ----------------------------------------------------------------------------


def test_a_version_that_leaves_history_meanwhile_is_inconclusive():
    async def main(bench):
        bench.fill(300)
        await bench.follow()
        await asyncio.sleep(1)
        for number in range(2000):
            bench.change(f"object-{number % 300:05}", n=str(number))
            await asyncio.sleep(0.2)
        found = bench.found
        assert found.audits["forgotten"] >= 1
        assert "divergent" not in found.audits
        assert found.divergence == {}

    on(main, objects_per_s=10, store=StoreSettings(history_s=5.0))


def test_a_list_whose_token_expires_goes_on_at_a_newer_version():
    async def main(bench):
        bench.fill(300)
        await bench.follow()
        await asyncio.sleep(1)

        async def churn():
            for number in range(3000):
                bench.change(f"object-{number % 300:05}", n=str(number))
                await asyncio.sleep(0.1)

        await churn()
        found = bench.found
        continued = [
            request for request in bench.connection.metadata_lists if "continue" in dict(request.query)
        ]
        assert found.audits["equal"] >= 1
        assert set(found.audits) == {"equal"}
        assert len(continued) > 300 / PAGE_FIRST * found.audits["equal"], "no token had expired"

    on(main, objects_per_s=20, server=SimulatorSettings(seed=1, history_events=20))


def test_a_list_that_begins_meanwhile_makes_it_void():
    async def main(bench):
        bench.fill(300)
        await bench.follow()
        await asyncio.sleep(1)

        async def relist(request):
            if "continue" in dict(request.query):
                bench.app.faults.arm(
                    Fault(kind="line-410", resource="configmaps", verb="watch", immediate=True)
                )
                bench.change("object-00000", n=str(len(bench.connection.metadata_lists)))
                await asyncio.sleep(1)

        bench.connection.before = relist
        await asyncio.sleep(PERIOD_S)
        assert set(bench.found.audits) == {"void"}
        assert bench.found.audited_age_s is None
        bench.connection.before = None
        await asyncio.sleep(PERIOD_S / 5)
        assert bench.found.audits["equal"] == 1, "it is tried again soon"

    on(main)


@pytest.mark.parametrize(
    ("kind", "outcome"), [("status-500", "refused"), ("drop", "failed"), ("status-410", "refused")]
)
def test_a_server_that_fails_proves_nothing(kind, outcome):
    async def main(bench):
        bench.fill(10)
        await bench.follow()
        await asyncio.sleep(1)
        bench.app.faults.arm(Fault(kind=kind, verb="list", count=1))
        await asyncio.sleep(TWICE)
        assert bench.found.audits[outcome] == 1
        assert bench.found.audits["equal"] >= 1
        assert bench.found.divergence == {}

    on(main)


def test_an_overloaded_server_is_left_alone_longer_each_time():
    async def main(bench):
        bench.fill(10)
        await bench.follow()
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        asked = []

        async def note(request):
            asked.append(loop.time())

        bench.connection.before = note
        bench.app.faults.arm(Fault(kind="status-429", verb="list", count=None, retry_after_s=1))
        await asyncio.sleep(8 * PERIOD_S)
        pauses = [later - before for before, later in pairwise(asked)]
        assert pauses[0] >= OVERLOADED_FIRST_S
        assert all(later >= 1.5 * before for before, later in pairwise(pauses))
        bench.app.faults.disarm()
        await asyncio.sleep(10 * PERIOD_S)
        assert bench.found.audits["equal"] >= 2

    on(main)


def test_a_retry_after_is_obeyed():
    async def main(bench):
        bench.fill(10)
        await bench.follow()
        loop = asyncio.get_running_loop()
        asked = []

        async def note(request):
            asked.append(loop.time())

        await asyncio.sleep(1)
        bench.connection.before = note
        bench.app.faults.arm(Fault(kind="status-503", verb="list", count=1, retry_after_s=400))
        await asyncio.sleep(8 * PERIOD_S)
        assert asked[1] - asked[0] >= 400

    on(main)


def test_what_is_handed_over_is_left_alone():
    async def main(bench):
        bench.fill(10)
        await bench.follow()
        await asyncio.sleep(1)
        await bench.shard.hand_over([PARTITION.id], Epoch(2))
        for _ in range(30):
            await asyncio.sleep(PERIOD_S / 10)
            await bench.shard.hand_over([PARTITION.id], Epoch(2))
        assert bench.found.audits == {}
        assert bench.connection.metadata_lists == []

    on(main)


def test_a_partition_that_is_released_meanwhile_is_forgotten():
    async def main(bench):
        bench.fill(300)
        await bench.follow()
        await asyncio.sleep(1)

        async def release(request):
            if "continue" in dict(request.query):
                await bench.shard.release([PARTITION.id], Epoch(2))

        bench.connection.before = release
        await asyncio.sleep(TWICE)
        assert len(bench.connection.metadata_lists) == 2
        assert bench.shard.statistics().partitions == []

    on(main)


# -- what it costs --------------------------------------------------------------------------------------------


def test_objects_are_asked_for_no_faster_than_the_budget_has_it():
    async def main(bench):
        bench.fill(2000)
        await bench.follow()
        loop = asyncio.get_running_loop()
        asked = []

        async def note(request):
            asked.append(loop.time())

        bench.connection.before = note
        while "equal" not in bench.found.audits:
            await asyncio.sleep(1)
        took_s = asked[-1] - asked[0]
        # The last page is paid for after it.
        assert (2000 - PAGE_MAX) / 100 <= took_s <= 2000 / 100

    on(main, objects_per_s=100, period_s=1000.0)


def test_bytes_are_bounded_as_well_and_pages_by_their_size():
    async def main(bench):
        notes = {f"note-{number}": "x" * 20_000 for number in range(5)}
        for number in range(60):
            bench.app.verbs.create(
                bench.kind, "default", {"metadata": {"name": f"object-{number}", "annotations": notes}}
            )
        await bench.follow()
        loop = asyncio.get_running_loop()
        asked = []

        async def note(request):
            asked.append((loop.time(), int(dict(request.query)["limit"])))

        bench.connection.before = note
        while "equal" not in bench.found.audits:
            await asyncio.sleep(1)
        assert [limit for _, limit in asked][:2] == [PAGE_FIRST, 10], "a page is about a megabyte"
        assert asked[1][0] - asked[0][0] == pytest.approx(50 * 100_000 / (1 << 20), rel=0.1)

    on(main, bytes_per_s=1 << 20, period_s=1000.0)


def test_partitions_are_audited_one_at_a_time_and_each_page_takes_a_permit():
    running = Counter()
    most = Counter()

    class Counting:
        @asynccontextmanager
        async def permit(self, partition):
            running[partition] += 1
            most["at once"] = max(most["at once"], running.total())
            most["all"] += 1
            await asyncio.sleep(0.5)
            try:
                yield
            finally:
                running[partition] -= 1

    async def main(bench):
        bench.fill(120)
        bench.create("other", "kube-system")
        partitions = [
            Partition(PARTITION.resource, ExceptNamespaces((f"none-{number}",))) for number in range(8)
        ]
        await bench.follow(*partitions)
        await asyncio.sleep(10)
        listed, most["at once"] = most["all"], 0
        await asyncio.sleep(TWICE)
        audits = Counter()
        for one in bench.shard.statistics().partitions:
            audits.update(one.audits)
        assert set(audits) == {"equal"}
        assert audits["equal"] >= 8
        assert most["at once"] == 1
        assert most["all"] - listed == len(bench.connection.metadata_lists) == 2 * audits["equal"]

    on(main, permits=Counting())


def test_audits_of_one_shard_are_spread_over_the_period():
    async def main(bench):
        bench.fill(3)
        partitions = [
            Partition(PARTITION.resource, ExceptNamespaces((f"none-{number}",))) for number in range(20)
        ]
        await bench.follow(*partitions)
        loop = asyncio.get_running_loop()
        asked = []

        async def note(request):
            asked.append(int(10 * (loop.time() % PERIOD_S) / PERIOD_S))

        bench.connection.before = note
        await asyncio.sleep(PERIOD_S + 10)
        assert len(set(asked)) >= 7, "all at about the same time"

    on(main)


def test_without_a_period_nothing_is_asked():
    async def main(bench):
        bench.fill(3)
        await bench.follow()
        await asyncio.sleep(100_000)
        assert bench.connection.metadata_lists == []
        assert bench.found.audits == {}

    on(main, period_s=0.0)
