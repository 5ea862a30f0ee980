"""Orders by hand, carried out: each is checked, noted in `ByHand`, and answered with what will come of it. Pure.

An order that cannot be is refused with what is wrong and, of a name nobody knows, the names closest to it; then
nothing has changed. What is ordered begins with the next pass, under the same limits as anything else
(``placement.moves_at_once``, one hand-off of a resource at a time).
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Final, assert_never

from ..shards.model.covers import disjoint, parse_partition
from ..shards.model.errors import BadRequest, Conflict, NotFound, NotReady
from ..shards.model.partitions import (
    Everything,
    ExceptNamespaces,
    HashRange,
    OneNamespace,
    Partition,
    PartitionId,
    ShardId,
)
from ..shards.model.resources import Resource
from .commands import Drain, Move, Order, Rebalance, Split, Undrain, Unpin
from .cuts import Cut, even_bounds
from .decide import Decider
from .planning.orders import Divisible, Orders, Seat, Situation
from .wanting import Planner, settled_cut

_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def carry_out(order: Order, decider: Decider, planner: Planner) -> tuple[str, ...]:
    """Notes an order; what will come of it, line by line.

    Raises:
        NotReady: the coordinator has not seen the shards and the API server yet.
        NotFound: no such partition, resource or shard.
        Conflict: it cannot be as things are.
        BadRequest: it makes no sense, whatever things are.
    """
    if decider.situation is None or not decider.table.epoch:
        raise NotReady("the coordinator has published no routes yet", retry_after_s=1)
    desk = _Desk(decider, decider.situation, planner)
    match order:
        case Move(partition=partition, shard=shard):
            return desk.move(partition, shard)
        case Split():
            return desk.split(order)
        case Drain(shard=shard):
            return desk.drain(shard)
        case Undrain(shard=shard):
            return desk.undrain(shard)
        case Unpin(target=target):
            return desk.unpin(target)
        case Rebalance(dry_run=dry_run):
            return desk.rebalance(dry_run=dry_run)
        case _:
            assert_never(order)


class _Desk:
    """One order, and what it is checked against."""

    def __init__(self, decider: Decider, situation: Situation, planner: Planner) -> None:
        self._decider = decider
        self._by_hand = decider.by_hand
        self._situation = dataclasses.replace(situation, seats=decider.by_hand.seats(situation.seats))
        self._planner = planner
        self._served = {route.partition.id: route for route in decider.table.routes}

    # -- move ------------------------------------------------------------------------------------------------

    def move(self, partition: PartitionId, shard: ShardId) -> tuple[str, ...]:
        """As `Move`."""
        route = self._served.get(partition)
        if route is None:
            raise NotFound(f"there is no partition {partition}{_close(partition, self._served)}")
        self._taking(shard)
        self._by_hand.partitions[partition] = shard
        if route.shard == shard:
            return (f"{partition} is on {shard} already; it is pinned there from now on",)
        return (
            f"{partition} moves from {route.shard} to {shard}, and is pinned there",
            *self._when(route.partition.resource),
        )

    def _taking(self, shard: ShardId) -> None:
        seat = self._seat(shard)
        if not seat.takes:
            raise Conflict(f"{shard} gets no partitions: it {seat.refusal}")

    def _seat(self, shard: ShardId) -> Seat:
        seats = {seat.shard: seat for seat in self._situation.seats}
        if shard not in seats:
            raise NotFound(f"there is no shard {shard}{_close(shard, seats)}")
        return seats[shard]

    def _when(self, resource: Resource) -> tuple[str, ...]:
        """What it has to wait for."""
        handoff = self._decider.handoffs.of(resource)
        if handoff is not None and not handoff.over:
            return (f"it waits for the hand-off of {resource} that is {handoff.state}: {handoff}",)
        setback = self._decider.handoffs.setback(resource, self._situation.now)
        if setback is not None:
            pause_s = setback.until - self._situation.now
            return (f"it waits {pause_s:.0f} s, because the last hand-off was given up: {setback.why}",)
        return ()

    # -- split -----------------------------------------------------------------------------------------------

    def split(self, order: Split) -> tuple[str, ...]:
        """As `Split`."""
        if bool(order.carve) + bool(order.ranges) + order.merge != 1:
            raise BadRequest("expected one of: namespaces to carve out, a number of ranges, or merge")
        target = self._target(order.target)
        divisible = self._divisible(target.resource)
        if not divisible.namespaced and (order.carve or (order.ranges and order.field == "namespace")):
            raise BadRequest(f"{target.resource} has no namespaces; it can be cut into ranges of uid")
        present = self._present(divisible)
        if order.carve:
            cut = _carved(present, order.carve)
        elif order.merge:
            cut = self._merged(present, target, divisible)
        else:
            cut = _ranged(present, target, order.ranges, order.field)
        if cut == present:
            self._by_hand.cuts[target.resource] = cut
            return (f"{target.resource} is cut like that already ({cut}); it is pinned from now on",)
        self._by_hand.cuts[target.resource] = cut
        return (*self._difference(target.resource, present, cut, divisible), *self._when(target.resource))

    def _target(self, text: str) -> Partition:
        target = parse_partition(text)
        known = {str(route.partition.resource): None for route in self._served.values()}
        if str(target.resource) not in known:
            raise NotFound(f"{target.resource} is not followed{_close(str(target.resource), known)}")
        if not isinstance(target.cover, Everything) and target.id not in self._served:
            raise NotFound(f"there is no partition {text}{_close(text, self._served)}")
        return target

    def _divisible(self, resource: Resource) -> Divisible:
        return next(divisible for divisible in self._situation.resources if divisible.resource == resource)

    def _present(self, divisible: Divisible) -> Cut:
        """The cut that is pinned, or the one there is."""
        pinned = self._by_hand.cuts.get(divisible.resource)
        served = [route for route in self._served.values() if route.partition.resource == divisible.resource]
        there = Cut.of(route.partition.cover for route in served)
        return pinned or there or settled_cut(divisible)

    def _merged(self, present: Cut, target: Partition, divisible: Divisible) -> Cut:
        match target.cover:
            case Everything():
                return settled_cut(divisible)
            case OneNamespace(namespace=name):
                if name in divisible.carved:
                    raise Conflict(
                        f"follow.carve in the settings keeps {name} of {target.resource} apart; change it there"
                    )
                return present.uncarve(name)
            case HashRange(namespace=str(name)):
                return present.split_namespace(name, ())
            case HashRange():
                return present.split_rest("uid", ())
            case ExceptNamespaces():
                raise BadRequest(
                    f"{target.id} is what is left: name a carved namespace to merge into it, or {target.resource} "
                    "to merge all"
                )
            case _:
                assert_never(target.cover)

    def _difference(
        self, resource: Resource, before: Cut, after: Cut, divisible: Divisible
    ) -> tuple[str, ...]:
        old, new = before.partitions(resource), after.partitions(resource)
        gone = [partition for partition in old if partition not in new]
        lines = [f"{resource} is cut: {after} (was: {before})"]
        for partition in gone:
            parts = [part.id for part in new if part not in old and not disjoint(part.cover, partition.cover)]
            lines.append(f"  {partition.id} -> {', '.join(parts)}")
        fields = {part.cover.field for part in new if isinstance(part.cover, HashRange)}
        if unselected := sorted(fields - divisible.selects):
            lines.append(
                f"  the API server does not select {resource} by hashes of {' and '.join(unselected)}, as far as is "
                "known: each range receives the events of all and drops what is not its own"
            )
        return tuple(lines)

    # -- shards, pins, everything ----------------------------------------------------------------------------

    def drain(self, shard: ShardId) -> tuple[str, ...]:
        """As `Drain`."""
        self._seat(shard)
        if not any(seat.takes and seat.shard != shard for seat in self._situation.seats):
            raise Conflict(f"{shard} cannot be drained: no other shard could take what it has")
        self._by_hand.drained.add(shard)
        leaves = [route.partition.id for route in self._served.values() if route.shard == shard]
        pinned = [partition for partition, to in self._by_hand.partitions.items() if to == shard]
        return (
            f"{shard} is drained: {len(leaves)} partitions leave it, none comes to it, and then it ends",
            *(f"  {partition}" for partition in leaves),
            *(f"{partition} was pinned to it; that is without effect meanwhile" for partition in pinned),
        )

    def undrain(self, shard: ShardId) -> tuple[str, ...]:
        """As `Undrain`."""
        self._seat(shard)
        if shard not in self._by_hand.drained:
            raise Conflict(f"{shard} is not drained")
        self._by_hand.drained.discard(shard)
        return (f"{shard} may have partitions again; they come back when the balance asks for it",)

    def unpin(self, target: str) -> tuple[str, ...]:
        """As `Unpin`."""
        shard = self._by_hand.partitions.pop(PartitionId(target), None)
        if shard is not None:
            return (f"{target} is not pinned to {shard} any more",)
        for resource in list(self._by_hand.cuts):
            if str(resource) == target:
                cut = self._by_hand.cuts.pop(resource)
                return (f"{target} is not pinned to its cut any more: {cut}",)
        pins = [*self._by_hand.partitions, *(str(resource) for resource in self._by_hand.cuts)]
        raise NotFound(f"nothing of {target} is pinned{_close(target, pins)}")

    def rebalance(self, *, dry_run: bool) -> tuple[str, ...]:
        """As `Rebalance`."""
        unpinned = self._by_hand.lines() if self._by_hand.partitions or self._by_hand.cuts else ()
        orders = self._planner.rebalanced(self._situation)
        lines = [f"{line}: not any more" for line in unpinned if "is pinned" in line]
        lines += self._plan(orders)
        if not dry_run:
            self._by_hand.clear()
            self._planner.hurry()
        return tuple(lines) or ("nothing would move: everything is where it should be",)

    def _plan(self, orders: Orders) -> list[str]:
        lines = [f"{resource} is cut: {cut}" for resource, cut in orders.cuts.items()]
        for partition, shard in orders.placement.items():
            before = self._situation.placement.get(partition)
            if before != shard:
                lines.append(f"{partition} {f'moves from {before}' if before else 'goes'} to {shard}")
        return [*lines, *orders.reasons]


def _carved(present: Cut, names: Iterable[str]) -> Cut:
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise BadRequest(f"{name!r} is not the name of a namespace")
        present = present.carve(name)
    return present


def _ranged(present: Cut, target: Partition, ranges: int, field: str) -> Cut:
    """The target in so many ranges of equal width."""
    if ranges < 2:
        raise BadRequest("one range is no cut: expected two ranges or more, or merge")
    match target.cover:
        case Everything() | ExceptNamespaces():
            return present.split_rest(field, even_bounds(ranges))
        case OneNamespace(namespace=name):
            _only_uid(field, f"namespace {name}")
            return present.split_namespace(name, even_bounds(ranges))
        case HashRange(namespace=str(name), low=low, high=high):
            _only_uid(field, f"namespace {name}")
            bounds = next(carved.bounds for carved in present.carved if carved.name == name)
            return present.split_namespace(name, sorted({*bounds, *_inner(low, high, ranges)}))
        case HashRange(field=own, low=low, high=high):
            if own != field:
                raise BadRequest(f"{target.id} is a range of {own}; it can be cut into ranges of {own} only")
            return present.split_rest(own, sorted({*present.rest_bounds, *_inner(low, high, ranges)}))
        case _:
            assert_never(target.cover)


def _only_uid(field: str, what: str) -> None:
    if field != "uid":
        raise BadRequest(f"{what} can be cut into ranges of uid only")


def _inner(low: int, high: int, ranges: int) -> list[int]:
    if high - low < ranges:
        raise BadRequest(f"a range of {high - low} hashes cannot be cut into {ranges}")
    return [low + (high - low) * at // ranges for at in range(1, ranges)]


def _close(name: str, known: Iterable[str]) -> str:
    """The names closest to one that is unknown, as the end of a sentence."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(close)}?" if close else ""
