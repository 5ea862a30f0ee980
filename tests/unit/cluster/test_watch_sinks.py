"""Sinks of watches: bursts to clients that read, order, what is shared, and who is cut off."""

import asyncio
import contextlib
import random
import socket
import ssl

import pytest
import uvloop
from support.certificates import Authority
from support.clock import run_virtual
from support.scripted_watching import counted, installation, request, serving

from shoal.cluster.gateway import watches
from shoal.cluster.gateway.settings import TlsSettings
from shoal.cluster.gateway.sinks import DirectSink, QueuedSink
from shoal.cluster.settings import GatewaySettings
from shoal.cluster.watching.frames import Frame

WATCH = "/api/v1/pods?watch=1"
END = b"0\r\n\r\n"


def frame_of(size, mark=b"x"):
    return Frame(mark * (size - 1) + b"\n")


@contextlib.asynccontextmanager
async def watching(built, server, tls=None):
    """A client that watches: its reader, its writer, and the watch."""
    at = len(built.watching.opened)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20, ssl=tls)
    writer.write(request(WATCH))
    watch = await built.watching.watch(at)
    await reader.readuntil(b"\r\n\r\n")
    assert isinstance(watch.sink, DirectSink)
    yield reader, writer, watch
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


# -- who reads is not cut off ------------------------------------------------------------------------------------


async def test_a_burst_in_one_turn_of_the_loop_reaches_a_client_that_reads():
    async with serving() as (built, server), watching(built, server) as (reader, _, watch):
        frames = [frame_of(1_400_000, b"%x" % (number % 16)) for number in range(30)]
        for frame in frames:
            assert watch.sink.write(frame)
        watch.over.set()
        for frame in frames:
            assert await reader.readexactly(len(frame.chunk)) == frame.chunk
        assert await reader.readexactly(len(END)) == END
        assert watch.sink.unsent() == 0
        assert counted(built, "shoal_gateway_watches_ended_total", reason="timeout") == 1


async def in_order(settings, tls=None):
    """Frames of many sizes, with and without waiting for room, to a client that reads by bits."""
    rng = random.Random(5)
    async with (
        serving(settings=settings) as (built, server),
        watching(built, server, tls) as (reader, _, watch),
    ):
        written = []

        async def writes():
            for number in range(400):
                frame = frame_of(rng.choice((20, 500, 70_000, 300_000)), b"%02x" % (number % 256))
                assert watch.sink.write(frame)
                written.append(frame.chunk)
                if rng.random() < 0.1:
                    await watch.sink.drained()
                    assert not watch.sink._waiting
                elif rng.random() < 0.3:
                    await asyncio.sleep(0)
            watch.over.set()

        writing = asyncio.create_task(writes())
        received = bytearray()
        while not received.endswith(b"\n\r\n" + END):
            received += await reader.read(rng.choice((100, 10_000, 1 << 20)))
        await writing
        assert received == b"".join(written) + END


async def test_lines_are_never_overtaken():
    await in_order(GatewaySettings())


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_lines_are_never_overtaken_in_tls(tmp_path, loop_factory):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("gateway", hosts=("127.0.0.1",))
    settings = GatewaySettings(tls=TlsSettings(certificate=str(certificate), key=str(key)))
    tls = ssl.create_default_context(cafile=str(authority.path))
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(in_order(settings, tls))


async def test_what_waits_for_several_clients_is_held_once():
    async with serving() as (built, server), contextlib.AsyncExitStack() as stack:
        sinks = [(await stack.enter_async_context(watching(built, server)))[2].sink for _ in range(3)]
        frames = [frame_of(1 << 20) for _ in range(30)]
        for sink in sinks:
            for frame in frames:
                assert sink.write(frame)
        for sink in sinks:
            waiting = [chunk for chunk, _ in sink._waiting]
            assert waiting
            assert all(
                chunk is frame.chunk
                for chunk, frame in zip(reversed(waiting), reversed(frames), strict=False)
            )


async def test_the_transport_is_given_no_more_than_it_has_room_for():
    async with serving() as (built, server), watching(built, server) as (reader, _, watch):
        sink, size = watch.sink, 10_000
        transport = sink._stream.transport
        most = 0
        for _ in range(3000):
            assert sink.write(frame_of(size))
            most = max(most, transport.get_write_buffer_size())
        received = 0
        while received < sink.bytes:
            received += len(await reader.read(1 << 20))
            most = max(most, transport.get_write_buffer_size())
        assert most <= transport.get_write_buffer_limits()[1] + size + 100
        await sink.drained()


async def test_a_connection_that_was_crowded_serves_another_watch():
    async with serving() as (built, server), watching(built, server) as (reader, writer, watch):
        frame = frame_of(8 << 20)
        assert watch.sink.write(frame)
        assert watch.sink.write(frame)
        flow = watch.sink._flow
        watch.over.set()
        await reader.readexactly(2 * len(frame.chunk) + len(END))
        while built.gateway.protection.watches:
            await asyncio.sleep(0.001)
        assert flow.on_room is None
        writer.write(request(WATCH))
        second = await built.watching.watch(1)
        await reader.readuntil(b"\r\n\r\n")
        assert second.sink.write(frame)
        assert second.sink.write(frame)
        assert await reader.readexactly(2 * len(frame.chunk)) == frame.chunk * 2


# -- who does not is ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def deaf_watcher(built, server):
    """A client that reads nothing, and its watch."""
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        await loop.sock_connect(deaf, ("127.0.0.1", server.port))
        await loop.sock_sendall(deaf, request(WATCH))
        yield await built.watching.watch(len(built.watching.opened))


async def test_more_than_may_wait_cuts_a_client_off_and_lets_go_of_it():
    settings = GatewaySettings(watch_buffer_bytes=4 << 20)
    async with serving(settings=settings) as (built, server), deaf_watcher(built, server) as watch:
        sink = watch.sink
        while sink.write(frame_of(1 << 20)):
            assert sink._waiting_bytes <= 4 << 20
        assert sink.cut == "behind"
        assert len(sink._waiting) == 3
        async with asyncio.timeout(10):
            await sink.drained()
            await watch.ended.wait()
            while built.gateway.protection.watches:
                await asyncio.sleep(0.001)
        assert not sink._waiting
        assert counted(built, "shoal_gateway_watches_ended_total", reason="behind") == 1


async def test_the_end_of_a_watch_does_not_wait_for_ever_behind_what_waits(monkeypatch):
    monkeypatch.setattr(watches, "END_S", 0.05)
    async with serving() as (built, server), deaf_watcher(built, server) as watch:
        for _ in range(20):
            assert watch.sink.write(frame_of(1 << 20))
        watch.over.set()
        async with asyncio.timeout(10):
            while built.gateway.protection.watches:
                await asyncio.sleep(0.001)
        assert counted(built, "shoal_gateway_watches_ended_total", reason="behind") == 1


async def test_a_client_that_leaves_while_lines_wait_frees_who_waits_for_it():
    async with serving() as (built, server):
        async with deaf_watcher(built, server) as watch:
            for _ in range(20):
                assert watch.sink.write(frame_of(1 << 20))
            draining = asyncio.create_task(watch.sink.drained())
            await asyncio.sleep(0)
            assert not draining.done()
        async with asyncio.timeout(10):
            await draining
            while built.gateway.protection.watches:
                await asyncio.sleep(0.001)
        assert not watch.sink.write(frame_of(10))
        assert not watch.sink._waiting
        assert counted(built, "shoal_gateway_watches_ended_total", reason="client gone") == 1


@pytest.mark.parametrize(
    ("takes_s", "lines", "why", "at_most_s"),
    [(1.0, 25, "timeout", 100), (12.0, 25, "behind", 35), (40.0, 25, "stalled", 20)],
    ids=["keeps up", "too slow", "does not read"],
)
def test_a_client_has_to_take_something_and_not_too_late(takes_s, lines, why, at_most_s):
    async def main():
        built = installation()
        loop = asyncio.get_running_loop()

        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            if message["type"] == "http.response.body":
                await asyncio.sleep(takes_s)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/pods",
            "query_string": b"watch=1",
            "headers": (),
        }
        asked = asyncio.create_task(built.gateway(scope, receive, send))
        watch = await built.watching.watch()
        assert isinstance(watch.sink, QueuedSink)
        began = loop.time()
        for _ in range(lines):
            assert watch.sink.write(frame_of(10))
        loop.call_later(60.0, watch.over.set)
        await asked
        assert loop.time() - began <= at_most_s
        assert counted(built, "shoal_gateway_watches_ended_total", reason=why) == 1

    run_virtual(main())


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_burst_in_one_turn_of_the_loop_reaches_a_client_that_reads,
        test_lines_are_never_overtaken,
        test_what_waits_for_several_clients_is_held_once,
        test_the_transport_is_given_no_more_than_it_has_room_for,
        test_a_connection_that_was_crowded_serves_another_watch,
        test_more_than_may_wait_cuts_a_client_off_and_lets_go_of_it,
        test_a_client_that_leaves_while_lines_wait_frees_who_waits_for_it,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_the_same_on_uvloop(scenario):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
