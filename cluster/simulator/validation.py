"""What a written object must be like, and the errors for what it is not. Pure.

Covers what every kind shares: kind and version of the body, names, the namespace of the path, the types of
metadata (`typed`). Other contents are not validated: a simulator accepts specs a real server would refuse.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import yaml

from ...shards.model.depth import at_any_depth
from ...shards.model.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
    ShoalError,
    UnsupportedMediaType,
)
from ...shards.model.resources import Resource, ResourceType
from ..serving.protobuf import MEDIA_TYPE, decode_protobuf
from .objects import Document, TooDeep, parse_json
from .typed import GO_KINDS, WrongType, check_types

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_RBAC = "rbac.authorization.k8s.io"
_LABELLED = frozenset({"namespaces", "services"})
_TYPE_META = (
    r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
)
_SUMMARY_BYTES = 30


class NotCreatable(ShoalError):  # noqa: N818 - named like the Status reasons
    """An error that the server answers as 500 without a reason."""

    code = 500
    reason = ""


def details(resource: Resource, name: str = "") -> dict[str, Any]:
    """The ``details`` of a Status about an object."""
    found = {"name": name, "group": resource.group, "kind": resource.name}
    return {key: value for key, value in found.items() if value}


def not_found(resource: Resource, name: str) -> NotFound:
    """The object does not exist."""
    return NotFound(f'{resource.qualified_name} "{name}" not found', details=details(resource, name))


def already_exists(resource: Resource, name: str) -> AlreadyExists:
    """An object of that name exists."""
    return AlreadyExists(
        f'{resource.qualified_name} "{name}" already exists', details=details(resource, name)
    )


def conflict(resource: Resource, name: str, why: str) -> Conflict:
    """The write was made for another state of the object."""
    return Conflict(
        f'Operation cannot be fulfilled on {resource.qualified_name} "{name}": {why}',
        details=details(resource, name),
    )


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(resource_type: ResourceType, name: str, field: str, reason: str, message: str) -> Invalid:
    """One field of an object is not valid."""
    group = resource_type.resource.group
    kind = f"{resource_type.kind}.{group}" if group else resource_type.kind
    found = {"name": name, "group": group, "kind": resource_type.kind}
    return Invalid(
        f'{kind} "{name}" is invalid: {field}: {message}',
        details={
            **{key: value for key, value in found.items() if value},
            "causes": [{"reason": reason, "message": message, "field": field}],
        },
    )


def decode_body(body: bytes, content_type: str, resource_type: ResourceType) -> Document:
    """The object in a request's body, which must be of the resource's kind and version where it says.

    Raises:
        UnsupportedMediaType: neither JSON nor YAML nor (for some kinds) protobuf.
        BadRequest: no object, or one of another kind.
    """
    media = content_type.partition(";")[0].strip().lower() or "application/json"
    if media not in ("application/json", "application/yaml", MEDIA_TYPE, "*/*"):
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
    kind = resource_type.kind
    if media == MEDIA_TYPE:
        return _typed(check_kind(decode_protobuf(body), resource_type), resource_type)
    try:
        document = parse_yaml(body) if media == "application/yaml" else parse_json(body)
    except TooDeep as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from error
    except (msgspec.DecodeError, yaml.YAMLError) as error:
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {error}", body) from error
    if not isinstance(document, dict):
        what = GO_KINDS.get(type(document), "null")
        text = f"json: cannot unmarshal {what} into Go value of type {_TYPE_META}"
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {text}", body)
    for name in ("kind", "apiVersion"):
        if not isinstance(document.get(name), str | None):
            what = GO_KINDS[type(document[name])]
            text = f"json: cannot unmarshal {what} into Go struct field .{name} of type string"
            raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {text}", body)
    return _typed(check_kind(document, resource_type), resource_type)


def parse_yaml(text: bytes) -> Any:
    """What YAML says in the types JSON has: times are text, keys are text.

    Raises:
        yaml.YAMLError: it is no YAML, or says what JSON cannot.
        TooDeep: it is nested too deeply.
    """
    try:
        return parse_json(msgspec.json.encode(yaml.load(text, _PlainLoader)))  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise TooDeep("json: exceeded max depth") from error
    except (TypeError, ValueError) as error:
        raise yaml.YAMLError(f"error converting YAML to JSON: {error}") from error


class _PlainLoader(yaml.SafeLoader):
    """Without the tag of times: the API server converts YAML to JSON, which has none."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _typed(document: Document, resource_type: ResourceType) -> Document:
    try:
        check_types(document, resource_type)
    except WrongType as error:
        kind = resource_type.kind
        raise BadRequest(
            f'{kind} in version "{resource_type.resource.version}" cannot be handled as a {kind}: {error}'
        ) from error
    return document


def check_object(patched: Any) -> Document:
    """What a patch has left, if it is an object.

    Raises:
        Invalid: it is none.
    """
    if not isinstance(patched, dict):
        what = GO_KINDS.get(type(patched), "null")
        raise _invalid_patch(patched, f"json: cannot unmarshal {what} into Go value of type {_TYPE_META}")
    return patched


def check_patched(document: Document, resource_type: ResourceType) -> Document:
    """What a patch has made of an object, if a client can decode it.

    Raises:
        BadRequest: it is of another kind or version.
        Invalid: it has values of wrong types.
    """
    for name in ("kind", "apiVersion"):
        if not isinstance(document.get(name), str | None):
            what = GO_KINDS[type(document[name])]
            text = f"json: cannot unmarshal {what} into Go struct field .{name} of type string"
            raise _invalid_patch(document, text)
    try:
        check_types(document, resource_type)
    except WrongType as error:
        raise _invalid_patch(document, str(error)) from error
    return check_kind(document, resource_type)


def _invalid_patch(document: Any, why: str) -> Invalid:
    """Names no object: the API server has nothing yet that it could name (``patcher.applyPatch``)."""
    text = at_any_depth(msgspec.json.encode, document).decode()
    message = f"Invalid value: {msgspec.json.encode(text).decode()}: {why}"
    cause = {"reason": "FieldValueInvalid", "message": message, "field": "patch"}
    return Invalid(f' "" is invalid: patch: {message}', details={"causes": [cause]})


def check_kind(document: Document, resource_type: ResourceType) -> Document:
    """The document, if its kind and version are the resource's or left out.

    Raises:
        BadRequest: they are others.
    """
    kind, api_version = resource_type.kind, resource_type.resource.api_version
    given_kind, given_version = document.get("kind") or kind, document.get("apiVersion") or api_version
    if given_kind != kind:
        raise BadRequest(
            f'{given_kind} in version "{given_version.rpartition("/")[2]}" cannot be handled as a {kind}: '
            f"no kind {kind} is what the path names"
        )
    if given_version != api_version:
        raise BadRequest(
            f"the API version in the data ({given_version}) does not match the expected API version "
            f"({api_version})"
        )
    return document


def check_namespace(document: Document, namespace: str | None, resource_type: ResourceType) -> str:
    """The namespace the object belongs to; empty for a cluster-scoped one.

    Raises:
        BadRequest: the body and the path say different things.
    """
    if not resource_type.namespaced:
        return ""
    given = (document.get("metadata") or {}).get("namespace") or namespace or ""
    if given != namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    return str(given)


def check_name(name: str, resource_type: ResourceType) -> None:
    """Whether an object of this kind may be called that.

    Raises:
        Invalid: it may not.
    """
    resource = resource_type.resource
    if resource.group == _RBAC:
        wrong = "/" in name or "%" in name or name in (".", "..")
        rule = "may not contain '/' or '%'"
    elif resource.qualified_name in _LABELLED:
        wrong, rule = len(name) > 63 or not _LABEL.fullmatch(name), _LABEL_RULE
    else:
        wrong, rule = len(name) > 253 or not _SUBDOMAIN.fullmatch(name), _SUBDOMAIN_RULE
    if wrong:
        raise invalid(
            resource_type, name, "metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {rule}'
        )


def _unrecognized(kind: str, why: str, body: bytes) -> BadRequest:
    if not body:
        summary = "<empty>"
    else:
        excerpt, cut = body[:_SUMMARY_BYTES], " ..." if len(body) > _SUMMARY_BYTES else ""
        summary = (excerpt.decode(errors="replace") if body[:1] == b"{" else excerpt.hex()) + cut
    return BadRequest(f"the object provided is unrecognized (must be of type {kind}): {why} ({summary})")
