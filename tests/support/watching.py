"""A watch router over written shards (`watched_shards`), and clients that keep what they get."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from support.queries import collection_query
from support.watched_shards import PODS, Way, Written

from shoal.cluster.query.request import CollectionQuery
from shoal.cluster.query.router import QueryRouter
from shoal.cluster.query.routing import Routing
from shoal.cluster.serving.negotiation import Accepted
from shoal.cluster.watching.forms import LineForm, line_form
from shoal.cluster.watching.frames import Frame
from shoal.cluster.watching.router import Watch, WatchRouter
from shoal.cluster.watching.settings import WatchServingSettings
from shoal.shards.model.partitions import EVERYTHING, ExceptNamespaces, OneNamespace, Partition

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
POD = PODS.resource
WHOLE = Partition(POD, EVERYTHING)
IN_A = Partition(POD, OneNamespace("a"))
NOT_A = Partition(POD, ExceptNamespaces(("a",)))
STREAMING = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}


def form(**accepted: Any) -> LineForm:
    return line_form(Accepted(**accepted), lambda: NOW)


class Reader:
    """A client that takes everything, until `limit` frames were written."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.frames: list[Frame] = []
        self.limit = limit
        self.slow_s = 0.0

    def write(self, frame: Frame) -> bool:
        if len(self.frames) >= self.limit:
            return False
        self.frames.append(frame)
        return True

    async def drained(self) -> None:
        await asyncio.sleep(self.slow_s)

    @property
    def lines(self) -> list[bytes]:
        return b"".join(frame.lines for frame in self.frames).splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def told(self) -> list[str]:
        """Each line in short: ``ADDED a/one 101``, ``BOOKMARK 102``."""
        return [short(event) for event in self.events]


def short(event: dict[str, Any]) -> str:
    told = event["object"]
    if event["type"] == "ERROR":
        return f"ERROR {told['code']}"
    metadata = told["metadata"]
    version = metadata["resourceVersion"]
    if event["type"] == "BOOKMARK":
        return f"BOOKMARK {version}" + (" end" if "annotations" in metadata else "")
    return f"{event['type']} {metadata['namespace']}/{metadata['name']} {version}"


class Gateway:
    """As far as watches are concerned."""

    def __init__(self, written: Written, **settings: Any) -> None:
        self.written = written
        self.routing = Routing(written, poll_s=1.0)
        self.routing.take(written.table)
        self.ways: dict[str, Way] = {}
        self.directory = written.directory(self._way)
        self.lister = QueryRouter(self.routing, self.directory)  # type: ignore[arg-type]
        self.router = WatchRouter(
            self.routing,
            self.directory,  # type: ignore[arg-type]
            self.lister,
            settings=WatchServingSettings(**settings),
            rng=random.Random(1),
        )
        self.running: list[asyncio.Task[None]] = []

    def _way(self, shard: Any, part: Any) -> Way:
        way = self.ways[part.partition.id] = Way(shard, part)
        return way

    def query(self, namespace: str | None = None, **parameters: Any) -> CollectionQuery:
        pairs = [("watch", "1"), *((name, str(value)) for name, value in parameters.items())]
        return collection_query(PODS, pairs, namespace=namespace)

    async def open(
        self, namespace: str | None = None, *, form: LineForm | None = None, **parameters: Any
    ) -> Watch:
        return await self.router.open(
            self.query(namespace, **parameters), form or line_form(Accepted(), lambda: NOW)
        )

    async def watch(
        self,
        namespace: str | None = None,
        *,
        form: LineForm | None = None,
        reader: Reader | None = None,
        **parameters: Any,
    ) -> Reader:
        """A watch that runs, with all that it is told at once."""
        watch = await self.open(namespace, form=form, **parameters)
        reader = reader or Reader()
        self.running.append(asyncio.create_task(watch.run(reader)))
        await settled()
        return reader

    async def aclose(self) -> None:
        await self.router.aclose()
        for task in self.running:
            task.cancel()
        results = await asyncio.gather(*self.running, return_exceptions=True)
        failed = [result for result in results if isinstance(result, Exception)]
        if failed:
            raise failed[0]


async def settled(seconds: float = 0.01) -> None:
    """Until everything that happens at once has happened."""
    await asyncio.sleep(seconds)


@asynccontextmanager
async def gateway(written: Written, **settings: Any) -> AsyncIterator[Gateway]:
    made = Gateway(written, **settings)
    try:
        yield made
    finally:
        await made.aclose()
