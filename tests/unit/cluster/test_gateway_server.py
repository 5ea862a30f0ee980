"""The gateway on a real socket: where it listens, what it refuses, how long and broken answers travel."""

import asyncio
import socket

import aiohttp
import pytest
from support.local_shards import PODS, LocalInstallation, made

from shoal.cluster.gateway.server import bind, parse_listen, serve
from shoal.cluster.gateway.settings import AuthenticationSettings, TlsSettings
from shoal.cluster.settings import GatewaySettings, LimitSettings
from shoal.shards.model.errors import Broken, SettingsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:7480", ("127.0.0.1", 7480)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_a_listen_address_is_read(text, expected):
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", "7480", ":7480", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000"])
def test_what_is_no_listen_address_says_what_is(text):
    with pytest.raises(SettingsError, match="expected HOST:PORT"):
        parse_listen(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "::", ""])
def test_only_loopback_is_listened_on_without_protection(host):
    with pytest.raises(SettingsError, match="anything but loopback .* needs TLS .* and authentication"):
        bind(host, 0)


PROTECTED = GatewaySettings(
    tls=TlsSettings(certificate="/c.pem", key="/k.pem"), authentication=AuthenticationSettings(tokens=True)
)


def test_with_protection_everything_is_listened_on():
    with bind("0.0.0.0", 0, PROTECTED) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    with pytest.raises(SettingsError, match="'example.com': expected an IP address"):
        bind("example.com", 0, PROTECTED)


def test_a_port_in_use_is_an_error_that_names_it():
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}: port {port} is in use"):
            bind("127.0.0.1", port)


def installation(objects=3):
    built = LocalInstallation(1)
    built.hold(PODS, [made(PODS, f"web-{n:05}", namespace="a") for n in range(objects)])
    built.publish()
    return built


async def test_clients_are_served_and_the_port_is_free_again_afterwards():
    built = installation()
    server = await serve(built.gateway, "localhost", 0)
    assert server.url == f"http://127.0.0.1:{server.port}"
    async with aiohttp.ClientSession(server.url) as session, session.get("/api/v1/pods") as reply:
        assert reply.status == 200
        assert reply.headers["Shoal-Frontier"] == "100"
        assert "Server" not in reply.headers
        assert len((await reply.json())["items"]) == 3
    async with aiohttp.ClientSession(server.url) as session, session.head("/api/v1/pods") as reply:
        assert (reply.status, await reply.read()) == (200, b"")
    await server.stop()
    await server.stop()
    bind("127.0.0.1", server.port).close()
    await built.gateway.aclose()


async def test_a_second_server_on_the_same_port_is_refused():
    server = await serve(installation().gateway, "127.0.0.1", 0)
    with pytest.raises(SettingsError, match=f"port {server.port}"):
        await serve(installation().gateway, "127.0.0.1", server.port)
    await server.stop()


async def test_a_long_list_arrives_whole():
    server = await serve(installation(5000).gateway, "127.0.0.1", 0)
    async with aiohttp.ClientSession(server.url) as session, session.get("/api/v1/pods") as reply:
        assert reply.headers["Transfer-Encoding"] == "chunked"
        assert len((await reply.json())["items"]) == 5000
    await server.stop()


async def test_a_list_that_breaks_is_seen_to_be_broken():
    built = installation(5000)
    shard = built.shards["shard-0"]
    shard.on_page = lambda sent: shard.raises.append(Broken("boom")) if sent == 2 else None
    server = await serve(built.gateway, "127.0.0.1", 0)
    # In gzip the head would wait for the first 128 KiB, and the error would still become a Status.
    plain = {"Accept-Encoding": "identity"}
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.get("/api/v1/pods", headers=plain) as reply,
    ):
        assert reply.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()
    await server.stop()


async def test_a_client_that_hangs_up_frees_what_the_list_held():
    built = installation(20_000)
    server = await serve(built.gateway, "127.0.0.1", 0)
    shard = built.shards["shard-0"]
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(b"GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    assert shard.open_streams == 1
    writer.close()
    async with asyncio.timeout(10):
        await shard.streams_closed.wait()
    await server.stop()


async def test_a_client_that_never_reads_loses_its_connection(monkeypatch, caplog):
    monkeypatch.setattr("shoal.cluster.gateway.http.STALL_S", 0.1)
    built = installation(30_000)
    few = GatewaySettings(limits=LimitSettings(connections=100))  # as many files may be open anywhere
    server = await serve(built.gateway, "127.0.0.1", 0, few)
    shard = built.shards["shard-0"]
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", server.port))
    await loop.sock_sendall(client, b"GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(10):
        await shard.streams_closed.wait()
        while server._server.server_state.tasks:
            await asyncio.sleep(0.01)
    assert built.gateway.turns.taken == 0
    aborted = {
        reason: built.gateway.metrics.registry.get_sample_value(
            "shoal_gateway_aborted_total", {"reason": reason}
        )
        for reason in ("client stalled", "client gone", "incomplete")
    }
    assert aborted == {"client stalled": 1, "client gone": None, "incomplete": None}
    client.close()
    await server.stop()
    assert [record for record in caplog.records if record.levelname not in ("DEBUG", "INFO")] == []


async def test_garbage_on_the_socket_is_a_400():
    server = await serve(installation().gateway, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()
    await server.stop()
