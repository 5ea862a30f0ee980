"""The kubeconfig a started server leaves for kubectl."""

from __future__ import annotations

import base64
import stat

import pytest
import yaml

from shoal.cluster.simulator.write_kubeconfig import write_kubeconfig
from shoal.shards.model.errors import KubeconfigError


def test_it_names_one_cluster_and_is_for_its_owner_alone(tmp_path):
    path = write_kubeconfig(tmp_path / "deep" / "config", "http://127.0.0.1:8001")
    document = yaml.safe_load(path.read_text())
    assert document["current-context"] == document["contexts"][0]["name"] == "shoal"
    assert document["clusters"][0]["cluster"] == {"server": "http://127.0.0.1:8001"}
    assert document["users"][0]["user"] == {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_token_and_authority_go_in_and_a_file_that_is_there_is_replaced(tmp_path):
    path = tmp_path / "config"
    path.write_text("old")
    path.chmod(0o644)
    write_kubeconfig(path, "https://h:1", ca_certificate=b"PEM", token="t", name="n")
    document = yaml.safe_load(path.read_text())
    assert base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"]) == b"PEM"
    assert document["users"] == [{"name": "n", "user": {"token": "t"}}]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["config"]


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KubeconfigError, match=r"cannot write the kubeconfig .*file/config"):
        write_kubeconfig(tmp_path / "file" / "config", "http://h")
    (tmp_path / "folder").mkdir()
    with pytest.raises(KubeconfigError, match="folder"):
        write_kubeconfig(tmp_path / "folder", "http://h")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
