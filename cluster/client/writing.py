"""Writing objects of a resource: `Writer`.

    >>> async def write(address):
    ...     async with shoal.local(url=address) as client:
    ...         maps = client.writer("v1/configmaps", "shop")
    ...         made = await maps.create({"metadata": {"name": "prices"}, "data": {"bread": "3"}})
    ...         changed = await maps.patch(made, {"data": {"bread": "4"}})
    ...         await maps.delete(changed)
    ...         return changed.data.to_dict()
    >>> asyncio.run(write(api_server_url))
    {'bread': '4'}

Who writes is whoever the client's connection belongs to. A client of `local` writes to the API server; one of
`connect` only where Shoal passes writes on (``gateway.writes: forward``), and is told so elsewhere.

A write is sent once. Only a 429 that says when to come again is obeyed, within the call's time, because the server has
then done nothing; after anything else the caller decides. Where an answer is missing the error says that the write may
have been done: whoever writes with a resource version, or creates under a fixed name, may simply do it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypedDict, Unpack

import msgspec

from ...shards.api.client import ERROR_BODY_BYTES_MAX, ApiConnection
from ...shards.api.requests import JSON, ApiRequest, Pairs, refusal
from ...shards.model.errors import BadRequest, ConnectionFailed, NotFound, TimedOut, TooManyRequests
from ...shards.model.refs import Key, ref_of
from ...shards.model.resources import Resource, ResourceType
from ..informers.nodes import FieldList, FieldMap
from ..informers.objects import KubeObject
from .errors import refused
from .resources import Served, object_key
from .retrying import Asking, Deadline

Document: TypeAlias = Mapping[str, Any] | KubeObject
PatchForm: TypeAlias = Literal["merge", "strategic", "json"]
Propagation: TypeAlias = Literal["Background", "Foreground", "Orphan"]

_PATCHES: Final[Mapping[str, str]] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
_APPLY: Final = "application/apply-patch+yaml"
"""YAML, of which JSON is a part."""


class ApplyOptions(TypedDict, total=False):
    """What any write may say."""

    subresource: str
    """``status``, ``scale``, ``eviction``: what of the object is written."""
    dry_run: bool
    """The server says what would come of it, and does nothing."""
    timeout_s: float | None
    """Seconds this call may take; None: the client's."""


class WriteOptions(ApplyOptions, total=False):
    """What most writes may say, too."""

    field_manager: str
    """Who writes, as ``managedFields`` will call it."""


class Writer:
    """Writes objects of one resource. Made by `Client.writer`; costs nothing until it is used.

    Documents are mappings, in which parts of read objects may stand, or whole objects. Their ``apiVersion`` and
    ``kind`` may be left out. Where an object is wanted by name, ``namespace/name`` (`KubeObject.key`) will do, and an
    object that was read.
    """

    def __init__(
        self,
        connection: ApiConnection,
        asking: Asking,
        served: Served,
        resource: Resource | str,
        namespace: str | None = None,
    ) -> None:
        self._connection = connection
        self._asking = asking
        self._served = served
        self._resource = resource
        self._namespace = namespace or None

    def __repr__(self) -> str:
        where = f" in {self._namespace}" if self._namespace else ""
        return f"<writer of {self._resource}{where}>"

    async def create(
        self, document: Document, namespace: str | None = None, **options: Unpack[WriteOptions]
    ) -> KubeObject:
        """Makes an object; the answer is what the server made of it. ``metadata.generateName`` may stand for a name.

        Raises:
            AlreadyExists: there is one of that name.
            Invalid: the server does not take it; `details` say which fields.
            MethodNotAllowed: the gateway is read-only; the message says what to do.
            NotFound: no such namespace. (UnknownResource: no such resource.)
            TimedOut, ConnectionFailed: no answer; the notes say if it may have been done nevertheless.
            ShoalError: any other refusal, by its reason (`shoal.errors`).
        """
        kind, deadline = await self._begin(options)
        body, key = self._document(kind, document, namespace, options, named=bool(options.get("subresource")))
        found = ref_of(key)
        path = kind.resource.path(found.namespace or None, found.name if options.get("subresource") else None)
        return await self._write(kind, deadline, _request("POST", path, body, options))

    async def replace(
        self, document: Document, namespace: str | None = None, **options: Unpack[WriteOptions]
    ) -> KubeObject:
        """Puts a whole object in the place of the one of its name. With ``metadata.resourceVersion`` only if it still
        is that version; without, whatever was written meanwhile is lost.

        Raises:
            Conflict: it has changed since that version.
            NotFound: there is no such object.
            ShoalError: as `create`.
        """
        kind, deadline = await self._begin(options)
        body, key = self._document(kind, document, namespace, options, named=True)
        return await self._write(kind, deadline, _request("PUT", _path(kind, key), body, options))

    async def patch(
        self,
        target: KubeObject | str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        namespace: str | None = None,
        *,
        form: PatchForm = "merge",
        **options: Unpack[WriteOptions],
    ) -> KubeObject:
        """Changes what the patch names: by default a merge patch, in which None takes a member away; ``json`` is a list
        of operations (RFC 6902), ``strategic`` is for built-in kinds alone. Raises as `replace`.
        """
        kind, deadline = await self._begin(options)
        if form not in _PATCHES:
            raise BadRequest(f"form is {form!r}: expected one of {', '.join(_PATCHES)}")
        path = _path(kind, self._target(kind, target, namespace))
        request = _request("PATCH", path, _encode(patch), options, content_type=_PATCHES[form])
        return await self._write(kind, deadline, request)

    async def apply(
        self,
        document: Document,
        namespace: str | None = None,
        *,
        field_manager: str,
        force: bool = False,
        **options: Unpack[ApplyOptions],
    ) -> KubeObject:
        """Server-side apply: makes the object, or sets the fields that the document has and takes away those that
        `field_manager` applied before and the document has no longer.

        Raises:
            Conflict: others own fields of the document, and `force` was not given.
            UnsupportedMediaType: the server does not offer it, as the embedded one.
            ShoalError: as `create`.
        """
        applying = WriteOptions(**options, field_manager=field_manager)
        kind, deadline = await self._begin(applying)
        body, key = self._document(kind, document, namespace, applying, named=True)
        query = (("force", "true"),) if force else ()
        request = _request("PATCH", _path(kind, key), body, applying, content_type=_APPLY, query=query)
        return await self._write(kind, deadline, request)

    async def delete(
        self,
        target: KubeObject | str,
        namespace: str | None = None,
        *,
        missing_ok: bool = False,
        propagation: Propagation | None = None,
        dry_run: bool = False,
        timeout_s: float | None = None,
    ) -> None:
        """Deletes an object. Of one that was read that very one is meant, not another that has its name by now.

        Args:
            target: Its name, or an object that was read.
            namespace: Where it is.
            missing_ok: That it is gone already is no error.
            propagation: What becomes of those it owns; None: as the server has it for the resource.
            dry_run: See `WriteOptions`.
            timeout_s: See `WriteOptions`.

        Raises:
            NotFound: there is no such object.
            Conflict: there is another one of that name.
            ShoalError: as `create`.
        """
        options = WriteOptions(dry_run=dry_run, timeout_s=timeout_s)
        kind, deadline = await self._begin(options)
        key = self._target(kind, target, namespace)
        wishes: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if isinstance(target, KubeObject) and target.uid:
            wishes["preconditions"] = {"uid": target.uid}
        if propagation is not None:
            wishes["propagationPolicy"] = propagation
        try:
            request = _request("DELETE", _path(kind, key), _encode(wishes), options)
            await self._write(kind, deadline, request)
        except NotFound as error:
            if not missing_ok or not _of_object(error):
                raise

    # -- what is asked ---------------------------------------------------------------------------------------

    async def _begin(self, options: WriteOptions) -> tuple[ResourceType, Deadline]:
        unknown = options.keys() - WriteOptions.__optional_keys__
        if unknown:
            known = ", ".join(sorted(WriteOptions.__optional_keys__))
            raise TypeError(f"no parameter is called {', '.join(sorted(unknown))}; there are {known}")
        deadline = self._asking.deadline(options.get("timeout_s"))
        return await self._served.find(self._resource, deadline), deadline

    def _target(self, kind: ResourceType, target: KubeObject | str, namespace: str | None) -> Key:
        if isinstance(target, KubeObject):
            return object_key(kind, target.key, namespace)
        return object_key(kind, target, namespace, self._namespace)

    def _document(
        self,
        kind: ResourceType,
        document: Document,
        namespace: str | None,
        options: WriteOptions,
        *,
        named: bool,
    ) -> tuple[bytes, Key]:
        """The document as it is sent, and the key of what it is about; without a name, that of its namespace."""
        members = document.to_dict() if isinstance(document, KubeObject) else dict(document)
        if options.get("subresource", "status") == "status":
            head = {"apiVersion": kind.resource.api_version, "kind": kind.kind}
            for name, expected in head.items():
                if members.get(name, expected) != expected:
                    raise BadRequest(
                        f"the document's {name} is {members[name]!r}: the writer of {kind.resource} writes {expected!r}"
                    )
            members = {**head, **members}
        metadata = members.get("metadata") or {}
        name, place = str(metadata.get("name") or ""), str(metadata.get("namespace") or "")
        if place and namespace and place != namespace:
            raise BadRequest(f"the document is of namespace {place!r}, and {namespace!r} was given")
        if not name:
            if named or not metadata.get("generateName"):
                raise BadRequest("the document has no metadata.name")
            # Any name will do to find the namespace by.
            name = "generated"
        if "/" in name:
            raise BadRequest(f"{name!r} is not the name of an object")
        return _encode(members), object_key(kind, name, place or namespace, self._namespace)

    # -- sending ---------------------------------------------------------------------------------------------

    async def _write(self, kind: ResourceType, deadline: Deadline, request: ApiRequest) -> KubeObject:
        try:
            return KubeObject(await self._send(request, deadline))
        except NotFound as error:
            if not _of_object(error):
                self._served.forget(kind)
            raise

    async def _send(self, request: ApiRequest, deadline: Deadline) -> bytes:
        while True:
            try:
                async with asyncio.timeout_at(deadline.at):
                    return await self._once(request)
            except TimeoutError:
                raise TimedOut(
                    f"no answer to {request.method} {request.path} within {deadline.timeout_s:g} s: "
                    "it may have been done"
                ) from None
            except ConnectionFailed as error:
                if error.sent:
                    error.add_note(f"{request.method} {request.path} may have been done")
                raise
            except TooManyRequests as error:
                if error.retry_after_s is None or error.retry_after_s >= deadline.left_s:
                    raise
                await asyncio.sleep(error.retry_after_s)

    async def _once(self, request: ApiRequest) -> bytes:
        async with self._connection.open(request) as response:
            if 200 <= response.status < 300:
                return await response.read()
            answer = refusal(response.status, response.headers, await response.read(ERROR_BODY_BYTES_MAX))
            raise refused(request, answer)


def _request(
    method: str,
    path: str,
    body: bytes,
    options: WriteOptions,
    *,
    content_type: str = JSON,
    query: Pairs = (),
) -> ApiRequest:
    if options.get("dry_run"):
        query = (*query, ("dryRun", "All"))
    if field_manager := options.get("field_manager"):
        query = (*query, ("fieldManager", field_manager))
    if subresource := options.get("subresource"):
        path = f"{path}/{subresource}"
    return ApiRequest(method, path, query, (("Accept", JSON), ("Content-Type", content_type)), body)


def _path(kind: ResourceType, key: Key) -> str:
    found = ref_of(key)
    return kind.resource.path(found.namespace or None, found.name)


def _of_object(error: NotFound) -> bool:
    """Whether an object is missing, and not the resource itself."""
    return bool((error.details or {}).get("name"))


def _encode(document: Any) -> bytes:
    return msgspec.json.encode(document, enc_hook=_plain)


def _plain(value: Any) -> Any:
    """Parts of objects that were read stand in documents as what they are."""
    if isinstance(value, FieldMap):
        return value.to_dict()
    if isinstance(value, FieldList):
        return value.to_list()
    raise TypeError(f"a document cannot hold {value!r}, a {type(value).__name__}")
