"""Where snapshots are: a folder of this machine, or whatever fsspec knows. Everything here blocks; `snapshots` runs it
in threads of its own.

What it keeps true: a snapshot that can be read under its name was written to its end. It grows under another name and
is renamed when it is complete and on disk; a process that dies in between leaves a draft, which is removed later. Files
can be read by their owner alone.

Whatever goes wrong outside is a `LocationFailed` that says what and where, and a missing file None.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Any, Final, Protocol

from .model.errors import SettingsError, ShoalError

DRAFT_SUFFIX: Final = ".draft"
DRAFT_AGE_S: Final = 3600.0
"""A draft that was not written to for so long is nobody's."""
LISTED_MAX: Final = 10_000
"""Names looked at; a location with more is shared with something else."""


class LocationFailed(ShoalError):  # noqa: N818 - what happened, like the other errors of `model.errors`
    """A snapshot, or the place where they are, cannot be read or written now."""


class Reader(Protocol):
    """A snapshot that is read."""

    def read(self, size: int, /) -> bytes:
        """So many bytes, fewer at the end. Raises LocationFailed or OSError."""

    def close(self) -> None:
        """Lets go of it."""


class Draft(Protocol):
    """A snapshot that grows."""

    def write(self, piece: bytes) -> None:
        """Appends. Raises LocationFailed."""

    def commit(self) -> None:
        """It is complete: it takes the place of what was under its name. Raises LocationFailed; it is gone then."""

    def abandon(self) -> None:
        """It will not be completed, and is removed as far as that can be done. Never raises."""


class Location(Protocol):
    """A place with snapshots by name."""

    def names(self) -> list[str]:
        """What is there, drafts not included; nothing if the place is not there yet. Raises LocationFailed."""

    def open(self, name: str) -> Reader | None:
        """A snapshot to be read and closed, or None. Raises LocationFailed."""

    def draft(self, name: str, writer: str) -> Draft:
        """Begins a snapshot; `writer` tells the drafts of processes apart. Raises LocationFailed."""

    def remove(self, name: str) -> None:
        """Removes a snapshot; does nothing if there is none. Raises LocationFailed."""

    def tidy(self, now: float) -> None:
        """Removes drafts that nobody completes; `now` is in seconds since 1970. Raises LocationFailed."""


def open_location(text: str) -> Location:
    """The place of a setting. Nothing is looked at yet: it may come to be later.

    Raises:
        SettingsError: it needs fsspec, or a part of it, that is not installed.
    """
    scheme, separator, path = text.partition("://")
    if not separator:
        return Folder(Path(text).expanduser())
    if scheme == "file":
        return Folder(Path(path))
    try:
        import fsspec

        filesystem, root = fsspec.core.url_to_fs(text)
    except ImportError as error:
        raise SettingsError(
            f"snapshots.location: {scheme}:// needs what is not installed: {error}; install shoal[snapshots] and what "
            f"fsspec names for {scheme}, or give the path of a folder"
        ) from error
    except ValueError as error:
        raise SettingsError(f"snapshots.location: {text}: {error}") from error
    return Elsewhere(filesystem, root.rstrip("/"))


# -- a folder -------------------------------------------------------------------------------------------------


class Folder:
    """A folder, made when the first snapshot is written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def names(self) -> list[str]:
        """As `Location.names`."""
        try:
            with os.scandir(self._path) as found:
                names = [entry.name for _, entry in zip(range(LISTED_MAX), found, strict=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _failed("listed", self._path, error) from error
        return [name for name in names if not name.endswith(DRAFT_SUFFIX)]

    def open(self, name: str) -> Reader | None:
        """As `Location.open`. What others could have written is not read."""
        path = self._path / name
        try:
            # NB: not blocking, because opening a named pipe would wait for a writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("read", path, error) from error
        file = os.fdopen(descriptor, "rb")
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) or mode & (stat.S_IWGRP | stat.S_IWOTH):
            file.close()
            why = "others may write it" if stat.S_ISREG(mode) else "it is no file"
            raise LocationFailed(f"{path} is not read: {why}; remove it")
        return file

    def draft(self, name: str, writer: str) -> Draft:
        """As `Location.draft`."""
        return _FolderDraft(self._path, name, writer)

    def remove(self, name: str) -> None:
        """As `Location.remove`."""
        path = self._path / name
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _failed("removed", path, error) from error

    def tidy(self, now: float) -> None:
        """As `Location.tidy`."""
        try:
            with os.scandir(self._path) as found:
                for entry in found:
                    if entry.name.endswith(DRAFT_SUFFIX) and now - entry.stat().st_mtime > DRAFT_AGE_S:
                        with contextlib.suppress(FileNotFoundError):
                            (self._path / entry.name).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failed("tidied", self._path, error) from error


class _FolderDraft:
    def __init__(self, folder: Path, name: str, writer: str) -> None:
        self._folder = folder
        self._target = folder / name
        self._path = folder / f".{name}.{writer}{DRAFT_SUFFIX}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            why = "there is something of that name that is no folder" if folder.exists() else error
            raise _failed("made", folder, why) from error
        try:
            self._path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            # Unbuffered: a disk that is full says so when a piece is written.
            self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0)
        except OSError as error:
            raise _failed("written", self._target, error) from error

    def write(self, piece: bytes) -> None:
        try:
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            raise _failed("written", self._target, error) from error

    def commit(self) -> None:
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(self._target)
            self._sync_folder()
        except OSError as error:
            self.abandon()
            raise _failed("written", self._target, error) from error

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _sync_folder(self) -> None:
        """Has the new name on disk, too; a file system that cannot is believed to do so by itself."""
        with contextlib.suppress(OSError):
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


# -- anything else --------------------------------------------------------------------------------------------


class Elsewhere:
    """A place fsspec knows. Who may read there is for the place to say.

    A rename there may be a copy (object stores): what is under a name is whole all the same, because an object comes
    to be at its end. Drafts of processes that died stay where a place keeps incomplete files at all.
    """

    def __init__(self, filesystem: Any, root: str) -> None:
        self._filesystem = filesystem
        self._root = root

    def __str__(self) -> str:
        return self._root

    def names(self) -> list[str]:
        """As `Location.names`."""
        try:
            self._filesystem.invalidate_cache(self._root)
            found = self._filesystem.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise _failed("listed", self._root, error) from error
        names = [str(path).rstrip("/").rpartition("/")[2] for path in found[:LISTED_MAX]]
        return [name for name in names if not name.endswith(DRAFT_SUFFIX)]

    def open(self, name: str) -> Reader | None:
        """As `Location.open`."""
        path = f"{self._root}/{name}"
        try:
            return _ReaderElsewhere(path, self._filesystem.open(path, "rb"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise _failed("read", path, error) from error

    def draft(self, name: str, writer: str) -> Draft:
        """As `Location.draft`."""
        return _DraftElsewhere(self._filesystem, self._root, name, writer)

    def remove(self, name: str) -> None:
        """As `Location.remove`."""
        try:
            self._filesystem.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:
            raise _failed("removed", f"{self._root}/{name}", error) from error

    def tidy(self, now: float) -> None:
        """Nothing: when something was last written is told in another way everywhere."""


class _ReaderElsewhere:
    def __init__(self, path: str, file: Any) -> None:
        self._path = path
        self._file = file

    def read(self, size: int, /) -> bytes:
        try:
            return bytes(self._file.read(size))
        except Exception as error:
            raise _failed("read", self._path, error) from error

    def close(self) -> None:
        with contextlib.suppress(Exception):  # it was only read
            self._file.close()


class _DraftElsewhere:
    def __init__(self, filesystem: Any, root: str, name: str, writer: str) -> None:
        self._filesystem = filesystem
        self._target = f"{root}/{name}"
        self._path = f"{root}/{name}.{writer}{DRAFT_SUFFIX}"
        try:
            filesystem.makedirs(root, exist_ok=True)
            self._file = filesystem.open(self._path, "wb")
        except Exception as error:
            raise _failed("written", self._target, error) from error

    def write(self, piece: bytes) -> None:
        try:
            self._file.write(piece)
        except Exception as error:
            raise _failed("written", self._target, error) from error

    def commit(self) -> None:
        try:
            self._file.close()
            self._filesystem.mv(self._path, self._target)
        except Exception as error:
            self.abandon()
            raise _failed("written", self._target, error) from error

    def abandon(self) -> None:
        # Whatever a place's failures are: there is nothing left to be done about this one.
        with contextlib.suppress(Exception):
            discard = getattr(self._file, "discard", None)
            discard() if discard is not None else self._file.close()
        with contextlib.suppress(Exception):
            self._filesystem.rm_file(self._path)


def _failed(done: str, where: object, why: object) -> LocationFailed:
    return LocationFailed(f"{where} cannot be {done}: {getattr(why, 'strerror', None) or why}")
