"""Placing partitions: everything exactly once, evenly, and nothing moves without need."""

from hypothesis import given
from hypothesis import strategies as st

from shoal.coordinator.placement import place
from shoal.coordinator.settings import PlacementSettings
from shoal.shards.model.partitions import PartitionId, ShardId

NO_MOVES = 0
ALL_MOVES = 10_000

weights = st.dictionaries(
    st.integers(0, 60).map(lambda number: PartitionId(f"v1/p{number:02}")), st.integers(1, 5000), max_size=40
)
shard_names = st.integers(1, 8).map(lambda count: [ShardId(f"shard-{number}") for number in range(count)])
settings = st.builds(
    PlacementSettings,
    tolerance=st.sampled_from((0.0, 0.1, 0.3)),
    worth_weight=st.sampled_from((0.0, 1.0, 500.0)),
)


@st.composite
def situations(draw):
    """Weights, shards, and where some partitions are (also partitions and shards that are gone)."""
    load, shards = draw(weights), draw(shard_names)
    places = st.sampled_from([*shards, ShardId("shard-gone")])
    current = {partition: draw(places) for partition in load if draw(st.booleans())}
    current[PartitionId("v1/gone")] = shards[0]
    return load, shards, current


def loads_of(placement, load, shards):
    return {shard: sum(load[p] for p, on in placement.items() if on == shard) for shard in shards}


def kept_elsewhere(placement, current, shards):
    """Partitions that left a shard that could have kept them."""
    return {
        p
        for p, shard in placement.items()
        if current.get(p, shard) in shards and current.get(p, shard) != shard
    }


@given(situations(), settings, st.integers(0, 5))
def test_every_partition_is_placed_exactly_once_on_a_shard_there_is(situation, rules, moves):
    load, shards, current = situation
    plan = place(load, shards, current, rules, moves=moves)
    assert set(plan.placement) == set(load)
    assert set(plan.placement.values()) <= set(shards)
    assert dict(plan.loads) == loads_of(plan.placement, load, shards)


@given(situations(), settings, st.integers(0, 5))
def test_no_more_moves_than_allowed_and_each_is_explained(situation, rules, moves):
    load, shards, current = situation
    plan = place(load, shards, current, rules, moves=moves)
    moved = kept_elsewhere(plan.placement, current, shards)
    assert len(moved) <= moves
    assert moved == {placing.partition for placing in plan.placings if placing.is_move}
    for placing in plan.placings:
        assert plan.placement[placing.partition] == placing.shard
        assert {rejection.shard for rejection in placing.rejected} == set(shards) - {placing.shard}
        assert placing.reason
        assert all(rejection.reason for rejection in placing.rejected)


@given(situations(), settings)
def test_with_moves_the_shards_are_as_even_as_single_moves_can_make_them(situation, rules):
    load, shards, current = situation
    plan = place(load, shards, current, rules, moves=ALL_MOVES)
    assert not plan.uneven
    most = max(plan.loads.values())
    difference = most - min(plan.loads.values())
    average = sum(load.values()) / len(shards)
    heaviest = {shard for shard in shards if plan.loads[shard] == most}
    assert (
        difference <= average * rules.tolerance
        or difference < rules.worth_weight
        or any(
            all(load[p] > difference * 0.75 for p, shard in plan.placement.items() if shard == heavy)
            for heavy in heaviest
        )
    )


@given(situations(), settings)
def test_nothing_moves_without_need(situation, rules):
    load, shards, current = situation
    plan = place(load, shards, current, rules, moves=ALL_MOVES)
    again = place(load, shards, plan.placement, rules, moves=ALL_MOVES)
    assert again.placement == plan.placement
    assert again.placings == ()


@given(situations(), settings)
def test_it_depends_on_nothing_but_its_arguments(situation, rules):
    load, shards, current = situation
    plan = place(load, shards, current, rules, moves=3)
    shuffled = dict(sorted(load.items(), reverse=True))
    assert place(shuffled, shards, dict(reversed(current.items())), rules, moves=3) == plan


@given(weights.filter(bool), shard_names.filter(lambda shards: len(shards) > 1), settings)
def test_a_shard_that_goes_moves_only_what_it_had(load, shards, rules):
    before = place(load, shards, {}, rules, moves=ALL_MOVES).placement
    gone, left = shards[-1], shards[:-1]
    after = place(load, left, before, rules, moves=NO_MOVES).placement
    assert {p for p in load if after[p] != before[p]} == {p for p in load if before[p] == gone}


@given(st.integers(1, 7), st.integers(20, 60))
def test_a_shard_that_comes_gets_its_part_and_little_else_moves(count, partitions):
    rules = PlacementSettings(tolerance=0.1, worth_weight=0)
    load = {PartitionId(f"v1/p{number}"): 100 + number % 7 for number in range(partitions)}
    shards = [ShardId(f"shard-{number}") for number in range(count)]
    before = place(load, shards, {}, rules, moves=ALL_MOVES).placement
    more = [*shards, ShardId(f"shard-{count}")]
    plan = place(load, more, before, rules, moves=ALL_MOVES)
    moved = kept_elsewhere(plan.placement, before, more)
    assert all(plan.placement[partition] == more[-1] for partition in moved), "moves go to the new shard only"
    fair = partitions / len(more)
    assert fair * 0.7 - 1 <= len(moved) <= fair + 1


@given(situations())
def test_shards_that_may_get_nothing_get_nothing_and_are_named(situation):
    load, shards, current = situation
    unavailable = {ShardId("shard-gone"): "is dead"}
    plan = place(load, shards, current, PlacementSettings(), moves=ALL_MOVES, unavailable=unavailable)
    assert ShardId("shard-gone") not in plan.placement.values()
    assert all(("shard-gone", "is dead") in [(r.shard, r.reason) for r in p.rejected] for p in plan.placings)


@given(weights)
def test_without_shards_nothing_is_placed(load):
    assert place(load, [], {}, PlacementSettings(), moves=ALL_MOVES).placement == {}
