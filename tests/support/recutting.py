"""A small coordinator for simulations of recuts: it divides resources anew when it is told to, and nothing else.

It does what a hand-off consists of, step by step: adopt with sources (or without, then the new shards list), wait until
all have caught up, hand over, take over, publish, and after a grace release. Whatever goes wrong before publication
leaves the old shards in charge. Beside that it gives shards that came back empty their partitions again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any

from support.watch_simulation_links import MortalShard

from shoal.coordinator.cuts import WHOLE, Cut, even_bounds
from shoal.coordinator.routes import Route, RouteTable
from shoal.shards.handle import Assignment
from shoal.shards.model.covers import disjoint
from shoal.shards.model.errors import NotReady, ShoalError
from shoal.shards.model.partitions import HASH_END, Epoch, Partition, PartitionId, ShardId
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.transfers import HandedOver, Source, Taken
from shoal.shards.model.versions import UNKNOWN, Version

CATCH_UP_S = 20.0
CALL_S = 10.0
GRACE_S = 2.0
HEAL_S = 0.5

CUTS = (
    WHOLE,
    WHOLE.carve("alpha"),
    WHOLE.carve("alpha").carve("alpha-2").carve("beta"),
    WHOLE.split_rest("uid", even_bounds(2)),
    WHOLE.split_rest("uid", (HASH_END // 5, HASH_END // 3)),
    WHOLE.split_rest("namespace", even_bounds(2)),
    WHOLE.carve("beta").split_rest("namespace", even_bounds(3)),
    WHOLE.split_namespace("alpha", even_bounds(2)),
    WHOLE.split_namespace("alpha", even_bounds(3)).carve("gamma").split_rest("uid", even_bounds(2)),
)


class Cutter:
    """One coordinator for a whole simulation. `keep` runs beside it."""

    def __init__(
        self,
        shards: Mapping[ShardId, MortalShard],
        types: Iterable[ResourceType],
        *,
        rng: random.Random,
        note: Callable[[str], None],
    ) -> None:
        self.cuts: dict[Resource, Cut] = {}
        self.recuts = self.failed = 0
        self.table = RouteTable()
        self._shards = shards
        self._types = {known.resource: known for known in types}
        self._rng = rng
        self._note = note
        self._placed: dict[PartitionId, tuple[Partition, ShardId]] = {}
        self._epoch = 0
        self._published = asyncio.Event()
        self._busy = asyncio.Lock()

    async def start(self, cuts: Mapping[Resource, Cut]) -> None:
        """Places everything and waits until it is served."""
        for resource in self._types:
            self.cuts[resource] = cuts.get(resource, WHOLE)
            for partition in self.cuts[resource].partitions(resource):
                self._placed[partition.id] = (partition, self._rng.choice(list(self._shards)))
        self._epoch += 1
        await self._adopt(self._placed, {})
        await self._caught_up(self._placed)
        self._publish()

    async def routes(self, after: Epoch, timeout_s: float) -> RouteTable:
        """As `RouteSource`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.table.epoch <= after:
                    await self._published.wait()
        except TimeoutError:
            pass
        return self.table

    async def keep(self) -> None:
        """Gives shards what they lost when they died."""
        while True:
            await asyncio.sleep(HEAL_S)
            async with self._busy:
                for shard_id, shard in self._shards.items():
                    wanted = {name: at for name, at in self._placed.items() if at[1] == shard_id}
                    try:
                        held = {one.partition for one in (await shard.statistics()).partitions}
                        lost = {name: at for name, at in wanted.items() if name not in held}
                        if lost:
                            await self._adopt(lost, {})
                    except ShoalError:
                        continue

    # -- recuts ----------------------------------------------------------------------------------------------

    async def recut(self, resource: Resource, cut: Cut, *, lists: bool = False) -> bool:
        """Divides a resource anew and places its parts anew; whether that succeeded. `lists`: without its past."""
        async with self._busy:
            before = {name: at for name, at in self._placed.items() if at[0].resource == resource}
            after: dict[PartitionId, tuple[Partition, ShardId]] = {}
            for partition in cut.partitions(resource):
                known = before.get(partition.id)
                stays = known is not None and self._rng.random() < 0.5
                after[partition.id] = (
                    known if stays and known else (partition, self._rng.choice(list(self._shards)))
                )
            new = {name: at for name, at in after.items() if before.get(name) != at}
            old = {name: at for name, at in before.items() if after.get(name) != at}
            how = "listing anew" if lists else "handing over"
            self._note(
                f"{resource.name} is cut into {cut}, {how}: {sorted((name, at[1]) for name, at in new.items())}"
            )
            self._epoch += 1
            try:
                await self._replace(old, new, lists=lists)
            except (ShoalError, TimeoutError) as error:
                self.failed += 1
                self._note(f"that failed: {type(error).__name__}: {error}")
                await self._release(new)
                await self._adopt_again(old)
                return False
            for name in old:
                del self._placed[name]
            self._placed |= new
            self.cuts[resource] = cut
            self.recuts += 1
            self._publish()
            await asyncio.sleep(GRACE_S)
            await self._release(old)
            return True

    async def _replace(
        self,
        old: Mapping[PartitionId, tuple[Partition, ShardId]],
        new: Mapping[PartitionId, tuple[Partition, ShardId]],
        *,
        lists: bool,
    ) -> None:
        of = {
            name: [known for known, at in old.items() if not disjoint(at[0].cover, partition.cover)]
            for name, (partition, _) in new.items()
        }
        sources = {name: tuple(Source(old[known][1], known) for known in found) for name, found in of.items()}
        await self._adopt(new, {} if lists else sources)
        await self._caught_up(new)
        handed: dict[PartitionId, HandedOver] = {}
        for shard_id, names in _by_shard(old).items():
            handed |= await self._call(self._shards[shard_id].hand_over(names, Epoch(self._epoch)))
        if handed.keys() != old.keys():
            raise NotReady("one that was to hand over is not synced")
        for shard_id, names in _by_shard(new).items():
            taken = {
                name: Taken(
                    max((handed[known].shown for known in of[name]), default=UNKNOWN),
                    max((handed[known].frontier for known in of[name]), default=Version(UNKNOWN)),
                )
                for name in names
            }
            await self._call(self._shards[shard_id].take_over(taken))

    async def _call(self, call: Any) -> Any:
        async with asyncio.timeout(CALL_S):
            return await call

    async def _adopt(
        self,
        placed: Mapping[PartitionId, tuple[Partition, ShardId]],
        sources: Mapping[PartitionId, tuple[Source, ...]],
    ) -> None:
        for shard_id, names in _by_shard(placed).items():
            assignments = [
                Assignment(partition=placed[name][0], resource_type=self._types[placed[name][0].resource])
                for name in names
            ]
            theirs = {name: sources[name] for name in names if name in sources}
            await self._call(self._shards[shard_id].adopt(assignments, Epoch(self._epoch), theirs))

    async def _adopt_again(self, placed: Mapping[PartitionId, tuple[Partition, ShardId]]) -> None:
        for name, at in placed.items():
            try:
                await self._adopt({name: at}, {})
            except (ShoalError, TimeoutError):
                continue  # it is dead, and is given it when it is back

    async def _release(self, placed: Mapping[PartitionId, tuple[Partition, ShardId]]) -> None:
        for shard_id, names in _by_shard(placed).items():
            try:
                await self._call(self._shards[shard_id].release(names, Epoch(self._epoch)))
            except (ShoalError, TimeoutError):
                continue

    async def _caught_up(self, placed: Mapping[PartitionId, tuple[Partition, ShardId]]) -> None:
        async with asyncio.timeout(CATCH_UP_S):
            for _ in count():
                states = {}
                for shard_id in _by_shard(placed):
                    for one in (await self._shards[shard_id].statistics()).partitions:
                        if placed.get(one.partition, (None, None))[1] == shard_id:
                            states[one.partition] = (one.state, one.message)
                if all(states.get(name, ("", ""))[0] == "synced" for name in placed):
                    return
                for name, (state, message) in states.items():
                    if state == "stranded":
                        raise NotReady(f"{name}: {message}")
                await asyncio.sleep(0.05)

    def _publish(self) -> None:
        self._epoch += 1
        self.table = RouteTable(
            epoch=Epoch(self._epoch),
            catalogue=tuple(self._types.values()),
            routes=tuple(Route(*at) for at in self._placed.values()),
            shards=tuple(self._shards),
        )
        published, self._published = self._published, asyncio.Event()
        published.set()


def _by_shard(placed: Mapping[PartitionId, tuple[Partition, ShardId]]) -> dict[ShardId, list[PartitionId]]:
    found: dict[ShardId, list[PartitionId]] = {}
    for name, (_, shard_id) in placed.items():
        found.setdefault(shard_id, []).append(name)
    return found
