"""What the HTTP side of watches promises to slow clients, at the end of a watch, and while a gateway stops."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support.clock import run_virtual
from support.local_shards import PODS, LocalInstallation, made

from shoal.cluster.connection import CONNECTION
from shoal.cluster.gateway.sinks import QueuedSink
from shoal.cluster.query.answers import Provenance
from shoal.cluster.watching.frames import Frame
from shoal.cluster.watching.statistics import WatchStatistics

LINE = b'{"type":"ADDED","object":{}}\n'
PATIENCE_S = 10.0
CHECK_S = 1.0


class OneWatch:
    """In place of a `WatchRouter`, and the one kind of watch it opens: lines and end are the test's."""

    provenance = Provenance(90, 0.25, ("shard-0",))

    def __init__(self) -> None:
        self.statistics = WatchStatistics()
        self.opened = asyncio.Event()
        self.running = asyncio.Event()
        self.over = asyncio.Event()

    async def open(self, query, form):
        self.opened.set()
        return self

    async def run(self, sink):
        self.sink = sink
        self.running.set()
        await self.over.wait()

    async def aclose(self):
        pass


def installation():
    watching = OneWatch()
    built = LocalInstallation(1, watching=watching)
    built.hold(PODS, [made(PODS, "web-0", namespace="a")])
    built.publish()
    built.watching = watching
    return built


def ended(built, reason: str) -> float | None:
    return built.gateway.metrics.registry.get_sample_value(
        "shoal_gateway_watches_ended_total", {"reason": reason}
    )


# -- clients that are slow -----------------------------------------------------------------------------------


@pytest.mark.parametrize("every_s", [0.5, 4.0, 9.5])
def test_a_client_that_reads_slowly_but_steadily_is_kept_and_one_that_stops_is_not(every_s):
    """There is always something that waits for this client, but never the same for long."""

    async def main():
        loop = asyncio.get_running_loop()
        room = asyncio.Semaphore(0)
        taken = 0

        async def send(message):
            nonlocal taken
            await room.acquire()
            taken += 1

        cuts = []
        sink = QueuedSink(send, 1 << 20)
        sink.on_cut = lambda: cuts.append(loop.time())
        pumping = asyncio.ensure_future(sink.pump())
        assert sink.write(Frame(LINE))
        assert sink.write(Frame(LINE))
        read_at = loop.time()
        while loop.time() < 20 * PATIENCE_S:
            await asyncio.sleep(min(CHECK_S, every_s))
            if loop.time() - read_at >= every_s:
                read_at = loop.time()
                room.release()
                assert sink.write(Frame(LINE))
            await asyncio.sleep(0)
            assert sink.unsent()
            sink.check(loop.time(), PATIENCE_S)
            assert sink.cut == ""
        assert taken >= 20 * PATIENCE_S / (every_s + CHECK_S) - 1
        while not sink.cut:
            await asyncio.sleep(CHECK_S)
            sink.check(loop.time(), PATIENCE_S)
        assert sink.cut == "stalled"
        assert PATIENCE_S <= loop.time() - read_at <= PATIENCE_S + 2 * CHECK_S
        assert cuts == [loop.time()]
        assert not sink.write(Frame(LINE))
        pumping.cancel()

    run_virtual(main())


def test_a_client_without_anything_to_take_is_never_too_slow():
    async def main():
        loop = asyncio.get_running_loop()

        async def send(message):
            pass

        sink = QueuedSink(send, 1 << 20)
        pumping = asyncio.ensure_future(sink.pump())
        for _ in range(5):
            assert sink.write(Frame(LINE))
            await sink.drained()
            for _ in range(3):
                sink.check(loop.time(), PATIENCE_S)
                await asyncio.sleep(10 * PATIENCE_S)
        assert sink.cut == ""
        pumping.cancel()

    run_virtual(main())


# -- the end of a watch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [False, True], ids=["another server", "our server"])
def test_a_watch_whose_last_lines_are_not_taken_is_broken_and_not_completed(ours):
    """A last chunk behind lines that were never sent would make a short answer look whole."""

    async def main():
        built = installation()
        sent, aborted = [], []

        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            if message.get("more_body"):
                await asyncio.Event().wait()
            sent.append(message)

        async def abort():
            aborted.append(True)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/pods",
            "query_string": b"watch=1",
            "headers": (),
        }
        if ours:
            scope["extensions"] = {CONNECTION: {"abort": abort, "unsent": lambda: len(LINE)}}
        asked = asyncio.create_task(built.gateway(scope, receive, send))
        watch = built.watching
        await watch.running.wait()
        assert watch.sink.write(Frame(LINE))
        await asyncio.sleep(0)
        watch.over.set()
        async with asyncio.timeout(300):
            await asked
        assert [message["type"] for message in sent] == ["http.response.start"]
        assert ended(built, "timeout") is None
        assert (ended(built, "behind") or 0) + (ended(built, "stalled") or 0) == 1
        assert bool(aborted) is ours
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


# -- a gateway that stops ------------------------------------------------------------------------------------


async def test_a_gateway_that_stops_does_not_even_open_another_watch():
    built = installation()
    await built.gateway.stop_watches()
    asked = asyncio.create_task(built.ask("/api/v1/pods?watch=1"))
    opened = asyncio.create_task(built.watching.opened.wait())
    try:
        await asyncio.wait((asked, opened), return_when=asyncio.FIRST_COMPLETED)
        assert not built.watching.opened.is_set()
        reply = asked.result()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert built.gateway.protection.watches == 0
    finally:
        built.watching.over.set()
        for task in (asked, opened):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await built.gateway.aclose()
