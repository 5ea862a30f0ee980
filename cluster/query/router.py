"""The query router: one question in, questions to the shards that can hold an answer, one answer out.

It promises: the answer is complete or an error (a shard that is missing is an error that names it, never less
than there is); all pages of a list are one state; objects come in the API server's order. It holds at most
one page of each partition. Bodies pass through as bytes.

A shard that does not serve a partition any more says so, and the query is asked once more with newer routes.
Which state answers is `consistency`'s to decide, who is asked `fanout`'s, ordering `merge`'s; the forms of
answers are the gateway's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from ...coordinator.routes import Route
from ...shards.handle import ShardHandle
from ...shards.model.errors import BadRequest, Expired, NotFound, NotReady, NotServed, ShoalError
from ...shards.model.partitions import Epoch, PartitionId
from ...shards.model.queries import GetAnswer, GetQuery, PageAnswer
from ...shards.model.refs import Key
from ...shards.model.resources import ResourceType
from ...shards.model.versions import Version, oldest
from .answers import CountAnswer, Listing, ObjectAnswer, Provenance
from .consistency import WAIT_S, Continued, Decision, Exactly, decide_get, decide_list
from .cursor import PartitionCursor
from .directory import RETRY_AFTER_S, KnownShards, ShardDirectory
from .fanout import Question, followed, get_questions, list_questions
from .merge import Merge, version_of
from .request import CollectionQuery, ObjectQuery
from .routing import RouteIndex, Routing
from .tokens import Position, continue_expired, decode_token, encode_token, version_expired

T = TypeVar("T")

REFRESH_S = 1.0
"""How long newer routes are waited for when a shard says that ours are old. A hand-over takes milliseconds; a
restarted shard is given its partitions again within about a second."""
STREAM_OBJECTS = 1000
"""Objects a page where everything is asked for."""
LIMITED_BYTES = 64 << 20
"""A page with a limit ends early at this size; the API allows fewer objects than the limit."""


class QueryRouter:
    """Answers queries from the shards. Any number may run at once; nothing is kept between them."""

    def __init__(self, routing: Routing, shards: ShardDirectory, *, shard_timeout_s: float = 10.0) -> None:
        self._routing = routing
        self._shards = KnownShards(shards)
        self._timeout_s = shard_timeout_s

    @property
    def routing(self) -> Routing:
        """The routes used."""
        return self._routing

    # -- verbs -----------------------------------------------------------------------------------------------

    async def get(self, query: ObjectQuery) -> ObjectAnswer:
        """One object, newest state held.

        Raises:
            NotFound: there is no such object, or the resource is not followed.
            BadRequest: the version demanded is not a number.
            TooLargeVersion: it was not reached in time.
            NotReady: a shard that may hold the object does not answer, or has not listed it yet.
        """
        basis = decide_get(query.resource_version)

        async def attempt(routes: RouteIndex) -> ObjectAnswer:
            return await self._get(routes, query, basis.not_older_than)

        return await self._with_routes(attempt)

    async def list(self, query: CollectionQuery) -> Listing:
        """A list: with a limit one page, without all of it, the first objects being there when this returns.

        Raises:
            NotFound: the resource is not followed.
            BadRequest: a bad version, token or combination of them.
            Expired: the exact version or the state of the token is forgotten.
            TooLargeVersion, NotReady: as `get`.
        """
        decision = decide_list(query.options)
        position: Position | None = None
        if isinstance(decision.basis, Continued):
            position = decode_token(decision.basis.token, query.fingerprint)
            if position.epoch > self._routing.table.epoch:
                await self._routing.refresh(Epoch(position.epoch - 1), REFRESH_S)

        async def attempt(routes: RouteIndex) -> Listing:
            try:
                return await self._list(routes, query, decision, position)
            except Expired as error:
                raise _as_the_api_server_says(error, decision, position, query.fingerprint) from error

        return await self._with_routes(attempt)

    async def count(self, query: CollectionQuery) -> CountAnswer:
        """How many objects match, without fetching them. Limits are ignored. Raises as `list`."""
        decision = decide_list(query.options)
        if isinstance(decision.basis, Continued):
            raise BadRequest("a count has no pages, so it cannot be continued")

        async def attempt(routes: RouteIndex) -> CountAnswer:
            questions = list_questions(routes, query, decision, None, limit=1)
            cursors = self._cursors(questions, streamed=False)
            pages = await _all([cursor.next() for cursor in cursors])
            return CountAnswer(
                sum(len(page.keys) + page.remaining for page in pages), _provenance(pages, cursors)
            )

        return await self._with_routes(attempt)

    # -- get -------------------------------------------------------------------------------------------------

    async def _get(self, routes: RouteIndex, query: ObjectQuery, not_older_than: Version) -> ObjectAnswer:
        resource_type = followed(routes, query)
        questions = get_questions(routes, query, not_older_than)
        timeout_s = self._timeout_s + (WAIT_S if not_older_than else 0.0)
        answers = await _all(
            [self._shards.ask(route.shard, _getting(question), timeout_s) for route, question in questions]
        )
        body = _newest_body(answers)
        if body is None:
            raise _no_such_object(resource_type, query.name)
        provenance = Provenance(
            frontier=oldest(answer.frontier for answer in answers),
            age_s=_longest(answer.age_s for answer in answers),
            shards=tuple(sorted({route.shard for route, _ in questions})),
        )
        return ObjectAnswer(body, provenance)

    # -- list ------------------------------------------------------------------------------------------------

    async def _list(
        self, routes: RouteIndex, query: CollectionQuery, decision: Decision, position: Position | None
    ) -> Listing:
        limit = decision.limit
        questions = list_questions(routes, query, decision, position, limit=limit or STREAM_OBJECTS)
        cursors = self._cursors(questions, streamed=not limit)
        merge = Merge(len(cursors))
        try:
            pages = await _all([cursor.next() for cursor in cursors])
            for part, page in enumerate(pages):
                merge.feed(part, page)
            if not limit:
                return _unlimited(cursors, merge, pages)
            return await _limited(query, cursors, merge, limit=limit, epoch=routes.epoch, pages=pages)
        except BaseException:
            # NB: also when the caller goes away: shards must not keep a state nobody will ask for.
            await _close(cursors)
            raise

    def _cursors(self, questions: Sequence[Question], *, streamed: bool) -> tuple[PartitionCursor, ...]:
        return tuple(
            PartitionCursor(
                question.route,
                question.query,
                shards=self._shards,
                relocate=self._relocate,
                timeout_s=self._timeout_s,
                streamed=streamed,
            )
            for question in questions
        )

    # -- routes ----------------------------------------------------------------------------------------------

    async def _with_routes(self, attempt: Callable[[RouteIndex], Awaitable[T]]) -> T:
        """Runs `attempt` with the routes held, and once more with newer ones if a shard says they are old."""
        routes = self._routing.index
        if routes.epoch == 0:
            routes = await self._routing.published(REFRESH_S)
        try:
            return await attempt(routes)
        except NotServed as error:
            seen = max(routes.epoch, Epoch(error.epoch - 1))
        routes = await self._routing.refresh(seen, REFRESH_S)
        try:
            return await attempt(routes)
        except NotServed as error:
            raise NotReady(
                f"partition {error.partition} is with no shard at the moment (epoch {routes.epoch})",
                retry_after_s=RETRY_AFTER_S,
            ) from error

    async def _relocate(self, partition: PartitionId, epoch: Epoch) -> tuple[Route, Epoch]:
        routes = await self._routing.refresh(epoch, REFRESH_S)
        route = routes.route(partition)
        if route is None:
            raise NotReady(f"partition {partition} is not there any more", retry_after_s=RETRY_AFTER_S)
        return route, routes.epoch


# -- putting a list together ---------------------------------------------------------------------------------


async def _limited(
    query: CollectionQuery,
    cursors: Sequence[PartitionCursor],
    merge: Merge,
    *,
    limit: int,
    epoch: Epoch,
    pages: Sequence[PageAnswer],
) -> Listing:
    """One page. The head of a list names its continue token, so nothing goes out before all of it is here."""
    last = Key("")
    bodies: list[bytes] = []
    size = 0
    while True:
        batch = merge.take(limit - len(bodies))
        if batch.keys:
            last = batch.keys[-1]
            bodies.extend(batch.bodies)
            size += sum(map(len, batch.bodies))
        if len(bodies) >= limit or size >= LIMITED_BYTES or not merge.hungry:
            break
        await _feed(cursors, merge, limit - len(bodies))
    remaining = merge.remaining
    token = ""
    if remaining:
        pins = {cursor.partition: page.version for cursor, page in zip(cursors, pages, strict=True)}
        token = encode_token(Position(epoch, last, pins), query.fingerprint)
    return Listing(
        version=merge.version,
        first=bodies,
        provenance=_provenance(pages, cursors),
        continue_token=token,
        remaining=remaining if remaining and not query.selective else None,
    )


def _unlimited(cursors: Sequence[PartitionCursor], merge: Merge, pages: Sequence[PageAnswer]) -> Listing:
    """Everything: what can be given out now, and the rest when it is asked for."""
    first = merge.take()
    complete = not merge.hungry

    async def rest() -> AsyncIterator[Sequence[bytes]]:
        while merge.hungry:
            await _feed(cursors, merge)
            batch = merge.take()
            if batch.bodies:
                yield batch.bodies

    async def close() -> None:
        await _close(cursors)

    return Listing(
        version=merge.version,
        first=first.bodies,
        provenance=_provenance(pages, cursors),
        rest=rest(),
        complete=complete,
        close=close,
    )


async def _feed(cursors: Sequence[PartitionCursor], merge: Merge, limit: int | None = None) -> None:
    hungry = merge.hungry
    pages = await _all([cursors[part].next(limit) for part in hungry])
    for part, page in zip(hungry, pages, strict=True):
        merge.feed(part, page)


async def _close(cursors: Sequence[PartitionCursor]) -> None:
    for cursor in cursors:
        await cursor.aclose()


async def _all(calls: Sequence[Awaitable[T]]) -> list[T]:
    """The answers of all calls at once; the first error cancels the others and is raised as it is."""
    if len(calls) == 1:
        return [await calls[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_awaited(call), name="shard call") for call in calls]
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    return [task.result() for task in tasks]


async def _awaited(call: Awaitable[T]) -> T:
    return await call


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to answer with: a bug before all, then old routes: asking again may cure the others."""
    errors = group.exceptions
    for kind in (lambda error: not isinstance(error, ShoalError), lambda error: isinstance(error, NotServed)):
        found = next(filter(kind, errors), None)
        if found is not None:
            return found
    return errors[0]


def _as_the_api_server_says(
    error: Expired, decision: Decision, position: Position | None, fingerprint: bytes
) -> Expired:
    if position is not None:
        return continue_expired(position, fingerprint)
    return version_expired() if isinstance(decision.basis, Exactly) else error


def _provenance(pages: Sequence[PageAnswer], cursors: Sequence[PartitionCursor]) -> Provenance:
    return Provenance(
        frontier=oldest(page.version for page in pages),
        age_s=_longest(page.age_s for page in pages),
        shards=tuple(sorted({cursor.shard for cursor in cursors})),
    )


def _longest(ages: Iterable[float | None]) -> float | None:
    known = list(ages)
    return None if None in known else max(age for age in known if age is not None)


def _getting(question: GetQuery) -> Callable[[ShardHandle], Awaitable[GetAnswer]]:
    return lambda handle: handle.get(question)


def _newest_body(answers: Sequence[GetAnswer]) -> bytes | None:
    """The object; of two (made again under its name while one of two uid ranges lags) the newer."""
    bodies = [answer.body for answer in answers if answer.body is not None]
    return bodies[0] if len(bodies) == 1 else max(bodies, key=version_of, default=None)


def _no_such_object(resource_type: ResourceType, name: str) -> NotFound:
    resource = resource_type.resource
    group = {"group": resource.group} if resource.group else {}
    return NotFound(
        f'{resource.qualified_name} "{name}" not found',
        details={"name": name, **group, "kind": resource.name},
    )
