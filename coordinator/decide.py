"""One pass of the coordinator: what is seen, compared with what should be, gives instructions. Pure.

What is served is the published route table; what should be is said by a planner (`Orders`), and by people before it
(`coordinator.by_hand`). They are compared copy by copy (`coordinator.replacing`): where the old copies are complete, a
hand-off begins (`coordinator.handoff`), and the table changes when it has come to its end. Where none is complete (the
shard died, or was started again) there is nothing to hand over: the table changes at once, and the new shard lists the
API server. A coordinator that comes back takes what shards hold for the table (`coordinator.learning`) and goes on
from the highest epoch it sees.

*Who serves.* Of one resource the covers in a table divide it: they are complete, and no two overlap. A copy that is
complete is on the route until another that is complete, and knows how far the first one was, takes its place in a
table; it is told to release only after that, and after a grace period.

*Epochs.* An epoch is never used twice for one partition by two shards: each pass that publishes, switches or tells of
what is on its way takes new ones, above everything seen and issued. All shards are told the new epoch before it is
published, with everything they serve: so it can be learnt from them afterwards, and a resource whose description
changed is followed anew (the shard compares). Where even that fails (all shards gone), routers show the epoch they
have, and a greater one is published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec

from ..shards.model.covers import divide
from ..shards.model.errors import Broken
from ..shards.model.partitions import Cover, Epoch, PartitionId
from ..shards.model.resources import Resource
from .by_hand import ByHand
from .cuts import Cut
from .differences import overlap
from .handoff import Copy
from .handoffs import HandOffs
from .inheritance import INHERITANCE, Inheritance, witnesses
from .instructions import Instruction, Observation, Passing, Publish, Switch
from .learning import Witness, learn
from .opening import Opener
from .planning.orders import NOT_WANTED, Divisible, Orders, Seat, Situation
from .replacing import replace
from .routes import Route, RouteTable
from .settings import PlacementSettings, SecretsRule
from .sight import Sight
from .telling import Telling
from .wanting import NOBODY, Planner, Wish, after, cut_of, unplaced, unwanted, wish

Served: TypeAlias = Mapping[Resource, tuple[Copy, ...]]

_PENDING_BLOCKS_S: Final = 300.0
"""Nothing moves for the balance while partitions are being listed, for their weight is a guess; this long each at
most."""
_LEAP: Final = 1000
"""A coordinator that comes back begins this far above the highest epoch it sees: what shards were told that
are away now, and nobody else was, it cannot see."""


class Decision(NamedTuple):
    """Instructions in the order they are to be carried out: all up to `Publish`, it, then the rest. `Switch`es are
    begun before the others and waited for by nobody.
    """

    instructions: tuple[Instruction, ...] = ()
    orders: Orders | None = None
    """What was to be brought about; None if nothing could be decided."""
    waiting_for: tuple[str, ...] = ()
    """Why nothing could be decided, as sentences."""
    postponed: tuple[str, ...] = ()
    """What should change and does not yet, with the reason, as sentences."""
    passing: tuple[Passing, ...] = ()
    """What the new table moves without a hand-off to a shard that has it already. To be carried out before it is
    published, as far as shards answer."""


class Decider:
    """Decides; keeps the published table and the little memory it needs."""

    def __init__(self, settings: PlacementSettings, secrets: SecretsRule, planner: Planner) -> None:
        self.table = RouteTable()
        self.handoffs = HandOffs(settings)
        self.by_hand = ByHand()
        self.sight: Sight | None = None
        """What the last decision rested on."""
        self.situation: Situation | None = None
        """How things are, without what was ordered by hand."""
        self._settings = settings
        self._planner = planner
        self._telling = Telling(secrets, settings.release_grace_s)
        self._inheritance = Inheritance(self.handoffs.limits.switch_s)
        self._issued = Epoch(0)
        self._pending_since: dict[PartitionId, float] = {}
        self._relieved_at: dict[Copy, float] = {}
        """When copies were routed last, of the last few seconds: readers may still be on their way to them."""

    def switched(self, number: int, attempt: int, why: str, now: float) -> None:
        """The outcome of a `Switch`: it succeeded, or failed if there is a reason why."""
        if number == INHERITANCE:
            self._inheritance.outcome(attempt, why, now)
        else:
            self.handoffs.outcome(number, attempt, why, now)

    def decide(self, seen: Observation) -> Decision:
        """One pass."""
        waiting = self._waits_for(seen)
        if waiting or seen.catalogue is None:
            return Decision(waiting_for=waiting)
        sight = self.sight = Sight(seen, seen.catalogue)
        self._issued = self._highest_epoch(sight)
        self.handoffs.notice(sight)
        grace_s = self._settings.release_grace_s
        self._relieved_at = {copy: at for copy, at in self._relieved_at.items() if sight.now - at <= grace_s}
        served = self._served(sight)
        self.situation = self._situation(sight, served)
        situated = self.by_hand.situated(self.situation)
        orders = self.by_hand.applied(self._planner.orders(situated), situated)
        wishes = {
            divisible.resource: wish(
                divisible, served[divisible.resource], self.handoffs.of(divisible.resource), orders
            )
            for divisible in seen.resources
        }
        self._withdraw(sight, served, wishes)
        replaced = {
            resource: replace(
                sight,
                served[resource],
                wished,
                self.handoffs.of(resource),
                orders,
                set_back=self.handoffs.setback(resource, sight.now) is not None,
            )
            for resource, wished in wishes.items()
        }
        routed = [copy for one in replaced.values() for copy in one.copies]
        postponed = [why for one in replaced.values() for why in one.postponed]
        if not self.table.epoch:
            inheriting = self._inherit(sight, routed)
            if self._inheritance.waits:
                waits = ("what a predecessor's shards let be shown is being handed over",)
                return Decision(tuple(inheriting), orders, waits, tuple(postponed))
        first = not self.table.epoch
        passing = self._passing_at_once(sight, served, routed)
        published = self._publication(sight, routed)
        if not first:
            opener = Opener(sight, self.handoffs, self.by_hand, orders, self._settings.moves_at_once)
            postponed += opener.open(replaced.values(), self._relieved_at)
        instructions: list[Instruction] = [*self._switches(sight)]
        instructions += self._adoptions(sight, routed, publishing=bool(published))
        instructions += published
        instructions += self._telling.releases(
            sight,
            {copy.partition.id: copy.shard for copy in routed},
            self.handoffs,
            epoch=self.table.epoch,
        )
        return Decision(tuple(instructions), orders, (), tuple(postponed), passing if published else ())

    # -- what there is ---------------------------------------------------------------------------------------

    def _waits_for(self, seen: Observation) -> tuple[str, ...]:
        if seen.catalogue is None:
            return ("what the API server serves is not known yet",)
        if self.table.epoch == 0:
            # What shards hold is the truth to start from, so all are heard before anything is moved.
            starting = [view.shard for view in seen.shards if view.state == "starting"]
            if starting:
                return (f"waiting for {', '.join(starting)} to start",)
        if not any(view.state == "healthy" for view in seen.shards):
            return ("no shard is healthy",)
        return ()

    def _highest_epoch(self, sight: Sight) -> Epoch:
        """The highest epoch that may have been used, by this coordinator or one before it."""
        highest = max(self._issued, sight.highest_epoch())
        if self._issued == 0 and highest > 0:
            highest = Epoch(highest + _LEAP)
        return highest

    def _served(self, sight: Sight) -> Served:
        """What is served of each resource, by the table or, before there is one, by what shards hold."""
        if self.table.epoch:
            by_table: dict[Resource, list[Copy]] = {resource: [] for resource in sight.types}
            for route in self.table.routes:
                if route.partition.resource in by_table:
                    by_table[route.partition.resource].append(Copy(route.partition, route.shard))
            return {resource: tuple(copies) for resource, copies in by_table.items()}
        served: dict[Resource, tuple[Copy, ...]] = dict.fromkeys(sight.types, ())
        found: dict[Resource, list[Witness]] = {}
        for witness in witnesses(sight):
            found.setdefault(witness.copy.partition.resource, []).append(witness)
        for resource in served:
            learnt = learn(resource, found.get(resource, ()))
            if learnt is not None:
                served[resource] = unplaced(learnt.cut.partitions(resource), learnt.copies)
        return served

    def _situation(self, sight: Sight, served: Served) -> Situation:
        """What planning is told."""
        copies = [copy for few in served.values() for copy in few]
        under_way = [handoff for handoff in self.handoffs if handoff.keeps_arriving and not handoff.published]
        recutting = {
            handoff.resource: cut
            for handoff in under_way
            if handoff.resource in served
            and (cut := cut_of(after(served[handoff.resource], handoff))) is not None
            and cut != cut_of(served[handoff.resource])
        }
        return Situation(
            now=sight.now,
            resources=sight.seen.resources,
            partitions=tuple(copy.partition for copy in copies),
            placement={copy.partition.id: copy.shard for copy in copies if copy.shard != NOBODY},
            seats=tuple(
                Seat(
                    view.shard,
                    view.state,
                    view.statistics.node if view.statistics else "",
                    NOT_WANTED if view.leaving else "",
                )
                for view in sight.seen.shards
            ),
            promised={copy.partition.id: copy.shard for handoff in under_way for copy in handoff.arriving},
            recutting=recutting,
            barred=self.handoffs.barred(sight.now),
            unsettled=self._unsettled(sight, copies),
        )

    def _unsettled(self, sight: Sight, copies: Iterable[Copy]) -> str:
        """Why nothing is to move for the balance."""
        pending = {copy.partition.id for copy in copies if sight.state(copy) == "pending"}
        self._pending_since = {
            partition: self._pending_since.get(partition, sight.now) for partition in sorted(pending)
        }
        young = sum(sight.now - since < _PENDING_BLOCKS_S for since in self._pending_since.values())
        return f"{young} partitions are being listed" if young else ""

    def _inherit(self, sight: Sight, routed: Sequence[Copy]) -> list[Instruction]:
        """What has to be done before the first table."""
        epoch = Epoch(self._issued + 1)
        thaws = self._telling.thaws(sight, routed, epoch)
        instructions = self._inheritance.due(sight, routed, epoch, thaws)
        self._issued = epoch if instructions else self._issued
        return list(instructions)

    # -- hand-offs -------------------------------------------------------------------------------------------

    def _withdraw(self, sight: Sight, served: Served, wishes: Mapping[Resource, Wish]) -> None:
        for handoff in self.handoffs:
            why = unwanted(
                handoff, sight.types, served.get(handoff.resource, ()), wishes.get(handoff.resource)
            )
            if why:
                self.handoffs.happened(handoff, "withdrawn", sight.now, why)

    def _switches(self, sight: Sight) -> list[Switch]:
        """Switches of hand-offs that are complete; begun now."""
        begun = []
        for handoff in self.handoffs:
            # Who is suspect answers again or is dead before long; until then its leave counts and cannot be taken back.
            suspect = any(sight.lives(old.shard) and not sight.healthy(old.shard) for old in handoff.leaving)
            if handoff.state == "complete" and sight.now >= handoff.not_before and not suspect:
                self._issued = Epoch(self._issued + 1)
                silent = tuple(copy for copy in handoff.leaving if not sight.lives(copy.shard))
                passing = Passing(handoff.leaving, handoff.arriving, self._issued, silent)
                after_it = self.handoffs.switch(handoff, sight)
                begun.append(Switch(after_it.number, after_it.attempts, passing))
        return begun

    # -- the table and what shards are told ------------------------------------------------------------------

    def _passing_at_once(self, sight: Sight, served: Served, routed: Sequence[Copy]) -> tuple[Passing, ...]:
        """What is routed elsewhere without a hand-off, where there is anybody to be told: whoever had it and may
        become complete after all, or has it already.
        """
        taken = {copy for handoff in self.handoffs for copy in handoff.arriving if handoff.state == "taken"}
        unchanged = {copy for few in served.values() for copy in few}
        still = set(routed)
        passing = []
        for copy in routed:
            if copy in unchanged or copy in taken:
                continue
            before = served.get(copy.partition.resource, ())
            givers = tuple(old for old in before if old not in still and overlap(old, copy))
            silent = tuple(old for old in givers if sight.entry(old) is None)
            if sight.entry(copy) is not None or len(silent) < len(givers):
                passing.append(Passing(givers, (copy,), Epoch(self._issued + 1), silent))
        return tuple(passing)

    def _publication(self, sight: Sight, routed: Sequence[Copy]) -> list[Publish]:
        """The new table, if it differs; it is ours from here on."""
        seen = sight.seen
        table = RouteTable(
            epoch=self.table.epoch,
            catalogue=sight.catalogue.followed,
            routes=tuple(Route(copy.partition, copy.shard) for copy in _in_order(routed, seen.resources)),
            shards=tuple(view.shard for view in seen.shards),
            server_version=seen.server_version,
            excluded=sight.catalogue.excluded,
        )
        if table == self.table and self.table.epoch and self.table.epoch >= seen.routers_epoch:
            return []
        self._issued = Epoch(self._issued + 1)
        after = set(routed)
        for route in self.table.routes:
            if (copy := Copy(route.partition, route.shard)) not in after:
                self._relieved_at[copy] = sight.now
        self.table = msgspec.structs.replace(table, epoch=self._issued)
        for handoff in self.handoffs:
            if handoff.state == "taken":
                self.handoffs.happened(handoff, "publish", sight.now)
        return [Publish(self.table)]

    def _adoptions(self, sight: Sight, routed: Sequence[Copy], *, publishing: bool) -> list[Instruction]:
        arriving_epoch = Epoch(self._issued + 1)
        adoptions = self._telling.adoptions(
            sight,
            routed,
            tuple(self.handoffs),
            epoch=self.table.epoch,
            arriving_epoch=arriving_epoch,
            publishing=publishing,
        )
        if any(adoption.epoch == arriving_epoch for adoption in adoptions):
            self._issued = arriving_epoch
        return list(adoptions)


def _in_order(routed: Iterable[Copy], resources: Iterable[Divisible]) -> list[Copy]:
    """By resource as they are listed, then as the cut has them.

    Raises:
        Broken: of some resource an object would have no owner, or two. Rather no table than that one.
    """
    few: dict[Resource, dict[Cover, Copy]] = {}
    for copy in routed:
        known = few.setdefault(copy.partition.resource, {})
        if copy.partition.cover in known:
            raise Broken(
                f"two shards are to serve {copy.partition.id}: {known[copy.partition.cover]} and {copy}"
            )
        known[copy.partition.cover] = copy
    ordered: list[Copy] = []
    for divisible in resources:
        copies = few.get(divisible.resource, {})
        cut = Cut.of(copies)
        if cut is not None:
            ordered += (copies[cover] for cover in cut.covers())
        elif divide(copies):
            ordered += copies.values()
        elif copies:
            raise Broken(
                f"partitions overlap or leave something out: {[str(copy) for copy in copies.values()]}"
            )
    return ordered
