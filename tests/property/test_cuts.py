"""Cuts and covers: whatever is carved and wherever is cut, every object is in exactly one part; and what is said of
covers agrees with what they admit.
"""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shoal.coordinator.cuts import WHOLE, CarvedNamespace, Cut, even_bounds
from shoal.shards.model.covers import complete, contains, disjoint, divide, parse_cover, parse_partition
from shoal.shards.model.partitions import (
    EVERYTHING,
    HASH_END,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    fnv1a64,
    hashed,
)
from shoal.shards.model.resources import Resource

PODS = Resource("", "v1", "pods")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
NAMES = ("a", "a-b", "b", "kube-system", "uid", "namespace", "default")
UIDS = tuple(f"{number:08x}-0000-4000-8000-000000000000" for number in range(16))

names = st.sampled_from(NAMES)
# Cut points that are hashes of what is asked for, and their neighbours, are where a mistake by one would show.
edges = [fnv1a64(text) + by for text in (*NAMES, "", "other", *UIDS) for by in (0, 1)]
points = st.sampled_from(edges) | st.integers(1, HASH_END - 1)
bounds = st.lists(points, max_size=4, unique=True).map(lambda found: tuple(sorted(found)))
carved = st.lists(st.builds(CarvedNamespace, names, bounds), max_size=4, unique_by=lambda one: one.name).map(
    tuple
)
cuts = st.builds(Cut, carved, st.sampled_from(("uid", "namespace")), bounds)
objects = st.tuples(names | st.sampled_from(("", "other")), st.sampled_from(UIDS) | st.text(max_size=5))
ranges = st.lists(points, min_size=2, max_size=2, unique=True).map(sorted)
excluded = st.lists(names, max_size=3, unique=True).map(lambda found: tuple(sorted(found)))
covers = st.one_of(
    st.just(EVERYTHING),
    st.builds(OneNamespace, names),
    st.builds(ExceptNamespaces, excluded),
    st.builds(lambda part, name: HashRange("uid", *part, name), ranges, names),
    st.builds(
        lambda part, field, left: HashRange(field, *part, None, left),
        ranges,
        st.sampled_from(("uid", "namespace")),
        excluded,
    ),
    cuts.flatmap(lambda cut: st.sampled_from(cut.covers())),
)


@given(cuts, objects)
def test_every_object_is_in_exactly_one_part(cut, known):
    admitting = [cover for cover in cut.covers() if cover.admits(*known)]
    assert len(admitting) == 1
    assert Partition(PODS, admitting[0]).may_hold(known[0])


@given(cuts)
def test_the_parts_are_disjoint_and_complete_and_without_any_one_of_them_are_not(cut):
    parts = cut.covers()
    assert divide(parts)
    assert len(parts) == cut.parts
    for part in parts:
        others = [other for other in parts if other != part]
        assert not complete(others)
        assert not divide([*parts, part])


@given(cuts, st.randoms(use_true_random=False))
def test_a_cut_is_found_again_from_its_covers_in_any_order(cut, chance):
    parts = list(cut.covers())
    chance.shuffle(parts)
    assert Cut.of(parts) == cut
    if len(parts) > 1:
        assert Cut.of(parts[1:]) != cut


@given(st.lists(covers, max_size=5))
def test_what_is_taken_for_a_cut_divides(found):
    cut = Cut.of(found)
    assert cut is None or divide(found)


@given(covers, st.sampled_from((PODS, DEPLOYMENTS)))
def test_ids_are_read_back(cover, resource):
    partition = Partition(resource, cover)
    assert parse_partition(partition.id) == partition
    assert parse_cover(str(cover)) == cover


@given(covers, covers)
def test_ids_are_different_for_different_covers(a, b):
    assert (str(a) == str(b)) == (a == b)


@given(covers, covers, objects)
def test_what_is_said_of_two_covers_agrees_with_what_they_admit(a, b, known):
    in_a, in_b = a.admits(*known), b.admits(*known)
    if disjoint(a, b):
        assert not (in_a and in_b)
    if contains(a, b):
        assert in_a or not in_b


@given(covers, covers)
def test_containing_and_overlapping_are_what_they_are_among_sets(a, b):
    assert contains(a, a)
    assert not disjoint(a, a)
    assert disjoint(a, b) == disjoint(b, a)
    assert contains(EVERYTHING, a)
    if contains(a, b):
        assert not disjoint(a, b)
    if contains(a, b) and contains(b, a):
        assert complete([a]) == complete([b])


@given(cuts, cuts)
def test_a_part_of_another_cut_lies_in_the_parts_it_touches_and_in_no_other(cut, other):
    for part in other.covers():
        touched = [known for known in cut.covers() if not disjoint(known, part)]
        assert touched
        assert all(not contains(known, part) for known in cut.covers() if known not in touched)
        if len(touched) == 1:
            assert contains(touched[0], part)
        else:
            assert not any(contains(known, part) for known in touched)


@given(cuts, names, bounds)
def test_carving_and_taking_back(cut, name, points):
    assert cut.carve(name).names == tuple(sorted({*cut.names, name}))
    assert cut.carve(name).carve(name) == cut.carve(name)
    assert name not in cut.uncarve(name).names
    assert cut.uncarve(name).uncarve(name) == cut.uncarve(name)
    if name not in cut.names:
        assert cut.carve(name).uncarve(name) == cut
    assert cut.split_namespace(name, points).split_namespace(name, ()) == cut.uncarve(name).carve(name)
    assert cut.split_namespace(name, points).parts == cut.uncarve(name).parts + len(points) + 1


@given(cuts, st.sampled_from(("uid", "namespace")), bounds)
def test_ranges_of_the_rest_come_and_go(cut, field, points):
    split = cut.split_rest(field, points)
    assert split.names == cut.names
    assert split.split_rest("namespace", ()) == split.split_rest("uid", ()) == Cut(cut.carved)
    assert split.split_rest(cut.rest_field, cut.rest_bounds) == cut


@given(cuts.filter(lambda cut: cut.rest_field == "namespace"), names)
def test_carving_out_of_ranges_of_namespace_changes_one_part(cut, name):
    before, after = set(cut.uncarve(name).covers()), set(cut.uncarve(name).carve(name).covers())
    assert len(before - after) == 1
    assert len(after - before) == 2


@given(cuts)
def test_cuts_cross_processes(cut):
    encoded = msgspec.msgpack.encode(cut)
    assert msgspec.msgpack.decode(encoded, type=Cut) == cut


@given(st.integers(1, 300))
def test_even_ranges_are_even(count):
    found = WHOLE.split_rest("uid", even_bounds(count)).covers()
    if count == 1:
        assert found == (EVERYTHING,)
    else:
        widths = [part.high - part.low for part in found]
        assert sum(widths) == HASH_END
        assert max(widths) - min(widths) <= 1


@given(st.text(max_size=80))
def test_the_hash_is_fnv_1a_byte_by_byte(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % HASH_END
    assert fnv1a64(text) == hashed(text) == value
