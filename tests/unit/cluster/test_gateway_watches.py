"""Watches over HTTP: heads, frames on the wire, how watches end, and clients that do not keep up."""

import asyncio
import contextlib
import json
import socket

import pytest
from support.clock import run_virtual
from support.local_shards import ask
from support.scripted_watching import counted, installation, request, serving

from shoal.cluster.gateway.sinks import QueuedSink
from shoal.cluster.settings import GatewaySettings, LimitSettings
from shoal.cluster.watching.frames import Frame
from shoal.shards.model.errors import Forbidden, NotReady

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
LINE = b'{"type":"ADDED","object":{}}\n'


# -- over ASGI ----------------------------------------------------------------------------------------------


async def test_a_watch_says_what_it_rests_on_and_ends_in_order():
    built = installation()
    asked = asyncio.create_task(built.ask("/api/v1/pods?watch=1&resourceVersion=5"))
    watch = await built.watching.watch()
    assert isinstance(watch.sink, QueuedSink)
    assert counted(built, "shoal_gateway_watches", resource="v1/pods") == 1
    assert watch.sink.write(Frame(LINE * 2, 2))
    watch.over.set()
    reply = await asked
    assert (reply.status, reply.body, reply.complete) == (200, LINE * 2, True)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-cache, private"
    assert reply.headers["shoal-frontier"] == "90"
    assert reply.headers["shoal-age"] == "0.250"
    assert reply.headers["shoal-shards"] == "shard-0,shard-1"
    assert "content-length" not in reply.headers
    assert counted(built, "shoal_gateway_watches", resource="v1/pods") == 0
    assert counted(built, "shoal_gateway_watch_events_total", resource="v1/pods") == 2
    assert counted(built, "shoal_gateway_watch_bytes_total", resource="v1/pods") == 2 * len(LINE)
    assert counted(built, "shoal_gateway_watches_ended_total", reason="timeout") == 1
    assert counted(built, "shoal_gateway_requests_total", verb="watch", resource="v1/pods", code="200") == 1
    assert built.gateway.protection.watches == built.gateway.protection.requests == 0


@pytest.mark.parametrize(
    ("path", "namespace", "fields"),
    [
        ("/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dn", None, "spec.nodeName=n"),
        ("/api/v1/watch/namespaces/a/pods", "a", ""),
        ("/api/v1/watch/namespaces/a/pods/web-0", "a", "metadata.name=web-0"),
        ("/api/v1/watch/namespaces/a/pods/a%2Cb%3Dc", "a", "metadata.name=a\\,b\\=c"),
        (
            "/api/v1/watch/namespaces/a/pods/web-0?fieldSelector=spec.nodeName%3Dn,metadata.name%3Dweb-0",
            "a",
            "spec.nodeName=n,metadata.name=web-0",
        ),
    ],
)
async def test_every_way_to_ask_for_a_watch(path, namespace, fields):
    built = installation()
    asked = asyncio.create_task(built.ask(path))
    (await built.watching.watch()).over.set()
    assert (await asked).status == 200
    query, _ = built.watching.asked[0]
    assert (query.namespace, query.fields, query.options.watch) == (namespace, fields, True)


async def test_a_watch_of_one_object_is_not_asked_for_with_the_name_of_another():
    reply = await installation().ask(
        "/api/v1/watch/namespaces/a/pods/web-0?fieldSelector=metadata.name%3Dweb-1"
    )
    assert reply.status == 400
    assert "doesn't match requested name" in json.loads(reply.body)["message"]


async def test_the_form_is_the_accepted_one():
    built = installation()
    for accept in (TABLE, "application/json;stream=watch", "*/*"):
        asked = asyncio.create_task(built.ask("/api/v1/pods?watch=1", accept=accept))
        (await built.watching.watch(len(built.watching.asked))).over.set()
        reply = await asked
        stream = "stream=watch" in accept
        assert reply.headers["content-type"] == "application/json" + (";stream=watch" if stream else "")
    forms = [type(form).__name__ for _, form in built.watching.asked]
    assert forms == ["TableForm", "ObjectForm", "ObjectForm"]


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("/api/v1/pods?watch=1", "application/yaml", 406),
        (
            "/api/v1/pods?watch=1",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            406,
        ),
        ("/api/v1/pods?watch=1&labelSelector=a%20in", "*/*", 400),
        ("/api/v1/pods?watch=1&timeoutSeconds=x", "*/*", 400),
        ("/api/v1/pods?watch=1&sendInitialEvents=true", "*/*", 422),
        ("/api/v1/gadgets?watch=1", "*/*", 404),
        ("/api/v1/watch/gadgets", "*/*", 404),
    ],
)
async def test_what_is_wrong_with_a_watch_is_a_status(path, accept, status):
    built = installation()
    assert (await built.ask(path, accept=accept)).status == status
    assert not built.watching.opened
    assert built.gateway.protection.watches == 0


async def test_a_watch_that_cannot_be_opened_is_a_status():
    built = installation()
    built.watching.problem = NotReady("shard shard-0 is away", retry_after_s=1)
    reply = await built.ask("/api/v1/pods?watch=1")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert counted(built, "shoal_gateway_watches", resource="v1/pods") is None


async def test_head_opens_and_lets_go():
    built = installation()
    reply = await built.ask("/api/v1/pods?watch=1", method="HEAD")
    assert (reply.status, reply.body, reply.headers["shoal-frontier"]) == (200, b"", "90")
    assert built.watching.opened[0].closed
    assert built.watching.opened[0].sink is None


async def test_a_client_that_leaves_ends_the_watch():
    built = installation()
    asked = asyncio.create_task(built.ask("/api/v1/pods?watch=1", gone_after=1))
    watch = await built.watching.watch()
    watch.sink.write(Frame(LINE))
    reply = await asked
    assert not reply.complete
    assert watch.ended.is_set()
    assert counted(built, "shoal_gateway_watches_ended_total", reason="client gone") == 1
    assert len(asyncio.all_tasks()) == 1


def test_a_client_that_leaves_while_the_watch_is_opened_ends_that():
    async def main():
        built = installation()
        built.watching.delay_s = 1000.0
        left = asyncio.Event()
        sent = []

        async def receive():
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/pods",
            "query_string": b"watch=1",
            "headers": (),
        }
        asked = asyncio.create_task(built.gateway(scope, receive, send))
        await asyncio.sleep(1)
        left.set()
        await asked
        assert sent == []
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)
        assert len(asyncio.all_tasks()) == 1
        assert built.gateway.protection.watches == 0

    run_virtual(main())


async def test_an_error_of_ours_is_a_line_and_a_bug_breaks_the_answer(caplog):
    built = installation()
    for problem, complete in ((NotReady("the shard is away"), True), (RuntimeError("boom"), False)):
        asked = asyncio.create_task(built.ask("/api/v1/pods?watch=1"))
        watch = await built.watching.watch(len(built.watching.opened))
        watch.fails = problem
        watch.over.set()
        reply = await asked
        assert reply.complete is complete
        if complete:
            line = json.loads(reply.body)
            assert (line["type"], line["object"]["code"]) == ("ERROR", 503)
        else:
            assert reply.body == b""
    assert "watch failed" in caplog.text
    assert counted(built, "shoal_gateway_watches_ended_total", reason="failed") == 2


class Permissions:
    """Allows everything until told."""

    def __init__(self):
        self.withdrawn = asyncio.Event()

    async def require(self, user, attributes):
        pass

    async def revoked(self, user, attributes):
        assert attributes.verb == "watch"
        await self.withdrawn.wait()
        return Forbidden("no more")

    async def aclose(self):
        pass


async def test_a_permission_that_is_withdrawn_ends_the_watch_in_order():
    permissions = Permissions()
    built = installation(authorization=permissions)
    asked = asyncio.create_task(built.ask("/api/v1/pods?watch=1"))
    watch = await built.watching.watch()
    watch.sink.write(Frame(LINE))
    permissions.withdrawn.set()
    reply = await asked
    assert (reply.body, reply.complete) == (LINE, True)
    assert watch.ended.is_set()
    assert counted(built, "shoal_gateway_watches_ended_total", reason="forbidden") == 1


async def test_a_gateway_that_stops_ends_its_watches_in_order_and_opens_no_more():
    built = installation()
    asked = [asyncio.create_task(built.ask("/api/v1/pods?watch=1")) for _ in range(3)]
    for at in range(3):
        (await built.watching.watch(at)).sink.write(Frame(LINE))
    await built.gateway.stop_watches()
    for reply in await asyncio.gather(*asked):
        assert (reply.body, reply.complete) == (LINE, True)
    refused = await built.ask("/api/v1/pods?watch=1")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert (await built.ask("/api/v1/pods")).status == 200
    await built.gateway.aclose()


def test_a_client_that_takes_nothing_is_cut_off_and_nobody_waits():
    async def main():
        built = installation(settings=GatewaySettings(watch_buffer_bytes=1 << 16))
        stuck = asyncio.Event()

        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            if message["type"] == "http.response.body":
                await stuck.wait()

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/pods",
            "query_string": b"watch=1",
            "headers": (),
        }
        began = asyncio.get_running_loop().time()
        behind = asyncio.create_task(built.gateway(scope, receive, send))
        first = await built.watching.watch(0)
        assert first.sink.write(Frame(b"x" * 60_000))
        assert not first.sink.write(Frame(b"x" * 60_000))
        assert not first.sink.write(Frame(LINE)), "once cut, nothing more is taken"
        await behind
        assert asyncio.get_running_loop().time() == began
        stalled = asyncio.create_task(built.gateway(scope, receive, send))
        second = await built.watching.watch(1)
        await asyncio.sleep(7)
        assert second.sink.write(Frame(LINE))
        await stalled
        waited = asyncio.get_running_loop().time() - began
        assert 22 <= waited <= 27
        for why in ("behind", "stalled"):
            assert counted(built, "shoal_gateway_watches_ended_total", reason=why) == 1
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())


async def test_watches_have_places_of_their_own():
    limits = LimitSettings(requests=2, watches=2, watches_per_user=2)
    built = installation(settings=GatewaySettings(limits=limits))
    asked = [asyncio.create_task(built.ask("/api/v1/pods?watch=1")) for _ in range(2)]
    watches = [await built.watching.watch(at) for at in range(2)]
    assert (built.gateway.protection.watches, built.gateway.protection.requests) == (2, 0)
    refused = await built.ask("/api/v1/pods?watch=1")
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert refused.json["message"] == "Too many requests, please try again later."
    assert counted(built, "shoal_gateway_refused_total", limit="watches") == 1
    assert (await built.ask("/api/v1/pods")).status == 200
    watches[0].over.set()
    await asked[0]
    again = asyncio.create_task(built.ask("/api/v1/pods?watch=1"))
    (await built.watching.watch(2)).over.set()
    assert (await again).status == 200
    watches[1].over.set()
    await asked[1]


# -- on the wire --------------------------------------------------------------------------------------------


async def test_frames_are_chunks_and_the_connection_serves_on():
    async with serving() as (built, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for at in range(2):
            writer.write(request("/api/v1/pods?watch=1"))
            watch = await built.watching.watch(at)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"transfer-encoding: chunked\r\n" in head
            frame = Frame(LINE * 2, 2)
            watch.sink.write(frame)
            assert await reader.readexactly(len(frame.chunk)) == frame.chunk
            watch.over.set()
            assert await reader.readexactly(5) == b"0\r\n\r\n"
        writer.write(request("/livez"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()


async def test_http_1_0_gets_bare_lines_until_the_connection_ends():
    async with serving() as (built, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/api/v1/pods?watch=1", version="1.0"))
        watch = await built.watching.watch()
        watch.sink.write(Frame(LINE))
        watch.over.set()
        head, body = (await reader.read()).split(b"\r\n\r\n", 1)
        assert b"transfer-encoding" not in head.lower()
        assert body == LINE
        writer.close()


@pytest.mark.parametrize("pipelined", [False, True])
async def test_a_client_that_hangs_up_ends_its_watch_at_once(pipelined):
    async with serving() as (built, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/api/v1/pods?watch=1") + (request("/livez") if pipelined else b""))
        watch = await built.watching.watch()
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        async with asyncio.timeout(10):
            await watch.ended.wait()
        while built.gateway.protection.watches:
            await asyncio.sleep(0.01)
        assert not watch.sink.write(Frame(LINE))


async def test_a_client_that_reads_nothing_loses_its_connection_and_the_others_nothing():
    settings = GatewaySettings(watch_buffer_bytes=1 << 20)
    async with serving(settings=settings) as (built, server):
        loop = asyncio.get_running_loop()
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        await loop.sock_connect(deaf, ("127.0.0.1", server.port))
        await loop.sock_sendall(deaf, request("/api/v1/pods?watch=1"))
        slow = await built.watching.watch(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 26)
        writer.write(request("/api/v1/pods?watch=1"))
        well = await built.watching.watch(1)
        await reader.readuntil(b"\r\n\r\n")
        frame = Frame(b"x" * 262_143 + b"\n")
        async with asyncio.timeout(20):
            while slow.sink.write(frame):
                assert well.sink.write(frame)
                await reader.readexactly(len(frame.chunk))
            await slow.ended.wait()
            while built.gateway.protection.watches > 1:
                await asyncio.sleep(0.01)
            received = 0
            with contextlib.suppress(ConnectionResetError):
                while piece := await loop.sock_recv(deaf, 1 << 20):
                    received += len(piece)
        assert received < slow.sink.bytes
        assert counted(built, "shoal_gateway_watches_ended_total", reason="behind") == 1
        assert well.sink.write(frame)
        assert await reader.readexactly(len(frame.chunk)) == frame.chunk
        deaf.close()
        writer.close()


async def test_a_server_that_stops_ends_watches_in_order():
    async with serving() as (built, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request("/api/v1/pods?watch=1"))
        watch = await built.watching.watch()
        watch.sink.write(Frame(LINE))
        await built.gateway.stop_watches()
        await server.stop()
        assert (await reader.read()).endswith(Frame(LINE).chunk + b"0\r\n\r\n")
        writer.close()


async def test_the_sink_counts_what_was_handed_over_while_a_watch_goes_on():
    built = installation()
    asked = asyncio.create_task(ask(built.gateway, "/api/v1/pods?watch=1"))
    watch = await built.watching.watch()
    for total in (3, 6):
        watch.sink.write(Frame(LINE * 3, 3))
        assert counted(built, "shoal_gateway_watch_events_total", resource="v1/pods") == total
    watch.over.set()
    await asked
