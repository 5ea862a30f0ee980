"""The HTTP server around an ASGI application: what it logs, and clients that read nothing."""

import asyncio
import itertools
import logging
import socket

import pytest
import uvicorn

from shoal.cluster.listening import CONNECTION, HttpServer, bind

BODY = b"x" * (16 << 20)
"""More than the kernel keeps for a client on loopback."""


@pytest.fixture
def served():
    """Starts a server of an application; all of them are stopped in the end."""
    started = []

    async def start(app, **options):
        server = HttpServer(app, bind("127.0.0.1", 0), **options)
        started.append(server)
        await server.start()
        return server

    yield start
    assert all(server._task is None or server._task.done() for server in started)


async def ok(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def deaf(server):
    """A client that asks and never reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (server.host, server.port))
    await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return client


async def test_the_body_of_an_answer_does_not_wait_until_its_head_is_acknowledged(served):
    """With Nagle's algorithm every answer but the first on a kept connection took 40 ms."""
    server = await served(ok)
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    (connection,) = server._server.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
    await server.stop()


async def test_an_idle_server_sleeps_and_ends_once_it_is_stopped(served, monkeypatch):
    ticks = []
    on_tick = uvicorn.Server.on_tick

    async def counted(self, counter):
        ticks.append(counter)
        return await on_tick(self, counter)

    monkeypatch.setattr("uvicorn.Server.on_tick", counted)
    monkeypatch.setattr("shoal.cluster.listening.DATE_S", 1e6)
    server = await served(ok)
    async with asyncio.timeout(10):
        await server.stop()
    assert len(ticks) == 2, "one as it begins, one as it ends"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(server.host, server.port)


async def test_the_date_of_answers_goes_on(served, monkeypatch):
    monkeypatch.setattr("shoal.cluster.listening.DATE_S", 0.001)
    now = itertools.count(1_700_000_000)
    monkeypatch.setattr("uvicorn.server.time.time", lambda: float(next(now)))
    server = await served(ok)
    dates = set()
    async with asyncio.timeout(10):
        while len(dates) < 3:
            dates.update(
                value for name, value in server._server.server_state.default_headers if name == b"date"
            )
            await asyncio.sleep(0)
    await server.stop()


async def test_what_clients_send_is_not_logged(served, caplog, capfd):
    server = await served(ok)
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.close()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()
    await server.stop()
    assert caplog.text == ""
    assert capfd.readouterr().err == ""
    assert logging.getLogger("uvicorn.error").getEffectiveLevel() == logging.ERROR


async def test_a_connection_that_is_broken_by_the_application_leaves_no_word(served, caplog):
    before, after = [], asyncio.Event()

    async def app(scope, receive, send):
        connection = scope["extensions"][CONNECTION]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": BODY, "more_body": True})
        before.append(connection["unsent"]())
        await connection["abort"]()
        after.set()

    server = await served(app)
    client = await deaf(server)
    async with asyncio.timeout(10):
        await after.wait()
    assert before[0] > len(BODY) // 2
    await server.stop()
    client.close()
    assert caplog.text == ""


async def test_reading_makes_less_of_what_is_unsent(served):
    asked, counts = asyncio.Queue(), asyncio.Queue()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": BODY, "more_body": True})
        while await asked.get():
            counts.put_nowait(scope["extensions"][CONNECTION]["unsent"]())
        await scope["extensions"][CONNECTION]["abort"]()

    server = await served(app)
    client = await deaf(server)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        asked.put_nowait(True)
        first = await counts.get()
        read = 0
        while read < 1 << 20:
            read += len(await loop.sock_recv(client, 1 << 16))
        asked.put_nowait(True)
        assert await counts.get() < first
        asked.put_nowait(False)
    await server.stop()
    client.close()


@pytest.mark.parametrize("head", [(), ((b"connection", b"close"),)])
async def test_a_finished_answer_nobody_reads_does_not_keep_its_connection(served, caplog, head):
    async def app(scope, receive, send):
        length = (b"content-length", str(len(BODY)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length, *head]})
        await send({"type": "http.response.body", "body": BODY})

    server = await served(app, timeout_keep_alive=0.05)
    client = await deaf(server)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        while not server._server.server_state.total_requests or server._server.server_state.connections:
            await asyncio.sleep(0.01)
        read = 0
        try:
            while piece := await loop.sock_recv(client, 1 << 20):
                read += len(piece)
        except ConnectionResetError:
            pass
    assert read < len(BODY)
    client.close()
    await server.stop()
    assert caplog.text == ""
