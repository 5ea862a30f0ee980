"""Certificates and authorities that are rotated under a client, given one by one or by a kubeconfig."""

import asyncio
import logging
import shutil
from contextlib import aclosing

import pytest
import yaml
from support.certificates import Authority
from support.clock import run_virtual

from shoal import errors
from shoal.cluster.client.credentials import Identity, credentials_for
from shoal.cluster.simulator.server import ApiServer, Tls
from shoal.cluster.simulator.settings import SimulatorSettings, User
from shoal.shards.api.client import HttpConnection, fetch_json
from shoal.shards.api.kubeconfig import load_kubeconfig
from shoal.shards.api.reloading import RELOAD_S
from shoal.shards.api.requests import ApiRequest, document_request
from shoal.shards.api.tokens import AGAIN_S

SECURE = "https://192.0.2.1"
NAMESPACES = document_request("/api/v1/namespaces")


class Files:
    """An authority, another one, and the files that a client is given."""

    def __init__(self, folder):
        (folder / "other").mkdir()
        self.good, self.other = Authority(folder), Authority(folder / "other", "other")
        self.ca, self.certificate, self.key = folder / "ca.pem", folder / "mine.pem", folder / "mine.key"
        self.server = self.good.issue("server", hosts=("127.0.0.1",))
        self.trust(self.good)
        self.rotate(self.good, "jane")

    def trust(self, authority):
        shutil.copy(authority.path, self.ca)

    def rotate(self, authority, name, *, key=True):
        certificate, its_key = authority.issue(name, file=f"{name}-{id(authority)}")
        shutil.copy(certificate, self.certificate)
        if key:
            shutil.copy(its_key, self.key)

    @property
    def identity(self):
        names = {"client_certificate": str(self.certificate), "client_key": str(self.key)}
        return Identity(ca=str(self.ca), **names)

    def given(self, url=SECURE):
        return credentials_for(url, self.identity, None)

    def kubeconfig(self, url=SECURE):
        path = self.ca.parent / "config"
        cluster = {"server": url, "certificate-authority": str(self.ca)}
        user = {"client-certificate": str(self.certificate), "client-key": str(self.key)}
        document = {
            "clusters": [{"name": "a", "cluster": cluster}],
            "users": [{"name": "a", "user": user}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        }
        path.write_text(yaml.safe_dump(document))
        return credentials_for(None, Identity(), load_kubeconfig(str(path)))

    def of(self, kind, url=SECURE):
        return self.given(url) if kind == "given" else self.kubeconfig(url)


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


KINDS = pytest.mark.parametrize("kind", ["given", "kubeconfig"])


@KINDS
def test_a_client_certificate_that_rotates_is_used_within_a_minute(files, kind):
    """One given to `connect` or `local` was read once, and the client lost its name when it expired."""

    async def main():
        found = files.of(kind)
        first = await found.endpoint()
        await asyncio.sleep(RELOAD_S)
        assert await found.endpoint() is first, "kept-alive connections belong to the context"
        files.rotate(files.good, "paula")
        assert await found.endpoint() is first
        await asyncio.sleep(RELOAD_S)
        second = await found.endpoint()
        assert second.tls is not first.tls
        files.trust(files.other)
        await asyncio.sleep(RELOAD_S)
        assert (await found.endpoint()).tls is not second.tls

    run_virtual(main())


@KINDS
@pytest.mark.parametrize("spoil", ["half", "gone", "empty", "ca"])
def test_files_that_cannot_be_used_for_a_moment_leave_the_last_ones(files, kind, spoil, caplog):
    async def main():
        found = files.of(kind)
        first = await found.endpoint()
        await asyncio.sleep(RELOAD_S)
        match spoil:
            case "half":
                files.rotate(files.good, "paula", key=False)
            case "gone":
                files.key.unlink()
            case "empty":
                files.certificate.write_text("")
            case _:
                files.ca.write_text("-----BEGIN")
        for _ in range(3):
            assert await found.endpoint() is first
            await asyncio.sleep(AGAIN_S)
        files.trust(files.good)
        files.rotate(files.good, "paula")
        assert (await found.endpoint()).tls is not first.tls

    with caplog.at_level(logging.WARNING, "shoal"):
        run_virtual(main())
    (said,) = caplog.records
    assert said.message == "credentials cannot be read again, the last ones are kept"
    assert str(files.ca.parent) in said.problem


def test_a_token_that_rotates_counts_though_a_certificate_cannot_be_used(files, tmp_path):
    token = tmp_path / "token"
    token.write_text("first")

    async def main():
        found = credentials_for(SECURE, Identity(token_file=str(token), ca=str(files.ca)), None)
        first = await found.endpoint()
        await asyncio.sleep(RELOAD_S)
        files.ca.unlink()
        token.write_text("second")
        second = await found.endpoint()
        assert second.headers == (("Authorization", "Bearer second"),)
        assert second.tls is first.tls

    run_virtual(main())


def test_a_rejected_client_certificate_is_read_again_at_once(files):
    async def main():
        found = files.given()
        first = await found.endpoint()
        assert not found.rejected(first), "it is the same"
        files.rotate(files.good, "paula")
        assert found.rejected(first)
        second = await found.endpoint()
        assert second.tls is not first.tls
        assert not found.rejected(second)

    run_virtual(main())


async def who(connection):
    body = b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    headers = (("Content-Type", "application/json"), ("Accept", "application/json"))
    review = await fetch_json(connection, ApiRequest("POST", path, headers=headers, body=body))
    return review["status"]["userInfo"]["username"]


@KINDS
async def test_a_server_is_asked_with_the_certificate_there_is_now(files, kind):
    tls = Tls(*files.server, client_ca=files.good.path)
    async with ApiServer(
        settings=SimulatorSettings(seed=1, users=(User(name="nobody", token="t"),)), tls=tls
    ) as running:
        found = files.of(kind, running.url)
        async with aclosing(HttpConnection(found)) as connection:
            assert await who(connection) == "jane"
            files.rotate(files.good, "paula")
            _age(found)
            assert await who(connection) == "paula"


@KINDS
@pytest.mark.parametrize("what", ["certificate", "authority"])
async def test_tls_that_fails_makes_files_be_read_again_at_once(files, kind, what):
    tls = Tls(*files.server, client_ca=files.good.path)
    async with ApiServer(settings=SimulatorSettings(seed=1), tls=tls) as running:
        if what == "certificate":
            files.rotate(files.other, "jane")
        else:
            files.trust(files.other)
        found = files.of(kind, running.url)
        async with aclosing(HttpConnection(found)) as connection:
            with pytest.raises(errors.ConnectionFailed):
                await fetch_json(connection, NAMESPACES)
            files.trust(files.good)
            files.rotate(files.good, "jane")
            _looked_long_ago(found)
            assert (await fetch_json(connection, NAMESPACES))["items"]


def _age(found):
    """A minute passes."""
    found._credentials._read_after -= RELOAD_S


def _looked_long_ago(found):
    """`AGAIN_S` passes."""
    if hasattr(found._credentials, "_looked_at"):
        found._credentials._looked_at -= AGAIN_S
