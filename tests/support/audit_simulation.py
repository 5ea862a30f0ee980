"""The simulation of `support.simulation` with partitions that are audited all the time.

Without losses nothing may ever be found, whatever else goes wrong. With `losses`, lines of watches vanish on their way,
as if the API server or a proxy had forgotten them: only audits can then make the partitions equal to the server again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.asgi_connection import AsgiConnection
from support.simulation import (
    CONFIG_MAPS,
    FAULT_KINDS,
    LAYOUTS,
    NODES,
    WIDGETS,
    Part,
    Permits,
    Simulation,
)

from shoal.shards.api.requests import ApiRequest
from shoal.shards.auditing import Auditor
from shoal.shards.following import Followed
from shoal.shards.handle import Assignment
from shoal.shards.model.partitions import EVERYTHING, Partition
from shoal.shards.settings import AuditSettings, ShardSettings, StoreSettings, WatchSettings
from shoal.shards.store.bodies import BodyCodec
from shoal.shards.waiting import ProofSlots


class LossyConnection:
    """Lets lines about objects vanish from watches while `losing`."""

    def __init__(self, inner: AsgiConnection, rng: random.Random) -> None:
        self.losing = True
        self.lost = 0
        self._inner = inner
        self._rng = rng

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[Any]:
        async with self._inner.open(request) as exchange:
            yield _LossyAnswer(exchange, self) if request.stream else exchange

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[Any]:
        async with self._inner.pinned() as pinned:
            yield pinned

    async def aclose(self) -> None:
        await self._inner.aclose()

    def loses(self, line: bytes) -> bool:
        lost = self.losing and b'"type":"BOOKMARK"' not in line and self._rng.random() < 0.1
        self.lost += lost
        return lost


class _LossyAnswer:
    """An open watch."""

    def __init__(self, exchange: Any, connection: LossyConnection) -> None:
        self._exchange = exchange
        self._connection = connection
        self.status, self.headers = exchange.status, exchange.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self._exchange.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            if kept := [line + b"\n" for line in lines if not self._connection.loses(line)]:
                yield b"".join(kept)
        if rest:
            yield rest

    async def read(self, limit: int = 1 << 30) -> bytes:
        body: bytes = await self._exchange.read(limit)
        return body


class AuditSimulation(Simulation):
    """One seed."""

    def __init__(self, seed: int, *, faults: tuple[str, ...] = FAULT_KINDS, losses: bool = False) -> None:
        super().__init__(seed, faults=faults)
        self.losses = losses
        self.followed: list[Followed] = []
        self.outcomes: Counter[str] = Counter()
        self.divergence: Counter[str] = Counter()
        self.lossy: LossyConnection | None = None

    def _follow(self) -> None:
        rng = self.rng
        connection: Any = AsgiConnection(self.app, rng=random.Random(rng.getrandbits(64)))
        if self.losses:
            connection = self.lossy = LossyConnection(connection, random.Random(rng.getrandbits(64)))
        permits = Permits(rng.randint(1, 3))
        settings = ShardSettings(
            watch=WatchSettings(
                streaming_list=rng.choice(("auto", "auto", "never")),
                page_limit=rng.choice((2, 5, 500)),
                timeout_min_s=rng.choice((10.0, 30.0, 120.0)),
                list_silence_s=10.0,
                grace_s=3.0,
                backoff_max_s=rng.choice((5.0, 30.0)),
            ),
            store=StoreSettings(history_s=rng.choice((5.0, 300.0))),
            audits=AuditSettings(period_s=rng.choice((5.0, 20.0)), objects_per_s=rng.choice((2, 10, 1000))),
        )
        layouts = [(CONFIG_MAPS, cover) for cover in rng.choice(LAYOUTS)]
        if rng.random() < 0.5:
            layouts += [(NODES, EVERYTHING)]
        if rng.random() < 0.5:
            layouts += [(WIDGETS, cover) for cover in rng.choice(LAYOUTS[:3])]
        slots = ProofSlots(asyncio.Semaphore(8), asyncio.Semaphore(4))
        for kind, cover in layouts:
            held = Followed(
                Assignment(partition=Partition(kind.resource, cover), resource_type=kind),
                connection=connection,
                permits=permits,
                settings=settings,
                codec=BodyCodec(settings.store),
                proof_slots=slots,
                rng=random.Random(rng.getrandbits(64)),
            )
            self.followed.append(held)
            self.parts.append(Part(held.assignment.partition, kind, held.store, held.reflector, held._task))
        self.auditor = Auditor(
            connection=connection,
            permits=permits,
            settings=settings.audits,
            rng=random.Random(rng.getrandbits(64)),
            followed=lambda: self.followed,
        )
        self.auditor.start()

    async def _settle(self) -> None:
        if self.lossy is not None:
            self.lossy.losing = False
        await super()._settle()

    def _check_snapshot(self, part: Part, sighting: Any) -> None:
        if not self.losses:
            super()._check_snapshot(part, sighting)

    def _check_readers(self) -> None:
        for held in self.followed:
            self.outcomes.update(held.audits.outcomes)
            self.divergence.update(held.audits.divergence)
        if not self.losses:
            super()._check_readers()
