"""Snapshots as they are kept: who may see them, when they are written and removed, and what that costs."""

import asyncio
import os
import stat

import pytest
from support.resumed_shard import CONFIG_MAPS, EVERY_S, PARTITION, SECRETS, here, on

from shoal.cluster.simulator.faults import Fault
from shoal.shards.handle import Assignment
from shoal.shards.locations import DRAFT_AGE_S, DRAFT_SUFFIX, LocationFailed
from shoal.shards.model.partitions import Epoch, OneNamespace, Partition
from shoal.shards.model.resources import Resource
from shoal.shards.snapshot_writing import SWEEP_S
from shoal.shards.snapshots import STEP_S, Threads
from shoal.shards.store.snapshot_format import SUFFIX, file_name, file_prefix

SECRET = Partition(SECRETS.resource)


async def written(bench):
    await bench.follow()
    await asyncio.sleep(EVERY_S)
    assert bench.outcomes["written"] >= 1


# -- who may see it -------------------------------------------------------------------------------------------


def test_files_are_their_owners_alone(tmp_path):
    async def main(bench):
        bench.fill(5)
        await written(bench)
        assert stat.S_IMODE(bench.file().stat().st_mode) == 0o600
        assert stat.S_IMODE(bench.folder.stat().st_mode) == 0o700

    before = os.umask(0)
    try:
        on(tmp_path / "snapshots", main)
    finally:
        os.umask(before)


async def secrets(bench, *, redact):
    kind = bench.app.verbs.served(SECRETS.resource)
    document = {"metadata": {"name": "login"}, "data": {"password": "aHVudGVyMg=="}}
    if not bench.app.verbs.collection(kind).objects:
        bench.app.verbs.create(kind, "default", document)
    await bench.restart(Assignment(partition=SECRET, resource_type=SECRETS, redact=redact))
    await bench.served_within(10, SECRET)
    await asyncio.sleep(EVERY_S)


def test_secrets_are_not_written_unless_they_are_redacted(tmp_path):
    async def main(bench):
        await secrets(bench, redact=False)
        assert list(tmp_path.iterdir()) == []
        await secrets(bench, redact=True)
        assert bench.file(SECRET).exists()
        extract = await bench.snapshots.load(Assignment(partition=SECRET, resource_type=SECRETS, redact=True))
        (body,) = [entry.body() for entry in extract.entries]
        assert b"password" in body
        assert b"aHVudGVyMg" not in body
        await bench.restart(Assignment(partition=SECRET, resource_type=SECRETS, redact=True))
        await bench.served_within(10, SECRET)
        assert bench.lists() == 0

    on(tmp_path, main)


def test_secrets_that_were_written_with_their_values_are_removed_when_they_are_to_be_redacted(tmp_path):
    async def allowed(bench):
        await secrets(bench, redact=False)
        assert bench.file(SECRET).exists()

    async def redacted(bench):
        await bench.restart(Assignment(partition=SECRET, resource_type=SECRETS, redact=True))
        await bench.served_within(10, SECRET)
        assert bench.outcomes.get("resumed", 0) == 0
        assert list(tmp_path.iterdir()) == []

    on(tmp_path, allowed, secrets=True)
    on(tmp_path, redacted)


def test_they_are_removed_too_when_secrets_are_not_followed_any_more(tmp_path, caplog):
    async def allowed(bench):
        await secrets(bench, redact=False)

    async def without(bench):
        bench.fill(1)
        await bench.follow()
        await asyncio.sleep(1)
        assert not bench.file(SECRET).exists()

    on(tmp_path, allowed, secrets=True)
    on(tmp_path, without)
    assert "snapshot of secrets removed" in [record.message for record in caplog.records]


# -- when, and how much ---------------------------------------------------------------------------------------


def test_what_has_not_changed_is_not_written_again_until_it_grows_old(tmp_path):
    async def main(bench):
        bench.fill(1000)
        await written(bench)
        first = bench.outcomes["written"]
        await asyncio.sleep(10 * EVERY_S)
        assert bench.outcomes["written"] == first
        bench.change("object-00001", app="web")
        await asyncio.sleep(1.3 * EVERY_S)
        assert bench.outcomes["written"] == first + 1, "little has changed, and long ago was the last"
        bench.change("object-00001", app="db")
        await asyncio.sleep(1.3 * EVERY_S)
        assert bench.outcomes["written"] == first + 1, "little has changed"
        for number in range(10):
            bench.change(f"object-{number:05}", app="shop")
        await asyncio.sleep(1.3 * EVERY_S)
        assert bench.outcomes["written"] == first + 2, "enough has changed"
        await asyncio.sleep(25 * EVERY_S)
        assert bench.outcomes["written"] == first + 3, "it would soon be too old to be used"

    on(tmp_path, main, max_age_s=4000.0)


def test_it_is_written_no_faster_than_is_allowed(tmp_path):
    async def main(bench):
        bench.fill(3000, data={"k": os.urandom(300).hex()})
        await bench.follow()
        await asyncio.sleep(5)
        loop = asyncio.get_running_loop()
        (held,) = bench.shard._followed.values()
        began = loop.time()
        assert await bench.shard._upkeep._writer.write(held)
        size = bench.file().stat().st_size
        assert size > 4 * (64 << 10)
        assert loop.time() - began >= 0.9 * size / (64 << 10)

    on(tmp_path, main, bytes_per_s=64 << 10, every_s=100_000.0, max_age_s=1e6)


def test_a_shard_that_is_stopped_while_it_writes_leaves_no_draft(tmp_path):
    async def main(bench):
        bench.fill(3000, data={"k": os.urandom(300).hex()})
        await bench.follow()
        while not any(path.name.endswith(DRAFT_SUFFIX) for path in tmp_path.iterdir()):
            await asyncio.sleep(0.1)
        await bench.shard.stop()
        assert list(tmp_path.iterdir()) == []

    on(tmp_path, main, bytes_per_s=64 << 10)


def test_what_is_released_is_removed_if_it_is_its_own(tmp_path):
    async def main(bench):
        bench.fill(5)
        await written(bench)
        await bench.restart(name="shard-1")
        await bench.served_within(10)
        await bench.shard.release([PARTITION.id], Epoch(5))
        assert bench.file().exists(), "another shard wrote it"
        await bench.restart()
        await bench.served_within(10)
        await bench.shard.release([PARTITION.id], Epoch(5))
        assert not bench.file().exists()

    on(tmp_path, main)


def test_what_is_of_no_use_to_anybody_is_removed(tmp_path):
    async def main(bench):
        bench.fill(5)
        await written(bench)
        await bench.restart(
            Assignment(
                partition=Partition(CONFIG_MAPS.resource, OneNamespace("none")), resource_type=CONFIG_MAPS
            )
        )
        foreign, draft = tmp_path / f"other{SUFFIX}", tmp_path / f".x.incarnation{DRAFT_SUFFIX}"
        foreign.write_bytes(b"somebody else's")
        draft.write_bytes(b"half")
        old = bench._wall() - DRAFT_AGE_S - 1
        os.utime(draft, (old, old))
        await asyncio.sleep(2 * SWEEP_S)
        assert not bench.file().exists()
        assert not draft.exists()
        assert foreign.exists()

    on(tmp_path, main, max_age_s=2000.0)


def test_what_is_handed_over_or_not_synced_is_not_written(tmp_path):
    async def main(bench):
        bench.fill(5)
        await bench.follow()
        await asyncio.sleep(1)
        for _ in range(30):
            await bench.shard.hand_over([PARTITION.id], Epoch(2))
            await asyncio.sleep(10)
        assert list(tmp_path.iterdir()) == []
        bench.app.faults.arm(Fault(kind="status-500", resource="configmaps", count=None))
        await bench.restart()
        await asyncio.sleep(2 * EVERY_S)
        assert list(tmp_path.iterdir()) == []

    on(tmp_path, main)


# -- names and threads ----------------------------------------------------------------------------------------


def test_names_of_files_are_short_and_differ():
    many = Partition(CONFIG_MAPS.resource, OneNamespace("a" * 63))
    custom = Partition(Resource("a-very-long-group." * 12 + "example.com", "v1alpha1", "widgets"))
    names = {file_name(part.resource, part.id) for part in (PARTITION, many, custom, SECRET)}
    assert len(names) == 4
    assert all(len(name) < 200 and "/" not in name for name in names)
    assert file_name(PARTITION.resource, PARTITION.id).startswith(file_prefix(PARTITION.resource))


async def test_what_blocks_runs_beside_the_loop_and_is_given_up_in_time(monkeypatch):
    import threading

    threads, never = Threads(), threading.Event()
    assert await threads(lambda: threading.current_thread().name) != threading.current_thread().name
    with pytest.raises(LocationFailed, match="no room"):
        await threads(lambda: (_ for _ in ()).throw(LocationFailed("no room")))
    monkeypatch.setattr("shoal.shards.snapshots.STEP_S", 0.01)
    try:
        with pytest.raises(LocationFailed, match="did not answer"):
            await threads(never.wait)
    finally:
        never.set()
    assert STEP_S > 1
    assert await here(lambda: 1) == 1
