"""When and how resources are cut by load, and what is said about it."""

import re

import pytest
from support.planned import Namespace, World, kind

from shoal.coordinator.cuts import WHOLE, CarvedNamespace, Cut
from shoal.coordinator.planning.cutting import Cutter, Facts
from shoal.coordinator.planning.heat import Limits
from shoal.coordinator.planning.loads import Loads
from shoal.coordinator.settings import CoordinatorSettings, CutSettings, PlacementSettings, ScalingSettings
from shoal.shards.model.partitions import Partition
from shoal.shards.model.queries import PartitionStatistics, ShardStatistics
from shoal.shards.model.resources import Resource

PODS = Resource("", "v1", "pods")
BOTH = frozenset({"namespace", "uid"})
SMALL = {f"ns{number}": Namespace(200, 20.0) for number in range(10)}


def world_of(namespaces, *, scaling=None, cutting=None, shards=3, **divisible):
    settings = CoordinatorSettings(
        scaling=scaling or ScalingSettings(), cutting=cutting or CutSettings(), placement=PlacementSettings()
    )
    return World([kind("pods", namespaces, **divisible)], settings, shards=shards)


def cut_of(world):
    return Cut.of(partition.cover for partition, _ in world.served.values())


def verdicts(world):
    verdict, by_partition = world.planner.cutter.verdicts(PODS)
    return "\n".join((verdict, *(line for lines in by_partition.values() for line in lines)))


def test_what_is_not_hot_stays_whole():
    world = world_of(SMALL | {"a": Namespace(1000, 5000.0)})
    world.settle()
    assert cut_of(world) == WHOLE


def test_the_fewest_hot_namespaces_are_carved_out():
    namespaces = SMALL | {
        "a": Namespace(1000, 5000.0),
        "b": Namespace(1000, 3000.0),
        "c": Namespace(1000, 2500.0),
    }
    world = world_of(namespaces, selects=BOTH)
    world.settle()
    assert cut_of(world) == WHOLE.carve("a").carve("b"), (
        "the rest is below half with the two hottest carved out"
    )
    (story,) = world.planner.cutter.story(PODS, world.now)
    assert re.search(
        r"v1/pods takes 1\d\d% of a shard's events, above 80% \(cutting.split_above\); carved out: "
        r"a \(5\d% of a shard's events\), b \(3\d% of a shard's events\); left: [23]\d%",
        story,
    )


def test_it_has_to_be_hot_for_a_while():
    world = world_of(SMALL | {"a": Namespace(1000, 9000.0), "b": Namespace(1000, 4000.0)})
    world.run(30)
    assert cut_of(world) == WHOLE
    assert "not split: it is hot for" in verdicts(world)
    assert "waits 20 s" in verdicts(world)
    world.run(30)
    assert cut_of(world) != WHOLE


def test_a_burst_that_passes_cuts_nothing():
    world = world_of(SMALL | {"a": Namespace(1000, 1000.0)})
    world.run(60)
    pods = next(iter(world.kinds.values()))
    pods.burst = 12.0
    world.run(15)
    pods.burst = 1.0
    world.settle()
    assert cut_of(world) == WHOLE


def test_small_namespaces_are_cut_by_ranges_of_namespace():
    world = world_of({f"ns{number}": Namespace(100, 60.0) for number in range(200)}, selects=BOTH)
    world.settle()
    cut = cut_of(world)
    assert not cut.carved
    assert cut.rest_field == "namespace"
    assert 2 <= len(cut.rest_bounds) <= 4


def test_where_only_uid_is_selected_by_ranges_are_of_uid():
    world = world_of(
        {f"ns{number}": Namespace(100, 60.0) for number in range(200)}, selects=frozenset({"uid"})
    )
    world.settle()
    assert cut_of(world).rest_field == "uid"


def test_a_namespace_too_hot_alone_gets_ranges_of_uid():
    world = world_of({"one": Namespace(50_000, 30_000.0)}, selects=BOTH, shards=8)
    world.settle()
    (carved,) = cut_of(world).carved
    assert carved.name == "one"
    assert len(carved.bounds) >= 5


def test_without_namespaces_ranges_are_of_uid():
    world = world_of(
        {"": Namespace(50_000, 20_000.0)}, selects=frozenset({"uid"}), namespaced=False, shards=8
    )
    world.settle()
    assert cut_of(world).rest_field == "uid"
    assert "no namespace carved out: it has none" not in verdicts(world)


def test_a_range_that_is_hot_alone_is_cut_and_its_siblings_stay():
    namespaces = {f"ns{number}": Namespace(100, 60.0) for number in range(200)}
    world = world_of(namespaces, selects=BOTH, shards=6)
    world.settle()
    before = cut_of(world)
    hot = next(name for name in namespaces if Partition(PODS, before.covers()[0]).may_hold(name))
    namespaces[hot].events_per_s = 9000.0
    world._truths.clear()
    world.settle()
    after = cut_of(world)
    assert set(before.rest_bounds) <= set(after.rest_bounds)
    assert hot in after.names
    assert len(set(after.covers()) & set(before.covers())) == len(before.covers()) - 1


def test_where_the_server_does_not_select_the_cost_is_said():
    world = world_of({"one": Namespace(50_000, 10_000.0)}, shards=4)
    world.settle()
    (carved,) = cut_of(world).carved
    assert len(carved.bounds) + 1 == 3
    story = "\n".join(world.planner.cutter.story(PODS, world.now))
    assert "the API server does not select by hash: each of 3 receives all" in story
    assert "KiB/s compressed for nothing" in story


def test_where_dropping_would_cost_too_much_it_is_not_cut():
    world = world_of(
        {"one": Namespace(50_000, 10_000.0)}, shards=4, cutting=CutSettings(waste_max=0.3, dropped_cost=0.5)
    )
    world.settle()
    assert cut_of(world) == WHOLE
    assert "cutting.waste_max" in verdicts(world)
    assert "v1/pods takes" in world.orders.warnings[0]


def test_for_memory_more_ranges_are_worth_their_cost():
    scaling = ScalingSettings(memory_bytes=128 << 20, process_bytes=64 << 20, max_shards=20)
    world = world_of({"one": Namespace(200_000, 20.0)}, scaling=scaling, shards=4)
    world.settle(within_s=20_000)
    (carved,) = cut_of(world).carved
    assert len(carved.bounds) + 1 > 8
    assert not world.planner.last.plan.overfull


def test_cold_parts_are_merged_late_and_all_at_once():
    namespaces = SMALL | {
        "a": Namespace(1000, 5000.0),
        "b": Namespace(1000, 3000.0),
        "c": Namespace(1000, 2500.0),
    }
    world = world_of(namespaces, selects=BOTH)
    world.settle()
    next(iter(world.kinds.values())).burst = 0.05
    recut = world.recut
    world.run(250)
    assert world.recut == recut
    assert "not merged: they are cold for" in verdicts(world)
    world.settle()
    assert cut_of(world) == WHOLE
    assert world.recut == recut + 1


def test_what_settings_carve_is_carved_and_stays():
    world = world_of(SMALL, carved=("ns1", "ns2"))
    world.settle(quiet_s=3000)
    assert cut_of(world) == WHOLE.carve("ns1").carve("ns2")


def test_a_carving_the_settings_do_not_name_any_more_goes_by_load():
    world = world_of(SMALL, carved=("ns1",))
    world.run(100)
    next(iter(world.kinds.values())).divisible = kind("pods", SMALL).divisible
    world.settle(quiet_s=3000)
    assert cut_of(world) == WHOLE


def test_cuts_by_load_can_be_turned_off():
    world = world_of({"one": Namespace(50_000, 30_000.0)}, selects=BOTH, cutting=CutSettings(automatic=False))
    world.settle()
    assert cut_of(world) == WHOLE
    assert "cutting.automatic" in verdicts(world)


def test_one_shard_is_no_reason_to_cut():
    world = world_of({"one": Namespace(50_000, 9_000.0), "two": Namespace(10, 100.0)}, selects=BOTH, shards=1)
    world.settle()
    assert cut_of(world) == WHOLE


# -- one look at a time --------------------------------------------------------------------------------------


class Bench:
    def __init__(self, **settings):
        self.settings = CutSettings(**settings)
        self.loads = Loads(PlacementSettings(), ScalingSettings(), self.settings)
        self.limits = Limits.of(ScalingSettings(), self.settings)
        self.cutter = Cutter(self.settings, self.limits, self.loads)
        self.divisible = kind("pods", SMALL, selects=BOTH).divisible
        self.here = Partition(PODS)
        self.now = 0.0

    def look(self, cut=WHOLE, under_way=None, pinned=None, seconds=1.0):
        self.now += seconds
        self.cutter.begin(1.0)
        parts = tuple((one.id, one) for one in cut.partitions(PODS))
        return self.cutter.decide(Facts(self.divisible, cut, under_way, pinned, parts), self.now)

    def hot(self):
        """Its load and its profile are known."""
        world = world_of(
            SMALL | {"a": Namespace(1000, 9000.0), "b": Namespace(1000, 4000.0)},
            selects=BOTH,
            cutting=CutSettings(automatic=False),
        )
        world.run(60)
        self.cutter._loads = world.planner.census.loads
        self.cutter._loads.take_profile(world.profile(self.here.id), self.now + 21)


def test_what_is_ordered_stays_ordered_until_it_has_come_about():
    bench = Bench()
    bench.hot()
    bench.look()
    wanted = bench.look(seconds=21)
    assert wanted.names[0] == "a"
    assert bench.look(seconds=100) == wanted
    assert bench.look(under_way=wanted, seconds=200) == wanted
    assert bench.look(wanted, seconds=1) == wanted
    assert bench.cutter.story(PODS, bench.now)[0].startswith("cut 0 s ago: v1/pods takes")


def test_what_does_not_come_about_is_given_up_after_a_while():
    bench = Bench(patience_s=300)
    bench.hot()
    bench.look()
    assert bench.look(seconds=21) != WHOLE
    assert bench.look(seconds=301) == WHOLE
    assert bench.look(seconds=50) == WHOLE, "and not tried again at once"


def test_without_a_profile_nothing_is_cut_and_one_is_asked_for():
    bench = Bench()
    bench.hot()
    bench.cutter._loads._profiles.clear()
    bench.look()
    assert bench.look(seconds=21) == WHOLE
    assert [name for _, name in bench.cutter.profiles] == ["v1/pods"]
    assert "where its load is has not been reported" in bench.cutter.verdicts(PODS)[1][bench.here.id][0]


def test_a_pinned_cut_is_left_alone():
    bench = Bench()
    bench.hot()
    pinned = Cut((CarvedNamespace("x"),))
    bench.look(pinned=pinned)
    assert bench.look(pinned=pinned, seconds=1000) == pinned
    assert "is pinned to its cut: x and the rest" in bench.cutter.verdicts(PODS)[0]


def test_after_a_cut_the_next_waits():
    bench = Bench()
    bench.hot()
    bench.look()
    wanted = bench.look(seconds=21)
    bench.look(wanted, under_way=wanted)
    bench.look(wanted)
    hot = wanted.partitions(PODS)[0]
    for second in range(60):
        entry = PartitionStatistics(
            partition=hot.id, state="synced", objects=9, events={"added": 20_000 * second}
        )
        said = ShardStatistics(shard="a", incarnation="1", pid=1, partitions=[entry])
        bench.cutter._loads.take(said, float(second))
    bench.look(wanted)
    bench.look(wanted, seconds=25)
    assert "not split: cut 26 s ago, waits 120 s" in "\n".join(bench.cutter.verdicts(PODS)[1][hot.id])


@pytest.mark.parametrize("hurried", [False, True])
def test_in_a_hurry_nothing_is_waited_for(hurried):
    bench = Bench()
    bench.hot()
    bench.now = 20.0
    bench.cutter.hurried = hurried
    assert (bench.look() != WHOLE) == hurried
