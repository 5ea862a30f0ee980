"""Between a parsed document and a stored object: order of keys, encoding, what selectors look at.

kube-apiserver encodes built-in kinds from Go structs, so the order of the metadata's keys is fixed and
maps are sorted; `arrange` brings a document into that order. The order of keys deeper in ``spec`` and
``status`` stays the writer's. Pure.
"""

from __future__ import annotations

import re
from functools import partial
from itertools import accumulate
from typing import Any, Final, TypeAlias

import msgspec

from ...shards.model.depth import at_any_depth
from ...shards.model.fields import field_value
from ...shards.model.refs import key_of
from ...shards.model.resources import ResourceType
from ...shards.model.versions import Version, parse_version
from ..serving.documents import encode_object, go_escaped
from ..serving.options import selectable_fields
from .storage import Stored

Document: TypeAlias = dict[str, Any]

_METADATA_ORDER = (
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
)
_MAPS = ("labels", "annotations")
_SORTED_AT_TOP = ("data", "binaryData", "stringData")

NO_GENERATION = frozenset(
    {
        "configmaps",
        "secrets",
        "namespaces",
        "nodes",
        "services",
        "endpoints",
        "events",
        "events.events.k8s.io",
        "serviceaccounts",
        "limitranges",
        "resourcequotas",
        "persistentvolumes",
        "persistentvolumeclaims",
        "leases.coordination.k8s.io",
        "controllerrevisions.apps",
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "clusterroles.rbac.authorization.k8s.io",
        "clusterrolebindings.rbac.authorization.k8s.io",
        "storageclasses.storage.k8s.io",
        "csidrivers.storage.k8s.io",
        "csinodes.storage.k8s.io",
        "volumeattachments.storage.k8s.io",
        "runtimeclasses.node.k8s.io",
        "apiservices.apiregistration.k8s.io",
        "certificatesigningrequests.certificates.k8s.io",
        "horizontalpodautoscalers.autoscaling",
    }
)
"""Built-in resources whose strategy does not count generations."""

LEVELS_MAX: Final = 10_000
"""Deeper than this kube-apiserver takes no JSON."""

_JSON = msgspec.json.Decoder()
_TEXTS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_FLAT = re.compile(rb"[^{}\[\]]+")


class TooDeep(Exception):  # noqa: N818 - a fact about the document, which callers turn into their own 400
    """JSON nested more than `LEVELS_MAX` deep; the text is that of Go's decoder."""


def parse_json(body: bytes) -> Any:
    """What the JSON says.

    Raises:
        msgspec.DecodeError: it is no JSON.
        TooDeep: it is nested too deeply.
    """
    try:
        return _JSON.decode(body)
    except RecursionError:
        brackets = _FLAT.sub(b"", _TEXTS.sub(b"", body))
        if max(accumulate(1 if one in b"{[" else -1 for one in brackets)) > LEVELS_MAX:
            raise TooDeep("json: exceeded max depth") from None
        return at_any_depth(_JSON.decode, body)


def parse_object(body: bytes) -> Document:
    """The document of a stored body."""
    document: Document = at_any_depth(_JSON.decode, body)
    return document


def copied(document: Document) -> Document:
    """A document of its own, however deep: through JSON, which takes less of the stack than ``copy.deepcopy``."""
    return parse_object(at_any_depth(msgspec.json.encode, document))


def same(one: Any, other: Any) -> bool:
    """Whether two documents say the same, however deep they are."""
    return at_any_depth(_equal, (one, other))


def _equal(pair: tuple[Any, Any]) -> bool:
    return bool(pair[0] == pair[1])


def arrange(document: Document, resource_type: ResourceType) -> Document:
    """A new top level and metadata in the API server's order, without what it leaves out when empty."""
    metadata = document.get("metadata") or {}
    ordered = {
        name: metadata[name] for name in _METADATA_ORDER if metadata.get(name) not in (None, "", {}, [])
    }
    for name in _MAPS:
        if name in ordered:
            ordered[name] = dict(sorted(ordered[name].items()))
    arranged: Document = {
        "kind": resource_type.kind,
        "apiVersion": resource_type.resource.api_version,
        "metadata": ordered,
    }
    for name, value in document.items():
        if name in arranged or name == "status":
            continue
        arranged[name] = (
            dict(sorted(value.items())) if name in _SORTED_AT_TOP and isinstance(value, dict) else value
        )
    if "status" in document:
        arranged["status"] = document["status"]
    return arranged


def store(document: Document, resource_type: ResourceType, version: Version) -> Stored:
    """The stored form of `document` at `version`; the document itself is left alone."""
    arranged = arrange(document, resource_type)
    metadata = arranged["metadata"]
    position = {name: at for at, name in enumerate(_METADATA_ORDER)}
    metadata["resourceVersion"] = str(version)
    arranged["metadata"] = dict(sorted(metadata.items(), key=lambda item: position[item[0]]))
    body = at_any_depth(partial(encode_object, resource_type=resource_type), arranged)
    return describe(arranged, resource_type, version, body)


def describe(document: Document, resource_type: ResourceType, version: Version, body: bytes) -> Stored:
    """What is kept of an object whose encoded `body` is known."""
    metadata = document["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace", "")
    qualified = resource_type.resource.qualified_name
    return Stored(
        key_of(namespace, name),
        namespace,
        name,
        metadata.get("uid", ""),
        version,
        metadata.get("labels") or {},
        tuple(field_value(document, qualified, path) for path in selectable_fields(resource_type)),
        body,
    )


def adopt(body: bytes, resource_type: ResourceType) -> Stored:
    """The stored form of an object that some API server sent, bytes and version unchanged.

    Raises:
        ValueError: no JSON object, or without name or version.
    """
    try:
        document = parse_object(body)
        version = parse_version(document["metadata"]["resourceVersion"])
        return describe(document, resource_type, version, body)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise ValueError(f"not an object of {resource_type.resource}: {error!r} in {body[:80]!r}") from error


def reversion(stored: Stored, version: Version) -> Stored:
    """The same state under another version: the last state of what was deleted, or what left a selector."""
    old, new = f'"resourceVersion":"{stored.version}"'.encode(), f'"resourceVersion":"{version}"'.encode()
    if stored.body.count(old) == 1:
        body = stored.body.replace(old, new)
    else:
        # An annotation of that very name, or an involvedObject: only the metadata's own one is meant.
        document = parse_object(stored.body)
        document["metadata"]["resourceVersion"] = str(version)
        body = go_escaped(at_any_depth(msgspec.json.encode, document))
    return msgspec.structs.replace(stored, version=version, body=body)
