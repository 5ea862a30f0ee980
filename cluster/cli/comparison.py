"""Comparing what Shoal serves with what the API server serves: every object, by uid and resource version.

Metadata-only lists on both sides, page by page, so that nothing but names, uids and versions is held here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ...shards.model.resources import ResourceType
from .server import Server

METADATA_ONLY = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
PAGE_LIMIT = 2000


class _Metadata(msgspec.Struct):
    name: str
    uid: str
    resourceVersion: str  # noqa: N815 - the API's own name
    namespace: str = ""


class _Item(msgspec.Struct):
    metadata: _Metadata


class _ListMetadata(msgspec.Struct, rename={"token": "continue"}):
    token: str = ""


class _Page(msgspec.Struct):
    metadata: _ListMetadata
    items: list[_Item]


@dataclass(slots=True)
class Comparison:
    """What was compared and what differs."""

    resources: int = 0
    objects: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


async def compare(shoal: Server, origin: Server, types: Sequence[ResourceType]) -> Comparison:
    """Compares every object of those of these resources that can be listed. Raises as `Server.fetch`."""
    listed = [kind for kind in types if "list" in kind.verbs]
    outcome = Comparison(resources=len(listed))
    for kind in listed:
        ours, theirs = await asyncio.gather(_objects(shoal, kind), _objects(origin, kind))
        outcome.objects += len(theirs)
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                outcome.differences.append(
                    f"{kind.resource} {key}: Shoal has {_text(ours.get(key))}, the API server {_text(theirs.get(key))}"
                )
    return outcome


def _text(found: tuple[str, str] | None) -> str:
    return "nothing" if found is None else f"uid {found[0]} version {found[1]}"


async def _objects(server: Server, kind: ResourceType) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    token = ""
    while True:
        query = [("limit", str(PAGE_LIMIT)), *([("continue", token)] if token else [])]
        body = await server.fetch(kind.resource.path(), tuple(query), accept=METADATA_ONLY)
        page = msgspec.json.decode(body, type=_Page)
        for item in page.items:
            metadata = item.metadata
            found[f"{metadata.namespace}/{metadata.name}"] = (metadata.uid, metadata.resourceVersion)
        token = page.metadata.token
        if not token:
            return found
