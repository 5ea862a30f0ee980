"""Kubeconfig files, good and bad, against an embedded API server that checks tokens and certificates."""

import asyncio
import base64
import json
import pickle
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from shoal.cluster.simulator.server import ApiServer, Tls
from shoal.cluster.simulator.settings import SimulatorSettings, User
from shoal.shards.api.client import fetch_json
from shoal.shards.api.kubeconfig import Access, in_cluster, load_kubeconfig
from shoal.shards.api.reloading import RELOAD_S
from shoal.shards.api.requests import document_request
from shoal.shards.model.errors import CertificateRejected, KubeconfigError, Upstream

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = CERTIFICATES / "authority.pem"
NAMESPACES = document_request("/api/v1/namespaces")
ANYBODY = "http://127.0.0.1:1"


def document(server=ANYBODY, *, user=None, cluster=None, name="one"):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }


@pytest.fixture
def write(tmp_path):
    def written(content, name="config"):
        file = tmp_path / name
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(file)

    return written


def problem(path, context=None):
    with pytest.raises(KubeconfigError) as raised:
        load_kubeconfig(path, context)
    return raised.value.message


# -- bad files -----------------------------------------------------------------------------------------------


def test_a_kubeconfig_that_is_missing(tmp_path):
    assert problem(str(tmp_path / "none")) == (
        f"no kubeconfig at {tmp_path / 'none'}: name one with --kubeconfig, or use --in-cluster inside a pod"
    )


def test_a_kubeconfig_that_is_not_yaml(write):
    path = write("clusters: [\n  - name: a\n")
    assert problem(path).startswith(f"kubeconfig {path}, line 2, column 3 is not YAML: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty or no mapping"),
        ("just text", "is empty or no mapping"),
        ({"clusters": {"a": 1}}, "clusters is not a list"),
        ({"contexts": [{"context": {}}]}, "contexts[0] has no name"),
        ({"clusters": [{"name": "a"}]}, "clusters[0] (a) has no cluster"),
    ],
)
def test_a_kubeconfig_that_is_malformed(write, content, expected):
    path = write(content)
    assert expected in problem(path)
    assert path in problem(path)


def test_an_unknown_context_and_what_there_is(write):
    path = write(document())
    assert problem(path, "two") == f"kubeconfig {path} has no context 'two'; it has one"


def test_no_current_context(write):
    path = write(document() | {"current-context": ""})
    assert problem(path) == f"kubeconfig {path} has no current context: choose one with --context; it has one"
    assert load_kubeconfig(path, "one").context == "one"


def test_a_context_that_names_what_is_not_there(write):
    for kind in ("cluster", "user"):
        content = document()
        content["contexts"][0]["context"][kind] = "other"
        path = write(content)
        expected = f"kubeconfig {path}, context one names {kind} 'other', which is not there; known: one"
        assert problem(path) == expected


@pytest.mark.parametrize("server", [None, "", "127.0.0.1:6443", "ftp://x"])
def test_a_cluster_without_a_usable_address(write, server):
    path = write(document(server))
    assert f"the cluster's server is {server!r}, expected an http:// or https://" in problem(path)


@pytest.mark.parametrize(
    ("section", "key"),
    [("cluster", "certificate-authority"), ("user", "client-certificate"), ("user", "tokenFile")],
)
def test_files_that_are_not_there(write, tmp_path, section, key):
    path = write(document("https://a:1", **{section: {key: "gone.pem"}}))
    assert problem(path) == f"kubeconfig {path}, context one: the {key} {tmp_path / 'gone.pem'} is not there"


@pytest.mark.parametrize(
    ("section", "content", "expected"),
    [
        (
            "cluster",
            {"certificate-authority-data": base64.b64encode(b"no").decode()},
            "authority is not a PEM",
        ),
        ("cluster", {"certificate-authority-data": "a"}, "context one: "),
    ],
)
async def test_certificates_that_are_none(write, section, content, expected):
    path = write(document("https://127.0.0.1:1", **{section: content}))
    connection = load_kubeconfig(path).connect()
    with pytest.raises(KubeconfigError, match=expected) as raised:
        await fetch_json(connection, NAMESPACES)
    assert path in raised.value.message


async def test_a_client_key_of_another_certificate(write):
    user = {
        "client-certificate": str(CERTIFICATES / "client.pem"),
        "client-key": str(CERTIFICATES / "server.key"),
    }
    path = write(
        document("https://127.0.0.1:1", user=user, cluster={"certificate-authority": str(AUTHORITY)})
    )
    with pytest.raises(KubeconfigError, match="client certificate and key do not fit"):
        await fetch_json(load_kubeconfig(path).connect(), NAMESPACES)


# -- good files ----------------------------------------------------------------------------------------------


def test_an_access_is_a_small_value_that_travels(write):
    access = load_kubeconfig(write(document()))
    assert pickle.loads(pickle.dumps(access)) == access
    assert str(access) == f"context one of {access.paths}"


def test_several_files_are_merged_and_the_first_current_context_counts(write, tmp_path):
    first = write(document("http://first:1", name="one"), "first")
    second = write(document("http://second:1", name="two"), "second")
    paths = f"{tmp_path / 'missing'}:{first}:{second}"
    assert load_kubeconfig(paths) == Access(paths=f"{first}:{second}", context="one")
    assert load_kubeconfig(paths, "two").context == "two"


def test_paths_become_absolute_because_other_processes_have_other_folders(write, tmp_path, monkeypatch):
    write(document())
    monkeypatch.chdir(tmp_path)
    assert load_kubeconfig("config").paths == str(tmp_path / "config")


def server(*tokens, **tls):
    users = tuple(User(name=f"user-{token}", token=token) for token in tokens)
    encrypted = Tls(CERTIFICATES / "server.pem", CERTIFICATES / "server.key", **tls)
    return ApiServer(settings=SimulatorSettings(seed=1, users=users), tls=encrypted)


async def names(connection):
    found = await fetch_json(connection, NAMESPACES)
    return [item["metadata"]["name"] for item in found["items"]]


async def asked(path, context=None):
    connection = load_kubeconfig(path, context).connect()
    try:
        return "default" in await names(connection)
    finally:
        await connection.aclose()


TRUST = {"certificate-authority": str(AUTHORITY)}


async def test_a_token_over_verified_tls(write):
    async with server("secret") as running:
        assert await asked(write(document(running.url, user={"token": "secret"}, cluster=TRUST)))
        data = {"certificate-authority-data": base64.b64encode(AUTHORITY.read_bytes()).decode()}
        assert await asked(write(document(running.url, user={"token": "secret"}, cluster=data)))
        with pytest.raises(Upstream, match="401: Unauthorized"):
            await asked(write(document(running.url, user={"token": "wrong"}, cluster=TRUST)))


async def test_a_certificate_nobody_vouches_for_is_rejected_unless_told_otherwise(write):
    async with server("secret") as running:
        with pytest.raises(CertificateRejected, match="does not verify"):
            await asked(write(document(running.url, user={"token": "secret"})))
        careless = {"insecure-skip-tls-verify": True}
        assert await asked(write(document(running.url, user={"token": "secret"}, cluster=careless)))


async def test_the_name_in_the_certificate_may_be_given(write):
    async with server("secret") as running:
        for name, accepted in (("apiserver.test", True), ("other.test", False)):
            path = write(
                document(running.url, user={"token": "secret"}, cluster=TRUST | {"tls-server-name": name})
            )
            if accepted:
                assert await asked(path)
            else:
                with pytest.raises(CertificateRejected):
                    await asked(path)


async def test_a_client_certificate_as_files_and_as_data(write):
    files = {name: CERTIFICATES / f"client.{end}" for name, end in (("certificate", "pem"), ("key", "key"))}
    as_files = {f"client-{name}": str(file) for name, file in files.items()}
    as_data = {
        f"client-{name}-data": base64.b64encode(file.read_bytes()).decode() for name, file in files.items()
    }
    async with server(client_ca=AUTHORITY) as running:
        assert await asked(write(document(running.url, user=as_files, cluster=TRUST)))
        assert await asked(write(document(running.url, user=as_data, cluster=TRUST)))


async def test_relative_files_are_those_beside_the_kubeconfig(write, tmp_path):
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.read_bytes())
    (tmp_path / "token").write_text("secret\n")
    async with server("secret") as running:
        content = document(
            running.url, user={"tokenFile": "token"}, cluster={"certificate-authority": "ca.pem"}
        )
        assert await asked(write(content))


async def test_a_context_without_a_user_is_nobody(write):
    async with server() as running:
        content = document(running.url, cluster=TRUST)
        del content["contexts"][0]["context"]["user"]
        assert await asked(write(content))


def test_no_key_stays_behind(write, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    data = base64.b64encode((CERTIFICATES / "client.key").read_bytes()).decode()
    user = {"client-certificate": str(CERTIFICATES / "client.pem"), "client-key-data": data}
    access = load_kubeconfig(write(document("https://a:1", user=user, cluster=TRUST)))

    async def endpoint():
        return await access.credentials().endpoint()

    for _ in range(2):
        assert asyncio.run(endpoint()).tls is not None
        assert list((tmp_path / "temporary").iterdir()) == []


# -- credentials that change ---------------------------------------------------------------------------------


async def test_a_token_file_that_rotates_is_read_again_when_its_token_is_rejected(write, tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    async with server("new") as running:
        access = load_kubeconfig(write(document(running.url, user={"tokenFile": str(token)}, cluster=TRUST)))
        connection = access.connect()
        await connection._credentials.endpoint()
        token.write_text("new")
        assert "default" in await names(connection)
        await connection.aclose()


async def test_credentials_are_read_again_after_a_while(write):
    async with server("old", "new") as running:
        path = write(document(running.url, user={"token": "old"}, cluster=TRUST))
        credentials = load_kubeconfig(path).connect()._credentials
        first = await credentials.endpoint()
        write(document(running.url, user={"token": "new"}, cluster=TRUST))
        assert await credentials.endpoint() is first
        credentials._read_after -= RELOAD_S
        second = await credentials.endpoint()
        assert [dict(endpoint.headers)["Authorization"] for endpoint in (first, second)] == [
            "Bearer old",
            "Bearer new",
        ]
        assert first.tls is second.tls


def test_impersonation(write):
    user = {"as": "jane", "as-groups": ["dev", "ops"], "as-user-extra": {"scope": ["view"]}}
    access = load_kubeconfig(write(document(user=user)))

    async def endpoint():
        return await access.credentials().endpoint()

    assert asyncio.run(endpoint()).headers == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Extra-scope", "view"),
    )


# -- exec plug-ins -------------------------------------------------------------------------------------------

API_VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture
def plugin(tmp_path):
    """Writes a plug-in in Python; every run adds a line to ``runs``."""

    def written(body):
        file = tmp_path / "plugin"
        file.write_text(
            f"#!{sys.executable}\nimport json, os, sys\n"
            f"open({str(tmp_path / 'runs')!r}, 'a').write('run ')\n{body}\n"
        )
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return {"exec": {"apiVersion": API_VERSION, "command": "./plugin", "interactiveMode": "Never"}}

    return written


def printing(**status):
    credential = {"apiVersion": API_VERSION, "kind": "ExecCredential", "status": status}
    return f"print({json.dumps(json.dumps(credential))})"


def runs(tmp_path):
    return (tmp_path / "runs").read_text().count("run")


async def test_a_plug_in_is_run_once_and_its_token_used(write, plugin, tmp_path):
    async with server("secret") as running:
        user = plugin(printing(token="secret"))
        connection = load_kubeconfig(write(document(running.url, user=user, cluster=TRUST))).connect()
        for _ in range(3):
            assert "default" in await names(connection)
        await connection.aclose()
    assert runs(tmp_path) == 1


async def test_a_plug_in_is_run_again_when_its_token_is_rejected(write, plugin, tmp_path):
    body = f"print(open({str(tmp_path / 'answer')!r}).read())"
    async with server("new") as running:
        user = plugin(body)
        path = write(document(running.url, user=user, cluster=TRUST))
        credential = {"apiVersion": API_VERSION, "kind": "ExecCredential", "status": {"token": "old"}}
        (tmp_path / "answer").write_text(json.dumps(credential))
        connection = load_kubeconfig(path).connect()
        await connection._credentials.endpoint()
        credential["status"]["token"] = "new"
        (tmp_path / "answer").write_text(json.dumps(credential))
        assert "default" in await names(connection)
        await connection.aclose()
    assert runs(tmp_path) == 2


async def test_tokens_that_are_rotated_twice_in_a_moment_are_renewed_twice(write, plugin, tmp_path):
    """The second time every request was answered 401 for half a minute."""
    user = plugin(f"print(open({str(tmp_path / 'answer')!r}).read())")
    connection = None
    for token in ("one", "two", "three"):
        credential = {"apiVersion": API_VERSION, "kind": "ExecCredential", "status": {"token": token}}
        (tmp_path / "answer").write_text(json.dumps(credential))
        async with server(token) as running:
            path = write(document(running.url, user=user, cluster=TRUST))
            if connection is None:
                connection = load_kubeconfig(path).connect()
            connection._credentials._read_after = 0.0  # the port is another one
            assert "default" in await names(connection)
    await connection.aclose()
    assert runs(tmp_path) == 3


@pytest.mark.parametrize("trouble", ["plug-in", "kubeconfig", "half of it"])
async def test_what_fails_for_a_moment_does_not_end_what_works(write, plugin, tmp_path, trouble):
    """Each of them ended every request, with credentials that were still good."""
    answer = printing(token="secret", expirationTimestamp=_in_half_a_minute())
    user = plugin(f"os.path.exists({str(tmp_path / 'fail')!r}) and sys.exit('no net')\n{answer}")
    async with server("secret") as running:
        path = write(document(running.url, user=user, cluster=TRUST))
        connection = load_kubeconfig(path).connect()
        assert "default" in await names(connection)
        match trouble:
            case "plug-in":
                (tmp_path / "fail").touch()
            case "kubeconfig":
                Path(path).unlink()  # noqa: ASYNC240 - a test's own file
            case _:
                write("clusters:\n- name: one\n  cluster")
        connection._credentials._read_after = 0.0
        assert "default" in await names(connection)
        await connection.aclose()
    assert runs(tmp_path) == (2 if trouble == "plug-in" else 1)


def _in_half_a_minute():
    """Soon enough to be renewed, and still good."""
    return (datetime.now(UTC) + timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ")


async def test_a_token_that_is_rejected_again_does_not_start_a_plug_in_for_every_request(
    write, plugin, tmp_path
):
    async with server("secret") as running:
        user = plugin(printing(token="wrong"))
        connection = load_kubeconfig(write(document(running.url, user=user, cluster=TRUST))).connect()
        for _ in range(5):
            with pytest.raises(Upstream, match="401"):
                await names(connection)
        await connection.aclose()
    assert runs(tmp_path) == 2


@pytest.mark.parametrize(("expires", "expected"), [("2020-01-01T00:00:00Z", 2), ("2999-01-01T00:00:00Z", 1)])
async def test_an_expired_token_is_renewed(write, plugin, tmp_path, expires, expected):
    user = plugin(printing(token="secret", expirationTimestamp=expires))
    credentials = load_kubeconfig(write(document(user=user))).connect()._credentials
    await credentials.endpoint()
    credentials._read_after -= RELOAD_S
    await credentials.endpoint()
    assert runs(tmp_path) == expected


async def test_a_plug_in_may_give_a_client_certificate(write, plugin):
    certificate = (CERTIFICATES / "client.pem").read_text()
    key = (CERTIFICATES / "client.key").read_text()
    async with server(client_ca=AUTHORITY) as running:
        user = plugin(printing(clientCertificateData=certificate, clientKeyData=key))
        assert await asked(write(document(running.url, user=user, cluster=TRUST)))


async def test_a_plug_in_is_told_what_it_asks_for(write, plugin):
    body = (
        "spec = json.loads(os.environ['KUBERNETES_EXEC_INFO'])['spec']\n"
        f"assert spec == {{'interactive': False, 'cluster': {{'server': {ANYBODY!r}}}}}, spec\n"
        "assert os.environ['REGION'] == 'north' and sys.argv[1:] == ['get', 'token']\n"
        "assert sys.stdin.read() == ''\n"
    )
    user = plugin(body + printing(token="secret"))
    user["exec"] |= {
        "provideClusterInfo": True,
        "env": [{"name": "REGION", "value": "north"}],
        "args": ["get", "token"],
    }
    endpoint = await load_kubeconfig(write(document(user=user))).connect()._credentials.endpoint()
    assert endpoint.headers == (("Authorization", "Bearer secret"),)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("sys.exit('log in first')", "failed with status 1: log in first"),
        ("print('hello')", "did not print an ExecCredential"),
        (printing(), "neither a token nor a client certificate"),
        (
            printing(token="a").replace("k8s.io/v1", "k8s.io/v1beta1"),
            "printed apiVersion client.authentication.k8s",
        ),
        ("import time; time.sleep(60)", "was not done after 0.3 s"),
    ],
)
async def test_a_plug_in_that_does_wrong(write, plugin, monkeypatch, body, expected):
    if "sleep" in body:
        monkeypatch.setattr("shoal.shards.api.plugin.PLUGIN_TIMEOUT_S", 0.3)
    path = write(document(user=plugin(body)))
    with pytest.raises(KubeconfigError) as raised:
        await fetch_json(load_kubeconfig(path).connect(), NAMESPACES)
    assert expected in raised.value.message
    assert f"kubeconfig {path}, context one: exec plug-in" in raised.value.message


async def test_a_plug_in_that_is_not_there(write):
    user = {"exec": {"apiVersion": API_VERSION, "command": "no-such-plug-in"}}
    path = write(document(user=user))
    with pytest.raises(
        KubeconfigError, match="exec plug-in no-such-plug-in is not installed on this machine"
    ):
        await fetch_json(load_kubeconfig(path).connect(), NAMESPACES)


async def test_a_plug_in_without_a_command(write):
    path = write(document(user={"exec": {"apiVersion": API_VERSION}}))
    with pytest.raises(KubeconfigError, match="needs a command and an apiVersion"):
        await fetch_json(load_kubeconfig(path).connect(), NAMESPACES)


async def test_a_kubeconfig_that_disappears_is_named(write):
    path = write(document())
    connection = load_kubeconfig(path).connect()
    Path(path).unlink()  # noqa: ASYNC240 - a test's own file
    with pytest.raises(KubeconfigError, match=f"no kubeconfig at {path}"):
        await fetch_json(connection, NAMESPACES)


# -- in a pod ------------------------------------------------------------------------------------------------


def test_outside_of_a_pod_there_is_no_in_cluster_access(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeconfigError, match="no in-cluster access: Service host/port is not set"):
        in_cluster(str(tmp_path))


async def test_a_service_account_whose_token_rotates(tmp_path, monkeypatch):
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.read_bytes())
    (tmp_path / "token").write_text("old")
    async with server("new") as running:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(running.port))
        access = in_cluster(str(tmp_path))
        assert pickle.loads(pickle.dumps(access)) == access
        connection = access.connect()
        await connection._credentials.endpoint()
        (tmp_path / "token").write_text("new")
        assert "default" in await names(connection)
        await connection.aclose()
