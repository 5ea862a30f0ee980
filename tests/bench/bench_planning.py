"""What one plan costs: CPU of `LoadPlanner.orders` for many partitions on many shards, in made-up situations.

    PYTHONPATH=tests python tests/bench/bench_planning.py [--partitions 2000] [--shards 300] [--repeat 5]

Statistics of all shards are taken in beforehand and counted apart; CPU is process time, the lowest of all repetitions.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

from support.planned import Namespace, World, kind

from shoal.coordinator.planning.planner import LoadPlanner
from shoal.coordinator.settings import CoordinatorSettings, ScalingSettings


def cpu_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    rng = random.Random(1)
    kinds = [
        kind(f"kind{number:05}", {"a": Namespace(rng.randint(10, 20_000), rng.random() * 60)})
        for number in range(given.partitions)
    ]
    settings = CoordinatorSettings(
        scaling=ScalingSettings(min_shards=given.shards, max_shards=given.shards, memory_bytes=4 << 30)
    )
    world = World(kinds, settings, shards=given.shards, nodes=50)
    world.run(60)

    def lowest(work: Callable[[], object]) -> float:
        return min(cpu_ms(work) for _ in range(given.repeat))

    def plan() -> None:
        world.planner.orders(world.situation())

    print(f"{given.partitions} partitions on {given.shards} shards, ms of CPU")
    print(f"  at rest               {lowest(plan):8.1f}")
    situation = world.situation()
    empty = lambda: LoadPlanner(settings, given.shards, world.planner.census).orders(situation)  # noqa: E731
    print(f"  the first of a planner{lowest(empty):8.1f}")
    for one in list(world.kinds.values())[:: max(given.partitions // 200, 1)]:
        one.burst = 20.0
    world.run(30)
    print(f"  in a burst            {lowest(plan):8.1f}")
    for shard in list(world.processes)[: given.shards // 15]:
        world.kill(shard)
    print(f"  a fifteenth lost      {cpu_ms(plan):8.1f}")
    print(f"  rehearsed             {lowest(lambda: world.planner.rebalanced(world.situation())):8.1f}")


if __name__ == "__main__":
    main()
