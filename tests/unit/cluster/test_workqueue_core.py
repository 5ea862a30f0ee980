"""The queue without waiting: client-go's cases, priorities, turns, delays, figures."""

from __future__ import annotations

import math

import pytest

from shoal.cluster.workqueue.core import QueueCore
from shoal.cluster.workqueue.delays import Delayed, Delays
from shoal.cluster.workqueue.lanes import Lanes, Waiting
from shoal.cluster.workqueue.limiters import ExponentialLimiter


def core(**more: object) -> QueueCore[str]:
    return QueueCore(ExponentialLimiter(), **more)


def taken(queue: QueueCore[str], now: float = 0.0) -> list[str]:
    """Everything that waits, in order, each done at once."""
    found = []
    while (entry := queue.get(now)) is not None:
        found.append(entry.item)
        queue.done(entry.item, now)
    return found


# -- as client-go's queue_test.go -----------------------------------------------------------------------------


def test_items_come_as_they_were_added() -> None:
    queue = core()
    assert [queue.add(item, 0.0) for item in ("b", "a", "c")] == [True, True, True]
    assert len(queue) == 3
    assert taken(queue) == ["b", "a", "c"]
    assert queue.idle


def test_an_item_that_waits_is_added_once() -> None:
    queue = core()
    assert queue.add("a", 0.0)
    assert not queue.add("a", 0.0)
    assert len(queue) == 1
    assert taken(queue) == ["a"]


def test_an_item_added_while_it_is_worked_on_comes_again_once_it_is_done() -> None:
    queue = core()
    queue.add("a", 0.0)
    queue.get(0.0)
    assert not queue.add("a", 0.0)
    assert not queue.add("a", 0.0)
    assert len(queue) == 0
    assert queue.get(0.0) is None
    assert not queue.idle
    assert queue.done("a", 0.0)
    assert len(queue) == 1
    assert taken(queue) == ["a"]


def test_an_item_that_comes_again_stands_behind_what_was_added_meanwhile() -> None:
    queue = core()
    queue.add("a", 0.0)
    queue.get(0.0)
    queue.add("a", 0.0)
    queue.add("b", 0.0)
    queue.done("a", 0.0)
    assert taken(queue) == ["b", "a"]


def test_an_item_can_be_added_again_after_it_is_done() -> None:
    queue = core()
    queue.add("a", 0.0)
    assert taken(queue) == ["a"]
    assert queue.add("a", 0.0)
    assert taken(queue) == ["a"]


def test_a_queue_that_is_shut_down_ignores_adds_and_gives_what_waits() -> None:
    queue = core()
    queue.add("a", 0.0)
    queue.add("b", 0.0)
    queue.get(0.0)
    queue.add("a", 0.0)
    queue.add_after("later", 1.0, 0.0)
    queue.shut_down()
    assert not queue.add("c", 0.0)
    assert not queue.add_after("c", 0.0, 0.0)
    assert not queue.add_rate_limited("c", 0.0)
    assert queue.requeues("c") == 0
    assert queue.next_ready_at is None
    assert queue.done("a", 0.0), "it was added before the end"
    assert taken(queue) == ["b", "a"]
    assert queue.idle


def test_done_without_get_is_an_error_and_changes_nothing() -> None:
    queue = core()
    queue.add("a", 0.0)
    with pytest.raises(ValueError, match="'a' is not being worked on"):
        queue.done("a", 0.0)
    assert taken(queue) == ["a"]
    with pytest.raises(ValueError, match="done\\(\\) has to follow get\\(\\), once"):
        queue.done("a", 0.0)


# -- priorities, as controller-runtime's priorityqueue --------------------------------------------------------


def test_the_highest_priority_comes_first_and_equal_ones_as_they_came() -> None:
    queue = core()
    for item, priority in (("a", 0), ("b", -100), ("c", 5), ("d", 0), ("e", 5)):
        queue.add(item, 0.0, priority)
    assert queue.statistics(0.0).depth == {-100: 1, 0: 2, 5: 2}
    assert taken(queue) == ["c", "e", "a", "d", "b"]


def test_a_higher_priority_lifts_and_a_lower_one_does_not_lower() -> None:
    queue = core()
    for item in ("a", "b", "c"):
        queue.add(item, 0.0)
    assert not queue.add("c", 0.0, 1)
    assert not queue.add("c", 0.0, -1)
    assert queue.statistics(0.0).depth == {0: 2, 1: 1}
    assert len(queue) == 3
    assert taken(queue) == ["c", "a", "b"]


def test_a_lifted_item_keeps_its_place_in_the_order_of_arrival() -> None:
    queue = core()
    queue.add("old", 0.0)
    queue.add("first of the high", 0.0, 1)
    queue.add("older than the next", 0.0)
    queue.add("last of the high", 0.0, 1)
    queue.add("older than the next", 0.0, 1)
    queue.add("old", 0.0, 1)
    assert taken(queue) == ["old", "first of the high", "older than the next", "last of the high"]


def test_an_item_that_is_worked_on_comes_again_with_the_highest_priority_it_was_given() -> None:
    queue = core()
    queue.add("a", 0.0, 9)
    queue.get(0.0)
    queue.add("a", 0.0, -1)
    queue.add("a", 0.0, 3)
    queue.add("a", 0.0, 2)
    queue.add("b", 0.0, 2)
    queue.done("a", 0.0)
    entry = queue.get(0.0)
    assert entry is not None
    assert (entry.item, entry.priority) == ("a", 3)


def test_lifting_again_and_again_leaves_nothing_behind() -> None:
    lanes: Lanes[str] = Lanes()
    starved = Waiting("starved", None, 0, 0.0)
    lanes.push(starved)
    for _ in range(1000):
        entry = Waiting("lifted", None, 0, 0.0)
        lanes.push(entry)
        lanes.lift(lanes.lift(entry, 1), 2)
        popped = lanes.pop()
        assert popped is not None
        assert popped.item == "lifted"
    line = lanes._lanes[0].lines[None]
    assert len(line.arrived) < 50
    assert list(lanes._lanes) == [0]
    assert len(lanes) == 1
    assert lanes.pop() is starved


# -- turns ----------------------------------------------------------------------------------------------------


def namespace(key: str) -> str:
    return key.partition("/")[0]


def test_namespaces_take_turns_and_a_busy_one_delays_nobody() -> None:
    queue = core(fair_by=namespace)
    for n in range(4):
        queue.add(f"busy/{n}", 0.0)
    queue.add("calm/0", 0.0)
    queue.add("calm/1", 0.0)
    queue.add("new/0", 0.0)
    assert taken(queue) == ["busy/0", "calm/0", "new/0", "busy/1", "calm/1", "busy/2", "busy/3"]


def test_priorities_come_before_turns() -> None:
    queue = core(fair_by=namespace)
    for item in ("a/0", "a/1", "b/0"):
        queue.add(item, 0.0)
    for item in ("a/2", "a/3", "b/1"):
        queue.add(item, 0.0, 1)
    assert taken(queue) == ["a/2", "b/1", "a/3", "a/0", "b/0", "a/1"]


def test_a_namespace_whose_items_were_all_lifted_has_one_turn_when_it_comes_back() -> None:
    queue = core(fair_by=namespace)
    for item in ("a/0", "b/0", "b/1", "b/2"):
        queue.add(item, 0.0)
    queue.add("a/0", 0.0, 1)
    queue.add("a/1", 0.0)
    queue.add("a/2", 0.0)
    assert taken(queue) == ["a/0", "a/1", "b/0", "a/2", "b/1", "b/2"]


def test_a_grouping_that_fails_adds_nothing() -> None:
    queue = core(fair_by=lambda item: 1 / len(item))
    with pytest.raises(ZeroDivisionError):
        queue.add("", 0.0)
    with pytest.raises(ZeroDivisionError):
        queue.add_after("", 1.0, 0.0)
    assert queue.idle
    assert queue.next_ready_at is None
    assert queue.statistics(0.0).retries == 0


# -- delays, as client-go's delaying_queue_test.go ------------------------------------------------------------


def test_a_delayed_item_comes_at_its_time_and_not_before() -> None:
    queue = core()
    queue.add_after("a", 0.05, 10.0)
    assert queue.next_ready_at == pytest.approx(10.05)
    assert queue.advance(10.049) == 0
    assert len(queue) == 0
    assert queue.advance(10.05) == 1
    assert taken(queue) == ["a"]
    assert queue.next_ready_at is None


def test_the_earlier_of_two_times_counts() -> None:
    queue = core()
    queue.add_after("a", 5.0, 0.0)
    queue.add_after("a", 2.0, 0.0)
    queue.add_after("a", 9.0, 0.0)
    assert queue.next_ready_at == 2.0
    assert queue.advance(2.0) == 1
    assert taken(queue) == ["a"]
    assert queue.next_ready_at is None
    assert queue.advance(100.0) == 0


def test_an_add_at_once_does_not_take_the_delayed_one_away() -> None:
    queue = core()
    queue.add_after("a", 5.0, 0.0)
    queue.add("a", 0.0)
    assert taken(queue) == ["a"]
    assert queue.advance(5.0) == 1


def test_a_delayed_item_that_waits_already_by_then_is_the_same_add() -> None:
    queue = core()
    queue.add_after("a", 5.0, 0.0, 3)
    queue.add("b", 0.0)
    queue.add("a", 0.0)
    assert queue.advance(5.0) == 0
    assert taken(queue) == ["a", "b"], "but it was lifted"


def test_no_delay_is_an_add_at_once() -> None:
    queue = core()
    assert queue.add_after("a", 0.0, 0.0)
    assert queue.add_after("b", -1.0, 0.0)
    assert taken(queue) == ["a", "b"]


@pytest.mark.parametrize("delay", [math.nan, math.inf, -math.inf])
def test_a_delay_that_is_no_number_is_refused(delay: float) -> None:
    queue = core()
    with pytest.raises(ValueError, match="'a' cannot be added after (nan|-?inf) s"):
        queue.add_after("a", delay, 0.0)
    assert queue.idle


def test_items_that_become_ready_together_come_in_the_order_of_their_times() -> None:
    queue = core()
    for item, delay in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("a too", 1.0)):
        queue.add_after(item, delay, 0.0)
    assert queue.advance(60.0) == 4
    assert taken(queue) == ["a", "a too", "b", "c"]


def test_ever_earlier_times_leave_nothing_behind() -> None:
    delays: Delays[str] = Delays()
    for n in range(10_000):
        delays.add(Delayed("a", None, 0, 10_000.0 - n))
    assert len(delays) == 1
    assert len(delays._heap) < 50
    assert [one.ready_at for one in delays.due(1e9)] == [1.0]
    assert delays.next_at is None


def test_a_discarded_delay_brings_nothing_and_leaves_nothing_behind() -> None:
    queue = core()
    queue.add_after("a", 5.0, 0.0)
    queue.add_after("b", 6.0, 0.0)
    queue.discard_delayed("a")
    queue.discard_delayed("unknown")
    assert queue.next_ready_at == 6.0
    assert queue.statistics(0.0).delayed == 1
    assert queue.advance(10.0) == 1
    assert taken(queue) == ["b"]
    queue.add_after("a", 5.0, 10.0)
    assert queue.advance(15.0) == 1
    assert taken(queue) == ["a"]
    delays: Delays[int] = Delays()
    for item in range(1000):
        delays.add(Delayed(item, None, 0, 1.0))
        delays.discard(item)
    assert len(delays) == 0
    assert len(delays._heap) < 20


def test_a_delay_that_was_over_during_the_round_is_discarded_too() -> None:
    queue = core()
    queue.add("a", 0.0)
    queue.add_after("a", 5.0, 0.0)
    queue.get(0.0)
    assert queue.advance(5.0) == 0
    queue.discard_delayed("a")
    assert not queue.done("a", 6.0)
    assert queue.idle


@pytest.mark.parametrize("first", ["add", "delay"])
def test_what_was_added_at_once_stays_when_delays_are_discarded(first: str) -> None:
    queue = core()
    queue.add("a", 0.0)
    queue.add_after("a", 5.0, 0.0)
    queue.add_after("b", 5.0, 0.0)
    queue.get(0.0)
    if first == "add":
        queue.add("a", 4.0)
    queue.advance(5.0)
    if first == "delay":
        queue.add("a", 6.0)
    queue.discard_delayed("a")
    queue.discard_delayed("b")
    assert queue.done("a", 7.0)
    assert taken(queue) == ["b", "a"]


def test_rate_limited_adds_wait_as_long_as_the_limiter_says() -> None:
    queue: QueueCore[str] = QueueCore(ExponentialLimiter(0.001, 1.0))
    times = []
    for _ in range(3):
        queue.add_rate_limited("a", 0.0)
        times.append(queue.next_ready_at)
        queue.advance(1.0)
        assert taken(queue) == ["a"]
    assert times == [0.001, 0.002, 0.004]
    assert queue.requeues("a") == 3
    queue.forget("a")
    assert queue.requeues("a") == 0


# -- figures, as client-go's metrics_test.go ------------------------------------------------------------------


def test_the_figures_are_those_of_client_go() -> None:
    queue = core()
    queue.add("a", 0.0)
    queue.add("a", 1.0)
    first = queue.statistics(1.0)
    assert (first.adds, first.retries, first.depth, first.processing) == (1, 0, {0: 1}, 0)
    queue.get(5.0)
    queue.add("a", 6.0, 2)
    queue.add("b", 7.0)
    during = queue.statistics(8.0)
    assert during.adds == 3, "an add of what is worked on counts"
    assert during.depth == {0: 1, 2: 1}, "so does it as depth"
    assert (during.processing, during.unfinished_work_s, during.longest_running_s) == (1, 3.0, 3.0)
    assert (during.queue_s.count, during.queue_s.sum_s) == (1, 5.0)
    assert during.work_s.count == 0
    queue.done("a", 15.0)
    queue.get(16.0)
    queue.get(17.0)
    queue.add_after("c", 5.0, 17.0)
    queue.add_after("d", 0.0, 17.0)
    after = queue.statistics(20.0)
    assert (after.queue_s.count, after.queue_s.sum_s) == (3, 5.0 + 10.0 + 10.0)
    assert (after.work_s.count, after.work_s.sum_s) == (1, 10.0)
    assert (after.processing, after.unfinished_work_s, after.longest_running_s) == (2, 4.0 + 3.0, 4.0)
    assert (after.retries, after.delayed, after.adds) == (2, 1, 4)


def test_seconds_are_counted_in_the_bucket_whose_bound_they_do_not_exceed() -> None:
    queue = core()
    for waited in (0.0, 0.1, 0.10001, 1000.0, 5000.0):
        queue.add("a", 0.0)
        queue.get(waited)
        queue.done("a", waited)
    cumulative = dict(queue.statistics(0.0).queue_s.cumulative())
    assert next(iter(cumulative)) == "1e-08"
    assert (cumulative["1e-08"], cumulative["0.1"], cumulative["1.0"], cumulative["1000.0"]) == (1, 2, 3, 4)
    assert cumulative["+Inf"] == 5
