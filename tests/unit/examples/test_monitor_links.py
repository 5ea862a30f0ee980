"""The server that links in alerts lead to, where the settings name none."""

import pytest
from gateway_monitor.links import server_of

KUBECONFIG = """
current-context: here
contexts:
- {name: here, context: {cluster: one, user: x}}
- {name: there, context: {cluster: two, user: x}}
clusters:
- {name: one, cluster: {server: "https://one.example.com:6443/"}}
- {name: two, cluster: {server: "https://user:secret@two.example.com/k8s?x=1"}}
"""


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    return path


def test_it_is_the_server_of_the_context(kubeconfig):
    assert server_of(str(kubeconfig), None) == "https://one.example.com:6443"
    assert server_of(str(kubeconfig), "there") == "https://two.example.com/k8s"
    assert server_of(str(kubeconfig), "nowhere") == ""


def test_kubeconfigs_may_be_several_and_in_the_environment(kubeconfig, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.write_text("contexts: [{name: third, context: {cluster: one}}]")
    monkeypatch.setenv("KUBECONFIG", f"{other}:{tmp_path}/none:{kubeconfig}")
    assert server_of(None, None) == "https://one.example.com:6443"
    assert server_of(None, "third") == "https://one.example.com:6443"


def test_in_a_pod_it_is_the_cluster_s_own(kubeconfig, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert server_of(None, None) == "https://10.0.0.1:443"
    assert server_of(str(kubeconfig), None) == "https://one.example.com:6443"


@pytest.mark.parametrize("content", ["", "[]", "a: [", "contexts: 7", "contexts: [7]"])
def test_what_cannot_be_read_gives_no_links(kubeconfig, content):
    kubeconfig.write_text(content)
    assert server_of(str(kubeconfig), None) == ""
