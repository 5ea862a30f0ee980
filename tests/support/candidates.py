"""Candidates for one lease against the embedded API server, in virtual time, each over a link that can fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from support.apiserver import Caller, InProcessConnection, InProcessResponse, virtual_apiserver, virtual_now

from shoal.cluster.controller.errors import LeadershipLost
from shoal.cluster.controller.leader import LeaderElector
from shoal.cluster.simulator.app import ApiServerApp
from shoal.shards.api.requests import ApiRequest

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
LEASE = f"{LEASES}/demo"


class Link:
    """A connection that can be cut, and that can swallow requests or answers."""

    def __init__(self, app: ApiServerApp) -> None:
        self._connection = InProcessConnection(app)
        self.state = "good"
        """``good``, ``cut`` (refused at once), ``deaf`` (nothing arrives), ``mute`` (it arrives, unanswered), ``late``
        (it arrives, and is answered after `late_s`).
        """
        self.late_s = 4.7
        self.requests: list[tuple[float, str]] = []

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[InProcessResponse]:
        self.requests.append((asyncio.get_running_loop().time(), request.method))
        self._connection.away = self.state == "cut"
        if self.state == "deaf":
            await asyncio.sleep(1e6)
        async with self._connection.open(request) as response:
            if self.state == "mute":
                await response.read()
                await asyncio.sleep(1e6)
            if self.state == "late":
                await asyncio.sleep(self.late_s)
            yield response

    async def aclose(self) -> None:
        self.state = "cut"


@dataclass
class Term:
    """A time during which somebody led."""

    identity: str
    began: float
    ended: float = float("inf")


@dataclass
class Terms:
    """All terms. Two at a time are a failed test, then and there."""

    all: list[Term] = field(default_factory=list)

    def begin(self, identity: str, now: float) -> Term:
        others = [term.identity for term in self.all if term.ended > now]
        assert not others, f"{identity} leads at {now:g} s, and so does {others}"
        self.all.append(Term(identity, now))
        return self.all[-1]

    @property
    def brief(self) -> list[tuple[str, float, float]]:
        return [(term.identity, round(term.began, 3), round(term.ended, 3)) for term in self.all]


class Candidate:
    """An elector, what it leads, and the link it asks over."""

    def __init__(
        self, terms: Terms, app: ApiServerApp, identity: str, *, skew_s: float = 0.0, **more: Any
    ) -> None:
        self.terms = terms
        self.link = Link(app)
        self.seen: list[str] = []
        self.wind_down_s = 0.0
        self.lost: LeadershipLost | None = None

        def now() -> datetime:
            return virtual_now() + timedelta(seconds=skew_s)

        settings: dict[str, Any] = {
            "namespace": "default",
            "name": "demo",
            "now": now,
            "uniform": Random(identity).random,
            "on_new_leader": self.seen.append,
        }
        self.elector = LeaderElector(self.link, identity=identity, **(settings | more))
        self.task: asyncio.Task[None] | None = None

    async def lead(self) -> None:
        loop = asyncio.get_running_loop()
        assert self.elector.is_leader
        term = self.terms.begin(self.elector.identity, loop.time())
        try:
            await asyncio.sleep(1e6)
        finally:
            try:
                await asyncio.sleep(self.wind_down_s)
            finally:
                term.ended = loop.time()

    def start(self) -> Candidate:
        self.task = asyncio.create_task(self._run(), name=f"candidate {self.elector.identity}")
        return self

    async def _run(self) -> None:
        try:
            await self.elector.run(self.lead)
        except LeadershipLost as lost:
            self.lost = lost

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def ended(self) -> None:
        assert self.task is not None
        await self.task


class Contest:
    """A server, its lease, and candidates for it."""

    def __init__(self) -> None:
        self.app = virtual_apiserver()
        self.server = Caller(self.app)
        self.terms = Terms()

    def candidate(self, identity: str, **more: Any) -> Candidate:
        return Candidate(self.terms, self.app, identity, **more)

    async def spec(self) -> dict[str, Any]:
        return (await self.server.get(LEASE))["spec"]

    async def patch(self, document: dict[str, Any]) -> None:
        status, answer = await self.server.ask(
            "PATCH", LEASE, document, headers={"Content-Type": "application/merge-patch+json"}
        )
        assert status == 200, answer
