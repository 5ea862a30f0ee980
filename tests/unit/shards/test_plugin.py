"""What an exec plug-in is told of the cluster it is asked for."""

import base64
import json
import stat
import sys

import pytest

from shoal.shards.api.plugin import CLUSTER_EXTENSION, run_plugin
from shoal.shards.model.errors import KubeconfigError

API_VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture
def told(tmp_path):
    """Runs a plug-in that writes down what it was told; returns its ``spec.cluster``."""
    file = tmp_path / "plugin"
    printed = {"apiVersion": API_VERSION, "kind": "ExecCredential", "status": {"token": "t"}}
    file.write_text(
        f"#!{sys.executable}\nimport os\n"
        f"open({str(tmp_path / 'told')!r}, 'w').write(os.environ['KUBERNETES_EXEC_INFO'])\n"
        f"print({json.dumps(json.dumps(printed))})\n"
    )
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    section = {"apiVersion": API_VERSION, "command": "./plugin", "provideClusterInfo": True}

    async def run(cluster, **more):
        await run_plugin(section | more, folder=str(tmp_path), cluster=cluster, where="here")
        return json.loads((tmp_path / "told").read_text())["spec"].get("cluster")

    return run


async def test_the_cluster_is_told_in_the_form_of_an_exec_credential(told, tmp_path):
    """It was the kubeconfig's section as it stands, in which plug-ins found no authority and no ``config``."""
    (tmp_path / "ca.pem").write_bytes(b"-----authority-----")
    cluster = {
        "server": "https://192.0.2.1",
        "tls-server-name": "api.test",
        "certificate-authority": "ca.pem",
        "proxy-url": "http://proxy.test",
        "disable-compression": True,
        "unknown": "to plug-ins",
        "extensions": [
            {"name": "another", "extension": {"a": 1}},
            {"name": CLUSTER_EXTENSION, "extension": {"audience": "shoal", "since": "2026-11-20"}},
        ],
    }
    assert await told(cluster) == {
        "server": "https://192.0.2.1",
        "tls-server-name": "api.test",
        "certificate-authority-data": base64.b64encode(b"-----authority-----").decode(),
        "proxy-url": "http://proxy.test",
        "disable-compression": True,
        "config": {"audience": "shoal", "since": "2026-11-20"},
    }


async def test_an_authority_that_stands_in_the_kubeconfig_is_told_as_it_is(told):
    cluster = {
        "server": "https://a",
        "certificate-authority": "gone.pem",
        "certificate-authority-data": "QQ==",
    }
    assert await told(cluster) == {"server": "https://a", "certificate-authority-data": "QQ=="}


async def test_what_is_not_set_is_left_out(told):
    cluster = {
        "server": "https://a",
        "insecure-skip-tls-verify": True,
        "tls-server-name": "",
        "extensions": None,
    }
    assert await told(cluster) == {"server": "https://a", "insecure-skip-tls-verify": True}
    assert await told(cluster | {"insecure-skip-tls-verify": False}) == {"server": "https://a"}


async def test_a_plug_in_that_does_not_ask_is_told_nothing(told):
    assert (
        await told({"server": "https://a", "certificate-authority": "gone.pem"}, provideClusterInfo=False)
        is None
    )


async def test_an_authority_that_cannot_be_read_is_named(told, tmp_path):
    with pytest.raises(
        KubeconfigError, match=f"here: the certificate-authority {tmp_path / 'gone.pem'} cannot be read"
    ):
        await told({"server": "https://a", "certificate-authority": "gone.pem"})
