"""Planning's parts: shares add up, cut points divide evenly, splits are not undone, placements keep their rules."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shoal.coordinator.cuts import WHOLE, Cut
from shoal.coordinator.placement import place
from shoal.coordinator.planning.dividing import Mass, share_of
from shoal.coordinator.planning.heat import Limits, part_of
from shoal.coordinator.planning.measures import Load
from shoal.coordinator.planning.merging import merge, with_kept
from shoal.coordinator.planning.orders import Divisible, Seat
from shoal.coordinator.planning.scaling import Demand, Scaler
from shoal.coordinator.planning.seating import Rules
from shoal.coordinator.planning.splitting import Subject, propose
from shoal.coordinator.settings import CutSettings, PlacementSettings, ScalingSettings
from shoal.shards.model.partitions import EVERYTHING, HASH_END, Partition, PartitionId, ShardId, hashed
from shoal.shards.model.resources import Resource
from shoal.shards.model.transfers import NamespaceLoad, Profile

PODS = Resource("", "v1", "pods")
CUTTING = CutSettings()
SCALING = ScalingSettings()
LIMITS = Limits.of(SCALING, CUTTING)

names = st.integers(0, 400).map(lambda number: f"ns{number}")
hashes = st.integers(1, HASH_END - 1)


@st.composite
def profiles(draw, partition="v1/pods"):
    """Of a whole resource; all namespaces are named, uids are evenly hashed."""
    found = draw(
        st.dictionaries(
            names, st.tuples(st.integers(1, 5000), st.integers(0, 50_000)), min_size=1, max_size=40
        )
    )
    loads = [NamespaceLoad(name, objects, objects * 400, events) for name, (objects, events) in found.items()]
    loads.sort(key=lambda load: (-load.events, -load.objects, load.name))
    by_namespace = [0] * 256
    for load in loads:
        by_namespace[hashed(load.name) >> 56] += load.objects + load.events
    total = sum(by_namespace)
    return Profile(
        partition=PartitionId(partition),
        objects=sum(load.objects for load in loads),
        bytes=sum(load.bytes for load in loads),
        seconds=60.0,
        namespaces=loads,
        other=NamespaceLoad("", 0, 0, 0),
        uid_weights=[total // 256 + (bucket < total % 256) for bucket in range(256)],
        namespace_weights=by_namespace,
    )


@st.composite
def cuts(draw):
    cut = WHOLE
    for name in draw(st.lists(names, max_size=4, unique=True)):
        cut = cut.split_namespace(name, sorted(draw(st.sets(hashes, max_size=3))))
    return cut.split_rest(
        draw(st.sampled_from(("namespace", "uid"))), sorted(draw(st.sets(hashes, max_size=4)))
    )


def load_of(profile, events_per_s):
    cpu = events_per_s * 45e-6
    return Load(
        profile.objects, profile.bytes, events_per_s, events_per_s, 0.0, cpu, cpu, profile.objects * 1600
    )


# -- shares and cut points -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(profiles(), cuts())
def test_the_parts_of_a_cut_have_together_what_the_whole_has(profile, cut):
    shares = [share_of(EVERYTHING, profile, cover) for cover in cut.covers()]
    assert sum(share.objects for share in shares) == pytest.approx(1.0, abs=1e-6)
    assert sum(share.bytes for share in shares) == pytest.approx(1.0, abs=1e-6)
    assert sum(share.events for share in shares) == pytest.approx(1.0, abs=1e-6)
    assert all(-1e-9 <= share.events <= 1 + 1e-9 for share in shares)


@settings(deadline=None)
@given(profiles(), cuts())
def test_of_namespaces_that_are_named_shares_are_exact(profile, cut):
    cut = cut.split_rest("namespace", cut.rest_bounds if cut.rest_field == "namespace" else ())
    for cover in cut.covers():
        if getattr(cover, "field", "namespace") != "namespace":
            continue
        within = [one for one in profile.namespaces if cover.admits(one.name, "")]
        share = share_of(EVERYTHING, profile, cover)
        assert share.objects == pytest.approx(sum(one.objects for one in within) / profile.objects, abs=1e-6)


@settings(deadline=None)
@given(profiles(), st.sampled_from(("namespace", "uid")), st.integers(2, 20))
def test_cut_points_are_in_order_and_no_part_is_heavier_than_its_share_and_one_namespace(
    profile, field, parts
):
    mass = Mass.of(profile, field)
    bounds = mass.bounds(0, HASH_END, parts)
    assert list(bounds) == sorted(set(bounds))
    assert len(bounds) < parts
    edges = (0, *bounds, HASH_END)
    weights = [mass.between(low, high) for low, high in zip(edges, edges[1:], strict=False)]
    assert sum(weights) == pytest.approx(mass.total)
    largest = max(one.objects + one.events for one in profile.namespaces) if field == "namespace" else 0
    fair = mass.total / parts
    # Where cut points are left out because a part would be almost nothing, its neighbour has that much more.
    assert max(weights) <= fair * 1.2 + largest + parts * fair * 0.1 + 1


@settings(deadline=None)
@given(profiles(), st.lists(hashes, min_size=2, max_size=2, unique=True))
def test_weight_below_a_hash_grows_with_it(profile, bounds):
    mass = Mass.of(profile, "namespace")
    low, high = sorted(bounds)
    assert 0 <= mass.below(low) <= mass.below(high) <= mass.total + 1e-6
    exact = sum(one.objects + one.events for one in profile.namespaces if hashed(one.name) < low)
    assert mass.below(low) == pytest.approx(exact, abs=1e-3), "all weight is in namespaces that are named"


# -- splits and merges ---------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    profiles(),
    st.floats(7300, 60_000),
    st.sampled_from((frozenset(), frozenset({"uid"}), frozenset({"uid", "namespace"}))),
    st.integers(0, 3),
)
def test_what_was_split_is_not_merged_and_its_parts_are_colder(profile, events_per_s, selects, carved):
    kept = tuple(one.name for one in profile.namespaces[:carved])
    resource = Divisible(PODS, carved=kept, selects=selects)
    load = load_of(profile, events_per_s)
    subject = Subject(resource, Partition(PODS), load, profile, WHOLE, LIMITS, CUTTING)
    proposal = propose(subject).proposal
    assume(proposal is not None)
    assert proposal.hottest <= 0.75 * subject.heat.value
    assert Cut.of(proposal.cut.covers()) == proposal.cut
    if selects:
        loads = {
            cover: part_of(load, share_of(EVERYTHING, profile, cover)) for cover in proposal.cut.covers()
        }
        merged = merge(proposal.cut, WHOLE, loads, LIMITS, CUTTING)
        assert merged.cut == proposal.cut, f"a split into {proposal.cut} is undone: {merged.reason}"


@settings(deadline=None)
@given(profiles(), st.floats(0, 60_000), cuts(), cuts())
def test_what_was_merged_is_not_split_and_what_is_kept_is_kept(profile, events_per_s, cut, kept):
    cut = with_kept(cut, kept)
    load = load_of(profile, events_per_s)
    loads = {cover: part_of(load, share_of(EVERYTHING, profile, cover)) for cover in cut.covers()}
    merged = merge(cut, kept, loads, LIMITS, CUTTING).cut
    assert merged.parts <= cut.parts
    assert set(kept.names) <= set(merged.names)
    assert with_kept(merged, kept) == merged
    changed = set(merged.covers()) - set(cut.covers())
    for cover in changed:
        heat = LIMITS.now(part_of(load, share_of(EVERYTHING, profile, cover)))
        assert heat.value < CUTTING.split_above, f"{cover} was merged and is hot at once: {heat}"


# -- shards --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    st.floats(0, 40),
    st.floats(0, 600_000),
    st.integers(1, 30),
    st.integers(1, 10),
    st.integers(0, 50),
)
def test_by_constant_demand_shards_come_to_rest_within_their_bounds(cpu, events, shards, low, more):
    settings = ScalingSettings(min_shards=low, max_shards=low + more)
    scaler = Scaler(settings, shards)
    demands = (Demand("CPU", cpu, cpu, 1.0), Demand("events", events, events, settings.events_per_shard))
    seats = [ShardId(f"shard-{number}") for number in range(shards)]
    sizes = []
    for second in range(0, 40_000, 40):
        scale = scaler.decide(float(second), demands, [Seat(shard) for shard in seats], {})
        assert low <= len(scale.members) <= low + more
        seats = sorted(set(scale.members))  # whoever leaves is empty at once
        sizes.append(len(scale.members))
    assert len(set(sizes[-250:])) == 1, "the number of shards comes to rest"
    used = max(demand.used(demand.now, sizes[-1]) for demand in demands)
    assert used <= settings.grow_above or sizes[-1] == low + more
    first_peak = max(range(len(sizes)), key=sizes.__getitem__)
    assert sizes[: first_peak + 1] == sorted(sizes[: first_peak + 1]) or sizes == sorted(sizes, reverse=True)


# -- places --------------------------------------------------------------------------------------------------


@st.composite
def seatings(draw):
    """Partitions with weights and memory, some with copies; shards on nodes; where some are now."""
    count = draw(st.integers(1, 8))
    shards = [ShardId(f"shard-{number}") for number in range(count)]
    weights, memory, group = {}, {}, {}
    for number in range(draw(st.integers(0, 25))):
        weight, size = draw(st.integers(1, 5000)), draw(st.integers(0, 500))
        copies = draw(st.integers(1, 3))
        for copy in range(copies):
            unit = PartitionId(f"v1/p{number}" + (f"#{copy}" if copy else ""))
            weights[unit], memory[unit] = weight, size
            if copies > 1:
                group[unit] = f"v1/p{number}"
    rules = Rules(
        memory=memory,
        room=dict.fromkeys(shards, draw(st.integers(500, 4000))) if draw(st.booleans()) else {},
        group=group,
        nodes={shard: f"node-{draw(st.integers(0, 2))}" for shard in shards},
    )
    current, taken = {}, set()
    for unit in weights:
        shard = draw(st.sampled_from((*shards, None)))
        if shard is not None and (group.get(unit, unit), shard) not in taken:
            current[unit] = shard
            taken.add((group.get(unit, unit), shard))
    return weights, shards, current, rules


def used_of(placement, rules):
    used = {}
    for unit, shard in placement.items():
        used[shard] = used.get(shard, 0) + rules.memory[unit]
    return used


@settings(deadline=None)
@given(seatings(), st.integers(0, 20))
def test_copies_keep_apart_and_memory_is_not_exceeded_by_what_is_placed(situation, moves):
    weights, shards, current, rules = situation
    plan = place(weights, shards, current, PlacementSettings(worth_weight=100), moves=moves, rules=rules)
    assert set(plan.placement) | set(plan.unplaced) == set(weights)
    assert not set(plan.placement) & set(plan.unplaced)
    on = [(rules.group.get(unit, unit), shard) for unit, shard in plan.placement.items()]
    assert len(on) == len(set(on)), "two copies are never on one shard"
    used = used_of(plan.placement, rules)
    for shard, room in rules.room.items():
        if used.get(shard, 0) > room:
            assert shard in plan.overfull, "too much on a shard is told"
            came = [unit for unit, to in plan.placement.items() if to == shard and current.get(unit) != shard]
            assert came == [], "nothing is put where there is no memory for it"
    balance = [placing for placing in plan.placings if placing.for_balance]
    assert len(balance) <= moves


@st.composite
def roomy(draw):
    """Partitions that take at most a part m of a shard's room each, and at most 1 - m of all rooms together."""
    count, room = draw(st.integers(1, 8)), 1000
    most = draw(st.integers(1, 900))
    left = (room - most) * count
    memory, weights = {}, {}
    for number in range(draw(st.integers(1, 30))):
        size = min(draw(st.integers(0, most)), left)
        left -= size
        memory[PartitionId(f"v1/p{number}")] = size
        weights[PartitionId(f"v1/p{number}")] = draw(st.integers(1, 5000))
    shards = [ShardId(f"shard-{number}") for number in range(count)]
    return weights, shards, Rules(memory=memory, room=dict.fromkeys(shards, room))


@settings(deadline=None)
@given(roomy(), st.integers(0, 5))
def test_where_little_enough_is_to_be_placed_all_of_it_has_room(situation, moves):
    weights, shards, rules = situation
    heap = dict.fromkeys(weights, shards[0])
    for current in ({}, heap):
        plan = place(weights, shards, current, PlacementSettings(worth_weight=0), moves=moves, rules=rules)
        assert not plan.unplaced
        assert not plan.overfull
        assert all(used <= 1000 for used in used_of(plan.placement, rules).values())


@settings(deadline=None)
@given(seatings())
def test_copies_are_on_different_nodes_where_nothing_else_stands_against_it(situation):
    weights, shards, _, rules = situation
    rules = Rules(memory=rules.memory, group=rules.group, nodes=rules.nodes)
    plan = place(weights, shards, {}, PlacementSettings(), moves=0, rules=rules)
    nodes = set(rules.nodes.values())
    for name in set(rules.group.values()):
        units = [unit for unit, group in rules.group.items() if group == name]
        on = {rules.nodes[plan.placement[unit]] for unit in units if unit in plan.placement}
        assert len(on) == min(len(nodes), len(units), len(shards))


@settings(deadline=None)
@given(seatings())
def test_a_placement_that_was_made_is_kept(situation):
    weights, shards, current, rules = situation
    settings = PlacementSettings(worth_weight=100)
    plan = place(weights, shards, current, settings, moves=10_000, rules=rules)
    placed = {unit: weight for unit, weight in weights.items() if unit in plan.placement}
    again = place(placed, shards, plan.placement, settings, moves=10_000, rules=rules)
    assert again.placement == plan.placement


@settings(deadline=None)
@given(seatings())
def test_what_rests_does_not_move_and_everything_rejected_has_a_reason(situation):
    weights, shards, current, rules = situation
    rules = Rules(
        memory=rules.memory, group=rules.group, nodes=rules.nodes, resting=dict.fromkeys(weights, "moved")
    )
    plan = place(weights, shards, current, PlacementSettings(worth_weight=0), moves=1000, rules=rules)
    assert all(plan.placement[unit] == shard for unit, shard in current.items())
    for placing in plan.placings:
        assert {one.shard for one in placing.rejected} == set(shards) - {placing.shard}
        assert all(one.reason for one in placing.rejected)


def test_no_limit_is_infinite_memory():
    assert LIMITS.memory == math.inf
