"""Connections from this process to shards: one to each, shared by all who ask, opened when something is first asked.

Whoever asks while a connection is being opened waits for the same attempt. When it breaks, everything in flight on it
fails with `NotReady` at once, and the next to ask has it opened again from a fresh endpoint: a restarted shard has
another port and another secret. A failed attempt is repeated at once the first time, then after delays that grow;
whoever asks meanwhile is told `NotReady` without waiting. So nobody reconnects for nobody, and nothing storms.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from ..model.errors import NotReady, ShoalError
from ..model.partitions import Epoch, ShardId
from ..model.queries import (
    ChangesPage,
    ChangesQuery,
    CountQuery,
    FeedBatch,
    FeedQuery,
    GetAnswer,
    GetQuery,
    OvertakeQuery,
    PageAnswer,
    PageQuery,
    PartitionCount,
)
from ..model.transfers import ExportPiece, ExportQuery
from ..model.versions import Version
from .authentication import Endpoint
from .gateway_link import GatewayLink
from .messages import CHANGES, COUNT, EXPORT, FEED, GET, OVERTAKE, PAGE, STREAM, Verb
from .tls import client_context

log = logging.getLogger("shoal.shards.wire.client")

ENDPOINT_TIMEOUT_S = 5.0
"""The control plane has to say within this where a shard is; of one that is being restarted it cannot."""
DELAY_FIRST_S = 0.1
DELAY_MAX_S = 5.0
STEADY_S = 10.0
"""After a connection that lasted this long, the next failure counts as the first."""

FindEndpoint = Callable[[], Awaitable[Endpoint]]


class ShardConnection:
    """The connection to one shard, through all its incarnations. Belongs to the event loop it is first used on."""

    def __init__(self, shard_id: ShardId, find: FindEndpoint, rng: random.Random) -> None:
        self.shard_id = shard_id
        self._find = find
        self._rng = rng
        self._link: GatewayLink | None = None
        self._attempt: asyncio.Task[GatewayLink] | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._problem: ShoalError | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def orphaned(self) -> bool:
        """Whether the event loop it belongs to is closed, and it of no use."""
        return self._loop is not None and self._loop.is_closed()

    @property
    def connected(self) -> bool:
        """Whether something can be asked without finding the shard first."""
        return self._link is not None

    @property
    def epoch(self) -> Epoch:
        """The newest epoch that the shard has told of on this connection; 0 while there is none."""
        return self._link.side.epoch if self._link is not None else Epoch(0)

    async def ask(self, verb: Verb, query: Any) -> Any:
        """One answer. Raises NotReady if the shard is away, and what the shard raises."""
        link = self._link or await self._connect()
        return await link.ask(verb, query)

    def items(self, verb: Verb, query: Any) -> AsyncGenerator[Any, None]:
        """A stream. Raises NotReady if the shard is or goes away, and what the shard raises."""
        return self._items(verb, query) if self._link is None else self._link.items(verb, query)

    async def _items(self, verb: Verb, query: Any) -> AsyncGenerator[Any, None]:
        link = await self._connect()
        async with contextlib.aclosing(link.items(verb, query)) as items:
            async for item in items:
                yield item

    async def aclose(self) -> None:
        """Closes the connection for good; what is in flight fails with NotReady."""
        self._closed = True
        if self._attempt is not None:
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        if self._link is not None:
            self._link.close("this process needs it no longer")

    # -- connecting -------------------------------------------------------------------------------------------

    async def _connect(self) -> GatewayLink:
        loop = self._loop = asyncio.get_running_loop()
        if self._closed:
            raise NotReady(f"the connection to shard {self.shard_id} was closed", retry_after_s=1)
        if self._attempt is None:
            if self._problem is not None and loop.time() < self._retry_at:
                raise copy.copy(self._problem)
            self._attempt = loop.create_task(self._open(), name=f"connect to {self.shard_id}")
            self._attempt.add_done_callback(self._attempted)
        attempt = self._attempt
        # NB: waited for and not awaited, because one caller that goes away must not end it for the others.
        await asyncio.wait([attempt])
        if attempt.cancelled():
            raise NotReady(f"the connection to shard {self.shard_id} was closed", retry_after_s=1)
        error = attempt.exception()
        if isinstance(error, ShoalError):
            raise copy.copy(error) from error.__cause__  # one each: it is raised in several places
        return attempt.result()

    async def _open(self) -> GatewayLink:
        try:
            async with asyncio.timeout(ENDPOINT_TIMEOUT_S):
                endpoint = await self._find()
        except TimeoutError:
            raise NotReady(
                f"nobody says within {ENDPOINT_TIMEOUT_S:g} s where shard {self.shard_id} is", retry_after_s=1
            ) from None
        loop = asyncio.get_running_loop()
        link = GatewayLink(endpoint, self._lost)
        settings = endpoint.settings
        opened = False
        where = f"shard {self.shard_id} cannot be reached at {endpoint.host}:{endpoint.port}"
        try:
            # Files are read in a thread: they may be on a slow disk.
            context = await asyncio.to_thread(client_context, settings) if settings.tls_certificate else None
            async with asyncio.timeout(settings.handshake_timeout_s):
                await loop.create_connection(lambda: link, endpoint.host, endpoint.port, ssl=context)
                await asyncio.shield(link.opened)
            opened = True
        except TimeoutError as error:
            within = f"within {settings.handshake_timeout_s:g} s"
            raise NotReady(f"{where}: no connection {within}", retry_after_s=1) from error
        except (OSError, ssl.SSLError) as error:
            raise NotReady(f"{where}: {error}", retry_after_s=1) from error
        except NotReady as error:
            raise NotReady(f"{where}: {error.message}", retry_after_s=1) from None
        finally:
            if not opened:
                link.close("no connection came about", rude=True)
                link.opened.exception()  # which has been told by now, if anybody wanted to know
        return link

    def _attempted(self, attempt: asyncio.Task[GatewayLink]) -> None:
        self._attempt = None
        if attempt.cancelled():
            return
        error = attempt.exception()
        if error is None:
            link = attempt.result()
            self._link = link
            if link.reason is not None:
                self._lost(link)
            return
        self._failed()
        self._problem = (
            error
            if isinstance(error, ShoalError)
            else NotReady(f"shard {self.shard_id} cannot be asked: {error!r}", retry_after_s=1)
        )
        log.warning("no connection", extra={"shard": self.shard_id, "problem": str(error)})

    def _lost(self, link: GatewayLink) -> None:
        if self._link is not link:
            return
        self._link = None
        lived_s = asyncio.get_running_loop().time() - link.opened_at
        log.info(
            "connection lost",
            extra={"shard": self.shard_id, "reason": link.reason, "lived_s": round(lived_s, 3)},
        )
        if lived_s >= STEADY_S:
            self._failures = 0
            self._problem = None
        else:
            self._failed()
            self._problem = NotReady(
                f"the connection to shard {self.shard_id} is lost: {link.reason}", retry_after_s=1
            )

    def _failed(self) -> None:
        """Counts a failure: the next attempt may be made at once after the first, later and later after others."""
        self._failures += 1
        delay_s = 0.0
        if self._failures > 1:
            delay_s = min(DELAY_FIRST_S * 2 ** min(self._failures - 2, 10), DELAY_MAX_S)
            delay_s *= self._rng.uniform(0.5, 1.0)
        self._retry_at = asyncio.get_running_loop().time() + delay_s


class DirectQueries:
    """The data half of `ShardHandle`, over a connection."""

    def __init__(self, connection: ShardConnection) -> None:
        self.shard_id = connection.shard_id
        self.connection = connection

    async def get(self, query: GetQuery) -> GetAnswer:
        """As `ShardHandle.get`."""
        answer: GetAnswer = await self.connection.ask(GET, query)
        return answer

    async def page(self, query: PageQuery) -> PageAnswer:
        """As `ShardHandle.page`."""
        answer: PageAnswer = await self.connection.ask(PAGE, query)
        return answer

    async def count(self, query: CountQuery) -> PartitionCount:
        """As `ShardHandle.count`."""
        answer: PartitionCount = await self.connection.ask(COUNT, query)
        return answer

    async def overtake(self, query: OvertakeQuery) -> Version:
        """As `ShardHandle.overtake`."""
        answer: Version = await self.connection.ask(OVERTAKE, query)
        return answer

    def stream(self, query: PageQuery) -> AsyncIterator[PageAnswer]:
        """As `ShardHandle.stream`; the shard makes the next pages while one is being used."""
        return self.connection.items(STREAM, query)

    def changes(self, query: ChangesQuery) -> AsyncIterator[ChangesPage]:
        """As `ShardHandle.changes`."""
        return self.connection.items(CHANGES, query)

    def feed(self, query: FeedQuery) -> AsyncIterator[FeedBatch]:
        """As `ShardHandle.feed`."""
        return self.connection.items(FEED, query)

    def export(self, query: ExportQuery) -> AsyncIterator[ExportPiece]:
        """As `ShardHandle.export`."""
        return self.connection.items(EXPORT, query)
