"""A partition comes from another shard over a real connection: whole, in pieces as fast as they are taken, or not."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.asgi_connection import AsgiConnection
from support.moving import CONFIG_MAPS, FIRST, WHOLE, B, Bench, ListCounting, part
from support.wire import SHARD, Served, serving, until

from shoal.shards.handle import Assignment
from shoal.shards.model.errors import NotReady, NotServed
from shoal.shards.model.partitions import Epoch, HashRange, OneNamespace
from shoal.shards.model.queries import PartitionStatistics
from shoal.shards.model.transfers import ExportQuery, Source
from shoal.shards.shard import Shard
from shoal.shards.watch.permits import NoPermits

CERTIFICATES = Path(__file__).parent / "certificates"
TLS = {
    "tls_certificate": str(CERTIFICATES / "server.pem"),
    "tls_key": str(CERTIFICATES / "server.key"),
    "tls_ca": str(CERTIFICATES / "authority.pem"),
}
HALF = part(HashRange("uid", 1 << 63, 1 << 64))


class Two:
    """A shard that holds a partition, and one that reaches it over the wire."""

    def __init__(self, bench: Bench, served: Served) -> None:
        self.bench = bench
        self.served = served
        self.rested = 0
        self.wire = served.connect()
        self.taker = Shard(
            B,
            connection=ListCounting(bench.app),
            permits=NoPermits(),
            settings=bench.settings,
            incarnation="one",
            rng=random.Random(1),
            peers=lambda name: self.wire,  # type: ignore[arg-type, return-value]
            rest=self._rest,
        )
        bench.connections[B] = self.taker._connection  # type: ignore[assignment]
        bench.shards[B] = self.taker

    async def _rest(self) -> None:
        self.rested += 1

    async def receive(self, partition: Any = WHOLE) -> None:
        assignment = Assignment(partition=partition, resource_type=CONFIG_MAPS)
        await self.taker.adopt([assignment], Epoch(2), {partition.id: (Source(SHARD, WHOLE.id),)})

    def held(self, partition: Any = WHOLE) -> PartitionStatistics:
        return self.bench.statistics(B, partition)

    async def ended(self, partition: Any = WHOLE) -> PartitionStatistics:
        await until(lambda: self.held(partition).state != "arriving")
        return self.held(partition)


@contextlib.asynccontextmanager
async def two(objects: int = 200, **settings: Any) -> AsyncIterator[Two]:
    bench = Bench()
    source = Shard(
        SHARD,
        connection=AsgiConnection(bench.app),
        permits=NoPermits(),
        settings=bench.settings,
        incarnation="one",
        rng=random.Random(1),
    )
    bench.shards[SHARD] = source
    for number in range(objects):
        bench.create(f"map-{number:03}", kilobytes=4)
    try:
        async with serving(source, window_bytes=64 << 10, **settings) as served:
            await source.adopt([Assignment(partition=WHOLE, resource_type=CONFIG_MAPS)], FIRST)
            await until(lambda: bench.statistics(SHARD).state == "synced")
            yield Two(bench, served)
    finally:
        await bench.stop()


@pytest.mark.parametrize("settings", [{}, TLS], ids=["plain", "tls"])
async def test_a_partition_comes_over_the_wire_and_is_followed(settings: dict[str, str]) -> None:
    async with two(**settings) as both:
        bench = both.bench
        began = bench.revision
        changed = bench.change("map-001", color="red")
        await until(lambda: bench.statistics(SHARD).frontier >= changed)
        await both.receive()
        held = await both.ended()
        assert (held.state, held.objects, held.frontier) == ("synced", 200, changed)
        assert held.audit == bench.statistics(SHARD).audit
        assert held.transferred_bytes > 200 * 3000
        assert await bench.changes(B, began) == [("default/map-001", changed)]
        later = bench.create("later")
        await until(lambda: both.held().frontier >= later)
        bench.sound((B, WHOLE))
        assert bench.lists == 0
        assert both.rested == 1


async def test_half_of_the_uids_come_as_half_of_the_bytes() -> None:
    async with two() as both:
        await both.receive(HALF)
        held = await both.ended(HALF)
        assert held.state == "synced", held.message
        assert 60 < held.objects < 140
        assert held.transferred_bytes < 0.8 * 200 * 4096
        both.bench.sound((B, HALF))


async def test_pieces_are_sent_only_as_they_are_taken() -> None:
    async with two() as both:
        pieces = both.wire.export(ExportQuery(partition=WHOLE.id, epoch=FIRST, cover="", max_bytes=64 << 10))
        first = await anext(pieces)
        assert first.objects == 200
        await asyncio.sleep(0.1)
        (call,) = both.served.link.side.calls.values()
        assert call.outstanding < 3 * (64 << 10)
        version = both.bench.create("later")
        await until(lambda: both.bench.statistics(SHARD).frontier >= version)
        rest = [piece async for piece in pieces]
        assert sum(len(piece.data) for piece in (first, *rest)) > 200 * 3000
        assert {piece.objects for piece in rest} == {200}, "captured with the first piece"


async def test_an_export_that_is_given_up_leaves_nothing_behind() -> None:
    async with two() as both:
        pieces = both.wire.export(ExportQuery(partition=WHOLE.id, epoch=FIRST, cover="", max_bytes=64 << 10))
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
        await until(lambda: both.bench.shards[SHARD].statistics().queries_in_progress == 0)
        assert both.bench.shards[SHARD]._exports._value == both.bench.settings.transfer.exports_max
        with pytest.raises(NotServed):
            await anext(
                both.wire.export(ExportQuery(partition=part(OneNamespace("a")).id, epoch=FIRST, cover=""))
            )


async def test_a_source_whose_connection_breaks_strands_it_and_another_attempt_succeeds() -> None:
    async with two() as both:
        await both.receive()
        await until(lambda: both.held().transferred_objects > 0)
        both.served.link.close("gone", rude=True)
        held = await both.ended()
        assert held.state == "stranded"
        assert "v1/configmaps from shard-0: the connection to shard shard-0 is lost" in held.message
        assert both.rested == 1
        with pytest.raises(NotReady, match="could not be received"):
            await both.bench.keys(B)
        await until(lambda: not both.wire.connection.connected)
        await both.receive()
        assert (await both.ended()).state == "synced"
        both.bench.sound((B, WHOLE))
        assert both.bench.lists == 0


async def test_released_in_between_both_sides_forget_it() -> None:
    async with two() as both:
        await both.receive()
        await until(lambda: both.held().transferred_objects > 0)
        await both.taker.release([WHOLE.id], Epoch(3))
        assert both.bench.holds(B) == []
        await until(lambda: both.bench.shards[SHARD].statistics().queries_in_progress == 0)
        assert both.rested == 1
