"""The driver over real sockets: everything in flight ends, nothing grows without bound, nothing leaks."""

import asyncio
import contextlib
import logging
import random

import pytest
import uvloop
from support.wire import (
    SECRET,
    SHARD,
    Scripted,
    batch,
    feed,
    get,
    listening,
    page,
    pages,
    serving,
    turns,
    until,
)

from shoal.shards.handle import FEED_BEAT_S
from shoal.shards.model.errors import BadRequest, Broken, Expired, NotReady, NotServed, TooLargeVersion
from shoal.shards.model.partitions import Epoch, PartitionId
from shoal.shards.model.queries import ChangesQuery, CountQuery, FeedBatch, OvertakeQuery
from shoal.shards.model.versions import Version
from shoal.shards.wire import gateway_link, messages
from shoal.shards.wire.authentication import NONCE_BYTES, PROTOCOL, Secret
from shoal.shards.wire.client import DirectQueries, ShardConnection
from shoal.shards.wire.frames import frame_head
from shoal.shards.wire.messages import encode
from shoal.shards.wire.shard_link import FeedEncoder

PODS = PartitionId("v1/pods")


async def answered(iterator):
    return [item async for item in iterator]


# -- asking --------------------------------------------------------------------------------------------------


async def test_every_verb_is_answered():
    async with serving() as served:
        shard = served.connect()
        assert (await shard.get(get("default/x"))).body == b"default/x"
        assert (await shard.page(pages())).keys == ["default/000001"]
        assert (await shard.count(CountQuery(partition=PODS, epoch=Epoch(1)))).groups == {"a": 7}
        assert await shard.overtake(OvertakeQuery(partition=PODS, epoch=Epoch(1), version=Version(4))) == 5
        changes = ChangesQuery(partition=PODS, epoch=Epoch(1), since=Version(3))
        assert [page.frontier async for page in shard.changes(changes)] == [3]
        served.shard.batches = [batch(1), batch(2)]
        served.shard.ends = True
        assert await answered(shard.feed(feed())) == served.shard.batches
        assert len(await answered(shard.stream(pages()))) == 5
        assert shard.connection.epoch == 3
        assert served.found == 1, "all over one connection"


async def test_many_at_once_share_one_attempt_and_one_connection():
    async with serving() as served:
        shard, other = served.connect(), served.connect()
        found = await asyncio.gather(*(shard.get(get(f"default/{number}")) for number in range(300)))
        assert [answer.body for answer in found] == [b"default/%d" % number for number in range(300)]
        assert served.found == 1
        assert len(served.server.links) == 1
        await other.get(get())
        assert len(served.server.links) == 2


@pytest.mark.parametrize(
    "error", [NotServed("v1/pods", 4), TooLargeVersion(9, 3), Expired("old"), BadRequest("a===b")]
)
async def test_errors_of_the_shard_are_the_callers(error):
    async with serving() as served:
        shard = served.connect()
        served.shard.error = error
        with pytest.raises(type(error)) as caught:
            await shard.get(get())
        assert caught.value.status() == error.status()
        with pytest.raises(type(error)):
            await answered(shard.stream(pages()))


async def test_a_bug_of_the_shard_is_broken_for_the_one_who_asked_and_logged(caplog):
    async with serving() as served:
        shard = served.connect()
        served.shard.error = ZeroDivisionError("oh")
        with pytest.raises(Broken, match=r"shard shard-0 failed at get: ZeroDivisionError\('oh'\)"):
            await shard.get(get())
        assert "request failed" in caplog.text
        served.shard.error = None
        assert (await shard.get(get())).body
        assert served.found == 1, "the connection did not suffer"


async def test_a_shard_that_holds_nothing_serves_nothing():
    async with serving() as served:
        served.server.served = lambda: None
        with pytest.raises(NotServed) as caught:
            await served.connect().get(get())
        assert caught.value.partition == "v1/pods"


async def test_an_answer_longer_than_a_frame_is_an_error_of_its_own():
    async with serving(frame_bytes_max=1 << 20) as served:
        shard = served.connect()
        served.shard.page_bytes = (1 << 20) - 200
        assert len((await shard.page(pages())).bodies[0]) == (1 << 20) - 200
        served.shard.page_bytes = 1 << 20
        with pytest.raises(Broken, match=r"wire\.frame_bytes_max is 1048576"):
            await shard.page(pages())
        with pytest.raises(Broken, match=r"wire\.frame_bytes_max"):
            await answered(shard.stream(pages()))
        assert served.found == 1


async def test_a_cancelled_request_is_cancelled_in_the_shard():
    async with serving() as served:
        shard = served.connect()
        served.shard.gate.clear()
        asking = asyncio.create_task(shard.get(get()))
        await until(lambda: served.shard.asked == 1)
        asking.cancel()
        await until(lambda: served.shard.cancelled == 1)
        await until(lambda: not served.link.tasks)
        assert not served.link.side.calls
        served.shard.gate.set()
        await shard.get(get())
        assert served.found == 1


async def test_a_request_cancelled_before_the_shard_began_is_ended_as_well():
    async with serving(requests_max=1) as served:
        shard = served.connect()
        await shard.get(get())
        asking = asyncio.create_task(shard.get(get()))
        await asyncio.sleep(0)
        asking.cancel()  # request and cancel arrive together
        await asyncio.wait([asking])
        async with asyncio.timeout(5):
            await shard.get(get())
        assert not served.link.side.calls


async def test_requests_beyond_the_limit_wait_for_their_turn():
    async with serving(requests_max=2) as served:
        shard = served.connect()
        served.shard.gate.clear()
        asking = [asyncio.create_task(shard.get(get(f"default/{number}"))) for number in range(6)]
        await until(lambda: served.shard.asked == 2)
        asking[2].cancel()
        asking[0].cancel()
        await until(lambda: served.shard.asked == 3)
        served.shard.gate.set()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert [getattr(result, "body", None) for result in results] == [
            None, b"default/1", None, b"default/3", b"default/4", b"default/5",
        ]  # fmt: skip
        link = shard.connection._link
        assert link._places == {False: 2, True: link._settings.streams_max}


async def test_a_deadline_ends_the_request_on_both_sides():
    async with serving(answer_timeout_s=0.3) as served:
        shard = served.connect()
        served.shard.gate.clear()
        with pytest.raises(NotReady, match="shard shard-0 did not answer get in time") as caught:
            await shard.get(get(wait_s=0.1))
        assert caught.value.retry_after_s == 1
        await until(lambda: served.shard.cancelled == 1)
        with pytest.raises(NotReady, match="did not answer feed in time"):
            await anext(shard.feed(feed()))
        await until(lambda: served.shard.closed == 1)


async def test_who_waits_for_a_place_has_a_deadline_too():
    async with serving(answer_timeout_s=0.3, streams_max=1) as served:
        shard = served.connect()
        served.shard.batches = [batch(1)]
        followed = shard.feed(feed())
        await anext(followed)
        with pytest.raises(NotReady, match="asked too much at once"):
            await answered(shard.stream(pages(wait_s=0.0)))
        await followed.aclose()
        assert len(await answered(shard.stream(pages()))) == 5


# -- streams -------------------------------------------------------------------------------------------------


async def test_a_reader_that_stands_still_holds_a_few_pages_and_no_more():
    async with serving(window_bytes=1 << 20, write_buffer_bytes=1 << 20) as served:
        served.shard.page_bytes, served.shard.page_count = 400_000, 200
        shard = served.connect()
        stream = shard.stream(pages())
        first = await anext(stream)
        await until(lambda: served.shard.made >= 3)
        await turns(200)
        assert served.shard.made <= 4, "the shard makes no more than a window"
        assert (await shard.get(get())).body, "others on the connection go on"
        rest = await answered(stream)
        assert [first.keys[0], *(page.keys[0] for page in rest)] == [
            page(number).keys[0] for number in range(200)
        ]


async def test_a_stream_that_is_given_up_is_closed_in_the_shard():
    async with serving(window_bytes=64 << 10) as served:
        served.shard.page_bytes, served.shard.page_count = 40_000, 100
        shard = served.connect()
        stream = shard.stream(pages())
        await anext(stream)
        await stream.aclose()
        await until(lambda: served.shard.closed == 1)
        assert served.shard.made < 10
        stream = shard.feed(feed())
        waiting = asyncio.ensure_future(anext(stream))
        await until(lambda: len(served.link.tasks) == 1)
        waiting.cancel()
        await until(lambda: served.shard.closed == 2)
        assert not served.link.tasks


async def test_a_list_nobody_takes_a_page_of_is_ended():
    async with serving(window_bytes=64 << 10, stream_idle_s=0.3) as served:
        served.shard.page_bytes, served.shard.page_count = 70_000, 100
        stream = served.connect().stream(pages())
        await anext(stream)
        await until(lambda: served.shard.closed == 1)
        with pytest.raises(Expired, match="read too slowly"):
            await answered(stream)


async def test_a_feed_nobody_takes_from_stays_in_the_shard_and_the_others_go_on():
    async with serving(window_bytes=64 << 10, write_buffer_bytes=64 << 10, stream_idle_s=0.3) as served:
        shard = served.connect()
        slow, quick = shard.feed(feed()), shard.feed(feed())
        served.shard.tell(batch(0, size=30_000))
        await asyncio.gather(anext(slow), anext(quick))
        for number in range(1, 100):
            served.shard.tell(batch(number, size=30_000))
            assert (await anext(quick)).frontier == number
        assert served.shard.made < 110, "the slow reader's batches were not even asked for"
        assert [(await anext(slow)).frontier for _ in range(99)] == list(range(1, 100))
        await asyncio.gather(slow.aclose(), quick.aclose())


async def test_a_batch_is_encoded_once_for_all_who_read_it():
    async with serving() as served:
        feeds = [served.connect().feed(feed()) for _ in range(3)]
        encoded = []
        original = served.server.feeds.encode
        served.server.feeds.encode = lambda item: encoded.append(original(item)) or encoded[-1]
        for number in range(5):
            served.shard.tell(batch(number, size=1000))
            await asyncio.gather(*(anext(feed) for feed in feeds))
        assert len(encoded) == 15
        assert len({id(payload) for payload in encoded}) == 5
        await asyncio.gather(*(feed.aclose() for feed in feeds))


def test_encoded_batches_are_kept_by_identity_and_not_for_ever():
    encoder = FeedEncoder(bytes_max=3500)
    one, twin = batch(1, size=1000), batch(1, size=1000)
    assert encoder.encode(one) is encoder.encode(one)
    assert encoder.encode(one) == encoder.encode(twin)
    assert encoder.encode(one) is not encoder.encode(twin)
    first = encoder.encode(one)
    encoder.encode(batch(2, size=1000))
    assert encoder.encode(one) is not first
    big = batch(3, size=9000)
    assert encoder.encode(big) == encoder.encode(big)
    encoder.encode(FeedBatch(PODS, Version(4), []))
    assert not encoder._kept
    assert encoder._bytes == 0


def test_a_feed_is_dead_after_three_beats():
    assert gateway_link.FEED_SILENCE_S == 3 * FEED_BEAT_S


# -- when it breaks ------------------------------------------------------------------------------------------


async def test_a_broken_connection_fails_everything_on_it_and_is_opened_again():
    async with serving() as served:
        shard = served.connect()
        served.shard.gate.clear()
        served.shard.batches = [batch(1)]
        followed = shard.feed(feed())
        await anext(followed)
        asking = [asyncio.create_task(shard.get(get())) for _ in range(3)]
        following = asyncio.ensure_future(anext(followed))
        await until(lambda: served.shard.asked == 3)
        served.link._transport.abort()
        for task in (*asking, following):
            with pytest.raises(NotReady, match="the connection to shard shard-0 is lost") as caught:
                await task
            assert caught.value.retry_after_s == 1
        await until(lambda: served.shard.cancelled == 3 and served.shard.closed == 1)
        served.shard.gate.set()
        assert (await shard.get(get())).body
        assert served.found == 2, "a fresh endpoint, because it may be another incarnation"


async def test_a_restarted_shard_is_found_with_its_new_port_and_secret():
    async with serving() as served:
        shard = served.connect()
        await shard.get(get())
        await served.server.aclose()
        await until(lambda: not shard.connection.connected)
        again = await listening(Scripted(), incarnation="two")
        served.server, served.endpoint = again.server, again.endpoint
        assert (await shard.get(get())).body


async def test_who_asks_while_it_is_away_is_told_so_and_nothing_storms():
    async with serving() as served:
        shard = served.connect()
        served.problem = NotReady("shard shard-0 is not running", retry_after_s=1)
        for _ in range(50):
            with pytest.raises(NotReady, match="is not running"):
                await shard.get(get())
        assert served.found == 2, "one attempt, one at once after it, then none for a while"
        served.problem = None
        async with asyncio.timeout(10):
            while True:
                try:
                    await shard.get(get())
                    break
                except NotReady:
                    await asyncio.sleep(0.01)
        assert served.found == 3


async def test_each_caller_gets_an_error_of_its_own():
    async with serving() as served:
        shard = served.connect()
        served.problem = NotReady("away", retry_after_s=None)
        errors = await asyncio.gather(*(shard.get(get()) for _ in range(3)), return_exceptions=True)
        assert len({id(error) for error in errors}) == 3
        assert served.found == 1


async def test_a_caller_that_goes_away_does_not_end_the_attempt_of_the_others():
    async with serving() as served:
        gate = asyncio.Event()

        async def find():
            await gate.wait()
            return served.endpoint

        connection = ShardConnection(SHARD, find, random.Random(1))
        served.connections.append(connection)
        shard = DirectQueries(connection)
        first, second = (asyncio.create_task(shard.get(get())) for _ in range(2))
        await turns()
        first.cancel()
        await turns()
        gate.set()
        assert (await second).body


async def test_a_gateway_with_a_wrong_secret_is_refused_without_a_trace_of_the_right_one(caplog):
    caplog.set_level(logging.DEBUG, logger="shoal")
    async with serving() as served:
        with pytest.raises(NotReady, match=r"cannot be reached at 127\.0\.0\.1:\d+: the peer does not know"):
            await served.connect(secret=SECRET).get(get())
        with pytest.raises(NotReady, match="another shard, or another life of it"):
            await served.connect(incarnation="two").get(get())
        await until(lambda: not served.server.links)
        assert served.shard.asked == 0
        assert "refused a connection" in caplog.text
        written = " ".join(str(vars(record)) for record in caplog.records)
        assert str(served.endpoint.secret._value) not in written
        assert served.endpoint.secret._value.hex() not in written


async def test_nobody_listens_there():
    async with serving() as served:
        await served.server.aclose()
        with pytest.raises(NotReady, match=r"shard-0 cannot be reached at 127\.0\.0\.1"):
            await served.connect().get(get())


async def test_closing_ends_what_is_in_flight_and_stays_closed():
    async with serving() as served:
        shard = served.connect()
        served.shard.gate.clear()
        asking = asyncio.create_task(shard.get(get()))
        await until(lambda: served.shard.asked == 1)
        await shard.connection.aclose()
        with pytest.raises(NotReady, match="this process needs it no longer"):
            await asking
        with pytest.raises(NotReady, match="was closed"):
            await shard.get(get())
        await until(lambda: not served.server.links)


# -- strangers -----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def stranger(served):
    """A connection that follows no protocol of ours."""
    reader, writer = await asyncio.open_connection(served.endpoint.host, served.endpoint.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def rest_of(reader):
    with contextlib.suppress(ConnectionError):
        return await reader.read()
    return b""


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: shard\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        frame_head(messages.GET.kind, 1, 0, 1000, 0),
        frame_head(messages.HELLO, 0, 0, 0, 1 << 20),
        frame_head(messages.HELLO, 0, 0, 0, 3) + b"\xc1\xc1\xc1",
    ],
    ids=["http", "tls", "request", "long", "garbage"],
)
async def test_a_stranger_is_shown_the_door_and_told_nothing(said):
    async with serving() as served:
        async with stranger(served) as (reader, writer):
            writer.write(said)
            assert await asyncio.wait_for(rest_of(reader), 5) == b""
        await until(lambda: not served.server.links)
        assert (await served.connect().get(get())).body


async def test_a_stranger_who_does_not_greet_is_shown_out_long_before_the_handshake_is_due():
    patient = {"handshake_timeout_s": 600.0, "keepalive_s": 600.0}
    async with serving(**patient) as served, stranger(served) as (reader, _):
        assert await asyncio.wait_for(rest_of(reader), 20) == b""


async def test_a_stranger_who_says_nothing_is_not_waited_for():
    async with serving(handshake_timeout_s=0.3) as served, stranger(served) as (reader, _):
        assert await asyncio.wait_for(rest_of(reader), 5) == b""


async def test_strangers_are_bounded_in_number():
    async with serving(unauthenticated_max=3) as served, contextlib.AsyncExitStack() as stack:
        shard = served.connect()
        await shard.get(get())
        mine = served.link
        for _ in range(3):
            await stack.enter_async_context(stranger(served))
        await until(lambda: served.server.unauthenticated == 3)
        oldest = min(served.server.links - {mine}, key=lambda link: link.number)
        await stack.enter_async_context(stranger(served))
        await until(lambda: oldest.reason is not None)
        assert oldest.reason == "too many connections that have not proved who they are"
        assert served.server.unauthenticated == 3
        assert (await shard.get(get())).body, "who is in stays in"


async def test_strangers_who_have_greeted_go_last():
    greeting = encode(messages.Hello(PROTOCOL, bytes(NONCE_BYTES)))
    async with serving(unauthenticated_max=3) as served, contextlib.AsyncExitStack() as stack:

        async def comes(*, greets):
            reader, writer = await stack.enter_async_context(stranger(served))
            if greets:
                writer.write(frame_head(messages.HELLO, 0, 0, 0, len(greeting)) + greeting)
                await reader.readuntil(served.server.incarnation.encode())  # the challenge
            return reader

        first, second = await comes(greets=True), await comes(greets=True)
        for _ in range(5):
            await comes(greets=False)
        third = await comes(greets=True)
        assert [reader.at_eof() for reader in (first, second, third)] == [False] * 3
        await comes(greets=False)
        await asyncio.wait_for(rest_of(first), 5)
        assert not second.at_eof()
        assert not third.at_eof()


async def test_a_flood_of_strangers_does_not_lock_a_gateway_out():
    async with serving(unauthenticated_max=8) as served:
        going = True

        async def knocks():
            while going:
                with contextlib.suppress(ConnectionError):
                    async with stranger(served) as (reader, _):
                        await rest_of(reader)

        flood = [asyncio.create_task(knocks()) for _ in range(40)]
        await until(lambda: served.server.unauthenticated == 8)
        for _ in range(10):
            assert (await served.connect().get(get())).body
        going = False
        await served.server.aclose()
        await asyncio.wait(flood)


async def test_a_peer_that_breaks_the_rules_loses_its_connection_and_nobody_elses(caplog):
    caplog.set_level(logging.INFO, logger="shoal")
    async with serving() as served:
        good, bad = served.connect(), served.connect()
        await good.get(get())
        await bad.get(get())
        link = bad.connection._link
        link._transport.write(frame_head(99, 0, 0, 0, 0))
        await until(lambda: not bad.connection.connected)
        assert link.reason == "the shard left: a frame of kind 99, which is not to be sent to this side"
        assert "gateway disconnected" in caplog.text
        assert (await good.get(get())).body
        assert served.found == 2


async def test_a_shard_that_breaks_the_rules_is_left(caplog):
    async with serving() as served:
        shard = served.connect()
        await shard.get(get())
        served.link._transport.write(frame_head(messages.ANSWER, 55, 3, 0, 1) + encode(1))
        await until(lambda: not shard.connection.connected)
        assert (await shard.get(get())).body


# -- liveness ------------------------------------------------------------------------------------------------


async def test_an_idle_connection_stays():
    async with serving(keepalive_s=0.5) as served:
        shard = served.connect()
        await shard.get(get())
        link = shard.connection._link
        heard = link.side._heard
        await until(lambda: link.side._heard > heard + 1.5)
        assert shard.connection._link is link


async def test_a_peer_that_hangs_is_noticed_while_nothing_is_asked():
    async with serving(keepalive_s=0.5) as served:
        shard = served.connect()
        await shard.get(get())
        served.link._timer.cancel()  # a hung process says nothing, and its sockets stay open
        link = shard.connection._link
        await until(lambda: not shard.connection.connected)
        assert link.reason == "nothing was heard for 0.5 s"
        assert (await shard.get(get())).body


async def test_a_secret_is_made_anew_by_every_server():
    async with serving() as one, serving() as two:
        assert isinstance(one.endpoint.secret, Secret)
        assert one.endpoint.secret.sign(b"") != two.endpoint.secret.sign(b"")
        assert one.endpoint.secret.sign(b"") not in repr(one.endpoint).encode()


# -- the loop of production ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario",
    [
        test_every_verb_is_answered,
        test_many_at_once_share_one_attempt_and_one_connection,
        test_a_cancelled_request_is_cancelled_in_the_shard,
        test_a_reader_that_stands_still_holds_a_few_pages_and_no_more,
        test_a_broken_connection_fails_everything_on_it_and_is_opened_again,
        test_a_restarted_shard_is_found_with_its_new_port_and_secret,
        test_strangers_are_bounded_in_number,
        test_strangers_who_have_greeted_go_last,
        test_a_flood_of_strangers_does_not_lock_a_gateway_out,
        test_a_peer_that_hangs_is_noticed_while_nothing_is_asked,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_the_same_on_uvloop(scenario):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
