"""One client asking over one connection that stays open: how long an answer takes to its last byte.

Raw sockets, because a client library would take longer than the answers that are measured. A server that needs TLS and
credentials is asked through Shoal's own connection instead; that costs about half a millisecond a request.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from shoal.shards.api.client import HttpConnection
from shoal.shards.api.requests import ApiRequest


@dataclass(frozen=True)
class Timing:
    """Answers to one question."""

    seconds: float
    """The median."""
    best: float
    size: int
    """Bytes of the body."""
    body: bytes


class Client(Protocol):
    """Somebody who asks."""

    def get(self, target: str) -> bytes:
        """The whole body of an answer that must be a success."""


class PlainClient:
    """HTTP/1.1 without TLS."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self._connection = socket.create_connection((self.host, self.port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def get(self, target: str) -> bytes:
        """As `Client.get`."""
        request = f"GET {target} HTTP/1.1\r\nHost: {self.host}\r\nAccept: application/json\r\n\r\n"
        self._connection.sendall(request.encode())
        held = bytearray()
        while (end := held.find(b"\r\n\r\n")) < 0:
            self._more(held)
        head = bytes(held[:end]).lower()
        del held[: end + 4]
        if b"content-length:" in head:
            size = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            while len(held) < size:
                self._more(held)
            body = bytes(held)
        else:
            body = self._chunked(held)
        assert head.startswith(b"http/1.1 200"), (head, body[:500])
        return body

    def _chunked(self, held: bytearray) -> bytes:
        parts: list[bytes] = []
        at = 0
        while True:
            while (line := held.find(b"\r\n", at)) < 0:
                self._more(held)
            size = int(held[at:line], 16)
            while len(held) < line + 2 + size + 2:
                self._more(held)
            if not size:
                return b"".join(parts)
            parts.append(bytes(held[line + 2 : line + 2 + size]))
            at = line + 2 + size + 2
            if at > 1 << 22:
                del held[:at]
                at = 0

    def _more(self, held: bytearray) -> None:
        piece = self._connection.recv(1 << 20)
        assert piece, "the connection was closed"
        held += piece


class CredentialedClient:
    """The same through Shoal's connection, for a server with TLS and credentials."""

    def __init__(self, connection: HttpConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop

    def get(self, target: str) -> bytes:
        """As `Client.get`."""
        return self._loop.run_until_complete(self._get(target))

    async def _get(self, target: str) -> bytes:
        path, _, query = target.partition("?")
        pairs = tuple(tuple(pair.split("=", 1)) for pair in query.split("&") if pair)
        async with self._connection.open(ApiRequest("GET", path, pairs)) as response:  # type: ignore[arg-type]
            body = await response.read()
            assert response.status == 200, body[:500]
            return body

    def close(self) -> None:
        """Closes the connection."""
        self._loop.run_until_complete(self._connection.aclose())


def timed(client: Client, target: str, *, times: int) -> Timing:
    """Asks once to warm up, then `times` times."""
    body = client.get(target)
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        body = client.get(target)
        seconds.append(time.perf_counter() - began)
    return Timing(sorted(seconds)[len(seconds) // 2], min(seconds), len(body), body)
