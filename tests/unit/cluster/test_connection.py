"""A connection against everything that is not a request: bounds, deadlines, and answers that stay whole."""

import asyncio
import contextlib
import socket

import pytest

from shoal.cluster import connection as module
from shoal.cluster.connection import CONNECTION, ConnectionLimits
from shoal.cluster.listening import HttpServer, bind

LIMITS = ConnectionLimits(head_bytes=8192, head_s=0.2)


@pytest.fixture
async def served():
    """Starts a server of an application; all are stopped in the end."""
    started = []

    async def start(app, limits=LIMITS, **options):
        server = HttpServer(app, bind("127.0.0.1", 0), limits=limits, **options)
        started.append(server)
        await server.start()
        return server

    yield start
    for server in started:
        await server.stop()


async def echo(scope, receive, send):
    """Answers with what the scope says was asked."""
    body = f"{scope['method']} {scope['path']} {scope['query_string'].decode('latin-1')}".encode()
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


class Client:
    """Raw bytes on a socket."""

    def __init__(self, server):
        self.server = server

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(self.server.host, self.server.port)
        return self

    async def __aexit__(self, *_):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def send(self, data):
        self.writer.write(data)

    async def head(self):
        async with asyncio.timeout(10):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")

    async def answer(self):
        head = await self.head()
        length = int(next(line for line in head.lower().splitlines() if "content-length" in line).split()[1])
        async with asyncio.timeout(10):
            return head.split("\r\n", 1)[0], (await self.reader.readexactly(length)).decode("latin-1")

    async def rest(self):
        """Everything until the server closes; a reset counts as the end."""
        data = b""
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(10):
                while piece := await self.reader.read(1 << 16):
                    data += piece
        return data


def get(target="/", *headers):
    lines = (f"GET {target} HTTP/1.1", "Host: x", *headers, "", "")
    return "\r\n".join(lines).encode("latin-1")


# -- targets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a/b?c=d&e", "/a/b", "c=d&e"),
        ("/a%2Fb%20c", "/a/b c", ""),
        ("/%00", "/\x00", ""),
        ("//a//", "//a//", ""),
        ("/a?b?c", "/a", "b?c"),
        ("http://other.example:80/a?b", "/a", "b"),
        ("http://other.example", "/", ""),
        ("http://other.example?b", "/", "b"),
        ("/a?b=%zz", "/a", "b=%zz"),
    ],
)
async def test_the_target_is_taken_apart_as_go_does(served, target, path, query):
    async with Client(await served(echo)) as client:
        client.send(get(target))
        assert await client.answer() == ("HTTP/1.1 200 OK", f"GET {path} {query}")


async def test_a_url_of_more_than_64_kib_is_read_whole(served):
    query = "labelSelector=" + "a" * 100_000
    async with Client(await served(echo, ConnectionLimits())) as client:
        client.send(get(f"/api?{query}"))
        assert (await client.answer())[1] == f"GET /api {query}"


@pytest.mark.parametrize("target", ["/%zz", "/a%2", "*", "a", "example.com:80"])
async def test_what_is_no_target_is_400(served, target):
    async with Client(await served(echo)) as client:
        client.send(get(target))
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"Connection: close" in answer


# -- heads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        get("/" + "a" * 9000),
        get("/", "X: " + "a" * 9000),
        get("/", *(f"X-{n}: {n}" for n in range(1000))),
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000,  # no end
        b"GET /" + b"a" * 9000,
    ],
)
async def test_a_head_that_is_too_long_is_431(served, request_):
    async with Client(await served(echo)) as client:
        client.send(request_)
        assert (await client.rest()).startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")


async def test_more_headers_than_any_client_sends_are_431(served):
    async with Client(await served(echo, ConnectionLimits())) as client:
        client.send(get("/", *(f"X-{n}: {n}" for n in range(1000))))
        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


async def test_each_request_has_the_whole_allowance(served):
    async with Client(await served(echo)) as client:
        for _ in range(5):
            client.send(get("/", "X: " + "a" * 5000))
            assert (await client.answer())[0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
async def test_a_head_that_does_not_arrive_in_time_costs_the_connection(served, sent):
    async with Client(await served(echo)) as client:
        client.send(sent)
        assert await client.rest() == b""


async def test_dripping_does_not_gain_time(served):
    async with Client(await served(echo)) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")

        async def drip():
            while True:
                client.send(b"X: y\r\n")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert await client.rest() == b""
        dripping.cancel()


async def test_an_idle_connection_is_not_a_head(served):
    async with Client(await served(echo)) as client:
        for _ in range(2):
            client.send(get())
            assert (await client.answer())[0] == "HTTP/1.1 200 OK"
            await asyncio.sleep(2 * LIMITS.head_s)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"missing required Host header"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"too many Host headers"),
        (b"\x16\x03\x01 nonsense\r\n\r\n", b"400 Bad Request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400 Bad Request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", b"400 Bad Request"),
    ],
)
async def test_what_is_no_request_is_400(served, request_, why):
    async with Client(await served(echo)) as client:
        client.send(request_)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request")
        assert why in answer


# -- pipelines and bodies -----------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_order(served):
    async with Client(await served(echo)) as client:
        client.send(b"".join(get(f"/{n}") for n in range(20)))
        for n in range(20):
            assert (await client.answer())[1] == f"GET /{n} "


async def test_garbage_behind_a_request_does_not_spoil_its_answer(served):
    go_on = asyncio.Event()

    async def slow(scope, receive, send):
        await go_on.wait()
        await echo(scope, receive, send)

    async with Client(await served(slow)) as client:
        client.send(get("/first"))
        client.send(b"\x00\x01garbage\r\n\r\n")
        await asyncio.sleep(0.05)
        go_on.set()
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"GET /first ")


async def test_a_pipeline_without_end_is_broken_off(served):
    forever = asyncio.Event()
    gone = asyncio.Event()

    async def watch(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()
        await forever.wait() if scope["path"] != "/first" else None

    async with Client(await served(watch)) as client:
        client.send(get("/first"))
        await client.head()
        client.send(get("/more") * (module.PIPELINED_MAX + 2))
        async with asyncio.timeout(10):
            await gone.wait()
        await client.rest()


async def test_a_body_nobody_reads_is_let_through_up_to_a_point(served):
    async with Client(await served(echo)) as client:
        client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + get("/b"))
        assert (await client.answer())[1] == "POST /a "
        assert (await client.answer())[1] == "GET /b "
    async with Client(await served(echo)) as client:
        client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert (await client.answer())[1] == "POST /a "
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                client.send(b"x" * 65536)
                await client.writer.drain()
        await client.rest()


async def test_a_body_that_never_comes_does_not_keep_the_connection(served, monkeypatch):
    monkeypatch.setattr(module, "UNREAD_S", 0.05)
    async with Client(await served(echo)) as client:
        client.send(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
        assert (await client.answer())[1] == "POST /a "
        assert await client.rest() == b""


async def test_an_upgrade_is_answered_like_any_request_and_the_connection_ends(served):
    async with Client(await served(echo)) as client:
        client.send(get("/a", "Connection: Upgrade", "Upgrade: h2c"))
        assert (await client.rest()).endswith(b"GET /a ")


async def test_http_1_0_gets_no_chunks(served):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async with Client(await served(app)) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        head, body = (await client.rest()).split(b"\r\n\r\n", 1)
        assert b"transfer-encoding" not in head.lower()
        assert body == b"onetwo"


# -- the extension ------------------------------------------------------------------------------------------


async def test_a_stream_goes_past_asgi_and_the_connection_serves_on(served):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        stream = scope["extensions"][CONNECTION]["stream"]()
        assert stream.chunked is (scope["http_version"] == "1.1")
        stream.write(b"5\r\nhello\r\n" if stream.chunked else b"hello")
        await stream.drained()
        assert (stream.gone, stream.flow.write_paused) == (False, False)
        await send({"type": "http.response.body", "body": b""})

    server = await served(app)
    async with Client(server) as client:
        for _ in range(2):
            client.send(get())
            assert "transfer-encoding: chunked" in await client.head()
            assert await client.reader.readexactly(15) == b"5\r\nhello\r\n0\r\n\r\n"
    async with Client(server) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.rest()).endswith(b"\r\n\r\nhello")


async def test_a_stream_knows_how_far_behind_its_client_is_and_that_it_left(served):
    seen = asyncio.Queue()
    go_on = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        stream = scope["extensions"][CONNECTION]["stream"]()
        while not stream.flow.write_paused:
            stream.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await asyncio.sleep(0)
        seen.put_nowait((stream.transport.get_write_buffer_size(), stream.unsent()))
        await go_on.wait()
        await stream.drained()
        seen.put_nowait(stream.gone)

    server = await served(app)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (server.host, server.port))
    await loop.sock_sendall(client, get())
    async with asyncio.timeout(10):
        behind, unsent = await seen.get()
        assert 0 < behind < unsent
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        client.close()
        go_on.set()
        assert await seen.get() is True


async def test_an_address_can_be_shared_by_those_who_say_so(served):
    first = bind("127.0.0.1", 0, shared=True)
    port = first.getsockname()[1]
    second = bind("127.0.0.1", port, shared=True)
    with pytest.raises(Exception, match="in use"):
        bind("127.0.0.1", port)
    assert first.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    first.close()
    second.close()
