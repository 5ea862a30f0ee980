"""Several partitions made one, case by case: at which version, with which floors, and what is late."""

from __future__ import annotations

import pytest
from support.moved_stores import (
    CARVED,
    REST,
    SETTLING_S,
    Clock,
    apply,
    changes,
    listed,
    moved,
    new_store,
    replay,
    sent,
    state,
    two_parts,
    window,
)

from shoal.shards.model.errors import Expired
from shoal.shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    HashRange,
)
from shoal.shards.model.versions import Version
from shoal.shards.store.transfer import extract, join


def test_parts_are_joined_at_the_oldest_frontier() -> None:
    carved, rest = two_parts()
    apply(carved, "a/p", 11)
    apply(rest, "b/p", 12)
    apply(rest, "b/q", 14)
    rest.overtake(Version(30))
    store = moved([extract(carved, CARVED), extract(rest, REST)], Clock(), EVERYTHING)
    assert store.frontier == 11
    assert set(state(store)) == {"a/p", "a/q", "b/p"}
    assert replay(store, 10) == [11]
    assert store.overtaken == 30
    assert store.divided_until == 30
    apply(store, "b/p", 12)
    apply(store, "b/q", 14)
    assert window(store, 30) == [12, 14], "they come again, and late"
    assert set(state(store)) == set(state(carved)) | set(state(rest))


def test_who_was_shown_several_partitions_is_told_newest_states_by_the_one_they_became() -> None:
    carved, rest = two_parts()
    for version in (11, 12, 13):
        apply(carved, "a/p", version)
    rest.proven(Version(12))
    store = moved([extract(carved, CARVED), extract(rest, REST)], Clock(), EVERYTHING)
    apply(store, "a/p", 13)
    store.take_over(Version(13), Version(13))
    apply(store, "a/p", 14)
    apply(store, "a/p", 15)
    assert store.divided_until == 13
    assert [change[2] for change in changes(store, 12, exact=True)] == [15]
    assert [change[2] for change in changes(store, 13, exact=True)] == [15]
    assert [change[2] for change in changes(store, 14, exact=True)] == [15]
    store.take_over(Version(0), Version(14))
    assert store.divided_until == 14
    assert [change[2] for change in changes(store, 10, exact=False)] == [15]


def test_one_that_was_never_divided_is_told_event_by_event_wherever_it_is() -> None:
    source = listed(new_store(Clock(), settling_s=0.0), 10, "p")
    store = moved([extract(source, EVERYTHING)], Clock(), EVERYTHING)
    apply(store, "p", 11)
    apply(store, "p", 12)
    store.take_over(Version(0), Version(12))
    assert store.divided_until == 0
    assert [change[2] for change in changes(store, 10, exact=True)] == [11, 12]


def test_a_history_that_does_not_reach_back_cannot_be_joined() -> None:
    carved, rest = two_parts()
    for version in range(11, 60):
        apply(carved, "a/p", version)
    carved.expire()
    assert carved.oldest_version > 10
    with pytest.raises(Expired, match=r"v1/pods\[a\] is at 59 and cannot be taken back to 10"):
        join([extract(carved, CARVED), extract(rest, REST)], EVERYTHING)
    rest.proven(Version(59))
    store = moved([extract(carved, CARVED), extract(rest, REST)], Clock(), EVERYTHING)
    assert store.oldest_version == carved.oldest_version


def test_of_floors_the_highest_counts() -> None:
    clock = Clock()
    carved = listed(new_store(clock, CARVED, settling_s=0.0), 10, "a/p")
    rest = listed(new_store(clock, REST, settling_s=0.0), 15, "b/p")
    carved.take_over(Version(12))
    carved.overtake(Version(18))
    apply(carved, "a/p", 16)
    clock.now += 100.0
    for store in (carved, rest):
        store.advance(Version(20))
        store.expire()
    listed(rest, 25, "b/p")
    carved.advance(Version(30))
    for order in ((carved, rest), (rest, carved)):
        store = moved([extract(part, part.partition.cover) for part in order], Clock(), EVERYTHING)
        assert (store.frontier, store.oldest_version, store.shown_before) == (25, 16, 12)
        assert list(store._history._gaps) == [(20, 25)]
        with pytest.raises(Expired):
            window(store, 18)
        assert window(store, 19) == []


def test_what_one_of_them_had_settled_on_is_late_up_to_that() -> None:
    clock = Clock()
    carved, rest = listed(new_store(clock, CARVED), 10), listed(new_store(clock, REST), 10)
    apply(carved, "a/p", 11)
    apply(rest, "b/p", 12)
    clock.now += SETTLING_S + 1
    for store, said in ((carved, 15), (rest, 14)):
        store.told(Version(said), store.moment)
        store.proven(Version(20))
    store = moved([extract(carved, CARVED), extract(rest, REST)], Clock(), EVERYTHING)
    assert window(store, 14) == [11, 12]
    assert window(store, 15) == [11, 12], "what is late for longer makes the rest so"
    assert window(store, 16) == []
    assert not store.settle_due


def test_what_one_of_them_has_not_settled_on_is_to_be_found_out() -> None:
    clock = Clock()
    carved, rest = listed(new_store(clock, CARVED), 10), listed(new_store(clock, REST), 10)
    apply(carved, "a/p", 11)
    apply(rest, "b/p", 12)
    clock.now += SETTLING_S + 1
    carved.told(Version(15), carved.moment)
    for store in (carved, rest):
        store.proven(Version(20))
    store = moved([extract(carved, CARVED), extract(rest, REST)], Clock(), EVERYTHING)
    assert store.settle_due
    assert window(store, 20) == [11, 12]
    store.told(Version(17), store.moment)
    assert not store.settle_due
    assert window(store, 17) == [11, 12]


def test_events_below_the_floor_of_all_that_have_to_be_repeated_do_not_take_it_down() -> None:
    clock = Clock()
    carved = listed(new_store(clock, CARVED, settling_s=0.0), 10)
    carved.overtake(Version(40))
    apply(carved, "a/p", 11)
    apply(carved, "a/p", 12)
    rest = listed(new_store(clock, REST, settling_s=0.0), 30)
    carved.proven(Version(30))
    here = Clock()
    store = moved([extract(carved, CARVED), extract(rest, REST)], here, EVERYTHING)
    assert store.oldest_version == 30
    assert window(store, 35) == [11, 12]
    here.now += 30.0
    apply(store, "b/p", 45)
    here.now += 31.0
    store.expire()
    assert store.oldest_version == 30
    assert replay(store, 30) == [45]
    with pytest.raises(Expired):
        window(store, 40)


def test_unsettled_events_below_the_floor_of_all_stay_until_they_are_settled() -> None:
    clock = Clock()
    carved = listed(new_store(clock, CARVED), 10)
    apply(carved, "a/p", 11)
    rest = listed(new_store(clock, REST), 30)
    carved.proven(Version(30))
    store = moved([extract(carved, CARVED), extract(rest, REST)], Clock(), EVERYTHING)
    store.expire()
    assert window(store, 30) == [11]


def test_other_cuts_are_made_of_what_is_in_both() -> None:
    carved, rest = two_parts()
    wanted = HashRange("uid", 0, HASH_END // 2)
    parts = [extract(carved, wanted), extract(rest, wanted)]
    assert [part.name for part in map(sent, parts)] == [
        "v1/pods[a][uid:0000000000000000-8000000000000000]",
        "v1/pods[!a][uid:0000000000000000-8000000000000000]",
    ]
    store = moved([sent(part) for part in parts], Clock(), wanted)
    other = HashRange("uid", HASH_END // 2, HASH_END)
    rest_of_it = moved([extract(carved, other), extract(rest, other)], Clock(), other)
    assert state(store) | state(rest_of_it) == state(carved) | state(rest)
    assert not state(store).keys() & state(rest_of_it).keys()
