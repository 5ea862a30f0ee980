"""Watches over HTTP: one answer that goes on until its time is up, its client leaves or is left, or it may not go on.

What is watched and what a line says is `cluster.watching`'s; here is the answer around it. The head is sent once the
watch has been opened, so that everything that can be wrong with it is a Status. Lines go past ASGI straight to the
transport (`sinks`). A watch that ends properly ends with the last chunk, and its connection serves the next request.

How a watch ends, and what client-go makes of it:

===================  =======================================================================================
timeout, stopping    the answer is completed; clients watch again from the last version they saw
forbidden            the same, within the authorizer's period: the next request is answered 403, which every
                     client reports, whereas it would take an ERROR line of code 403 for one more broken stream
behind, stalled      the connection is broken: what waits for a client that does not read, or too slowly, is of no
                     use to it (`sinks` has the bounds)
client gone          nothing is left to be done
failed               a bug of ours, in the log; the connection is broken
===================  =======================================================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from ...shards.model.errors import NotReady, ShoalError
from ..query.request import CollectionQuery
from ..watching.forms import LineForm, error_line
from ..watching.frames import Frame
from ..watching.router import Watch, WatchRouter
from .asked import Asked, Client
from .http import ClientStalled, gone
from .metrics import GatewayMetrics
from .sinks import DirectSink, QueuedSink, WatchSink

log = logging.getLogger("shoal.cluster.gateway.watches")

T = TypeVar("T")

CHECK_S = 5.0
"""How often clients that take nothing, or not fast enough, are looked for."""
PATIENCE_S = 15.0
"""How long a client may take nothing of what waits for it."""
END_S = 15.0
"""How long the end of a watch may take to reach its client, behind what waits for it."""


class Watches:
    """The watches of one gateway."""

    def __init__(
        self,
        router: WatchRouter,
        metrics: GatewayMetrics,
        *,
        buffer_bytes: int,
    ) -> None:
        self._router = router
        self._metrics = metrics
        self._buffer_bytes = buffer_bytes
        self._ends: set[asyncio.Future[str]] = set()
        self._sinks: dict[WatchSink, _Counted] = {}
        self._check: asyncio.TimerHandle | None = None
        self._stopping = False
        metrics.before_scrape.append(self._count)

    async def serve(
        self,
        asked: Asked,
        query: CollectionQuery,
        form: LineForm,
        content_type: str,
        revoked: Callable[[], Awaitable[object]],
    ) -> None:
        """One watch, from opening it to the last byte. `revoked` returns once it may not go on.

        Raises:
            ShoalError: it was not opened; nothing has been sent.
        """
        if self._stopping:
            raise NotReady("this gateway is stopping", retry_after_s=1)
        asked.place.becomes_watch()
        end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ends.add(end)
        tasks = _Tasks(end)
        try:
            tasks.start("client gone", gone(asked.client.receive))
            watch = await tasks.unless_ended(self._router.open(query, form))
            if watch is None:
                self._metrics.watches_ended.labels(end.result()).inc()
                return
            await _send_head(asked, watch, content_type)
            if asked.exchange.head_only:
                await watch.aclose()
                return
            tasks.start("forbidden", revoked())
            await self._run(asked, watch, tasks)
        finally:
            self._ends.discard(end)
            await tasks.aclose()

    async def aclose(self) -> None:
        """Ends all watches, each properly, and lets no new ones begin."""
        self._stopping = True
        for end in self._ends:
            if not end.done():
                end.set_result("stopping")
        if self._check is not None:
            self._check.cancel()

    # -- one watch -------------------------------------------------------------------------------------------

    async def _run(self, asked: Asked, watch: Watch, tasks: _Tasks) -> None:
        exchange, client = asked.exchange, asked.client
        sink = self._sink(client)
        sink.on_cut = lambda: tasks.end("cut")
        counted = self._sinks[sink] = _Counted(exchange.resource)
        self._metrics.watches.labels(exchange.resource).inc()
        self._check_later()
        try:
            if isinstance(sink, QueuedSink):
                tasks.start("client gone", sink.pump())
            running = tasks.start("timeout", watch.run(sink))
            why = await tasks.ended()
            why = await self._end(why, running, sink, client)
        except asyncio.CancelledError:
            why = "stopping"
            raise
        except ClientStalled:
            exchange.stalled = True
            why = "stalled"
        finally:
            del self._sinks[sink]
            sink.close()
            self._settle(sink, counted)
            self._metrics.watches.labels(exchange.resource).dec()
        self._metrics.watches_ended.labels(why).inc()

    async def _end(self, why: str, running: asyncio.Task[Any], sink: WatchSink, client: Client) -> str:
        """Ends the answer as the table above has it; says why it ended."""
        if sink.cut:
            return await self._break(sink, client)
        if why == "client gone":
            return why
        running.cancel()
        await asyncio.wait((running,))
        if not running.cancelled() and (problem := running.exception()) is not None:
            if not isinstance(problem, ShoalError):
                log.error("watch failed", exc_info=problem)
                return "failed"
            sink.write(Frame(error_line(problem)))
            why = "failed"
        try:
            async with asyncio.timeout(END_S):
                await sink.drained()
        except TimeoutError:
            sink.break_with("behind")
        if sink.cut:
            return await self._break(sink, client)
        sink.close()  # before the connection is another request's
        await client.send({"type": "http.response.body", "body": b""})
        return why

    async def _break(self, sink: WatchSink, client: Client) -> str:
        log.info("watch cut off", extra={"reason": sink.cut, "unsent": sink.unsent()})
        if "abort" in client.connection:
            await client.connection["abort"]()
        return sink.cut

    def _sink(self, client: Client) -> WatchSink:
        stream = client.connection.get("stream")
        if stream is None:
            return QueuedSink(client.send, self._buffer_bytes)
        return DirectSink(stream(), self._buffer_bytes)

    # -- all of them -----------------------------------------------------------------------------------------

    def _check_later(self) -> None:
        if self._check is None and self._sinks and not self._stopping:
            self._check = asyncio.get_running_loop().call_later(CHECK_S, self._check_all)

    def _check_all(self) -> None:
        self._check = None
        now = asyncio.get_running_loop().time()
        for sink in tuple(self._sinks):
            sink.check(now, PATIENCE_S)
        self._check_later()

    def _count(self) -> None:
        """Brings the counters up to date; done when somebody looks, because a prometheus counter costs more than the
        write it counts.
        """
        for sink, counted in self._sinks.items():
            self._settle(sink, counted)

    def _settle(self, sink: WatchSink, counted: _Counted) -> None:
        self._metrics.watch_events.labels(counted.resource).inc(sink.events - counted.events)
        self._metrics.watch_bytes.labels(counted.resource).inc(sink.bytes - counted.bytes)
        counted.events, counted.bytes = sink.events, sink.bytes


class _Counted:
    """What of a sink is in the counters."""

    __slots__ = ("bytes", "events", "resource")

    def __init__(self, resource: str) -> None:
        self.resource = resource
        self.events = 0
        self.bytes = 0


class _Tasks:
    """What goes on beside a watch; the first of it to be over ends the watch and names the reason."""

    def __init__(self, end: asyncio.Future[str]) -> None:
        self._end = end
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, reason: str, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Starts something that ends the watch for `reason` when it is over."""
        task: asyncio.Task[Any] = asyncio.ensure_future(_awaited(work))
        task.set_name(f"watch: {reason}")
        task.add_done_callback(lambda done: self.end("failed" if _failed(done) else reason))
        self._tasks.append(task)
        return task

    def end(self, reason: str) -> None:
        """Ends the watch."""
        if not self._end.done():
            self._end.set_result(reason)

    async def ended(self) -> str:
        """Why, once it has."""
        await asyncio.wait((self._end,))
        return self._end.result()

    async def unless_ended(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What `work` gives; None if the watch ended before."""
        task = asyncio.create_task(work, name="watch: opening")
        self._tasks.append(task)
        await asyncio.wait((task, self._end), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None

    async def aclose(self) -> None:
        """Ends all of it."""
        await _cancelled(self._tasks)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _failed(task: asyncio.Task[Any]) -> bool:
    return not task.cancelled() and task.exception() is not None


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left)


async def _send_head(asked: Asked, watch: Watch, content_type: str) -> None:
    headers = [("Content-Type", content_type), *asked.exchange.rests_on(watch.provenance)]
    asked.exchange.code = 200
    await asked.client.send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        }
    )
    if asked.exchange.head_only:
        await asked.client.send({"type": "http.response.body", "body": b""})
