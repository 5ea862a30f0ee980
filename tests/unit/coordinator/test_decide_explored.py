"""Deciding, explored: seeded walks through everything that can happen to a coordinator and its shards.

A walk is a few hundred random steps (shards crash, hang and come back, instructions get lost, resources and
namespaces to carve come and go, loads change, shards are added and taken away, people move, split, merge and
drain, switches fail before, in the middle of and after what they do, the coordinator dies, also between two
steps of a hand-off). After each step what must hold at every moment is checked
(`support.control.Bench`); after the walk everything heals, and then every followed partition is served by
exactly one live shard at the published epoch. A failure names its seed; `explore` with that seed is the same
walk again.
"""

import contextlib
import random

import pytest
from support.control import Bench, catalogue_of

from shoal.coordinator.commands import Drain, Move, Rebalance, Split, Undrain, Unpin
from shoal.coordinator.settings import LivenessSettings, PlacementSettings
from shoal.shards.model.errors import ShoalError
from shoal.shards.model.partitions import PartitionId, ShardId

KINDS = ("pods", "events", "configmaps", "services", "nodes", "leases", "widgets", "gadgets", "secrets")
SEEDS_A_TEST = 12


class Walk:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.bench = Bench(
            self.rng.randint(1, 5),
            settings=PlacementSettings(
                tolerance=self.rng.choice((0.0, 0.3)),
                worth_weight=self.rng.choice((0, 200)),
                settle_s=self.rng.choice((0, 5)),
                moves_at_once=self.rng.randint(1, 3),
                release_grace_s=self.rng.choice((0, 2, 5)),
            ),
            liveness=LivenessSettings(dead_after_s=5, start_timeout_s=8),
            sync_s=self.rng.choice((0.0, 1.0, 4.0)),
            transfer_s=self.rng.choice((0.0, 0.5, 3.0)),
        )
        faulty = self.rng.choice((0.0, 0.1, 0.4))
        self.bench.fail_switch = lambda _: (
            self.rng.choice(("refused", "half", "silent")) if self.rng.random() < faulty else ""
        )
        self.kinds = set(self.rng.sample(KINDS, 5))

    def step(self):
        self.event()
        if self.rng.random() < 0.95 or self.bench.catalogue is None:
            self.bench.catalogue = catalogue_of(*sorted(self.kinds))
        self.bench.step(self.rng.choice((0.2, 1.0, 3.0)))

    def event(self):
        bench, rng = self.bench, self.rng
        shards = sorted(bench.shards)
        some = rng.choice(shards) if shards else ShardId("shard-0")
        match rng.choices(
            (
                "nothing",
                "crash",
                "away",
                "back",
                "lost",
                "kind",
                "load",
                "coordinator",
                "resize",
                "gone",
                "carve",
                "order",
                "slow",
            ),
            (40, 6, 6, 10, 6, 10, 10, 3, 3, 3, 3, 10, 3),
        )[0]:
            case "crash" if shards:
                bench.shards[some].crash()
            case "away":
                bench.unreachable.add(some)
            case "back":
                bench.unreachable.discard(some)
            case "lost":
                bench.lost_instructions.add(some)
            case "kind":
                self.kinds ^= {rng.choice(KINDS)}
            case "load":
                bench.objects[PartitionId(f"v1/{rng.choice(KINDS)}")] = rng.randint(0, 3000)
            case "coordinator":
                bench.restart_coordinator()
            case "resize":
                bench.wanted = rng.randint(1, 5)
            case "gone" if shards and bench.shards[some].held:
                bench.shards[some].held[rng.choice(sorted(bench.shards[some].held))].gone = True
            case "carve":
                bench.carve = rng.choice(({}, {"pods": ("a",)}, {"pods": ("a", "b")}, {"widgets": ("c",)}))
            case "order":
                self.order(some)
            case "slow":
                bench.outcomes_after = rng.choice((0, 0, 1, 3))
            case _:
                pass

    def order(self, shard):
        """Somebody orders something, perhaps something that cannot be."""
        rng = self.rng
        partition = rng.choice(sorted(self.bench.routed()) or ["v1/pods"])
        kind = f"v1/{rng.choice(KINDS)}"
        order = rng.choice(
            (
                Move(PartitionId(partition), shard),
                Move(PartitionId(partition), shard),
                Split(target=kind, carve=(rng.choice("abc"),)),
                Split(target=partition, ranges=rng.choice((2, 3))),
                Split(target=kind, ranges=2, field="namespace"),
                Split(target=partition, merge=True),
                Drain(shard),
                Undrain(shard),
                Unpin(kind),
                Rebalance(),
            )
        )
        with contextlib.suppress(ShoalError):
            self.bench.order(order)

    def heal(self):
        self.bench.unreachable.clear()
        self.bench.fail_switch = lambda _: ""
        self.bench.outcomes_after = 0
        self.bench.decider.by_hand.drained.clear()
        self.bench.catalogue = catalogue_of(*sorted(self.kinds))
        self.bench.settle(200)


def explore(seed, steps=250):
    walk = Walk(seed)
    for _ in range(steps):
        walk.step()
    walk.heal()
    walk.bench.check_served()
    epochs = [table.epoch for table in walk.bench.published]
    assert epochs == sorted(set(epochs))
    assert all(walk.bench.step().instructions == () for _ in range(30)), "at rest nothing is told any more"
    return walk.bench


@pytest.mark.parametrize("first", range(0, 8 * SEEDS_A_TEST, SEEDS_A_TEST))
def test_whatever_happens_everything_is_served_in_the_end(first):
    for seed in range(first, first + SEEDS_A_TEST):
        try:
            explore(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_a_walk_is_the_same_every_time():
    assert explore(7).published == explore(7).published
