"""``shoal demo``: what it shows, and that nothing outlives it however it ends."""

import re
import signal

import pytest
from support.commands import Command

pytestmark = pytest.mark.e2e


def test_the_demo_shows_shards_and_compares_every_object(shoal):
    done = shoal("demo", "--pods", 2000, "--shards", 3, "--rate", 100, "--duration", 8, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    last = done.stdout.splitlines()[-5:]
    assert last[0] == "shards      3"
    partitions = re.fullmatch(r"partitions  (\d+) of (\d+) resources", last[1])
    assert partitions
    assert int(partitions[1]) >= int(partitions[2]) > 50
    assert int(last[2].removeprefix("objects     ").replace(",", "")) > 4000
    assert int(last[3].removeprefix("events      ").replace(",", "")) > 200
    assert last[4] == "compared    every object equals the API server's (uid and version compared)"


def test_ctrl_c_ends_the_changes_and_compares(folder):
    with Command("demo", "--pods", 0, "--shards", 1, "--rate", 20, "--duration", 0, folder=folder) as demo:
        demo.says(r"20 changes a second until interrupted")
        demo.interrupts()
        demo.says(r"compared    every object equals the API server's")
        assert demo.ends() == 0
        assert demo.stderr == ""


PHASES = {
    "while Ray starts": lambda demo: demo.waits_for("raylet/raylet"),
    "while it syncs": lambda demo: demo.says("Shoal answers at"),
    "while it changes": lambda demo: demo.says("changes a second"),
}


ENDS = [
    ("while Ray starts", signal.SIGTERM),
    ("while it syncs", signal.SIGTERM),
    ("while it changes", signal.SIGKILL),
]


@pytest.mark.parametrize(("phase", "how"), ENDS, ids=lambda value: getattr(value, "name", value))
def test_nothing_outlives_the_demo(folder, phase, how):
    with Command("demo", "--pods", 500, "--shards", 1, "--duration", 0, folder=folder) as demo:
        PHASES[phase](demo)
        code = demo.ends(how)
        assert code in (128 + how, -how)
        assert "Traceback" not in demo.stderr


def test_ctrl_c_while_ray_starts_is_quiet(folder):
    with Command("demo", folder=folder) as demo:
        demo.waits_for("gcs_server")
        demo.interrupts()
        assert demo.ends() in (130, -signal.SIGINT)
        assert "Traceback" not in demo.stderr


def test_a_port_in_use_is_told_before_anything_is_started(shoal):
    outcome = shoal("demo", "--listen", "10.0.0.1:1")
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: listen address '10.0.0.1' is refused")
