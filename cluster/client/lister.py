"""Reading a resource of a server: `Lister`.

Every answer is the server's own, of the moment it is asked (`cluster.informers` has the listers that read from memory).
A call ends within its ``timeout_s``, 30 s unless the client was given another time; what comes right by itself is asked
again until then (`retrying`). Answers of one client may be of different times, as they may come from different
servers: who needs to read what somebody wrote says ``not_older_than`` with the version the write was answered with.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal, TypedDict, TypeVar, Unpack, overload

from ...shards.api.requests import ApiRequest, Pairs
from ...shards.model.errors import BadRequest, Garbage, NotFound
from ...shards.model.refs import ref_of
from ...shards.model.resources import Resource, ResourceType
from ...shards.model.selectors import FieldRequirement, FieldSelector, LabelSelector
from ...shards.model.shard_selectors import parse_shard_selector
from ...shards.model.versions import parse_version
from ...shards.store.counting import label_of
from ..informers.objects import KubeObject
from .answers import Count, Groups, ObjectList
from .counting import Counting, indexing
from .paging import PAGE_SIZE, Collection, page, pages, whole
from .resources import Served, checked_namespace, object_key
from .retrying import Asking, Deadline

T = TypeVar("T")
AnyVersion = int | str


class _Raise:
    """The default of `Lister.get`: what is not there is an error."""


RAISE: Final = _Raise()


class Selection(TypedDict, total=False):
    """What any question about several objects may say."""

    label_selector: str
    """``app=web,tier in (a,b),!legacy``."""
    field_selector: str
    """``spec.nodeName=node-1``; which fields there are is the server's to say."""
    shard_selector: str
    """``shardRange(object.metadata.uid, '0x0', '0x8000000000000000')``. An API server without that feature ignores
    it."""
    not_older_than: AnyVersion | None
    """A resource version that the answer has to include."""
    partial: bool
    """A Shoal may leave out what a shard that does not answer holds; `Freshness.missing` then says what."""
    timeout_s: float | None
    """Seconds this call may take; None: the client's."""


@dataclass(frozen=True, slots=True)
class Source:
    """A server, as listers ask it."""

    asking: Asking
    served: Served
    counting: Counting


class Lister:
    """Reads objects of one resource. Made by `Client.lister`; costs nothing until it is asked."""

    def __init__(self, source: Source, resource: Resource | str, namespace: str | None = None) -> None:
        self._source = source
        self._resource = resource
        self._namespace = namespace or None

    def __repr__(self) -> str:
        where = f" in {self._namespace}" if self._namespace else ""
        return f"<lister of {self._resource}{where}>"

    def in_namespace(self, namespace: str | None) -> Lister:
        """The same, of one namespace; None: of all."""
        return Lister(self._source, self._resource, namespace)

    async def resource_type(self, *, timeout_s: float | None = None) -> ResourceType:
        """What discovery says about the resource.

        Raises:
            UnknownResource: the server serves no such resource; the message names close ones.
        """
        return await self._source.served.resolve(self._resource, timeout_s=timeout_s)

    # -- one object ------------------------------------------------------------------------------------------

    @overload
    async def get(
        self,
        name: str,
        namespace: str | None = None,
        *,
        not_older_than: AnyVersion | None = None,
        timeout_s: float | None = None,
    ) -> KubeObject: ...
    @overload
    async def get(
        self,
        name: str,
        namespace: str | None = None,
        *,
        default: T,
        not_older_than: AnyVersion | None = None,
        timeout_s: float | None = None,
    ) -> KubeObject | T: ...
    async def get(
        self,
        name: str,
        namespace: str | None = None,
        *,
        default: T | _Raise = RAISE,
        not_older_than: AnyVersion | None = None,
        timeout_s: float | None = None,
    ) -> KubeObject | T:
        """One object by name. `namespace` may be left out for cluster-scoped ones, and of a lister of one namespace.

        Args:
            name: Its name, or ``namespace/name`` (`KubeObject.key`) where no namespace is given.
            namespace: Where it is.
            default: Returned if there is no such object.
            not_older_than: A resource version that the answer has to include.
            timeout_s: Seconds this call may take; None: the client's.

        Raises:
            NotFound: there is no such object, and no default. (UnknownResource: no such resource.)
            ShoalError: as `Asking.ask`.
        """
        deadline = self._source.asking.deadline(timeout_s)
        kind = await self._source.served.find(self._resource, deadline)
        key = object_key(kind, name, namespace, self._namespace)
        found = ref_of(key)
        query = () if not_older_than is None else (("resourceVersion", _version(not_older_than)),)
        request = ApiRequest("GET", kind.resource.path(found.namespace or None, found.name), query)
        try:
            answer = await self._source.asking.ask(request, deadline)
        except NotFound as error:
            if not (error.details or {}).get("name"):
                # Not of an object: the resource itself is gone, or the gateway does not follow it.
                self._source.served.forget(kind)
                raise
            if isinstance(default, _Raise):
                raise
            return default
        if not answer.body.lstrip().startswith(b"{"):
            raise Garbage(f"the answer to GET {request.path} is no object")
        return KubeObject(answer.body, key)

    # -- several ---------------------------------------------------------------------------------------------

    async def list(
        self,
        namespace: str | None = None,
        *,
        limit: int | None = None,
        continue_token: str = "",
        **selection: Unpack[Selection],
    ) -> ObjectList:
        """All objects, or those that selectors mean, of one state of the server.

        They are read in pages of 500, within one deadline. With `limit` it is one page of at most so many, and
        `ObjectList.continue_token` is what the next page is asked for with.

        Raises:
            BadRequest: a selector that cannot be parsed, or a field that cannot be selected by.
            Expired: of a continue token that is too old.
            ShoalError: as `Asking.ask`.
        """
        deadline = self._source.asking.deadline(selection.get("timeout_s"))
        collection = await self._collection(namespace, deadline, selection)
        asking = self._source.asking
        try:
            if limit is None and not continue_token:
                return await whole(asking, collection, deadline)
            size = None if limit is None else _positive("limit", limit)
            return await page(asking, collection, deadline, limit=size, token=continue_token)
        except NotFound:
            self._source.served.forget(collection.kind)
            raise

    async def pages(
        self, namespace: str | None = None, *, limit: int = PAGE_SIZE, **selection: Unpack[Selection]
    ) -> AsyncGenerator[ObjectList, None]:
        """The same in pages of at most `limit`, one at a time; all are of one state. Each has `timeout_s` for itself.

        Raises:
            Expired: a page was asked for some minutes after the first.
            ShoalError: as `list`.
        """
        timeout_s = selection.get("timeout_s")
        asking = self._source.asking
        collection = await self._collection(namespace, asking.deadline(timeout_s), selection)
        size = _positive("limit", limit)
        async with aclosing(
            pages(asking, collection, lambda: asking.deadline(timeout_s), limit=size)
        ) as found:
            async for each in found:
                yield each

    async def objects(
        self, namespace: str | None = None, *, limit: int = PAGE_SIZE, **selection: Unpack[Selection]
    ) -> AsyncGenerator[KubeObject, None]:
        """The objects of `pages`, one after the other. Raises as it."""
        async with aclosing(self.pages(namespace, limit=limit, **selection)) as found:
            async for each in found:
                for obj in each:
                    yield obj

    async def by_index(
        self, path: str, value: str, namespace: str | None = None, **selection: Unpack[Selection]
    ) -> ObjectList:
        """The objects with this value at a path: ``spec.nodeName``, or ``metadata.labels[app]``.

        A Shoal answers from an index: of labels, of the API's selectable fields, and of the paths its settings declare
        (``follow.indexed_fields``). An API server knows labels and its selectable fields alone.

        Raises:
            BadRequest: the server has no index of the path; the message says what to do.
            ShoalError: as `list`.
        """
        label = label_of(path)
        narrowed = selection.copy()
        if label is not None:
            narrowed["label_selector"] = _and(selection.get("label_selector", ""), f"{label}={value}")
            return await self.list(namespace, **narrowed)
        term = str(FieldRequirement(path, value))
        narrowed["field_selector"] = _and(selection.get("field_selector", ""), term)
        try:
            return await self.list(namespace, **narrowed)
        except BadRequest as error:
            if path not in error.message:
                raise
            kind = await self.resource_type(timeout_s=selection.get("timeout_s"))
            raise BadRequest(
                f"{kind.resource} cannot be looked up by {path}: {error.message}. {indexing(kind, path)}"
            ) from error

    # -- numbers ---------------------------------------------------------------------------------------------

    async def count(self, namespace: str | None = None, **selection: Unpack[Selection]) -> Count:
        """How many objects `list` would give; a number that says what it rests on. Raises ShoalError as `list`."""
        deadline = self._source.asking.deadline(selection.get("timeout_s"))
        collection = await self._collection(namespace, deadline, selection)
        return await self._source.counting.count(collection, deadline)

    async def group_by(
        self, path: str, namespace: str | None = None, **selection: Unpack[Selection]
    ) -> Groups:
        """How many objects there are of each value at a path, the most frequent first.

        `path` is ``metadata.namespace``, ``metadata.labels[KEY]``, or a field: of a Shoal one that it has an index of
        (`by_index`), of an API server any, as all objects are then read.

        Raises:
            BadRequest: it is no path, leads to maps or lists, or the Shoal has no index of it.
            ShoalError: as `list`.
        """
        if not path:
            raise BadRequest("group_by: expected a path, such as metadata.namespace or metadata.labels[app]")
        deadline = self._source.asking.deadline(selection.get("timeout_s"))
        collection = await self._collection(namespace, deadline, selection)
        return await self._source.counting.groups(collection, path, deadline)

    async def _collection(
        self, namespace: str | None, deadline: Deadline, selection: Selection
    ) -> Collection:
        # What is asked is checked before anybody is asked; a selector with a wrong name would select everything.
        unknown = selection.keys() - Selection.__optional_keys__
        if unknown:
            known = ", ".join(sorted(Selection.__optional_keys__))
            raise TypeError(f"no parameter is called {', '.join(sorted(unknown))}; there are {known}")
        selectors, demand = _selectors(selection), _demand(selection)
        headers = (("Shoal-Partial", "allow"),) if selection.get("partial") else ()
        kind = await self._source.served.find(self._resource, deadline)
        namespace = checked_namespace(kind, namespace or self._namespace)
        return Collection(kind, namespace, selectors, demand, headers)


def _selectors(selection: Selection) -> Pairs:
    """Selectors as parameters.

    Raises:
        BadRequest, BadShardSelector: one that cannot be parsed.
    """
    labels = selection.get("label_selector", "")
    fields = selection.get("field_selector", "")
    shards = selection.get("shard_selector", "")
    LabelSelector.parse(labels)
    FieldSelector.parse(fields)
    parse_shard_selector(shards)
    named: tuple[tuple[Literal["labelSelector", "fieldSelector", "shardSelector"], str], ...] = (
        ("labelSelector", labels),
        ("fieldSelector", fields),
        ("shardSelector", shards),
    )
    return tuple((name, text) for name, text in named if text)


def _demand(selection: Selection) -> Pairs:
    wanted = selection.get("not_older_than")
    if wanted is None:
        return ()
    return (("resourceVersion", _version(wanted)), ("resourceVersionMatch", "NotOlderThan"))


def _version(version: AnyVersion) -> str:
    try:
        return str(parse_version(str(version)))
    except ValueError as error:
        raise BadRequest(f"not_older_than: {error}") from None


def _positive(name: str, number: int) -> int:
    if number < 1:
        raise BadRequest(f"{name} is {number}: expected at least 1")
    return number


def _and(selector: str, term: str) -> str:
    return f"{selector},{term}" if selector else term
