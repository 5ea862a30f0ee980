"""A resource that is divided anew under its watches: they end in order, and clients go on at the version they were
shown, whichever division that was.
"""

import asyncio

import pytest
from support.clock import run_virtual
from support.watched_shards import Written
from support.watching import IN_A, NOT_A, POD, STREAMING, WHOLE, gateway, settled

from shoal.coordinator.cuts import WHOLE as UNCUT
from shoal.coordinator.cuts import even_bounds
from shoal.coordinator.routes import Route, RouteTable
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import Epoch, ShardId

CUTS = (
    UNCUT,
    UNCUT.carve("a"),
    UNCUT.split_rest("namespace", even_bounds(2)),
    UNCUT.split_rest("uid", even_bounds(2)),
    UNCUT.split_namespace("a", even_bounds(2)),
)


def last(reader):
    """The version its last line says."""
    return int(reader.told[-1].rpartition(" ")[2])


@pytest.mark.parametrize("after", CUTS, ids=str)
@pytest.mark.parametrize("before", CUTS, ids=str)
def test_watches_end_in_order_and_go_on_where_they_ended(before, after):
    async def main():
        written = Written(*before.partitions(POD))
        async with gateway(written) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            readers = [await gate.watch(where, resourceVersion=100) for where in (None, "a")]
            written.put("a", "one")
            written.put("b", "one")
            written.put("a", "two")
            for part in written.parts.values():
                part.store.advance(written.revision)
            await settled(1.0)
            assert readers[0].told == ["ADDED a/one 101", "ADDED b/one 102", "ADDED a/two 103"]
            assert readers[1].told == ["ADDED a/one 101", "ADDED a/two 103"]
            gate.routing.take(written.divide(*after.partitions(POD)))
            await settled(1.0)
            ended = before.covers() != after.covers()
            assert [task.done() for task in gate.running] == [ended] * 2
            written.put("a", "one")
            written.delete("a", "two")
            written.put("b", "two")
            for part in written.parts.values():
                part.store.advance(written.revision)
            await settled(1.0)
            versions = [last(reader) for reader in readers]
            assert versions == ([103, 103] if ended else [106, 105])
            if ended:
                readers = [
                    await gate.watch(where, resourceVersion=version)
                    for where, version in zip((None, "a"), versions, strict=True)
                ]
                await settled(1.0)
            told = [[line for line in reader.told if int(line.split()[-1]) > 103] for reader in readers]
            assert told[0] == ["MODIFIED a/one 104", "DELETED a/two 105", "ADDED b/two 106"]
            assert told[1] == ["MODIFIED a/one 104", "DELETED a/two 105"]
            assert not gate.router.statistics.expired
            assert not gate.router.statistics.lost
            keeper.cancel()

    run_virtual(main())


def test_what_comes_late_after_a_recut_is_told_to_who_was_shown_more_before_it():
    """Version 102 of a was shown over 101 of b, which b's shard had not heard of; its successor hears of it."""

    async def main():
        written = Written(IN_A, NOT_A)
        async with gateway(written) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            reader = await gate.watch(resourceVersion=100)
            written.put("b", "late", heard=False)
            written.put("a", "one")
            await settled(1.0)
            assert reader.told == ["ADDED a/one 102"]
            gate.routing.take(written.divide(WHOLE, heard=False))
            await settled(1.0)
            assert gate.running[0].done()
            again = await gate.watch(resourceVersion=102)
            await settled(1.0)
            assert [line for line in again.told if "late" in line] == ["ADDED b/late 101"]
            keeper.cancel()

    run_virtual(main())


def test_a_bookmark_shown_over_two_partitions_is_a_place_to_go_on_in_one():
    async def main():
        written = Written(IN_A, NOT_A)
        async with gateway(written, bookmark_s=2.0) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            reader = await gate.watch(resourceVersion=100, allowWatchBookmarks="true")
            written.put("a", "one")
            await settled(3.0)
            assert reader.told[0] == "ADDED a/one 101"
            assert reader.told[-1] == "BOOKMARK 101"
            written.put("b", "unheard", heard=False)
            gate.routing.take(written.divide(WHOLE))
            await settled(1.0)
            assert gate.running[0].done()
            again = await gate.watch(resourceVersion=101)
            await settled(1.0)
            assert again.told[-1] == "ADDED b/unheard 102"
            keeper.cancel()

    run_virtual(main())


def test_a_watch_that_is_told_the_past_ends_as_well_and_at_once():
    """One shard does not acknowledge, so the replay waits when the division comes."""

    async def main():
        written = Written(IN_A, NOT_A)
        async with gateway(written, patience_s=1000.0) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            written.parts[NOT_A.id].mute = True
            written.put("a", "one")
            watch = await gate.open(resourceVersion=100)
            frames = []

            class Sink:
                def write(self, frame):
                    frames.append(frame)
                    return True

                async def drained(self):
                    pass

            running = asyncio.create_task(watch.run(Sink()))
            await settled(1.0)
            assert not running.done()
            gate.routing.take(written.divide(WHOLE))
            await settled(1.0)
            assert running.done()
            assert running.exception() is None
            assert not frames
            keeper.cancel()

    run_virtual(main())


@pytest.mark.parametrize("parameters", [{}, STREAMING, {"resourceVersion": "0"}])
def test_initial_events_that_are_overtaken_by_a_recut_are_begun_again_by_the_client(parameters):
    async def main():
        written = Written(IN_A, NOT_A)
        written.put("a", "one")
        written.put("b", "one")
        async with gateway(written) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            for way in (gate.directory(shard) for shard in written.shards):
                way._delay = lambda: 0.5
            running = asyncio.create_task(gate.watch(**parameters))
            await settled(0.2)
            gate.routing.take(written.divide(WHOLE))
            reader = await running
            await settled(5.0)
            assert not any("ERROR" in line for line in reader.told)
            again = await gate.watch(**parameters)
            await settled(1.0)
            assert again.told[:2] == ["ADDED a/one 101", "ADDED b/one 102"]
            keeper.cancel()

    run_virtual(main())


def test_a_watch_that_is_opened_while_the_resource_is_divided_is_opened_on_what_it_becomes():
    """The old shards have let go, and new routes come a moment later."""

    async def main():
        written = Written(WHOLE)
        written.put("a", "one")
        async with gateway(written) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            old = tuple(written.parts.values())
            table = written.divide(IN_A, NOT_A)
            for part in old:
                part.release()
            asyncio.get_running_loop().call_later(0.5, gate.routing.take, table)
            reader = await gate.watch(resourceVersion=100)
            await settled(1.0)
            assert reader.told == ["ADDED a/one 101"]
            keeper.cancel()

    run_virtual(main())


def test_a_watch_of_what_nobody_has_is_refused():
    async def main():
        written = Written(WHOLE)
        async with gateway(written) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            written.parts[WHOLE.id].release()
            with pytest.raises(NotReady):
                await gate.watch(resourceVersion=100)
            keeper.cancel()

    run_virtual(main())


def test_shards_that_let_go_before_the_routes_are_known_end_watches_in_order():
    async def main():
        written = Written(WHOLE)
        async with gateway(written) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            reader = await gate.watch(resourceVersion=100)
            part = written.parts[WHOLE.id]
            table = written.divide(IN_A, NOT_A)
            part.release()
            await settled(0.01)
            assert not gate.running[0].done()
            asyncio.get_running_loop().call_later(0.3, gate.routing.take, table)
            await settled(1.0)
            assert gate.running[0].done()
            assert reader.told == []
            keeper.cancel()

    run_virtual(main())


def test_a_lane_does_not_overtake_a_shard_that_has_handed_over():
    """It gives no leave any more; what waits for that is told by the next division."""

    async def main():
        written = Written(IN_A, NOT_A)
        async with gateway(written) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            reader = await gate.watch(resourceVersion=100)
            written.parts[NOT_A.id].mute = True
            written.put("a", "one")
            await settled(1.0)
            assert reader.told == []
            gate.routing.take(written.divide(WHOLE))
            await settled(1.0)
            assert gate.running[0].done()
            assert reader.told == []
            again = await gate.watch(resourceVersion=100)
            assert again.told == ["ADDED a/one 101"]
            keeper.cancel()

    run_virtual(main())


def test_the_same_division_elsewhere_ends_nothing():
    async def main():
        written = Written(IN_A, NOT_A)
        async with gateway(written) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            reader = await gate.watch(resourceVersion=100)
            written.put("a", "one")
            await settled(1.0)
            gate.routing.take(written.divide(IN_A, NOT_A))
            await settled(1.0)
            written.put("b", "one")
            await settled(1.0)
            assert reader.told == ["ADDED a/one 101", "ADDED b/one 102"]
            assert not gate.running[0].done()
            keeper.cancel()

    run_virtual(main())


def test_a_resource_divided_among_shards_nobody_has_heard_of_is_no_410():
    async def main():
        written = Written(WHOLE)
        async with gateway(written) as gate:
            keeper = asyncio.create_task(gate.routing.run())
            reader = await gate.watch(resourceVersion=100)
            routes = tuple(Route(partition, ShardId("shard-9")) for partition in (IN_A, NOT_A))
            gate.routing.take(RouteTable(epoch=Epoch(2), catalogue=written.table.catalogue, routes=routes))
            await settled(1.0)
            assert gate.running[0].done()
            assert reader.told == []
            keeper.cancel()

    run_virtual(main())
