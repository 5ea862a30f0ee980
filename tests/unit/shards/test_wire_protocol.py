"""The machines of a connection, back to back: handshake, requests, streams, cancelling, deadlines, liveness."""

import pickle

import msgspec
import pytest
from support.wire import PODS, Pair, batch, feed, get, page, pages

from shoal.cluster.settings import parse_settings
from shoal.shards.model.errors import BadRequest, Expired, NotServed, SettingsError
from shoal.shards.model.partitions import Epoch
from shoal.shards.model.queries import GetAnswer, PageQuery
from shoal.shards.model.versions import Version
from shoal.shards.settings import WireSettings
from shoal.shards.wire import messages
from shoal.shards.wire.authentication import Secret, Transcript
from shoal.shards.wire.frames import WireError, frame_head
from shoal.shards.wire.messages import FEED, GET, HANDSHAKE_BYTES_MAX, STREAM, encode
from shoal.shards.wire.protocol import Answered, Arrived, Cancelled, Credited, Ended, Failed, Left

ANSWER = GetAnswer(body=b"{}", frontier=Version(5), age_s=0.1)


def frame(kind, call=0, *, epoch=0, argument=0, payload=b""):
    return frame_head(kind, call, epoch, argument, len(payload)) + payload


# -- handshake -----------------------------------------------------------------------------------------------


def test_both_sides_prove_who_they_are():
    pair = Pair()
    assert not pair.gateway.open
    assert not pair.shard.open
    pair.open()


def test_a_gateway_without_the_secret_gets_in_nowhere():
    pair = Pair(secret=Secret(b"x" * 32))
    pair.to_shard()
    with pytest.raises(WireError, match="does not know the shard's secret"):
        pair.to_gateway()  # the gateway notices first, and proves nothing to a shard it does not trust
    assert pair.gateway.outgoing == []
    transcript = Transcript(
        shard="shard-0", incarnation="one", gateway_nonce=b"g" * 32, shard_nonce=b"n" * 32, binding=b""
    )
    proof = transcript.proof(Secret(b"x" * 32), "gateway")
    with pytest.raises(WireError, match="does not know the shard's secret"):
        pair.receive(pair.shard, frame(messages.PROOF, payload=encode([proof, 100])))
    assert not pair.shard.open


def test_a_shards_proof_is_none_of_a_gateway():
    pair = Pair()
    pair.to_shard()
    (_, challenge) = pair.shard.take_outgoing(0.0)
    theirs = msgspec.msgpack.decode(challenge)[3]
    with pytest.raises(WireError, match="does not know"):
        pair.receive(pair.shard, frame(messages.PROOF, payload=encode([theirs, 100])))


def test_another_life_of_the_shard_is_another_shard():
    pair = Pair(incarnation="two")
    pair.to_shard()
    with pytest.raises(WireError, match="another shard, or another life"):
        pair.to_gateway()


def test_a_relayed_handshake_fails_because_the_two_saw_different_certificates():
    pair = Pair(binding=b"certificate of the shard")
    pair.to_shard()
    with pytest.raises(WireError, match="does not know"):
        pair.to_gateway()


def test_another_version_of_the_protocol_is_refused_by_name():
    pair = Pair()
    with pytest.raises(WireError, match="speaks 'shoal-wire-9': expected 'shoal-wire-1'"):
        pair.receive(pair.shard, frame(messages.HELLO, payload=encode(["shoal-wire-9", b"g" * 32])))


@pytest.mark.parametrize(
    "sent",
    [
        frame(GET.kind, 1, argument=1000, payload=encode(get())),
        frame(messages.BEAT),
        frame(messages.CANCEL, 1),
        frame(messages.PROOF, payload=encode([b"p" * 32, 100])),
        frame(messages.WELCOME),
        frame(messages.HELLO, payload=encode(["shoal-wire-1", b"short"])),
    ],
)
def test_who_has_not_proved_anything_may_say_nothing_but_the_next_word(sent):
    pair = Pair()
    with pytest.raises(WireError):
        pair.receive(pair.shard, sent)
    assert not pair.shard.calls


def test_before_the_proof_frames_are_small_and_afterwards_as_long_as_the_settings_say():
    pair = Pair(settings=WireSettings(frame_bytes_max=5 << 20))
    assert pair.shard.payload_bytes_max == pair.gateway.payload_bytes_max == HANDSHAKE_BYTES_MAX
    pair.open()
    assert pair.shard.payload_bytes_max == messages.REQUEST_BYTES_MAX
    assert pair.gateway.payload_bytes_max == 5 << 20


def test_a_secret_shows_itself_nowhere_and_crosses_the_control_plane():
    secret = Secret(b"very-secret-bytes-that-nobody-sees")
    assert "very" not in f"{secret!r} {secret} {vars(type(secret))}"
    assert pickle.loads(pickle.dumps(secret)).sign(b"a") == secret.sign(b"a")
    with pytest.raises(ValueError, match="expected at least 32"):
        Secret(b"short")
    assert "ssss" not in repr(Pair().gateway.__dict__)


# -- requests ------------------------------------------------------------------------------------------------


def test_answers_find_their_requests_in_any_order():
    pair = Pair().open()
    one, first = pair.ask(GET, get("default/a"))
    two, second = pair.ask(GET, get("default/b"))
    pair.shard.answer(second, encode(ANSWER))
    pair.shard.fail(first, NotServed("v1/pods", 4))
    answered, failed = pair.to_gateway()
    assert (answered.call, answered.value) == (two, ANSWER)
    assert failed.call is one
    assert (type(failed.error), failed.error.epoch) == (NotServed, 4)
    assert not pair.gateway.calls
    assert not pair.shard.calls


def test_a_cancelled_request_is_live_until_the_shard_has_ended_it():
    pair = Pair().open()
    call, theirs = pair.ask(GET, get())
    pair.gateway.abandon(call)
    pair.gateway.abandon(call)
    (cancelled,) = pair.to_shard()
    assert isinstance(cancelled, Cancelled)
    assert cancelled.call is theirs
    assert pair.gateway.calls
    pair.shard.end(theirs)
    (ended,) = pair.to_gateway()
    assert isinstance(ended, Ended)
    assert not pair.gateway.calls


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cancel_and_the_end_may_cross_each_other(streamed):
    pair = Pair().open()
    call, theirs = pair.ask(STREAM, pages()) if streamed else pair.ask(GET, get())
    pair.gateway.abandon(call)
    if streamed:
        pair.shard.item(theirs, encode(page(1)))
        pair.shard.end(theirs)
    else:
        pair.shard.answer(theirs, encode(ANSWER))
    assert pair.to_shard() == []  # nothing to cancel any more
    (ended,) = pair.to_gateway()
    assert isinstance(ended, Ended)
    assert not pair.gateway.calls


def test_what_the_driver_ends_twice_is_ended_once():
    pair = Pair().open()
    _, theirs = pair.ask(GET, get())
    pair.shard.answer(theirs, encode(ANSWER))
    pair.shard.fail(theirs, Expired("late"))
    pair.shard.end(theirs)
    pair.shard.item(theirs, b"late")
    assert [type(event) for event in pair.to_gateway()] == [Answered]


def test_a_request_takes_its_deadline_along():
    pair = Pair(now=100.0).open()
    call, theirs = pair.ask(GET, get(), timeout_s=2.0)
    assert call.deadline == 102.0
    assert theirs.deadline == pytest.approx(102.0, abs=0.01)
    assert pair.gateway.overdue(101.9) == pair.shard.overdue(101.9) == []
    assert pair.gateway.overdue(102.1) == [call]
    assert pair.shard.overdue(102.1) == [theirs]
    pair.gateway.abandon(call)
    assert pair.gateway.overdue(1e9) == []


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        (PageQuery(partition=PODS, epoch=Epoch(1), labels="x" * (1 << 20)), "expected at most 1048576"),
        (get("default/\ud800"), "surrogates not allowed"),
        (get(not_older_than=Version(1 << 70)), "can't serialize ints"),
    ],
    ids=["long", "half a character", "too large"],
)
def test_a_query_that_cannot_be_sent_is_a_bad_request(query, problem):
    pair = Pair().open()
    with pytest.raises(BadRequest, match=problem):
        pair.gateway.ask(GET, query, timeout_s=1.0, now=0.0, owner=None)
    assert not pair.gateway.calls
    assert pair.gateway.outgoing == []


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (frame(99), "a frame of kind 99"),
        (frame(messages.ANSWER, 1), "a frame of kind 9"),
        (frame(messages.HELLO), "a frame of kind 1"),
        (frame(messages.CANCEL, 2), "request 2 was never made"),
        (frame(messages.CREDIT, 1, argument=5), "which is no stream"),
        (frame(GET.kind, 1, payload=encode(get())), "request 1 after 1"),
        (frame(GET.kind, 2, payload=encode({"partition": "p"})), "a request to get that cannot be read"),
        (frame(GET.kind, 2, payload=b"\xc1"), "a request to get that cannot be read"),
        (frame(GET.kind, 2, payload=b"\x91" * 100_000), "a request to get that cannot be read"),
    ],
)
def test_a_gateway_that_breaks_the_rules_is_told_off(sent, problem):
    pair = Pair().open()
    pair.ask(GET, get())
    with pytest.raises(WireError, match=problem):
        pair.receive(pair.shard, sent)


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (frame(99, epoch=1), "a frame of kind 99"),
        (frame(messages.ANSWER, 7, epoch=1), "request 7, which is not in flight"),
        (frame(messages.ITEM, 1, epoch=1), "an item for get, which is no stream"),
        (frame(messages.ANSWER, 2, epoch=1), "one answer to stream"),
        (frame(messages.END, 1, epoch=1), "no answer to get"),
        (frame(messages.ANSWER, 1, epoch=1, payload=encode([1])), "an answer to get that cannot be read"),
        (frame(messages.FAILURE, 1, epoch=1, payload=encode("x")), "an error that cannot be read"),
        (frame(messages.BEAT, epoch=0), "epoch 0 after 1"),
    ],
)
def test_a_shard_that_breaks_the_rules_is_told_off(sent, problem):
    pair = Pair().open()
    pair.ask(GET, get())
    pair.ask(STREAM, pages())
    with pytest.raises(WireError, match=problem):
        pair.receive(pair.gateway, sent)


def test_more_requests_than_settings_allow_break_the_rules():
    pair = Pair(settings=WireSettings(requests_max=2, streams_max=1)).open()
    calls = [pair.ask(GET, get()) for _ in range(2)]
    pair.ask(STREAM, pages())
    pair.shard.answer(calls[0][1], encode(ANSWER))
    pair.to_gateway()
    pair.ask(GET, get())  # a place was freed
    with pytest.raises(WireError, match="more than 2 requests in flight"):
        pair.ask(GET, get())
    pair = Pair(settings=WireSettings(streams_max=1)).open()
    pair.ask(FEED, feed())
    with pytest.raises(WireError, match="more than 1 streams"):
        pair.ask(FEED, feed())


def test_every_frame_carries_the_newest_epoch_of_the_shard():
    pair = Pair().open()
    assert pair.gateway.epoch == 1
    _, theirs = pair.ask(GET, get())
    pair.epoch = Epoch(8)
    pair.shard.answer(theirs, encode(ANSWER))
    pair.to_gateway()
    assert pair.gateway.epoch == 8


# -- streams -------------------------------------------------------------------------------------------------


def test_a_stream_is_sent_as_far_as_its_reader_has_room():
    pair = Pair(settings=WireSettings(window_bytes=64 << 10)).open()
    call, theirs = pair.ask(STREAM, pages())
    sent = 0
    while pair.shard.may_send(theirs):
        pair.shard.item(theirs, encode(page(sent, size=30_000)))
        sent += 1
    assert sent == 3, "one item may exceed the window"
    arrived = pair.to_gateway()
    assert [type(event) for event in arrived] == [Arrived] * 3
    pair.gateway.took(call, arrived[0].size)
    assert pair.to_shard() == [], "credit is given in halves of a window"
    pair.gateway.took(call, arrived[1].size)
    (credited,) = pair.to_shard()
    assert isinstance(credited, Credited)
    assert pair.shard.may_send(theirs)


def test_a_reader_that_took_everything_always_gets_more():
    pair = Pair(settings=WireSettings(window_bytes=64 << 10)).open()
    call, theirs = pair.ask(FEED, feed())
    for number in range(300):
        assert pair.shard.may_send(theirs), "the stream would stand still"
        pair.shard.item(theirs, encode(batch(number, size=1000 * (number % 90))))
        for event in pair.to_gateway():
            pair.gateway.took(call, event.size)
        pair.to_shard()


def test_credit_for_what_was_never_sent_breaks_the_rules():
    pair = Pair().open()
    pair.ask(STREAM, pages())
    with pytest.raises(WireError, match="credit for more than was sent"):
        pair.receive(pair.shard, frame(messages.CREDIT, 1, argument=1))


def test_a_stream_ends_with_its_items_or_an_error():
    pair = Pair().open()
    _, theirs = pair.ask(STREAM, pages())
    pair.shard.item(theirs, encode(page(0)))
    pair.shard.end(theirs)
    assert [type(event) for event in pair.to_gateway()] == [Arrived, Ended]
    _, theirs = pair.ask(FEED, feed())
    pair.shard.fail(theirs, Expired("too old", metadata={"a": "b"}))
    (failed,) = pair.to_gateway()
    assert isinstance(failed, Failed)
    assert (type(failed.error), failed.error.metadata) == (Expired, {"a": "b"})


# -- liveness ------------------------------------------------------------------------------------------------


def test_an_idle_connection_is_kept_alive_by_both_and_given_up_by_either():
    pair = Pair(settings=WireSettings(keepalive_s=4.0)).open()
    silent_from = 20.0
    while pair.now < silent_from:
        pair.now += 0.25
        pair.gateway.tick(pair.now)
        pair.shard.tick(pair.now)
        assert pair.to_shard() == []
        assert pair.to_gateway() == []
    with pytest.raises(WireError, match="nothing was heard for 4 s"):
        while pair.now < silent_from + 5.0:
            pair.now += 0.25
            pair.gateway.tick(pair.now)
    assert pair.now == pytest.approx(silent_from + 4.25, abs=0.3)


def test_time_in_which_we_ourselves_stood_still_is_not_the_peers():
    pair = Pair(settings=WireSettings(keepalive_s=4.0)).open()
    pair.gateway.tick(0.25)
    pair.gateway.tick(60.0)  # the peer's beats wait in the socket
    pair.gateway.tick(60.25)


def test_a_handshake_has_a_deadline():
    pair = Pair(settings=WireSettings(handshake_timeout_s=1.0))
    pair.shard.tick(0.25)
    with pytest.raises(WireError, match="no handshake within 1 s"):
        pair.shard.tick(1.25)


def test_a_greeting_has_a_shorter_deadline_in_which_standing_still_does_not_count():
    pair = Pair(settings=WireSettings(handshake_timeout_s=60.0))
    pair.shard.tick(3.0)  # we stood still: the greeting may be there, unread
    pair.shard.tick(3.25)
    pair.shard.tick(3.5)
    with pytest.raises(WireError, match="no greeting within 1 s"):
        pair.shard.tick(3.75)
    greeted = Pair(settings=WireSettings(handshake_timeout_s=60.0))
    greeted.to_shard()
    for quarter in range(1, 20):
        greeted.shard.tick(quarter / 4)


def test_a_peer_that_leaves_says_why():
    pair = Pair().open()
    pair.shard.say_goodbye("x" * 600)
    (left,) = pair.to_gateway()
    assert left == Left("x" * 500)
    closed = Pair()
    closed.shard.say_goodbye("nothing is told to strangers")
    assert closed.shard.outgoing == []


# -- settings ------------------------------------------------------------------------------------------------


def test_tls_by_half_is_refused_by_name():
    with pytest.raises(SettingsError, match=r"file: .*wire\.tls_key is missing: expected all of"):
        parse_settings({"wire": {"tls_certificate": "a.pem", "tls_ca": "ca.pem"}}, where="file")
    assert parse_settings({"wire": {"keepalive_s": 2}}, where="file").shard_settings.wire.keepalive_s == 2
