"""Partitions moved, split and made one again at random, between shards that follow an API server with faults, under
changes, with transfers that fail half-way, hand-offs that are given up, and shards that die.

Whoever moves them here is as simple as it can be; what is tested is what the shards promise: whoever is sent from one
to the next, when these have said so, never reads backwards, is told every event, and none twice; at the end they hold
what the API server has; and nothing is listed that could be received.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable

from support.moving import WHOLE, Bad, Bench, on, part

from shoal.cluster.simulator.faults import Fault
from shoal.shards.model.errors import NotReady, NotServed, ShoalError
from shoal.shards.model.partitions import ExceptNamespaces, OneNamespace, Partition, PartitionId, ShardId
from shoal.shards.model.transfers import HandedOver, Taken
from shoal.shards.model.versions import UNKNOWN, Version

HOT = part(OneNamespace("hot"))
REST = part(ExceptNamespaces(("hot",)))
NAMES = [ShardId(f"shard-{number}") for number in range(4)]
STEPS = 12
STREAM_FAULTS = ("cut", "truncate", "garbage", "line-410", "stall")
SPOILED = ("stalls", "dies", "ends early", "garbles")


class Owners:
    """Who serves what, and a mover that changes it."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.random = random.Random(seed)
        self.owners: dict[Partition, ShardId] = {WHOLE: NAMES[0]}
        self.story: list[str] = []

    async def move(self) -> None:
        """A hand-off of some kind, with something going wrong now and then."""
        old = dict(self.owners)
        new = self._wanted()
        spoiled = self.random.random() < 0.3
        if spoiled:
            victim = self.random.choice(list(old.values()))
            how = self.random.choice(SPOILED)
            self.bench.bad[victim] = Bad(self.bench.shard(victim), how, pieces=self.random.randrange(3))
        self.story.append(f"{_text(old)} -> {_text(new)}{' spoiled' if spoiled else ''}")
        try:
            done = await self._received(old, new)
        finally:
            self.bench.bad.clear()
        if done and self.random.random() < 0.8:
            done = await self._switched(old, new)
        else:
            done = False
        if done:
            self.owners = new
            await asyncio.sleep(self.random.random())
        left, kept = (old, new) if done else (new, old)
        for partition, name in left.items():
            if kept.get(partition) != name:
                await self.bench.release(name, partition)
        if not done:
            self.story.append("given up")
            for partition, name in old.items():
                await self.bench.shard(name).adopt(self.bench.assignments(partition), self.bench.epoch)

    def _wanted(self) -> dict[Partition, ShardId]:
        somewhere = self.random.sample(NAMES, 2)
        if len(self.owners) == 2:
            if self.random.random() < 0.6:
                return {WHOLE: somewhere[0]}
            moving = self.random.choice([HOT, REST])
            return {**self.owners, moving: self._other(self.owners[moving])}
        if self.random.random() < 0.5:
            return {HOT: somewhere[0], REST: somewhere[1]}
        return {WHOLE: self._other(self.owners[WHOLE])}

    def _other(self, name: ShardId) -> ShardId:
        return self.random.choice([other for other in NAMES if other != name])

    async def _received(self, old: dict[Partition, ShardId], new: dict[Partition, ShardId]) -> bool:
        came = {name: new[name] for name in new if old.get(name) != new[name]}
        for partition, name in came.items():
            sources = _sources(partition, old)
            await self.bench.receive(
                name, partition, *((old[source], source) for source in sources), wait_s=0
            )
        async with asyncio.timeout(60):
            while True:
                states = {self.bench.statistics(name, partition).state for partition, name in came.items()}
                if "arriving" not in states:
                    return states == {"synced"}
                await asyncio.sleep(0.1)

    async def _switched(self, old: dict[Partition, ShardId], new: dict[Partition, ShardId]) -> bool:
        gone = {name: old[name] for name in old if new.get(name) != old[name]}
        stood: dict[PartitionId, HandedOver] = {}
        for partition, name in gone.items():
            stood |= await self.bench.hand_over(name, partition)
        await asyncio.sleep(self.random.choice((0.0, 0.3, 1.0)))
        if self.random.random() < 0.1:
            return False
        for partition, name in new.items():
            if old.get(partition) == name:
                continue
            told = [stood[source.id] for source in _sources(partition, old)]
            frontier = max(one.frontier for one in told)
            taken = Taken(Version(max(one.shown for one in told)), frontier)
            try:
                await self.bench.shard(name).take_over({partition.id: taken})
            except ShoalError as error:
                self.story.append(str(error))
                return False
        # Until routes say otherwise, everybody reads from where it was.
        await asyncio.sleep(self.random.choice((0.0, 0.3, 1.0)))
        return True


def _sources(partition: Partition, old: Iterable[Partition]) -> list[Partition]:
    """Which of the old ones a new one is made of."""
    if partition in (HOT, REST) and WHOLE in old:
        return [WHOLE]
    return [HOT, REST] if partition == WHOLE and WHOLE not in old else [partition]


def _text(owners: dict[Partition, ShardId]) -> str:
    return " ".join(f"{partition.id}@{name}" for partition, name in owners.items())


async def troubled(bench: Bench, rng: random.Random) -> None:
    """Breaks watches of the API server now and then."""
    while True:
        await asyncio.sleep(rng.uniform(0.5, 3))
        kind = rng.choice(STREAM_FAULTS)
        bench.app.faults.arm(Fault(kind=kind, resource="configmaps", seconds=2, immediate=rng.random() < 0.5))


async def reading(bench: Bench, owners: Owners) -> None:
    """Reads one object of each namespace from whoever serves it, for ever; it never gets older."""
    newest: dict[str, Version] = {}
    while True:
        for namespace in ("hot", "default"):
            partition = next(one for one in owners.owners if one.cover.admits(namespace, ""))
            with contextlib.suppress(NotServed, NotReady):
                store = await bench.shard(owners.owners[partition])._reached(partition.id, UNKNOWN, 1.0)
                assert store.frontier >= newest.get(namespace, UNKNOWN), (
                    f"{namespace} went back\n" + "\n".join(owners.story)
                )
                newest[namespace] = store.frontier
        await asyncio.sleep(0.02)


def test_partitions_that_move_at_random_lose_nothing(move_seed: int) -> None:
    seed = move_seed

    async def main(bench: Bench) -> None:
        rng = random.Random(seed)
        owners = Owners(bench, seed)
        for number in range(60):
            bench.create(f"map-{number}", "hot" if number % 3 else "default", kilobytes=4)
        await bench.follow(NAMES[0])
        began = bench.revision
        tasks = [asyncio.create_task(bench.churned()), asyncio.create_task(reading(bench, owners))]
        if seed % 2:
            tasks.append(asyncio.create_task(troubled(bench, rng)))
        await asyncio.sleep(1)
        for _ in range(STEPS):
            await owners.move()
            await asyncio.sleep(rng.uniform(0, 3))
        for task in tasks:
            task.cancel()
        bench.app.faults.disarm()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), f"{result!r}\n" + "\n".join(owners.story)
        await asyncio.sleep(40)
        bench.sound(*((name, partition) for partition, name in owners.owners.items()))
        for partition, name in owners.owners.items():
            since = max(began, bench.statistics(name, partition).oldest_version)
            told = await bench.changes(name, since, partition)
            assert [version for _, version in told] == sorted(version for _, version in told), "in order"
            assert len(told) == len(set(told)), "none twice"
        held = [one for name in NAMES if name in bench.shards for one in bench.holds(name)]
        assert sorted(held) == sorted(partition.id for partition in owners.owners), "nothing is left behind"
        if not seed % 2:
            assert bench.lists == 1, "\n".join(owners.story)

    on(main)
