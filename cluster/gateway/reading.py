"""Get and list: a query from a path and its parameters, the router's answer in the form the client accepts.

A list that is all here goes out in one write, and an error can still become its Status; a long one goes out as it
comes, and its turn (`turns`) lasts as long as objects of it are held here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime

from ...shards.model.resources import ResourceType
from ..query.request import CollectionQuery, ObjectQuery
from ..query.router import QueryRouter
from ..serving.negotiation import Accepted, negotiate, wants_pretty
from ..serving.options import ListOptions
from ..serving.paths import ResourcePath
from .asked import Asked
from .forms import list_form, object_form
from .http import Answer, Request, unless_gone
from .provenance import partial_will_do
from .turns import Turns

SMALL_BYTES = 1 << 20
"""A list that is all here and no longer than this waits for its client without counting among those being sent."""


def accepted_form(request: Request, *, stream: bool = False) -> Accepted:
    """The form a client wants objects in.

    Raises:
        NotAcceptable: there is no such form.
        BadRequest: an ``includeObject`` there is not.
    """
    return negotiate(
        request.headers.get("accept"),
        stream=stream,
        include_object=request.parameter("includeObject") or "",
        pretty=wants_pretty(request.parameter("pretty"), request.headers.get("user-agent")),
    )


class Reading:
    """Answers get and list."""

    def __init__(self, router: QueryRouter, turns: Turns, now: Callable[[], datetime]) -> None:
        self._router = router
        self._turns = turns
        self._now = now

    async def get(self, asked: Asked, path: ResourcePath, resource_type: ResourceType) -> Answer:
        """One object. Raises as `QueryRouter.get`, and NotAcceptable."""
        request = asked.request
        accepted = accepted_form(request)
        assert path.name is not None
        query = ObjectQuery(
            resource=path.identity,
            namespace=path.namespace or "",
            name=path.name,
            # All there is in GetOptions: what a list may say besides is no matter here.
            resource_version=request.parameter("resourceVersion") or "",
        )
        answer = await self._router.get(query, partial=partial_will_do(request))
        accepted.require(is_list=False)  # only now: what is not there is 404 in any form
        body = object_form(answer.body, resource_type, accepted, now=self._now())
        return Answer(200, accepted.content_type, body, headers=asked.exchange.rests_on(answer.provenance))

    async def list(
        self, asked: Asked, path: ResourcePath, resource_type: ResourceType, options: ListOptions
    ) -> bool:
        """A collection, sent; False if the client left before its end. Raises as `QueryRouter.list`, and
        NotAcceptable; once something has been sent an error means that the rest cannot be had.
        """
        accepted = accepted_form(asked.request)
        accepted.require(is_list=True)
        query = CollectionQuery(resource=path.identity, namespace=path.namespace, options=options)
        return await unless_gone(asked.client.receive, self._send(asked, query, resource_type, accepted))

    async def _send(
        self, asked: Asked, query: CollectionQuery, resource_type: ResourceType, accepted: Accepted
    ) -> None:
        async with self._turns.turn(asked.user.name):
            whole = await self._stream(asked, query, resource_type, accepted)
            if whole is None:
                return
            if len(whole.body) > SMALL_BYTES:
                await asked.exchange.send(whole)
                return
        await asked.exchange.send(whole)

    async def _stream(
        self, asked: Asked, query: CollectionQuery, resource_type: ResourceType, accepted: Accepted
    ) -> Answer | None:
        """Sends a list as it comes; or returns the answer that is all here, when its objects are let go."""
        partial = partial_will_do(asked.request)
        exchange = asked.exchange
        async with aclosing(await self._router.list(query, partial=partial)) as listing:
            chunks = list_form(listing, resource_type, accepted, now=self._now())
            answer = Answer(200, accepted.content_type, headers=exchange.rests_on(listing.provenance))
            if listing.complete and not exchange.head_only:
                # One write, a Content-Length, and an error can still become a Status.
                return replace(answer, body=b"".join([chunk async for chunk in chunks]))
            answer = replace(answer, chunks=chunks)
            if exchange.head_only:
                return answer
            await exchange.send(answer)
            return None
