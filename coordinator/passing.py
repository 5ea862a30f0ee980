"""Carries a passing out: old copies stand still and say how far they are, new ones get as far and go on from there.

Between the first call and the next route table nothing new is shown of these objects, so all shards of one side are
asked at once. Every taker learns the newest version that was shown by the leave of any giver whose objects it gets,
and the newest frontier any of them served. Where a giver is dead, or has lost what it had, nobody can say what it let
be shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..shards.handle import ShardHandle
from ..shards.model.partitions import PartitionId, ShardId
from ..shards.model.transfers import HandedOver, Taken
from ..shards.model.versions import UNKNOWN
from .differences import overlap
from .handoff import Copy
from .instructions import Passing

T = TypeVar("T")


async def pass_on(passing: Passing, reach: Callable[[ShardId], ShardHandle], *, lenient: bool) -> None:
    """Returns when nobody is shown anything by the givers' leave any more, and the takers can be published. The caller
    sets a deadline.

    Args:
        passing: who gives what to whom.
        reach: the handle of a shard; raises like its calls.
        lenient: givers that fail are left out, as if they were dead.

    Raises:
        Exception: what the first of the calls that failed has raised. Nobody is to be sent to the takers.
    """

    async def hand_over(shard: ShardId, few: Sequence[PartitionId]) -> Mapping[PartitionId, HandedOver]:
        return await reach(shard).hand_over(few, passing.epoch)

    async def take_over(shard: ShardId, few: Mapping[PartitionId, Taken]) -> None:
        await reach(shard).take_over(few)

    asked = [copy for copy in passing.givers if copy not in passing.silent]
    calls = {shard: hand_over(shard, few) for shard, few in _by_shard(asked).items()}
    answers, failure = await _all(calls, patient=lenient)
    if failure is not None and not lenient:
        raise failure
    stood = {copy: answers.get(copy.shard, {}).get(copy.partition.id) for copy in passing.givers}
    taken: dict[ShardId, dict[PartitionId, Taken]] = {}
    for taker in passing.takers:
        said = [stood[giver] for giver in passing.givers if overlap(giver, taker)]
        taken.setdefault(taker.shard, {})[taker.partition.id] = _together(said, passing.strangers)
    # NB: where nothing depends on the outcome, all that can be are told at least.
    _, failure = await _all({shard: take_over(shard, few) for shard, few in taken.items()}, patient=lenient)
    if failure is not None:
        raise failure


def _by_shard(copies: Iterable[Copy]) -> dict[ShardId, list[PartitionId]]:
    found: dict[ShardId, list[PartitionId]] = {}
    for copy in copies:
        found.setdefault(copy.shard, []).append(copy.partition.id)
    return found


def _together(said: Sequence[HandedOver | None], strangers: bool) -> Taken:  # noqa: FBT001
    """What a taker is told of all its givers."""
    known = [one for one in said if one is not None]
    frontier = max((one.frontier for one in known), default=UNKNOWN)
    if strangers or not said or len(known) < len(said):
        return Taken(None, frontier)
    return Taken(max(one.shown for one in known), frontier)


async def _all(
    calls: Mapping[ShardId, Coroutine[Any, Any, T]], *, patient: bool
) -> tuple[dict[ShardId, T], BaseException | None]:
    """The answers of all, asked at once, and the first failure; unless `patient`, nobody is waited for after one. None
    goes on afterwards.
    """
    if not calls:
        return {}, None
    tasks = {shard: asyncio.create_task(call, name=f"pass on {shard}") for shard, call in calls.items()}
    try:
        until = asyncio.ALL_COMPLETED if patient else asyncio.FIRST_EXCEPTION
        done, _ = await asyncio.wait(tasks.values(), return_when=until)
        answers = {
            shard: task.result() for shard, task in tasks.items() if task in done and not task.exception()
        }
        failures = [error for task in tasks.values() if task in done and (error := task.exception())]
        return answers, failures[0] if failures else None
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.wait(tasks.values())
