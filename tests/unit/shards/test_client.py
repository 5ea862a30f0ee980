"""The HTTP connection against servers on loopback that do one thing each, well or badly."""

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest

from shoal.shards.api.client import Endpoint, HttpConnection, PlainCredentials, fetch, fetch_json
from shoal.shards.api.requests import ApiRequest, document_request
from shoal.shards.model.errors import (
    CertificateRejected,
    ConnectionFailed,
    Garbage,
    Upstream,
)
from shoal.shards.settings import ApiSettings

CERTIFICATES = Path(__file__).parent / "certificates"
VERSION = document_request("/version")
WATCH = ApiRequest("GET", "/api/v1/pods", (("watch", "1"),), stream=True)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def answer(body, status="200 OK", *headers):
    head = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextlib.asynccontextmanager
async def server(*answers, tls=None, reset=False):
    """Sends the n-th answer to the n-th request, whichever connection it comes on; then closes."""
    heads = []
    left = list(answers)
    talks = set()

    async def talk(reader, writer):
        talks.add(asyncio.current_task())
        try:
            while left:
                heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
                for piece in left.pop(0):
                    if isinstance(piece, float):
                        await asyncio.sleep(piece)
                    else:
                        writer.write(piece)
                        await writer.drain()
                if reset:
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort() if reset else writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    serving = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    port = serving.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}", heads
    finally:
        serving.close()
        for running in talks:
            running.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await serving.wait_closed()


@contextlib.asynccontextmanager
async def connected(url, **settings):
    connection = HttpConnection(PlainCredentials(url), ApiSettings(**settings))
    try:
        yield connection
    finally:
        await connection.aclose()


async def test_a_request_is_sent_as_it_stands_and_its_answer_read():
    request = ApiRequest("GET", "/api/v1/pods", (("fieldSelector", "a!=b,c=d"),))
    script = [answer(b'{"major":"1"}', "200 OK", "Content-Type: application/json")]
    async with server(script) as (url, heads), connected(f"{url}/clusters/c1/") as connection:
        headers, body = await fetch(connection, request)
    assert body == b'{"major":"1"}'
    assert headers["content-type"] == "application/json"
    first, *rest = heads[0].split("\r\n")
    assert first == "GET /clusters/c1/api/v1/pods?fieldSelector=a%21%3Db%2Cc%3Dd HTTP/1.1"
    lines = {line.lower() for line in rest}
    assert {"accept: application/json", "accept-encoding: identity", "user-agent: shoal"} <= lines
    assert not any(line.startswith(("cookie", "content-type")) for line in lines)


async def test_connections_are_used_again():
    async with server([answer(b"1")], [answer(b"2")]) as (url, _), connected(url) as connection:
        assert await fetch_json(connection, VERSION) == 1
        assert await fetch_json(connection, VERSION) == 2


async def test_a_body_is_sent():
    async with server([answer(b"{}", "201 Created")]) as (url, heads), connected(url) as connection:
        headers = (("Content-Type", "application/json"),)
        await fetch(connection, ApiRequest("POST", "/api/v1/namespaces", headers=headers, body=b"{}"))
    assert "Content-Type: application/json\r\n" in heads[0]
    assert "Content-Length: 2\r\n" in heads[0]


async def test_a_stream_is_read_as_it_arrives_and_may_be_left():
    pieces = [CHUNKED + chunk(b"one\n"), 0.05, chunk(b"two\n"), 60.0]
    async with server(pieces) as (url, _), connected(url) as connection, connection.open(WATCH) as response:
        chunks = response.chunks()
        assert await anext(chunks) == b"one\n"
        assert await anext(chunks) == b"two\n"
        await chunks.aclose()


async def test_a_complete_answer_ends_and_a_broken_one_raises():
    whole, half = [CHUNKED, chunk(b"a\n"), b"0\r\n\r\n"], [CHUNKED, chunk(b"a\n")]
    async with server(whole) as (url, _), connected(url) as connection, connection.open(WATCH) as response:
        assert [part async for part in response.chunks()] == [b"a\n"]
    async with (
        server(half, reset=True) as (url, _),
        connected(url) as connection,
        connection.open(WATCH) as response,
    ):
        with pytest.raises(ConnectionFailed, match=r"broke off in the middle|failed"):
            [part async for part in response.chunks()]


async def test_large_answers_arrive_whole_however_slowly_they_are_read():
    line = b"x" * 9000 + b"\n"
    pieces = [CHUNKED, *[chunk(line)] * 2000, b"0\r\n\r\n"]
    async with server(pieces) as (url, _), connected(url) as connection, connection.open(WATCH) as response:
        size = 0
        async for part in response.chunks():
            size += len(part)
            assert len(part) < 4 << 20
            await asyncio.sleep(0)
    assert size == 2000 * len(line)


async def test_errors_of_the_server_are_upstream_errors():
    body = b'{"kind":"Status","message":"nodes is forbidden","reason":"Forbidden","code":403}'
    async with server([answer(body, "403 Forbidden")]) as (url, _), connected(url) as connection:
        with pytest.raises(Upstream, match="GET /version with 403: nodes is forbidden") as raised:
            await fetch_json(connection, VERSION)
    assert raised.value.http_status == 403


async def test_a_redirect_is_not_followed():
    moved = answer(b"", "302 Found", "Location: http://127.0.0.1:1/login")
    async with server([moved]) as (url, _), connected(url) as connection:
        with pytest.raises(Upstream, match="302"):
            await fetch(connection, VERSION)


async def test_unchanged_documents_have_no_body():
    async with (
        server([answer(b"", "304 Not Modified", 'ETag: "1"')]) as (url, _),
        connected(url) as connection,
    ):
        assert (await fetch(connection, document_request("/apis", etag='"1"')))[1] == b""


async def test_an_answer_that_is_not_json_is_garbage():
    async with server([answer(b"<html>")]) as (url, _), connected(url) as connection:
        with pytest.raises(Garbage, match="GET /version is not JSON"):
            await fetch_json(connection, VERSION)


async def test_an_answer_that_is_too_long_is_garbage():
    async with (
        server([answer(b"x" * 5000)]) as (url, _),
        connected(url) as connection,
        connection.open(VERSION) as response,
    ):
        with pytest.raises(Garbage, match="longer than the 4000 bytes"):
            await response.read(4000)


# -- a server that cannot be reached -------------------------------------------------------------------------


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def failure(url, **settings):
    async with connected(url, **settings) as connection:
        with pytest.raises(ConnectionFailed) as raised:
            await fetch(connection, VERSION)
    return raised.value


async def test_a_server_that_is_away():
    url = f"http://127.0.0.1:{free_port()}"
    error = await failure(url)
    assert (
        error.message == (f"cannot connect to {url}/version: Connection refused; is the API server running?")
        or "Connect call failed" in error.message
    )


async def test_a_host_nobody_knows(monkeypatch):
    async def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    error = await failure("http://nowhere.invalid:6443")
    assert error.message.startswith("the host of http://nowhere.invalid:6443/version is not known: ")


async def test_a_server_that_does_not_answer_in_time():
    async with server([5.0]) as (url, _):
        error = await failure(url, request_timeout_s=0.1)
    assert error.message == f"{url}/version sent nothing for 0.1 s"


async def test_a_stream_may_be_silent_for_longer():
    pieces = [CHUNKED, 0.3, chunk(b"late\n"), b"0\r\n\r\n"]
    async with (
        server(pieces) as (url, _),
        connected(url, request_timeout_s=0.1) as connection,
        connection.open(WATCH) as response,
    ):
        assert [part async for part in response.chunks()] == [b"late\n"]


async def test_no_connection_is_left():
    async with (
        server([CHUNKED, 5.0], [answer(b"1")]) as (url, _),
        connected(url, connections=1, connect_timeout_s=0.1) as connection,
        connection.open(WATCH),
    ):
        with pytest.raises(ConnectionFailed, match="all 1 connections are in use"):
            await fetch(connection, VERSION)


async def test_a_server_that_hangs_up():
    async with server([b""], reset=True) as (url, _):
        error = await failure(url)
    assert url in error.message


async def test_something_that_does_not_speak_http():
    async with server([b"SSH-2.0-OpenSSH_9.6\r\n"]) as (url, _):
        error = await failure(url)
    assert url in error.message


async def test_a_closed_connection_can_be_opened_again():
    async with server([answer(b"1")], [answer(b"2")]) as (url, _):
        connection = HttpConnection(PlainCredentials(url))
        assert await fetch_json(connection, VERSION) == 1
        await connection.aclose()
        await connection.aclose()
        assert await fetch_json(connection, VERSION) == 2
        await connection.aclose()


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    async with server([answer(b"1")]) as (url, _), connected(url) as connection:
        assert await fetch_json(connection, VERSION) == 1


# -- certificates --------------------------------------------------------------------------------------------


def server_tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    return context


class Fixed:
    """Credentials that stay what they are, or change once."""

    def __init__(self, *endpoints):
        self.endpoints = list(endpoints)
        self.rejections = 0

    async def endpoint(self):
        return self.endpoints[0]

    def doubted(self, endpoint):
        return False

    def rejected(self, endpoint, *, again=False):
        if again:
            return False
        self.rejections += 1
        if len(self.endpoints) > 1:
            self.endpoints.pop(0)
            return True
        return False


async def asked(endpoint):
    connection = HttpConnection(Fixed(endpoint))
    try:
        return await fetch_json(connection, VERSION)
    finally:
        await connection.aclose()


async def test_a_certificate_from_a_known_authority_is_accepted():
    trusting = ssl.create_default_context(cafile=CERTIFICATES / "authority.pem")
    async with server([answer(b"1")], tls=server_tls()) as (url, _):
        assert await asked(Endpoint(url, trusting)) == 1


async def test_a_certificate_that_does_not_verify_is_rejected_and_the_message_says_what_to_do():
    async with server([answer(b"1")], tls=server_tls()) as (url, heads):
        with pytest.raises(CertificateRejected) as raised:
            await asked(Endpoint(url, ssl.create_default_context()))
    message = raised.value.message
    assert message.startswith(f"the certificate of {url}/version does not verify: ")
    assert "certificate-authority" in message
    assert "insecure-skip-tls-verify" in message
    assert heads == []


async def test_without_a_context_certificates_are_verified():
    async with server([answer(b"1")], tls=server_tls()) as (url, _):
        with pytest.raises(CertificateRejected):
            await asked(Endpoint(url))


async def test_a_certificate_for_another_name_is_rejected():
    trusting = ssl.create_default_context(cafile=CERTIFICATES / "authority.pem")
    async with server([answer(b"1")], tls=server_tls()) as (url, _):
        with pytest.raises(CertificateRejected, match=r"other\.test"):
            await asked(Endpoint(url, trusting, server_name="other.test"))
    async with server([answer(b"1")], tls=server_tls()) as (url, _):
        assert await asked(Endpoint(url, trusting, server_name="apiserver.test")) == 1


async def test_a_plain_port_behind_https_is_no_certificate_error():
    async def greet(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as serving:
        url = f"https://127.0.0.1:{serving.sockets[0].getsockname()[1]}"
        with pytest.raises(ConnectionFailed) as raised:
            await asked(Endpoint(url, ssl.create_default_context()))
    assert not isinstance(raised.value, CertificateRejected)
    assert raised.value.message.startswith(f"no TLS with {url}/version: ")


# -- credentials ---------------------------------------------------------------------------------------------


async def test_after_a_401_renewed_credentials_are_tried_once():
    answers = [answer(b"{}", "401 Unauthorized")], [answer(b"1")]
    async with server(*answers) as (url, heads):
        old = Endpoint(url, headers=(("Authorization", "Bearer old"),))
        new = Endpoint(url, headers=(("Authorization", "Bearer new"),))
        connection = HttpConnection(Fixed(old, new))
        assert await fetch_json(connection, VERSION) == 1
        await connection.aclose()
    assert ["Bearer old" in heads[0], "Bearer new" in heads[1]] == [True, True]


async def test_a_401_that_nothing_can_be_done_about_is_passed_on():
    async with server([answer(b"{}", "401 Unauthorized")]) as (url, heads):
        credentials = Fixed(Endpoint(url))
        connection = HttpConnection(credentials)
        async with connection.open(VERSION) as response:
            assert response.status == 401
        await connection.aclose()
    assert credentials.rejections == 1
    assert len(heads) == 1


# -- pinned connections ----------------------------------------------------------------------------------------


async def test_a_pinned_connection_asks_twice_over_one_tcp_connection():
    connections = set()

    async def talk(reader, writer):
        connections.add(writer.get_extra_info("peername"))
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer(b"{}"))
        writer.close()

    serving = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{serving.sockets[0].getsockname()[1]}"
    try:
        async with connected(url) as connection:
            assert (await fetch(connection, VERSION))[1] == b"{}"
            async with connection.pinned() as pinned:
                for _ in range(3):
                    assert (await fetch(pinned, VERSION))[1] == b"{}"
            assert len(connections) == 2, "one of its own, and none of the others'"
    finally:
        serving.close()
        await serving.wait_closed()


async def test_a_pinned_connection_that_was_not_kept_is_refused():
    close = answer(b"{}", "200 OK", "Connection: close")
    async with server([close], [answer(b"{}")]) as (url, heads), connected(url) as connection:
        async with connection.pinned() as pinned:
            assert (await fetch(pinned, VERSION))[1] == b"{}"
            with pytest.raises(ConnectionFailed, match="was not kept"):
                await fetch(pinned, VERSION)
        assert len(heads) == 2


async def test_a_pinned_connection_the_server_dropped_unasked_is_refused():
    """aiohttp asks again over a new connection by itself when an idle one turns out to be closed."""
    gone = asyncio.Event()
    asked = 0

    async def talk(reader, writer):
        nonlocal asked
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            writer.write(answer(b"{}"))
            await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        gone.set()

    serving = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{serving.sockets[0].getsockname()[1]}"
    try:
        async with connected(url) as connection, connection.pinned() as pinned:
            await fetch(pinned, VERSION)
            with pytest.raises(ConnectionFailed):
                await fetch(pinned, VERSION)
            assert gone.is_set()
    finally:
        serving.close()
        await serving.wait_closed()
