"""Snapshots that cannot be read or written: nothing is lost, and everything is said."""

import asyncio
import errno
import os
import random
import resource

import pytest
from support.resumed_shard import CONFIG_MAPS, EVERY_S, PARTITION, SECRETS, on

from shoal.shards.handle import Assignment
from shoal.shards.locations import Folder, LocationFailed
from shoal.shards.model.partitions import Epoch, Partition
from shoal.shards.snapshot_writing import WORTH_PERIODS
from shoal.shards.store import snapshot_format
from shoal.shards.store.snapshot_format import HEAD_BYTES, MAGIC

SECRET = Partition(SECRETS.resource)


async def written(bench):
    await bench.follow()
    await asyncio.sleep(EVERY_S)
    assert bench.outcomes["written"] >= 1


async def listed_instead(bench, outcome):
    """Started again, the shard counts why, lists, and is right."""
    await bench.restart()
    await bench.served_within(20)
    assert bench.outcomes.get("resumed", 0) == 0
    assert bench.outcomes[outcome] == 1
    assert bench.lists() == 1
    assert await bench.equals_the_server()


# -- damage ---------------------------------------------------------------------------------------------------


def cut(part):
    return lambda data: data[: int(len(data) * part)]


def flipped(part):
    def damage(data):
        at = int(len(data) * part)
        return data[:at] + bytes((data[at] ^ 0x10,)) + data[at + 1 :]

    return damage


DAMAGES = {
    "empty": lambda data: b"",
    "head cut": lambda data: data[: HEAD_BYTES - 1],
    "label cut": lambda data: data[: HEAD_BYTES + 20],
    "half": cut(0.5),
    "end cut": lambda data: data[:-1],
    "flipped early": flipped(0.02),
    "flipped in the middle": flipped(0.5),
    "flipped late": flipped(0.99),
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: random.Random(1).randbytes(len(data)),
    "something behind it": lambda data: data + b"more",
    "twice": lambda data: data + data,
    "another magic": lambda data: b"notshoal" + data[8:],
    "another format": lambda data: MAGIC + b"\x00\x63" + data[10:],
    "html": lambda data: b"<html>503</html>",
    "zeros behind it": lambda data: data + bytes(4),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_not_used(tmp_path, damage, caplog):
    async def main(bench):
        bench.fill(200, data={"k": "v" * 50})
        await written(bench)
        await bench.shard.stop()
        file = bench.file()
        file.write_bytes(DAMAGES[damage](file.read_bytes()))
        await listed_instead(bench, "garbage")
        await asyncio.sleep(EVERY_S)
        await bench.restart()
        await bench.served_within(20)
        assert bench.outcomes["resumed"] == 1, "the next snapshot has taken its place"

    on(tmp_path, main)
    (record,) = [record for record in caplog.records if record.message == "snapshot not used"]
    assert (record.partition, record.levelname) == ("v1/configmaps", "WARNING")
    assert record.why


def test_any_byte_that_is_changed_and_any_cut_is_noticed(tmp_path):
    async def main(bench):
        bench.fill(20, data={"k": "v" * 50})
        await written(bench)
        file = bench.file()
        whole = file.read_bytes()
        assignment = Assignment(partition=PARTITION, resource_type=CONFIG_MAPS)
        rng = random.Random(2)
        for _ in range(300):
            at = rng.randrange(len(whole))
            damaged = whole[:at] + bytes((whole[at] ^ (1 << rng.randrange(8)),)) + whole[at + 1 :]
            file.write_bytes(damaged)
            assert await bench.snapshots.load(assignment) is None, at
            file.write_bytes(whole[:at])
            assert await bench.snapshots.load(assignment) is None, at
        file.write_bytes(whole)
        assert len(await bench.snapshots.load(assignment)) == 20
        assert bench.outcomes["garbage"] == 600

    on(tmp_path, main)


def test_frames_of_two_snapshots_do_not_mix(tmp_path):
    async def main(bench):
        bench.fill(200)
        await written(bench)
        one = bench.file().read_bytes()
        bench.change("object-00001", app="web")
        bench.change("object-00002", app="web")
        await asyncio.sleep(WORTH_PERIODS * EVERY_S * 1.5)
        other = bench.file().read_bytes()
        assert one != other
        await bench.shard.stop()
        label = HEAD_BYTES + snapshot_format.read_head(one).length
        bench.file().write_bytes(one[:label] + other[label:])
        await listed_instead(bench, "garbage")

    on(tmp_path, main)


def test_what_is_no_file_is_not_read(tmp_path):
    async def main(bench):
        bench.fill(5)
        await written(bench)
        await bench.shard.stop()
        bench.file().unlink()
        os.mkfifo(bench.file(), 0o600)
        await listed_instead(bench, "unreadable")

    on(tmp_path, main)


def test_what_others_may_write_is_not_read(tmp_path):
    async def main(bench):
        bench.fill(5)
        await written(bench)
        await bench.shard.stop()
        bench.file().chmod(0o666)
        await listed_instead(bench, "unreadable")

    on(tmp_path, main)


def test_a_folder_that_vanished_is_made_again(tmp_path):
    async def main(bench):
        bench.fill(5)
        await written(bench)
        await bench.shard.stop()
        bench.file().unlink()
        bench.folder.rmdir()
        await listed_instead(bench, "none")
        await asyncio.sleep(EVERY_S)
        assert bench.file().exists()

    on(tmp_path / "snapshots", main)


def test_a_place_that_is_no_folder_is_said_once_and_nothing_else_suffers(tmp_path, caplog):
    async def main(bench):
        bench.fill(5)
        await bench.follow()
        await bench.served_within(10)
        await asyncio.sleep(10 * EVERY_S)
        assert bench.outcomes["unreadable"] == 1
        assert bench.outcomes["unwritten"] >= 5
        assert await bench.equals_the_server()

    place = tmp_path / "file"
    place.write_text("not a folder")
    on(place, main)
    said = [record for record in caplog.records if record.message == "snapshot not written"]
    assert len(said) == 1
    assert "no folder" in said[0].why


class Refusing(Folder):
    """Permission is refused, whoever asks: tests may run as root."""

    def open(self, name):
        raise LocationFailed(f"{name} cannot be read: Permission denied")

    def names(self):
        raise LocationFailed("cannot be listed: Permission denied")

    def draft(self, name, writer):
        raise LocationFailed(f"{name} cannot be written: Permission denied")


def test_permission_that_is_refused_means_a_list(tmp_path):
    async def main(bench):
        bench.fill(5)
        await bench.follow()
        await bench.served_within(10)
        await asyncio.sleep(3 * EVERY_S)
        assert bench.outcomes["unreadable"] == 1
        assert bench.outcomes["unwritten"] >= 1
        await bench.shard.release([PARTITION.id], Epoch(3))

    on(tmp_path, main, location=Refusing(tmp_path))


# -- a full disk ----------------------------------------------------------------------------------------------


class FullDisk(Folder):
    """A folder on a disk with room for so many bytes."""

    def __init__(self, path):
        super().__init__(path)
        self.room = 1 << 40

    def draft(self, name, writer):
        draft, inner = super().draft(name, writer), self
        file = draft._file

        class Counted:
            def write(self, piece):
                taken = min(len(piece), inner.room)
                inner.room -= taken
                if not taken:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return file.write(piece[:taken])

            def __getattr__(self, name):
                return getattr(file, name)

        draft._file = Counted()
        return draft


@pytest.mark.parametrize("room", [0, 100, 5000])
def test_a_full_disk_leaves_the_last_snapshot_and_no_draft(tmp_path, room, caplog):
    async def main(bench):
        bench.fill(300, data={"k": "v" * 100})
        await written(bench)
        before = bench.file().read_bytes()
        bench.location.room = room
        for number in range(300):
            bench.change(f"object-{number:05}", app="web")
        await asyncio.sleep(4 * EVERY_S)
        assert bench.outcomes["unwritten"] >= 2
        assert bench.file().read_bytes() == before
        assert list(tmp_path.iterdir()) == [bench.file()]
        assert await bench.equals_the_server()
        bench.location.room = 1 << 40
        await asyncio.sleep(2 * EVERY_S)
        assert bench.file().read_bytes() != before
        await bench.restart()
        await bench.served_within(10)
        assert bench.lists() == 0
        assert await bench.equals_the_server()

    on(tmp_path, main, location=FullDisk(tmp_path))
    said = [record.message for record in caplog.records if record.message.startswith("snapshot")]
    assert said == ["snapshot not written", "snapshots are written again"]


def test_a_limit_of_the_system_is_like_a_full_disk(tmp_path):
    folder = Folder(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    draft = folder.draft("a", "one")
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(LocationFailed, match="a cannot be written: File too large"):
            draft.write(bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    draft.abandon()
    assert list(tmp_path.iterdir()) == []
