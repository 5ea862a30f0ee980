"""Who is asked what: a query over the routes becomes one question for each partition that can hold an answer.

Each question names the state its partition answers from, so that the answers together are what the decision
(`consistency`) says: the newest, exactly one version, or the version a continue token pins the partition to.
Knows routes and queries, calls nobody.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...coordinator.routes import Route
from ...shards.model.errors import NotFound, NotReady
from ...shards.model.queries import CountQuery, GetQuery, PageQuery
from ...shards.model.refs import Key
from ...shards.model.resources import ResourceType
from ...shards.model.versions import UNKNOWN, Version
from .carrying import carried
from .consistency import WAIT_S, Continued, Decision, Exactly, Newest
from .directory import RETRY_AFTER_S
from .request import CollectionQuery, ObjectQuery, Query
from .routing import RouteIndex
from .tokens import Position

LIST_BYTES = 8 << 20
"""Bytes of bodies buffered for one list, over all its partitions."""
STREAM_OBJECTS = 250
"""Objects a page where everything is asked for: of pods about a megabyte. Of 20 000 pods on two shards, pages of 1 000
cost the gateway a fifth more CPU than pages of 200, because each needs fresh memory; smaller ones gain nothing.
"""
PART_BYTES_MIN = 256 << 10
"""A partition's page is not cut smaller than this, however many partitions there are."""


class Question(NamedTuple):
    """A page of one partition, and who has it."""

    route: Route
    query: PageQuery


class UnknownResource(NotFound):
    """A resource that is not followed. The Status has empty details, as kube-apiserver's has."""

    def __init__(self, because: str = "") -> None:
        super().__init__(f"the server could not find the requested resource{because}")

    def status(self) -> dict[str, Any]:
        """The Status document."""
        status = super().status()
        code = status.pop("code")
        return {**status, "details": {}, "code": code}


def followed(routes: RouteIndex, query: Query) -> ResourceType:
    """What is known of the resource asked for.

    Raises:
        UnknownResource: it is not followed.
    """
    resource_type = routes.resource_type(query.resource)
    if resource_type is None:
        raise UnknownResource
    return resource_type


def get_questions(
    routes: RouteIndex, query: ObjectQuery, not_older_than: Version
) -> tuple[tuple[Route, GetQuery], ...]:
    """One question for each partition that can hold the object: one as a rule, several if split by uid.

    Raises:
        UnknownResource: the resource is not followed.
        NotReady: no shard has it yet.
    """
    return tuple(
        (
            route,
            GetQuery(
                partition=route.partition.id,
                epoch=routes.epoch,
                key=query.key,
                not_older_than=not_older_than,
                wait_s=WAIT_S,
            ),
        )
        for route in _placed(routes, query, query.namespace)
    )


def carried_position(routes: RouteIndex, query: CollectionQuery, position: Position) -> Position:
    """The position in the partitions there are now.

    Raises:
        UnknownResource: the resource is not followed.
        NotReady: no shard has it yet.
        Expired: parts that are pinned to different versions were joined since the token was made.
        BadShardSelector: the shard selector cannot be read.
    """
    concerned = [route.partition for route in _concerned(routes, query)]
    return carried(position, concerned, query.fingerprint)


def list_questions(
    routes: RouteIndex, query: CollectionQuery, decision: Decision, position: Position | None
) -> tuple[Question, ...]:
    """The first page of every partition concerned, of the state the decision names; none of a partition that the
    list goes on without. `position` is in the partitions there are now (`carried_position`).

    Raises:
        UnknownResource: the resource is not followed.
        NotReady: no shard has it yet.
        BadShardSelector: the shard selector cannot be read.
    """
    concerned = _concerned(routes, query)
    pins = position.pins if position is not None else {}
    if position is not None and position.missing:
        concerned = tuple(route for route in concerned if route.partition.id not in position.missing)
        if not concerned:
            raise _left_out(position)
    labels, fields, shards = query.labels, query.fields, query.shards
    share = max(LIST_BYTES // len(concerned), PART_BYTES_MIN)
    first = _first_objects(decision.limit, len(concerned)) if decision.limit else STREAM_OBJECTS
    questions = []
    for route in concerned:
        at, not_older_than = _state(decision, pins.get(route.partition.id))
        page = PageQuery(
            partition=route.partition.id,
            epoch=routes.epoch,
            namespace=query.namespace,
            labels=labels,
            fields=fields,
            shards=shards,
            after=position.after if position else Key(""),
            limit=first,
            max_bytes=share,
            at=at,
            not_older_than=not_older_than,
            wait_s=WAIT_S,
        )
        questions.append(Question(route, page))
    return tuple(questions)


def count_questions(
    routes: RouteIndex, query: CollectionQuery, not_older_than: Version, *, group_by: str
) -> tuple[tuple[Route, CountQuery], ...]:
    """How many every partition concerned has.

    Raises:
        UnknownResource: the resource is not followed.
        NotReady: no shard has it yet.
        BadShardSelector: the shard selector cannot be read.
    """
    labels, fields, shards = query.labels, query.fields, query.shards
    return tuple(
        (
            route,
            CountQuery(
                partition=route.partition.id,
                epoch=routes.epoch,
                namespace=query.namespace,
                labels=labels,
                fields=fields,
                shards=shards,
                group_by=group_by,
                not_older_than=not_older_than,
                wait_s=WAIT_S,
            ),
        )
        for route in _concerned(routes, query)
    )


def _concerned(routes: RouteIndex, query: CollectionQuery) -> tuple[Route, ...]:
    placed = _placed(routes, query, query.namespace)
    # A selector may leave nobody to ask, but the answer still needs a version: then all of them say it.
    return tuple(route for route in placed if query.concerns(route.partition)) or placed


def _first_objects(limit: int, partitions: int) -> int:
    """How many objects each partition is asked for first, for a page of `limit` over all of them.

    Of partitions by hash each has its share of a page, and a little more of it makes a second round rare. Where one
    partition has them all, as in a list by namespaces, the second round asks it alone for what is left.
    """
    if partitions == 1:
        return limit
    return min(limit, limit * 5 // (partitions * 4) + 16)


def _placed(routes: RouteIndex, query: Query, namespace: str | None) -> tuple[Route, ...]:
    followed(routes, query)
    placed = tuple(route for route in routes.of(query.resource) if route.partition.may_hold(namespace))
    if not placed:
        # Covers of a resource together are everything, so this is a table published half-way, not an empty
        # answer.
        where = f" in namespace {namespace}" if namespace else ""
        raise NotReady(f"{query.resource}{where} is with no shard yet", retry_after_s=RETRY_AFTER_S)
    return placed


def _left_out(position: Position) -> NotReady:
    return NotReady(
        f"all that is left of this partial list is in what it goes on without: {', '.join(position.missing)}",
        retry_after_s=RETRY_AFTER_S,
    )


def _state(decision: Decision, pin: Version | None) -> tuple[Version | None, Version]:
    """What a partition is asked for: exactly this version (None: the newest), and no older than that."""
    match decision.basis:
        case Exactly(version=version):
            return version, version  # a version that is still to come is waited for like a minimum
        case Newest(not_older_than=version):
            return None, version
        case Continued():
            # A shard that was restarted may have to catch up with what its predecessor had answered.
            return pin, UNKNOWN if pin is None else pin
