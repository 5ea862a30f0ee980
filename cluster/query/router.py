"""The query router: one question in, questions to the shards that can hold an answer, one answer out.

It promises: the answer is complete or an error (a shard that is missing is an error that names it, never less
than there is), unless the caller says that a partial answer will do, which then names what is missing; all
pages of a list are one state; objects come in the API server's order. It holds at most one page of each
partition, besides what the connection to a shard reads ahead. Bodies pass through as bytes.

A list over several partitions carries the *minimum* of their frontiers, while an object in it may be newer.
Asking those that are ahead for the minimum would make it one state of the API server, and was rejected: an
object that its reader has just got, watched or written would go back to an older state (the frontiers of a busy
resource practically always differ), for one more round trip and a look into history with every list. Who wants
one state says so: ``resourceVersionMatch=Exact``. Who watches from the list's version is told the newest state
of what changed since, once, whether or not the list had it already.

Ranges of uid: two objects of one name, of which one has gone, may be in two partitions for a moment, until both have
heard of it. A get and a list take the newer one. Each is right about its own partition's state, and they are not at one
version: a get may show what is left of an object that another range has seen replaced *and* that gone again; counts,
and how many objects remain, count both.

Which state answers is `consistency`'s to decide, who is asked `fanout`'s, and who is asked again, because partitions
have moved, `rerouting`'s; lists are put together in `listing`; the forms of answers are the gateway's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from ...coordinator.routes import Route
from ...shards.handle import ShardHandle
from ...shards.model.errors import (
    BadRequest,
    Expired,
    NotFound,
    ShoalError,
)
from ...shards.model.partitions import PartitionId, ShardId
from ...shards.model.queries import CountQuery, GetAnswer, GetQuery, PartitionCount
from ...shards.model.resources import ResourceType
from ...shards.model.versions import UNKNOWN, Version
from .answers import CountAnswer, Listing, ObjectAnswer, Provenance
from .consistency import WAIT_S, Continued, Decision, Exactly, Newest, decide_get, decide_list
from .cursor import PartitionCursor
from .directory import KnownShards, ShardDirectory
from .fanout import (
    Question,
    carried_position,
    count_questions,
    followed,
    get_questions,
    list_questions,
)
from .floor import ReadFloor
from .gather import Tolerated, all_of, each_of
from .listing import ListAssembly, ListPlan
from .merge import version_of
from .request import CollectionQuery, ObjectQuery
from .rerouting import Rerouting
from .routing import RouteIndex, Routing
from .tokens import Position, continue_expired, decode_token, version_expired

T = TypeVar("T")

_Missing: TypeAlias = dict[PartitionId, tuple[ShardId, ShoalError]]
"""Partitions that are not in an answer: who did not give it, and why."""


class QueryRouter:
    """Answers queries from the shards. Any number may run at once; nothing is kept between them, except what
    `floor` knows of writes.
    """

    def __init__(
        self,
        routing: Routing,
        shards: ShardDirectory,
        *,
        shard_timeout_s: float = 10.0,
        floor: ReadFloor | None = None,
    ) -> None:
        self._routing = routing
        self._rerouting = Rerouting(routing)
        self._shards = KnownShards(shards)
        self._timeout_s = shard_timeout_s
        self._floor = floor

    @property
    def routing(self) -> Routing:
        """The routes used."""
        return self._routing

    def floor(self, query: CollectionQuery | ObjectQuery) -> Version:
        """How new a read that names no version must be, because of what was written through this gateway."""
        if self._floor is None:
            return UNKNOWN
        return self._floor.of(query.resource, query.namespace or None)

    # -- verbs -----------------------------------------------------------------------------------------------

    async def get(self, query: ObjectQuery, *, partial: bool = False) -> ObjectAnswer:
        """One object, newest state held.

        `partial`: of an object that one of several shards may have, what is found will do. That it is *not*
        there is never concluded from less than all of them.

        Raises:
            NotFound: there is no such object, or the resource is not followed.
            BadRequest: the version demanded is not a number.
            TooLargeVersion: it was not reached in time.
            NotReady: a shard that may hold the object does not answer, or has not listed it yet.
        """
        basis = decide_get(query.resource_version, self.floor(query))

        async def attempt(routes: RouteIndex, tolerated: Tolerated) -> ObjectAnswer:
            return await self._get(routes, query, basis.not_older_than, tolerated)

        return await self._rerouting.run(query.resource, attempt, partial=partial)

    async def list(
        self, query: CollectionQuery, *, partial: bool = False, decision: Decision | None = None
    ) -> Listing:
        """A list: with a limit one page, without all of it, the first objects being there when this returns.

        `partial`: shards that do not answer are left out and named in `Listing.provenance`, up to the moment
        this returns; a list without limit that loses a shard later breaks off like any other. If no shard
        answers there is no list. `decision` takes the place of what the query's options say of version and
        limit: the initial events of a watch are such a list (`consistency.InitialEvents.decision`).

        Raises:
            NotFound: the resource is not followed.
            BadRequest: a bad version, token or combination of them.
            BadShardSelector: a shard selector that cannot be read.
            Expired: the exact version or the state of the token is forgotten.
            TooLargeVersion, NotReady: as `get`.
        """
        chosen = decide_list(query.options, self.floor(query)) if decision is None else decision
        position = await self._position(query, chosen, partial=partial)

        async def attempt(routes: RouteIndex, tolerated: Tolerated) -> Listing:
            try:
                return await self._list(routes, query, chosen, position, tolerated)
            except Expired as error:
                raise _as_the_api_server_says(error, chosen, position, query.fingerprint) from error

        return await self._rerouting.run(query.resource, attempt, partial=partial)

    async def count(
        self, query: CollectionQuery, *, group_by: str = "", partial: bool = False
    ) -> CountAnswer:
        """How many objects match, in all and for each value of the path `group_by`, without fetching them.

        `group_by` is ``metadata.namespace``, a selectable or indexed field, or ``metadata.labels[KEY]``. Limits
        are ignored.

        Raises:
            BadRequest: besides what `list` refuses, an exact version or a continue token, and a path that cannot
                be grouped by.
            NotFound, BadShardSelector, TooLargeVersion, NotReady: as `list`.
        """
        basis = decide_list(query.options, self.floor(query)).basis
        if isinstance(basis, Continued):
            raise BadRequest("a count has no pages, so it cannot be continued")
        if isinstance(basis, Exactly):
            raise BadRequest(
                "objects are counted in their newest state: leave resourceVersion out, or say "
                "resourceVersionMatch=NotOlderThan beside it"
            )
        newest: Newest = basis

        async def attempt(routes: RouteIndex, tolerated: Tolerated) -> CountAnswer:
            return await self._count(routes, query, newest.not_older_than, group_by, tolerated)

        return await self._rerouting.run(query.resource, attempt, partial=partial)

    # -- get and count ---------------------------------------------------------------------------------------

    async def _get(
        self, routes: RouteIndex, query: ObjectQuery, not_older_than: Version, tolerated: Tolerated
    ) -> ObjectAnswer:
        resource_type = followed(routes, query)
        questions = get_questions(routes, query, not_older_than)
        calls = [(route, _getting(question)) for route, question in questions]
        answers, missing = await self._ask(calls, tolerated, waits=bool(not_older_than))
        body = _newest_body([answer for _, answer in answers])
        if body is None:
            for _, problem in missing.values():
                raise problem
            raise _no_such_object(resource_type, query.name)
        told = ((route.shard, answer.frontier, answer.age_s) for route, answer in answers)
        return ObjectAnswer(body, Provenance.over(told, _names(missing)))

    async def _count(
        self,
        routes: RouteIndex,
        query: CollectionQuery,
        not_older_than: Version,
        group_by: str,
        tolerated: Tolerated,
    ) -> CountAnswer:
        questions = count_questions(routes, query, not_older_than, group_by=group_by)
        calls = [(route, _counting(question)) for route, question in questions]
        answers, missing = await self._ask(calls, tolerated, waits=bool(not_older_than))
        if not answers:
            for _, problem in missing.values():
                raise problem
        groups: Counter[str] = Counter()
        for _, answer in answers:
            groups.update(answer.groups)
        told = ((route.shard, answer.version, answer.age_s) for route, answer in answers)
        return CountAnswer(
            count=sum(answer.count for _, answer in answers),
            provenance=Provenance.over(told, _names(missing)),
            groups=dict(sorted(groups.items(), key=lambda group: (-group[1], group[0]))),
        )

    async def _ask(
        self,
        calls: Sequence[tuple[Route, Callable[[ShardHandle], Awaitable[T]]]],
        tolerated: Tolerated,
        *,
        waits: bool,
    ) -> tuple[Sequence[tuple[Route, T]], _Missing]:
        """The answers of all partitions, or as many as there are, and what is missing then."""
        timeout_s = self._timeout_s + (WAIT_S if waits else 0.0)
        asked = [self._shards.ask(route.shard, call, timeout_s) for route, call in calls]
        routes = [route for route, _ in calls]
        if not tolerated:
            return list(zip(routes, await all_of(asked), strict=True)), {}
        answers: list[tuple[Route, T]] = []
        missing: _Missing = {}
        for route, answer in zip(routes, await each_of(asked, tolerated), strict=True):
            if isinstance(answer, ShoalError):
                missing[route.partition.id] = (route.shard, answer)
            else:
                answers.append((route, answer))
        return answers, missing

    # -- list ------------------------------------------------------------------------------------------------

    async def _position(
        self, query: CollectionQuery, decision: Decision, *, partial: bool
    ) -> Position | None:
        """Where the list stands, if it is continued; routes as new as the token's are waited for a moment."""
        if not isinstance(decision.basis, Continued):
            return None
        position = decode_token(decision.basis.token, query.fingerprint)
        if position.missing and not partial:
            raise BadRequest(
                "the continue token is of a partial list, which goes on only as one: say so again, or begin a new "
                "list without the token"
            )
        if position.epoch > self._routing.table.epoch:
            await self._rerouting.wait_for(position.epoch)
        return position

    async def _list(
        self,
        routes: RouteIndex,
        query: CollectionQuery,
        decision: Decision,
        position: Position | None,
        tolerated: Tolerated,
    ) -> Listing:
        if position is not None:
            position = carried_position(routes, query, position)
        questions = list_questions(routes, query, decision, position)
        pins = position.pins if position else {}
        plan = ListPlan(
            query,
            routes.epoch,
            decision.limit,
            tolerated,
            _left_out(routes, position),
            pins,
            newest=isinstance(decision.basis, Newest),
        )
        assembly = ListAssembly(plan, self._cursors(questions, streamed=not decision.limit))
        try:
            return await assembly.open()
        except BaseException:
            # NB: also when the caller goes away: shards must not keep a state nobody will ask for.
            await assembly.aclose()
            raise

    def _cursors(self, questions: Sequence[Question], *, streamed: bool) -> tuple[PartitionCursor, ...]:
        return tuple(
            PartitionCursor(
                question.route,
                question.query,
                shards=self._shards,
                relocate=self._rerouting.relocate,
                timeout_s=self._timeout_s,
                streamed=streamed,
            )
            for question in questions
        )


def _left_out(routes: RouteIndex, position: Position | None) -> dict[PartitionId, ShardId | None]:
    """Partitions the list goes on without, each with the shard that has it now, if one has."""
    left_out: dict[PartitionId, ShardId | None] = {}
    for partition in position.missing if position else ():
        route = routes.route(partition)
        left_out[partition] = route.shard if route else None
    return left_out


def _names(missing: _Missing) -> dict[PartitionId, ShardId | None]:
    return {partition: shard for partition, (shard, _) in missing.items()}


def _as_the_api_server_says(
    error: Expired, decision: Decision, position: Position | None, fingerprint: bytes
) -> Expired:
    if position is not None:
        return continue_expired(position, fingerprint)
    return version_expired() if isinstance(decision.basis, Exactly) else error


def _getting(question: GetQuery) -> Callable[[ShardHandle], Awaitable[GetAnswer]]:
    return lambda handle: handle.get(question)


def _counting(question: CountQuery) -> Callable[[ShardHandle], Awaitable[PartitionCount]]:
    return lambda handle: handle.count(question)


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
