"""Places for snapshots: a folder, and what fsspec knows: its own file system in memory, and one whose calls fail."""

import io
import os
import sys
import types

import pytest

from shoal.shards.locations import (
    DRAFT_AGE_S,
    DRAFT_SUFFIX,
    Elsewhere,
    Folder,
    LocationFailed,
    open_location,
)
from shoal.shards.model.errors import SettingsError


class MemoryFiles:
    """As much of an fsspec file system as is used; what is written appears when it is closed, as in an object store."""

    def __init__(self):
        self.files = {}
        self.fails = set()

    def _may(self, what):
        if what in self.fails:
            raise RuntimeError(f"{what} failed: SlowDown")

    def invalidate_cache(self, path):
        pass

    def makedirs(self, path, exist_ok):
        self._may("makedirs")

    def ls(self, root, detail):
        self._may("ls")
        found = [path for path in self.files if path.startswith(f"{root}/")]
        if not found:
            raise FileNotFoundError(root)
        return found

    def open(self, path, mode):
        self._may("open")
        if mode == "rb":
            if path not in self.files:
                raise FileNotFoundError(path)
            file = io.BytesIO(self.files[path])
        else:
            file = Growing(self, path)
        return file

    def mv(self, before, after):
        self._may("mv")
        self.files[after] = self.files.pop(before)

    def rm_file(self, path):
        self._may("rm_file")
        if path not in self.files:
            raise FileNotFoundError(path)
        del self.files[path]


class Growing(io.BytesIO):
    def __init__(self, place, path):
        super().__init__()
        self._place, self._path = place, path

    def write(self, data):
        self._place._may("write")
        return super().write(data)

    def close(self):
        if not self.closed:
            self._place.files[self._path] = self.getvalue()
        super().close()

    def discard(self):
        super().close()


@pytest.fixture(params=["folder", "elsewhere"])
def place(request, tmp_path):
    return (
        Folder(tmp_path / "deep" / "folder")
        if request.param == "folder"
        else Elsewhere(MemoryFiles(), "bucket/here")
    )


def read(place, name):
    file = place.open(name)
    if file is None:
        return None
    try:
        return file.read(3) + file.read(1 << 20)
    finally:
        file.close()


def put(place, name, content, writer="one"):
    draft = place.draft(name, writer)
    for byte in content:
        draft.write(bytes((byte,)))
    draft.commit()


def leave(draft):
    """As a process that dies."""
    draft.write(b"half")
    if hasattr(draft._file, "fileno"):
        draft._file.close()


def test_what_was_written_is_read(place):
    assert place.names() == []
    assert place.open("a") is None
    put(place, "a", b"hello")
    put(place, "b", b"")
    assert sorted(place.names()) == ["a", "b"]
    assert (read(place, "a"), read(place, "b")) == (b"hello", b"")
    put(place, "a", b"again")
    assert read(place, "a") == b"again"
    place.remove("a")
    place.remove("a")
    assert place.names() == ["b"]


def test_a_draft_is_nothing_until_it_is_complete(place):
    put(place, "a", b"before")
    draft = place.draft("a", "one")
    draft.write(b"after")
    assert place.names() == ["a"]
    assert read(place, "a") == b"before"
    draft.abandon()
    assert place.names() == ["a"]
    draft.abandon()
    assert read(place, "a") == b"before"


def test_drafts_of_two_writers_do_not_meet(place):
    one, two = place.draft("a", "one"), place.draft("a", "two")
    one.write(b"one")
    two.write(b"two")
    two.commit()
    one.commit()
    assert read(place, "a") == b"one"
    assert place.names() == ["a"]


def test_a_writer_begins_anew_over_its_own_draft(place):
    leave(place.draft("a", "one"))
    put(place, "a", b"new")
    assert read(place, "a") == b"new"


@pytest.mark.parametrize("fails", ["ls", "open", "makedirs", "write", "mv"])
def test_whatever_fails_elsewhere_is_one_error_and_leaves_nothing(fails):
    files = MemoryFiles()
    place = Elsewhere(files, "bucket")
    put(place, "a", b"before")
    files.fails = {fails}
    with pytest.raises(LocationFailed, match=f"cannot be .*: {fails} failed: SlowDown"):
        if fails == "ls":
            place.names()
        else:
            draft = place.draft("a", "one")
            try:
                draft.write(b"after")
                draft.commit()
            except LocationFailed:
                draft.abandon()
                raise
    files.fails = set()
    assert read(place, "a") == b"before"
    assert list(files.files) == ["bucket/a"]


def test_what_breaks_off_while_it_is_read_is_that_error_too():
    files = MemoryFiles()
    place = Elsewhere(files, "bucket")
    put(place, "a", b"content")
    file = place.open("a")
    file._file.read = lambda size: files._may("read")
    files.fails = {"read", "rm_file"}
    with pytest.raises(LocationFailed, match="bucket/a cannot be read: read failed"):
        file.read(3)
    with pytest.raises(LocationFailed, match="bucket/a cannot be removed"):
        place.remove("a")


def test_drafts_that_nobody_completes_are_removed(tmp_path):
    place = Folder(tmp_path)
    place.tidy(0.0)
    put(place, "a", b"whole")
    for name, age in (("old", DRAFT_AGE_S + 1), ("young", DRAFT_AGE_S - 1)):
        leave(place.draft(name, "one"))
        (path,) = tmp_path.glob(f".{name}.*{DRAFT_SUFFIX}")
        os.utime(path, (1e9 - age, 1e9 - age))
    place.tidy(1e9)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".young.one{DRAFT_SUFFIX}", "a"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").symlink_to(target)
    (folder / f".b.one{DRAFT_SUFFIX}").symlink_to(target)
    put(Folder(folder), "a", b"mine")
    put(Folder(folder), "b", b"mine")
    assert target.read_text() == "precious"
    assert not (folder / "a").is_symlink()


# -- names of places ------------------------------------------------------------------------------------------


def test_paths_are_folders(tmp_path):
    assert isinstance(open_location(str(tmp_path)), Folder)
    assert str(open_location(f"file://{tmp_path}")) == str(tmp_path)
    assert str(open_location("~/x")) == os.path.expanduser("~/x")  # noqa: PTH111 - compared with


def test_without_fsspec_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SettingsError, match=r"snapshots\.location: s3:// .* install shoal\[snapshots\]"):
        open_location("s3://bucket/folder")


def test_with_it_places_are_what_it_says(monkeypatch):
    files = MemoryFiles()

    def url_to_fs(url):
        if url.startswith("odd"):
            raise ValueError("Protocol not known: odd")
        return files, url.partition("://")[2] + "/"

    fsspec = types.ModuleType("fsspec")
    fsspec.core = types.SimpleNamespace(url_to_fs=url_to_fs)
    monkeypatch.setitem(sys.modules, "fsspec", fsspec)
    place = open_location("s3://bucket/folder/")
    put(place, "a", b"x")
    assert list(files.files) == ["bucket/folder/a"]
    with pytest.raises(SettingsError, match="Protocol not known"):
        open_location("odd://x")


def test_a_place_of_fsspec_itself():
    place = open_location("memory://snapshots-of-a-test/one")
    assert place.names() == []
    assert place.open("a") is None
    draft = place.draft("a", "writer")
    draft.write(b"all of ")
    draft.write(b"it")
    assert place.names() == []
    draft.commit()
    assert place.names() == ["a"]
    reader = place.open("a")
    assert reader.read(100) == b"all of it"
    reader.close()
    place.remove("a")
    place.remove("a")
    assert place.names() == []
