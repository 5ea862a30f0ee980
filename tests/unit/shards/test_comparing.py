"""A list, page by page, against what is held at the versions of its pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.observed import PODS, observed

from shoal.shards.api.identities import identity_page
from shoal.shards.model.errors import Expired, Garbage
from shoal.shards.model.observations import Listed, Observation
from shoal.shards.model.partitions import EVERYTHING, Cover, HashRange, OneNamespace, Partition, fnv1a64
from shoal.shards.model.refs import Key, ref_of
from shoal.shards.model.versions import Version
from shoal.shards.settings import StoreSettings
from shoal.shards.store.comparing import NAMED_MAX, AuditCounts, Comparison, Unordered, compare_one
from shoal.shards.store.objects import PartitionStore

FIELDS = ("",) * len(PODS.selectable_fields)
Held = Mapping[str, tuple[str, int]]
"""Uid and version by key."""


def pod(key: str, uid: str, version: int, *, deleted: bool = False) -> Observation:
    namespace, name = ref_of(Key(key))
    return observed(name, version, namespace=namespace, fields=FIELDS, deleted=deleted, uid=uid)


def store_of(held: Held, version: int = 100, *, cover: Cover = EVERYTHING) -> PartitionStore:
    store = PartitionStore(
        Partition(PODS.resource, cover), PODS, settings=StoreSettings(), clock=lambda: 100.0
    )
    store.begin()
    for key, (uid, at) in held.items():
        store.put(pod(key, uid, at))
    store.finish(Version(version))
    return store


def listed(held: Held) -> list[Listed]:
    return [
        Listed(Key(key), ref_of(Key(key)).namespace, uid, Version(at))
        for key, (uid, at) in sorted(held.items())
    ]


def pages(items: list[Listed], sizes: Iterable[int]) -> list[tuple[list[Listed], bool]]:
    """The list in pages of these sizes, and the rest in one; whether each is the last."""
    cut: list[list[Listed]] = []
    for size in sizes:
        if len(items) <= size:
            break
        cut.append(items[:size])
        items = items[size:]
    return [(page, False) for page in cut] + [(items, True)]


def compared(
    held: Held, shown: Held, sizes: Iterable[int] = (), *, cover: Cover = EVERYTHING
) -> dict[str, str]:
    """Kind by key."""
    store = store_of(held, cover=cover)
    comparison = Comparison(cover.admits)
    for page, last in pages(listed(shown), sizes):
        comparison.page(page, store.state(Version(100)), last=last)
    assert comparison.compared == len(shown)
    assert comparison.counts.total() >= len(comparison.named)
    return {one.key: one.kind for one in comparison.named}


SAME = {"a/one": ("u1", 1), "a/two": ("u2", 2), "a-b/three": ("u3", 3), "b/four": ("u4", 4)}


@pytest.mark.parametrize("sizes", [(), (1,), (2, 1), (1, 1, 1, 1), (0, 2)])
def test_equal_states_are_equal_however_the_list_is_cut(sizes: tuple[int, ...]) -> None:
    assert compared(SAME, SAME, sizes) == {}


@pytest.mark.parametrize("sizes", [(), (1,), (2,), (1, 1, 1, 1)])
def test_every_kind_of_difference_is_named(sizes: tuple[int, ...]) -> None:
    held = {**SAME, "a/zero": ("u0", 9), "z/last": ("u9", 9)}
    shown = {**SAME, "a/two": ("u2", 5), "b/four": ("u5", 4), "c/new": ("u6", 6)}
    assert compared(held, shown, sizes) == {
        "a/zero": "surplus",
        "z/last": "surplus",
        "a/two": "different",
        "b/four": "different",
        "c/new": "missing",
    }


def test_an_empty_list_makes_all_surplus_and_an_empty_partition_all_missing() -> None:
    assert set(compared(SAME, {}).values()) == {"surplus"}
    assert set(compared({}, SAME, (3,)).values()) == {"missing"}
    assert compared({}, {}) == {}


def test_of_many_differences_some_are_named_and_all_are_counted() -> None:
    shown = {f"a/{number:04}": (f"u{number}", 1) for number in range(1000)}
    comparison = Comparison(EVERYTHING.admits)
    comparison.page(listed(shown), store_of({}).state(Version(100)), last=True)
    assert comparison.counts == {"missing": 1000}
    assert len(comparison.named) == NAMED_MAX


def test_objects_of_other_partitions_do_not_count() -> None:
    own = {key: value for key, value in SAME.items() if key.startswith("a/")}
    assert compared(own, SAME, (1,), cover=OneNamespace("a")) == {}
    # One range of uids: a name that went over to another range is surplus here, although the list shows the name.
    low, high = sorted(("u1", "u2"), key=fnv1a64)
    ours = HashRange("uid", 0, fnv1a64(high))
    assert compared({"a/x": (low, 1)}, {"a/x": (low, 1)}, cover=ours) == {}
    assert compared({"a/x": (low, 1)}, {"a/x": (high, 7)}, cover=ours) == {"a/x": "surplus"}


def test_each_page_is_compared_with_the_state_of_its_own_version() -> None:
    store = store_of(SAME)
    first = listed(SAME)[:2]
    comparison = Comparison(EVERYTHING.admits)
    store.apply(pod("a/one", "u1", 101))
    comparison.page(first, store.state(Version(100)), last=False)
    store.apply(pod("b/four", "u4", 102, deleted=True))
    store.apply(pod("b/five", "u5", 103))
    # The token had expired, and the list went on at a newer version.
    rest = [one for one in listed({**SAME, "b/five": ("u5", 103)}) if one.key > first[-1].key]
    rest = [one for one in rest if one.key != "b/four"]
    comparison.page(rest, store.state(Version(103)), last=True)
    assert comparison.counts == {}


def test_a_version_that_left_history_cannot_be_compared_with() -> None:
    with pytest.raises(Expired):
        store_of(SAME).state(Version(99))


def test_pages_in_another_order_are_told_as_such() -> None:
    store = store_of(SAME)
    one, two, three, _ = listed(SAME)
    comparison = Comparison(EVERYTHING.admits)
    comparison.page([three, two], store.state(Version(100)), last=False)  # within a page any order will do
    with pytest.raises(Unordered):
        comparison.page([one], store.state(Version(100)), last=True)


def test_one_object_asked_for_alone() -> None:
    entry = store_of(SAME).state(Version(100)).entry(Key("a/one"))
    (same,) = listed({"a/one": ("u1", 1)})
    assert compare_one([same], entry, Key("a/one")) is None
    assert compare_one([same._replace(version=Version(2))], entry, Key("a/one")) == "different"
    assert compare_one([same], None, Key("a/one")) == "missing"
    assert compare_one([], entry, Key("a/one")) == "surplus"
    assert compare_one([], None, Key("a/one")) is None
    (other,) = listed({"a/other": ("u1", 1)})
    assert compare_one([other], None, Key("a/one")) is None, "the server did not look at the selector"


KEYS = st.sampled_from([f"{namespace}/{name}" for namespace in ("a", "a-b", "b") for name in "pqrs"])
STATES = st.dictionaries(KEYS, st.tuples(st.sampled_from(["u", "v"]), st.integers(1, 3)))


@given(STATES, STATES, st.lists(st.integers(0, 4), max_size=8))
def test_what_is_found_is_what_differs(held: Held, shown: Held, sizes: list[int]) -> None:
    expected = {}
    for key in held.keys() | shown.keys():
        if held.get(key) != shown.get(key):
            expected[key] = "missing" if key not in held else "surplus" if key not in shown else "different"
    assert compared(held, shown, sizes) == expected


def test_counts_tell_since_when_all_was_compared() -> None:
    now = 10.0
    counts = AuditCounts(lambda: now)
    counts.ended("void", conclusive=False)
    assert counts.age_s is None
    counts.ended("equal", conclusive=True)
    now = 25.0
    counts.ended("failed", conclusive=False)
    assert (counts.age_s, counts.outcomes) == (15.0, {"void": 1, "equal": 1, "failed": 1})


# -- reading pages -------------------------------------------------------------------------------------------


def test_a_page_is_read_for_identities_alone() -> None:
    page = identity_page(
        b'{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"220","continue":"next"},"items":['
        b'{"metadata":{"name":"cm-0","namespace":"alpha","uid":"c6","resourceVersion":"64","managedFields":[{}]}},'
        b'{"spec":{"a":[1]},"metadata":{"name":"node","uid":"c7","resourceVersion":"65"}}]}'
    )
    assert page.listed == [("alpha/cm-0", "alpha", "c6", 64), ("node", "", "c7", 65)]
    assert (page.version, page.continue_token) == (220, "next")
    assert identity_page(b'{"metadata":{"resourceVersion":"1"},"items":null}').listed == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"items":[]}',
        b'{"metadata":{"resourceVersion":"1"},"items":[{}]}',
        b'{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"","uid":"u","resourceVersion":"1"}}]}',
        b'{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"n","uid":"u","resourceVersion":"x"}}]}',
        b'{"metadata":{"resourceVersion":"\xff"},"items":[]}',
    ],
)
def test_what_is_no_list_is_garbage_and_not_repeated(body: bytes) -> None:
    with pytest.raises(Garbage) as caught:
        identity_page(body)
    assert "html" not in caught.value.message
