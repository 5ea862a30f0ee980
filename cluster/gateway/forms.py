"""Answers of the router in the form a client accepts: whole objects, metadata only, a Table; JSON or YAML.

Every list is sent as it comes. Plain JSON is spliced from bytes; all else is rendered in slices, so that a long list
does not keep the event loop from others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime

from ...shards.model.resources import ResourceType
from ..query.answers import Listing
from ..query.merge import version_of
from ..serving import tables
from ..serving.documents import (
    PARTIAL_LIST_TAIL,
    ListMetadata,
    joined_items,
    list_head,
    list_items,
    list_tail,
    partial_list_head,
    partial_metadata,
    present,
)
from ..serving.negotiation import Accepted, Media
from ..serving.presentation import Shell, shell, shown

SLICES: Mapping[Media, int] = {"application/json": 50, "application/yaml": 4}
"""Objects rendered in one go, so that others wait a few milliseconds at most: a Table's row takes some 100 us, a pod in
YAML more than a millisecond.
"""


def object_form(body: bytes, resource_type: ResourceType, accepted: Accepted, *, now: datetime) -> bytes:
    """One object as the whole answer, newline included.

    Raises:
        NotAcceptable: a list's form was asked of an object.
    """
    accepted.require(is_list=False)
    match accepted.convert:
        case "Table":
            body = tables.table(
                resource_type,
                (body,),
                ListMetadata(version_of(body)),
                now=now,
                include_object=accepted.include_object,
                version=accepted.meta_version,
            )
        case "PartialObjectMetadata" | "PartialObjectMetadataList":
            body = partial_metadata(body, accepted.meta_version)
        case "":
            pass
    return present(body.rstrip(b"\n") + b"\n", accepted)


async def list_form(
    listing: Listing, resource_type: ResourceType, accepted: Accepted, *, now: datetime
) -> AsyncIterator[bytes]:
    """A list in chunks. The form was checked with `Accepted.require` before the list was asked for."""
    metadata = ListMetadata(
        listing.version, listing.continue_token, listing.remaining, listing.shard_selector
    )
    around = _shell(resource_type, accepted, metadata)
    # The head travels with the first objects: a small list is then one write.
    separator = around.head
    async for bodies in _batches(listing):
        if _plain(accepted):
            yield separator + joined_items(bodies, resource_type)
            separator = around.separator
            continue
        for part in _slices(bodies, SLICES[accepted.media]):
            yield separator + shown(_items(part, resource_type, accepted, now), accepted)
            separator = around.separator
            await asyncio.sleep(0)
    yield around.tail if separator is not around.head else around.empty


def _plain(accepted: Accepted) -> bool:
    """Whether objects go out as the bytes they are."""
    return accepted.media == "application/json" and not accepted.pretty and not accepted.convert


def _shell(resource_type: ResourceType, accepted: Accepted, metadata: ListMetadata) -> Shell:
    version = accepted.meta_version
    if accepted.convert == "Table":
        head = tables.table_head(resource_type, metadata, version)
        return shell(head, tables.TABLE_TAIL, "rows", accepted)
    if accepted.convert:
        return shell(partial_list_head(metadata, version), PARTIAL_LIST_TAIL, "items", accepted)
    head, tail = list_head(resource_type, metadata), list_tail(resource_type, metadata)
    return shell(head, tail, "items", accepted)


def _items(
    bodies: Sequence[bytes], resource_type: ResourceType, accepted: Accepted, now: datetime
) -> Iterator[bytes]:
    """Objects as the items of a list of that form, as JSON."""
    version = accepted.meta_version
    if accepted.convert == "Table":
        return tables.rows(
            resource_type, bodies, now=now, include_object=accepted.include_object, version=version
        )
    if accepted.convert:
        return (partial_metadata(body, version) for body in bodies)
    return list_items(bodies, resource_type)


async def _batches(listing: Listing) -> AsyncIterator[Sequence[bytes]]:
    if listing.first:
        yield listing.first
    async for bodies in listing.rest:
        yield bodies


def _slices(bodies: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(bodies), size):
        yield bodies[start : start + size]
