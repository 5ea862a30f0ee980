"""The two files of the monitor: its state, last good states and what was told (replaced as a whole); and the audit
(added to).
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from .lastgood import LastGood, StateInvalid
from .told import Told

log = logging.getLogger("gateway_monitor.files")


def read_state(path: str) -> LastGood:
    """Last good states of a file; none if there is no such file yet.

    Raises:
        StateInvalid: the file cannot be read or used. It is left as it is: whoever starts without it anew says so by
            moving it away.
    """
    try:
        encoded = Path(path).read_bytes()
    except FileNotFoundError:
        return LastGood()
    except OSError as error:
        raise StateInvalid(f"the state file {path} cannot be read: {error.strerror or error}") from error
    try:
        return LastGood.decode(encoded)
    except StateInvalid as error:
        raise StateInvalid(
            f"the state file {path} cannot be used: {error}; move it away to start anew"
        ) from error


def read_told(path: str) -> Told:
    """What people were told, of a file that `read_state` could read; nothing if there is no such file yet.

    Never an error: without it people are told again, while nothing can take the place of a last good state.
    """
    try:
        return Told.decode(Path(path).read_bytes())
    except FileNotFoundError:
        return Told()
    except (OSError, StateInvalid) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        log.warning(
            "what was told before is not known; what is open is told again",
            extra={"path": path, "reason": reason},
        )
        return Told()


def write_state(path: str, encoded: bytes) -> None:
    """Replaces the file, all or nothing, readable by its owner alone: specs may have secrets in them.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, made = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(target)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise


def append_line(path: str, line: str) -> None:
    """Adds a line at the end. A disk that is full must not keep anything from being put back: that is only logged."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(line.encode() + b"\n")
    except OSError as error:
        log.error("audit line not written", extra={"path": path, "reason": error.strerror})  # noqa: TRY400
