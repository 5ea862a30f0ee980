"""The requests that concern one object, or write: from HTTP to `verbs` and back.

Reads the body and the parameters (``dryRun``, ``fieldManager``), runs the verb, answers the object in the
form accepted or the Status of a deletion. Also the subresources ``status`` and ``scale``, and the reviews
that kubectl asks (``auth can-i``, ``auth whoami``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from ...shards.model.errors import BadRequest, Invalid
from ..serving.documents import encode
from ..serving.negotiation import negotiate
from ..serving.options import ListOptions
from ..serving.paths import ResourcePath
from . import validation
from .access import Access, Attributes, allows
from .objects import Document, parse_object
from .ownership import manager_name
from .patches import MERGE_PATCH, Patch, apply_patch
from .protobuf import MEDIA_TYPE, decode_protobuf
from .rendering import Form
from .requests import JSON, Exchange
from .selection import predicate
from .served import Served
from .settings import User
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
_CAN_I = "selfsubjectaccessreviews.authorization.k8s.io"
_WHO_AM_I = "selfsubjectreviews.authentication.k8s.io"


class Writing:
    """Serves everything but LIST and WATCH."""

    def __init__(self, verbs: Verbs, access: Access, now: Callable[[], datetime]) -> None:
        self._verbs = verbs
        self._access = access
        self._now = now

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
        qualified = served.type.resource.qualified_name
        if verb == "create" and qualified in (_CAN_I, _WHO_AM_I):
            await self._review(exchange, served, body, user)
            return
        form = Form(
            served,
            negotiate(exchange.header("accept"), include_object=exchange.parameter("includeObject")),
        )
        writer = Writer(
            manager_name(exchange.header("user-agent") or "", exchange.parameter("fieldManager")),
            _dry_run(exchange.parameter("dryRun")),
        )
        name = path.name or ""
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
            case "delete":
                deletion = self._verbs.delete(
                    served,
                    path.namespace,
                    name,
                    _delete_options(body, exchange.header("content-type") or ""),
                    writer,
                )
                await self._answer_deletion(exchange, form, deletion)
            case _:
                await self._delete_collection(exchange, path, form, writer)

    async def _answer(self, exchange: Exchange, form: Form, stored: Stored, *, status: int = 200) -> None:
        await exchange.answer(status, form.accepted.content_type, form.object(stored, now=self._now()))

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

    # -- reviews ------------------------------------------------------------------------------------

    async def _review(self, exchange: Exchange, served: Served, body: bytes, user: User) -> None:
        """Answers who the user is or what they may do; nothing is stored."""
        document = validation.decode_body(body, exchange.header("content-type") or "", served.type)
        document.setdefault("metadata", {})
        if served.type.resource.qualified_name == _WHO_AM_I:
            document["status"] = {"userInfo": {"username": user.name, "groups": list(user.groups)}}
        else:
            spec = document.get("spec") or {}
            document["status"] = {"allowed": _may(user, spec.get("resourceAttributes"))}
        head = {"kind": served.type.kind, "apiVersion": served.type.resource.api_version}
        await exchange.answer(201, JSON, encode({**head, **document}))


async def _answer_scale(exchange: Exchange, stored: Stored) -> None:
    await exchange.answer(200, JSON, encode(_scale_of(stored)))


def _may(user: User, attributes: Any) -> bool:
    if not isinstance(attributes, dict):
        return any("*" in rule.resources for rule in user.rules)
    path = ResourcePath(
        attributes.get("group", ""),
        attributes.get("version", "") or "*",
        attributes.get("resource", ""),
        attributes.get("namespace") or None,
        attributes.get("name") or None,
        attributes.get("subresource") or None,
    )
    return allows(user.rules, Attributes(attributes.get("verb", ""), path))


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


class _DeleteOptions(msgspec.Struct):
    preconditions: _Preconditions | None = None


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
