"""The command line in processes of its own: runs commands, waits for what they say, counts what they leave."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SHOAL = (sys.executable, "-P", "-m", "shoal")
PATIENCE_S = 60.0
"""A bound for failing, not a measure: everything waited for is over as soon as it happens."""
GONE_S = 15.0


def environment(folder, **more):
    """The environment of a user who has set nothing up, with what is left behind kept in `folder`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SHOAL_", "RAY_", "KUBE", "PYTHON"))
    }
    return {**kept, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state"), "COLUMNS": "200", **more}


def free_port():
    """A port to listen on a moment later. Until then nobody else gets it who only asks for a free one: it is above the
    ports of Ray's workers and below those the kernel chooses from.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def until(what, check, patience_s=PATIENCE_S):
    """Asks until the answer is true and returns it. Fails with `what`."""
    end = time.monotonic() + patience_s
    while not (answer := check()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience_s:g} s: {what() if callable(what) else what}")
        time.sleep(0.05)
    return answer


class Command:
    """A command that goes on by itself. What it says is kept in files, so that nothing it writes can block it."""

    def __init__(self, *arguments, folder, env=None, program=SHOAL):
        self._folder = Path(tempfile.mkdtemp(dir=folder))
        self._files = [(self._folder / name).open("wb") for name in ("stdout", "stderr")]
        self.process = subprocess.Popen(
            [*program, *map(str, arguments)],
            cwd=folder,
            env=env or environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=self._files[0],
            stderr=self._files[1],
            start_new_session=True,
        )
        self._family = {psutil.Process(self.process.pid)}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        family = self.family()
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GONE_S)
        # What a test that failed leaves behind must not disturb the next one.
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()
        for file in self._files:
            file.close()

    @property
    def stdout(self):
        return (self._folder / "stdout").read_text()

    @property
    def stderr(self):
        return (self._folder / "stderr").read_text()

    def says(self, pattern):
        """Waits until stdout or stderr has a match, and returns it."""

        def said():
            match = re.search(pattern, self.stdout) or re.search(pattern, self.stderr)
            assert match or self.process.poll() is None, (
                f"ended with {self.process.returncode}: {self._all()}"
            )
            return match

        return until(lambda: f"{pattern} in {self._all()}", said)

    def _all(self):
        return f"{self.stdout[-2000:]}\n{self.stderr[-2000:]}"

    def family(self):
        """The process and all that descend from it, including those seen before whose parents have ended."""
        for process in list(self._family):
            with contextlib.suppress(psutil.Error):
                self._family.update(process.children(recursive=True))
        return {process for process in self._family if alive(process)}

    def waits_for(self, *names):
        """Waits until the family has processes whose command lines contain each of the names."""

        def there():
            lines = [" ".join(line) for process in self.family() if (line := command_line(process))]
            return all(any(name in line for line in lines) for name in names)

        until(f"{names} among the processes", there)

    def ends(self, with_signal=None, *, whole_group=False):
        """Sends the signal, if any, and returns the exit code; the whole family has to be gone by then or soon."""
        family = self.family()
        if with_signal is not None and whole_group:
            os.killpg(self.process.pid, with_signal)
        elif with_signal is not None:
            self.process.send_signal(with_signal)
        code = self.process.wait(PATIENCE_S)
        until(
            lambda: f"nothing left behind: {[command_line(process) for process in family if alive(process)]}",
            lambda: not any(alive(process) for process in family),
            GONE_S,
        )
        return code

    def interrupts(self):
        """What Ctrl-C on a terminal does: SIGINT to the whole process group of the command."""
        os.killpg(self.process.pid, signal.SIGINT)


def alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def command_line(process):
    try:
        return [part for part in process.cmdline() if part]
    except psutil.Error:
        return []
