"""HTTPS for the gateway: what may be listened on, certificates that rotate, people with certificates."""

import asyncio
import logging
import os
import shutil
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from support.certificates import Authority
from support.guarded import Guarded, bearer

from shoal.cluster.gateway.authentication import Authenticator, Untrusted
from shoal.cluster.gateway.authorization import EverythingAllowed
from shoal.cluster.gateway.http import Request
from shoal.cluster.gateway.reviews import Reviewer
from shoal.cluster.gateway.server import serve
from shoal.cluster.gateway.settings import AuthenticationSettings, TlsSettings
from shoal.cluster.gateway.tls import (
    ServerContext,
    check_exposure,
    client_certificate,
    is_loopback,
    peer_certificate,
)
from shoal.cluster.settings import GatewaySettings, parse_settings
from shoal.cluster.simulator.settings import User
from shoal.shards.api.client import Endpoint, HttpConnection
from shoal.shards.api.requests import ApiRequest
from shoal.shards.model.errors import ConnectionFailed, SettingsError

HOST = "127.0.0.1"
FILES = TlsSettings(certificate="c", key="k")
TOKENS = AuthenticationSettings(tokens=True)
CERTIFICATES = AuthenticationSettings(certificates=True)


# -- what may be listened on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_protection(host):
    assert is_loopback(host)
    check_exposure(host, TlsSettings(), AuthenticationSettings())


ELSEWHERE = [
    "0.0.0.0",
    "::",
    "192.0.2.1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "example.com",
    "",
    "localhost.example.com",
]


@pytest.mark.parametrize("host", ELSEWHERE)
@pytest.mark.parametrize(
    ("tls", "authentication", "missing"),
    [
        (TlsSettings(), AuthenticationSettings(), r"TLS \(.*\) and authentication \("),
        (FILES, AuthenticationSettings(), r"needs authentication \("),
        (FILES, AuthenticationSettings(anonymous=True), r"needs authentication \("),
        (TlsSettings(), TOKENS, r"needs TLS \(.*\), or whoever"),
    ],
)
def test_anything_else_needs_tls_and_authentication(host, tls, authentication, missing):
    with pytest.raises(SettingsError, match=missing):
        check_exposure(host, tls, authentication)


@pytest.mark.parametrize("host", ELSEWHERE)
@pytest.mark.parametrize("authentication", [TOKENS, CERTIFICATES])
def test_with_both_it_may_be_listened_on(host, authentication):
    check_exposure(host, FILES, authentication)


@pytest.mark.parametrize(
    ("gateway", "problem"),
    [
        ({"tls": {"certificate": "c"}}, "certificate and key go together"),
        ({"tls": {"client_ca": "a"}}, "gateway.tls.client_ca needs gateway.tls.certificate"),
        (
            {"authentication": {"certificates": True}},
            "gateway.authentication.certificates needs gateway.tls.client_ca",
        ),
        ({"authentication": {"token": True}}, "gateway.authentication.token: unknown setting"),
        ({"writes": "yes"}, "gateway.writes: "),
    ],
)
def test_settings_that_contradict_each_other_are_refused(gateway, problem):
    with pytest.raises(SettingsError, match=problem):
        parse_settings({"gateway": gateway}, where="file")


# -- certificates that rotate --------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def later(self):
        self.now += 1.0


class Served:
    """Files, a context that follows them, and a server that echoes whom it sees."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.connections = []
        self.authority = Authority(folder)
        self.issue("first")
        self.settings = TlsSettings(
            certificate=str(folder / "tls.pem"), key=str(folder / "tls.key"), **settings
        )
        self.clock = Clock()

    def issue(self, name, authority=None):
        """Puts a new certificate in the place of the present one."""
        return (authority or self.authority).issue(name, hosts=(HOST,), file="tls")

    @asynccontextmanager
    async def running(self):
        self.context = ServerContext.of(self.settings, now=self.clock)
        server = await asyncio.start_server(self._echo, HOST, 0, ssl=self.context)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _echo(self, reader, writer):
        self.connections.append(writer.get_extra_info("ssl_object"))
        found = peer_certificate(self.connections[-1])
        while line := await reader.readline():
            writer.write((found.common_name if found else "nobody").encode() + b" " + line)
        writer.close()

    def client(self, certificate=None, authority=None):
        context = ssl.create_default_context(cafile=(authority or self.authority).path)
        if certificate is not None:
            context.load_cert_chain(*certificate)
        return context

    async def open(self, certificate=None, authority=None):
        reader, writer = await asyncio.open_connection(
            HOST, self.port, ssl=self.client(certificate, authority)
        )
        return Connection(reader, writer)

    async def seen(self, **options):
        """The server's name, and the client's as the server sees it."""
        connection = await self.open(**options)
        try:
            return connection.server, await connection.ask()
        finally:
            await connection.close()


class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        subject = writer.get_extra_info("peercert")["subject"]
        self.server = dict(pair for names in subject for pair in names)["commonName"]

    async def ask(self):
        self.writer.write(b"hello\n")
        line = await self.reader.readline()
        if not line:
            raise ConnectionResetError("the server ended the connection")
        return line.decode().split()[0]

    async def close(self):
        self.writer.close()
        await self.writer.wait_closed()


async def test_new_files_serve_new_connections_and_open_ones_stay(tmp_path):
    async with Served(tmp_path).running() as served:
        old = await served.open()
        served.issue("second")
        assert (await served.seen())[0] == "first"  # looked at no more often than once a second
        served.clock.later()
        assert (await served.seen())[0] == "second"
        assert (old.server, await old.ask()) == ("first", "nobody")
        await old.close()


async def test_files_that_are_swapped_by_a_link_are_seen(tmp_path):
    """As Kubernetes does with a mounted secret."""
    served = Served(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        served.issue(name)
        for file in ("tls.pem", "tls.key"):
            shutil.move(tmp_path / file, tmp_path / name / file)
    for file in ("tls.pem", "tls.key"):
        (tmp_path / file).symlink_to(tmp_path / "present" / file)
    (tmp_path / "present").symlink_to(tmp_path / "one")
    async with served.running():
        assert (await served.seen())[0] == "one"
        (tmp_path / "next").symlink_to(tmp_path / "two")
        os.replace(tmp_path / "next", tmp_path / "present")  # noqa: PTH105 - pathlib follows links
        served.clock.later()
        assert (await served.seen())[0] == "two"


async def test_a_rotation_half_way_leaves_the_last_good_files_in_use(tmp_path, caplog):
    async with Served(tmp_path).running() as served:
        key = (tmp_path / "tls.key").read_bytes()
        served.issue("second")
        new_key = (tmp_path / "tls.key").read_bytes()
        (tmp_path / "tls.key").write_bytes(key)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                served.clock.later()
                assert (await served.seen())[0] == "first"
        (record,) = caplog.records
        assert "KEY_VALUES_MISMATCH" in record.problem
        (tmp_path / "tls.key").write_bytes(new_key)
        served.clock.later()
        assert (await served.seen())[0] == "second"
        (tmp_path / "tls.pem").unlink()
        served.clock.later()
        assert (await served.seen())[0] == "second"


async def test_an_authority_that_was_removed_vouches_for_nobody_any_more(tmp_path):
    served = Served(tmp_path, client_ca=str(tmp_path / "clients.pem"))
    other = Authority(tmp_path, "other")
    jill, jack = served.authority.issue("jill"), other.issue("jack")
    shutil.copy(served.authority.path, tmp_path / "clients.pem")
    async with served.running():
        assert await served.seen(certificate=jill) == ("first", "jill")
        assert await served.seen() == ("first", "nobody")
        with pytest.raises(OSError, match=r".*"):
            await served.seen(certificate=jack)
        shutil.copy(other.path, tmp_path / "clients.pem")
        served.clock.later()
        assert await served.seen(certificate=jack) == ("first", "jack")
        with pytest.raises(OSError, match=r".*"):
            await served.seen(certificate=jill)


async def test_a_certificate_shown_before_its_authority_was_removed_counts_no_more(tmp_path):
    served = Served(tmp_path, client_ca=str(tmp_path / "clients.pem"))
    other = Authority(tmp_path, "other")
    jill = served.authority.issue("jill")
    clients = tmp_path / "clients.pem"
    one, two = (Path(authority.path).read_text() for authority in (served.authority, other))  # noqa: ASYNC240
    clients.write_text(one)
    async with served.running():
        kept = await served.open(certificate=jill)
        await kept.ask()
        shown = client_certificate(served.connections[-1])
        assert shown == peer_certificate(served.connections[-1])
        assert shown.trusted()
        clients.write_text(one + two)
        served.issue("second")
        served.clock.later()
        assert shown.trusted()  # another authority beside it, and another name of ours, change nothing
        clients.write_text(two)
        served.clock.later()
        assert not shown.trusted()
        reviewer = Reviewer(None)
        settings = AuthenticationSettings(certificates=True)
        authenticator = Authenticator(settings, reviewer, EverythingAllowed(), wall=lambda: 0.0)
        with pytest.raises(Untrusted) as caught:
            await authenticator.authenticate(Request("GET", "/api", (), {}), shown)
        assert caught.value.status()["code"] == 401
        clients.write_text(one + two)
        served.clock.later()
        caller = await authenticator.authenticate(Request("GET", "/api", (), {}), shown)
        clients.write_text(two)
        served.clock.later()
        with pytest.raises(Untrusted):  # what an open watch asks again and again
            await caller.renew()
        await kept.close()


async def test_a_session_is_not_resumed_past_the_authority_that_vouched_for_it(tmp_path):
    served = Served(tmp_path, client_ca=str(tmp_path / "clients.pem"))
    shutil.copy(served.authority.path, tmp_path / "clients.pem")
    other = Authority(tmp_path, "other")
    async with served.running():
        context = served.client(served.authority.issue("jill"))
        context.maximum_version = (
            ssl.TLSVersion.TLSv1_2
        )  # whose sessions are known as soon as there is a connection

        def dialled(session):
            with (
                socket.create_connection((HOST, served.port)) as plain,
                context.wrap_socket(plain, server_hostname=HOST, session=session) as connection,
            ):
                connection.sendall(b"hello\n")
                return connection.recv(100), connection.session

        said, session = await asyncio.to_thread(dialled, None)
        assert said.startswith(b"jill ")
        shutil.copy(other.path, tmp_path / "clients.pem")
        served.clock.later()
        with pytest.raises(OSError, match=r".*"):
            await asyncio.to_thread(dialled, session)


def test_nothing_older_than_tls_1_2_is_spoken(tmp_path):
    served = Served(tmp_path)
    assert ServerContext.of(served.settings)._current.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("break_it", "problem"),
    [
        (lambda folder: (folder / "tls.pem").unlink(), "No such file"),
        (lambda folder: (folder / "tls.key").write_text("nonsense"), r"tls\.key cannot be used"),
        (lambda folder: shutil.copy(folder / "authority.pem", folder / "tls.pem"), "KEY_VALUES_MISMATCH"),
        (lambda folder: _encrypt(folder / "tls.key"), "the key is encrypted"),
        (lambda folder: (folder / "clients.pem").write_text("nonsense"), r"client_ca .* cannot be used"),
        (lambda folder: (folder / "clients.pem").unlink(), r"client_ca .* No such file"),
    ],
)
def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path, break_it, problem):
    served = Served(tmp_path, client_ca=str(tmp_path / "clients.pem"))
    shutil.copy(served.authority.path, tmp_path / "clients.pem")
    ServerContext.of(served.settings)
    break_it(tmp_path)
    with pytest.raises(SettingsError, match=problem):
        ServerContext.of(served.settings)


def _encrypt(path):
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


# -- people with certificates, over HTTPS --------------------------------------------------------------------


class Holder:
    """Credentials of a client: a certificate, a token, both or nothing."""

    def __init__(self, url, context, token=""):
        self._endpoint = Endpoint(url, context, tuple(bearer(token).items()) if token else ())

    async def endpoint(self):
        return self._endpoint

    def rejected(self, endpoint, *, again=False):
        return False

    def doubted(self, endpoint):
        return False


PODS = "/api/v1/namespaces/default/pods"


async def test_a_gateway_that_knows_people_by_their_certificates(tmp_path):
    served = Served(tmp_path)
    authentication = AuthenticationSettings(tokens=True, certificates=True)
    tls = msgspec.structs.replace(served.settings, client_ca=str(served.authority.path))
    settings = GatewaySettings(tls=tls, authentication=authentication, writes="forward")
    guarded = Guarded(User(name="jane", token="t-jane"), settings=settings)
    async with guarded.running(follow=("pods",)):
        rules = [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]}]
        await guarded.cluster_role("pods", *rules)
        await guarded.bind_cluster("ops", "pods", "Group", "ops")
        server = await serve(guarded.app, HOST, 0, settings)
        try:
            issue = served.authority.issue
            jill, jack = issue("jill", organizations=("devs", "ops")), issue("jack", organizations=("devs",))
            for certificate, token, method, expected in (
                (jill, "", "GET", 200),
                (jill, "nonsense", "GET", 200),
                (jack, "", "GET", 'pods is forbidden: User "jack" cannot list'),
                (None, "t-jane", "GET", 'pods is forbidden: User "jane" cannot list'),
                (None, "nonsense", "GET", "Unauthorized"),
                (None, "", "GET", "Unauthorized"),
                (issue(""), "", "GET", "Unauthorized"),
                (jill, "", "POST", "Shoal cannot pass this on for a user known by a client certificate"),
                (None, "t-jane", "POST", 'pods is forbidden: User "jane" cannot create'),
            ):
                connection = HttpConnection(Holder(server.url, served.client(certificate), token))
                try:
                    async with connection.open(ApiRequest(method, PODS, body=b"")) as response:
                        document = msgspec.json.decode(await response.read())
                finally:
                    await connection.aclose()
                if expected == 200:
                    assert (response.status, document["kind"]) == (200, "PodList")
                else:
                    assert document["message"].startswith(expected)
            for certificate in (
                issue("late", life=-timedelta(hours=1)),
                Authority(tmp_path, "other").issue("jill", organizations=("ops",), file="forged"),
                issue("server", hosts=(HOST,)),
            ):
                connection = HttpConnection(Holder(server.url, served.client(certificate)))
                with pytest.raises(ConnectionFailed):
                    async with connection.open(ApiRequest("GET", PODS)) as response:
                        await response.read()
                await connection.aclose()
        finally:
            await server.stop()
