"""What may be shown of several partitions, and when."""

from dataclasses import dataclass

from shoal.cluster.watching.lanes import Clearance, Lane


@dataclass(frozen=True)
class Event:
    version: int
    name: str = ""


def lane(**fed):
    clearances = {name: Clearance(version) for name, version in fed.items()}
    return Lane(clearances), clearances


def feed(lane, clearance, *versions, frontier=None):
    lane.offer([Event(version) for version in versions])
    clearance.told(frontier if frontier is not None else versions[-1])


def released(lane):
    return [event.version for event in lane.release()]


def test_one_partition_passes_straight_through():
    one, parts = lane(a=5)
    feed(one, parts["a"], 6, 7, 7)
    assert released(one) == [6, 7, 7]
    assert one.shown == 7
    assert not one


def test_events_wait_for_the_other_partitions_and_come_in_order():
    two, parts = lane(a=5, b=5)
    feed(two, parts["a"], 6, 9)
    assert released(two) == []
    assert two.wanted == 9
    feed(two, parts["b"], 7, frontier=8)
    assert released(two) == [6, 7]
    assert two.shown == 8
    assert two.oldest_pending == 9
    parts["b"].told(9)
    assert released(two) == [9]


def test_an_acknowledgement_counts_once_the_feed_has_told_what_came_before_it():
    two, parts = lane(a=5, b=5)
    feed(two, parts["a"], 10)
    parts["b"].acknowledged(10, 7)
    assert parts["b"].promised == 10
    assert released(two) == []
    feed(two, parts["b"], 7)
    assert released(two) == [7, 10]
    assert parts["b"].cleared == 10


def test_what_comes_late_is_given_out_at_once():
    two, parts = lane(a=5, b=5)
    feed(two, parts["a"], 10)
    parts["b"].acknowledged(10, 5)
    assert released(two) == [10]
    feed(two, parts["b"], 8)
    assert released(two) == [8]
    assert two.shown == 10


def test_a_feed_that_was_opened_anew_has_to_acknowledge_again_what_was_shown():
    two, parts = lane(a=5, b=5)
    feed(two, parts["a"], 10)
    parts["b"].acknowledged(10, 5)
    two.release()
    parts["b"].reopened()
    assert parts["b"].cleared == 5
    assert two.wanted == 10
    assert two.shown == 10
    feed(two, parts["a"], 11)
    assert released(two) == []
    parts["b"].acknowledged(11, 5)
    assert released(two) == [11]


def test_who_watches_one_partition_alone_is_not_shown_what_others_overtook_it_with():
    alone, parts = lane(b=5)
    parts["b"].acknowledged(10, 5)
    assert alone.release() == []
    assert alone.shown == 5


def test_equal_versions_keep_their_order():
    two, parts = lane(a=5, b=5)
    two.offer([Event(7, "first"), Event(7, "second"), Event(7, "third")])
    parts["a"].told(7)
    parts["b"].told(7)
    assert [event.name for event in two.release()] == ["first", "second", "third"]
