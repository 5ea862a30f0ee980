"""Too many connections: who gives way, TLS handshakes included, and how many files a process may open."""

import asyncio
import contextlib
import logging
import resource
import socket
import ssl

import pytest
import uvloop
from support.certificates import Authority

from shoal.cluster import crowd as module
from shoal.cluster.connection import CONNECTION, ConnectionLimits
from shoal.cluster.crowd import CONNECTIONS_MIN, RESERVED_FILES, Crowd, open_files
from shoal.cluster.gateway.settings import TlsSettings
from shoal.cluster.gateway.tls import ServerContext
from shoal.cluster.listening import HttpServer, bind

HOST = "127.0.0.1"
ASKED = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Somebody:
    def __init__(self, name):
        self.name = name
        self.left = False

    def give_way(self):
        self.left = True


def test_the_one_idle_longest_gives_way_and_first_who_never_asked():
    crowd = Crowd(3)
    kept, fresh, later = Somebody("kept"), Somebody("fresh"), Somebody("later")
    assert all(map(crowd.begins, (kept, fresh, later)))
    crowd.busy(kept)
    crowd.idle(kept)
    left = []
    for _ in range(3):
        new = Somebody("new")
        assert crowd.begins(new)
        crowd.busy(new)
        left.append([one.name for one in (kept, fresh, later) if one.left])
    assert left == [["fresh"], ["fresh", "later"], ["kept", "fresh", "later"]]
    assert (len(crowd), crowd.gave_way) == (3, 3)
    assert not crowd.begins(Somebody("one too many"))


def test_who_has_left_or_is_asked_something_never_gives_way():
    crowd = Crowd(1)
    busy = Somebody("busy")
    crowd.begins(busy)
    crowd.busy(busy)
    assert not crowd.begins(Somebody("more"))
    assert not busy.left
    crowd.ends(busy)
    crowd.ends(busy)
    crowd.idle(busy)
    crowd.begins(Somebody("again"))
    assert not busy.left


@pytest.mark.parametrize(
    ("limits", "allowed", "raised", "warns"),
    [
        ((1024, 100_000), 30_000, 30_000 + RESERVED_FILES, False),
        ((1024, 4096), 4096 - RESERVED_FILES, 4096, True),
        ((100_000, 100_000), 30_000, None, False),
        ((1024, resource.RLIM_INFINITY), 30_000, 30_000 + RESERVED_FILES, False),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 30_000, None, False),
        ((100, 100), CONNECTIONS_MIN, 100, True),
    ],
)
def test_files_are_asked_for_and_too_few_are_said(monkeypatch, caplog, limits, *, allowed, raised, warns):
    given = []
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(module.resource, "setrlimit", lambda _, wanted: given.append(wanted[0]))
    with caplog.at_level(logging.WARNING):
        assert open_files(30_000) == allowed
    assert given == ([] if raised is None else [raised])
    assert bool(caplog.records) is warns


# -- on sockets ----------------------------------------------------------------------------------------------


async def crowded(scope, receive, send):
    body = str(scope["extensions"][CONNECTION]["crowded"]).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(app=crowded, tls=None, **limits):
    server = HttpServer(app, bind(HOST, 0), limits=ConnectionLimits(**limits), tls=tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def rest(reader):
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            return await reader.read()
    return b""


async def answered(reader):
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        return head.split(b"\r\n")[0], await reader.readexactly(4 + head.count(b"content-length: 5"))


@pytest.fixture
def contexts(tmp_path):
    """A server's TLS context, and a client's."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("first", hosts=(HOST,), file="tls")
    server = ServerContext.of(TlsSettings(certificate=str(certificate), key=str(key)))
    return server, ssl.create_default_context(cafile=authority.path)


async def test_silent_connections_keep_nobody_out(contexts):
    for server_tls, client_tls in ((None, None), contexts):
        async with serving(tls=server_tls, connections=3) as server, contextlib.AsyncExitStack() as stack:
            silent = []
            for _ in range(20):
                reader, writer = await asyncio.open_connection(HOST, server.port)  # no handshake, no request
                stack.callback(writer.close)
                silent.append(reader)
            reader, writer = await asyncio.open_connection(HOST, server.port, ssl=client_tls)
            stack.callback(writer.close)
            writer.write(ASKED)
            assert await answered(reader) == (b"HTTP/1.1 200 OK", b"False")
            assert [await rest(one) for one in silent[:17]] == [b""] * 17
            assert len(server.crowd) <= 3
            assert server.crowd.gave_way == 18


async def test_when_all_are_busy_more_are_told_apart_and_then_refused():
    go_on = asyncio.Event()

    asked = 0

    async def app(scope, receive, send):
        nonlocal asked
        asked += 1
        await go_on.wait()
        await crowded(scope, receive, send)

    async with serving(app, connections=2) as server, contextlib.AsyncExitStack() as stack:
        readers = []
        for number in range(1, 20):
            reader, writer = await asyncio.open_connection(HOST, server.port)
            stack.callback(writer.close)
            writer.write(ASKED)
            readers.append(reader)
            while asked < min(number, 18):
                await asyncio.sleep(0)
        assert await rest(readers[-1]) == b""
        go_on.set()
        answers = [await rest_of(reader) for reader in readers]
        assert answers.count(b"False") == 2
        assert answers.count(b"True") == 16
        assert server.crowd.gave_way == 0


async def rest_of(reader):
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
        return (await answered(reader))[1]
    return b""


async def test_a_handshake_that_does_not_come_ends(contexts):
    async with serving(tls=contexts[0], head_s=0.2) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        assert await rest(reader) == b""
        writer.close()
        while len(server.crowd):
            await asyncio.sleep(0)


async def test_a_request_right_behind_the_handshake_is_answered(contexts):
    async with serving(tls=contexts[0]) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port, ssl=contexts[1])
        for _ in range(3):
            writer.write(ASKED)
            assert await answered(reader) == (b"HTTP/1.1 200 OK", b"False")
        writer.close()
        await writer.wait_closed()
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(b"no handshake\r\n\r\n")
        await rest(reader)
        writer.close()


async def greet_in_two_segments(port, tls, turns):
    """A handshake whose first message comes in two segments, `turns` of the loop apart; what the server answers."""
    loop = asyncio.get_running_loop()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with socket.create_connection((HOST, port)) as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = True
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
                break
            greeting = outgoing.read()
            if first:
                first = False
                await loop.sock_sendall(connection, greeting[:100])
                for _ in range(turns):
                    await asyncio.sleep(0)
                greeting = greeting[100:]
            await loop.sock_sendall(connection, greeting)
            received = await loop.sock_recv(connection, 1 << 16)
            assert received, "the server broke the connection"
            incoming.write(received)
        client.write(ASKED)
        await loop.sock_sendall(connection, outgoing.read())
        while True:
            incoming.write(await loop.sock_recv(connection, 1 << 16))
            with contextlib.suppress(ssl.SSLWantReadError):
                return client.read(1 << 16)


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_greeting_in_two_segments_is_put_together_in_order(contexts, loop_factory):
    async def greet():
        async with serving(tls=contexts[0]) as server:
            for turns in range(12):
                async with asyncio.timeout(10):
                    answer = await greet_in_two_segments(server.port, contexts[1], turns)
                assert answer.startswith(b"HTTP/1.1 200 OK"), turns

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(greet())


@pytest.mark.parametrize("coding", [b"xchunked", b"gzip, chunked", b"identity"])
async def test_a_body_in_an_unknown_coding_is_refused_at_once(coding):
    async with serving() as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: " + coding + b"\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.readline()).split()[1] in (b"501", b"400")
        writer.close()


async def test_of_what_was_refused_nothing_is_kept():
    """Heads are large, and anybody may send them: a traceback would hold one until the garbage collector comes by."""
    async with serving(head_bytes=8192) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        while not server._server.server_state.connections:
            await asyncio.sleep(0)
        (connection,) = server._server.server_state.connections
        writer.write(b"".join(b"X-%d: %b\r\n" % (at, b"a" * 100) for at in range(200)))
        assert (await rest(reader)).startswith(b"HTTP/1.1 431")
        writer.close()
        while connection in server._server.server_state.connections:
            await asyncio.sleep(0)
        assert (connection.url, connection.headers, connection.parser) == (b"", [], None)
        assert connection._refused == "431 Request Header Fields Too Large"
