"""The gateway's role on one connection: futures and streams for those who ask, in order when all places are taken."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

from ..model.errors import NotReady, ShoalError
from .authentication import NONCE_BYTES, Endpoint
from .frames import Frame
from .gateway_side import GatewaySide
from .link import Link
from .messages import FEED, Verb
from .protocol import NEVER, Answered, Arrived, Call, Ended, Event, Failed, Left, Opened
from .tls import peer_binding

FEED_SILENCE_S = 15.0
"""Three beats of a feed (`handle.FEED_BEAT_S`): one that is silent for longer is dead."""
WAIT_S_MAX = 3600.0
"""Nobody waits for longer than this, whatever a query says."""


class _Stream:
    """What has arrived of a stream and was not taken yet: at most a window, and one item."""

    __slots__ = ("arrived", "error", "over", "waiter")

    def __init__(self) -> None:
        self.arrived: deque[Arrived] = deque()
        self.over = False
        self.error: ShoalError | None = None
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def end(self, error: ShoalError | None = None) -> None:
        self.over, self.error = True, error
        self.wake()


class GatewayLink(Link[GatewaySide]):
    """One connection to one incarnation of a shard. The owner of a call is a future, or a `_Stream`."""

    def __init__(self, endpoint: Endpoint, closed: Callable[[GatewayLink], None]) -> None:
        loop = asyncio.get_running_loop()
        side = GatewaySide(
            shard=endpoint.shard,
            incarnation=endpoint.incarnation,
            secret=endpoint.secret,
            nonce=secrets.token_bytes(NONCE_BYTES),
            settings=endpoint.settings,
            now=loop.time(),
        )
        super().__init__(side, endpoint.settings)
        self.shard_id = endpoint.shard
        self.opened: asyncio.Future[None] = loop.create_future()
        """Done when both sides have proved who they are; NotReady when that comes to nothing."""
        self.opened_at = loop.time()
        self._closed = closed
        self._places = {False: self._settings.requests_max, True: self._settings.streams_max}
        """Free ones, of unary requests and of streams. Never any while somebody waits for one."""
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {False: deque(), True: deque()}

    # -- asking -----------------------------------------------------------------------------------------------

    async def ask(self, verb: Verb, query: Any) -> Any:
        """The one answer. Raises NotReady, and what the shard raises."""
        future: asyncio.Future[Any] = self._loop.create_future()
        call = await self._sent(verb, query, self._timeout_s(query), future)
        try:
            return await future
        except asyncio.CancelledError:
            self._give_up(call)
            raise

    async def items(self, verb: Verb, query: Any) -> AsyncGenerator[Any, None]:
        """The items of a stream, as they are taken. Raises NotReady, and what the shard raises."""
        stream, timeout_s = _Stream(), self._timeout_s(query)
        call = await self._sent(verb, query, timeout_s, stream)
        try:
            while True:
                while stream.arrived:
                    item = stream.arrived.popleft()
                    self.side.took(call, item.size)
                    self.flush_soon()
                    yield item.value
                    if verb is FEED:
                        timeout_s = FEED_SILENCE_S
                if stream.over:
                    break
                # The deadline runs only while somebody waits: a reader that takes its time gets no item meanwhile.
                call.deadline = self._loop.time() + timeout_s
                stream.waiter = self._loop.create_future()
                await stream.waiter
                call.deadline = NEVER
            if stream.error is not None:
                raise stream.error
        finally:
            self._give_up(call)

    def _timeout_s(self, query: Any) -> float:
        return self._settings.answer_timeout_s + min(getattr(query, "wait_s", 0.0), WAIT_S_MAX)

    async def _sent(self, verb: Verb, query: Any, timeout_s: float, owner: Any) -> Call:
        if self._places[verb.streamed]:
            self._places[verb.streamed] -= 1
        else:
            await self._place(verb, timeout_s)
        if self.reason is not None:
            raise self._gone()
        try:
            call = self.side.ask(verb, query, timeout_s=timeout_s, now=self._loop.time(), owner=owner)
        except BaseException:
            self._freed(verb)
            raise
        self.flush_soon()
        return call

    async def _place(self, verb: Verb, timeout_s: float) -> None:
        """Returns with a place for one more request; first come, first served."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiting[verb.streamed].append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self._freed(verb)  # it was given one and has no use for it any more
            else:
                self._waiting[verb.streamed].remove(waiter)
            if isinstance(error, TimeoutError):
                raise NotReady(
                    f"shard {self.shard_id} is asked too much at once already", retry_after_s=1
                ) from None
            raise

    def _freed(self, verb: Verb) -> None:
        waiting = self._waiting[verb.streamed]
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._places[verb.streamed] += 1

    def _give_up(self, call: Call) -> None:
        self.side.abandon(call)
        self.flush_soon()

    def _gone(self) -> NotReady:
        return NotReady(f"the connection to shard {self.shard_id} is lost: {self.reason}", retry_after_s=1)

    # -- what comes back --------------------------------------------------------------------------------------

    def _connected(self, transport: asyncio.Transport) -> None:
        self.side.greet(peer_binding(transport))

    def _frame(self, frame: Frame) -> Event:
        return self.side.receive(frame)

    def _happened(self, event: Event) -> None:
        match event:
            case Answered(call=call, value=value):
                if call.owner is not None and not call.owner.done():
                    call.owner.set_result(value)
                self._freed(call.verb)
            case Arrived(call=call):
                call.owner.arrived.append(event)
                call.owner.wake()
            case Ended(call=call):
                if call.owner is not None:
                    call.owner.end()
                self._freed(call.verb)
            case Failed(call=call, error=error):
                self._fail(call, error)
                self._freed(call.verb)
            case Opened():
                self.opened_at = self._loop.time()
                if not self.opened.done():
                    self.opened.set_result(None)
            case Left(reason=reason):
                self.close(f"the shard left: {reason}")
            case _:
                raise AssertionError(event)

    def _ticked(self, now: float) -> None:
        for call in self.side.overdue(now):
            self._fail(
                call,
                NotReady(f"shard {self.shard_id} did not answer {call.verb.name} in time", retry_after_s=1),
            )
            self.side.abandon(call)

    def _fail(self, call: Call, error: ShoalError) -> None:
        owner = call.owner
        if isinstance(owner, _Stream):
            owner.end(error)
        elif owner is not None and not owner.done():
            owner.set_exception(error)

    def _lost(self, reason: str) -> None:
        calls = list(self.side.calls.values())
        self.side.calls.clear()
        for call in calls:
            self._fail(call, self._gone())
        for waiting in self._waiting.values():
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)  # who waits for a place sees that there is no connection
            waiting.clear()
        if not self.opened.done():
            self.opened.set_exception(NotReady(reason, retry_after_s=1))
        self._closed(self)
