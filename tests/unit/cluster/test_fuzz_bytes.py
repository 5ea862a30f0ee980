"""Bytes that are hardly HTTP, on the gateway's socket: no crash, no hang, no 5xx that is not a Status, nothing leaks.

Seeded, so a run repeats. What came before a failure is in its message.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass
from typing import Any

import pytest
from support.gateway_installation import running

REQUESTS = 1500
AT_ONCE = 16
SEED = 20261120
PATIENCE_S = 60.0
"""A bound for failing: an answer, or the end of the connection, comes at once."""
SILENCE_S = 0.3
"""After so long without an answer the server is taken to wait for more."""
LAST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
LEAKS = re.compile(rb"Traceback|\.py\b|site-packages| object at 0x|<class '|Exception\b|its log says why")
TARGETS = [
    b"/api/v1/configmaps",
    b"/api/v1/namespaces/shop/configmaps?limit=2",
    b"/api/v1/namespaces/shop/configmaps/cm-0",
    b"/apis/apps/v1/deployments?labelSelector=app%3Dweb&fieldSelector=metadata.name%3Dx",
    b"/api/v1/pods?watch=1&timeoutSeconds=1&resourceVersion=0",
    b"/api",
    b"/apis",
    b"/openapi/v2",
    b"/openapi/v3/api/v1?hash=x",
    b"/shoal/v1/count?resource=v1/pods",
    b"/shoal/v1/openapi.json",
    b"/readyz?verbose",
    b"/metrics",
]
METHODS = [
    b"GET",
    b"HEAD",
    b"OPTIONS",
    b"POST",
    b"PUT",
    b"DELETE",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"BREW",
    b"get",
]
HEADERS = [
    b"Accept: application/json;as=Table;v=v1;g=meta.k8s.io",
    b"Accept: application/vnd.kubernetes.protobuf,application/json",
    b"Accept: " + b"a/b;q=0.1," * 300,
    b"Accept: ;;;,,,q=,/",
    b"Accept-Encoding: gzip;q=zwei, *;q=",
    b"Authorization: Bearer \xff\xfe",
    b"Connection: upgrade\r\nUpgrade: websocket",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Content-Type: application/json",
    b"Expect: 100-continue",
    b"Host: a\r\nHost: b",
    b'If-None-Match: "\xe2\x82\xac", W/*',
    b"Impersonate-User: root",
    b"No-Colon",
    b": no name",
    b"Range: bytes=0-1",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    b"X: " + b"y" * 9000,
    b"X-Zero: a\x00b",
]
ODDITIES = [
    b"%",
    b"%zz",
    b"%00",
    b"%2e%2e/",
    b"%ff",
    b"%c0%af",
    b"\xff",
    b"\x00",
    b" ",
    b"\t",
    b"//",
    b"/..",
    b"?",
    b"#",
    b"&&==",
    b"+",
    b";",
    b"%0d%0aX:%20y",
    b"\r",
    b"\n",
    b"A" * 70_000,
    b"&a=b" * 12_000,
    b"/x" * 5000,
    b"%F0%9F%90%9F",
]
PARAMETERS = [
    b"limit",
    b"continue",
    b"resourceVersion",
    b"resourceVersionMatch",
    b"labelSelector",
    b"fieldSelector",
    b"watch",
    b"timeoutSeconds",
    b"sendInitialEvents",
    b"allowWatchBookmarks",
    b"shardSelector",
    b"pretty",
    b"includeObject",
    b"groupBy",
    b"resource",
    b"shoalPartial",
    b"hash",
    b"exclude",
]
VALUES = [
    b"", b"-1", b"0", b"1", b"18446744073709551616", b"1e9", b"true", b"NaN", b"Exact", b"a=b,c!=d", b"a%20in%20(b",
    b"((((", b"%00", b"%ff%fe", b"metadata.name=%F0%9F%90%9F", b"x" * 20_000, b"eyJ2Ijoi", b"!",
    b"shardRange(object.metadata.uid,'0x0','0x1')",
]  # fmt: skip


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[bytes, bytes]
    body: bytes


def made(rng: random.Random) -> bytes:
    """One or several requests, more or less."""
    parts = [_request(rng) for _ in range(rng.choice((1, 1, 1, 2, 5)))]
    raw = b"".join(parts)
    for _ in range(rng.choice((0, 0, 0, 0, 1, 3))):
        at = rng.randrange(len(raw))
        match rng.randrange(4):
            case 0:
                raw = raw[:at] + bytes((rng.randrange(256),)) + raw[at + 1 :]
            case 1:
                raw = raw[:at] + raw[at + rng.randrange(1, 9) :]
            case 2:
                raw = raw[:at] + rng.choice(ODDITIES)[:5000] + raw[at:]
            case _:
                raw = raw[:at]
        if not raw:
            return rng.randbytes(40)
    return raw


def _request(rng: random.Random) -> bytes:
    target = rng.choice(TARGETS)
    for _ in range(rng.choice((0, 1, 3))):
        target += (b"&" if b"?" in target else b"?") + rng.choice(PARAMETERS) + b"=" + rng.choice(VALUES)
    if rng.random() < 0.15:
        at = rng.randrange(len(target) + 1)
        target = target[:at] + rng.choice(ODDITIES) + target[at:]
    version = b"HTTP/1.1" if rng.random() < 0.9 else rng.choice((b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""))
    lines = [b" ".join((rng.choice(METHODS[: rng.choice((1, 2, 11))]), target, version)), b"Host: localhost"]
    lines += rng.sample(HEADERS, rng.choice((0, 0, 0, 1, 2)))
    return b"\r\n".join(lines) + rng.choice((b"\r\n\r\n", b"\r\n\r\n", b"\r\n\r\nhello", b"\n\n"))


async def asked(port: int, raw: bytes) -> tuple[bytes, bool]:
    """What comes back up to the end of the connection, and whether that came in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    received = bytearray()
    try:
        writer.write(raw + LAST)
        async with asyncio.timeout(PATIENCE_S):
            while (chunk := await _read(reader, writer)) != b"":
                received += chunk
    except ConnectionError:
        pass  # it broke with us, which is an end as well
    except TimeoutError:
        return bytes(received), False
    finally:
        writer.close()
    return bytes(received), True


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What comes next. A server that waits for the rest of a request is told that there is none."""
    reading = asyncio.ensure_future(reader.read(1 << 16))
    done, _ = await asyncio.wait((reading,), timeout=SILENCE_S)
    if not done and writer.can_write_eof():
        writer.write_eof()
    return await reading


def replies(raw: bytes, received: bytes) -> list[Reply]:
    """The answers in what was received. One that is cut short by the end of the connection is left out."""
    found: list[Reply] = []
    while received:
        head, blank, rest = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1."), (raw, received[:300])
        if not blank:
            return found
        first, *lines = head.split(b"\r\n")
        status = int(first.split(b" ")[1])
        headers = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            assert colon, (raw, head)
            headers[name.strip().lower()] = value.strip()
        if status < 200:
            received = rest
            continue
        body, received = _body(headers, rest, raw)
        found.append(Reply(status, headers, body))
    return found


def _body(headers: dict[bytes, bytes], rest: bytes, raw: bytes) -> tuple[bytes, bytes]:
    if rest.startswith(b"HTTP/1.") or not rest:
        return b"", rest  # of HEAD, 304 and their like
    if b"content-length" in headers:
        length = int(headers[b"content-length"])
        return rest[:length], rest[length:]
    if headers.get(b"transfer-encoding") != b"chunked":
        return rest, b""
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if not size:
            return body, b""  # broken off
        length = int(size, 16)
        body += rest[:length]
        rest = rest[length + 2 :]
        if not length:
            return body, rest


def check(raw: bytes, reply: Reply) -> None:
    said = f"{reply.status} {reply.body[:300]!r} to {raw[:600]!r}"
    assert not LEAKS.search(reply.body), said
    assert reply.status in {
        200,
        301,
        304,
        400,
        403,  # a Host that became somebody else's
        404,
        405,
        406,
        408,
        413,
        414,
        415,
        422,
        429,
        431,
        500,
        501,
        503,
        504,
        505,
    }, said
    if reply.status >= 500 and reply.body and b"json" in reply.headers.get(b"content-type", b""):
        status: Any = json.loads(reply.body)
        assert status["kind"] == "Status", said
        assert status["code"] == reply.status, said
        assert status.get("reason") != "InternalError", said
    elif reply.status == 500 and reply.body:
        raise AssertionError(said)


@pytest.mark.slow
async def test_hardly_http(caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(SEED)
    statuses: dict[int, int] = {}
    async with running() as installation:
        for _ in range(REQUESTS // AT_ONCE):
            batch = [made(rng) for _ in range(AT_ONCE)]
            for raw, (received, ended) in zip(
                batch, await asyncio.gather(*(asked(installation.port, raw) for raw in batch)), strict=True
            ):
                assert ended, f"no end of {received[:300]!r} to {raw[:600]!r}"
                for reply in replies(raw, received):
                    check(raw, reply)
                    statuses[reply.status] = statuses.get(reply.status, 0) + 1
        received, _ = await asked(
            installation.port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert received.endswith(b"ok")
    assert {200, 400, 404} <= set(statuses), statuses
    assert not [record for record in caplog.records if record.exc_info], "something was not foreseen"


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with running() as installation:
        lines = b"".join(b"GET /livez?at=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % at for at in range(20))
        middle = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
        received, ended = await asked(installation.port, lines + middle)
        assert ended
        assert [reply.status for reply in replies(lines, received)] == [200] * 20 + [404, 200]


async def test_a_client_that_dribbles_keeps_nobody_waiting() -> None:
    async with running() as installation:
        slow = [await asyncio.open_connection("127.0.0.1", installation.port) for _ in range(50)]
        for _, writer in slow:
            writer.write(b"GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        received, ended = await asked(installation.port, b"")
        assert ended
        assert received.endswith(b"ok")
        for _, writer in slow:
            writer.close()
