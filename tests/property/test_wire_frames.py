"""The wire's bytes: any message survives any fragmentation, and garbage is never more than a broken protocol."""

from hypothesis import given, settings
from hypothesis import strategies as st
from support.wire import PODS, Pair

from shoal.shards.model.queries import (
    Change,
    ChangesPage,
    ChangesQuery,
    CountQuery,
    FeedBatch,
    FeedEvent,
    FeedQuery,
    GetAnswer,
    GetQuery,
    OvertakeQuery,
    PageAnswer,
    PageQuery,
    PartitionCount,
)
from shoal.shards.model.transfers import ExportPiece, ExportQuery
from shoal.shards.wire import messages
from shoal.shards.wire.frames import HEADER, FrameReader, WireError, frame_head
from shoal.shards.wire.messages import VERBS
from shoal.shards.wire.protocol import Answered, Arrived, Asked

frames = st.lists(
    st.tuples(
        st.integers(0, 255), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1),
        st.binary(max_size=300),
    ),
    max_size=8,
)  # fmt: skip

versions = st.integers(0, 2**63 - 1)
text = st.text(max_size=20)
body = st.binary(max_size=200)
age = st.none() | st.floats(0, 1e6)
state = st.tuples(body, body, st.lists(text, max_size=3).map(tuple))
epochs = st.integers(0, 2**31)
partition = st.just(PODS) | text
selecting = {"namespace": st.none() | text, "labels": text, "fields": text, "shards": text}
asking = {"partition": partition, "epoch": epochs}
waiting = {"not_older_than": versions, "wait_s": st.floats(0, 100)}

queries = {
    "get": st.builds(GetQuery, **asking, key=text, **waiting),
    "page": st.builds(PageQuery, **asking, **selecting, after=text, at=st.none() | versions, **waiting),
    "count": st.builds(CountQuery, **asking, **selecting, group_by=text, **waiting),
    "overtake": st.builds(OvertakeQuery, **asking, version=versions),
    "changes": st.builds(ChangesQuery, **asking, **selecting, since=versions, exact=st.booleans()),
    "feed": st.builds(FeedQuery, **asking, since=st.none() | versions),
}
queries["stream"] = queries["page"]
queries["export"] = st.builds(
    ExportQuery, **asking, cover=text, selectable_fields=st.lists(text, max_size=3).map(tuple),
    redact=st.booleans(), max_bytes=st.integers(1, 2**31), **waiting,
)  # fmt: skip

change_types = st.sampled_from(("ADDED", "MODIFIED", "DELETED"))
events = st.builds(
    FeedEvent, versions, change_types, text, text, body, body, st.lists(text, max_size=3).map(tuple),
    st.none() | state,
)  # fmt: skip
answers = {
    "get": st.builds(GetAnswer, body=st.none() | body, frontier=versions, age_s=age),
    "page": st.builds(
        PageAnswer, version=versions, keys=st.lists(text, max_size=4), bodies=st.lists(body, max_size=4),
        more=st.booleans(), remaining=st.integers(0, 2**40), age_s=age,
    ),
    "count": st.builds(
        PartitionCount, version=versions, count=st.integers(0, 2**40),
        groups=st.dictionaries(text, st.integers(0, 2**40), max_size=4), age_s=age,
    ),
    "overtake": versions,
    "changes": st.builds(
        ChangesPage, frontier=versions, more=st.booleans(), age_s=age,
        changes=st.lists(st.builds(Change, versions, change_types, text, body), max_size=4),
    ),
    "feed": st.builds(FeedBatch, partition, versions, st.lists(events, max_size=4), age),
}  # fmt: skip
answers["stream"] = answers["page"]
answers["export"] = st.builds(ExportPiece, body, st.integers(0, 2**40))


def fragments(sent, cuts):
    """The bytes in pieces of the sizes given, over and over."""
    at, turn = 0, 0
    while at < len(sent):
        size = cuts[turn % len(cuts)] if cuts else len(sent)
        yield sent[at : at + size]
        at, turn = at + size, turn + 1


def received(reader, piece):
    """What a reader makes of a piece, in as many receptions as its room demands."""
    while piece:
        space = reader.space()
        assert len(space) > 0
        count = min(len(space), len(piece))
        space[:count], piece = piece[:count], piece[count:]
        for frame in reader.filled(count):
            yield frame.kind, frame.call, frame.epoch, frame.argument, bytes(frame.payload)


@given(frames=frames, cuts=st.lists(st.integers(1, 90), max_size=5), buffer_bytes=st.integers(1, 400))
def test_frames_survive_any_fragmentation_in_any_memory(frames, cuts, buffer_bytes):
    sent = b"".join(
        frame_head(kind, call, epoch, argument, len(payload)) + payload
        for kind, call, epoch, argument, payload in frames
    )
    reader = FrameReader(1 << 20, buffer_bytes=buffer_bytes)
    found = [frame for piece in fragments(sent, cuts) for frame in received(reader, piece)]
    assert found == frames


@given(garbage=st.binary(max_size=400), cuts=st.lists(st.integers(1, 90), max_size=5))
def test_no_frame_is_longer_than_allowed(garbage, cuts):
    reader = FrameReader(100, buffer_bytes=64)
    try:
        for piece in fragments(garbage, cuts):
            for *_, payload in received(reader, piece):
                assert len(payload) <= 100
    except WireError as error:
        assert "where 100 are the most" in str(error)


@given(data=st.data(), verb=st.sampled_from(sorted(VERBS.values(), key=lambda verb: verb.kind)))
def test_every_query_and_answer_arrives_as_it_was(data, verb):
    pair = Pair().open()
    query = data.draw(queries[verb.name])
    answer = data.draw(answers[verb.name])
    call = pair.gateway.ask(verb, query, timeout_s=1.0, now=0.0, owner=None)
    (asked,) = pair.to_shard()
    assert isinstance(asked, Asked)
    assert (asked.call.verb, asked.query) == (verb, query)
    payload = messages.encode(answer)
    if verb.streamed:
        pair.shard.item(asked.call, payload)
        (event,) = pair.to_gateway()
        assert isinstance(event, Arrived)
        assert event.size == len(payload)
    else:
        pair.shard.answer(asked.call, payload)
        (event,) = pair.to_gateway()
        assert isinstance(event, Answered)
    assert (event.call, event.value) == (call, answer)


# Bytes that are frames more often than chance would have it, with payloads that are msgpack more often than chance.
payloads = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | text | body,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
).map(messages.encode)
almost_frames = st.lists(
    st.builds(
        lambda kind, call, epoch, argument, payload, lie: (
            frame_head(kind, call, epoch, argument, len(payload) + lie) + payload
        ),
        st.sampled_from([*range(13), *VERBS]) | st.integers(0, 255),
        st.integers(0, 4) | st.integers(0, 2**64 - 1),
        st.integers(0, 3) | st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        payloads,
        st.just(0) | st.integers(0, 3),
    ),
    max_size=5,
).map(b"".join)


@settings(max_examples=300)
@given(
    sent=almost_frames | st.binary(max_size=200),
    opened=st.booleans(),
    to_gateway=st.booleans(),
    data=st.data(),
)
def test_garbage_breaks_the_protocol_and_nothing_else(sent, opened, to_gateway, data):
    pair = Pair()
    if opened:
        pair.open()
        for verb in VERBS.values():
            pair.gateway.ask(verb, data.draw(queries[verb.name]), timeout_s=1.0, now=0.0, owner=None)
        if data.draw(st.booleans()):
            pair.to_shard()
    side = pair.gateway if to_gateway else pair.shard
    try:
        pair.receive(side, sent)
    except WireError:
        return
    assert len(side.calls) <= 2 * len(VERBS) + 5
    assert side.open == opened, "nobody gets in without the secret"


@given(at=st.integers(0), flip=st.integers(1, 255))
def test_a_changed_byte_of_the_handshake_is_noticed(at, flip):
    pair = Pair()
    sent = bytearray(b"".join(pair.gateway.take_outgoing(0.0)))
    at = HEADER.size + at % (len(sent) - HEADER.size)
    sent[at] ^= flip
    try:
        pair.receive(pair.shard, bytes(sent))
        pair.to_gateway()
        pair.to_shard()
    except WireError:
        pass
    assert not pair.shard.open
