"""The example of README's section "Who may read", command by command, as somebody would type it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import environment, free_port

pytestmark = pytest.mark.e2e

README = Path(__file__).parents[2] / "README.md"
ADDRESSES = ("127.0.0.1:6443", "127.0.0.1:7443")
FORBIDDEN = "kubectl --context alice get pods -A"
LASTS_S = 180.0


def example():
    """The indented block of the section that begins with the certificate."""
    section = README.read_text().split("\n## Who may read\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", section)
    return re.sub(r"(?m)^    ", "", next(block for block in blocks if "openssl req" in block))


def test_the_example_works(folder):
    if missing := [tool for tool in ("kubectl", "openssl") if shutil.which(tool) is None]:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"not installed: {missing}")
        pytest.skip(f"not installed: {missing}")
    script = example()
    for address in ADDRESSES:
        assert address in script
        script = script.replace(address, f"127.0.0.1:{free_port()}")
    refusal = next(line for line in script.splitlines() if line.startswith(FORBIDDEN))
    # That one is there to be refused; everything else has to succeed.
    script = script.replace(refusal, f"{refusal.partition('#')[0]} && exit 3 || true")
    place = folder / "readme"
    place.mkdir()
    beside = Path(sys.executable).parent
    path = f"{beside}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        # Whatever fails on the way, the two that were left running end.
        ["bash", "-c", f"trap 'shoal down || true; kill $(jobs -p) || true' EXIT\nset -e\n{script}"],
        cwd=place,
        env=environment(place, PATH=path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LASTS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "waiting" not in done.stderr, "Shoal may review"
    assert 'Error from server (Forbidden): pods is forbidden: User "alice" cannot list' in done.stderr
    tables = re.findall(r"(?m)^NAME +READY +STATUS", done.stdout)
    assert len(tables) == 2, done.stdout
