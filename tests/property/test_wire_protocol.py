"""Two honest sides never break the protocol, however bytes are delayed and cut and whatever is cancelled meanwhile.

A model beside the machines knows what was asked and sent: every request ends once, nothing is told to one who has gone
away, a stream's items arrive in order, and what is on its way of one never exceeds the window by more than an item.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from support.wire import Pair, feed, get, page, pages

from shoal.shards.model.errors import Expired
from shoal.shards.model.queries import GetAnswer
from shoal.shards.model.versions import Version
from shoal.shards.settings import WireSettings
from shoal.shards.wire.messages import FEED, GET, STREAM, encode
from shoal.shards.wire.protocol import Answered, Arrived, Asked, Cancelled, Credited, Ended, Failed

WINDOW = 64 << 10
ITEM_BYTES = 40_000
SETTINGS = WireSettings(window_bytes=WINDOW, requests_max=1000, streams_max=1000)


class Conversation(RuleBasedStateMachine):
    """What both drivers do, in any order."""

    asked = Bundle("asked")
    given = Bundle("given")

    def __init__(self):
        super().__init__()
        self.pair = Pair(settings=SETTINGS).open()
        self.up = b""
        self.down = b""
        self.gone = set()
        self.over = {}
        self.sent = {}
        self.taken = {}
        self.waiting = {}
        self.theirs = {}

    # -- the gateway ------------------------------------------------------------------------------------------

    @rule(target=asked, verb=st.sampled_from((GET, STREAM, FEED)))
    def ask(self, verb):
        query = {GET: get(), STREAM: pages(), FEED: feed()}[verb]
        call = self.pair.gateway.ask(verb, query, timeout_s=1.0, now=0.0, owner=self)
        self.waiting[call.id] = []
        self.taken[call.id] = 0
        return call

    @rule(call=asked)
    def give_up(self, call):
        if call.id not in self.over:
            self.gone.add(call.id)
        self.pair.gateway.abandon(call)

    @rule(call=asked)
    def take(self, call):
        if self.waiting[call.id]:
            arrived = self.waiting[call.id].pop(0)
            assert arrived.value.keys == page(self.taken[call.id]).keys, (
                "items come in order, and all of them"
            )
            self.taken[call.id] += 1
            self.pair.gateway.took(call, arrived.size)

    # -- the shard --------------------------------------------------------------------------------------------

    @rule(call=given)
    def send(self, call):
        if call.verb is STREAM and call.id in self.theirs and self.pair.shard.may_send(call):
            assert call.outstanding < WINDOW
            self.pair.shard.item(call, encode(page(self.sent[call.id], size=ITEM_BYTES)))
            self.sent[call.id] += 1

    @rule(call=consumes(given), fails=st.booleans())
    def end(self, call, fails):
        if self.theirs.pop(call.id, None) is None:
            return
        if fails:
            self.pair.shard.fail(call, Expired("over"))
        elif call.verb is GET and not call.abandoned:
            self.pair.shard.answer(call, encode(GetAnswer(body=b"{}", frontier=Version(1))))
        else:
            self.pair.shard.end(call)

    # -- the wire ---------------------------------------------------------------------------------------------

    @rule(target=given, count=st.integers(1, 400))
    def carry_up(self, count):
        self.up += b"".join(self.pair.gateway.take_outgoing(0.0))
        piece, self.up = self.up[:count], self.up[count:]
        newest = None
        for event in self.pair.receive(self.pair.shard, piece):
            match event:
                case Asked(call=call):
                    self.theirs[call.id] = newest = call
                    self.sent[call.id] = 0
                case Cancelled(call=call):
                    assert call.id in self.gone
                case Credited(call=call):
                    assert call.outstanding >= 0
        return newest or next(iter(self.theirs.values()), NOBODY)

    @rule(count=st.integers(1, 100_000))
    def carry_down(self, count):
        self.down += b"".join(self.pair.shard.take_outgoing(0.0))
        piece, self.down = self.down[:count], self.down[count:]
        for event in self.pair.receive(self.pair.gateway, piece):
            call = event.call
            assert call.id not in self.over, "a request ends once, and nothing comes after its end"
            if isinstance(event, Arrived):
                assert call.id not in self.gone, "nothing is told to one who has gone away"
                self.waiting[call.id].append(event)
                continue
            if call.id in self.gone:
                assert isinstance(event, Ended)
            else:
                assert isinstance(event, (Answered, Ended, Failed))
                assert isinstance(event, Ended) <= call.verb.streamed
            self.over[call.id] = event

    @invariant()
    def bounded(self):
        for call in self.pair.shard.calls.values():
            assert call.outstanding < WINDOW + ITEM_BYTES + 100
        assert set(self.pair.gateway.calls).isdisjoint(self.over)

    def teardown(self):
        """Once everything is delivered and every request ended, neither side remembers anything."""
        for _ in range(3):
            self.carry_everything()
            for call in list(self.theirs.values()):
                self.end(call, fails=True)
        assert not self.pair.gateway.calls
        assert not self.pair.shard.calls
        assert set(self.over) == set(self.waiting)

    def carry_everything(self):
        self.carry_up(count=1 << 30)
        self.carry_down(count=1 << 30)


class _Nobody:
    id = 0
    verb = None


NOBODY = _Nobody()

Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestConversation = Conversation.TestCase
