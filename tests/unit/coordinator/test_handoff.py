"""The hand-off's machine, explored: every event in every state, and everything that can happen to one hand-off and its
copies, step by step, until nothing new is reached.

`World` is one hand-off with what is true of its copies. Its moves are the events the coordinator would raise of them,
and the failures it cannot see coming. After each, what must hold at every moment is checked.
"""

from dataclasses import dataclass, replace
from typing import get_args

import msgspec
import pytest

from shoal.coordinator.handoff import OVER, TABLE, Copy, Event, Limits, State, begin, step
from shoal.shards.model.errors import Broken
from shoal.shards.model.partitions import OneNamespace, Partition, ShardId
from shoal.shards.model.resources import Resource

STATES: tuple[State, ...] = get_args(State)
EVENTS: tuple[Event, ...] = get_args(Event)
COMMANDS: tuple[Event, ...] = ("switch", "publish")
PODS = Resource("", "v1", "pods")
LIMITS = Limits(transfer_s=60, lost_source_s=3, switch_s=10, grace_s=2, pause_s=5, switches=2)
OLD, NEW = Copy(Partition(PODS), ShardId("a")), Copy(Partition(PODS), ShardId("b"))


def fresh():
    return begin(1, (OLD,), (NEW,), reason="test", now=0.0, limits=LIMITS)


def in_state(state):
    return msgspec.structs.replace(fresh(), state=state, attempts=1)


def test_every_event_is_defined_in_every_state():
    assert set(TABLE) == {(state, event) for state in STATES for event in EVENTS}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_a_command_is_legal_in_one_state_and_an_event_is_never_an_error(state, event):
    legal = {"switch": "complete", "publish": "taken"}
    before = in_state(state)
    if event in COMMANDS and legal[event] != state:
        with pytest.raises(Broken, match=rf"is {state} is asked to {event}: v1/pods@a -> v1/pods@b"):
            step(before, event, 1.0, LIMITS)
        return
    after = step(before, event, 1.0, LIMITS)
    assert after.state in STATES
    if state in OVER:
        assert after is before, "what is over stays so"


REACHED_BY = {
    "receiving": {("complete", "lost")},
    "complete": {("receiving", "arrived"), ("thawing", "thawed")},
    "switching": {("complete", "switch")},
    "taken": {("switching", "took")},
    "published": {("taken", "publish")},
    "releasing": {("published", "timed_out")},
    "done": {("releasing", "cleared"), ("releasing", "timed_out")},
    "thawing": {
        ("switching", "failed"),
        ("switching", "timed_out"),
        ("taken", "lost"),
        ("taken", "timed_out"),
    },
    "abandoned": {("abandoning", "cleared"), ("abandoning", "timed_out")},
}


@pytest.mark.parametrize("target", REACHED_BY)
def test_the_way_into_a_state(target):
    ways = set()
    for state in STATES:
        for event in EVENTS:
            if state != target and not (event in COMMANDS and TABLE[state, event].__name__ == "_illegal"):
                after = step(in_state(state), event, 1.0, LIMITS)
                if after.state == target:
                    ways.add((state, event))
    assert ways == REACHED_BY[target]


def test_what_a_new_shard_was_told_before_it_was_started_again_counts_for_nothing():
    handoff = step(in_state("switching"), "lost", 1.0, LIMITS)
    assert handoff.state == "switching", "the calls are under way"
    handoff = step(handoff, "took", 2.0, LIMITS)
    assert (handoff.state, handoff.why) == ("thawing", "a new shard was started again during the switch")
    handoff = step(step(handoff, "thawed", 3.0, LIMITS), "switch", 8.0, LIMITS)
    assert step(handoff, "took", 9.0, LIMITS).state == "taken", "the next switch counts"


def test_it_is_within_one_resource():
    other = Copy(Partition(Resource("", "v1", "nodes")), ShardId("b"))
    for leaving, arriving in (((OLD,), (other,)), ((), (NEW,)), ((OLD,), ())):
        with pytest.raises(ValueError, match="not a hand-off within one resource"):
            begin(1, leaving, arriving, reason="", now=0, limits=LIMITS)


def test_it_says_what_it_does_and_how_long_it_took():
    parts = tuple(
        Copy(Partition(PODS, OneNamespace(name)), ShardId(shard)) for name, shard in (("x", "a"), ("y", "b"))
    )
    handoff = begin(7, (OLD,), parts, reason="hot", now=10.0, limits=LIMITS)
    assert str(handoff) == "v1/pods@a -> v1/pods[x]@a, v1/pods[y]@b"
    for event, now in (
        ("arrived", 12.0),
        ("switch", 12.5),
        ("took", 13.0),
        ("publish", 13.0),
        ("timed_out", 15.0),
    ):
        handoff = step(handoff, event, now, LIMITS)
    handoff = step(handoff, "cleared", 15.5, LIMITS)
    assert handoff.state == "done"
    assert dict(handoff.spent) == {
        "receiving": 2.0,
        "complete": 0.5,
        "switching": 0.5,
        "taken": 0.0,
        "published": 2.0,
        "releasing": 0.5,
    }


def test_a_lost_source_leaves_little_time_and_never_more():
    handoff = step(fresh(), "giver_lost", 10.0, LIMITS)
    assert (handoff.state, handoff.until) == ("receiving", 13.0)
    assert step(handoff, "giver_lost", 12.0, LIMITS).until == 13.0
    assert step(handoff, "arrived", 12.0, LIMITS).until == 60.0, "who is complete needs no source"


def test_a_switch_is_tried_again_after_a_pause_and_only_so_often():
    handoff = step(fresh(), "arrived", 1.0, LIMITS)
    handoff = step(handoff, "switch", 1.0, LIMITS)
    handoff = step(handoff, "failed", 2.0, LIMITS, "shard b is away")
    assert (handoff.state, handoff.not_before, handoff.why) == ("thawing", 7.0, "shard b is away")
    handoff = step(step(handoff, "thawed", 3.0, LIMITS), "switch", 7.0, LIMITS)
    handoff = step(handoff, "failed", 8.0, LIMITS)
    assert (handoff.state, handoff.cause, handoff.attempts) == ("abandoning", "failed", 2)


# -- explored ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """One hand-off and what is true of its copies."""

    handoff: object
    now: int = 0
    old_complete: bool = True
    old_lives: bool = True
    new_there: bool = False
    new_complete: bool = False
    new_lives: bool = True
    new_knows: bool = False
    """It was told how far the old one was, since when that has stood still."""
    frozen: bool = False
    lost_by_failure: bool = False
    """The routed copy was complete, and a failure took it."""

    def key(self):
        handoff = self.handoff
        flags = replace(self, handoff=None, now=0)
        # Times only matter by what is left of them.
        left = (
            handoff.until - self.now,
            handoff.give_up_at - self.now,
            max(handoff.not_before - self.now, 0),
        )
        return (
            handoff.state,
            handoff.shaken,
            handoff.attempts,
            tuple(min(max(one, -1), 60) for one in left),
            flags,
        )

    @property
    def routed_complete(self):
        return (
            (self.new_complete and self.new_lives)
            if self.handoff.published
            else (self.old_complete and self.old_lives)
        )


SHORT = Limits(transfer_s=6, lost_source_s=1, switch_s=2, grace_s=1, pause_s=1, switches=2)


def told(world, event, why=""):
    return replace(world, handoff=step(world.handoff, event, world.now, SHORT, why))


def seen(world):
    """What the coordinator sees of the copies, as `HandOffs.notice` raises it, one pass of it."""
    events = []
    if not world.new_lives:
        events.append("taker_gone")
    events.append("arrived" if world.new_complete and world.new_lives else "lost")
    if not (world.old_complete and world.old_lives):
        events.append("giver_lost")
    thawed = not world.frozen or not world.old_lives
    if thawed:
        events.append("thawed")
    gone = not world.old_complete if world.handoff.published else not world.new_there
    if (world.handoff.published or thawed) and gone:
        events.append("cleared")
    for event in events:
        if world.handoff.state not in OVER:
            world = told(world, event)
    if world.handoff.state not in OVER and world.now >= world.handoff.until:
        world = told(world, "timed_out")
    return carried_out(world)


def carried_out(world):
    """What the coordinator tells shards because of the state."""
    handoff = world.handoff
    if handoff.keeps_arriving and not handoff.published and world.new_lives:
        world = replace(world, new_there=True)
    if not handoff.keeps_arriving:
        assert not handoff.published, "new copies are given up only if they were never published"
        world = replace(world, new_there=False, new_complete=False, new_knows=False)
    if not handoff.keeps_leaving:
        assert handoff.published, "old copies are given up only after publication"
        assert "published" in dict(handoff.spent), "... and after a grace period"
        world = replace(world, old_complete=False)
    if not handoff.frozen and not handoff.published:
        world = replace(world, frozen=False)  # adopted again
    return world


def moves(world):
    """Every world one thing further."""
    handoff = world.handoff
    yield "time", replace(world, now=world.now + 1)
    yield "pass", seen(world)
    if world.old_lives:
        lost = not handoff.published and world.routed_complete
        yield (
            "old shard restarts",
            replace(world, old_complete=False, frozen=False, lost_by_failure=world.lost_by_failure or lost),
        )
        yield (
            "old shard dies",
            replace(
                world, old_lives=False, old_complete=False, lost_by_failure=world.lost_by_failure or lost
            ),
        )
    if world.new_lives:
        lost = handoff.published and world.routed_complete
        yield (
            "new shard dies",
            replace(
                world,
                new_lives=False,
                new_there=False,
                new_complete=False,
                new_knows=False,
                lost_by_failure=world.lost_by_failure or lost,
            ),
        )
        if world.new_there:
            yield (
                "new shard restarts",
                replace(
                    world,
                    new_there=False,
                    new_complete=False,
                    new_knows=False,
                    lost_by_failure=world.lost_by_failure or lost,
                ),
            )
        if world.new_there and not world.new_complete and world.old_complete and world.old_lives:
            yield "all is received", replace(world, new_complete=True)
        if world.new_there and not world.new_complete:
            yield "receiving fails", carried_out(told(world, "stranded", "the source broke off"))
    yield "withdrawn", carried_out(told(world, "withdrawn"))
    if handoff.state == "complete" and world.now >= handoff.not_before:
        yield "switch", told(world, "switch")
    if handoff.state == "switching":
        yield "the old one stands still", replace(world, frozen=True)
        if world.new_complete and (world.frozen or not world.old_complete):
            knows = not handoff.shaken  # NB: it is seen that the shard was started again, then and later
            yield "took", told(replace(world, new_knows=knows), "took")
        yield "failed", carried_out(told(world, "failed", "no answer"))
    else:
        yield "a late outcome", told(world, "took")
        yield "a late failure", told(world, "failed")
    if handoff.state == "taken":
        # NB: the pass that publishes has just looked; what is not complete any more has left this state.
        ahead = seen(world)
        if ahead.handoff.state == "taken":
            assert ahead.new_complete, "nothing is published before it is complete"
            assert ahead.new_knows, "... and knows what was shown"
            assert ahead.frozen or not ahead.old_complete, (
                "... while nothing new is shown by the old one's leave"
            )
            yield "publish", told(ahead, "publish")


def explore():
    start = World(begin(1, (OLD,), (NEW,), reason="", now=0, limits=SHORT))
    reached, todo, edges = {start.key()}, [start], 0
    while todo:
        world = todo.pop()
        for name, after in moves(world):
            edges += 1
            assert after.routed_complete or after.lost_by_failure, (
                f"a complete copy is routed, after {name}: {after}"
            )
            assert after.handoff.attempts <= SHORT.switches
            if after.key() not in reached:
                reached.add(after.key())
                todo.append(after)
    return reached, edges


def test_whatever_happens_a_copy_that_is_complete_stays_routed():
    reached, edges = explore()
    assert {state for state, *_ in reached} == set(STATES), "every state is reached"
    assert edges > 5000


def test_it_ends_by_itself_whatever_it_waits_for():
    """Left alone from any state, with nothing but time passing and failing switches, it is over soon."""
    for state in STATES:
        handoff = msgspec.structs.replace(fresh(), state=state, until=5.0)
        now = 0.0
        while handoff.state not in OVER:
            now += 1.0
            assert now < 300, f"from {state} it never ends: {handoff}"
            if handoff.state == "complete" and now >= handoff.not_before:
                handoff = step(handoff, "switch", now, LIMITS)
            elif handoff.state == "taken":
                handoff = step(handoff, "publish", now, LIMITS)
            elif now >= handoff.until:
                handoff = step(handoff, "timed_out", now, LIMITS)
