"""The shard's role on one connection: a task for each request, streams pulled only as far as their reader has room.

A batch of a feed is encoded once: the shard gives the same `FeedBatch` to all readers, and the bytes are kept for a
while by its identity. A stream is pulled only while its reader has room and the connection is not full, so a reader too
slow for a feed leaves its batches in the shard, which cuts it off; nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import Any, Protocol, cast

from ..model.errors import Broken, Expired, NotReady, NotServed, ShoalError
from ..model.partitions import Epoch, ShardId
from ..model.queries import FeedBatch
from ..settings import WireSettings
from .authentication import NONCE_BYTES, Secret
from .frames import Frame
from .link import Link
from .messages import EXPORT, FEED, encode
from .protocol import NEVER, Asked, Call, Cancelled, Credited, Event, Left, Opened
from .shard_side import ShardSide

log = logging.getLogger("shoal.shards.wire.server")

ENCODED_BYTES_MAX = 4 << 20
"""Encoded feed batches kept for further readers. Readers that keep up come for a batch within a turn of the loop."""
KEPT_BYTES = 512
"""Counted for each of them besides its payload, so that many small ones are bounded too."""


class Served(Protocol):
    """What answers: the data methods of `ShardHandle`, by the names of the verbs, and the newest epoch heard of."""

    @property
    def epoch(self) -> Epoch:
        """Never goes back."""


class FeedEncoder:
    """Encodes each batch once for all who read it."""

    def __init__(self, bytes_max: int = ENCODED_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._kept: OrderedDict[int, tuple[FeedBatch, bytes]] = OrderedDict()
        # NB: by identity, and with the batch itself, which keeps its identity from being used again.

    def encode(self, batch: FeedBatch) -> bytes:
        """The payload that says the batch."""
        if not batch.events:
            return encode(batch)  # small, and made for one reader as a rule
        kept = self._kept.get(id(batch))
        if kept is not None:
            return kept[1]
        payload = encode(batch)
        self._kept[id(batch)] = (batch, payload)
        self._bytes += len(payload) + KEPT_BYTES
        while self._bytes > self._bytes_max and self._kept:
            self._bytes -= len(self._kept.popitem(last=False)[1][1]) + KEPT_BYTES
        return payload


class Host(Protocol):
    """What the links of one server share; `server.WireServer`."""

    shard_id: ShardId
    incarnation: str
    settings: WireSettings
    secret: Secret
    feeds: FeedEncoder
    binding: bytes

    def served(self) -> Served | None:
        """Who answers now."""

    def epoch(self) -> Epoch:
        """The newest epoch the shard has heard of."""

    def came(self, link: ShardLink) -> str:
        """A link is there; why it may not stay, or nothing."""

    def left(self, link: ShardLink, reason: str) -> None:
        """A link that came is closed."""


class ShardLink(Link[ShardSide]):
    """One gateway's connection."""

    def __init__(self, host: Host) -> None:
        loop = asyncio.get_running_loop()
        side = ShardSide(
            shard=host.shard_id,
            incarnation=host.incarnation,
            secret=host.secret,
            nonce=secrets.token_bytes(NONCE_BYTES),
            binding=host.binding,
            epoch_now=host.epoch,
            settings=host.settings,
            now=loop.time(),
        )
        super().__init__(side, host.settings)
        self._host = host
        self.peer: object = None
        self.number = 0
        """Which of its server's connections it is; loop time is the same for many."""
        self.tasks: dict[asyncio.Task[None], Call] = {}
        self._credit: dict[int, asyncio.Future[None]] = {}

    def _connected(self, transport: asyncio.Transport) -> None:
        self.peer = transport.get_extra_info("peername")
        unwelcome = self._host.came(self)
        if unwelcome:
            self.close(unwelcome, rude=True)

    def _frame(self, frame: Frame) -> Event:
        return self.side.receive(frame, self._loop.time())

    def _happened(self, event: Event) -> None:
        match event:
            case Asked(call=call, query=query):
                run = self._stream if call.verb.streamed else self._unary
                task = call.owner = self._loop.create_task(run(call, query), name=call.verb.name)
                self.tasks[task] = call
                task.add_done_callback(self._done)
            case Credited(call=call):
                waiter = self._credit.pop(call.id, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
            case Cancelled(call=call):
                call.owner.cancel()
            case Left(reason=reason):
                self.close(f"the gateway left: {reason}")
            case Opened():
                log.debug("gateway connected", extra={"shard": self._host.shard_id, "peer": str(self.peer)})
            case _:
                raise AssertionError(event)

    def _ticked(self, now: float) -> None:
        for call in self.side.overdue(now):
            call.deadline = NEVER
            if call.reason is None:
                call.reason = NotReady(
                    f"shard {self._host.shard_id} did not answer {call.verb.name} in time", retry_after_s=1
                )
            call.owner.cancel()

    def _lost(self, reason: str) -> None:
        self._host.left(self, reason)
        self.side.calls.clear()
        for task in self.tasks:
            task.cancel()

    # -- requests ---------------------------------------------------------------------------------------------

    def _asking(self, call: Call, query: Any) -> Any:
        """The shard's method, called."""
        shard = self._host.served()
        if shard is None:
            raise NotServed(query.partition, self._host.epoch())
        return getattr(shard, call.verb.name)(query)

    async def _unary(self, call: Call, query: Any) -> None:
        try:
            if self.full:
                await self.drained()
            self.side.answer(call, self._fits(call, encode(await self._asking(call, query))))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the request has to be ended
            self._failed(call, error)
        self.flush_soon()

    async def _stream(self, call: Call, query: Any) -> None:
        items: AsyncGenerator[Any, None] | None = None
        try:
            items = cast("AsyncGenerator[Any, None]", self._asking(call, query))
            say = self._host.feeds.encode if call.verb is FEED else encode
            while True:
                if self.full or not self.side.may_send(call):
                    await self._room(call)
                item = await anext(items, None)
                if item is None:
                    break
                call.deadline = NEVER
                self.side.item(call, self._fits(call, say(item)))
                self.flush_soon()
            self.side.end(call)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the request has to be ended
            self._failed(call, error)
        finally:
            if items is not None:
                await items.aclose()
        self.flush_soon()

    async def _room(self, call: Call) -> None:
        """Returns when the stream may send its next item."""
        if call.verb is not FEED:
            # The state that a list pages through stays in memory; a feed's backlog is bounded by the shard itself.
            what = "export was taken" if call.verb is EXPORT else "list was read"
            call.reason = Expired(f"the {what} too slowly: {'ask' if call.verb is EXPORT else 'list'} again")
            call.deadline = self._loop.time() + self._settings.stream_idle_s
        while not self.side.may_send(call):
            waiter = self._credit[call.id] = self._loop.create_future()
            try:
                await waiter
            finally:
                self._credit.pop(call.id, None)
        await self.drained()
        call.deadline, call.reason = NEVER, None

    def _fits(self, call: Call, payload: bytes) -> bytes:
        if len(payload) <= self._settings.frame_bytes_max:
            return payload
        raise Broken(
            f"shard {self._host.shard_id} has an answer to {call.verb.name} of {len(payload)} bytes: "
            f"wire.frame_bytes_max is {self._settings.frame_bytes_max}"
        )

    def _failed(self, call: Call, error: BaseException) -> None:
        """Ends a request that has no answer."""
        match error:
            case ShoalError():
                self.side.fail(call, error)
            case asyncio.CancelledError() if call.reason is not None:
                self.side.fail(call, call.reason)
            case asyncio.CancelledError():
                self.side.end(call)
            case Exception():
                log.error(
                    "request failed",
                    exc_info=error,
                    extra={"shard": self._host.shard_id, "verb": call.verb.name},
                )
                self.side.fail(
                    call, Broken(f"shard {self._host.shard_id} failed at {call.verb.name}: {error!r}")
                )
            case _:
                raise error

    def _done(self, task: asyncio.Task[None]) -> None:
        call = self.tasks.pop(task)
        if call.id in self.side.calls:  # cancelled before it began, or while it cleaned up
            self._failed(call, asyncio.CancelledError())
            self.flush_soon()
        if not task.cancelled() and task.exception() is not None:
            log.error("request failed", exc_info=task.exception(), extra={"verb": call.verb.name})
