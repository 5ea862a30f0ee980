"""Answers in gzip: what is compressed, what is not, and what becomes of an answer that breaks off."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest

from shoal.cluster.gateway.compression import PIECE_BYTES, THRESHOLD_BYTES, accepts_gzip, compressed
from shoal.cluster.gateway.http import Answer
from shoal.shards.model.errors import NotReady

LONG = b"".join(b"line %d of an answer that can be told from every other\n" % at for at in range(20_000))
SHORT = LONG[:THRESHOLD_BYTES]


async def taken(answer: Answer) -> bytes:
    if answer.chunks is None:
        return answer.body
    return b"".join([chunk async for chunk in answer.chunks])


async def in_chunks(body: bytes, size: int, *, fails_at: int | None = None, closed: list[bool] | None = None):
    try:
        for start in range(0, len(body), size):
            if fails_at is not None and start >= fails_at:
                raise NotReady("a shard went away")
            yield body[start : start + size]
    finally:
        if closed is not None:
            closed.append(True)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("br, zstd", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0, *", False),
        ("gzip;q=0.001", True),
        ("*", True),
        ("*;q=0", False),
        ("identity;q=1, *;q=0", False),
        ("gzip;q=many", False),
        ("gzip;q=2", False),
        ("gzip;level=1", True),
        ("gzipped", False),
        (",,gzip", True),
    ],
)
def test_who_takes_gzip(header: str | None, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


async def test_a_long_body_is_compressed_and_says_so() -> None:
    answer = await compressed(Answer(body=LONG, headers=(("Vary", "Accept"), ("Etag", '"x"'))), "gzip")
    headers = dict(answer.headers)
    assert headers == {"Vary": "Accept, Accept-Encoding", "Content-Encoding": "gzip", "Etag": '"x"'}
    encoded = await taken(answer)
    assert gzip.decompress(encoded) == LONG
    assert len(encoded) < len(LONG) / 4


@pytest.mark.parametrize("size", [1000, PIECE_BYTES - 1, PIECE_BYTES, 10 * PIECE_BYTES])
async def test_a_long_stream_is_compressed_in_order(size: int) -> None:
    answer = await compressed(Answer(chunks=in_chunks(LONG, size)), "gzip")
    assert answer.chunks is not None
    assert gzip.decompress(await taken(answer)) == LONG


@pytest.mark.parametrize("size", [100, THRESHOLD_BYTES])
async def test_a_short_stream_becomes_a_body(size: int) -> None:
    answer = await compressed(Answer(chunks=in_chunks(SHORT, size)), "gzip")
    assert answer.chunks is None
    assert answer.body == SHORT
    assert "Content-Encoding" not in dict(answer.headers)


async def test_what_stays_as_it_is() -> None:
    for answer, header in (
        (Answer(body=SHORT), "gzip"),
        (Answer(body=LONG), None),
        (Answer(body=LONG), "gzip;q=0"),
        (Answer(body=LONG, headers=(("content-encoding", "br"),)), "gzip"),
        (Answer(304), "gzip"),
    ):
        assert await compressed(answer, header) is answer


async def test_an_error_before_the_head_can_still_be_answered() -> None:
    closed: list[bool] = []
    chunks = in_chunks(LONG, 1000, fails_at=THRESHOLD_BYTES - 5000, closed=closed)
    with pytest.raises(NotReady):
        await compressed(Answer(chunks=chunks), "gzip")
    assert closed == [True]


async def test_an_error_midway_breaks_the_stream_off() -> None:
    answer = await compressed(Answer(chunks=in_chunks(LONG, 50_000, fails_at=900_000)), "gzip")
    parts = []
    with pytest.raises(NotReady):
        async for chunk in answer.chunks:
            parts.append(chunk)  # noqa: PERF401 - what came before the error counts
    decoder = zlib.decompressobj(31)
    text = decoder.decompress(b"".join(parts))
    assert LONG.startswith(text)
    assert not decoder.eof


async def test_a_client_that_leaves_lets_go_of_what_was_asked() -> None:
    closed: list[bool] = []
    answer = await compressed(Answer(chunks=in_chunks(LONG, 50_000, closed=closed)), "gzip")
    assert answer.chunks is not None
    await anext(aiter(answer.chunks))
    await answer.chunks.aclose()
    assert closed == [True]


async def test_many_at_once_do_not_mix() -> None:
    bodies = [LONG.replace(b"line", b"text %d" % at) for at in range(8)]
    answers = [await compressed(Answer(chunks=in_chunks(body, 70_000)), "gzip") for body in bodies]
    encoded = await asyncio.gather(*map(taken, answers))
    assert [gzip.decompress(one) for one in encoded] == bodies
