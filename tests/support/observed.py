"""Objects as observations and as JSON, for tests of decoding and holding."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

from shoal.shards.api.decode import Decoder
from shoal.shards.model.fields import SELECTABLE_FIELDS
from shoal.shards.model.observations import Observation
from shoal.shards.model.partitions import Epoch, PartitionId
from shoal.shards.model.queries import PageQuery
from shoal.shards.model.refs import key_of
from shoal.shards.model.resources import Resource, ResourceType
from shoal.shards.model.versions import Version

ROOT = Path(__file__).parents[2]
WIRE = ROOT / "tests" / "wire"
CLUSTER = ROOT / "cluster" / "simulator" / "cluster.jsonl.zst"

PODS = ResourceType(
    resource=Resource("", "v1", "pods"),
    kind="Pod",
    namespaced=True,
    selectable_fields=SELECTABLE_FIELDS["pods"],
)
CONFIG_MAPS = ResourceType(resource=Resource("", "v1", "configmaps"), kind="ConfigMap", namespaced=True)
NODES = ResourceType(
    resource=Resource("", "v1", "nodes"),
    kind="Node",
    namespaced=False,
    selectable_fields=SELECTABLE_FIELDS["nodes"],
)
WIDGETS = ResourceType(
    resource=Resource("example.com", "v1", "widgets"),
    kind="Widget",
    namespaced=True,
    custom=True,
    selectable_fields=("spec.size", "spec.color"),
)

POD: dict[str, Any] = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {
        "name": "a",
        "namespace": "n",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {"app": "web"},
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {".": {}}}}],
    },
    "spec": {"nodeName": "node-1", "restartPolicy": "Always"},
    "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
}
"""A small pod as a GET gives it."""


def compact(document: Any) -> bytes:
    """JSON as the API server writes it: no blanks."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def observed(
    name: str,
    version: int,
    *,
    namespace: str = "default",
    uid: str = "",
    labels: Mapping[str, str] | None = None,
    fields: tuple[str, ...] = (),
    deleted: bool = False,
    text: str = "",
) -> Observation:
    """An observation of a small object; its body says name, namespace, version and `text`."""
    uid = uid or f"uid-{namespace}-{name}"
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": uid,
        "resourceVersion": str(version),
    }
    if labels:
        metadata["labels"] = dict(labels)
    body = compact({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "text": text})
    return Observation(
        deleted,
        key_of(namespace, name),
        namespace,
        uid,
        Version(version),
        compact(labels) if labels else b"",
        fields,
        body,
    )


def query(**wanted: Any) -> PageQuery:
    """A page query of everything, but for what is given."""
    return PageQuery(partition=PartitionId("v1/pods"), epoch=Epoch(0), **wanted)


def changed(document: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    """The object with other metadata."""
    return document | {"metadata": document["metadata"] | metadata}


def line(document: Any, type_: str = "MODIFIED") -> bytes:
    """A line of a watch."""
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), compact(document))


def without_managed_fields(document: dict[str, Any]) -> dict[str, Any]:
    """The object without ``metadata.managedFields``."""
    metadata = {name: value for name, value in document["metadata"].items() if name != "managedFields"}
    return document | {"metadata": metadata}


def only(decoder: Decoder, text: bytes) -> Observation:
    """The one observation the text decodes to."""
    (found,) = decoder.lines(text)
    assert isinstance(found, Observation), found
    return found


def wire(name: str) -> dict[str, Any]:
    """A recorded exchange with a real API server."""
    recorded: dict[str, Any] = json.loads((WIRE / f"{name}.json").read_bytes())
    return recorded


def wire_lines(name: str) -> list[bytes]:
    """The lines of a recorded watch."""
    return [line["line"].encode() for line in wire(name)["response"]["lines"]]


@cache
def cluster_objects() -> Sequence[tuple[ResourceType, dict[str, Any]]]:
    """Every object of the recorded cluster, kind and apiVersion where a GET has them."""
    found = []
    for line in _cluster_lines():
        recorded = json.loads(line)
        resource = Resource(recorded["group"], recorded["version"], recorded["resource"])
        document = recorded["object"]
        kind, api_version = document.pop("kind"), document.pop("apiVersion")
        custom = resource.group.endswith("example.com")
        first = (
            {"apiVersion": api_version, "kind": kind} if custom else {"kind": kind, "apiVersion": api_version}
        )
        found.append((_type(resource, kind, custom, "namespace" in document["metadata"]), first | document))
    return found


@cache
def _type(resource: Resource, kind: str, custom: bool, namespaced: bool) -> ResourceType:
    return ResourceType(
        resource=resource,
        kind=kind,
        namespaced=namespaced,
        custom=custom,
        selectable_fields=SELECTABLE_FIELDS.get(resource.qualified_name, ()),
    )


def _cluster_lines() -> Iterator[str]:
    with CLUSTER.open("rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as plain:
        yield from io.TextIOWrapper(plain, encoding="utf-8")
