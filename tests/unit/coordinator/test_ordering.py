"""Orders by hand: what each does, what it answers, and what is wrong with those that are refused."""

import msgspec
import pytest
from support.control import Bench, catalogue_of, resource_type

from shoal.coordinator.catalogue import Catalogue
from shoal.coordinator.commands import Drain, Move, Order, Rebalance, Split, Undrain, Unpin
from shoal.coordinator.settings import PlacementSettings
from shoal.shards.model.errors import BadRequest, Conflict, NotFound, NotReady
from shoal.shards.model.partitions import PartitionId, ShardId

PODS, NODES = PartitionId("v1/pods"), PartitionId("v1/nodes")
EAGER = PlacementSettings(tolerance=0.1, worth_weight=0, settle_s=1, partition_weight=10)


def running(shards=3, *, settings=None, **more):
    bench = Bench(shards, settings=settings, **more)
    cluster_wide = msgspec.structs.replace(resource_type("nodes"), namespaced=False)
    types = (*catalogue_of("events", "pods").followed, cluster_wide)
    bench.catalogue = Catalogue(tuple(sorted(types, key=lambda known: known.resource)))
    bench.settle(4)
    bench.check_served()
    return bench


def other(bench, partition=PODS):
    return next(shard for shard in sorted(bench.shards) if shard != bench.routed()[partition])


def test_nothing_is_ordered_before_the_first_table():
    with pytest.raises(NotReady, match="no routes yet"):
        Bench(1).order(Rebalance())


# -- move ----------------------------------------------------------------------------------------------------


def test_what_was_moved_stays_whatever_planning_says():
    bench = running(2, settings=EAGER)
    bench.order(Move(PODS, ShardId("shard-0")))
    bench.order(Move(NODES, ShardId("shard-0")))
    bench.objects.update({PODS: 3000, NODES: 3000, PartitionId("v1/events"): 1})
    bench.settle(60)
    assert bench.routed()[PODS] == bench.routed()[NODES] == "shard-0"
    bench.order(Unpin(target="v1/pods"))
    bench.settle(60)
    assert bench.routed()[PODS] != bench.routed()[NODES], "planning evens it out again"
    assert bench.decider.by_hand.lines() == ("v1/nodes is pinned to shard-0",)


def test_a_pin_waits_while_its_shard_is_away():
    bench = running(3)
    target = other(bench)
    bench.order(Move(PODS, target))
    bench.settle(8)
    bench.unreachable.add(target)
    bench.settle(25)
    assert bench.routed()[PODS] != target
    bench.unreachable.clear()
    bench.settle(25)
    assert bench.routed()[PODS] == target
    bench.check_served()


def test_a_move_to_where_it_is_pins_it():
    bench = running()
    owner = bench.routed()[PODS]
    assert bench.order(Move(PODS, owner)) == (
        f"v1/pods is on {owner} already; it is pinned there from now on",
    )
    assert bench.decider.by_hand.lines() == (f"v1/pods is pinned to {owner}",)


def test_a_move_says_what_it_waits_for():
    bench = running(transfer_s=10)
    first, second = (shard for shard in sorted(bench.shards) if shard != bench.routed()[PODS])
    bench.order(Move(PODS, first))
    bench.step()
    (_, waits) = bench.order(Move(PODS, second))
    assert waits.startswith("it waits for the hand-off of v1/pods that is receiving: v1/pods@")


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        (
            Move(PartitionId("v1/pod"), ShardId("shard-0")),
            NotFound,
            "no partition v1/pod; did you mean v1/pods",
        ),
        (Move(PODS, ShardId("shard-7")), NotFound, "no shard shard-7; did you mean shard-"),
        (Move(PODS, ShardId("xyz")), NotFound, "no shard xyz$"),
        (Split(target="v1/podz", carve=("a",)), NotFound, "v1/podz is not followed; did you mean v1/pods"),
        (Split(target="v1/pods[a]", ranges=2), NotFound, r"no partition v1/pods\[a\]; did you mean v1/pods"),
        (Split(target="v1/pods[", ranges=2), BadRequest, "is not a partition"),
        (
            Split(target="v1/pods"),
            BadRequest,
            "expected one of: namespaces to carve out, a number of ranges, or merge",
        ),
        (Split(target="v1/pods", carve=("a",), merge=True), BadRequest, "expected one of"),
        (Split(target="v1/pods", carve=("A",)), BadRequest, "'A' is not the name of a namespace"),
        (Split(target="v1/pods", ranges=1), BadRequest, "one range is no cut"),
        (
            Split(target="v1/nodes", carve=("a",)),
            BadRequest,
            "v1/nodes has no namespaces; it can be cut into ranges of uid",
        ),
        (Split(target="v1/nodes", ranges=2, field="namespace"), BadRequest, "v1/nodes has no namespaces"),
        (Drain(ShardId("shard-9")), NotFound, "no shard shard-9"),
        (Undrain(ShardId("shard-0")), Conflict, "shard-0 is not drained"),
        (Unpin(target="v1/pods"), NotFound, "nothing of v1/pods is pinned"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(order, error, message):
    bench = running()
    with pytest.raises(error, match=message):
        bench.order(order)
    assert bench.decider.by_hand.lines() == ()
    assert bench.step().instructions == ()


def test_nothing_moves_to_a_shard_that_is_away_or_leaves():
    bench = running(3)
    bench.unreachable.add(ShardId("shard-2"))
    bench.settle(3)
    with pytest.raises(Conflict, match="shard-2 gets no partitions: it is suspect"):
        bench.order(Move(PODS, ShardId("shard-2")))
    bench.order(Drain(ShardId("shard-1")))
    with pytest.raises(Conflict, match="shard-1 gets no partitions: it is drained"):
        bench.order(Move(PODS, ShardId("shard-1")))


# -- split ---------------------------------------------------------------------------------------------------


def routed_of(bench, resource="v1/pods"):
    return sorted(p for p in bench.routed() if p.partition("[")[0] == resource)


def test_splits_of_splits_and_merges_of_them():
    bench = running()
    half, end = "8000000000000000", "10000000000000000"
    for order, parts in (
        (Split(target="v1/pods", carve=("a", "b")), ["[!a,b]", "[a]", "[b]"]),
        (
            Split(target="v1/pods[a]", ranges=2),
            ["[!a,b]", f"[a:uid:{'0' * 16}-{half}]", f"[a:uid:{half}-{end}]", "[b]"],
        ),
        (
            Split(target=f"v1/pods[a:uid:{half}-{end}]", ranges=2),
            [
                "[!a,b]",
                f"[a:uid:{'0' * 16}-{half}]",
                f"[a:uid:{half}-c000000000000000]",
                f"[a:uid:c000000000000000-{end}]",
                "[b]",
            ],
        ),
        (Split(target=f"v1/pods[a:uid:{'0' * 16}-{half}]", merge=True), ["[!a,b]", "[a]", "[b]"]),
        (Split(target="v1/pods[b]", merge=True), ["[!a]", "[a]"]),
        (
            Split(target="v1/pods[!a]", ranges=2),
            [f"[!a:uid:{'0' * 16}-{half}]", f"[!a:uid:{half}-{end}]", "[a]"],
        ),
        (Split(target="v1/pods", merge=True), [""]),
    ):
        bench.order(order)
        bench.settle(10)
        assert routed_of(bench) == sorted(f"v1/pods{part}" for part in parts)
        bench.check_served()
    assert bench.decider.handoffs.counts["done"] == 7


def test_a_split_spreads_its_parts():
    bench = running(3)
    bench.order(Split(target="v1/pods", ranges=3))
    bench.settle(10)
    assert sorted(bench.routed()[part] for part in routed_of(bench)) == ["shard-0", "shard-1", "shard-2"]


def test_it_says_what_ranges_cost_where_the_server_does_not_select():
    lines = running().order(Split(target="v1/pods", ranges=2))
    assert lines[0] == "v1/pods is cut: 2 ranges of uid (was: whole)"
    assert lines[-1] == (
        "  the API server does not select v1/pods by hashes of uid, as far as is known: each range receives the events "
        "of all and drops what is not its own"
    )


def test_what_the_settings_carve_stays_carved():
    bench = running(carve={"pods": ("a",)})
    with pytest.raises(Conflict, match="follow.carve in the settings keeps a of v1/pods apart"):
        bench.order(Split(target="v1/pods[a]", merge=True))
    with pytest.raises(BadRequest, match=r"v1/pods\[!a\] is what is left"):
        bench.order(Split(target="v1/pods[!a]", merge=True))
    bench.order(Split(target="v1/pods", carve=("b",)))
    bench.settle(8)
    bench.order(Split(target="v1/pods", merge=True))
    bench.settle(8)
    assert routed_of(bench) == ["v1/pods[!a]", "v1/pods[a]"]


def test_a_range_of_one_field_is_not_cut_by_the_other():
    bench = running()
    bench.order(Split(target="v1/pods", ranges=2, field="namespace"))
    bench.settle(8)
    part = routed_of(bench)[0]
    with pytest.raises(
        BadRequest, match="is a range of namespace; it can be cut into ranges of namespace only"
    ):
        bench.order(Split(target=part, ranges=2))
    bench.order(Split(target=part, ranges=2, field="namespace"))
    bench.settle(8)
    assert len(routed_of(bench)) == 3


def test_a_cut_by_hand_is_kept_until_it_is_unpinned():
    bench = running()
    bench.order(Split(target="v1/pods", carve=("a",)))
    bench.settle(30)
    assert routed_of(bench) == ["v1/pods[!a]", "v1/pods[a]"]
    assert bench.order(Split(target="v1/pods", carve=("a",))) == (
        "v1/pods is cut like that already (a and the rest); it is pinned from now on",
    )
    bench.order(Unpin(target="v1/pods"))
    bench.settle(10)
    assert routed_of(bench) == ["v1/pods"], "as the settings have it"


# -- drain and rebalance -------------------------------------------------------------------------------------


def test_a_drained_shard_gets_nothing_until_it_is_undrained():
    bench = running(2, settings=EAGER)
    lines = bench.order(Drain(ShardId("shard-1")))
    held = [partition for partition, shard in bench.routed().items() if shard == "shard-1"]
    assert (
        lines[0] == f"shard-1 is drained: {len(held)} partitions leave it, none comes to it, and then it ends"
    )
    assert lines[1:] == tuple(f"  {partition}" for partition in held)
    with pytest.raises(Conflict, match="shard-0 cannot be drained: no other shard could take what it has"):
        bench.order(Drain(ShardId("shard-0")))
    bench.settle(20)
    assert not bench.shards["shard-1"].held
    bench.order(Undrain(ShardId("shard-1")))
    bench.settle(60)
    assert bench.shards["shard-1"].held
    bench.check_served()


def test_a_rebalance_is_first_rehearsed():
    bench = running(
        2, settings=PlacementSettings(tolerance=0.1, worth_weight=0, settle_s=10_000, partition_weight=10)
    )
    for partition in (PODS, NODES, PartitionId("v1/events")):
        bench.order(Move(partition, ShardId("shard-0")))
    bench.settle(20)
    bench.objects.update({PODS: 3000, NODES: 3000})
    bench.settle(5)
    before = bench.routed()
    lines = bench.order(Rebalance(dry_run=True))
    assert any(line == "v1/pods is pinned to shard-0: not any more" for line in lines)
    assert any(line.endswith("moves from shard-0 to shard-1") for line in lines)
    bench.settle(20)
    assert bench.routed() == before, "nothing happened"
    assert bench.order(Rebalance()) == lines
    bench.settle(20)
    assert set(bench.routed().values()) == {"shard-0", "shard-1"}
    assert bench.decider.by_hand.lines() == ()
    assert bench.order(Rebalance(dry_run=True)) == ("nothing would move: everything is where it should be",)


@pytest.mark.parametrize(
    "order",
    [
        Move(PODS, ShardId("a")),
        Split(target="v1/pods", ranges=2),
        Drain(ShardId("a")),
        Undrain(ShardId("a")),
        Unpin(target="v1/pods"),
        Rebalance(dry_run=True),
    ],
)
def test_orders_travel(order):
    assert msgspec.json.decode(msgspec.json.encode(order), type=Order) == order
