"""The embedded API server on a socket, and what is served besides resources."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.apiserver import Caller, in_virtual_time, virtual_apiserver

from shoal.cluster.listening import AddressUnavailable
from shoal.cluster.simulator.faults import Fault
from shoal.cluster.simulator.filling import DirectWrites, fill
from shoal.cluster.simulator.population import population
from shoal.cluster.simulator.server import ApiServer, Tls
from shoal.cluster.simulator.settings import Rule, SimulatorSettings, User
from shoal.shards.model.errors import AlreadyExists, NotFound, SettingsError
from shoal.shards.model.resources import Resource

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = Resource("", "v1", "pods")


async def test_it_serves_and_stops_with_streams_open() -> None:
    async with ApiServer() as server, aiohttp.ClientSession(server.url) as client:
        async with client.post(MAPS, json={"metadata": {"name": "a"}}) as created:
            assert created.status == 201
        async with client.get(f"{MAPS}?watch=1&resourceVersion=0") as stream:
            line = await stream.content.readline()
            assert json.loads(line)["object"]["metadata"]["name"] == "a"
            await server.stop()
            assert await stream.content.read() == b""
    with pytest.raises(OSError):
        socket.create_connection((server.host, server.port), timeout=1).close()


async def test_a_port_in_use_is_named() -> None:
    async with ApiServer() as server:
        with pytest.raises(
            AddressUnavailable, match=rf"127\.0\.0\.1:{server.port}: port {server.port} is in use"
        ):
            await ApiServer(port=server.port).start()


async def test_broken_connections_are_broken_on_the_wire() -> None:
    async with ApiServer() as server, aiohttp.ClientSession(server.url) as client:
        server.faults.arm(Fault(kind="drop", count=2))  # aiohttp asks once more
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.get(MAPS)
        async with client.post(MAPS, json={"metadata": {"name": "a"}}) as created:
            assert created.status == 201
        for kind in ("cut", "truncate"):
            server.faults.arm(Fault(kind=kind, verb="watch"))
            async with client.get(f"{MAPS}?watch=1") as stream:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await stream.read()
        async with client.get(f"{MAPS}?watch=1") as stream:
            assert await stream.content.readline()
            server.faults.arm(Fault(kind="restart"))
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.read()


@pytest.fixture
def certificate(tmp_path: Path) -> Tls:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return Tls(cert, key)


async def test_https(certificate: Tls) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate.certificate))
    async with ApiServer(tls=certificate) as server, aiohttp.ClientSession() as client:
        assert server.url.startswith("https://")
        async with client.get(f"{server.url}/version", ssl=trusted) as answer:
            assert (await answer.json())["gitVersion"] == "v1.36.2"


async def test_clients_without_a_certificate_are_turned_away(certificate: Tls) -> None:
    guarded = Tls(certificate.certificate, certificate.key, client_ca=certificate.certificate)
    trusted = ssl.create_default_context(cafile=str(certificate.certificate))
    async with ApiServer(tls=guarded) as server, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await client.get(f"{server.url}/version", ssl=trusted)
        trusted.load_cert_chain(certificate.certificate, certificate.key)
        async with client.get(f"{server.url}/version", ssl=trusted) as answer:
            assert answer.status == 200


async def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        await ApiServer(tls=Tls(tmp_path / "a", tmp_path / "b")).start()


# -- besides resources ------------------------------------------------------------------------------


def test_health() -> None:
    async def main() -> None:
        server = Caller(virtual_apiserver())
        for path in ("/healthz", "/livez", "/readyz", "/livez/etcd"):
            assert await server.ask("GET", path) == (200, "ok")
        status, text = await server.ask("GET", "/readyz?verbose")
        assert (status, text.endswith("readyz check passed\n")) == (200, True)
        server.app.failing.add("log")
        assert (await server.ask("GET", "/readyz"))[0] == 500
        assert (await server.ask("GET", "/livez/log"))[0] == 500
        assert (await server.ask("GET", "/livez/nothing"))[0] == 404

    in_virtual_time(main())


def test_an_unchanged_discovery_is_304() -> None:
    async def main() -> None:
        server = Caller(virtual_apiserver())
        accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
        _, document = await server.ask("GET", "/apis", headers=accept)
        assert document["kind"] == "APIGroupDiscoveryList"
        etag = server.app.catalogue.documents.aggregated("apis")[1]
        assert await server.ask("GET", "/apis", headers={**accept, "If-None-Match": etag}) == (304, "")
        assert (await server.ask("GET", "/apis", headers={**accept, "If-None-Match": '"x"'}))[0] == 200

    in_virtual_time(main())


def test_an_older_server_has_legacy_discovery_only() -> None:
    async def main() -> None:
        server = Caller(virtual_apiserver(SimulatorSettings(seed=1, aggregated_discovery=False)))
        accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        assert (await server.get("/apis", Accept=accept))["kind"] == "APIGroupList"

    in_virtual_time(main())


def test_users_and_what_they_may() -> None:
    reader = User(name="reader", token="t", rules=(Rule(verbs=("get", "list"), namespaces=("default",)),))

    async def main() -> None:
        server = Caller(virtual_apiserver(SimulatorSettings(seed=1, users=(reader,))))

        async def status(path: str, token: str = "") -> int:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return (await server.ask("GET", path, headers=headers))[0]

        assert [await status(MAPS, token) for token in ("t", "x", "")] == [200, 401, 403]
        assert await status("/api/v1/configmaps", "t") == 403
        assert await status(f"{MAPS}?watch=1", "t") == 403
        assert [await status("/apis", token) for token in ("t", "")] == [200, 403]
        assert await status("/livez") == 200
        review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        for verb, allowed in (("list", True), ("delete", False)):
            attributes = {"verb": verb, "resource": "configmaps", "namespace": "default"}
            asked = {"spec": {"resourceAttributes": attributes}}
            _, found = await server.ask("POST", review, asked, headers={"Authorization": "Bearer t"})
            assert found["status"] == {"allowed": allowed}
        assert (await server.ask("POST", review, asked))[0] == 403

    in_virtual_time(main())


def test_requests_nobody_answers() -> None:
    async def main() -> None:
        server = Caller(virtual_apiserver())
        for method, path, expected in (
            ("GET", "/nothing", 404),
            ("POST", "/version", 404),
            ("POST", "/apis", 405),
            ("GET", "/api/v1/nothings", 404),
            ("GET", "/api/v1/namespaces/default/nodes", 404),
            ("POST", f"{MAPS}/a", 405),
            ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 405),
            ("GET", "/api/v1/namespaces/default/pods/p/log", 404),
        ):
            assert (await server.ask(method, path, {}))[0] == expected, path

    in_virtual_time(main())


# -- filling ----------------------------------------------------------------------------------------


def definition() -> bytes:
    document: dict[str, Any] = {
        "kind": "CustomResourceDefinition",
        "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {"name": "widgets.example.com", "uid": "1", "resourceVersion": "1"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True}],
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def test_a_cluster_is_filled_whatever_the_order() -> None:
    app = virtual_apiserver()
    widget = b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","resourceVersion":"9"}}'
    objects = [(Resource("example.com", "v1", "widgets"), widget)]
    objects += [(made.resource, made.body) for made in population(30)]
    objects.append((Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions"), definition()))
    assert fill(app.verbs, objects) == len(objects)
    assert len(app.storage.collection("pods")) == 30
    assert len(app.storage.collection("widgets.example.com")) == 1
    with pytest.raises(SettingsError, match=r"no definition makes the server serve x\.io/v1/things"):
        fill(app.verbs, [(Resource("x.io", "v1", "things"), widget)])
    with pytest.raises(SettingsError, match="cannot store an object"):
        fill(app.verbs, [(PODS, b"[]")])


def test_direct_writes() -> None:
    app = virtual_apiserver()
    writes = DirectWrites(app.verbs)
    pod = {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n"},
        "status": {"phase": "Running"},
    }
    made = writes.create(PODS, pod)
    assert (made["metadata"]["resourceVersion"], made["status"]) == ("6", {"phase": "Running"})
    with pytest.raises(AlreadyExists):
        writes.create(PODS, pod)
    found = writes.get(PODS, "default", "p")
    assert found is not None
    found["status"]["phase"] = "Failed"
    writes.update(PODS, found)
    assert writes.names(PODS) == ("default/p",)
    stored = app.storage.collection("pods").objects["default/p"]
    assert "Failed" in stored.fields
    writes.delete(PODS, "default", "p")
    assert writes.get(PODS, "default", "p") is None
    with pytest.raises(NotFound):
        writes.update(PODS, found)
