"""Hand-offs between virtual shards: exports and receptions that share CPU, and switches that have to catch up.

Follows `shards.receiving` and `coordinator.passing`: all sources of a partition are received at once, a source in the
same shard is taken by reference, whoever waits too long for an export, or receives for too long, is stranded; in a
switch the old copies stand still until the new ones are as far, for a limited time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from support.scale_shards import TRANSFER, Held, VirtualShard

from shoal.coordinator.instructions import Passing, Switch
from shoal.shards.model.covers import disjoint
from shoal.shards.model.partitions import HashRange, ShardId
from shoal.shards.receiving import EXPORT_WAIT_S


@dataclass(slots=True)
class _Flow:
    """One partition on its way, in one step."""

    held: Held
    taker: VirtualShard
    givers: list[VirtualShard]
    states: float
    """Of this step, if there is CPU enough."""


@dataclass(slots=True)
class Switching:
    """A switch under way."""

    switch: Switch
    began: float


class Transfers:
    """Everything on its way."""

    def __init__(self, shards: Mapping[ShardId, VirtualShard]) -> None:
        self._shards = shards
        self.switches: list[Switching] = []
        self.stranded = 0
        self.bytes = 0.0
        """Sent between shards so far."""
        self.stood_still_s = 0.0
        """The longest time that copies stood still for a switch that succeeded."""
        self._flows: list[_Flow] = []

    # -- receiving -------------------------------------------------------------------------------------------

    def want(self, now: float, passed_s: float) -> None:
        """Adds the CPU that transfers want in this step to what shards want."""
        self._flows = []
        exports: dict[ShardId, int] = {}
        for taker in self._shards.values():
            arriving = [held for held in taker.held.values() if held.state == "arriving"]
            for held in arriving[: TRANSFER.receptions_max]:
                self._begin(held, taker, now, passed_s, exports)

    def _begin(
        self, held: Held, taker: VirtualShard, now: float, passed_s: float, exports: dict[ShardId, int]
    ) -> None:
        sources: list[tuple[VirtualShard, Held]] = []
        for source in held.sources:
            giver = self._shards.get(source.shard)
            there = giver.held.get(source.partition) if giver is not None and not giver.lost else None
            if giver is None or there is None or there.state != "synced":
                self._strand(held, f"{source.partition} from {source.shard}: it is not there")
                return
            sources.append((giver, there))
        others = [giver for giver, _ in sources if giver is not taker]
        if any(exports.get(giver.name, 0) >= TRANSFER.exports_max for giver in others):
            if now - held.began > EXPORT_WAIT_S and held.captured_at is None:
                self._strand(held, "a source sends too much at once already")
            return
        for giver in others:
            exports[giver.name] = exports.get(giver.name, 0) + 1
        if held.captured_at is None:
            held.captured_at = held.began = now
            held.capture_lag_s = max(there.lag_s for _, there in sources)
            held.expected = max(held.objects() + sum(_past(held, there) for _, there in sources), 1.0)
        if now - held.began > TRANSFER.receive_timeout_s:
            self._strand(held, f"it was not complete within {TRANSFER.receive_timeout_s:g} s")
            return
        costs = taker.costs
        states = min(costs.received_per_s * passed_s, held.expected - held.progress)
        by_uid = isinstance(held.partition.cover, HashRange) and held.partition.cover.field == "uid"
        for giver, there in sources:
            seconds = 0.0 if giver is taker else states / len(sources) * costs.sent_s
            if there.partition != held.partition:
                looked_at = there.objects() * states / held.expected
                seconds += looked_at * (costs.uid_s if by_uid else costs.namespace_s)
            giver.core.want(("send", taker.name, held.name), seconds)
        # By reference half of it remains: entries are put into indexes.
        taker.core.want(
            ("take", taker.name, held.name), states * (costs.taken_s if others else costs.taken_s / 2)
        )
        self._flows.append(_Flow(held, taker, [giver for giver, _ in sources], states))

    def _strand(self, held: Held, why: str) -> None:
        held.state, held.message, held.progress = "stranded", why, 0.0
        self.stranded += 1

    def work(self, now: float, passed_s: float) -> None:
        """Does as much of it as the slowest side can."""
        for flow in self._flows:
            held = flow.held
            name, taker = held.name, flow.taker
            fraction = min(giver.core.fraction(("send", taker.name, name)) for giver in flow.givers)
            fraction = min(fraction, taker.core.fraction(("take", taker.name, name)))
            held.progress += flow.states * fraction
            if any(giver is not flow.taker for giver in flow.givers):
                self.bytes += flow.states * fraction * flow.taker.costs.wire_bytes
            if held.progress >= held.expected - 0.5 and held.captured_at is not None:
                held.state, held.progress = "synced", 0.0
                held.lag_s = now + passed_s - held.captured_at + held.capture_lag_s
                events = held.kind.rates(held.partition.cover)[0]
                costs = flow.taker.costs
                held.history = min(costs.history_bytes / costs.event_bytes, events * costs.history_s)

    # -- switching -------------------------------------------------------------------------------------------

    def begin(self, switch: Switch, now: float) -> None:
        """The old copies stand still."""
        for giver in switch.passing.givers:
            there = self._copy(giver.shard, giver.partition.id)
            if there is not None:
                there.frozen_at = now
        self.switches.append(Switching(switch, now))

    def outcomes(self, now: float) -> list[tuple[Switch, str]]:
        """Switches that have come to an end, with what went wrong."""
        found = []
        for one in list(self.switches):
            why = self._outcome(one.switch.passing, now - one.began)
            if why is None:
                continue
            self.switches.remove(one)
            found.append((one.switch, why))
            if not why:
                self.stood_still_s = max(self.stood_still_s, now - one.began)
        return found

    def _outcome(self, passing: Passing, passed_s: float) -> str | None:
        for copy in (*passing.takers, *(one for one in passing.givers if one not in passing.silent)):
            shard = self._shards.get(copy.shard)
            if shard is None or shard.lost:
                return f"{copy.shard} does not answer"
        for taker in passing.takers:
            new = self._copy(taker.shard, taker.partition.id)
            if new is None or new.state != "synced":
                return f"{taker} is not synced"
            for giver in passing.givers:
                old = self._copy(giver.shard, giver.partition.id)
                if old is None or disjoint(giver.partition.cover, taker.partition.cover):
                    continue
                # Both are compared by how far behind the API server they are: who stands still falls behind.
                if new.lag_s > old.lag_s + 1e-6:
                    late = passed_s >= TRANSFER.catch_up_timeout_s
                    return f"{taker} is {new.lag_s:.1f} s behind" if late else None
        return ""

    def _copy(self, shard: ShardId, partition: str) -> Held | None:
        there = self._shards.get(shard)
        return None if there is None else there.held.get(partition)


def _past(held: Held, source: Held) -> float:
    """Events of a source's past that are of a part of it."""
    whole, part = source.kind.part(source.partition.cover), held.kind.part(held.partition.cover)
    return source.history * min(part.events_per_s / whole.events_per_s, 1.0) if whole.events_per_s else 0.0
