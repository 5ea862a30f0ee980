"""What a coordinator that comes back concludes from the copies shards hold."""

from shoal.coordinator.cuts import WHOLE, Cut, even_bounds
from shoal.coordinator.handoff import Copy
from shoal.coordinator.learning import Witness, cut_around, learn
from shoal.shards.model.covers import parse_partition
from shoal.shards.model.partitions import Epoch, ShardId
from shoal.shards.model.queries import PartitionStatistics
from shoal.shards.model.resources import Resource

PODS = Resource("", "v1", "pods")


def copy(text):
    """``v1/pods[a]@x``"""
    partition, _, shard = text.rpartition("@")
    return Copy(parse_partition(partition), ShardId(shard))


def seen(text, *, state="synced", still=False, epoch=5, objects=10):
    held = copy(text)
    entry = PartitionStatistics(
        partition=held.partition.id, state=state, handed_over=still, epoch=Epoch(epoch), objects=objects
    )
    return Witness(held, entry)


def learnt(*witnesses):
    found = learn(PODS, witnesses)
    return found and [str(one) for one in found.copies]


def test_nobody_holds_anything():
    assert learn(PODS, []) is None


def test_what_is_only_being_received_was_never_published():
    assert learn(PODS, [seen("v1/pods@a", state="arriving"), seen("v1/pods@b", state="stranded")]) is None
    assert learnt(seen("v1/pods@a"), seen("v1/pods@b", state="arriving", epoch=9)) == ["v1/pods@a"]


def test_of_two_copies_the_complete_one_then_the_one_that_goes_on_then_the_later_one():
    assert learnt(seen("v1/pods@a", state="pending", epoch=9), seen("v1/pods@b")) == ["v1/pods@b"]
    assert learnt(seen("v1/pods@a", still=True, epoch=9), seen("v1/pods@b")) == ["v1/pods@b"]
    assert learnt(seen("v1/pods@a", epoch=4), seen("v1/pods@b")) == ["v1/pods@b"]
    assert learnt(seen("v1/pods@a", still=True)) == ["v1/pods@a"], "rather than nothing"


def test_a_split_that_was_received_but_not_switched_to_stays_undone_or_is_done_as_a_whole():
    old, parts = seen("v1/pods@a"), [seen("v1/pods[x]@a", epoch=6), seen("v1/pods[!x]@b", epoch=6)]
    assert learnt(old, *parts) == ["v1/pods[x]@a", "v1/pods[!x]@b"], "both are complete, and these are newer"
    assert learnt(old, parts[0], seen("v1/pods[!x]@b", state="arriving")) == ["v1/pods@a"]
    assert learnt(old, parts[0]) == ["v1/pods@a"], "half of it is less than all"


def test_what_stands_still_was_being_replaced():
    old, parts = seen("v1/pods@a", still=True, epoch=9), [seen("v1/pods[x]@a"), seen("v1/pods[!x]@b")]
    assert learnt(old, *parts) == ["v1/pods[x]@a", "v1/pods[!x]@b"]
    assert learnt(old, parts[0]) == ["v1/pods@a"], "unless the others are not there"


def test_what_died_with_its_shard_is_nobodys():
    found = learn(PODS, [seen("v1/pods[x]@a"), seen("v1/pods[y]@b")])
    assert found.cut == WHOLE.carve("x").carve("y")
    assert [str(one) for one in found.copies] == ["v1/pods[x]@a", "v1/pods[y]@b"]
    bounds = even_bounds(4)
    (low, high) = Cut().split_rest("uid", bounds).partitions(PODS)[1:3]
    found = learn(PODS, [seen(f"{low.id}@a"), seen(f"{high.id}@b")])
    assert found.cut == Cut().split_rest("uid", bounds), "the parts before and behind are nobody's"


def test_a_complete_part_counts_more_than_a_whole_that_is_being_listed():
    assert learnt(seen("v1/pods@a", state="pending", objects=0), seen("v1/pods[x]@b")) == ["v1/pods[x]@b"]


def test_the_larger_part_counts_more_where_nothing_is_whole():
    small, large = seen("v1/pods[x]@a", objects=1), seen("v1/pods[!y]@b", objects=1000)
    assert learnt(small, large) == ["v1/pods[!y]@b"]


def test_copies_that_fit_into_no_cut_together_do_not_stop_it():
    quarter = Cut().split_rest("uid", even_bounds(4)).partitions(PODS)[0]
    by_namespace = Cut().split_rest("namespace", even_bounds(2)).partitions(PODS)[1]
    found = learnt(seen(f"{quarter.id}@a", objects=1), seen(f"{by_namespace.id}@b", objects=50))
    assert found == [f"{by_namespace.id}@b"]


def test_the_coarsest_cut_around_some_covers():
    assert cut_around([]) == WHOLE
    cut = Cut().split_namespace("big", even_bounds(2)).carve("small").split_rest("uid", even_bounds(3))
    assert cut_around(cut.covers()) == cut
    assert cut_around(cut.covers()[:1]) == Cut().split_namespace("big", even_bounds(2))
