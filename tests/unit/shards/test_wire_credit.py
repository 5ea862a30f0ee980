"""Credit for streams: given back for what a reader takes, and not for calls nobody waits for any more."""

from __future__ import annotations

from support.wire import Pair, page, pages

from shoal.shards.settings import WireSettings
from shoal.shards.wire.messages import STREAM, encode
from shoal.shards.wire.protocol import Arrived, Cancelled, Credited, Ended

WINDOW_BYTES = 64 << 10


def streaming(*sizes: int):
    """A stream of which pages have arrived and none was taken: both machines, the call on both sides, the items."""
    pair = Pair(settings=WireSettings(window_bytes=WINDOW_BYTES)).open()
    call, theirs = pair.ask(STREAM, pages())
    for number, size in enumerate(sizes):
        pair.shard.item(theirs, encode(page(number, size=size)))
    items = pair.to_gateway()
    assert [type(item) for item in items] == [Arrived] * len(sizes)
    return pair, call, theirs, items


def test_a_call_that_was_given_up_gives_no_credit_for_what_had_arrived():
    """A reader may still take what arrived before its deadline passed; the shard has nothing more to send for it."""
    pair, call, theirs, items = streaming(WINDOW_BYTES // 2, WINDOW_BYTES // 2)
    pair.gateway.abandon(call)
    for item in items:
        pair.gateway.took(call, item.size)
    (event,) = pair.to_shard()
    assert isinstance(event, Cancelled)
    pair.gateway.took(call, WINDOW_BYTES)
    assert pair.gateway.outgoing == []
    assert theirs.outstanding == sum(item.size for item in items)
    assert not pair.shard.may_send(theirs)


def test_a_call_that_is_over_gives_no_credit_for_what_is_still_taken():
    pair, call, theirs, items = streaming(WINDOW_BYTES // 2, WINDOW_BYTES // 2)
    pair.shard.end(theirs)
    (ended,) = pair.to_gateway()
    assert isinstance(ended, Ended)
    for item in items:
        pair.gateway.took(call, item.size)
    assert pair.gateway.outgoing == []


def test_who_is_not_given_up_gets_credit_for_the_same():
    pair, call, theirs, items = streaming(WINDOW_BYTES // 2, WINDOW_BYTES // 2)
    for item in items:
        pair.gateway.took(call, item.size)
    events = pair.to_shard()
    assert events
    assert {type(event) for event in events} == {Credited}
    assert pair.shard.may_send(theirs)
