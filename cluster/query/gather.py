"""Several questions at once: all answers, or the one error that says most; or, where a partial answer will do,
the answers there are and the errors in the place of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeAlias, TypeVar

from ...shards.model.errors import NotServed, ShoalError

T = TypeVar("T")

Tolerated: TypeAlias = tuple[type[ShoalError], ...]
"""Errors that leave a part out of an answer instead of ending it; none unless a partial answer will do."""


async def all_of(calls: Sequence[Awaitable[T]]) -> list[T]:
    """The answers of all calls at once; the first error cancels the others and is raised as it is."""
    if not calls:
        return []
    if len(calls) == 1:
        return [await calls[0]]
    # NB: not a TaskGroup. Before Python 3.13 one whose task fails leaves the caller counted as cancelled
    # (`Task.cancelling`), and a timeout around it then ends in CancelledError instead of TimeoutError.
    tasks = [asyncio.create_task(_awaited(call), name="shard call") for call in calls]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        left = [task for task in tasks if task.cancel()]
        if left:
            await asyncio.wait(left)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        raise _first(errors)
    return [task.result() for task in tasks]


async def each_of(calls: Sequence[Awaitable[T]], tolerated: Tolerated) -> list[T | ShoalError]:
    """As `all_of`, but an error of the kinds `tolerated` takes the place of its answer."""
    return await all_of([_settled(call, tolerated) for call in calls])


async def _awaited(call: Awaitable[T]) -> T:
    return await call


async def _settled(call: Awaitable[T], tolerated: Tolerated) -> T | ShoalError:
    try:
        return await call
    except tolerated as error:
        return error


def _first(errors: Sequence[BaseException]) -> BaseException:
    """The error to answer with: a bug before all, then old routes: asking again may cure the others."""
    for kind in (lambda error: not isinstance(error, ShoalError), lambda error: isinstance(error, NotServed)):
        found = next(filter(kind, errors), None)
        if found is not None:
            return found
    return errors[0]
