"""The OpenAPI documents of the embedded API server: ``/openapi/v3``, its groups, ``/openapi/v2``.

What is described is what is served at the moment, built-in kinds (`openapi_models`) and custom ones (`openapi_custom`)
with their operations (`openapi_paths`). A document is made when it is first asked for, in a thread, because making one
imports hundreds of models; until then an API server that nobody asks pays nothing. It is kept until what it describes
changes.

The ETag of a document, which is also the hash in its URL, is computed from what the document is made of, so the index
names all of them without making any. Negotiation, hashes and redirects are kube-apiserver's
(``kube-openapi/pkg/handler``, ``handler3``). Version 3 is served as JSON only.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from importlib.metadata import version as installed_version
from typing import Any, Final, Protocol, TypeVar

import msgspec

from ...shards.model.resources import ResourceType
from ..serving.documents import encode
from ..serving.negotiation import etag_matches, preferred_media
from . import openapi_models as models
from .crds import DEFINITIONS
from .openapi_custom import component, custom_schemas
from .openapi_models import Schema
from .openapi_paths import PATCH_SCHEMA, as_version_2, paths
from .openapi_protobuf import swagger_protobuf
from .requests import JSON, Exchange
from .served import Catalogue
from .storage import Storage, Stored

MEDIA_V2_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_MEDIA_V2 = (JSON, MEDIA_V2_PROTOBUF, MEDIA_V2_PROTOBUF.replace("v2.v1", "v2@v1"))
_EDITION: Final = "1"
"""Part of every hash: another one when documents are made in another way."""
_YEAR: Final = timedelta(days=365)
_PATCH: Final = f"{models.META}.Patch"


T = TypeVar("T")


class OffLoop(Protocol):
    """Calls a slow function somewhere else than on the event loop."""

    def __call__(self, make: Callable[[], T], /) -> Awaitable[T]:
        """What `make` returns."""


@dataclass(frozen=True)
class Group:
    """A group and version with what its document is made of."""

    group: str
    version: str
    resources: tuple[ResourceType, ...]
    declared: Mapping[str, Any]
    """The schema of each custom resource, by its plural name."""
    core_kinds: tuple[str, ...]
    """Kinds of the core group, whose types other groups share."""
    etag: str = field(init=False)

    def __post_init__(self) -> None:
        made_of = (_EDITION, installed_version("kubernetes"), self.core_kinds, self.resources, self.declared)
        digest = hashlib.sha512(msgspec.json.encode(made_of)).hexdigest().upper()
        object.__setattr__(self, "etag", digest)

    @property
    def root(self) -> str:
        """``/api/v1`` or ``/apis/GROUP/VERSION``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def components(self, version: int = 3) -> dict[str, Schema]:
        """Its schemas, neutral (`openapi_models`). Slow when first called: not for the event loop."""
        named = models.Components(self.group, self.version, models.core_models(self.core_kinds))
        wanted = {name: place for place in models.kinds(self.resources) if (name := models.model_of(*place))}
        found = named.schemas((*wanted, *models.ALWAYS, "V1ObjectMeta", "V1ListMeta"))
        for name, place in wanted.items():
            found[named.name(name)] = models.with_kind(found[named.name(name)], *place)
        for known in self.resources:
            if known.custom:
                found |= custom_schemas(known, self.declared.get(known.resource.name), version=version)
        return dict(sorted({**found, _PATCH: dict(PATCH_SCHEMA)}.items()))

    def name_of(self, group: str, version: str, kind: str) -> str | None:
        """The component of a kind; None if nothing describes it."""
        if any(known.custom for known in self.resources) and (group, version) == (self.group, self.version):
            return component(group, version, kind)
        model = models.model_of(group, version, kind)
        named = models.Components(self.group, self.version, models.core_models(self.core_kinds))
        return named.name(model) if model else None

    def paths(self) -> dict[str, Any]:
        """Its operations, neutral."""
        return paths(self.resources, self.name_of, root=self.root)


class OpenApi:
    """Answers for the OpenAPI paths of one API server."""

    def __init__(
        self,
        catalogue: Catalogue,
        storage: Storage,
        *,
        server_version: str,
        now: Callable[[], datetime],
    ) -> None:
        """`storage` is where the definitions of custom resources are."""
        self._catalogue = catalogue
        self._storage = storage
        self._information = {"title": "Kubernetes", "version": server_version}
        self._now = now
        self._seen: tuple[Any, ...] = ()
        self._groups: dict[str, Group] = {}
        self._made: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._components: dict[str, tuple[str, dict[str, Schema]]] = {}
        self._making = asyncio.Lock()
        self.off_loop: OffLoop = asyncio.to_thread
        """Where documents are made. In virtual time, where there are no threads, it is replaced."""

    async def serve(self, exchange: Exchange) -> bool:
        """Answers a GET or HEAD of an OpenAPI path; False if there is nothing at it."""
        parts = tuple(part for part in exchange.path.split("/") if part)
        match parts:
            case ("openapi", "v2"):
                await self._serve_v2(exchange)
            case ("openapi", "v3"):
                body = encode({"paths": self._index()})
                etag = hashlib.sha512(body).hexdigest().upper()
                await _answer(exchange, JSON, body, etag, ())
            case ("openapi", "v3", *rest):
                group = self._current().get("/" + "/".join(rest))
                if group is None:
                    return False
                await self._serve_group(exchange, group)
            case _:
                return False
        return True

    async def schema(self, known: ResourceType) -> tuple[str | None, Mapping[str, Schema]]:
        """The component of a resource's kind, None if nothing describes it, and all of its group and version."""
        group = self._current()[known.resource.root]
        async with self._making:
            kept = self._components.get(group.root)
            if kept is None or kept[0] != group.etag:
                kept = self._components[group.root] = (group.etag, await self.off_loop(group.components))
        named = kept[1]
        kind = (known.resource.group, known.kind, known.resource.version)
        return next((name for name, schema in named.items() if kind in _kinds(schema)), None), named

    # -- documents -------------------------------------------------------------------------------------------

    async def _serve_v2(self, exchange: Exchange) -> None:
        media = preferred_media(exchange.header("accept"), _MEDIA_V2)
        if media is None:
            await exchange.answer(406, "text/plain; charset=utf-8", b"")
            return
        media = JSON if media == JSON else MEDIA_V2_PROTOBUF
        groups = self._current()
        etag = hashlib.sha512("".join(group.etag for group in groups.values()).encode()).hexdigest().upper()
        make = self._protobuf if media != JSON else self._swagger
        body = await self._document("", media, etag, lambda: make(tuple(groups.values())))
        await _answer(exchange, media, body, etag, ((b"vary", b"Accept"),))

    async def _serve_group(self, exchange: Exchange, group: Group) -> None:
        if preferred_media(exchange.header("accept"), (JSON,)) is None:
            await exchange.answer(406, "text/plain; charset=utf-8", b"")
            return
        headers: tuple[tuple[bytes, bytes], ...] = ((b"vary", b"Accept"),)
        if wanted := exchange.parameter("hash"):
            if wanted != group.etag:
                location = f"/openapi/v3{group.root}?hash={group.etag}"
                await exchange.answer(301, JSON, b"", (b"location", location.encode()), *headers)
                return
            expires = format_datetime(self._now() + _YEAR, usegmt=True).encode()
            headers = (*headers, (b"cache-control", b"public, immutable"), (b"expires", expires))
        body = await self._document(group.root, JSON, group.etag, lambda: self._openapi(group))
        await _answer(exchange, JSON, body, group.etag, headers)

    async def _document(self, root: str, media: str, etag: str, make: Callable[[], bytes]) -> bytes:
        async with self._making:
            kept = self._made.get((root, media))
            if kept is None or kept[0] != etag:
                kept = self._made[root, media] = (etag, await self.off_loop(make))
        return kept[1]

    def _index(self) -> dict[str, Any]:
        return {
            root.lstrip("/"): {"serverRelativeURL": f"/openapi/v3{root}?hash={group.etag}"}
            for root, group in sorted(self._current().items())
        }

    def _openapi(self, group: Group) -> bytes:
        schemas = {
            name: models.rendered(models.scalar(name, schema, 3), 3)
            for name, schema in group.components().items()
        }
        return encode(
            {
                "openapi": "3.0.0",
                "info": self._information,
                "paths": models.rendered(group.paths(), 3),
                "components": {"schemas": schemas},
            }
        )

    def _swagger(self, groups: Iterable[Group]) -> bytes:
        return encode(self._swagger_document(groups))

    def _protobuf(self, groups: Iterable[Group]) -> bytes:
        return swagger_protobuf(self._swagger_document(groups))

    def _swagger_document(self, groups: Iterable[Group]) -> dict[str, Any]:
        definitions: dict[str, Schema] = {}
        operations: dict[str, Any] = {}
        for group in groups:
            for name, schema in group.components(version=2).items():
                # A kind of another group (Scale) says there which kind it is; its own group's word counts.
                if name not in definitions or "x-kubernetes-group-version-kind" in schema:
                    definitions[name] = models.rendered(models.scalar(name, schema, 2), 2)
            operations |= {path: as_version_2(item) for path, item in group.paths().items()}
        return {
            "swagger": "2.0",
            "info": self._information,
            "paths": models.rendered(dict(sorted(operations.items())), 2),
            "definitions": dict(sorted(definitions.items())),
        }

    # -- what is served now ----------------------------------------------------------------------------------

    def _current(self) -> dict[str, Group]:
        """Groups and versions by root, made anew when something changed."""
        served = self._catalogue.all()
        definitions = tuple(self._storage.collection(DEFINITIONS.qualified_name).objects.values())
        seen = (served, tuple(stored.version for stored in definitions))
        if seen != self._seen:
            self._groups = _groups([one.type for one in served], _declared(definitions))
            self._made = {
                key: kept for key, kept in self._made.items() if not key[0] or key[0] in self._groups
            }
            self._seen = seen
        return self._groups


def _groups(types: list[ResourceType], declared: Mapping[tuple[str, str, str], Any]) -> dict[str, Group]:
    core = tuple(known.kind for known in types if known.resource.api_version == "v1")
    found: dict[str, list[ResourceType]] = {}
    for known in types:
        found.setdefault(known.resource.root, []).append(known)
    return {
        root: Group(
            of[0].resource.group,
            of[0].resource.version,
            tuple(of),
            {
                known.resource.name: schema
                for known in of
                if known.custom and (schema := declared.get(_place(known))) is not None
            },
            core,
        )
        for root, of in found.items()
    }


def _place(known: ResourceType) -> tuple[str, str, str]:
    return known.resource.group, known.resource.version, known.resource.name


def _declared(definitions: Iterable[Stored]) -> dict[tuple[str, str, str], Any]:
    """The ``openAPIV3Schema`` of each version of each definition, by group, version and plural name."""
    found: dict[tuple[str, str, str], Any] = {}
    for stored in definitions:
        spec = msgspec.json.decode(stored.body)["spec"]
        for one in spec["versions"]:
            schema = (one.get("schema") or {}).get("openAPIV3Schema")
            if schema is not None:
                found[spec["group"], one["name"], spec["names"]["plural"]] = schema
    return found


def _kinds(schema: Schema) -> Iterator[tuple[str, str, str]]:
    """Group, kind and version of what a component says it describes."""
    for entry in schema.get("x-kubernetes-group-version-kind", ()):
        yield entry["group"], entry["kind"], entry["version"]


async def _answer(
    exchange: Exchange, media: str, body: bytes, etag: str, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    unchanged = etag_matches(exchange.header("if-none-match"), etag)
    status, content = (304, b"") if unchanged else (200, body)
    if exchange.method == "HEAD":
        content = b""
    await exchange.answer(status, media, content, (b"etag", f'"{etag}"'.encode()), *headers)
