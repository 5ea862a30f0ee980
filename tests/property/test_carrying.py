"""Continue tokens over another division of a resource: whatever it was and is, what goes on is one state."""

from hypothesis import assume, given
from hypothesis import strategies as st

from shoal.cluster.query.carrying import carried
from shoal.cluster.query.tokens import Position
from shoal.coordinator.cuts import CarvedNamespace, Cut
from shoal.shards.model.covers import disjoint
from shoal.shards.model.errors import Expired
from shoal.shards.model.partitions import HASH_END
from shoal.shards.model.resources import Resource

PODS = Resource("", "v1", "pods")
FINGERPRINT = b"12345678"
NAMES = ("a", "b", "c")

bounds = st.lists(st.integers(1, 7).map(lambda eighth: eighth * HASH_END // 8), max_size=2, unique=True).map(
    lambda found: tuple(sorted(found))
)
carved = st.lists(
    st.builds(CarvedNamespace, st.sampled_from(NAMES), bounds), max_size=3, unique_by=lambda one: one.name
)
cuts = st.builds(Cut, carved.map(tuple), st.sampled_from(("uid", "namespace")), bounds)
objects = st.lists(st.tuples(st.sampled_from((*NAMES, "d", "e")), st.uuids().map(str)), max_size=20)


def holder(partitions, known):
    return next(partition for partition in partitions if partition.cover.admits(*known))


@given(cuts, cuts, st.lists(st.integers(1, 3), min_size=20, max_size=20), objects, st.data())
def test_every_object_is_asked_for_at_the_version_it_was_pinned_to_or_nothing_is(
    before, after, versions, found, data
):
    old, new = before.partitions(PODS), after.partitions(PODS)
    missing = data.draw(st.sets(st.sampled_from([partition.id for partition in old]), max_size=1))
    assume(len(missing) < len(old))
    pins = {
        partition.id: versions[at % len(versions)]
        for at, partition in enumerate(old)
        if partition.id not in missing
    }
    position = Position(1, "a/x", pins, tuple(sorted(missing)))
    try:
        now = carried(position, new, FINGERPRINT)
    except Expired:
        # One of the new partitions was joined of present parts at different versions.
        joined = [
            {pins[part.id] for part in old if part.id in pins and not disjoint(part.cover, partition.cover)}
            for partition in new
            if not any(part.id in missing and not disjoint(part.cover, partition.cover) for part in old)
        ]
        assert any(len(states) > 1 for states in joined)
        return
    assert now.parts == {partition.id for partition in new}
    assert (now.epoch, now.after) == (position.epoch, position.after)
    for known in found:
        was, is_now = holder(old, known), holder(new, known)
        if is_now.id in now.missing:
            continue
        assert was.id not in missing, "what was missing stays missing"
        assert now.pins[is_now.id] == pins[was.id]


@given(cuts, cuts)
def test_a_list_of_one_version_goes_on_in_any_division(before, after):
    pins = dict.fromkeys((partition.id for partition in before.partitions(PODS)), 7)
    now = carried(Position(1, "a/x", pins), after.partitions(PODS), FINGERPRINT)
    assert now.pins == dict.fromkeys((partition.id for partition in after.partitions(PODS)), 7)
    assert now.missing == ()


@given(cuts, cuts)
def test_an_inconsistent_list_goes_on_anywhere(before, after):
    position = Position(1, "a/x")
    assert carried(position, after.partitions(PODS), FINGERPRINT) == position
    lost = before.partitions(PODS)[0]
    now = carried(Position(1, "a/x", missing=(lost.id,)), after.partitions(PODS), FINGERPRINT)
    assert now.pins == {}
    for partition in after.partitions(PODS):
        assert (partition.id in now.missing) == (not disjoint(lost.cover, partition.cover))


@given(cuts, cuts)
def test_there_and_back_is_the_same(before, after):
    pins = dict.fromkeys((partition.id for partition in before.partitions(PODS)), 7)
    position = Position(1, "a/x", pins)
    there = carried(position, after.partitions(PODS), FINGERPRINT)
    assert carried(there, before.partitions(PODS), FINGERPRINT) == position
