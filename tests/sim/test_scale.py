"""The deciding code over modelled shards (`support.scale_world`), small: 1 000 nodes that keep cores as busy as 40 000.

What comes of large ones is in `docs/scale.md`; here it is tested that the ends are reached at all.
"""

import copy

import pytest
from support.scale_charts import Line, Panel, chart
from support.scale_experiments import GIB, first_at, in_time, rest, settled_at
from support.scale_load import Burst, Cluster, Costs
from support.scale_world import World

from shoal.coordinator.settings import CoordinatorSettings, CutSettings, PlacementSettings, ScalingSettings
from shoal.shards.model.covers import divide

SCALING = ScalingSettings(
    min_shards=3,
    max_shards=60,
    memory_bytes=GIB // 2,
    shrink_after_s=10,
    shrink_pause_s=10,
    shrink_share=0.5,
)
CUTTING = CutSettings(pause_s=30, life_s=60, cold_s=40)
QUIET_S = 120.0
LASTS_S = 400.0


def made(selects=("namespace", "uid"), **cluster):
    return World(
        Cluster(1000, selects=selects, small_kinds=4, **cluster),
        CoordinatorSettings(scaling=SCALING, cutting=CUTTING, placement=PlacementSettings(rest_s=20)),
        shards_first=3,
        shards_per_node=2,
        costs=Costs(event_s=1.8e-3, dropped_s=0.6e-3),
    )


@pytest.fixture(scope="module")
def settled():
    world = made()
    assert rest(world, 1800, QUIET_S), "it comes to rest"
    return world


@pytest.fixture
def world(settled):
    return copy.deepcopy(settled)


def check_divided(world):
    """Every resource is divided by what is routed, and shards hold that and nothing else."""
    for resource in world.cluster.kinds:
        assert divide(
            [route.partition.cover for route in world.table.routes if route.partition.resource == resource]
        )
    routed = {(route.partition.id, route.shard) for route in world.table.routes}
    assert {(name, shard.name) for shard in world.shards.values() for name in shard.held} == routed


def test_a_cold_start_comes_to_rest_with_all_served_and_each_partition_listed_once(settled):
    check_divided(settled)
    last = settled.moments[-1]
    assert in_time(last)
    assert last.lists == len(settled.cluster.kinds)
    assert settled.counts["killed for memory"] == 0
    assert last.cpu_max <= 0.8, "no shard is much above its target"


def test_at_rest_nothing_moves_for_hours(world):
    before = world.moments[-1]
    world.step_s = 5.0
    world.run(2 * 3600)
    after = world.moments[-1]
    assert (after.moves, after.cuts, after.wanted, after.lists) == (
        before.moves,
        before.cuts,
        before.wanted,
        before.lists,
    )


def test_what_was_on_a_lost_node_is_listed_once_elsewhere(world):
    lost_at, lists = world.now, world.counts["lists"]
    (node,) = {shard.node for shard in world.shards.values() if shard.name == "shard-0"}
    held = sum(len(shard.held) for shard in world.shards.values() if shard.node == node)
    assert world.lose_node(node)
    assert rest(world, 1800, QUIET_S)
    check_divided(world)
    again_at = first_at([one for one in world.moments if one.at > lost_at], in_time)
    assert again_at - lost_at < 90
    assert world.counts["lists"] - lists <= held + 2


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("resource", "namespace"), [("", "team-0"), ("pods", ""), ("", "")])
def test_a_tenfold_burst_is_spread_and_afterwards_put_together_again(world, resource, namespace):
    world.step_s = 2.0
    before, lists = world.moments[-1], world.counts["lists"]
    began = len(world.moments)
    world.cluster.bursts.append(Burst(10.0, world.now + LASTS_S, resource, namespace))
    world.run(LASTS_S)
    burst = world.moments[began:]
    assert (burst[-1].cuts, max(one.cpu_mean for one in burst)) > (before.cuts, before.cpu_mean)
    assert namespace or max(one.wanted for one in burst) > before.wanted
    assert first_at(burst, in_time) < world.now, "in the end nobody is over the limit and all is in time"
    ended = len(world.moments)
    assert rest(world, 3600, QUIET_S)
    check_divided(world)
    after = world.moments[-1]
    assert after.wanted <= before.wanted + 1
    more = max(one.partitions for one in burst) - before.partitions
    assert after.partitions <= before.partitions + more / 4 + 1, "what was cut for it is put together again"
    wanted = [one.wanted for one in world.moments[ended + 30 :]]
    assert all(a >= b for a, b in zip(wanted, wanted[1:], strict=False)), "it only shrinks"
    assert world.counts["lists"] == lists, "nothing was listed for it"


def test_an_api_server_that_does_not_select_costs_more_and_works():
    world = made(selects=())
    assert rest(world, 1800, QUIET_S)
    check_divided(world)
    assert in_time(world.moments[-1])


def test_a_chart_is_drawn_of_every_line(settled):
    moments = settled.moments
    line = Line("there & wanted", [(one.at, one.shards) for one in moments])
    picture = chart("a <cold> start", "seconds", [Panel("shards", [line, line]), Panel("late", [line])])
    assert picture.count("<polyline") == 3
    assert "there &amp; wanted" in picture
    assert "a &lt;cold&gt; start" in picture
    assert settled_at(moments) <= moments[-1].at
