"""Places for requests and watches, and turns at lists: who gets one, who is told to come back, what is left behind."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import run_virtual

from shoal.cluster.gateway.protection import Overloaded, Protection
from shoal.cluster.gateway.turns import Turns
from shoal.cluster.settings import LimitSettings


def protection(**limits):
    refused = []
    return Protection(LimitSettings(**limits), refused=refused.append), refused


def test_requests_are_limited_in_total():
    guard, refused = protection(requests=2)
    first, second = guard.enter(), guard.enter()
    with pytest.raises(Overloaded) as caught:
        guard.enter()
    assert caught.value.limit == "requests"
    assert caught.value.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Too many requests, please try again later.",
        "reason": "TooManyRequests",
        "details": {"retryAfterSeconds": 1},
        "code": 429,
    }
    assert refused == ["requests"]
    first.leave()
    first.leave()
    guard.enter().leave()
    second.leave()
    assert guard.requests == 0


def test_what_is_not_counted_is_let_in_all_the_same():
    guard, _ = protection(requests=1)
    place = guard.enter()
    guard.enter(counted=False).leave()
    place.leave()
    assert guard.requests == 0


def test_one_user_does_not_take_the_places_of_others():
    guard, refused = protection(requests=10, requests_per_user=2)
    places = [guard.enter() for _ in range(2)]
    for place in places:
        place.belongs_to("greedy")
    third = guard.enter()
    with pytest.raises(Overloaded):
        third.belongs_to("greedy")
    third.leave()
    other = guard.enter()
    other.belongs_to("modest")
    assert refused == ["requests_per_user"]
    for place in (*places, other):
        place.leave()
    assert (guard.requests, guard.users) == (0, 0)


def test_a_watch_gives_its_request_place_back():
    guard, refused = protection(requests=1, watches=2, watches_per_user=1)
    watch = guard.enter()
    watch.belongs_to("a")
    watch.becomes_watch()
    assert (guard.requests, guard.watches) == (0, 1)
    more = guard.enter()
    more.belongs_to("a")
    with pytest.raises(Overloaded):
        more.becomes_watch()
    assert (guard.requests, guard.watches) == (1, 1)
    more.leave()
    for user, fits in (("b", True), ("c", False)):
        place = guard.enter()
        place.belongs_to(user)
        if fits:
            place.becomes_watch()
        else:
            with pytest.raises(Overloaded):
                place.becomes_watch()
            place.leave()
    assert refused == ["watches_per_user", "watches"]
    watch.leave()
    assert (guard.requests, guard.watches) == (0, 1)


@given(
    st.lists(st.tuples(st.sampled_from(["enter", "own", "watch", "leave"]), st.integers(0, 4)), max_size=60)
)
def test_nothing_is_left_behind_whatever_happens(steps):
    guard, _ = protection(requests=4, requests_per_user=2, watches=3, watches_per_user=2)
    places, owned = [], set()
    for step, at in steps:
        try:
            match step:
                case "enter":
                    places.append(guard.enter())
                case "own" if at < len(places) and at not in owned:
                    places[at].belongs_to("ab"[at % 2])
                    owned.add(at)
                case "watch" if at in owned and places[at]._kind == "request":
                    places[at].becomes_watch()
                case "leave" if at < len(places):
                    places[at].leave()
                    owned.discard(at)
                    owned.update({-1})
                    places[at] = guard.enter()
        except Overloaded:
            pass
        assert 0 <= guard.requests <= 4
        assert 0 <= guard.watches <= 3
    for place in places:
        place.leave()
    assert (guard.requests, guard.watches, guard.users) == (0, 0, 0)


def test_lists_take_turns_and_give_up_after_ten_seconds():
    async def main():
        guard, refused = protection(lists=2, lists_per_user=1)
        turns = Turns(guard)
        loop = asyncio.get_running_loop()

        async def listing(user, seconds):
            async with turns.turn(user):
                await asyncio.sleep(seconds)
                return loop.time()

        async with asyncio.TaskGroup() as group:
            first = group.create_task(listing("a", 5))
            again = group.create_task(listing("a", 1))
            other = group.create_task(listing("b", 1))
        assert (first.result(), again.result(), other.result()) == (5, 6, 1)
        held = [asyncio.create_task(listing(user, 100)) for user in "ab"]
        await asyncio.sleep(0)
        for user, limit in (("a", "lists_per_user"), ("c", "lists")):
            began = loop.time()
            with pytest.raises(Overloaded):
                await listing(user, 1)
            assert loop.time() - began == 10
            assert refused.pop() == limit
        assert turns.taken == 2
        for task in held:
            task.cancel()
        await asyncio.wait(held)
        assert await listing("c", 0) == loop.time()
        assert (turns.taken, turns._own) == (0, {})

    run_virtual(main())
