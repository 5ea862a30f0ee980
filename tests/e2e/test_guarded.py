"""``shoal up`` with TLS and tokens, following an API server with RBAC, and Shoal's own commands against it."""

import contextlib
import json
import re
import signal
from pathlib import Path

import pytest
import yaml
from support.certificates import Authority
from support.commands import Command, free_port, until
from support.guarded import binding
from urllib3 import PoolManager

pytestmark = pytest.mark.e2e

RBAC = "/apis/rbac.authorization.k8s.io/v1"
READ = ["get", "list", "watch"]
TOKENS = {"shoal": "token-of-shoal", "alice": "token-of-alice"}
ADMIN = "token-of-admin"
REVIEWS = "kubectl create clusterrolebinding shoal-reviews --clusterrole=system:auth-delegator --user=shoal"


class Cluster:
    """An API server with RBAC, and somebody who may grant."""

    def __init__(self, url, kubeconfig, authority, pool):
        self.url, self.kubeconfig, self.authority = url, kubeconfig, authority
        self._pool = pool

    def create(self, path, document):
        headers = {"Authorization": f"Bearer {ADMIN}"}
        answer = self._pool.request("POST", f"{self.url}{path}", json=document, headers=headers)
        assert answer.status == 201, answer.data

    def kubeconfig_of(self, user, *, server=None):
        document = yaml.safe_load(self.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": TOKENS[user]}
        if server:
            document["clusters"][0]["cluster"]["server"] = server
        file = self.kubeconfig.with_name(f"{user}-{'gateway' if server else 'cluster'}")
        file.write_text(yaml.safe_dump(document))
        return file


@pytest.fixture(scope="module")
def cluster(folder):
    place = folder / "guarded"
    place.mkdir()
    authority = Authority(place)
    certificate, key = authority.issue("server", hosts=("127.0.0.1",))
    users, kubeconfig = place / "users.yaml", place / "admin"
    users.write_text(yaml.safe_dump([{"name": name, "token": token} for name, token in TOKENS.items()]))
    tls = ("--tls-cert-file", certificate, "--tls-private-key-file", key)
    who = ("--rbac", "--token", ADMIN, "--users", users)
    with (
        Command("apiserver", *who, *tls, "--pods", 50, "--kubeconfig", kubeconfig, folder=folder) as source,
        PoolManager(ca_certs=str(authority.path)) as pool,
    ):
        source.says(r"\n")
        document = yaml.safe_load(kubeconfig.read_text())
        # What the command wrote vouches for the certificate alone; this is who signed it.
        document["clusters"][0]["cluster"].pop("certificate-authority-data")
        document["clusters"][0]["cluster"]["certificate-authority"] = str(authority.path)
        kubeconfig.write_text(yaml.safe_dump(document))
        cluster = Cluster(json.loads(source.stdout)["url"], kubeconfig, authority, pool)
        everything = {"verbs": READ, "apiGroups": ["*"], "resources": ["*"]}
        cluster.create(f"{RBAC}/clusterroles", {"metadata": {"name": "follows"}, "rules": [everything]})
        cluster.create(
            f"{RBAC}/clusterrolebindings", binding("follows", "ClusterRole", "follows", "User", "shoal")
        )
        pods = {"verbs": READ, "apiGroups": [""], "resources": ["pods"]}
        roles = f"{RBAC}/namespaces/accounts"
        cluster.create(f"{roles}/roles", {"metadata": {"name": "pods"}, "rules": [pods]})
        cluster.create(f"{roles}/rolebindings", binding("alice", "Role", "pods", "User", "alice"))
        yield cluster


@pytest.fixture(scope="module")
def up(folder, cluster):
    """A gateway that may not ask who anybody is, yet. Certificates are named from where the command runs."""
    certificate, key = cluster.authority.issue("gateway", hosts=("127.0.0.1",))
    settings = {
        "listen": "127.0.0.1:0",
        "tls": {"certificate": f"guarded/{certificate.name}", "key": f"guarded/{key.name}"},
        "authentication": {"tokens": True},
    }
    config = folder / "guarded" / "shoal.yaml"
    config.write_text(yaml.safe_dump({"gateway": settings, "shards": 1}))
    arguments = ("up", "--kubeconfig", cluster.kubeconfig_of("shoal"), "--config", config)
    with Command(*arguments, folder=folder) as command:
        yield command


def test_guarded_from_end_to_end(shoal, cluster, up):
    greeting = (
        r"Shoal answers at (\S+): kubectl --server \1 --certificate-authority FILE --token TOKEN get pods"
    )
    url = up.says(greeting)[1]
    assert url.startswith("https://127.0.0.1:")
    authority = {"SHOAL_CERTIFICATE_AUTHORITY": str(cluster.authority.path)}

    def ask(*arguments, token="", **more):
        known = {"SHOAL_TOKEN": token} if token else {}
        outcome = shoal(*arguments, server=url, **authority, **known, **more)
        assert not token or token not in outcome.stdout + outcome.stderr
        return outcome

    # What is lacking is a sentence with what to apply; nothing ends because of it.
    up.says(rf"waiting: Shoal, which is shoal to the API server, may not create .*: {REVIEWS}\n")
    with PoolManager(ca_certs=authority["SHOAL_CERTIFICATE_AUTHORITY"]) as pool:
        readiness = pool.request("GET", f"{url}/readyz?verbose", retries=False)
        assert readiness.status == 503
        assert re.search(rf"(?m)^\[-\]reviews .*: {REVIEWS}$", readiness.data.decode())
        refused = ask("get", "pods", "-n", "accounts", token=TOKENS["alice"])
        assert "the API server cannot be asked by tokenreviews" in refused.stderr
        cluster.create(
            f"{RBAC}/clusterrolebindings",
            binding("reviews", "ClusterRole", "system:auth-delegator", "User", "shoal"),
        )
        up.says("no longer waiting")
        until("ready", lambda: pool.request("GET", f"{url}/readyz").status == 200)

    # Who is known reads what they may, with a token, or as somebody in a kubeconfig.
    alices = ask("get", "pods", "-n", "accounts", "-o", "name", token=TOKENS["alice"])
    assert alices.returncode == 0, alices.stderr
    assert len(alices.stdout.splitlines()) > 10
    kubeconfig = cluster.kubeconfig_of("alice", server=url)
    same = shoal("get", "pods", "-n", "accounts", "-o", "name", "--kubeconfig", kubeconfig)
    assert (same.returncode, same.stdout) == (0, alices.stdout)
    assert ask("api-resources", token=TOKENS["alice"]).returncode == 0
    assert ask("status", token=ADMIN).stdout.startswith("ready, epoch ")

    sentences = {
        ("get", "pods", "-A"): r'\(Forbidden\): pods is forbidden: User "alice" cannot list resource "pods"',
        (
            "status",
        ): r"\(Forbidden\): .*; a cluster role with the verb get on the non-resource URL /shoal/v1/st",
    }
    for arguments, sentence in sentences.items():
        outcome = ask(*arguments, token=TOKENS["alice"])
        assert (outcome.returncode, outcome.stdout) == (1, "")
        assert re.fullmatch(rf"error: from server {sentence}.*\n", outcome.stderr), outcome.stderr
    assert "(Unauthorized): say who you are with --token" in ask("status").stderr
    assert "(Unauthorized): the token or certificate is not" in ask("status", token="token-of-nobody").stderr
    stranger = shoal("status", server=url, SHOAL_TOKEN=ADMIN)
    assert stranger.stderr.startswith(f"error: the certificate of {url}/shoal/v1/status does not verify: ")
    assert ADMIN not in stranger.stderr
    assert shoal("status", "--insecure-skip-tls-verify", server=url, SHOAL_TOKEN=ADMIN).returncode == 0

    # A token is in no log and in no message.
    said = up.stdout + up.stderr
    assert not [token for token in (*TOKENS.values(), ADMIN) if token in said]
    assert up.ends(signal.SIGTERM) == 0


def test_detached_it_says_what_is_lacking_and_does_not_wait_for_it(shoal, folder, cluster):
    """As somebody who may follow nothing and review nothing."""
    certificate, key = cluster.authority.issue("gateway", hosts=("127.0.0.1",))
    config = folder / "guarded" / "detached.yaml"
    gateway = {
        "tls": {"certificate": str(certificate), "key": str(key)},
        "authentication": {"tokens": True},
        "listen": f"127.0.0.1:{free_port()}",
    }
    settings = {"gateway": gateway, "shards": 1, "follow": {"include": ["v1/pods"]}}
    config.write_text(yaml.safe_dump(settings))
    as_alice = ("--kubeconfig", cluster.kubeconfig_of("alice"))
    try:
        outcome = shoal("up", "--detach", *as_alice, "--config", config)
        assert outcome.returncode == 0, outcome.stderr
        assert outcome.stdout.startswith(f"Shoal answers at https://{gateway['listen']}: ")
        assert re.search(
            r"(?m)^waiting: Shoal, which is alice to the API server, may not create ", outcome.stderr
        )
    finally:
        down = shoal("down", "--listen", gateway["listen"])
    assert (down.returncode, down.stdout) == (0, f"ended https://{gateway['listen']}\n")


@pytest.mark.parametrize(
    ("gateway", "sentence"),
    [
        (
            {"tls": {"certificate": "none.crt", "key": "none.key"}},
            r"gateway\.tls: certificate /.*/none\.crt and key /.*/none\.key cannot be used: No such file",
        ),
        (
            {"tls": {"certificate": "{crt}", "key": "{key}", "client_ca": "{key}"}, "certificates": True},
            r"gateway\.tls\.client_ca .* cannot be used: ",
        ),
        (
            {"tls": {"certificate": "{crt}", "key": "{key}"}, "listen": "0.0.0.0:0"},
            r"listen address '0\.0\.0\.0' is refused: .* needs authentication",
        ),
        (
            {"tls": {"certificate": "{crt}", "key": "{key}"}, "certificates": True},
            r"gateway\.authentication\.certificates needs gateway\.tls\.client_ca",
        ),
    ],
)
def test_what_cannot_be_served_with_is_found_before_anything_starts(
    shoal, cluster, tmp_path, gateway, sentence
):
    certificate, key = cluster.authority.issue("gateway", hosts=("127.0.0.1",))
    tls = {name: file.format(crt=certificate, key=key) for name, file in gateway["tls"].items()}
    settings = {"tls": tls, "listen": gateway.get("listen", "127.0.0.1:0")}
    with contextlib.suppress(KeyError):
        settings["authentication"] = {"certificates": gateway["certificates"]}
    config = Path(tmp_path / "shoal.yaml")
    config.write_text(yaml.safe_dump({"gateway": settings}))
    outcome = shoal("up", "--kubeconfig", cluster.kubeconfig_of("shoal"), "--config", config)
    assert outcome.returncode == 1
    assert re.fullmatch(rf"error: .*{sentence}.*\n", outcome.stderr), outcome.stderr
