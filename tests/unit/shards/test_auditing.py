"""The self-audit of a shard over the embedded API server, in virtual time: what it finds, repairs, costs and leaves."""

import asyncio
import logging

import msgspec
import pytest
from support.audited_shard import PARTITION, PERIOD_S, on

from shoal.shards.model.errors import Expired
from shoal.shards.model.partitions import Epoch
from shoal.shards.model.queries import ChangesQuery, FeedQuery
from shoal.shards.model.refs import Key

TWICE = 2.5 * PERIOD_S
"""Long enough for an audit, and for another."""


async def feed_of(bench, seen):
    """Gathers what a gateway is told."""
    async for batch in bench.shard.feed(FeedQuery(partition=PARTITION.id, epoch=Epoch(1))):
        seen += [(event.type, event.key, event.version) for event in batch.events]


def test_what_is_equal_is_found_equal_and_listed_once():
    async def main(bench):
        bench.fill(1200)
        await bench.follow()
        await asyncio.sleep(TWICE)
        found = bench.found
        assert found.audits["equal"] >= 1
        assert set(found.audits) == {"equal"}
        assert found.divergence == {}
        assert found.audited_objects == 1200 * found.audits["equal"]
        assert sum(found.lists.values()) == 1
        assert 0 <= found.audited_age_s <= 1.5 * PERIOD_S

    on(main)


def test_an_event_that_was_lost_is_found_repaired_and_told():
    async def main(bench):
        bench.fill(5)
        await bench.follow()
        await asyncio.sleep(1)
        seen = []
        feed = asyncio.create_task(feed_of(bench, seen))
        bench.connection.loses = b'"object-00003"'
        version = bench.change("object-00003", app="web")
        bench.change("object-00001", app="web")
        await asyncio.sleep(1)
        bench.connection.loses = b""
        assert not await bench.equals_the_server(), "the event was not lost"
        await bench.busy(TWICE)
        found = bench.found
        assert found.audits["divergent"] == 1
        assert found.divergence == {"different": 1}
        assert found.watch_restarts["distrusted"] == 1
        assert sum(found.lists.values()) == 2
        assert await bench.equals_the_server()
        told = [event for event in seen if event[1] == "default/object-00003"]
        assert [kind for kind, _, _ in told] == ["MODIFIED"]
        assert told[0][2] >= version
        assert [at for _, _, at in seen] == sorted(at for _, _, at in seen)
        feed.cancel()

    on(main)


def test_what_is_corrected_at_a_version_that_was_told_ends_feeds_and_is_told_to_who_resumes_there():
    async def main(bench):
        bench.fill(3)
        await bench.follow()
        await asyncio.sleep(1)
        seen = []
        feed = asyncio.create_task(feed_of(bench, seen))
        bench.connection.loses = b'"object-00001"'
        bench.change("object-00001", app="web")
        version = bench.change("object-00002", app="web")
        await asyncio.sleep(1)
        bench.connection.loses = b""
        await asyncio.sleep(TWICE)
        assert bench.found.divergence == {"different": 1}
        with pytest.raises(Expired, match="was corrected"):
            await feed
        query = ChangesQuery(partition=PARTITION.id, epoch=Epoch(1), since=version)
        (page,) = [page async for page in bench.shard.changes(query)]
        assert [(change.type, change.key) for change in page.changes] == [
            ("MODIFIED", "default/object-00001")
        ]

    on(main)


@pytest.mark.parametrize(
    ("what", "kind", "event"),
    [
        ("created", "missing", "ADDED"),
        ("deleted", "surplus", "DELETED"),
        ("recreated", "different", "MODIFIED"),
    ],
)
def test_every_kind_of_lost_event_is_found(what, kind, event):
    async def main(bench):
        bench.fill(3)
        await bench.follow()
        await asyncio.sleep(1)
        seen = []
        feed = asyncio.create_task(feed_of(bench, seen))
        bench.connection.loses = b'"object-00001"' if what != "created" else b'"object-new"'
        if what == "created":
            bench.create("object-new")
        else:
            bench.delete("object-00001")
        if what == "recreated":
            bench.create("object-00001")
        bench.change("object-00002", app="web")
        await asyncio.sleep(1)
        bench.connection.loses = b""
        await bench.busy(TWICE)
        assert bench.found.divergence == {kind: 1}
        assert [one[0] for one in seen if one[1] != "default/object-00002"] == [event]
        assert await bench.equals_the_server()
        feed.cancel()

    on(main)


def test_what_the_store_itself_got_wrong_is_repaired_too():
    async def main(bench):
        bench.fill(4)
        await bench.follow()
        await asyncio.sleep(1)
        store = bench.held.store
        entry = store._entries[Key("default/object-00002")]
        # As an event with a version that never was: without the audit, all its true changes would be ignored.
        entry.version += 100_000
        await asyncio.sleep(TWICE)
        assert bench.found.divergence == {"different": 1}
        assert await bench.equals_the_server()
        bench.change("object-00002", app="web")
        await asyncio.sleep(1)
        assert await bench.equals_the_server()

    on(main)


def test_a_difference_that_heals_before_it_is_asked_for_again_does_not_count():
    async def main(bench):
        bench.fill(3)
        await bench.follow()
        await asyncio.sleep(1)
        bench.connection.loses = b'"object-00001"'
        bench.change("object-00001", app="web")
        bench.change("object-00002", app="web")
        await asyncio.sleep(1)
        bench.connection.loses = b""

        async def heal(request):
            if ("fieldSelector", "metadata.name=object-00001") in request.query:
                bench.change("object-00001", app="db")

        bench.connection.before = heal
        await asyncio.sleep(TWICE)
        found = bench.found
        assert found.audits["unconfirmed"] == 1
        assert "divergent" not in found.audits
        assert found.divergence == {}
        assert sum(found.lists.values()) == 1

    on(main)


def test_differences_are_logged_by_their_keys_and_never_with_contents(caplog):
    async def main(bench):
        bench.fill(2, data={"password": "hunter2"})
        await bench.follow()
        await asyncio.sleep(1)
        bench.connection.loses = b'"object-00001"'
        bench.change("object-00001", app="web")
        bench.change("object-00000", app="web")
        await asyncio.sleep(1)
        bench.connection.loses = b""
        await asyncio.sleep(TWICE)

    with caplog.at_level(logging.INFO, "shoal.shards"):
        on(main)
    (record,) = [record for record in caplog.records if record.message.startswith("objects differ")]
    assert record.levelno == logging.ERROR
    assert record.different == ["default/object-00001"]
    assert (record.missing, record.surplus, record.count) == ([], [], 1)
    assert not any("hunter2" in str(vars(record)) for record in caplog.records)


def test_another_api_server_with_higher_versions_is_found_out():
    async def main(bench):
        bench.fill(30)
        await bench.follow()
        await asyncio.sleep(1)
        # As if the address led to another cluster of the same names that is further on: its watch says nothing of what
        # there was before.
        collection = bench.app.verbs.collection(bench.kind)
        for key, stored in list(collection.objects.items()):
            uid = f"other-{stored.uid}"
            body = stored.body.replace(stored.uid.encode(), uid.encode())
            collection.objects[key] = msgspec.structs.replace(stored, uid=uid, body=body)
        bench.app.storage.advance(bench.app.storage.revision + 1000)
        await asyncio.sleep(TWICE)
        assert bench.found.divergence == {"different": 30}
        assert bench.found.audits["divergent"] == 1
        assert bench.found.audits["equal"] >= 1

    on(main)


def test_a_server_that_went_back_in_silence_is_listed():
    async def main(bench):
        bench.fill(10)
        await bench.follow()
        await asyncio.sleep(1)
        at = bench.app.storage.revision
        for number in range(5):
            bench.change(f"object-{number:05}", app="web")
        await asyncio.sleep(1)
        # Restored from a backup, behind a proxy that keeps the watch open.
        bench.app.storage.revision = at
        collection = bench.app.verbs.collection(bench.kind)
        collection.begin_anew(at, back=True)
        await asyncio.sleep(TWICE)
        assert bench.found.audits["behind"] == 1
        assert bench.found.frontier == at

    on(main)
