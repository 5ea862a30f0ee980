"""What happened since a version, with kube-apiserver's rules: against its recordings, and case by case."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.observed import CONFIG_MAPS, compact, observed, wire_lines, without_managed_fields

from shoal.shards.api.decode import Decoder
from shoal.shards.model.errors import BadRequest, Expired, NotReady, TooLargeVersion
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import Epoch, Partition, fnv1a64
from shoal.shards.model.queries import Change, ChangesPage, ChangesQuery
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.objects import PartitionStore


class Bench:
    """A store with a list of version 10 (unless another is named) and a clock."""

    def __init__(self, *listed: Observation, version: int = 10, **settings: Any) -> None:
        self.now = 0.0
        settings = {"settling_s": 0.0} | settings
        self.store = PartitionStore(
            Partition(CONFIG_MAPS.resource),
            CONFIG_MAPS,
            settings=StoreSettings(**settings),
            clock=lambda: self.now,
        )
        self.list(*listed, version=version)
        self.now += 1000.0

    def list(self, *listed: Observation, version: int) -> None:
        self.store.begin()
        for observation in listed:
            self.store.put(observation)
        self.store.finish(Version(version))

    def apply(self, name: str, version: int, **more: Any) -> None:
        self.store.apply(observed(name, version, **more))

    def pages(self, since: int, **wanted: Any) -> list[ChangesPage]:
        query = ChangesQuery(
            partition=self.store.partition.id, epoch=Epoch(1), since=Version(since), **wanted
        )
        return list(self.store.changes(query))

    def changes(self, since: int, **wanted: Any) -> list[Change]:
        pages = self.pages(since, **wanted)
        assert {page.frontier for page in pages} == {self.store.frontier}
        assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]
        return [change for page in pages for change in page.changes]

    def told(self, since: int, **wanted: Any) -> list[tuple[str, str, int]]:
        return [
            (change.type, change.key.rpartition("/")[2], change.version)
            for change in self.changes(since, **wanted)
        ]


def recorded(name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in wire_lines(name)]
    return [
        line | {"object": without_managed_fields(line["object"])}
        for line in lines
        if line["type"] != "BOOKMARK"
    ]


def replayed(**wanted: Any) -> list[dict[str, Any]]:
    bench = Bench(version=224)
    for item in Decoder(CONFIG_MAPS).lines(b"".join(line + b"\n" for line in wire_lines("watch-churn"))):
        if isinstance(item, Observation):
            bench.store.apply(item)
    changes = bench.changes(224, namespace="alpha", **wanted)
    for change in changes:
        assert str(change.version) == json.loads(change.body)["metadata"]["resourceVersion"]
    return [{"type": change.type, "object": json.loads(change.body)} for change in changes]


def test_a_replay_is_the_api_servers_own_stream() -> None:
    assert replayed() == recorded("watch-replay") == recorded("watch-churn")


def test_entering_and_leaving_a_selector_is_told_as_the_api_server_tells_it() -> None:
    assert replayed(labels="app=web") == recorded("watch-label-transition")


@pytest.mark.parametrize("exact", [True, False])
def test_pages_hold_what_fits_and_at_least_one_change(exact: bool) -> None:
    bench = Bench()
    for number in range(5):
        bench.apply(f"a{number}", 11 + number, text="x" * 100)
    assert [len(page.changes) for page in bench.pages(10, exact=exact, max_bytes=1)] == [1] * 5
    assert [len(page.changes) for page in bench.pages(10, exact=exact, max_bytes=400)] == [2, 2, 1]
    (page,) = bench.pages(15, exact=exact)
    assert (page.changes, page.more, page.frontier) == ([], False, 15)


def test_pages_are_of_the_moment_they_were_asked_for() -> None:
    bench = Bench(observed("a", 5))
    bench.apply("a", 11)
    query = ChangesQuery(partition=bench.store.partition.id, epoch=Epoch(1), since=Version(10), max_bytes=1)
    pages = bench.store.changes(query)
    bench.apply("a", 12)
    bench.apply("b", 13)
    assert [change.version for page in pages for change in page.changes] == [11]


def test_of_each_object_the_newest_state_is_told_once_and_in_order() -> None:
    bench = Bench(observed("a", 5), observed("b", 6), observed("c", 7))
    bench.apply("a", 11)
    bench.apply("b", 12)
    bench.apply("new", 13)
    bench.apply("a", 14)
    bench.apply("c", 15, deleted=True)
    assert bench.told(10, exact=False) == [
        ("MODIFIED", "b", 12),
        ("ADDED", "new", 13),
        ("MODIFIED", "a", 14),
        ("DELETED", "c", 15),
    ]
    assert bench.told(13, exact=False) == [("MODIFIED", "a", 14), ("DELETED", "c", 15)]


def test_an_object_that_came_and_went_is_told_as_gone() -> None:
    """A client that stands at 10 may have seen it: its list was of the least version of several partitions."""
    bench = Bench()
    bench.apply("a", 11, labels={"app": "web"})
    bench.apply("a", 12, labels={"app": "db"})
    bench.apply("b", 13)
    bench.apply("b", 14, deleted=True)
    assert bench.told(10, exact=False) == [("ADDED", "a", 12), ("DELETED", "b", 14)]
    assert bench.told(10, exact=False, labels="app=web") == [("DELETED", "a", 12)]
    (gone,) = bench.changes(10, exact=False, labels="app=web")
    assert json.loads(gone.body)["metadata"]["labels"] == {"app": "web"}
    assert json.loads(gone.body)["metadata"]["resourceVersion"] == "12"


def test_late_events_are_repeated_to_whoever_was_shown_their_version_before() -> None:
    bench = Bench(observed("a", 5))
    bench.store.overtake(Version(20))
    bench.apply("a", 15)
    bench.apply("b", 25)
    bench.store.overtake(Version(40))
    bench.apply("c", 35)
    assert bench.told(14, exact=False) == [("MODIFIED", "a", 15), ("ADDED", "b", 25), ("ADDED", "c", 35)]
    # Shown before 15 came.
    assert bench.told(20, exact=False) == [("MODIFIED", "a", 15), ("ADDED", "b", 25), ("ADDED", "c", 35)]
    # Shown after 15 had come, and not before.
    assert bench.told(21, exact=False) == [("ADDED", "b", 25), ("ADDED", "c", 35)]
    # Not reached, but shown elsewhere.
    assert bench.store.frontier == 35
    assert bench.told(40, exact=False) == [("ADDED", "c", 35)]
    assert bench.pages(40, exact=False)[0].frontier == 35
    assert bench.told(21, exact=True) == [("ADDED", "b", 25), ("ADDED", "c", 35)]
    with pytest.raises(TooLargeVersion):
        bench.changes(41, exact=False)
    with pytest.raises(TooLargeVersion):
        bench.changes(40, exact=True)


def test_a_version_shown_of_several_partitions_may_be_brought_to_one_alone() -> None:
    bench = Bench(observed("a", 9))
    bench.store.overtake(Version(20))
    bench.apply("a", 15)
    bench.apply("b", 25)
    alone = {"exact": False, "alone": True}
    assert bench.told(18, **alone) == [("MODIFIED", "a", 15), ("ADDED", "b", 25)]
    assert bench.told(14, **alone) == [("MODIFIED", "a", 15), ("ADDED", "b", 25)]
    assert bench.told(21, **alone) == [("ADDED", "b", 25)]
    bench.store.overtake(Version(40))
    assert bench.told(40, exact=False) == []
    with pytest.raises(TooLargeVersion):
        bench.changes(40, **alone)


def test_a_late_event_is_told_in_the_newest_state_of_its_object() -> None:
    bench = Bench(observed("a", 5))
    bench.store.overtake(Version(20))
    bench.apply("a", 15)
    bench.apply("a", 19)
    bench.apply("a", 30)
    assert bench.told(20, exact=False) == [("MODIFIED", "a", 30)]


def test_late_events_that_left_the_window_make_versions_expire() -> None:
    bench = Bench(history_s=100.0)
    bench.store.overtake(Version(20))
    bench.apply("a", 15)
    bench.now += 200.0
    bench.store.expire()
    # The frontier has not passed what was shown: nobody is sent back to a list of the same version for ever.
    assert bench.told(15, exact=False) == [("ADDED", "a", 15)]
    assert bench.told(20, exact=False) == [("ADDED", "a", 15)]
    bench.store.advance(Version(30))
    bench.store.expire()
    with pytest.raises(Expired):
        bench.changes(20, exact=False)
    assert bench.changes(21, exact=False) == []
    assert bench.changes(20, exact=True) == []


def test_before_a_new_owner_has_settled_everything_counts_as_late() -> None:
    bench = Bench(settling_s=1100.0)
    bench.apply("a", 15)
    bench.now += 150.0
    bench.apply("b", 16)
    assert bench.told(15, exact=False) == [("ADDED", "a", 15), ("ADDED", "b", 16)]
    assert bench.told(16, exact=False) == [("ADDED", "a", 15)]
    assert bench.told(16, exact=True) == []


def test_what_came_in_the_settling_time_is_repeated_until_the_server_has_said_where_it_was_by_its_end() -> (
    None
):
    """Every watch of a resource in several partitions used to begin with all that had come since its shard began."""
    bench = Bench(settling_s=1100.0)
    bench.apply("a", 15)
    early = bench.store.moment
    assert not bench.store.settle_due
    bench.now += 150.0
    bench.apply("b", 30)
    assert bench.store.settle_due
    bench.store.told(Version(20), early)
    assert bench.store.settle_due, "it was asked too early"
    bench.store.told(Version(20), bench.store.moment)
    assert not bench.store.settle_due
    assert bench.told(20, exact=False) == [("ADDED", "a", 15), ("ADDED", "b", 30)]
    bench.apply("b", 40)
    assert bench.told(31, exact=False) == [("MODIFIED", "b", 40)]


def test_what_came_back_is_told_as_added() -> None:
    """A list of several partitions may be newer than its version, and may have shown the object gone already."""
    bench = Bench(observed("a", 5))
    bench.apply("a", 12, deleted=True)
    bench.apply("a", 13, uid="another")
    assert bench.told(10, exact=False) == [("ADDED", "a", 13)]
    assert bench.told(10, exact=True) == [("DELETED", "a", 12), ("ADDED", "a", 13)]


def test_who_was_shown_more_by_another_shards_leave_lists_again() -> None:
    """What it missed of this partition may have been in the list that this history begins with."""
    bench = Bench(observed("a", 5))
    bench.store.take_over(Version(20))
    bench.apply("a", 15)
    assert bench.store.resumable == 20
    with pytest.raises(Expired, match="19"):
        bench.changes(19, exact=False)
    bench.store.overtake(Version(20))
    assert bench.told(20, exact=False) == []
    bench.apply("a", 21)
    assert bench.told(20, exact=False) == [("MODIFIED", "a", 21)]


def test_a_deletion_at_the_version_of_the_last_state_is_told_to_whoever_stands_there() -> None:
    bench = Bench()
    bench.apply("a", 15)
    bench.apply("a", 15, deleted=True)
    for exact in (True, False):
        assert ("DELETED", "a", 15) in bench.told(15, exact=exact)
    with pytest.raises(Expired):
        bench.store.events_after(Version(15))
    bench.apply("b", 16)
    assert [event.version for event in bench.store.events_after(Version(16))] == []


def test_what_a_list_changed_is_told_and_versions_nobody_observed_are_expired() -> None:
    bench = Bench(observed("a", 5), observed("b", 6))
    bench.apply("a", 12)
    bench.list(observed("a", 12), observed("c", 18), version=20)
    for exact in (True, False):
        assert bench.told(12, exact=exact) == [("ADDED", "c", 18), ("DELETED", "b", 19)]
        for version in (9, 13, 19):
            with pytest.raises(Expired, match="too old resource version"):
                bench.changes(version, exact=exact)
        assert bench.changes(20, exact=exact) == []


def test_a_list_that_goes_back_leaves_nothing_to_resume_at() -> None:
    bench = Bench(observed("a", 5))
    bench.apply("a", 30)
    bench.list(observed("a", 5), version=25)
    for version in (10, 24):
        with pytest.raises(Expired):
            bench.changes(version)
    with pytest.raises(TooLargeVersion):
        bench.changes(30)
    assert bench.changes(25) == []


def test_shard_selectors_divide_changes() -> None:
    bench = Bench()
    for number in range(20):
        bench.apply(f"a{number}", 11 + number)
    middle = sorted(fnv1a64(f"uid-default-a{number}") for number in range(20))[8]
    halves = []
    for low, high in ((0, middle), (middle, 1 << 64)):
        text = f"shardRange(object.metadata.uid, '0x{low:016x}', '0x{high:016x}')"
        told = bench.told(10, shards=text)
        assert told == bench.told(10, shards=text, exact=False)
        assert all(low <= fnv1a64(f"uid-default-{name}") < high for _, name, _ in told)
        halves.append(told)
    assert sorted(halves[0] + halves[1], key=lambda told: told[2]) == bench.told(10)
    assert all(halves)


def test_what_cannot_be_understood_is_refused() -> None:
    bench = Bench()
    for wanted in ({"labels": "a in"}, {"fields": "spec.none=1"}):
        with pytest.raises(BadRequest):
            bench.changes(10, **wanted)
    empty = PartitionStore(
        Partition(CONFIG_MAPS.resource), CONFIG_MAPS, settings=StoreSettings(), clock=lambda: 0.0
    )
    with pytest.raises(NotReady):
        empty.changes(ChangesQuery(partition=empty.partition.id, epoch=Epoch(1), since=Version(1)))


def test_a_body_that_speaks_of_versions_is_stamped_in_the_right_place() -> None:
    bench = Bench()
    text = compact({"resourceVersion": "11"}).decode()
    bench.apply("a", 11, text=text)
    bench.apply("a", 12, deleted=True)
    (change,) = bench.changes(11)
    document = json.loads(change.body)
    assert (document["metadata"]["resourceVersion"], document["text"]) == ("12", text)


@pytest.mark.parametrize(
    ("exact", "told"),
    [
        (True, [("MODIFIED", "a", 11), ("ADDED", "b", 12), ("MODIFIED", "a", 13)]),
        (False, [("ADDED", "b", 12), ("MODIFIED", "a", 13)]),
    ],
)
def test_changes_up_to_a_version_tell_the_state_there_was_then(
    exact: bool, told: list[tuple[str, str, int]]
) -> None:
    bench = Bench(observed("a", 5))
    bench.apply("a", 11)
    bench.apply("b", 12)
    bench.apply("a", 13)
    bench.apply("a", 14)
    bench.apply("b", 15, deleted=True)
    (page,) = bench.pages(10, exact=exact, until=Version(13))
    assert page.frontier == 13
    found = [(change.type, change.key.rpartition("/")[2], change.version) for change in page.changes]
    assert found == told
    assert json.loads(page.changes[-1].body)["metadata"]["resourceVersion"] == "13"
    (ahead,) = bench.pages(10, exact=exact, until=Version(99))
    assert (ahead.frontier, ahead) == (15, bench.pages(10, exact=exact)[0])


@pytest.mark.parametrize("settling_s", [0.0, 5000.0])
def test_changes_up_to_a_version_repeat_late_events_up_to_it_alone(settling_s: float) -> None:
    bench = Bench(observed("a", 5), settling_s=settling_s)
    bench.store.overtake(Version(20))
    bench.apply("a", 12)
    bench.apply("a", 14)
    (page,) = bench.pages(20, exact=False, until=Version(13))
    assert (page.frontier, [(change.type, change.version) for change in page.changes]) == (
        13,
        [("MODIFIED", 12)],
    )


def test_an_object_that_changed_again_after_its_unsettled_event_is_told_in_its_newest_state() -> None:
    bench = Bench(observed("a", 5), settling_s=1005.0)
    bench.apply("a", 12)
    bench.apply("other", 13)
    bench.now += 10.0
    bench.apply("a", 14)
    bench.apply("settled", 15)
    # Who was shown 20 elsewhere before this history began is repeated what is unsettled, and what came of it.
    bench.store.overtake(Version(20))
    assert bench.told(20, exact=False) == [("ADDED", "other", 13), ("MODIFIED", "a", 14)]
