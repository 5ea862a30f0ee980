"""A process that ends what a command leaves behind when it is killed without a chance to tidy up (kill -9).

Most of Ray dies with the process that started it, because the kernel is told to see to that; its agents wait for a
control service that is gone, for minutes. The guard learns of the command's end by the end of standard input, gives
the rest a moment, and kills who is left. A command that tidies up itself leaves it nothing to do.

What belongs to the command it knows in two ways, because each has a gap. It looks at the command's descendants now
and then, and misses those started since. And what a command starts inherits a random mark in its environment, which
Ray's processes overwrite when they change their titles, a second into their lives.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "SHOAL_COMMAND"
GRACE_S = 3.0
LOOK_S = 0.2
STARTING_S = 60.0
LOOK_LATER_S = 5.0
"""While a command starts much is new; later only what Ray itself replaces, and that dies with Ray."""
KILLS = 5
"""What is killed may have started another process a moment before."""
END_S = 2 * GRACE_S


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Marks what this process starts, and has it ended when this process ends, or when the context does."""
    mark = secrets.token_hex(16)
    os.environ[MARK] = mark
    command = [sys.executable, "-P", "-m", __name__, mark, str(os.getpid())]
    with subprocess.Popen(  # noqa: S603 - this very module
        command,
        stdin=subprocess.PIPE,  # never written to
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what ends a process group must not end its guard
    ) as guard:
        assert guard.stdin is not None
        try:
            yield
        finally:
            os.environ.pop(MARK, None)
            guard.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                guard.wait(END_S)


class Belongings:
    """What belongs to a command."""

    def __init__(self, mark: str, command: int) -> None:
        self._mark = f"{MARK}={mark}".encode()
        self._command = command
        self._known: set[psutil.Process] = set()

    def look(self) -> None:
        """Takes in the descendants of the command and of what is known."""
        for pid in (self._command, *(process.pid for process in self._known if process.is_running())):
            with contextlib.suppress(psutil.Error):
                self._known.update(psutil.Process(pid).children(recursive=True))

    def left(self) -> list[psutil.Process]:
        """Who still runs, without the command itself and without its guard."""
        self.look()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                # Bytes, because what parses an environment stops where a process has overwritten it.
                if self._mark in Path(f"/proc/{process.pid}/environ").read_bytes():
                    self._known.add(process)
        # NB: psutil tells processes apart by id and starting time: an id used again is another process.
        return [process for process in self._known if process.pid not in self._spared and _runs(process)]

    @property
    def _spared(self) -> tuple[int, int]:
        return self._command, os.getpid()


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def main(mark: str, command: int) -> None:
    """Waits for the end of standard input, and ends what belongs to the command."""
    belongings = Belongings(mark, command)
    began = time.monotonic()
    pause_s = LOOK_S
    while not select.select([sys.stdin], [], [], pause_s)[0]:
        belongings.look()
        pause_s = LOOK_S if time.monotonic() - began < STARTING_S else LOOK_LATER_S
    end = time.monotonic() + GRACE_S
    while belongings.left() and time.monotonic() < end:
        time.sleep(LOOK_S)
    for _ in range(KILLS):
        for process in (left := belongings.left()):
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, LOOK_S)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
