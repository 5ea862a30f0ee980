"""Numbers of objects: asked of a Shoal, or found out from an API server's lists.

A Shoal counts where the objects are and sends numbers. An API server has no such question: without selectors one short
page says how many objects remain, which Kubernetes calls an estimate (it is exact where the page is of one state, as
here); with selectors, or by groups, pages are read, of nothing but metadata where that is enough.

Which of both a server is shows when it is first asked, and is remembered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ...shards.api.requests import ApiRequest
from ...shards.model.errors import BadRequest, Forbidden, MethodNotAllowed, NotFound
from ...shards.model.fields import field_source, field_value
from ...shards.model.resources import ResourceType
from ...shards.store.counting import label_of
from ..informers.objects import KubeObject
from .answers import Count, Groups, ObjectList, read_count
from .paging import METADATA_LIST, PAGE_SIZE, Collection, page, whole
from .retrying import Asking, Deadline

PATH: Final = "/shoal/v1/count"
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)*")
"""Paths of fields, as those that settings declare an index of (``follow.indexed_fields``)."""


class Counting:
    """Counts on one server."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._by_shoal: bool | None = None
        """Whether the server counts; None: it was not asked yet."""

    async def count(self, collection: Collection, deadline: Deadline) -> Count:
        """How many objects there are in a collection. Raises ShoalError as `Asking.ask`."""
        if self._by_shoal is not False:
            found = await self._ask(collection, "", deadline)
            if found is not None:
                return found[0]
        return await self._count_listed(collection, deadline)

    async def groups(self, collection: Collection, path: str, deadline: Deadline) -> Groups:
        """How many there are by the values of a path.

        Raises:
            BadRequest: it is no path of single values, or a Shoal has no index of it.
            ShoalError: as `Asking.ask`.
        """
        if self._by_shoal is not False:
            try:
                found = await self._ask(collection, path, deadline)
            except BadRequest as error:
                raise BadRequest(f"{error.message}. {indexing(collection.kind, path)}") from error
            if found is not None:
                return found[1]
        return await self._group_listed(collection, path, deadline)

    async def _ask(
        self, collection: Collection, path: str, deadline: Deadline
    ) -> tuple[Count, Groups] | None:
        """Asks a Shoal; None: the server is none."""
        namespace = (("namespace", collection.namespace),) if collection.namespace else ()
        group_by = (("groupBy", path),) if path else ()
        query = (
            ("resource", str(collection.kind.resource)),
            *namespace,
            *collection.selectors,
            *collection.demand,
            *group_by,
        )
        try:
            answer = await self._asking.ask(
                ApiRequest("GET", PATH, query, (("Accept", "application/json"), *collection.headers)),
                deadline,
            )
        except (NotFound, Forbidden, MethodNotAllowed):
            # So does an API server answer for a path it does not know, the second to whom it shows no paths at all.
            # A Shoal does for a resource it does not follow, or that is forbidden: listing it will say so again.
            return None
        self._by_shoal = True
        return read_count(answer.body, answer.headers)

    def _listed(self, found: ObjectList) -> None:
        """The server has answered a list, and not a count."""
        if self._by_shoal is None and not found.freshness.from_shoal:
            self._by_shoal = False

    async def _count_listed(self, collection: Collection, deadline: Deadline) -> Count:
        bare = replace(collection, accept=METADATA_LIST)
        if not collection.selectors:
            found = await page(self._asking, bare, deadline, limit=1)
            self._listed(found)
            if found.remaining is not None or not found.continue_token:
                return Count.of(len(found) + (found.remaining or 0), found.resource_version, found.freshness)
        found = await whole(self._asking, bare, deadline, page_size=PAGE_SIZE)
        self._listed(found)
        return Count.of(len(found), found.resource_version, found.freshness)

    async def _group_listed(self, collection: Collection, path: str, deadline: Deadline) -> Groups:
        label = label_of(path)
        if label is None:
            _check_field(path)
        if label is not None or path.startswith("metadata."):
            collection = replace(collection, accept=METADATA_LIST)
        found = await whole(self._asking, collection, deadline, page_size=PAGE_SIZE)
        self._listed(found)
        numbers = Counter(_value(obj, path, label, collection.kind) for obj in found)
        return Groups(numbers, found.resource_version, found.freshness)


def _value(obj: KubeObject, path: str, label: str | None, kind: ResourceType) -> str:
    """The text an object is grouped by: as a Shoal has it."""
    if label is not None:
        return str(obj.get("metadata", "labels", label) or "")
    if path == "metadata.namespace":
        return obj.namespace
    # NB: the one parse of a whole object here; field values have defaults that only `field_value` knows.
    document, name = obj.to_dict(), kind.resource.qualified_name
    for source in field_source(name, path).paths:
        value: Any = document
        for step in source.split("."):
            # A list is no level of a path: none of its elements would be meant.
            value = value.get(step) if isinstance(value, Mapping) else value if _is_list(value) else None
        if isinstance(value, Mapping) or _is_list(value):
            found = "a map" if isinstance(value, Mapping) else "a list, or in one,"
            raise BadRequest(f"cannot group by {path!r}: it is {found} in {obj.key}, and no single value")
    return field_value(document, name, path)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _check_field(path: str) -> None:
    """Refuses what no Shoal could have an index of either."""
    if path.split(".")[:2] in (["metadata", "labels"], ["metadata", "managedFields"]):
        raise BadRequest(f"cannot group by {path!r}: it is no field; labels are written metadata.labels[KEY]")
    if not _FIELD.fullmatch(path):
        raise BadRequest(
            f"cannot group by {path!r}: expected metadata.labels[KEY], or the path of a field, names joined by dots "
            "such as spec.nodeName, and no lists"
        )


def indexing(kind: ResourceType, path: str) -> str:
    """What to do about a path that a server knows no index of."""
    return (
        f"A Shoal holds an index of what its settings declare (follow.indexed_fields: {{{str(kind.resource)!r}: "
        f"[{path}]}}), an API server of what `selectableFields` of a definition say; an informer indexes by any "
        "function (add_index)"
    )
