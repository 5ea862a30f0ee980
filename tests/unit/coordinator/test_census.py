import pytest

from shoal.coordinator.census import Census
from shoal.coordinator.settings import PlacementSettings
from shoal.shards.model.partitions import OneNamespace, Partition, PartitionId
from shoal.shards.model.queries import PartitionStatistics, ShardStatistics
from shoal.shards.model.resources import Resource

PODS = Partition(Resource("", "v1", "pods"))
SETTINGS = PlacementSettings(partition_weight=20, bytes_per_weight=1000, event_weight=10, smoothing_s=10)


def said(objects=100, body_bytes=5000, events=0, *, state="synced", shard="shard-0", incarnation="a"):
    entry = PartitionStatistics(
        partition=PODS.id,
        state=state,
        objects=objects,
        body_bytes=body_bytes,
        events={"modified": events, "bookmark": 1000},
    )
    return ShardStatistics(shard=shard, incarnation=incarnation, pid=1, partitions=[entry])


def test_before_the_first_measurement_the_kind_is_a_hint():
    census = Census(SETTINGS)
    widgets = Partition(Resource("example.com", "v1", "widgets"))
    carved = Partition(PODS.resource, OneNamespace("big"))
    assert census.weight(PODS) > census.weight(carved) > census.weight(widgets) > 0
    census.take(said(state="pending", objects=3), 0)
    assert census.load(PODS.id) is None, "an incomplete partition says nothing"


def test_objects_bytes_and_events_weigh():
    census = Census(SETTINGS)
    census.take(said(), 0)
    assert census.weight(PODS) == 20 + 100 + 5
    for second in range(1, 200):
        census.take(said(events=7 * second), second)
    assert census.load(PODS.id).events_per_s == pytest.approx(7, rel=0.01)
    assert census.weight(PODS) == pytest.approx(20 + 100 + 5 + 70, abs=2)


def test_a_burst_is_smoothed():
    census = Census(SETTINGS)
    census.take(said(), 0)
    census.take(said(events=1000), 1)
    assert census.load(PODS.id).events_per_s == pytest.approx(95, rel=0.01)


def test_the_same_answer_twice_changes_nothing():
    census = Census(SETTINGS)
    census.take(said(), 0)
    census.take(said(events=50), 5)
    before = census.load(PODS.id)
    census.take(said(events=50), 5)
    assert census.load(PODS.id) == before


def test_a_counter_that_starts_afresh_is_no_negative_rate():
    census = Census(SETTINGS)
    census.take(said(events=1000), 0)
    census.take(said(events=1100), 10)
    rate = census.load(PODS.id).events_per_s
    census.take(said(events=3, incarnation="b"), 12)
    assert census.load(PODS.id).events_per_s == rate
    census.take(said(events=5, shard="shard-1"), 14)
    assert census.load(PODS.id).events_per_s == rate
    census.take(said(events=1, shard="shard-1"), 16)
    assert census.load(PODS.id).events_per_s == rate


def test_a_load_outlives_its_shard_but_not_its_partition():
    census = Census(SETTINGS)
    census.take(said(), 0)
    census.take(said(state="pending", objects=0), 5)
    assert census.load(PODS.id).objects == 100
    census.keep_only([PartitionId("v1/other")])
    assert census.load(PODS.id) is None
