"""How many shards, and which: hysteresis, pauses, bounds, who leaves."""

import pytest

from shoal.coordinator.planning.orders import NOT_WANTED, Seat
from shoal.coordinator.planning.scaling import Demand, Scaler
from shoal.coordinator.settings import ScalingSettings
from shoal.shards.model.partitions import ShardId

SETTINGS = ScalingSettings(
    min_shards=1,
    max_shards=40,
    grow_after_s=10,
    grow_pause_s=30,
    shrink_after_s=60,
    shrink_pause_s=300,
)


class Bench:
    """A scaler, a clock and shards that do as they are told."""

    def __init__(self, settings=SETTINGS, shards=2):
        self.now = 0.0
        self.scaler = Scaler(settings, shards)
        self.seats = {ShardId(f"shard-{number}"): "healthy" for number in range(shards)}
        self.weights = {}
        self.stuck = set()
        """Shards that do not get empty."""
        self.scale = None

    def step(self, cpu, seconds=1, *, high=None, memory=0.0):
        for _ in range(seconds):
            self.now += 1
            demands = [Demand("CPU", cpu, cpu if high is None else high, 1.0)]
            if memory:
                demands.append(Demand("memory", memory, memory, 100.0))
            leaving = self.scale.leaving if self.scale else {}
            seats = [
                Seat(shard, state, leaving="is leaving" if shard in leaving else "")
                for shard, state in self.seats.items()
            ]
            self.scale = self.scaler.decide(self.now, demands, seats, self.weights)
            for shard in self.scale.members:
                self.seats.setdefault(shard, "healthy")
            for shard in [one for one in self.seats if one not in self.scale.members]:
                if shard not in self.stuck:
                    del self.seats[shard]
        return len(self.scale.members)


def test_it_grows_after_a_while_and_at_once_to_what_is_needed():
    bench = Bench()
    assert bench.step(1.6, 10) == 2, "it has to last"
    assert bench.step(1.6, 2) == 3, "1.6 cores at 60 % take three"
    assert bench.step(1.6, 1000) == 3


def test_between_the_limits_nothing_changes():
    bench = Bench()
    assert bench.step(1.45, 2000) == 2
    assert bench.step(0.85, 5000) == 2
    assert "more above 75%, fewer below 40%" in bench.scale.reasons[0]


def test_a_large_burst_doubles_them_at_most_each_time():
    bench = Bench(shards=8)
    sizes = [bench.step(26.0) for _ in range(200)]
    assert sizes[0] == 8
    assert sorted(set(sizes)) == [8, 16, 32, 40]
    assert sizes.index(32) - sizes.index(16) >= 30


def test_it_shrinks_late_and_only_by_a_part():
    bench = Bench(shards=20)
    first = next(second for second in range(5000) if bench.step(1.0) < 20)
    assert 299 <= first <= 301
    assert bench.step(1.0) == 18
    assert bench.step(1.0, 290) == 18
    assert bench.step(1.0, 20_000) == 2, "one core at 60 % takes two"
    assert "use" in bench.scale.reasons[0]


def test_shrinking_goes_by_the_higher_of_both_averages():
    bench = Bench(shards=4)
    assert bench.step(0.5, 3000, high=2.0) == 4


def test_the_most_wanted_thing_decides():
    bench = Bench()
    assert bench.step(0.1, 100, memory=190.0) == 4
    assert "their memory" in bench.scale.reasons[0]


def test_who_leaves_is_the_lightest_and_who_never_started_before():
    bench = Bench(shards=4)
    bench.weights = {
        ShardId("shard-0"): 5,
        ShardId("shard-1"): 50,
        ShardId("shard-2"): 500,
        ShardId("shard-3"): 60,
    }
    bench.stuck = set(bench.seats)
    bench.seats[ShardId("shard-2")] = "starting"
    bench.step(0.1, 700)
    assert list(bench.scale.leaving) == ["shard-2"]
    bench.stuck.discard(ShardId("shard-2"))
    bench.step(0.1, 700)
    assert "shard-0" in bench.scale.leaving
    assert bench.scale.members == ("shard-1", "shard-3")
    assert "waits for shard-0 to be empty" in bench.scale.reasons[0]


def test_who_is_leaving_is_called_back_before_anybody_is_started():
    bench = Bench(shards=4)
    bench.stuck = set(bench.seats)
    bench.step(0.1, 700)
    assert len(bench.scale.leaving) == 1
    bench.step(8.0, 60)
    assert not bench.scale.leaving
    assert {"shard-0", "shard-1", "shard-2", "shard-3"} < set(bench.scale.members)


def test_a_drained_shard_is_replaced_by_another():
    bench = Bench(shards=2)
    bench.step(1.0)
    seats = [Seat(ShardId("shard-0"), leaving="is drained"), Seat(ShardId("shard-1"))]
    scale = bench.scaler.decide(5, [Demand("CPU", 1, 1, 1)], seats, {})
    assert scale.members == ("shard-1", "shard-2")


def test_a_shard_that_is_drained_no_more_stays_instead_of_one_that_has_not_started():
    bench = Bench(shards=2)
    bench.step(1.0)
    demand = [Demand("CPU", 1, 1, 1)]
    drained = [Seat(ShardId("shard-0"), leaving="is drained"), Seat(ShardId("shard-1"))]
    assert bench.scaler.decide(5, demand, drained, {}).members == ("shard-1", "shard-2")
    back = [Seat(ShardId("shard-0"), leaving=NOT_WANTED), Seat(ShardId("shard-1"))]
    assert bench.scaler.decide(6, demand, back, {}).members == ("shard-0", "shard-1")
    starting = [*back, Seat(ShardId("shard-2"), "starting")]
    assert bench.scaler.decide(7, demand, starting, {}).members == ("shard-0", "shard-1")
    started = [
        Seat(ShardId("shard-0"), leaving="is drained"),
        Seat(ShardId("shard-1")),
        Seat(ShardId("shard-2")),
    ]
    bench.scaler.decide(8, demand, started, {})
    back = [Seat(ShardId("shard-0"), leaving=NOT_WANTED), *started[1:]]
    assert bench.scaler.decide(9, demand, back, {}).members == ("shard-1", "shard-2"), "too late"


def test_without_bounds_the_number_is_the_settings():
    bench = Bench(ScalingSettings(), shards=3)
    assert bench.step(100.0, 3000) == 3
    assert bench.step(0.0, 3000) == 3
    bench.scaler.resize(5)
    assert bench.step(0.0) == 5
    assert any("would need" in warning for warning in bench_warnings(bench))


def bench_warnings(bench):
    bench.step(100.0)
    return bench.scale.warnings


def test_bounds_hold_for_what_is_asked_for_by_hand():
    bench = Bench(ScalingSettings(min_shards=2, max_shards=4), shards=3)
    bench.step(1.2)
    bench.scaler.resize(100)
    assert bench.step(1.2) == 4


@pytest.mark.parametrize(
    ("low", "high", "shards", "bounds"),
    [
        (None, None, 3, (3, 3)),
        (None, 9, 3, (3, 9)),
        (None, 2, 3, (2, 2)),
        (5, None, 3, (5, 5)),
        (1, None, 3, (1, 3)),
    ],
)
def test_a_bound_that_is_not_named_is_the_number_in_shards(low, high, shards, bounds):
    assert Scaler(ScalingSettings(min_shards=low, max_shards=high), shards).bounds == bounds


def test_who_comes_back_finds_what_its_predecessor_wanted():
    bench = Bench(shards=2)
    seats = [Seat(ShardId(f"shard-{number}")) for number in range(9)]
    scale = bench.scaler.decide(1, [Demand("CPU", 1, 1, 1)], seats, {})
    assert len(scale.members) == 9


def test_partitions_without_room_ask_for_shards():
    scaler = Scaler(SETTINGS, 2)
    seats = [Seat(ShardId("shard-0")), Seat(ShardId("shard-1"))]
    for second in range(30):
        scale = scaler.decide(
            second, [Demand("CPU", 0.1, 0.1, 1)], seats, {}, missing_bytes=200.0, room_bytes=100.0
        )
    assert len(scale.members) == 6, "200 at 60 % of 100 each takes four more"


def test_shards_that_do_not_start_are_warned_of():
    scaler = Scaler(SETTINGS, 2)
    seats = [Seat(ShardId("shard-0")), Seat(ShardId("shard-1"), "starting")]
    for second in range(130):
        scale = scaler.decide(second, [Demand("CPU", 0.1, 0.1, 1)], seats, {})
    assert "shard-1 did not start within 120 s" in scale.warnings[0]
    assert "ray status" in scale.warnings[0]
