"""The requests that concern one object, or write: from HTTP to `verbs` and back.

Reads the body and the parameters (``dryRun``, ``fieldManager``), runs the verb, answers the object in the
form accepted or the Status of a deletion. Also the subresources ``status`` and ``scale``, and the reviews
that kubectl asks (``auth can-i``, ``auth whoami``), and evictions of pods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import yaml

from ...shards.model.errors import BadRequest, Invalid
from ..serving.documents import encode
from ..serving.identity import User
from ..serving.negotiation import negotiate, wants_pretty
from ..serving.options import ListOptions
from ..serving.paths import ResourcePath
from ..serving.protobuf import MEDIA_TYPE, decode_protobuf
from . import eviction, reviews, validation
from .access import Access
from .objects import Document, TooDeep, parse_object
from .openapi import OpenApi
from .openapi_strict import duplicate_fields, unknown_fields
from .ownership import manager_name
from .patches import MERGE_PATCH, STRATEGIC_PATCH, Patch, apply_patch
from .rendering import Form
from .requests import JSON, Exchange
from .selection import predicate
from .served import Served
from .storage import Stored
from .verbs import Deletion, Verbs, Writer

_RETURNS_OBJECT = frozenset(
    {
        "pods",
        "services",
        "serviceaccounts",
        "persistentvolumes",
        "persistentvolumeclaims",
        "podtemplates",
        "resourcequotas",
        "storageclasses.storage.k8s.io",
        "csidrivers.storage.k8s.io",
        "csinodes.storage.k8s.io",
        "volumeattachments.storage.k8s.io",
        "volumeattributesclasses.storage.k8s.io",
        "resourceclaims.resource.k8s.io",
        "resourceclaimtemplates.resource.k8s.io",
        "resourceslices.resource.k8s.io",
        "deviceclasses.resource.k8s.io",
    }
)
"""Resources whose DELETE answers the object (``ReturnDeletedObject``); the others answer a Status."""
_FIELD_VALIDATION = ("", "Ignore", "Warn", "Strict")
_TEXTS = (JSON, "application/yaml", MERGE_PATCH, STRATEGIC_PATCH)
"""Bodies that hold fields of the object; a JSON patch names paths instead."""


class Writing:
    """Serves everything but LIST and WATCH."""

    def __init__(self, verbs: Verbs, access: Access, now: Callable[[], datetime], openapi: OpenApi) -> None:
        self._verbs = verbs
        self._access = access
        self._now = now
        self._openapi = openapi

    async def serve(
        self, exchange: Exchange, path: ResourcePath, served: Served, verb: str, user: User
    ) -> None:
        """Answers one request; `verb` is one the resource has.

        Raises:
            ShoalError: what the API server would answer as a Status.
        """
        body = await exchange.body()
        try:
            await self._answer_to(body, exchange, path, served, verb, user)
        except RecursionError as error:
            raise BadRequest("json: exceeded max depth") from error

    async def _answer_to(  # noqa: PLR0917 - the parts of one request
        self, body: bytes, exchange: Exchange, path: ResourcePath, served: Served, verb: str, user: User
    ) -> None:
        if verb == "create" and path.group in reviews.GROUPS:
            document = validation.decode_body(body, exchange.header("content-type") or "", served.type)
            head = {"kind": served.type.kind, "apiVersion": served.type.resource.api_version, "metadata": {}}
            answered = reviews.review(path, served.type.kind, {**head, **document}, user, self._access)
            await exchange.answer(201, JSON, encode(answered))
            return
        form = Form(
            served,
            negotiate(
                exchange.header("accept"),
                include_object=exchange.parameter("includeObject"),
                pretty=wants_pretty(exchange.parameter("pretty"), exchange.header("user-agent")),
            ),
        )
        writer = Writer(
            manager_name(exchange.header("user-agent") or "", exchange.parameter("fieldManager")),
            _dry_run(exchange.parameter("dryRun")),
        )
        name = path.name or ""
        if path.subresource == "eviction":
            given = eviction.decode(body, exchange.header("content-type") or "")
            eviction.evict(self._verbs, served, path.namespace, name, given, writer)
            await exchange.answer(201, JSON, encode(eviction.SUCCESS))
            return
        if verb in ("create", "update", "patch"):
            await self._validate_fields(exchange, served, body, path.subresource)
        match verb:
            case "get" if path.subresource == "scale":
                await _answer_scale(exchange, self._verbs.get(served, path.namespace, name))
            case "get":
                await self._answer(exchange, form, self._verbs.get(served, path.namespace, name))
            case "create":
                document = validation.decode_body(body, exchange.header("content-type") or "", served.type)
                created = self._verbs.create(served, path.namespace, document, writer)
                await self._answer(exchange, form, created, status=201)
            case "update" | "patch" if path.subresource == "scale":
                scale = Patch(body, exchange.header("content-type") or "")
                changed = self._scale(served, path, scale, writer, patched=verb == "patch")
                await _answer_scale(exchange, changed)
            case "update":
                document = validation.decode_body(body, exchange.header("content-type") or "", served.type)
                changed = self._verbs.replace(
                    served, path.namespace, name, document, writer, subresource=path.subresource
                )
                await self._answer(exchange, form, changed)
            case "patch":
                patch = Patch(body, exchange.header("content-type") or "")
                changed = self._verbs.patch(
                    served, path.namespace, name, patch, writer, subresource=path.subresource
                )
                await self._answer(exchange, form, changed)
            case _:
                await self._delete(body, exchange, path, form, writer)

    async def _delete(
        self, body: bytes, exchange: Exchange, path: ResourcePath, form: Form, writer: Writer
    ) -> None:
        """An object, or the collection."""
        options = _delete_options(body, exchange.header("content-type") or "")
        writer = replace(writer, dry_run=writer.dry_run or _dry_runs(options))
        if path.name is None:
            await self._delete_collection(exchange, path, form, writer)
            return
        deletion = self._verbs.delete(form.served, path.namespace, path.name, options, writer)
        await self._answer_deletion(exchange, form, deletion)

    async def _answer(self, exchange: Exchange, form: Form, stored: Stored, *, status: int = 200) -> None:
        body = form.object(stored, now=self._now())
        await exchange.answer(status, form.accepted.content_type, body, *exchange.warnings)

    async def _validate_fields(
        self, exchange: Exchange, served: Served, body: bytes, subresource: str | None
    ) -> None:
        """Looks for unknown and duplicate fields if the request says so; unlike the API server not if it says
        nothing, because that takes the schemas of the kind.

        Raises:
            BadRequest: there are some, and validation is strict.
            Invalid: what the request says is no way to validate.
        """
        wanted = exchange.parameter("fieldValidation")
        if wanted not in _FIELD_VALIDATION:
            raise Invalid(
                f'CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "{wanted}": '
                'supported values: "Ignore", "Strict", "Warn"'
            )
        media = (exchange.header("content-type") or JSON).partition(";")[0].strip()
        if wanted not in ("Strict", "Warn") or subresource == "scale" or media not in _TEXTS:
            return
        try:
            document = validation.parse_yaml(body) if "yaml" in media else parse_object(body)
        except (msgspec.MsgspecError, yaml.YAMLError, TooDeep):
            return  # what it is not is said where it is decoded
        component, components = await self._openapi.schema(served.type)
        if component is None:
            return
        problems = unknown_fields(document, component, components) + duplicate_fields(body)
        if problems and wanted == "Strict":
            kind, version = served.type.kind, served.type.resource.version
            raise BadRequest(
                f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: '
                + ", ".join(problems)
            )
        exchange.warnings += tuple(_warning(problem) for problem in problems)

    async def _answer_deletion(self, exchange: Exchange, form: Form, deletion: Deletion) -> None:
        resource = form.served.type.resource
        if not deletion.gone or resource.qualified_name in _RETURNS_OBJECT:
            await self._answer(exchange, form, deletion.stored)
            return
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {**validation.details(resource, deletion.stored.name), "uid": deletion.stored.uid},
        }
        await exchange.answer(200, JSON, encode(status))

    async def _delete_collection(
        self, exchange: Exchange, path: ResourcePath, form: Form, writer: Writer
    ) -> None:
        options = ListOptions.parse(exchange.query, form.served.type)
        matches = predicate(
            form.served,
            labels=options.label_selector,
            fields=options.field_selector,
            namespace=path.namespace,
        )
        self._verbs.delete_collection(form.served, path.namespace, matches, writer)
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": validation.details(form.served.type.resource),
        }
        await exchange.answer(200, JSON, encode(status))

    # -- scale --------------------------------------------------------------------------------------

    def _scale(
        self, served: Served, path: ResourcePath, given: Patch, writer: Writer, *, patched: bool
    ) -> Stored:
        """Sets ``spec.replicas`` from a Scale, or a patch of one."""
        stored = self._verbs.get(served, path.namespace, path.name or "")
        scale = _scale_of(stored)
        if patched:
            scale = apply_patch(scale, given, served.type)
        else:
            try:
                scale = msgspec.json.decode(given.body, type=dict[str, Any])
            except msgspec.MsgspecError as error:
                raise BadRequest(f"not a Scale: {error}") from error
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            raise Invalid(
                f'Scale.autoscaling "{stored.name}" is invalid: spec.replicas: Invalid value: {replicas}: '
                "must be greater than or equal to 0"
            )
        version = (scale.get("metadata") or {}).get("resourceVersion")
        change: Document = {"spec": {"replicas": replicas}}
        if version:
            change["metadata"] = {"resourceVersion": version}
        patch = Patch(msgspec.json.encode(change), MERGE_PATCH)
        return self._verbs.patch(served, path.namespace, stored.name, patch, writer)


async def _answer_scale(exchange: Exchange, stored: Stored) -> None:
    await exchange.answer(200, JSON, encode(_scale_of(stored)))


def _scale_of(stored: Stored) -> Document:
    document = parse_object(stored.body)
    metadata, spec, status = document["metadata"], document.get("spec") or {}, document.get("status") or {}
    selector = (spec.get("selector") or {}).get("matchLabels") or {}
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": spec["replicas"]} if spec.get("replicas") else {},
        "status": {
            "replicas": status.get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(selector.items())),
        },
    }


def _warning(problem: str) -> tuple[bytes, bytes]:
    """A Warning header as kube-apiserver writes it (RFC 7234, 5.5)."""
    quoted = problem.replace("\\", "\\\\").replace('"', '\\"')
    return b"warning", f'299 - "{quoted}"'.encode()


def _dry_run(text: str) -> bool:
    if text not in ("", "All"):
        raise Invalid(
            f'CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["{text}"]: '
            'supported values: "All"'
        )
    return text == "All"


class _Preconditions(msgspec.Struct, rename="camel"):
    uid: str | None = None
    resource_version: str | None = None


class _DeleteOptions(msgspec.Struct, rename="camel"):
    preconditions: _Preconditions | None = None
    dry_run: tuple[str, ...] | None = None


def _delete_options(body: bytes, content_type: str) -> dict[str, Any]:
    if not body:
        return {}
    if content_type.startswith(MEDIA_TYPE):
        return decode_protobuf(body)
    try:
        options = msgspec.json.decode(body, type=dict[str, Any])
        msgspec.convert(options, _DeleteOptions)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"not DeleteOptions: {error}") from error
    return options


def _dry_runs(options: dict[str, Any]) -> bool:
    """Whether the options of a deletion say so.

    Raises:
        Invalid: they say something else.
    """
    given = options.get("dryRun") or ()
    if any(stage != "All" for stage in given):
        found = msgspec.json.encode(given).decode()
        raise Invalid(
            f'DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: {found}: supported values: "All"'
        )
    return bool(given)
