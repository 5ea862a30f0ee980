"""Planning whole installations by seeds: it comes to rest by constant load, and keeps its rules all the way there.

What has to be so in every moment is checked by `support.planned.World` in every step; a failure names its seed.
"""

import random

import pytest
from support.planned import Namespace, World, kind

from shoal.coordinator.settings import (
    CoordinatorSettings,
    CutSettings,
    PlacementSettings,
    ScalingSettings,
)

SEEDS = range(8)
FEW_SEEDS = range(4)
SELECTS = (frozenset(), frozenset({"uid", "namespace"}))


def made_up(seed, *, memory_bytes=None, replicas=0):
    """An installation of a few large kinds and some small ones."""
    rng = random.Random(seed)
    kinds = []
    for number in range(rng.randint(1, 4)):
        names = rng.randint(1, 30)
        spread = rng.choice((0.5, 1.5, 3.0))
        kinds.append(
            kind(
                f"large{number}",
                {
                    f"ns{at}": Namespace(
                        objects=rng.randint(10, 20_000),
                        events_per_s=rng.random() * 4000 / (1 + at) ** spread,
                        body_bytes=rng.choice((300, 600, 2000)),
                        queries_per_s=rng.choice((0.0, 0.0, 5.0)),
                    )
                    for at in range(names)
                },
                selects=rng.choice(SELECTS),
                namespaced=True,
                carved=tuple(f"ns{at}" for at in range(rng.choice((0, 0, 1, 2)))),
                replicas=replicas if rng.random() < 0.5 else 0,
            )
        )
    kinds += [
        kind(f"small{number}", {"a": Namespace(rng.randint(1, 500), rng.random() * 20)})
        for number in range(rng.randint(0, 25))
    ]
    fewest = rng.randint(1, 4)
    settings = CoordinatorSettings(
        scaling=ScalingSettings(
            min_shards=fewest, max_shards=fewest + rng.choice((0, 3, 12)), memory_bytes=memory_bytes
        ),
        placement=PlacementSettings(moves_at_once=rng.choice((1, 4))),
        cutting=CutSettings(),
    )
    return World(kinds, settings, shards=fewest, nodes=rng.randint(2, 5), seed=seed, step_s=2.0), rng


def trouble(world, rng):
    """A burst, a shard or a node that is lost and comes back, a shard that is drained."""
    match rng.randrange(4):
        case 0:
            rng.choice(list(world.kinds.values())).burst = rng.choice((0.1, 3.0, 10.0))
        case 1:
            world.kill(rng.choice(list(world.processes)))
        case 2:
            node = rng.choice(world.nodes)
            lost = [shard for shard, process in world.processes.items() if process.node == node]
            for shard in lost[: max(len(world.processes) - 1, 0)]:
                world.kill(shard)
        case 3 if len(world.processes) > 1:
            world.drained.add(rng.choice(list(world.processes)))
    world.run(rng.choice((20, 120, 400)))
    for shard, process in list(world.processes.items()):
        if process.dead:
            world.revive(shard)
    world.drained.clear()


@pytest.mark.parametrize("seed", SEEDS)
def test_by_constant_load_it_comes_to_rest(seed):
    world, _ = made_up(seed)
    world.settle()
    assert world.now > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_after_bursts_and_losses_it_comes_to_rest(seed):
    world, rng = made_up(seed + 1000, replicas=1)
    world.run(120)
    for _ in range(4):
        trouble(world, rng)
    world.settle(within_s=20_000)
    served = {name for name, (_, shard) in world.served.items() if not world.processes[shard].dead}
    wanted = {
        partition.id
        for cut in world.planner.last.units.cuts.items()
        for partition in cut[1].partitions(cut[0])
    }
    assert served == wanted, "everything is served, cut as it should be"


@pytest.mark.parametrize("seed", FEW_SEEDS)
def test_with_little_memory_shards_are_asked_for_and_none_gets_too_much(seed):
    """Kinds with more objects than one shard has room for, and room enough in all shards there may be."""
    rng = random.Random(seed)
    room = 64 << 20
    kinds = [
        kind(
            f"large{number}",
            {
                f"ns{at}": Namespace(rng.randint(100, 4000), rng.random() * 5)
                for at in range(rng.randint(10, 40))
            },
            selects=rng.choice(SELECTS),
        )
        for number in range(rng.randint(1, 4))
    ]
    kinds.append(kind("giant", {"one": Namespace(60_000, 20.0)}, selects=rng.choice(SELECTS)))
    settings = CoordinatorSettings(
        scaling=ScalingSettings(min_shards=1, max_shards=30, memory_bytes=2 * room, process_bytes=room)
    )
    world = World(kinds, settings, shards=2, seed=seed, step_s=4.0)
    world.settle(within_s=20_000)
    for shard in list(world.processes):
        world.kill(shard)
    world.run(10)
    for shard in list(world.processes):
        world.revive(shard)
    world.settle(within_s=20_000)
    plan = world.planner.last.plan
    assert not plan.unplaced
    assert not plan.overfull
    for shard, process in world.processes.items():
        held = sum(world.truth(copy.partition).memory for copy in process.copies.values())
        assert held <= room, f"{shard} holds {held / (1 << 20):.0f} MiB"
