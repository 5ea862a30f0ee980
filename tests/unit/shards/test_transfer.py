"""Moving a partition, case by case: what it becomes, what it shares, what is refused, what was shown meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.moved_stores import (
    CARVED,
    MIDDLE,
    REST,
    SETTLING_S,
    UIDS,
    Clock,
    apply,
    asked,
    changes,
    listed,
    moved,
    new_store,
    pod,
    replay,
    sent,
    state,
    thing,
    told,
    two_parts,
    window,
)
from support.observed import CONFIG_MAPS, query

from shoal.shards.model.errors import Broken, Expired, NotReady
from shoal.shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    HashRange,
    Partition,
)
from shoal.shards.model.refs import Key
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.objects import PartitionStore
from shoal.shards.store.transfer import Extract, extract, join

# -- what it becomes -----------------------------------------------------------------------------------------


def test_before_the_first_list_there_is_nothing_to_move() -> None:
    with pytest.raises(NotReady):
        extract(new_store(Clock()), EVERYTHING)


def test_an_extract_is_what_there_was_whatever_happens_afterwards() -> None:
    source = listed(new_store(Clock()), 10, "p")
    apply(source, "p", 11)
    taken = extract(source, EVERYTHING)
    apply(source, "q", 12)
    apply(source, "p", 13, deleted=True)
    store = moved([taken], Clock(), EVERYTHING)
    assert list(state(store)) == ["a/p"]
    assert store.frontier == 11
    assert replay(store, 10) == [11]
    assert list(state(source)) == ["a/q"]


def test_ages_travel_and_what_the_way_took_is_added() -> None:
    clock, here = Clock(1000.0), Clock(5.0)
    source = listed(new_store(clock, history_s=60.0, settling_s=0.0), 10)
    apply(source, "p", 11)
    clock.now += 40.0
    store = moved([sent(extract(source, EVERYTHING)).aged(2.0)], here, EVERYTHING, history_s=60.0)
    assert store.frontier_age_s == 42.0
    here.now += 17.0
    store.expire()
    assert replay(store, 10) == [11]
    here.now += 2.0
    store.expire()
    with pytest.raises(Expired):
        replay(store, 10)


def test_an_object_that_changed_its_side_of_a_cut_came_on_one_and_went_on_the_other() -> None:
    low, high = HashRange("uid", 0, MIDDLE), HashRange("uid", MIDDLE, HASH_END)
    left = next(uid for uid in UIDS if low.admits("a", uid))
    right = next(uid for uid in UIDS if high.admits("a", uid))
    source = listed(new_store(Clock()), 10)
    source.apply(pod(thing("p", uid=left), 11))
    source.apply(pod(thing("p", uid=right), 12))
    seen = {}
    for cover in (low, high):
        store = moved([extract(source, cover)], Clock(), cover)
        seen[cover.low] = [told(event) for event in store._history.replay(Version(10))]
    assert seen[low.low] == [(11, "a/p", None, (left, 11)), (12, "a/p", (left, 11), None)]
    assert seen[high.low] == [(12, "a/p", None, (right, 12))]


def test_what_came_late_on_one_side_of_a_cut_is_followed_by_what_came_after_it_on_the_other() -> None:
    """Or a client would be told that the object went, and not that it came back."""
    low, high = HashRange("uid", 0, MIDDLE), HashRange("uid", MIDDLE, HASH_END)
    left = next(uid for uid in UIDS if low.admits("a", uid))
    right = next(uid for uid in UIDS if high.admits("a", uid))
    clock = Clock()
    source = listed(new_store(clock), 10)
    source.apply(pod(thing("p", uid=left), 11))
    source.apply(pod(thing("p", uid=left), 12, deleted=True))
    clock.now += SETTLING_S + 1
    source.apply(pod(thing("p", uid=right), 13))
    source.told(Version(15), source.moment)
    assert window(source, 14) == [11, 12, 13]
    assert window(moved([extract(source, low)], Clock(), low), 14) == [11, 12]
    assert window(moved([extract(source, high)], Clock(), high), 14) == [13]
    assert window(moved([extract(source, high)], Clock(), high), 16) == []


def test_going_on_is_a_store_like_any_other() -> None:
    store = moved([extract(listed(new_store(Clock()), 10, "p", "q"), EVERYTHING)], Clock(), EVERYTHING)
    told_of: list[int] = []
    store.subscribe(lambda: told_of.append(store.frontier))
    apply(store, "p", 11)
    store.advance(Version(15))
    listed(store, 20, "q")
    assert told_of == [11, 15, 20]
    assert list(state(store)) == ["a/q"]
    assert list(state(store, 15)) == ["a/p", "a/q"]
    assert store.count(query(labels="app=web")) == 1


def test_who_waits_for_the_frontier_is_told_that_it_is_there() -> None:
    source = listed(new_store(Clock()), 10, "p")
    store = new_store(Clock())
    seen: list[tuple[int, int]] = []
    store.subscribe(lambda: seen.append((store.frontier, len(store))))
    store.restore(extract(source, EVERYTHING))
    assert seen == [(10, 1)]


def test_it_can_be_restored_in_steps_and_read_after_the_last() -> None:
    names = [f"p{number:05}" for number in range(2500)]
    source = listed(new_store(Clock(), history_bytes=1 << 20), 3000, *names)
    for number in range(1500):
        apply(source, names[number], 3001 + number)
    store = new_store(Clock(), history_bytes=1 << 20)
    steps = 0
    for _ in store.restoring(extract(source, EVERYTHING)):
        steps += 1
        with pytest.raises(NotReady):
            store.get(Key("a/p00000"))
    assert steps == 3
    assert state(store) == state(source)


# -- what was shown meanwhile --------------------------------------------------------------------------------


def taken_over(shown: int, *events: tuple[str, int], mark: int = 0) -> PartitionStore:
    """Moved at 10, since then told of some events, and then told what had been shown."""
    source = listed(new_store(Clock(), settling_s=0.0), 10, "p", "q")
    if mark:
        source.overtake(Version(mark))
    store = moved([extract(source, EVERYTHING)], Clock(), EVERYTHING)
    for name, version in events:
        apply(store, name, version)
    store.take_over(Version(shown))
    return store


def test_what_came_since_is_late_up_to_what_was_shown() -> None:
    store = taken_over(15, ("p", 11), ("q", 14), ("p", 16))
    assert window(store, 15) == [11, 14, 16]
    assert window(store, 16) == []
    assert window(store, 12) == [11, 14, 16]
    assert replay(store, 15) == [16]
    assert store.overtaken == 15
    apply(store, "q", 17)
    store.overtake(Version(20))
    apply(store, "p", 18)
    assert window(store, 15) == [11, 14, 16, 17, 18]
    assert window(store, 20) == [18]
    assert [late.event.version for late in store._history._late] == [11, 14, 18]


def test_what_was_late_already_is_late_for_longer() -> None:
    store = taken_over(15, ("p", 11), ("q", 14), mark=12)
    assert [(late.event.version, late.shown) for late in store._history._late] == [(11, 15), (14, 15)]
    assert window(store, 13) == [11, 14]
    store = taken_over(12, ("p", 11), ("q", 14), mark=20)
    assert [(late.event.version, late.shown) for late in store._history._late] == [(11, 20), (14, 20)]


def test_what_left_history_before_it_was_known_to_be_late_makes_versions_expire() -> None:
    source = listed(new_store(Clock(), settling_s=0.0), 10, "p")
    store = moved([extract(source, EVERYTHING)], Clock(), EVERYTHING, history_bytes=1)
    apply(store, "p", 11)
    store.take_over(Version(15))
    with pytest.raises(Expired):
        window(store, 15)
    assert window(store, 16) == []


def test_the_past_of_a_server_that_lost_its_own_is_no_past() -> None:
    store = taken_over(0)
    listed(store, 5, "p")
    store.take_over(Version(20))
    assert store.shown_before == 20
    assert store._history.travelled is False


def test_a_list_made_meanwhile_may_have_skipped_what_others_were_shown() -> None:
    """The shard before went on to 14 and showed it; an object may have met a selector at 13, and not in our list."""
    for listed_at, served, expired in ((20, 14, True), (20, 10, False), (11, 14, False)):
        source = listed(new_store(Clock(), settling_s=0.0), 10, "p")
        store = moved([extract(source, EVERYTHING)], Clock(), EVERYTHING)
        listed(store, listed_at, "p", "q")
        store.take_over(Version(9), Version(served))
        answer = asked(lambda store=store: changes(store, 10, exact=False))
        assert (answer == "Expired") == expired
        assert store.shown_before == (served + 1 if expired else 0)


def test_without_a_past_nobody_knows_what_was_missed() -> None:
    store = listed(new_store(Clock()), 10, "p")
    store.take_over(Version(20))
    with pytest.raises(Expired):
        changes(store, 15, exact=False)
    assert changes(store, 10, exact=True) == []
    store.take_over(Version(20), divided=True)
    with pytest.raises(Expired):
        changes(store, 10, exact=True)


# -- what is refused -----------------------------------------------------------------------------------------


def test_what_does_not_fit_together_is_refused() -> None:
    carved, rest = two_parts()
    maps = PartitionStore(
        Partition(CONFIG_MAPS.resource), CONFIG_MAPS, settings=StoreSettings(), clock=Clock()
    )
    maps.begin()
    maps.finish(Version(10))
    whole = extract(listed(new_store(Clock()), 10), EVERYTHING)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: join([], EVERYTHING), "nothing to make"),
        (lambda: join([extract(carved, CARVED)], EVERYTHING), r"v1/pods\[a\] is not all of v1/pods"),
        (lambda: join([extract(carved, CARVED), whole], EVERYTHING), r"v1/pods\[a\] and v1/pods overlap"),
        (lambda: join([extract(maps, EVERYTHING), whole], EVERYTHING), "is no part of v1/configmaps"),
        (lambda: rest.restore(extract(rest, REST)), "in use"),
        (lambda: new_store(Clock(), REST).restore(whole), r"v1/pods\[!a\] is not what v1/pods can become"),
        (lambda: new_store(Clock()).restore(extract(maps, EVERYTHING)), "is not what"),
    ]
    for act, text in cases:
        with pytest.raises(Broken, match=text):
            act()


def test_a_store_that_is_listing_cannot_become_another() -> None:
    whole = extract(listed(new_store(Clock()), 10), EVERYTHING)
    store = new_store(Clock())
    store.begin()
    with pytest.raises(Broken):
        store.restore(whole)


def test_an_extract_shows_no_bodies_where_it_is_printed() -> None:
    source = listed(new_store(Clock()), 10, "p")
    body: dict[str, Any] = json.loads(next(iter(state(source).values())))
    taken: Extract = extract(source, EVERYTHING)
    assert body["metadata"]["uid"] not in repr(taken)
