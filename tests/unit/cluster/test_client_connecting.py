"""Which server a client asks, as whom, and what it refuses to do."""

import asyncio
import contextlib
import json
import os
from contextlib import asynccontextmanager

import pytest
import yaml
from support.certificates import Authority

import shoal
from shoal import errors
from shoal.cluster.client import credentials
from shoal.cluster.client.credentials import Identity, check_url, credentials_for
from shoal.cluster.client.seeking import Sought
from shoal.cluster.simulator.server import ApiServer, Tls
from shoal.cluster.simulator.settings import SimulatorSettings, User
from shoal.cluster.simulator.write_kubeconfig import kubeconfig_document, write_kubeconfig
from shoal.shards.api.client import PlainCredentials

USERS = (User(name="jane", token="token-of-jane"), User(name="joe", token="token-of-joe"))
SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """No kubeconfig, no pod, no server by name."""
    for name in [*os.environ]:
        if name.startswith(("SHOAL_", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@asynccontextmanager
async def server(authority=None, *, users=USERS):
    tls = None
    if authority is not None:
        certificate, key = authority.issue("server", hosts=("127.0.0.1",))
        tls = Tls(certificate, key, client_ca=authority.path, optional=True)
    async with ApiServer(settings=SimulatorSettings(seed=1, users=users), tls=tls) as found:
        yield found


async def whoami(client):
    """Who the server takes the client for."""

    from shoal.shards.api.requests import ApiRequest

    headers = (("Accept", "application/json"), ("Content-Type", "application/json"))
    async with client.connection.open(ApiRequest("POST", SELF, (), headers, b"{}")) as response:
        document = json.loads(await response.read())
        return document["status"]["userInfo"]["username"] if response.status == 201 else document["message"]


# -- who asks ------------------------------------------------------------------------------------------------


async def test_a_token(authority):
    async with server(authority) as found:
        async with shoal.connect(found.url, token="token-of-jane", ca=str(authority.path)) as client:
            assert await whoami(client) == "jane"
            assert await client.lister("v1/namespaces").count() > 0
        async with shoal.local(url=found.url, token="of-nobody", ca=str(authority.path)) as client:
            with pytest.raises(errors.Unauthorized, match="does not know who asks .*is the token") as refused:
                await client.lister("v1/namespaces").list()
            assert (refused.value.code, refused.value.reason) == (401, "Unauthorized")


async def test_a_client_certificate(authority):
    certificate, key = authority.issue("jane")
    async with (
        server(authority, users=(User(name="jane", token=""),)) as found,
        shoal.connect(
            found.url, ca=str(authority.path), client_certificate=str(certificate), client_key=str(key)
        ) as client,
    ):
        assert await whoami(client) == "jane"


async def test_a_token_file_is_read_again_when_the_token_is_not_known_any_more(authority, tmp_path):
    file = tmp_path / "token"
    file.write_text("token-of-jane\n")
    async with server(authority) as found:
        async with shoal.connect(found.url, token_file=str(file), ca=str(authority.path)) as client:
            namespaces = client.lister("v1/namespaces")
            assert await whoami(client) == "jane"
            file.write_text("expired")
            assert await whoami(client) == "jane"  # not read for every request
        async with shoal.connect(found.url, token_file=str(file), ca=str(authority.path)) as client:
            namespaces = client.lister("v1/namespaces")
            with pytest.raises(errors.Unauthorized):
                await namespaces.count()
            file.write_text("token-of-joe")
            assert await namespaces.count() > 0
            assert await whoami(client) == "joe"
            file.unlink()
            assert await whoami(client) == "joe"


async def test_a_kubeconfig_says_everything(authority, tmp_path):
    async with server(authority) as found:
        path = write_kubeconfig(
            tmp_path / "config", found.url, ca_certificate=authority.path.read_bytes(), token="token-of-jane"
        )
        for client in (
            shoal.local(str(path)),
            shoal.local(str(path), "shoal"),
            shoal.connect(kubeconfig=str(path)),
            shoal.connect(kubeconfig=str(path), context="shoal"),
        ):
            async with client:
                assert await whoami(client) == "jane"
                assert str(path) in repr(client)


async def test_a_url_takes_the_place_of_the_kubeconfigs_server(authority, tmp_path):
    async with server(authority) as found:
        path = write_kubeconfig(
            tmp_path / "config",
            "https://192.0.2.1:6443",
            ca_certificate=authority.path.read_bytes(),
            token="token-of-jane",
        )
        async with shoal.connect(found.url, kubeconfig=str(path)) as client:
            assert await whoami(client) == "jane"
        async with shoal.local(str(path), url=found.url) as client:
            assert await whoami(client) == "jane"


async def test_another_authority_is_trusted_beside_the_kubeconfigs(authority, tmp_path):
    other = Authority(tmp_path, "other")
    async with server(authority) as found:
        for ca in (None, str(authority.path)):
            path = write_kubeconfig(
                tmp_path / "config",
                "https://192.0.2.1:6443",
                ca_certificate=other.path.read_bytes(),
                token="token-of-joe",
            )
            async with shoal.connect(found.url, kubeconfig=str(path), ca=ca) as client:
                if ca is None:
                    with pytest.raises(errors.CertificateRejected, match="does not verify"):
                        await whoami(client)
                else:
                    assert await whoami(client) == "joe"


async def test_the_service_account_of_a_pod(authority, tmp_path, monkeypatch):
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text("token-of-joe")
    (folder / "ca.crt").write_bytes(authority.path.read_bytes())
    monkeypatch.setattr(credentials, "SERVICE_ACCOUNT", str(folder))
    async with server(authority) as found:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(found.port))
        for client in (
            shoal.local(),
            shoal.local(in_cluster=True),
            shoal.connect(found.url, in_cluster=True),
        ):
            async with client:
                assert await whoami(client) == "joe"
    with pytest.raises(errors.BadRequest, match="in_cluster says who asks, not where Shoal is"):
        shoal.connect(in_cluster=True)


# -- where -----------------------------------------------------------------------------------------------------


async def test_what_the_environment_says(authority, tmp_path, monkeypatch):
    async with server(authority) as found:
        monkeypatch.setenv("SHOAL_SERVER", found.url)
        monkeypatch.setenv("SHOAL_TOKEN", "token-of-jane")
        monkeypatch.setenv("SHOAL_CERTIFICATE_AUTHORITY", str(authority.path))
        async with shoal.connect() as client:
            assert await whoami(client) == "jane"
        async with shoal.connect(token="token-of-joe") as client:
            assert await whoami(client) == "joe"
        path = write_kubeconfig(
            tmp_path / "config", found.url, ca_certificate=authority.path.read_bytes(), token="token-of-joe"
        )
        monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/nothing:{path}")
        async with shoal.local() as client:
            assert await whoami(client) == "joe"
        async with shoal.connect(context="shoal") as client:
            assert await whoami(client) == "joe"
        async with shoal.connect() as client:  # $KUBECONFIG alone names no Shoal
            assert await whoami(client) == "jane"


def test_without_anything_connect_asks_this_machine():
    assert shoal.connect().where == "http://127.0.0.1:7480"


def test_without_anything_there_is_no_api_server():
    with pytest.raises(
        errors.KubeconfigError, match="no API server is known: there is no kubeconfig at ~/.kube/config"
    ):
        shoal.local()


async def test_the_address_may_be_found_out_when_it_is_needed():
    looked = []

    async def find():
        looked.append(1)
        return "http://127.0.0.1:1"

    sought = Sought(find, PlainCredentials)
    assert not sought.rejected(None)
    assert looked == []
    assert (await sought.endpoint()).server == "http://127.0.0.1:1"
    assert await sought.endpoint() is await sought.endpoint()
    assert looked == [1]
    assert not sought.rejected(await sought.endpoint())


def test_a_client_stays_on_its_event_loop():
    client = shoal.connect("http://127.0.0.1:1")

    async def asked():
        await client.lister("v1/pods").list(timeout_s=1)

    with pytest.raises(errors.ConnectionFailed):
        asyncio.run(asked())
    with pytest.raises(RuntimeError, match=r"belongs to another event loop .* or use shoal\.sync"):
        asyncio.run(asked())

    async def closed():
        await client.aclose()

    asyncio.run(closed())


USES = {
    "lister": lambda client: client.lister("v1/pods").list(timeout_s=1),
    "writer": lambda client: client.writer("v1/configmaps", "x").create(
        {"metadata": {"name": "a"}}, timeout_s=1
    ),
    "discovery": lambda client: client.discovery.resolve("v1/pods", timeout_s=1),
    "factory": lambda client: client.informers.resolve("v1/pods"),
    "informer": lambda client: asyncio.wait_for(_informer(client), 0.1),
}


async def _informer(client):
    await client.informer("v1/pods").synced()


@pytest.mark.parametrize("first", USES)
@pytest.mark.parametrize("then", USES)
def test_whatever_a_client_is_first_used_for_it_stays_on_that_event_loop(first, then):
    """An informer on a second loop would have failed over and over, and its `synced` never returned."""
    client = shoal.connect("http://127.0.0.1:1")

    async def used():
        with contextlib.suppress(errors.ConnectionFailed, errors.TimedOut, TimeoutError):
            await USES[first](client)

    async def used_again():
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            await USES[then](client)
        await client.aclose()

    asyncio.run(used())
    asyncio.run(used_again())


async def test_nothing_listens_there():
    async with ApiServer() as gone:
        pass
    async with shoal.connect(gone.url) as client:
        with pytest.raises(errors.ConnectionFailed, match=f"cannot connect to {gone.url}"):
            await client.lister("v1/pods").list()


async def test_what_answers_is_no_api_server():
    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"<html>welcome</html>"})

    async with ApiServer(app=_Page(app)) as found, shoal.connect(found.url) as client:
        for asked in (client.lister("v1/pods").list(), client.lister("pods").list()):
            with pytest.raises(errors.Garbage, match="<html>welcome"):
                await asked


class _Page:
    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        await self._app(scope, receive, send)

    def close(self):
        pass


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "https://a", "ray_address": "auto"}, "url and ray_address exclude each other"),
        ({"kubeconfig": "k", "token": "t"}, "token does not go with kubeconfig or context"),
        (
            {"context": "c", "client_certificate": "t", "client_key": "k"},
            "client_certificate does not go with",
        ),
        ({"url": "https://a", "in_cluster": True, "token": "t"}, "token does not go with in_cluster"),
        ({"kubeconfig": "k", "in_cluster": True}, "in_cluster goes neither with kubeconfig nor"),
        ({"url": "https://a", "token": "t", "token_file": "f"}, "token and token_file exclude"),
        ({"url": "https://a", "client_certificate": "c"}, "client_certificate and client_key go together"),
        (
            {"url": "https://a", "ca": "c", "insecure_skip_tls_verify": True},
            "insecure_skip_tls_verify and ca exclude",
        ),
        ({"url": "https://a", "token": "with blank"}, "characters that no token has"),
        ({"url": "https://a", "timeout_s": 0}, "timeout_s is 0: expected seconds"),
        (
            {"url": "example.com"},
            "url 'example.com': expected the URL of a server, such as http://127.0.0.1:7480",
        ),
        ({"url": "ftp://example.com"}, "expected the URL of a server"),
        ({"url": "http://a:x"}, "expected the URL of a server"),
        ({"url": "http://[::1"}, "expected the URL of a server"),
        ({"url": "https://a/?x=1"}, "expected the URL of a server"),
        ({"url": "https://jane:secret@a"}, "one with a user name or a password in it is not taken"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(errors.BadRequest, match=message) as refused:
        shoal.connect(**arguments)
    assert "secret" not in str(refused.value)


def test_options_there_are_not_are_refused_by_name():
    with pytest.raises(TypeError, match="no option is called tokn; there are api, ca, "):
        shoal.local(url="https://a", tokn="t")


def test_files_that_cannot_be_used_are_named(tmp_path):
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for options, message in (
        ({"ca": str(nonsense)}, f"ca {nonsense} cannot be used"),
        ({"ca": "/nowhere"}, "ca /nowhere cannot be used"),
        ({"token_file": "/nowhere"}, "token_file /nowhere cannot be read: No such file"),
        (
            {"client_certificate": "/nowhere", "client_key": "/nowhere"},
            "client_certificate /nowhere and client_key",
        ),
    ):
        with pytest.raises(errors.SettingsError, match=message):
            shoal.connect("https://a", **options)
    with pytest.raises(errors.KubeconfigError, match="no kubeconfig at /nowhere"):
        shoal.connect(kubeconfig="/nowhere")


@pytest.mark.parametrize("url", ["http://shoal.example.com:7480", "http://192.0.2.1"])
async def test_a_token_is_never_sent_in_the_clear(url, tmp_path, monkeypatch):
    refused = pytest.raises(errors.BadRequest, match="a token is not sent over http to another machine")
    with refused:
        shoal.connect(url, token="t")
    with refused:
        monkeypatch.setenv("SHOAL_TOKEN", "t")
        shoal.connect(url)
    monkeypatch.delenv("SHOAL_TOKEN")
    secure = write_kubeconfig(tmp_path / "secure", "https://192.0.2.1", token="t")
    clear = write_kubeconfig(tmp_path / "clear", url, token="t")
    for arguments in ({"url": url, "kubeconfig": str(secure)}, {"kubeconfig": str(clear)}):
        for make in (shoal.connect, shoal.local):
            with refused:
                make(**arguments)


def test_a_password_of_a_kubeconfig_is_guarded_as_a_token(tmp_path):
    document = kubeconfig_document("http://192.0.2.1")
    document["users"][0]["user"] = {"username": "jane", "password": "secret"}
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(document))
    identity = Identity(kubeconfig=str(path))

    async def asked():
        await credentials_for(None, identity, identity.access()).endpoint()

    with pytest.raises(errors.BadRequest, match="not sent over http"):
        asyncio.run(asked())


def test_to_this_machine_it_is():
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://shoal.example.com"):
        check_url(url)
        shoal.connect(url, token="t")


def test_tokens_are_not_shown():
    assert "hush" not in repr(Identity(token="hush"))
    assert "hush" not in repr(shoal.connect("https://a", token="hush"))
