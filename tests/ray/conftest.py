"""One Ray cluster, one installation and one embedded API server, in processes of their own, for this folder's tests."""

import asyncio
import subprocess
import sys

import msgspec
import pytest
from support.installation import Running, until

from shoal.cluster.settings import ShoalSettings
from shoal.shards.api.kubeconfig import load_kubeconfig

SETTINGS = msgspec.structs.replace(
    ShoalSettings(shards=2),
    gateway=msgspec.structs.replace(ShoalSettings().gateway, listen="127.0.0.1:0"),
)


@pytest.fixture(scope="session")
def installation(tmp_path_factory):
    kubeconfig = tmp_path_factory.mktemp("source") / "kubeconfig"
    command = [
        sys.executable,
        "-P",
        "-m",
        "shoal",
        "apiserver",
        "--kubeconfig",
        str(kubeconfig),
        "--pods",
        "300",
    ]
    from shoal.cluster.bootstrap import bring_up, ray_cluster, take_down

    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, ray_cluster(SETTINGS):
        try:
            source = msgspec.json.decode(process.stdout.readline())["url"]
            running = Running(asyncio.run(bring_up(SETTINGS, load_kubeconfig(str(kubeconfig)))).url, source)
            yield running
            asyncio.run(take_down())
        finally:
            process.terminate()


@pytest.fixture
async def running(installation):
    """The installation, ready and at rest."""
    await until("the installation is ready", installation.ready)
    return installation
