"""A page of a list, read for what its objects are and in which version: nothing else of them is looked at. Pure.

The audit asks for metadata alone (``PartialObjectMetadataList``). A server that does not know that form answers the
whole objects, which have their metadata in the same place; so one reader takes both.
"""

from __future__ import annotations

import msgspec

from ..model.depth import at_any_depth
from ..model.errors import Garbage
from ..model.observations import IdentityPage, Listed
from ..model.refs import key_of
from ..model.versions import parse_version


class _Identity(msgspec.Struct, gc=False):
    name: str
    uid: str
    resource_version: str = msgspec.field(name="resourceVersion")
    namespace: str = ""


class _Item(msgspec.Struct, gc=False):
    metadata: _Identity


class _ListMetadata(msgspec.Struct, gc=False):
    resource_version: str = msgspec.field(name="resourceVersion")
    continue_token: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct, gc=False):
    metadata: _ListMetadata
    items: list[_Item] | None
    """null is what Go makes of an empty list that was never allocated."""


_decode = msgspec.json.Decoder(_List).decode


def identity_page(body: bytes) -> IdentityPage:
    """Reads the body of a LIST response.

    Raises:
        Garbage: it is no list of objects with name, uid and version. What it is instead is not repeated: it may be
            anything, and ends up in logs.
    """
    try:
        page = at_any_depth(_decode, body)
        listed = [_listed(item.metadata) for item in page.items or ()]
        version = parse_version(page.metadata.resource_version)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise Garbage(f"not a list of objects: {type(error).__name__}") from error
    return IdentityPage(listed, version, page.metadata.continue_token)


def _listed(found: _Identity) -> Listed:
    if not found.name or not found.uid:
        raise ValueError("an object without name or uid")
    version = parse_version(found.resource_version)
    return Listed(key_of(found.namespace, found.name), found.namespace, found.uid, version)
