"""``GET /shoal/v1/count``: how many objects match, in all or by the values of a path, without sending one of them.

``resource``         ``v1/pods``, ``apps/v1/deployments``: always given
``namespace``        only there
``labelSelector``, ``fieldSelector``, ``shardSelector``, ``resourceVersion``, ``resourceVersionMatch``   as for a list
``groupBy``          ``metadata.namespace``, a field that can be selected by, or ``metadata.labels[KEY]``

It takes the permission to ``list`` the resource there: a count tells what a list would. Headers are a list's.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ...shards.model.errors import BadRequest
from ...shards.model.resources import Resource
from ..query.request import CollectionQuery
from ..query.router import QueryRouter
from ..serving.identity import Attributes
from ..serving.options import ListOptions
from .asked import Asked
from .http import JSON, Answer, Request, no_such_page, unless_gone
from .provenance import missing, partial_will_do
from .resources import Resources

PATH = "/shoal/v1/count"
_PARAMETERS = frozenset(
    {
        *("resource", "namespace", "labelSelector", "fieldSelector", "shardSelector"),
        *("resourceVersion", "resourceVersionMatch", "groupBy", "shoalPartial", "pretty"),
    }
)


class CountDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The answer."""

    resource: str
    count: int
    namespace: str = ""
    groups: Mapping[str, int] | None = None
    """By value, the largest first; objects without one count under the empty text. Only with ``groupBy``."""
    resource_version: str
    """Everything up to this version is counted."""
    age_seconds: float | None = None
    shards: tuple[str, ...]
    missing: str = ""
    """What is not counted; only where a partial answer was allowed."""


def counted_resource(request: Request) -> Resource:
    """The resource a count is of.

    Raises:
        BadRequest: it is missing or no resource.
    """
    text = request.parameter("resource") or ""
    try:
        return Resource.parse(text)
    except ValueError as error:
        raise BadRequest(f"parameter resource: {error}, such as v1/pods") from None


def count_attributes(request: Request) -> Attributes:
    """What permission a count takes. Raises as `counted_resource`."""
    resource = counted_resource(request)
    return Attributes(
        "list",
        resource.group,
        resource.version,
        resource.name,
        namespace=request.parameter("namespace") or "",
        path=resource.path(request.parameter("namespace") or None),
        label_selector=request.parameter("labelSelector") or "",
        field_selector=request.parameter("fieldSelector") or "",
    )


class Counting:
    """Answers counts."""

    def __init__(self, router: QueryRouter, resources: Resources) -> None:
        self._router = router
        self._resources = resources

    async def count(self, asked: Asked) -> None:
        """One count, sent.

        Raises:
            BadRequest: a parameter there is not, or one of a wrong form.
            NotFound: the resource is not followed.
            ShoalError: as `QueryRouter.count`.
        """
        await unless_gone(asked.client.receive, self._send(asked))

    async def _send(self, asked: Asked) -> None:
        await asked.exchange.send(await self._answer(asked))

    async def _answer(self, asked: Asked) -> Answer:
        request = asked.request
        unknown = sorted({name for name, _ in request.parameters} - _PARAMETERS)
        if unknown:
            raise BadRequest(
                f"a count has no parameter {', '.join(unknown)}; there are {', '.join(sorted(_PARAMETERS))}"
            )
        resource = counted_resource(request)
        known = self._resources.known(resource)
        if known is None:
            return no_such_page()
        asked.exchange.resource = str(resource)
        namespace = request.parameter("namespace") or None
        if namespace is not None and not known.namespaced:
            raise BadRequest(f"parameter namespace: {resource} is not in namespaces")
        query = CollectionQuery(
            resource=resource, namespace=namespace, options=ListOptions.parse(request.parameters, known)
        )
        group_by = request.parameter("groupBy") or ""
        answer = await self._router.count(query, group_by=group_by, partial=partial_will_do(request))
        provenance = answer.provenance
        document = CountDocument(
            resource=str(resource),
            count=answer.count,
            namespace=namespace or "",
            groups=dict(answer.groups) if group_by else None,
            resource_version=str(answer.version),
            age_seconds=None if provenance.age_s is None else round(provenance.age_s, 3),
            shards=provenance.shards,
            missing=missing(provenance) if provenance.partial else "",
        )
        body = msgspec.json.encode(document)
        if request.parameter("pretty") in ("1", "true"):
            body = msgspec.json.format(body)
        return Answer(200, JSON, body + b"\n", headers=asked.exchange.rests_on(provenance))
