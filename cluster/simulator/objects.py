"""Between a parsed document and a stored object: order of keys, encoding, what selectors look at.

kube-apiserver encodes built-in kinds from Go structs, so the order of the metadata's keys is fixed and
maps are sorted; `arrange` brings a document into that order. The order of keys deeper in ``spec`` and
``status`` stays the writer's. Pure.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

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

_JSON = msgspec.json.Decoder()


def parse_object(body: bytes) -> Document:
    """The document of a stored body."""
    document: Document = _JSON.decode(body)
    return document


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
    return describe(arranged, resource_type, version, encode_object(arranged, resource_type))


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
        document: Document = _JSON.decode(body)
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
        body = go_escaped(msgspec.json.encode(document))
    return msgspec.structs.replace(stored, version=version, body=body)
