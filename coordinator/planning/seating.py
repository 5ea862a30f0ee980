"""A placement while it is being made: what each shard weighs and has room for, and why it refuses a partition. Pure.

Keeps what `coordinator.placement` asks again and again in order, so that a step costs the logarithm of the number of
shards, not that number: shards by weight, and what each holds by weight.

Three things are refused whatever the weights say: a partition for which there is no memory, one of which the shard has
a copy already, and one that may not go there for now. Copies on one *node* are not refused, but the last choice.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sortedcontainers import SortedList

from ...shards.model.partitions import PartitionId, ShardId


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a placement has to respect beside weights. Empty: nothing."""

    memory: Mapping[PartitionId, int] = field(default_factory=dict)
    """Bytes each partition takes."""
    room: Mapping[ShardId, int] = field(default_factory=dict)
    """Bytes of partitions each shard may hold; a shard that is not here has no limit."""
    group: Mapping[PartitionId, str] = field(default_factory=dict)
    """Copies of one partition have the same group: never two of it on one shard."""
    nodes: Mapping[ShardId, str] = field(default_factory=dict)
    """Nodes of shards; one that is not here counts as on a node of its own."""
    barred: Mapping[PartitionId, Mapping[ShardId, str]] = field(default_factory=dict)
    """Shards a partition may not go to, with the reason."""
    resting: Mapping[PartitionId, str] = field(default_factory=dict)
    """Partitions that do not move for the balance, with the reason."""
    full: Mapping[ShardId, str] = field(default_factory=dict)
    """Shards that keep what they have and get nothing, with the reason."""
    origins: Mapping[PartitionId, ShardId] = field(default_factory=dict)
    """Where partitions are that have to leave, and where the largest source of those is that are still to be made."""
    coming: frozenset[PartitionId] = frozenset()
    """Those that are not where they should stay yet, and nowhere else: they stay only if nothing stands against it."""
    stay: frozenset[PartitionId] = frozenset()
    """Of `origins`, those that may as well stay there."""


NO_RULES = Rules()


class Seating:
    """Shards and what is on them. All answers about shards are in the order of their weights."""

    def __init__(self, shards: Iterable[ShardId], rules: Rules) -> None:
        self.loads: dict[ShardId, int] = dict.fromkeys(shards, 0)
        self.placement: dict[PartitionId, ShardId] = {}
        self.used: dict[ShardId, int] = dict.fromkeys(self.loads, 0)
        self.names: tuple[ShardId, ...] = tuple(self.loads)
        self._rules = rules
        self._held: dict[ShardId, list[tuple[int, PartitionId]]] = {shard: [] for shard in self.loads}
        self._order = {shard: at for at, shard in enumerate(self.loads)}
        self._by_weight: SortedList[tuple[int, int, int]] = SortedList(
            (0, 0, at) for at in range(len(self.loads))
        )
        self._on_shard: dict[str, Counter[ShardId]] = {}
        self._on_node: dict[str, Counter[str]] = {}

    def put_all(self, held: Iterable[tuple[PartitionId, int, ShardId]]) -> None:
        """Puts many partitions (with their weights) somewhere, as `put` one after the other."""
        for partition, weight, shard in held:
            self.placement[partition] = shard
            self.loads[shard] += weight
            self.used[shard] += self._rules.memory.get(partition, 0)
            self._held[shard].append((weight, partition))
            self._count(partition, shard, 1)
        for entries in self._held.values():
            entries.sort()
        self._by_weight = SortedList(self._rank(shard) for shard in self.names)

    def put(self, partition: PartitionId, weight: int, shard: ShardId) -> None:
        """Puts a partition somewhere."""
        self._by_weight.remove(self._rank(shard))
        self.placement[partition] = shard
        self.loads[shard] += weight
        self.used[shard] += self._rules.memory.get(partition, 0)
        insort(self._held[shard], (weight, partition))
        self._by_weight.add(self._rank(shard))
        self._count(partition, shard, 1)

    def remove(self, partition: PartitionId, weight: int) -> ShardId:
        """Takes it away again; from where."""
        shard = self.placement.pop(partition)
        self._by_weight.remove(self._rank(shard))
        self.loads[shard] -= weight
        self.used[shard] -= self._rules.memory.get(partition, 0)
        held = self._held[shard]
        del held[bisect_left(held, (weight, partition))]
        self._by_weight.add(self._rank(shard))
        self._count(partition, shard, -1)
        return shard

    def held(self, shard: ShardId) -> Sequence[tuple[int, PartitionId]]:
        """What is on a shard, by weight and name."""
        return self._held[shard]

    def lightest(self) -> Iterator[ShardId]:
        """From the lightest on; of equals the one that holds fewer, then the first. Valid until the next change."""
        return (self.names[at] for _, _, at in self._by_weight)

    def heaviest(self) -> Iterator[ShardId]:
        """From the heaviest on; of equals the one that holds more, then the first. Valid until the next change."""
        run: list[ShardId] = []
        rank: tuple[int, int] | None = None
        for weight, count, at in reversed(self._by_weight):
            if (weight, count) != rank:
                yield from reversed(run)
                run, rank = [], (weight, count)
            run.append(self.names[at])
        yield from reversed(run)

    # -- what is refused -------------------------------------------------------------------------------------

    def room(self, shard: ShardId) -> int | None:
        """Bytes that are still free there; negative if too much is there already, None without a limit."""
        room = self._rules.room.get(shard)
        return None if room is None else room - self.used[shard]

    def refusal(self, partition: PartitionId, shard: ShardId) -> str:
        """Why a shard may not get a partition; empty if it may."""
        rules = self._rules
        room = rules.room.get(shard)
        if room is not None:
            needed = rules.memory.get(partition, 0)
            if needed > room - self.used[shard]:
                left = _mebibytes(max(room - self.used[shard], 0))
                return f"has {left} of its memory left, {_mebibytes(needed)} needed"
        if rules.group:
            group = rules.group.get(partition)
            if group is not None and self._on_shard.get(group, _NONE)[shard]:
                return "has a copy of it already"
        if rules.full:
            full = rules.full.get(shard)
            if full:
                return full
        if rules.barred:
            return rules.barred.get(partition, {}).get(shard, "")
        return ""

    def crowds(self, partition: PartitionId, shard: ShardId) -> bool:
        """Whether the node of a shard has another copy of the partition already."""
        group = self._rules.group.get(partition)
        node = self._rules.nodes.get(shard)
        if group is None or not node:
            return False
        here = self.placement.get(partition)
        itself = here is not None and self._rules.nodes.get(here) == node
        return self._on_node.get(group, _NO_NODE)[node] > itself

    def _count(self, partition: PartitionId, shard: ShardId, change: int) -> None:
        group = self._rules.group.get(partition)
        if group is None:
            return
        self._on_shard.setdefault(group, Counter())[shard] += change
        node = self._rules.nodes.get(shard)
        if node:
            self._on_node.setdefault(group, Counter())[node] += change

    def _rank(self, shard: ShardId) -> tuple[int, int, int]:
        return self.loads[shard], len(self._held[shard]), self._order[shard]


_NONE: Counter[ShardId] = Counter()
_NO_NODE: Counter[str] = Counter()


def _mebibytes(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
