"""The simulation of `support.simulation` with a shard that is killed again and again, and resumes from snapshots.

Readers must not notice: what they see never goes back, is always a state the server had, and is right in the end,
however old, damaged or missing the snapshots are.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

from support.asgi_connection import AsgiConnection
from support.resumed_shard import EPOCH_S, here
from support.simulation import CONFIG_MAPS, FAULT_KINDS, LAYOUTS, NODES, WIDGETS, Part, Permits, Simulation

from shoal.shards.handle import Assignment
from shoal.shards.locations import Folder
from shoal.shards.model.partitions import EVERYTHING, Epoch, Partition, ShardId
from shoal.shards.settings import ShardSettings, SnapshotSettings, StoreSettings, WatchSettings
from shoal.shards.shard import Shard
from shoal.shards.snapshots import Snapshots
from shoal.shards.store.objects import PartitionStore


class MortalPart(Part):
    """A partition of whatever shard there is; nothing is seen of it while it is not served."""

    def __init__(self, partition: Partition, kind: Any, simulation: ResumeSimulation) -> None:
        self.partition = partition
        self.type = kind
        self.sightings = []
        self._simulation = simulation
        self._nothing = PartitionStore(
            partition, kind, settings=StoreSettings(), clock=asyncio.get_running_loop().time
        )

    @property
    def _held(self) -> Any:
        return self._simulation.shard._followed.get(self.partition.id)

    @property
    def store(self) -> PartitionStore:  # type: ignore[override]
        held = self._held
        return held.store if held is not None and held.serving else self._nothing

    @property
    def reflector(self) -> Any:  # type: ignore[override]
        held = self._held
        if held is None or (not held.serving and held.reflector.status.state == "synced"):
            return _NotYet()
        return held.reflector

    @property
    def task(self) -> Any:  # type: ignore[override]
        held = self._held
        return held._task if held is not None else _NotYet()


class _NotYet:
    """In the place of a reflector, and of its task, while the partition is read from a snapshot."""

    story = "reads a snapshot"

    @property
    def status(self) -> Any:
        return self

    state = "pending"

    def done(self) -> bool:
        return False


class ResumeSimulation(Simulation):
    """One seed; snapshots are in `folder`."""

    def __init__(self, seed: int, folder: Path, *, faults: tuple[str, ...] = FAULT_KINDS) -> None:
        super().__init__(seed, faults=faults)
        self.folder = folder
        self.outcomes: Counter[str] = Counter()
        self.lists: Counter[str] = Counter()
        self.kills = 0

    def _follow(self) -> None:
        rng = self.rng
        self.permits = Permits(rng.randint(1, 3))
        self.settings = ShardSettings(
            watch=WatchSettings(
                streaming_list=rng.choice(("auto", "auto", "never")),
                page_limit=rng.choice((2, 5, 500)),
                timeout_min_s=rng.choice((10.0, 30.0, 120.0)),
                list_silence_s=10.0,
                grace_s=3.0,
                backoff_max_s=rng.choice((5.0, 30.0)),
            ),
            store=StoreSettings(history_s=rng.choice((5.0, 300.0))),
            snapshots=SnapshotSettings(
                location=str(self.folder),
                every_s=rng.choice((2.0, 10.0, 60.0)),
                max_age_s=rng.choice((20.0, 3600.0)),
            ),
        )
        layouts = [(CONFIG_MAPS, cover) for cover in rng.choice(LAYOUTS)]
        if rng.random() < 0.5:
            layouts += [(NODES, EVERYTHING)]
        if rng.random() < 0.5:
            layouts += [(WIDGETS, cover) for cover in rng.choice(LAYOUTS[:3])]
        self.assignments = [
            Assignment(partition=Partition(kind.resource, cover), resource_type=kind)
            for kind, cover in layouts
        ]
        self.shard = self._start()
        self.parts += [
            MortalPart(assignment.partition, assignment.resource_type, self)
            for assignment in self.assignments
        ]
        self._adopting = asyncio.ensure_future(self.shard.adopt(self.assignments, Epoch(1)))

    def _start(self) -> Shard:
        connection = AsgiConnection(self.app, rng=random.Random(self.rng.getrandbits(64)))
        snapshots = Snapshots(
            Folder(self.folder),
            self.settings.snapshots,
            shard="shard-0",
            connection=connection,
            managed_fields=False,
            off_loop=here,
            wall=lambda: EPOCH_S + self.loop.time(),
        )
        return Shard(
            ShardId("shard-0"),
            connection=connection,
            permits=self.permits,
            settings=self.settings,
            incarnation=str(self.kills),
            rng=random.Random(self.rng.getrandbits(64)),
            snapshots=snapshots,
        )

    async def _disturb(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super()._disturb(seconds), name="faults")
            group.create_task(self._kill(seconds), name="kills")

    async def _kill(self, seconds: float) -> None:
        rng = self.rng
        pace = rng.choice((10.0, 40.0))
        while self.loop.time() < seconds:
            await asyncio.sleep(rng.expovariate(1 / pace))
            self._count()
            await self.shard.stop()
            self.kills += 1
            await asyncio.sleep(rng.choice((0.0, 1.0, 15.0)))
            if rng.random() < 0.2:
                self._damage()
            self.shard = self._start()
            await self.shard.adopt(self.assignments, Epoch(1))

    def _damage(self) -> None:
        for path in sorted(self.folder.iterdir()):
            content = path.read_bytes()
            path.write_bytes(content[: self.rng.randrange(len(content) + 1)])

    def _count(self) -> None:
        statistics = self.shard.statistics()
        self.outcomes.update(statistics.snapshots)
        for one in statistics.partitions:
            self.lists.update(one.lists)

    def _check_readers(self) -> None:
        self._count()
        super()._check_readers()

    async def _read_pages(self, part: Part) -> None:
        # A list that is paged through ends with the process; looked up anew, it would go on over two of them.
        await super()._read_pages(_Fixed(part, part.store))  # type: ignore[arg-type]


class _Fixed:
    """A partition as it was held when a list began."""

    def __init__(self, part: Part, store: PartitionStore) -> None:
        self.partition, self.type, self.id, self.store = part.partition, part.type, part.id, store
        self.versions = part.versions
