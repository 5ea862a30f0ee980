"""Answers in gzip, for whom it saves more than it costs: what kube-apiserver compresses, and as it does.

A body of more than `THRESHOLD_BYTES` is sent in gzip, level 1, to a client that accepts it; whatever is shorter
goes as it is. Watches are never compressed: an event would wait in the compressor for the next one, so their
answers do not come here.

Compressing is done by threads of its own, because zlib leaves the interpreter to others meanwhile; each answer has
at most one piece there and goes on in order, and while one piece is compressed the next is fetched and the last one
sent. No more than `WORKERS` pieces are compressed at once, whatever the number of clients. What an answer holds at a
time is two pieces of `PIECE_BYTES` and what they became.

An answer that breaks off half-way breaks off here too: the compressed stream has no end then.
"""

from __future__ import annotations

import asyncio
import functools
import os
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .http import Answer, Headers

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

THRESHOLD_BYTES: Final = 128 << 10
"""``defaultGzipThresholdBytes`` of apiserver/pkg/endpoints/handlers/responsewriters."""
LEVEL: Final = 1
"""``defaultGzipContentEncodingLevel`` of the same: higher levels cost several times as much for little."""
PIECE_BYTES: Final = 256 << 10
"""Compressed in one go, some 2 ms: long enough that the way to another thread and back does not show."""
WORKERS: Final = max(1, min(4, (os.cpu_count() or 2) - 1))
"""Threads that compress: one processor is left to the event loop."""
HEADER_CHARS_MAX: Final = 8 << 10
"""A longer Accept-Encoding is not read: the answer goes as it is."""
_GZIP_WINDOW: Final = 31
"""zlib's way to be asked for a gzip header and trailer around a window of 32 KiB."""
_NAMES: Final = ("gzip", "x-gzip")


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether an Accept-Encoding header lets gzip be sent (RFC 9110, 12.5.3).

    kube-apiserver looks for the bare word alone; ``gzip;q=0`` is honoured here, which it misses, and ``*`` is taken.
    """
    if len(accept_encoding or "") > HEADER_CHARS_MAX:
        return False
    wildcard = False
    for part in (accept_encoding or "").lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name in _NAMES:
            return _wanted(parameters)
        if name == "*":
            wildcard = _wanted(parameters)
    return wildcard


def _wanted(parameters: list[str]) -> bool:
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if name.strip() == "q" and equals:
            try:
                return 0.0 < float(value) <= 1.0
            except ValueError:
                return False
    return True


async def compressed(answer: Answer, accept_encoding: str | None) -> Answer:
    """The answer as it is, or in gzip.

    Of an answer in chunks the first ones are taken to see whether it is long; a short one comes back with a body, and
    so with a Content-Length. Whatever the chunks raise meanwhile is raised here, when an error can still be answered.
    """
    if any(name.lower() == "content-encoding" for name, _ in answer.headers) or not accepts_gzip(
        accept_encoding
    ):
        return answer
    if answer.chunks is None:
        if len(answer.body) <= THRESHOLD_BYTES:
            return answer
        return _in_gzip(answer, _pieces_of(answer.body))
    first: list[bytes] = []
    size = 0
    async for chunk in answer.chunks:
        first.append(chunk)
        size += len(chunk)
        if size > THRESHOLD_BYTES:
            return _in_gzip(answer, _pieces(first, answer.chunks))
    return replace(answer, body=b"".join(first), chunks=None)


def _in_gzip(answer: Answer, pieces: AsyncGenerator[bytes, None]) -> Answer:
    headers = (*_varied(answer.headers), ("Content-Encoding", "gzip"))
    return replace(answer, body=b"", chunks=_gzipped(pieces), headers=headers)


def _varied(headers: Headers) -> Headers:
    """The headers with Accept-Encoding among what the answer depends on."""
    values = [value for name, value in headers if name.lower() == "vary"]
    kept = tuple((name, value) for name, value in headers if name.lower() != "vary")
    return (*kept, ("Vary", ", ".join((*values, "Accept-Encoding"))))


# -- pieces -------------------------------------------------------------------------------------------------


async def _pieces_of(body: bytes) -> AsyncGenerator[bytes, None]:
    for piece in _cut(body):
        yield piece


async def _pieces(first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Chunks of any size as pieces of about `PIECE_BYTES`."""
    async with _closing(rest):
        held, size = first, sum(map(len, first))
        async for chunk in rest:
            if size >= PIECE_BYTES:
                for piece in _cut(b"".join(held)):
                    yield piece
                held, size = [], 0
            held.append(chunk)
            size += len(chunk)
        for piece in _cut(b"".join(held)):
            yield piece


@asynccontextmanager
async def _closing(chunks: AsyncIterator[bytes]) -> AsyncIterator[None]:
    """Ends an iterator that can be ended: a generator may hold something."""
    try:
        yield
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


def _cut(body: bytes) -> Iterator[bytes]:
    if len(body) <= PIECE_BYTES:
        yield body
        return
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


# -- gzip ---------------------------------------------------------------------------------------------------


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Made when first needed; idle threads cost nothing, and they end with the process."""
    return ThreadPoolExecutor(WORKERS, thread_name_prefix="gzip")


async def _gzipped(pieces: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """The pieces as one gzip stream."""
    loop = asyncio.get_running_loop()
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
    job: asyncio.Future[bytes] | None = None
    async with aclosing(pieces):
        async for piece in pieces:
            done = await job if job is not None else b""
            # One compressor, one job: the next begins when the last has ended.
            job = loop.run_in_executor(_threads(), compressor.compress, piece)
            if done:
                yield done
        done = await job if job is not None else b""
        yield done + await loop.run_in_executor(_threads(), compressor.flush)
