"""Credentials while a client runs: token files that are being written, servers that move, schemes in capitals."""

import asyncio
import itertools
import logging
from contextlib import asynccontextmanager

import pytest
import yaml
from support.certificates import Authority
from support.clock import run_virtual

import shoal
from shoal import errors
from shoal.cluster.client import seeking
from shoal.cluster.client.connect import Client
from shoal.cluster.client.credentials import Identity, credentials_for
from shoal.cluster.client.seeking import FIND_AGAIN_S, Sought, SoughtConnection
from shoal.cluster.simulator.server import ApiServer, Tls
from shoal.cluster.simulator.settings import SimulatorSettings, User
from shoal.cluster.simulator.write_kubeconfig import write_kubeconfig
from shoal.shards.api.client import HttpConnection, PlainCredentials
from shoal.shards.api.kubeconfig import in_cluster, load_kubeconfig
from shoal.shards.api.reloading import RELOAD_S
from shoal.shards.api.requests import document_request
from shoal.shards.api.tokens import AGAIN_S

SECURE = "https://192.0.2.1"


@pytest.fixture
def file(tmp_path):
    found = tmp_path / "token"
    found.write_text("first\n")
    return found


async def token_of(found):
    return dict((await found.endpoint()).headers).get("Authorization")


# -- token files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_token_file_is_refused_at_once(file, content):
    file.write_text(content)
    for make in (shoal.connect, shoal.local):
        with pytest.raises(errors.SettingsError, match=f"token_file {file} is empty: expected a token"):
            make(url=SECURE, token_file=str(file))


@pytest.mark.parametrize("spoil", [lambda file: file.write_text(""), lambda file: file.unlink()])
def test_a_token_file_that_is_being_written_leaves_the_last_token(file, spoil, caplog):
    """A writer truncates, then writes; what was read in between made the client nobody for a minute."""

    async def main():
        found = credentials_for(SECURE, Identity(token_file=str(file)), None)
        first = await found.endpoint()
        assert await token_of(found) == "Bearer first"
        await asyncio.sleep(RELOAD_S)
        spoil(file)
        for _ in range(3):
            assert await found.endpoint() is first
            await asyncio.sleep(AGAIN_S)
        file.write_text("second")
        assert await token_of(found) == "Bearer second"
        file.write_text("third")
        assert await token_of(found) == "Bearer second"  # a good one is good for a while

    with caplog.at_level(logging.WARNING, "shoal"):
        run_virtual(main())
    (said,) = caplog.records  # once, not for every request
    assert (said.message, said.what) == (
        "credentials cannot be read again, the last ones are kept",
        "token file",
    )
    assert str(file) in said.problem
    assert AGAIN_S <= 5


def test_a_rejected_token_whose_file_is_empty_is_reported_and_read_again(file):
    async def main():
        found = credentials_for(SECURE, Identity(token_file=str(file)), None)
        first = await found.endpoint()
        file.write_text("")
        assert not found.rejected(first)
        assert await found.endpoint() is first
        file.write_text("second")
        assert found.rejected(first)
        assert await token_of(found) == "Bearer second"

    run_virtual(main())


def test_half_a_token_is_none(file):
    async def main():
        found = credentials_for(SECURE, Identity(token_file=str(file)), None)
        assert await token_of(found) == "Bearer first"
        await asyncio.sleep(RELOAD_S)
        file.write_text("two words")
        assert await token_of(found) == "Bearer first"

    run_virtual(main())


def kubeconfig_with(file, tmp_path, server=SECURE):
    path = write_kubeconfig(tmp_path / "config", server, token="of-nobody")
    document = yaml.safe_load(path.read_text())
    document["users"][0]["user"] = {"tokenFile": str(file)}
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_an_empty_token_file_of_a_kubeconfig_is_refused_at_once(file, tmp_path):
    file.write_text("\n")
    path = kubeconfig_with(file, tmp_path)
    with pytest.raises(errors.KubeconfigError, match=f"kubeconfig {path}.* tokenFile {file} is empty"):
        shoal.local(path)


@pytest.mark.parametrize("spoil", [lambda file: file.write_text(""), lambda file: file.unlink()])
def test_a_token_file_of_a_kubeconfig_that_is_being_written_leaves_the_last_token(file, tmp_path, spoil):
    async def main():
        found = load_kubeconfig(kubeconfig_with(file, tmp_path)).credentials()
        first = await found.endpoint()
        assert await token_of(found) == "Bearer first"
        await asyncio.sleep(RELOAD_S)
        spoil(file)
        assert await found.endpoint() is first
        found.rejected(first)
        assert await found.endpoint() is first
        file.write_text("second")
        assert await found.endpoint() is first  # within `AGAIN_S`
        await asyncio.sleep(AGAIN_S)
        assert await token_of(found) == "Bearer second"

    run_virtual(main())


def test_a_token_of_a_service_account_that_is_being_written_leaves_the_last_one(tmp_path, file, monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "ca.crt").write_bytes(Authority(tmp_path).path.read_bytes())

    async def main():
        found = in_cluster(str(tmp_path)).credentials()
        assert await token_of(found) == "Bearer first"
        await asyncio.sleep(RELOAD_S)
        file.write_text("")
        assert await token_of(found) == "Bearer first"
        file.write_text("second")
        await asyncio.sleep(AGAIN_S)
        assert await token_of(found) == "Bearer second"

    run_virtual(main())
    file.write_text("")
    with pytest.raises(errors.KubeconfigError, match="no in-cluster access: .*empty"):
        in_cluster(str(tmp_path))


# -- URLs and servers that move ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["HTTPS", "Https"])
@pytest.mark.parametrize("skip", [False, True])
async def test_a_scheme_in_capital_letters_is_as_safe(tmp_path, scheme, skip):
    """Authorities, certificates and the permission to believe anybody were dropped without a word."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", hosts=("127.0.0.1",))
    settings = SimulatorSettings(seed=1, users=(User(name="jane", token="t"),))
    async with ApiServer(settings=settings, tls=Tls(certificate, key)) as found:
        url = f"{scheme}://127.0.0.1:{found.port}"
        trust = {"insecure_skip_tls_verify": True} if skip else {"ca": str(authority.path)}
        async with shoal.local(url=url, token="t", **trust) as client:
            assert await client.lister("v1/namespaces").count() > 0
        path = write_kubeconfig(
            tmp_path / "config", SECURE, token="t", ca_certificate=authority.path.read_bytes()
        )
        async with shoal.local(str(path), url=url) as client:
            assert await client.lister("v1/namespaces").count() > 0


async def test_a_server_that_moved_is_looked_for_again():
    """Once found, it was never looked for again, and a gateway that moved never found."""
    looked = []

    async def find():
        looked.append(asyncio.get_running_loop().time())
        return at

    async with ApiServer() as first:
        at = first.url
        sought = Sought(find, PlainCredentials)
        client = Client(SoughtConnection(HttpConnection(sought), sought), where="a Shoal on Ray")
        namespaces = client.lister("v1/namespaces")
        assert await namespaces.count() > 0
        assert len(looked) == 1
    async with ApiServer() as second:
        at = second.url
        assert await namespaces.count(timeout_s=20) > 0
        assert len(looked) == 2
    await client.aclose()


def test_a_server_that_is_down_is_not_looked_for_all_the_time():
    looked = []

    async def find():
        looked.append(asyncio.get_running_loop().time())
        return "http://127.0.0.1:1"

    async def main():
        sought = Sought(find, PlainCredentials)
        for _ in range(100):
            await sought.endpoint()
            sought.unreachable(sought.found)
            await asyncio.sleep(0.1)
        await sought.endpoint()

    run_virtual(main())
    first, *pauses = (later - sooner for sooner, later in itertools.pairwise(looked))
    assert first == pytest.approx(0.1)  # at once
    assert pauses == pytest.approx([FIND_AGAIN_S], abs=0.2)


async def test_a_server_that_is_found_nowhere_is_asked_where_it_was():
    places = ["http://127.0.0.1:1"]

    async def find():
        if not places:
            raise errors.NotReady("no Shoal runs there")
        return places.pop()

    sought = Sought(find, PlainCredentials)
    first = await sought.endpoint()
    old = sought.found
    sought.unreachable(old)
    assert await sought.endpoint() is first
    places.append("http://127.0.0.1:2")
    sought.unreachable(sought.found)
    assert await sought.endpoint() is first  # not that soon


async def test_only_what_was_not_sent_makes_a_server_be_looked_for(monkeypatch):
    looked = []

    async def find():
        looked.append(1)
        return "http://192.0.2.1"

    sought = Sought(find, PlainCredentials)
    await sought.endpoint()
    monkeypatch.setattr(seeking, "FIND_AGAIN_S", 0.0)
    sent, unsent = errors.ConnectionFailed("broke off"), errors.ConnectionFailed("cannot connect")
    unsent.sent = False
    for error, times in ((sent, 1), (unsent, 2)):
        connection = SoughtConnection(Failing(error), sought)
        with pytest.raises(errors.ConnectionFailed):
            async with connection.open(document_request("/api")):
                raise AssertionError("never")
        await sought.endpoint()
        assert len(looked) == times


class Failing:
    """A connection on which nothing arrives."""

    def __init__(self, error):
        self._error = error

    @asynccontextmanager
    async def open(self, request):
        raise self._error
        yield
