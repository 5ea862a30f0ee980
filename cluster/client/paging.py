"""Collections as they are asked for, page by page: `Collection`, `pages`, `whole`.

All pages of one list are one state of the server. It is kept for some minutes; who comes later than that for the next
page is answered 410. `whole` then begins again, once, and asks for everything in one piece, as client-go does; `pages`
cannot take back what it gave out, and raises.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from ...shards.api.requests import JSON, ApiRequest, Pairs
from ...shards.model.errors import Expired
from ...shards.model.resources import ResourceType
from ..informers.objects import KubeObject
from .answers import Freshness, ObjectList, read_list
from .retrying import Asking, Deadline

PAGE_SIZE: Final = 500
"""Objects a page, as client-go's and kubectl's."""
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
"""Accept of a list of nothing but metadata."""


@dataclass(frozen=True, slots=True)
class Collection:
    """The objects that one list is about."""

    kind: ResourceType
    namespace: str | None
    selectors: Pairs = ()
    demand: Pairs = ()
    """The version asked for; pages that continue a list carry none."""
    headers: Pairs = ()
    accept: str = JSON

    def request(self, *, limit: int | None, token: str) -> ApiRequest:
        """The request for one page; `limit` None: everything."""
        query = self.selectors if token else (*self.selectors, *self.demand)
        if limit is not None:
            query = (*query, ("limit", str(limit)))
        if token:
            query = (*query, ("continue", token))
        path = self.kind.resource.path(self.namespace)
        return ApiRequest("GET", path, query, (("Accept", self.accept), *self.headers))


async def page(
    asking: Asking, collection: Collection, deadline: Deadline, *, limit: int | None = None, token: str = ""
) -> ObjectList:
    """One page. Raises ShoalError as `Asking.ask`, and Garbage for what is no list."""
    answer = await asking.ask(collection.request(limit=limit, token=token), deadline)
    return read_list(answer.body, answer.headers, collection.kind)


async def pages(
    asking: Asking, collection: Collection, deadline: Callable[[], Deadline], *, limit: int
) -> AsyncGenerator[ObjectList, None]:
    """Page after page, each with a deadline of its own.

    Raises:
        Expired: the next page was asked for too late; what was given out is of a state that is forgotten.
        ShoalError: as `page`.
    """
    token = ""
    while True:
        try:
            found = await page(asking, collection, deadline(), limit=limit, token=token)
        except Expired as error:
            if not token:
                raise
            raise Expired(
                f"the list of {collection.kind.resource} cannot be continued: the server has forgotten the state "
                "of its first pages. Pages have to be taken within some minutes; begin again, with larger pages or "
                "less work between them",
                details=error.details,
                metadata=error.metadata,
            ) from error
        yield found
        token = found.continue_token
        if not token:
            return


async def whole(
    asking: Asking, collection: Collection, deadline: Deadline, *, page_size: int = PAGE_SIZE
) -> ObjectList:
    """All pages as one list, of one state. Raises ShoalError as `page`."""
    gathered: list[ObjectList] = []
    try:
        async for found in pages(asking, collection, lambda: deadline, limit=page_size):
            gathered.append(found)  # noqa: PERF401 - those that came before an error are looked at
    except Expired:
        if not gathered:
            raise
        return await page(asking, collection, deadline)
    return joined(gathered)


def joined(gathered: list[ObjectList]) -> ObjectList:
    """Pages of one state as one list, which is as fresh as its first page says: the others are of the same state."""
    first = gathered[0]
    if len(gathered) == 1:
        return first
    items: list[KubeObject] = []
    for found in gathered:
        items += found.items
    missing = "; ".join(
        dict.fromkeys(found.freshness.missing for found in gathered if found.freshness.missing)
    )
    shards = tuple(dict.fromkeys(shard for found in gathered for shard in found.freshness.shards))
    freshness: Freshness = msgspec.structs.replace(first.freshness, missing=missing, shards=shards)
    return ObjectList(items, resource_version=first.resource_version, freshness=freshness)
