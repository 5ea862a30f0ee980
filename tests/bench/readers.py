"""Any number of watchers in one process, which read as fast as they are sent and note when.

Raw sockets and one selector: what is measured is the server. Only the first watcher keeps what it reads, with the
moment of each read; of the others the bytes are counted, and nothing is looked at.
"""

from __future__ import annotations

import multiprocessing
import re
import resource
import selectors
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

BUFFER_BYTES = 1 << 18
HEAD_END = b"\r\n\r\n"
EVENT = re.compile(rb'\{"type":"(?:ADDED|MODIFIED|DELETED)".*?"resourceVersion":"(\d+)"', re.DOTALL)


@dataclass
class Delivered:
    """What watchers were sent."""

    watchers: int
    moments: dict[int, float]
    """When the first watcher had read the beginning of each version, by ``time.monotonic``."""
    bytes_each: list[int]
    """Of every watcher, since the last look."""


class Readers:
    """The watchers as the measuring process sees them."""

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_main, args=(theirs,))
        self._process.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(("end",))
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def open(self, host: str, port: int, target: str, count: int) -> float:
        """Opens so many watches beside those that are open; the mean seconds from request to the answer's head."""
        return self._ask("open", host, port, target, count)

    def close(self) -> None:
        """Closes all."""
        self._ask("close")

    def delivered(self) -> Delivered:
        """What came since the last call."""
        return self._ask("delivered")

    def _ask(self, *command: Any) -> Any:
        self._pipe.send(command)
        return self._pipe.recv()


@dataclass
class _Reader:
    connection: socket.socket
    bytes: int = 0
    kept: list[tuple[float, bytes]] | None = None


@dataclass
class _Reading:
    pipe: Connection
    readers: list[_Reader] = field(default_factory=list)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def run(self) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        buffer = bytearray(BUFFER_BYTES)
        view = memoryview(buffer)
        self.selector.register(self.pipe, selectors.EVENT_READ, None)
        while True:
            for key, _ in self.selector.select():
                reader: _Reader | None = key.data
                if reader is None:
                    command = self.pipe.recv()
                    if command[0] == "end":
                        return
                    self.pipe.send(getattr(self, command[0])(*command[1:]))
                    break
                try:
                    size = reader.connection.recv_into(buffer)
                except BlockingIOError:
                    continue
                reader.bytes += size
                if reader.kept is not None:
                    reader.kept.append((time.monotonic(), bytes(view[:size])))
                if not size:
                    self.selector.unregister(reader.connection)

    def open(self, host: str, port: int, target: str, count: int) -> float:
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n\r\n".encode()
        waited = 0.0
        for _ in range(count):
            connection = socket.create_connection((host, port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began = time.perf_counter()
            connection.sendall(request)
            head = b""
            while HEAD_END not in head:
                piece = connection.recv(65536)
                assert piece, f"the connection was closed: {head!r}"
                head += piece
            waited += time.perf_counter() - began
            assert head.startswith(b"HTTP/1.1 200"), head[:500]
            connection.setblocking(False)
            reader = _Reader(connection, kept=None if self.readers else [])
            if reader.kept is not None:
                reader.kept.append((time.monotonic(), head.partition(HEAD_END)[2]))
            self.readers.append(reader)
            self.selector.register(connection, selectors.EVENT_READ, reader)
        return waited / count

    def close(self) -> None:
        for reader in self.readers:
            if reader.connection.fileno() in self.selector.get_map():
                self.selector.unregister(reader.connection)
            reader.connection.close()
        self.readers.clear()

    def delivered(self) -> Delivered:
        sizes = [reader.bytes for reader in self.readers]
        for reader in self.readers:
            reader.bytes = 0
        first = self.readers[0]
        kept, first.kept = first.kept or [], []
        return Delivered(len(self.readers), _moments(kept), sizes)


def _moments(kept: list[tuple[float, bytes]]) -> dict[int, float]:
    """The moment of the read in which each event's version was complete."""
    text = b"".join(piece for _, piece in kept)
    ends, at = [], 0
    for moment, piece in kept:
        at += len(piece)
        ends.append((at, moment))
    found, place = {}, 0
    for match in EVENT.finditer(text):
        while ends[place][0] < match.end():
            place += 1
        found[int(match[1])] = ends[place][1]
    return found


def _main(pipe: Connection) -> None:
    _Reading(pipe).run()
