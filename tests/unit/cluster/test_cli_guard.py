import signal
import subprocess
import sys

import psutil

SLEEPER = "import time; print(flush=True); time.sleep(600)"
COMMAND = f"""
import subprocess, sys
from shoal.cluster.cli.guard import guarded
with guarded():
    child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], stdout=subprocess.PIPE, start_new_session=True)
    child.stdout.readline()
    print(child.pid, flush=True)
    sys.stdin.readline()
"""


def run(end):
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        left = psutil.Process(int(command.stdout.readline()))
        bystander = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.DEVNULL)
        end(command)
        code = command.wait()
    try:
        gone, _ = psutil.wait_procs([left], 15)
        assert gone
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    return code


def test_what_a_killed_command_started_is_ended():
    assert run(lambda command: command.send_signal(signal.SIGKILL)) == -signal.SIGKILL


def test_what_a_command_leaves_behind_is_ended_and_the_command_is_not():
    assert run(lambda command: command.stdin.write("\n") and command.stdin.flush()) == 0
