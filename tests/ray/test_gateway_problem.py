"""A gateway that runs and cannot serve: bring-up says why. Files may be other ones, or closed, for Ray's processes."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from shoal.cluster import bootstrap
from shoal.cluster.gateway.settings import TlsSettings
from shoal.cluster.settings import GatewaySettings, ShoalSettings
from shoal.shards.api.kubeconfig import load_kubeconfig
from shoal.shards.model.errors import SettingsError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]

FILES = TlsSettings(certificate="/nowhere/tls.crt", key="/nowhere/tls.key")
GATEWAY = GatewaySettings(listen="127.0.0.1:0", gateways=2, tls=FILES)
SETTINGS = ShoalSettings(shards=1, gateway=GATEWAY)
GIVEN_UP_S = 15.0


def test_what_keeps_a_gateway_from_serving_is_said(tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    document = {
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [],
        "contexts": [{"name": "x", "context": {"cluster": "c"}}],
        "current-context": "x",
    }
    kubeconfig.write_text(yaml.safe_dump(document))
    script = "import sys; from test_gateway_problem import main; main(sys.argv[1])"
    done = subprocess.run(
        # Ray is one for each process, and this one may have that of the folder's other tests.
        [sys.executable, "-c", script, str(kubeconfig)],
        capture_output=True,
        check=False,
        text=True,
        timeout=180,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(
        f"the gateway did not start within {GIVEN_UP_S:.0f} s: gateway.tls: certificate /nowhere/tls.crt and key "
        "/nowhere/tls.key cannot be used: No such file or directory\n"
    )


def main(kubeconfig):
    """The test itself, in a process of its own."""
    bootstrap.START_TIMEOUT_S = GIVEN_UP_S
    with bootstrap.ray_cluster(SETTINGS):
        try:
            asyncio.run(bootstrap.bring_up(SETTINGS, load_kubeconfig(kubeconfig)))
        except SettingsError as error:
            sys.stdout.write(f"{error}\n")
