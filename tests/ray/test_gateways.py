"""Several gateways behind one address, as real processes: one dies, the others serve, it comes back; all end in order.

Processes are found by the numbers the installation itself reports, never by name: others may run on this machine.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from support.installation import Running, until

from shoal.cluster.bootstrap import bring_up, ray_cluster, take_down
from shoal.cluster.cli.server import Server
from shoal.cluster.settings import GatewaySettings, ShoalSettings
from shoal.shards.api.kubeconfig import load_kubeconfig

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

SETTINGS = ShoalSettings(shards=1, gateway=GatewaySettings(listen="127.0.0.1:0", gateways=2))


async def gateways(running):
    """Those that answer, by name."""
    report = (await running.status()).report
    return {gateway.gateway: gateway.pid for gateway in report.gateways if not gateway.problem}


async def watch(url):
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /api/v1/pods?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(30):
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def exercise(running):
    await until("the installation is ready", running.ready)
    both = await gateways(running)
    assert sorted(both) == ["gateway-0", "gateway-1"]
    assert len(set(both.values())) == 2
    os.kill(both["gateway-0"], signal.SIGKILL)
    for _ in range(20):
        async with Server(running.shoal) as server:
            assert await server.fetch("/livez") == b"ok"

    async def back():
        now = await gateways(running)
        return (
            len(now) == 2 and now["gateway-0"] != both["gateway-0"] and now["gateway-1"] == both["gateway-1"]
        )

    await until("the gateway is back, and the other one is who it was", back)
    reader, writer = await watch(running.shoal)
    assert await take_down()
    async with asyncio.timeout(30):
        assert (await reader.read()).endswith(b"\r\n0\r\n\r\n")
    writer.close()
    assert not await take_down()


def test_gateways_share_an_address_and_outlive_each_other(tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    command = [
        sys.executable,
        "-P",
        "-m",
        "shoal",
        "apiserver",
        "--kubeconfig",
        str(kubeconfig),
        "--pods",
        "20",
    ]
    script = "import sys; from test_gateways import main; main(sys.argv[1], sys.argv[2])"
    with subprocess.Popen(command, stdout=subprocess.PIPE) as source:
        try:
            url = msgspec.json.decode(source.stdout.readline())["url"]
            # Ray is one for each process, and this one may have that of the folder's other tests.
            subprocess.run(
                [sys.executable, "-c", script, str(kubeconfig), url],
                check=True,
                timeout=200,
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
            )
        finally:
            source.terminate()


def main(kubeconfig, source):
    """The test itself, in a process of its own."""

    async def run():
        installation = await bring_up(SETTINGS, load_kubeconfig(kubeconfig))
        await exercise(Running(installation.url, source))

    with ray_cluster(SETTINGS):
        asyncio.run(run())
