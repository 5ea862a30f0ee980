"""One API server and one Shoal that follows it, both started from the command line, for all tests that only read."""

import subprocess

import msgspec
import pytest
from support.commands import PATIENCE_S, SHOAL, Command, environment, until

TIMEOUT_S = 300
"""Of a test that names none: several commands, each of which may take its `PATIENCE_S` on a machine that has much to
do."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("e2e") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where commands run; a folder called like the package is no reason to take it for the package."""
    folder = tmp_path_factory.mktemp("e2e")
    (folder / "shoal").mkdir()
    return folder


@pytest.fixture(scope="session")
def shoal(folder):
    """Runs a command to its end."""

    def run(*arguments, server=None, timeout=PATIENCE_S, program=SHOAL, **more):
        env = environment(folder, **({"SHOAL_SERVER": server} if server else {}), **more)
        return subprocess.run(
            [*program, *map(str, arguments)],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def source(folder):
    """A cluster: its kubeconfig and URL."""
    kubeconfig = folder / "kubeconfig"
    arguments = ("--pods", 100, "--cluster-file", "recorded", "--kubeconfig", kubeconfig)
    with Command("apiserver", *arguments, folder=folder) as command:
        command.says(r"\n")
        yield Source(msgspec.json.decode(command.stdout)["url"], kubeconfig)


class Source:
    def __init__(self, url, kubeconfig):
        self.url = url
        self.kubeconfig = kubeconfig


@pytest.fixture(scope="session")
def server(folder, source, shoal):
    """URL of a Shoal that follows the cluster, ready."""
    with Command(
        "up", "--kubeconfig", source.kubeconfig, "--listen", "127.0.0.1:0", folder=folder
    ) as command:
        url = command.says(r"Shoal answers at (http://127.0.0.1:\d+)")[1]
        command.says("synced [0-9,]+ objects")
        until("ready", lambda: shoal("status", server=url).stdout.startswith("ready"))
        yield url


@pytest.fixture
def kubectl(server, shoal, folder):
    """Asks Shoal with kubectl; discovery is not remembered between tests."""
    import shutil

    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")

    def run(*arguments, url=server):
        cache = folder / "kube-cache"
        return shoal("--server", url, "--cache-dir", cache, *arguments, program=("kubectl",))

    return run
