"""Answers of the router in the form a client accepts: whole objects, metadata only, a Table; JSON or YAML.

Plain JSON lists are spliced from bytes and sent as they come. A Table is rendered in slices, so that a long
one does not keep the event loop from others. YAML and indented JSON have no form that could be sent in
pieces: such a list is put together first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
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
    list_tail,
    partial_list_head,
    partial_metadata,
    present,
)
from ..serving.negotiation import Accepted

SLICE = 50
"""Objects parsed in one go: a Table's row takes some 100 us, so others wait a few milliseconds at most."""


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


def has_pieces(accepted: Accepted) -> bool:
    """Whether a list in this form can be sent as it comes."""
    return accepted.media == "application/json" and not accepted.pretty


async def list_form(
    listing: Listing, resource_type: ResourceType, accepted: Accepted, *, now: datetime
) -> AsyncIterator[bytes]:
    """A list in chunks. The form was checked with `Accepted.require` before the list was asked for."""
    chunks = _json_chunks(listing, resource_type, accepted, now=now)
    if has_pieces(accepted):
        async for chunk in chunks:
            yield chunk
        return
    yield present(b"".join([chunk async for chunk in chunks]), accepted)


async def _json_chunks(
    listing: Listing, resource_type: ResourceType, accepted: Accepted, *, now: datetime
) -> AsyncIterator[bytes]:
    metadata = ListMetadata(listing.version, listing.continue_token, listing.remaining)
    if accepted.convert == "Table":
        async for chunk in _table_chunks(listing, resource_type, accepted, metadata, now=now):
            yield chunk
        return
    if accepted.convert:
        head, tail = partial_list_head(metadata, accepted.meta_version), PARTIAL_LIST_TAIL
    else:
        head, tail = list_head(resource_type, metadata), list_tail(resource_type, metadata)
    # The head travels with the first objects: a small list is then one write.
    separator = head
    async for bodies in _batches(listing):
        if accepted.convert:
            items = b",".join(partial_metadata(body, accepted.meta_version) for body in bodies)
        else:
            items = joined_items(bodies, resource_type)
        yield separator + items
        separator = b","
    yield tail if separator == b"," else head + tail


async def _batches(listing: Listing) -> AsyncIterator[Sequence[bytes]]:
    if listing.first:
        yield listing.first
    async for bodies in listing.rest:
        yield bodies


async def _table_chunks(
    listing: Listing,
    resource_type: ResourceType,
    accepted: Accepted,
    metadata: ListMetadata,
    *,
    now: datetime,
) -> AsyncIterator[bytes]:
    head = tables.table_head(resource_type, metadata, accepted.meta_version)
    separator = head
    async for bodies in _batches(listing):
        for part in _slices(bodies):
            rows = tables.rows(
                resource_type,
                part,
                now=now,
                include_object=accepted.include_object,
                version=accepted.meta_version,
            )
            yield separator + b",".join(rows)
            separator = b","
            await asyncio.sleep(0)
    yield tables.TABLE_TAIL if separator == b"," else head + tables.TABLE_TAIL


def _slices(bodies: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(bodies), SLICE):
        yield bodies[start : start + SLICE]
