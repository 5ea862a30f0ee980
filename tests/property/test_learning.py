"""Whatever copies are there, what is learnt of them divides the resource, and no complete set is passed over."""

from hypothesis import given
from hypothesis import strategies as st

from shoal.coordinator.cuts import WHOLE, even_bounds
from shoal.coordinator.handoff import Copy
from shoal.coordinator.learning import Witness, learn
from shoal.shards.model.covers import contains, disjoint, divide
from shoal.shards.model.partitions import Epoch, ShardId
from shoal.shards.model.queries import PartitionStatistics
from shoal.shards.model.resources import Resource

PODS = Resource("", "v1", "pods")
STATES = ("synced", "synced", "synced", "pending", "refused", "arriving", "stranded")
SHARDS = tuple(ShardId(f"shard-{number}") for number in range(3))


@st.composite
def cuts(draw):
    cut = WHOLE
    for name in draw(st.sets(st.sampled_from(("a", "b", "c")))):
        cut = cut.split_namespace(name, even_bounds(draw(st.integers(1, 3))))
    return cut.split_rest(draw(st.sampled_from(("uid", "namespace"))), even_bounds(draw(st.integers(1, 4))))


@st.composite
def witnesses_of(draw, cut, **fixed):
    return [
        Witness(
            Copy(partition, draw(st.sampled_from(SHARDS))),
            PartitionStatistics(
                partition=partition.id,
                state=fixed.get("state") or draw(st.sampled_from(STATES)),
                handed_over=draw(st.booleans()),
                epoch=Epoch(draw(st.integers(1, 3))),
                objects=draw(st.integers(0, 3)),
            ),
        )
        for partition in cut.partitions(PODS)
        if fixed.get("all_there") or draw(st.integers(0, 4))
    ]


@given(st.data(), cuts(), cuts())
def test_what_is_learnt_divides_the_resource_and_takes_no_two_copies_of_an_object(data, old, new):
    there = data.draw(witnesses_of(old)) + data.draw(witnesses_of(new))
    found = learn(PODS, there)
    if found is None:
        assert all(witness.entry.state in ("arriving", "stranded") for witness in there)
        return
    assert divide(found.cut.covers())
    covers = [copy.partition.cover for copy in found.copies]
    assert set(covers) <= set(found.cut.covers())
    assert all(disjoint(a, b) for at, a in enumerate(covers) for b in covers[:at])
    assert {copy.key for copy in found.copies} <= {witness.copy.key for witness in there}
    complete = [witness for witness in there if witness.entry.state == "synced"]
    chosen = [witness for witness in complete if witness.copy in found.copies]
    assert bool(chosen) == bool(complete), "a complete copy is not passed over for nothing"


@given(st.data(), cuts(), cuts(), st.booleans())
def test_a_set_that_is_complete_and_covers_everything_is_believed(data, old, new, turned):
    """As it is whenever a coordinator dies before the old copies are released, and no shard with it."""
    there = data.draw(witnesses_of(old, state="synced", all_there=True))
    held = {witness.copy for witness in there}
    there += [witness for witness in data.draw(witnesses_of(new)) if witness.copy not in held]
    found = learn(PODS, there[::-1] if turned else there)
    assert found is not None
    assert set(found.cut.partitions(PODS)) == {copy.partition for copy in found.copies}, "nothing is left out"
    known = {witness.copy.key: witness.entry.state for witness in there}
    assert {known[copy.key] for copy in found.copies} == {"synced"}


@given(st.data(), cuts())
def test_every_copy_of_a_cut_that_lives_has_its_place(data, cut):
    there = [
        witness
        for witness in data.draw(witnesses_of(cut))
        if witness.entry.state not in ("arriving", "stranded")
    ]
    found = learn(PODS, there)
    if there:
        assert {copy.partition for copy in found.copies} == {witness.copy.partition for witness in there}
        assert all(any(contains(hole, part) for hole in found.cut.covers()) for part in cut.covers()), (
            "what is nobody's is not cut finer than it was"
        )
