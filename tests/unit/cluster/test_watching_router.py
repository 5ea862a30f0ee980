"""Watches end to end over real stores and feeds, in virtual time: what clients are told, when, and how it ends."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from support.clock import run_virtual
from support.recording import load
from support.watched_shards import PODS, Written
from support.watching import IN_A, NOT_A, POD, STREAMING, WHOLE, Reader, form, gateway, settled

from shoal.cluster.query.fanout import UnknownResource
from shoal.cluster.serving.options import BadWatchVersion
from shoal.cluster.watching.audience import COLLECTED_EVENTS
from shoal.coordinator.routes import Route, RouteTable
from shoal.shards.handle import FEED_BEAT_S
from shoal.shards.model.errors import NotReady
from shoal.shards.model.partitions import Epoch, ExceptNamespaces, OneNamespace, Partition, ShardId
from shoal.shards.model.shard_selectors import BadShardSelector


def virtual(test):
    """Runs an asynchronous test in virtual time."""

    def run(*args, **kwargs):
        run_virtual(test(*args, **kwargs))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


# -- beginnings ----------------------------------------------------------------------------------------------


@virtual
async def test_without_a_version_a_watch_begins_with_what_there_is():
    written = Written(WHOLE)
    written.put("a", "one")
    written.put("b", "two")
    async with gateway(written) as gate:
        for parameters in ({}, {"resourceVersion": "0"}):
            reader = await gate.watch(**parameters)
            assert reader.told == ["ADDED a/one 101", "ADDED b/two 102"]
        written.put("b", "two")
        await settled()
        assert reader.told[2:] == ["MODIFIED b/two 103"]


@virtual
async def test_a_watch_from_a_version_replays_every_event_of_one_partition():
    written = Written(WHOLE)
    for _ in range(3):
        written.put("a", "one")
    written.delete("a", "one")
    async with gateway(written) as gate:
        reader = await gate.watch(resourceVersion=101)
        assert reader.told == ["MODIFIED a/one 102", "MODIFIED a/one 103", "DELETED a/one 104"]
        assert (await gate.watch(resourceVersion=104)).told == []


@virtual
async def test_a_watch_from_a_version_tells_the_newest_state_once_over_several_partitions():
    written = Written(IN_A, NOT_A)
    for _ in range(3):
        written.put("a", "one")
        written.put("b", "two")
    async with gateway(written) as gate:
        reader = await gate.watch(resourceVersion=102)
        assert reader.told == ["MODIFIED a/one 105", "MODIFIED b/two 106"]


@pytest.mark.parametrize("parts", [(WHOLE,), (IN_A, NOT_A)])
def test_a_streaming_list_ends_with_its_bookmark(parts):
    async def main():
        written = Written(*parts)
        written.put("b", "two")
        written.put("a", "one")
        async with gateway(written) as gate:
            reader = await gate.watch(**STREAMING)
            added = {"ADDED a/one 102", "ADDED b/two 101"}
            assert set(reader.told[:2]) == added
            # Of several partitions it says what all of them have reached.
            assert reader.told[2:] == [f"BOOKMARK {102 if len(parts) == 1 else 101} end"]

    run_virtual(main())


@virtual
async def test_a_streaming_list_waits_until_the_version_asked_for_is_reached():
    written = Written(IN_A, NOT_A)
    written.put("a", "one")
    async with gateway(written) as gate:
        reader = await gate.watch(**STREAMING, resourceVersion=102)
        await settled(10.0)
        assert reader.told == []
        written.put("a", "one")
        await settled(10.0)
        assert reader.told == []  # the other partition has not proved that it has nothing older
        written.bookmark(NOT_A.id)
        written.parts[NOT_A.id].hear()
        await settled(1.0)
        assert reader.told == ["ADDED a/one 102", "BOOKMARK 102 end"]


@virtual
async def test_without_initial_events_a_watch_begins_now():
    written = Written(IN_A, NOT_A)
    written.put("a", "one")
    async with gateway(written) as gate:
        reader = await gate.watch(sendInitialEvents="false", resourceVersionMatch="NotOlderThan")
        assert reader.told == []
        written.put("a", "one")
        await settled()
        assert reader.told == ["MODIFIED a/one 102"]


@virtual
async def test_a_version_to_come_is_waited_for_in_silence():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        reader = await gate.watch(resourceVersion=103, timeoutSeconds=60, allowWatchBookmarks="1")
        never = await gate.watch(resourceVersion=10**6, timeoutSeconds=60, allowWatchBookmarks="1")
        for _ in range(4):
            await settled(10.0)
            written.put("a", "one")
        await settled(4.0)
        assert reader.told[:1] == ["MODIFIED a/one 104"]
        await settled(30.0)
        assert never.told == []
        assert all(task.done() for task in gate.running)


@virtual
async def test_a_forgotten_version_is_one_error_line_with_the_bytes_of_the_api_server():
    recorded = load("watch-expired").lines
    written = Written(WHOLE, revision=266)
    async with gateway(written) as gate:
        reader = await gate.watch(resourceVersion=5)
        assert tuple(line.decode() for line in reader.lines) == recorded
        assert gate.running[0].done()
        assert gate.router.statistics.expired == 1


@virtual
async def test_a_streaming_list_overtakes_nobody_and_what_was_newer_in_it_is_not_told_again():
    written = Written(IN_A, NOT_A)
    written.put("b", "two")
    written.put("a", "one")
    idle = written.parts[NOT_A.id]
    idle.mute = True
    async with gateway(written) as gate:
        reader = await gate.watch(**STREAMING)
        listed = {"ADDED a/one 102", "ADDED b/two 101"}
        assert set(reader.told[:2]) == listed
        assert reader.told[2:] == ["BOOKMARK 101 end"]
        # Legacy initial events may be resumed at, so they wait until the idle partition lets itself be overtaken.
        legacy = await gate.watch()
        assert legacy.told == []
    idle.mute = False
    async with gateway(written) as gate:
        reader = await gate.watch(**STREAMING)
        legacy = await gate.watch()
        assert set(legacy.told) == listed
        written.put("a", "one")
        written.put("b", "two")
        await settled()
        assert reader.told[3:] == legacy.told[2:] == ["MODIFIED a/one 103", "MODIFIED b/two 104"]
        # Who comes back at the closing bookmark is told of everything after it.
        again = await gate.watch(resourceVersion=101)
        assert again.told == ["ADDED a/one 103", "MODIFIED b/two 104"]


# -- what is refused before the head -------------------------------------------------------------------------


@virtual
async def test_what_is_wrong_with_the_request_is_raised_before_it_is_answered():
    written = Written(IN_A, NOT_A)
    async with gateway(written) as gate:
        with pytest.raises(BadWatchVersion):
            await gate.open(resourceVersion="abc")
        with pytest.raises(BadShardSelector):
            await gate.open(shardSelector="nonsense")
        gate.routing.take(RouteTable(epoch=Epoch(2)))
        with pytest.raises(UnknownResource):
            await gate.open()


@virtual
async def test_what_is_not_placed_or_not_listed_yet_is_not_ready():
    written = Written(IN_A, NOT_A)
    async with gateway(written) as gate:
        gate.routing.take(RouteTable(epoch=Epoch(2), catalogue=(PODS,)))
        with pytest.raises(NotReady, match="no shard"):
            await gate.open()
    async with gateway(written) as gate:
        gate.directory(ShardId("shard-0")).away = True
        with pytest.raises(NotReady, match="away"):
            await gate.open()
        assert (await gate.watch("b")).told == []


# -- live ----------------------------------------------------------------------------------------------------


@virtual
async def test_selectors_tell_of_entering_and_leaving():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        front = await gate.watch(labelSelector="tier=front", resourceVersion=100)
        node = await gate.watch(fieldSelector="spec.nodeName=n1", resourceVersion=100)
        of_a = await gate.watch("a", resourceVersion=100)
        written.put("a", "one", tier="front", node="n1")
        written.put("a", "one", tier="back", node="n1")
        written.put("a", "one", tier="front", node="n2")
        written.put("b", "two", tier="front")
        written.delete("a", "one")
        await settled()
        assert front.told == [
            "ADDED a/one 101",
            "DELETED a/one 102",
            "ADDED a/one 103",
            "ADDED b/two 104",
            "DELETED a/one 105",
        ]
        assert front.events[1]["object"]["metadata"]["labels"] == {"tier": "front"}
        assert node.told == ["ADDED a/one 101", "MODIFIED a/one 102", "DELETED a/one 103"]
        assert of_a.told == [
            "ADDED a/one 101",
            "MODIFIED a/one 102",
            "MODIFIED a/one 103",
            "DELETED a/one 105",
        ]
        # What was told live is what a replay tells.
        for reader, parameters in (
            (front, {"labelSelector": "tier=front"}),
            (node, {"fieldSelector": "spec.nodeName=n1"}),
        ):
            assert (await gate.watch(**parameters, resourceVersion=100)).lines == reader.lines


@virtual
async def test_an_event_is_encoded_once_and_what_comes_together_is_one_frame():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        readers = [await gate.watch(resourceVersion=100) for _ in range(20)]
        for _ in range(5):
            written.put("a", "one")
        await settled()
        assert all(len(reader.frames) == 1 for reader in readers)
        assert len({id(reader.frames[0]) for reader in readers}) == 1
        assert readers[0].frames[0].events == 5
        assert gate.router.statistics.events == 100
        assert gate.router.watchers == {"v1/pods": 20}


@virtual
async def test_an_event_overtakes_an_idle_partition_once_that_has_acknowledged_it():
    written = Written(IN_A, NOT_A)
    idle = written.parts[NOT_A.id]
    async with gateway(written) as gate:
        everything = await gate.watch(resourceVersion=100)
        of_a = await gate.watch("a", resourceVersion=100)
        written.put("b", "two", heard=False)
        written.put("a", "one")
        await settled()
        assert idle.overtaken == [102]
        assert everything.told == ["ADDED a/one 102"]
        idle.hear()
        await settled()
        assert everything.told == ["ADDED a/one 102", "ADDED b/two 101"]
        assert of_a.told == ["ADDED a/one 102"]
        # Who had seen the newer one only is told of the late one wherever it comes back.
        written.bookmark(NOT_A.id)
        idle.hear()
        async with gateway(written) as other:
            assert (await other.watch(resourceVersion=102)).told == ["ADDED b/two 101"]


@virtual
async def test_without_an_acknowledgement_nothing_is_shown_and_those_concerned_end():
    written = Written(IN_A, NOT_A)
    written.parts[NOT_A.id].mute = True
    async with gateway(written, patience_s=4.0) as gate:
        everything = await gate.watch(resourceVersion=100)
        of_a = await gate.watch("a", resourceVersion=100)
        written.put("a", "one")
        await settled(3.0)
        assert everything.told == []
        assert not gate.running[0].done()
        await settled(20.0)
        assert everything.told == []
        assert gate.running[0].done()
        assert not gate.running[1].done()
        assert of_a.told == ["ADDED a/one 101"]


# -- bookmarks and ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(WHOLE,), (IN_A, NOT_A)])
def test_bookmarks_come_at_least_every_minute_and_before_the_end_also_while_nothing_happens(parts):
    async def main():
        loop = asyncio.get_running_loop()
        written = Written(*parts)
        async with gateway(written) as gate:
            reader = await gate.watch(resourceVersion=100, allowWatchBookmarks="true", timeoutSeconds=300)
            without = await gate.watch(resourceVersion=100, timeoutSeconds=300)
            seen, last = 0, loop.time()
            while not gate.running[0].done():
                await asyncio.sleep(0.5)
                if len(reader.frames) > seen:
                    assert loop.time() - last <= 61.0
                    seen, last = len(reader.frames), loop.time()
            assert loop.time() - last == pytest.approx(2.0, abs=1.0)
            assert set(reader.told) == {"BOOKMARK 100"}
            assert len(reader.told) >= 6
            assert without.told == []

    run_virtual(main())


@virtual
async def test_a_bookmark_of_one_partition_does_not_say_what_others_overtook_it_with():
    written = Written(IN_A, NOT_A)
    idle = written.parts[NOT_A.id]
    async with gateway(written) as gate:
        everything = await gate.watch(resourceVersion=100, allowWatchBookmarks="1")
        of_b = await gate.watch("b", resourceVersion=100, allowWatchBookmarks="1")
        written.put("b", "two", heard=False)
        written.put("a", "one")
        await settled(60.0)
        assert idle.overtaken == [102]
        assert everything.told == ["ADDED a/one 102", "BOOKMARK 102"]
        assert of_b.told == ["BOOKMARK 100"]
        idle.hear()
        await settled()
        # Resumed at 102, it would not be told of this one: a single partition replays exactly.
        assert of_b.told == ["BOOKMARK 100", "ADDED b/two 101"]
        assert (await gate.watch("b", resourceVersion=100)).told == ["ADDED b/two 101"]


@virtual
async def test_watchers_share_the_frame_of_a_bookmark():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        readers = [await gate.watch(resourceVersion=100, allowWatchBookmarks="1") for _ in range(5)]
        await settled(60.0)
        assert len({id(reader.frames[0]) for reader in readers}) == 1


@virtual
async def test_without_a_timeout_a_watch_lasts_between_half_an_hour_and_an_hour():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        for _ in range(10):
            await gate.watch(resourceVersion=100)
        await settled(1799.0)
        assert not any(task.done() for task in gate.running)
        await settled(1802.0)
        assert all(task.done() for task in gate.running)


@virtual
async def test_a_hub_without_watchers_lingers_and_then_lets_go():
    written = Written(WHOLE)
    part = written.parts[WHOLE.id]
    async with gateway(written, linger_s=30.0) as gate:
        await gate.watch(resourceVersion=100, timeoutSeconds=5)
        await settled(20.0)
        assert part.feeds.readers == 1
        await gate.watch(resourceVersion=100, timeoutSeconds=5)
        assert [type(call).__name__ for call in gate.ways[WHOLE.id].calls].count("FeedQuery") == 1
        await settled(60.0)
        assert part.feeds.readers == 0
        assert gate.router.statistics.feeds_open == 0
        assert (await gate.watch(resourceVersion=100)).told == []


@virtual
async def test_closing_the_router_ends_watches_in_order():
    written = Written(IN_A, NOT_A)
    async with gateway(written) as gate:
        reader = await gate.watch(resourceVersion=100)
        await gate.router.aclose()
        await settled()
        assert gate.running[0].done()
        assert gate.running[0].exception() is None
        assert reader.told == []
    assert all(part.feeds.readers == 0 for part in written.parts.values())


@virtual
async def test_a_watch_that_is_cancelled_leaves_nothing_behind():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        slow = Reader()
        slow.slow_s = 1e6
        written.put("a", "one")
        await gate.watch(reader=slow)
        await gate.watch(resourceVersion=100)
        for task in gate.running:
            task.cancel()
        await settled()
        assert gate.router.watchers["v1/pods"] == 0
        gate.running.clear()


# -- clients -------------------------------------------------------------------------------------------------


@virtual
async def test_a_client_that_takes_no_more_is_dropped_and_others_do_not_notice():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        slow = await gate.watch(resourceVersion=100, reader=Reader(limit=1))
        other = await gate.watch(resourceVersion=100)
        for _ in range(3):
            written.put("a", "one")
            await settled()
        assert len(slow.told) == 1
        assert len(other.told) == 3
        assert gate.running[0].done()
        assert not gate.running[1].done()
        assert gate.router.statistics.slow == 1


@virtual
async def test_a_client_that_is_slow_to_take_the_past_misses_nothing_and_costs_a_bounded_amount():
    written = Written(WHOLE)
    for _ in range(10):
        written.put("a", "one")
    async with gateway(written) as gate:
        reader = Reader()
        reader.slow_s = 5.0
        await gate.watch(resourceVersion=100, reader=reader)
        for _ in range(COLLECTED_EVENTS + 10):
            written.put("a", "one")
        await settled()
        assert len(reader.told) == 10
        await settled(60.0)
        assert gate.router.statistics.overrun == 1
        assert reader.told == [
            f"{'MODIFIED' if n > 101 else 'ADDED'} a/one {n}" for n in range(101, written.revision + 1)
        ]


@virtual
async def test_forms():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        tables = [
            await gate.watch(resourceVersion=100, form=form(convert="Table"), allowWatchBookmarks="1")
            for _ in range(2)
        ]
        metadata = await gate.watch(resourceVersion=100, form=form(convert="PartialObjectMetadata"))
        await settled(60.0)
        written.put("a", "one")
        written.put("a", "one")
        await settled()
        late = await gate.watch(resourceVersion=100, form=form(convert="Table"))
        for reader in (*tables, late):
            events = [event for event in reader.events if event["type"] != "BOOKMARK"]
            assert [event["object"]["kind"] for event in events] == ["Table", "Table"]
            assert [bool(event["object"]["columnDefinitions"]) for event in events] == [True, False]
        assert tables[0].frames[-1] is tables[1].frames[-1]
        bookmark = next(event for event in tables[0].events if event["type"] == "BOOKMARK")
        assert bookmark["object"]["kind"] == "Table"
        assert bookmark["object"]["metadata"]["resourceVersion"] == "100"
        assert [event["object"]["kind"] for event in metadata.events] == ["PartialObjectMetadata"] * 2
        assert "spec" not in metadata.events[0]["object"]


# -- trouble -------------------------------------------------------------------------------------------------


@virtual
async def test_a_feed_that_is_lost_is_found_again_without_a_gap():
    written = Written(IN_A, NOT_A)
    async with gateway(written) as gate:
        reader = await gate.watch(resourceVersion=100)
        written.put("a", "one")
        await settled()
        way = gate.ways[IN_A.id]
        way.away = True
        way.cut()
        written.put("a", "one")
        written.put("b", "two")
        await settled(2.0)
        assert reader.told == ["ADDED a/one 101"]
        way.away = False
        await settled(2.0)
        assert reader.told == ["ADDED a/one 101", "MODIFIED a/one 102", "ADDED b/two 103"]
        assert gate.router.statistics.feeds_reopened == 1
        # The shard may be another one: what it has to acknowledge is asked for again.
        assert max(written.parts[IN_A.id].overtaken) == 103


@virtual
async def test_a_shard_that_stays_away_ends_only_the_watches_that_need_it():
    written = Written(IN_A, NOT_A)
    async with gateway(written, patience_s=5.0) as gate:
        everything = await gate.watch(resourceVersion=100)
        of_b = await gate.watch("b", resourceVersion=100)
        way = gate.ways[IN_A.id]
        way.away = True
        way.cut()
        await settled(10.0)
        assert everything.told == []
        assert gate.running[0].done()
        assert gate.router.statistics.lost == 1
        with pytest.raises(NotReady):
            await gate.open()
        written.put("b", "two")
        await settled()
        assert of_b.told == ["ADDED b/two 101"]


@virtual
async def test_a_position_that_is_forgotten_is_told():
    written = Written(IN_A, NOT_A)
    async with gateway(written) as gate:
        everything = await gate.watch(resourceVersion=100)
        of_b = await gate.watch("b", resourceVersion=100)
        way = gate.ways[IN_A.id]
        way.away = True
        way.cut()
        await settled()
        part = written.parts[IN_A.id]
        part.list((), 500)
        part.store._history.restart(500)
        way.away = False
        await settled(2.0)
        assert everything.told == ["ERROR 410"]
        assert of_b.told == []
        assert [task.done() for task in gate.running] == [True, False]


@virtual
async def test_a_silent_feed_is_dead():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        reader = await gate.watch(resourceVersion=100)
        gate.ways[WHOLE.id]._delay = lambda: 1e9
        written.put("a", "one")
        await settled(2 * FEED_BEAT_S)
        assert reader.told == []
        gate.ways[WHOLE.id]._delay = lambda: 0.0
        gate.ways[WHOLE.id]._arrives = 0.0
        await settled(2 * FEED_BEAT_S)
        assert reader.told == ["ADDED a/one 101"]


@virtual
async def test_a_resource_that_is_gone_ends_watches_in_order():
    written = Written(WHOLE)
    written.put("a", "one")
    async with gateway(written) as gate:
        keeper = asyncio.create_task(gate.routing.run())
        reader = await gate.watch(resourceVersion=101)
        gate.routing.take(RouteTable(epoch=Epoch(2)))
        written.delete("a", "one")
        await settled()
        gate.ways[WHOLE.id].away = True
        gate.ways[WHOLE.id].cut()
        await settled(5.0)
        assert reader.told == ["DELETED a/one 102"]
        assert gate.running[0].done()
        keeper.cancel()


@virtual
async def test_a_partition_that_moves_is_followed_where_it_is():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        keeper = asyncio.create_task(gate.routing.run())
        reader = await gate.watch(resourceVersion=100)
        written.shards[ShardId("shard-9")] = WHOLE.id
        gate.routing.take(
            RouteTable(epoch=Epoch(2), catalogue=(PODS,), routes=(Route(WHOLE, ShardId("shard-9")),))
        )
        await settled(1.0)
        assert gate.ways[WHOLE.id].shard_id == "shard-9"
        written.put("a", "one")
        await settled()
        assert reader.told == ["ADDED a/one 101"]
        assert written.parts[WHOLE.id].feeds.readers == 1
        keeper.cancel()


@virtual
async def test_an_object_that_cannot_be_told_in_a_form_ends_those_who_want_it():
    written = Written(WHOLE)
    async with gateway(written) as gate:
        table = await gate.watch(resourceVersion=100, form=form(convert="PartialObjectMetadata"))
        plain = await gate.watch(resourceVersion=100)
        event = written.parts[WHOLE.id]
        written.put("a", "one", heard=False)
        broken = event.to_hear.pop()
        event.to_hear.append(msgspec.structs.replace(broken, body=b'{"metadata":7}'))
        event.hear()
        await settled()
        assert json.loads(table.lines[-1])["type"] == "ERROR"
        assert len(plain.lines) == 1
        assert [task.done() for task in gate.running] == [True, False]


@virtual
async def test_selectors_that_exclude_a_partition_do_not_depend_on_it():
    parts = [
        Partition(POD, OneNamespace("a")),
        Partition(POD, OneNamespace("b")),
        Partition(POD, ExceptNamespaces(("a", "b"))),
    ]
    written = Written(*parts)
    written.parts[parts[1].id].mute = True
    async with gateway(written, patience_s=1.0) as gate:
        reader = await gate.watch(resourceVersion=100, fieldSelector="metadata.namespace!=b")
        written.put("a", "one")
        await settled(5.0)
        assert reader.told == ["ADDED a/one 101"]
        assert not gate.running[0].done()
