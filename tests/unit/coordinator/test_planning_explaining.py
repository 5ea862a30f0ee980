"""What `shoal explain` says: numbers, reasons, rejected candidates, and what would change it."""

import pytest
from support.planned import Namespace, World, kind

from shoal.coordinator.planning.explaining import explain
from shoal.coordinator.planning.planner import LoadPlanner
from shoal.coordinator.settings import CoordinatorSettings, CutSettings, ScalingSettings
from shoal.shards.model.errors import NotFound

PODS = {"web": Namespace(2000, 200.0), "batch": Namespace(1000, 110.0)}


def world_of(pods=None, *, run_s=300, cutting=None, **divisible):
    settings = CoordinatorSettings(
        scaling=ScalingSettings(min_shards=2, max_shards=6, memory_bytes=1 << 30),
        cutting=cutting or CutSettings(),
    )
    kinds = [kind("pods", pods or PODS, **divisible)]
    kinds += [kind(f"p{number}", {"": Namespace(200, 5.0)}) for number in range(6)]
    world = World(kinds, settings, shards=2)
    world.run(run_s)
    return world


def said(world, about=""):
    return "\n".join(explain(world.planner, about))


def test_before_the_first_look_there_is_nothing_to_explain():
    assert explain(LoadPlanner(CoordinatorSettings(), 2)) == ("nothing has been planned yet",)


def test_everything_is_told_against_its_target():
    text = said(world_of())
    assert text.startswith("2 shards wanted (2 to 6), 2 there\n  CPU: ")
    assert "events: 340 a second in all, 1% of 2 times 15,000 a second; aim 60% (scaling.target)" in text
    assert ": 1 would do, but scaling.min_shards is 2" in text
    assert "shard-0 (healthy on node-0): " in text
    assert "of 0.6 cores" in text
    assert "of 824 MiB for objects" in text
    assert "hottest partitions (7 of 7):" in text
    assert "  v1/pods on shard-" in text


def test_a_partition_says_what_would_cut_it_in_numbers():
    text = said(world_of(), "v1/pods")
    assert text.startswith("v1/pods is whole\n")
    assert "3,000 objects, 310 events/s" in text
    assert "would be cut above 7,200 events/s (has 310), 0.48 cores (has 0.02) or 396 MiB (has " in text
    assert "80% of what a shard is used for (cutting.split_above)" in text
    assert "it does not move: it weighs" in text
    assert "nothing leaves it for the balance below a difference of" in said(world_of(), "v1/p0")


def test_it_says_where_it_went_and_who_was_rejected():
    world = world_of()
    (where,) = {shard for name, (_, shard) in world.served.items() if name == "v1/pods"}
    other = next(shard for shard in world.processes if shard != where)
    text = said(world, "v1/pods")
    assert f"went to {where} " in text
    assert f"  not {other}: " in text


def test_what_is_hot_and_waits_says_for_what():
    world = world_of({"web": Namespace(2000, 9000.0), "batch": Namespace(1000, 4000.0)}, run_s=25)
    text = said(world)
    assert "v1/pods on shard-" in text
    assert "above 80% (cutting.split_above); not split: it is hot for" in text
    assert "waits 20 s" in text


def test_what_cannot_be_cut_says_why_each_way_is_no_way():
    cutting = CutSettings(waste_max=0.2, dropped_cost=0.9)
    world = world_of({"web": Namespace(2000, 30_000.0)}, run_s=120, cutting=cutting)
    text = said(world, "v1/pods")
    assert "no ranges of uid of web: the API server does not select by hash" in text
    assert "v1/pods takes " in said(world)
    assert "\nwarnings:\n" in said(world)


def test_a_cut_is_told_with_its_reason_and_what_would_merge_it():
    world = world_of({"web": Namespace(2000, 9000.0), "batch": Namespace(1000, 4000.0)}, run_s=400)
    text = said(world, "v1/pods")
    assert text.startswith("v1/pods is cut into web")
    assert "s ago: v1/pods takes " in text
    assert "would be merged below 30%, they take " in text
    assert "v1/pods[!web] on " in text
    assert "v1/pods[!web] on " in said(world, "v1/pods[!web]")
    assert "v1/pods[web:uid:" not in said(world, "v1/pods[!web]")


def test_a_shard_says_all_it_has():
    world = world_of()
    text = said(world, "shard-1")
    held = [name for name, (_, shard) in world.served.items() if shard == "shard-1"]
    assert text.startswith("shard-1 (healthy on node-1): ")
    assert all(f"\n  {name}: " in text for name in held)


def test_a_shard_that_leaves_says_why_and_what_is_waited_for():
    world = world_of()
    world.drained.add("shard-1")
    world.step()
    text = said(world)
    assert "it is drained" in text
    assert "waited for:" in text
    assert " is to go from shard-1 to shard-0" in text


def test_an_imbalance_says_why_nothing_moves():
    world = world_of()
    world.kinds[next(iter(world.kinds))].burst = 15.0
    world.run(60)
    (where,) = {shard for name, (_, shard) in world.served.items() if name == "v1/pods"}
    text = said(world, "v1/pods")
    assert f"{where} weighs " in text
    assert "more than the lightest" in text
    assert "it does not move: it weighs " in text


@pytest.mark.parametrize("about", ["v1/nothing", "shard-77", "v1/pods[nobody]"])
def test_what_is_not_there_is_said(about):
    with pytest.raises(NotFound, match="there is no partition, resource or shard"):
        said(world_of(run_s=10), about)
