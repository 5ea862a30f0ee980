"""What of this user runs on this machine: a note for each ``shoal up``, by which ``shoal down`` finds it.

A note is a small JSON file named after the port. It names a process by its id and when it was started, so that a
stale note is never mistaken for another process that was given the same id.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil

from ...shards.model.errors import ShoalError

log = logging.getLogger("shoal.cluster.cli")


class Running(msgspec.Struct, frozen=True):
    """One ``shoal up``."""

    pid: int
    started: float
    """As the kernel tells it, seconds since the epoch."""
    url: str

    @property
    def process(self) -> psutil.Process | None:
        """The process, unless it has ended."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


def folder() -> Path:
    """Where notes and logs are, made if need be.

    Raises:
        ShoalError: it cannot be made.
    """
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(state).expanduser() / "shoal"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ShoalError(
            f"the folder {path} for what runs on this machine cannot be made: {error.strerror}; "
            "set XDG_STATE_HOME to a folder that can be written"
        ) from error
    return path


@contextlib.contextmanager
def noted(url: str) -> Iterator[None]:
    """Notes this process while the context is open. A note that cannot be written is only warned of."""
    note = _write(url)
    try:
        yield
    finally:
        if note is not None:
            with contextlib.suppress(OSError):
                note.unlink(missing_ok=True)


def _write(url: str) -> Path | None:
    process = psutil.Process()
    content = msgspec.json.encode(Running(process.pid, process.create_time(), url))
    try:
        note = folder() / f"{urlsplit(url).port}.json"
        with tempfile.NamedTemporaryFile(dir=note.parent, delete=False) as file:
            file.write(content)
        return Path(file.name).replace(note)
    except (OSError, ShoalError) as error:
        log.warning("shoal down will not find this process", extra={"problem": str(error)})
        return None


def running(port: int | None = None) -> list[Running]:
    """What runs, on that port or on any. Notes of processes that have ended are removed."""
    found = []
    for note in sorted(folder().glob("*.json" if port is None else f"{port}.json")):
        known = _read(note)
        if known is not None and known.process is not None:
            found.append(known)
            continue
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)
    return found


def _read(note: Path) -> Running | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None
