"""How loads are measured: counters to averages, over moves, restarts and cuts."""

import pytest

from shoal.coordinator.planning.loads import Loads
from shoal.coordinator.settings import CutSettings, PlacementSettings, ScalingSettings
from shoal.shards.model.partitions import HASH_END, HashRange, OneNamespace, Partition, ShardId
from shoal.shards.model.queries import PartitionStatistics, ShardStatistics
from shoal.shards.model.resources import Resource
from shoal.shards.model.transfers import NamespaceLoad, Profile

PODS = Partition(Resource("", "v1", "pods"))
NODES = Partition(Resource("", "v1", "nodes"))
A, B = ShardId("a"), ShardId("b")


def part(partition=PODS, *, events=0, queries=0, dropped=0, objects=100, state="synced", **more):
    return PartitionStatistics(
        partition=partition.id,
        state=state,
        objects=objects,
        body_bytes=more.pop("body_bytes", 40_000),
        events={"modified": round(events), "bookmark": 77},
        queries=round(queries),
        dropped=round(dropped),
        **more,
    )


def said(*parts, shard=A, pid=1, cpu=0.0, incarnation="1", **more):
    return ShardStatistics(
        shard=shard, incarnation=incarnation, pid=pid, cpu_seconds=cpu, partitions=list(parts), **more
    )


def measuring(**scaling):
    return Loads(PlacementSettings(smoothing_s=20.0), ScalingSettings(rise_s=5.0, **scaling), CutSettings())


def follow(loads, seconds, rate, *, start=0.0, shard=A, base=0.0, **more):
    """One answer a second, at so many events a second."""
    for second in range(seconds + 1):
        loads.take(said(part(events=base + rate * second), shard=shard, **more), start + second)
    return start + seconds


def test_the_fast_average_is_there_before_the_slow_one():
    loads = measuring()
    follow(loads, 10, 100)
    load = loads.load(PODS.id)
    assert load.events_now == pytest.approx(100 * (1 - 2.718281828 ** (-10 / 5)), rel=0.01)
    assert load.events_per_s == pytest.approx(100 * (1 - 2.718281828 ** (-10 / 20)), rel=0.01)


def test_a_load_goes_on_where_its_partition_moves_to():
    loads = measuring()
    now = follow(loads, 100, 50)
    before = loads.load(PODS.id)
    loads.take(said(part(events=9), shard=B, pid=2), now + 1)
    loads.take(said(shard=A), now + 2)
    assert loads.load(PODS.id).events_now == before.events_now
    follow(loads, 100, 10, start=now + 2, shard=B, pid=2, base=9)
    assert loads.load(PODS.id).events_now == pytest.approx(10, rel=0.01)


def test_a_counter_that_goes_back_changes_no_average():
    loads = measuring()
    now = follow(loads, 100, 50)
    before = loads.load(PODS.id)
    loads.take(said(part(events=3)), now + 1)
    assert loads.load(PODS.id).events_now == before.events_now
    loads.take(said(part(events=1), incarnation="2"), now + 2)
    assert loads.load(PODS.id).events_per_s == before.events_per_s


def test_what_is_not_complete_says_nothing():
    loads = measuring()
    loads.take(said(part(state="pending")), 0)
    assert loads.load(PODS.id) is None
    follow(loads, 10, 5)
    loads.take(said(part(state="pending", objects=0)), 20)
    assert loads.load(PODS.id).objects == 100


def test_a_load_outlives_its_shard_and_is_forgotten_with_its_partition():
    loads = measuring()
    follow(loads, 100, 50)
    loads.keep_shards([B])
    assert loads.load(PODS.id).events_now == pytest.approx(50, rel=0.01)
    assert loads.shard(A).cpu == 0
    loads.keep_only([NODES.id])
    assert loads.load(PODS.id) is None


def test_the_cpu_of_a_shard_is_divided_by_what_its_partitions_did():
    loads = measuring()
    for second in range(200):
        both = part(events=300 * second), part(NODES, events=100 * second)
        loads.take(said(*both, cpu=0.4 * second), second)
    pods, nodes = loads.load(PODS.id), loads.load(NODES.id)
    assert pods.cpu + nodes.cpu == pytest.approx(0.4, rel=0.01)
    assert pods.cpu == pytest.approx(3 * nodes.cpu, rel=0.01)
    assert loads.shard(A).cpu == pytest.approx(0.4, rel=0.01)


def test_large_objects_and_queries_cost_more():
    loads = measuring()
    for second in range(100):
        parts = (
            part(events=100 * second, body_bytes=400_000),
            part(NODES, events=100 * second, body_bytes=0),
        )
        loads.take(said(*parts, cpu=0.6 * second), second)
    assert loads.load(PODS.id).cpu > 5 * loads.load(NODES.id).cpu
    asked = measuring()
    for second in range(100):
        parts = part(events=100 * second), part(NODES, events=100 * second, queries=200 * second)
        asked.take(said(*parts, cpu=0.6 * second), second)
    assert asked.load(NODES.id).cpu > 3 * asked.load(PODS.id).cpu
    assert asked.load(NODES.id).queries_per_s == pytest.approx(200, rel=0.02)


def test_what_a_list_costs_is_nobodys_load():
    loads = measuring()
    for second in range(50):
        loads.take(said(part(events=100 * second), cpu=0.1 * second), second)
    before = loads.load(PODS.id).cpu_now
    for second in range(50, 60):
        parts = part(events=100 * second), part(NODES, state="pending")
        loads.take(said(*parts, cpu=5 + 1.0 * (second - 50)), second)
    assert loads.load(PODS.id).cpu_now == pytest.approx(before)


def test_shards_of_one_process_are_measured_by_their_events():
    loads = measuring(events_per_shard=1000)
    for second in range(200):
        loads.take(said(part(events=100 * second), shard=A, pid=7, cpu=0.9 * second), second)
        loads.take(said(part(NODES, events=10 * second), shard=B, pid=7, cpu=0.9 * second), second)
    size = 1 + 40_000 / 100 / 400
    assert loads.load(PODS.id).cpu == pytest.approx(0.1 * size / 2, rel=0.02)
    assert loads.shard(A).cpu == pytest.approx(loads.load(PODS.id).cpu)
    assert loads.shard(A).resident_bytes == 0, "what they share is nobody's alone"


def test_measured_cpu_can_be_left_out():
    loads = measuring(cpu="events", events_per_shard=1000)
    for second in range(200):
        loads.take(said(part(events=100 * second), cpu=0.9 * second), second)
    assert loads.load(PODS.id).cpu < 0.2


def test_of_several_copies_the_busiest_counts_and_queries_are_added_up():
    loads = measuring()
    for second in range(300):
        loads.take(said(part(events=40 * second, queries=3 * second), shard=A, pid=1), second)
        loads.take(said(part(events=30 * second, queries=2 * second), shard=B, pid=2), second)
    load = loads.load(PODS.id)
    assert load.events_per_s == pytest.approx(40, rel=0.01)
    assert load.queries_per_s == pytest.approx(5, rel=0.02)
    loads.take(said(shard=B, pid=2), 300)
    loads.take(said(part(events=40 * 300, queries=3 * 300), shard=A, pid=1), 300)
    assert loads.load(PODS.id).queries_per_s == pytest.approx(5, rel=0.05), "who asked the one asks the other"


def test_memory_is_corrected_by_what_shards_really_take():
    loads = measuring(process_bytes=100 << 20)
    first = loads.take
    first(said(part(objects=200_000, body_bytes=80 << 20)), 0)
    guess = loads.load(PODS.id).memory_bytes
    for second in range(1, 300):
        loads.take(
            said(part(objects=200_000, body_bytes=80 << 20), resident_bytes=(100 << 20) + guess * 3 // 2),
            second,
        )
    assert loads.load(PODS.id).memory_bytes == pytest.approx(guess * 1.5, rel=0.01)


def test_a_backlog_at_a_busy_shard_counts_as_load():
    loads, calm = measuring(), measuring()
    for second in range(60):
        loads.take(said(part(events=1000 * second, backlog=50_000), cpu=0.95 * second), second)
        calm.take(said(part(events=1000 * second), cpu=0.95 * second), second)
    assert loads.load(PODS.id).cpu_now == pytest.approx(2 * calm.load(PODS.id).cpu_now, rel=0.01)


def test_parts_begin_with_their_share_and_are_measured_from_there():
    loads = measuring()
    now = follow(loads, 200, 100)
    loads.take_profile(
        Profile(
            partition=PODS.id,
            objects=100,
            bytes=40_000,
            seconds=60,
            namespaces=[NamespaceLoad("big", 80, 32_000, 900), NamespaceLoad("small", 20, 8_000, 100)],
            other=NamespaceLoad("", 0, 0, 0),
            uid_weights=[4] * 256,
            namespace_weights=[0] * 256,
        ),
        now,
    )
    big = Partition(PODS.resource, OneNamespace("big"))
    half = Partition(PODS.resource, HashRange("uid", 0, HASH_END // 2))
    loads.expect([big, half], {PODS: PODS.id})
    assert loads.load(big.id).events_now == pytest.approx(90, rel=0.01)
    assert loads.load(big.id).objects == 80
    assert loads.load(half.id).events_now == pytest.approx(50, rel=0.01)
    for second in range(60):
        loads.take(said(part(big, events=30 * second), shard=B, pid=2), now + second)
    assert loads.load(big.id).events_now == pytest.approx(30, rel=0.01)


def test_without_a_profile_parts_are_guessed_by_their_width():
    loads = measuring()
    follow(loads, 200, 100)
    quarter = Partition(PODS.resource, HashRange("uid", 0, HASH_END // 4))
    loads.expect([quarter], {PODS: PODS.id})
    assert loads.load(quarter.id).events_now == pytest.approx(25, rel=0.01)


def test_all_parts_together_are_what_merging_makes_of_them():
    loads = measuring()
    halves = [
        Partition(PODS.resource, HashRange("uid", 0, HASH_END // 2)),
        Partition(PODS.resource, HashRange("uid", HASH_END // 2, HASH_END)),
    ]
    for second in range(200):
        loads.take(said(*(part(half, events=40 * second) for half in halves)), second)
    loads.expect([PODS], {half: half.id for half in halves})
    assert loads.load(PODS.id).events_now == pytest.approx(80, rel=0.01)
    assert loads.load(PODS.id).objects == 200
    assert loads.total().events_now == pytest.approx(80, rel=0.01), "what is expected is not counted twice"
