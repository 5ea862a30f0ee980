"""The examples of README's sections "Who may read" and "Informers for Python", command by command, as somebody would
type them.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import Command, environment, free_port

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
ADDRESSES = ("127.0.0.1:6443", "127.0.0.1:7443")
FORBIDDEN = "kubectl --context alice get pods -A"
LASTS_S = 180.0


def example(title, word):
    """The indented block of a section that has a word."""
    section = README.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", section)
    return re.sub(r"(?m)^    ", "", next(block for block in blocks if word in block))


def need(*tools):
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"not installed: {missing}")
        pytest.skip(f"not installed: {missing}")


def test_the_controller_is_started_and_does_its_work(folder):
    need("kubectl")
    script = example("Informers for Python", "kubectl apply")
    # Straight from the API server, which README says is the same without the URL.
    for shown, run in ((".venv/bin/python", sys.executable), ("http://127.0.0.1:7480", "")):
        assert shown in script
        script = script.replace(shown, run)
    kubeconfig = folder / "readme-controller"
    with Command("apiserver", "--kubeconfig", kubeconfig, folder=folder) as source:
        source.says(r"\n")
        done = subprocess.run(
            ["bash", "-c", f"trap 'kill $(jobs -p) || true' EXIT\nset -e\n{script}"],
            cwd=ROOT,
            env=environment(folder, KUBECONFIG=str(kubeconfig)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LASTS_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "index.html: |\n    <h1>Hello</h1>\n" in done.stdout, done.stdout
    assert "controller runs" in done.stderr


def test_the_example_works(folder):
    need("kubectl", "openssl")
    script = example("Who may read", "openssl req")
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
