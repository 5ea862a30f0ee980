"""Whether the API server sends a part of a resource by hash: a probe of ``shardSelector`` (KEP-5866), and its result.

A server that does not know the parameter, or whose gate ShardedListAndWatch is off, ignores it: it sends everything,
and nothing says so but the missing echo in a list's head. So both halves of all uids are asked for, a few objects each,
and each answer has to echo the range and to keep to it. A shard that follows a range of a server that ignores it is
right all the same, because it checks what arrives; it only receives and drops what others hold, which is what planning
wants to know before it cuts.

Limits: a watch says nothing of the selector, so that watches are filtered follows from lists that are. Where that is
known to be wrong the answer is no: kube-apiserver 1.36.0 to 1.36.3 do not filter watches of resources without a watch
cache, by default events (`UNCACHED`). Servers behind one address may differ while they are rolled out; so what was
found is asked for again after `REMEMBERED_S`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, NamedTuple

import msgspec

from ..api.client import ApiConnection, fetch
from ..api.decode import Decoder
from ..api.requests import list_request
from ..model.errors import BadShardSelector, ShoalError
from ..model.partitions import HASH_END, HashRange, Partition
from ..model.resources import Resource, ResourceType
from ..model.shard_selectors import parse_shard_selector

log = logging.getLogger("shoal.shards.watch")

PROBE_S: Final = 10.0
"""For both requests together."""
REMEMBERED_S: Final = 300.0
FORGOTTEN_S: Final = 30.0
"""The same where the server did not answer as asked: then nothing was found out."""
UNCACHED: Final = frozenset({("", "events"), ("events.k8s.io", "events")})
"""Group and name of resources that kube-apiserver keeps no watch cache for (``--watch-cache-sizes``)."""
OBJECTS: Final = 3
_HALVES: Final = (HashRange("uid", 0, HASH_END // 2), HashRange("uid", HASH_END // 2, HASH_END))


async def honours_shard_selector(connection: ApiConnection, resource_type: ResourceType) -> bool:
    """Whether ranges of a resource are proved to be honoured, by two lists of `OBJECTS` each.

    Raises:
        ShoalError: the server refused to answer, or did not.
        TimeoutError: it did not in `PROBE_S` seconds.
    """
    resource = resource_type.resource
    if (resource.group, resource.name) in UNCACHED:
        return False
    async with asyncio.timeout(PROBE_S):
        for half in _HALVES:
            if not await _kept_to(connection, resource_type, half):
                return False
    return True


async def _kept_to(connection: ApiConnection, resource_type: ResourceType, half: HashRange) -> bool:
    """Whether the server says that it sent this range, and what it sent is of it."""
    _, body = await fetch(connection, list_request(Partition(resource_type.resource, half), limit=OBJECTS))
    # The fields are of no interest here, and a server may have objects that lack them.
    page = Decoder(msgspec.structs.replace(resource_type, selectable_fields=())).page(body)
    try:
        echoed = parse_shard_selector(page.shard_selector)
    except BadShardSelector:
        return False
    if (
        echoed is None
        or echoed.field != f"object.metadata.{half.field}"
        or echoed.united != ((half.low, half.high),)
    ):
        return False
    return all(half.admits(one.namespace, one.uid) for one in page.observations)


class _Found(NamedTuple):
    honoured: bool
    until: float


class RangeSupport:
    """What was found of one API server. Belongs to one event loop."""

    def __init__(self, connection: ApiConnection) -> None:
        self._connection = connection
        self._found: dict[Resource, _Found] = {}
        self._asking: dict[Resource, asyncio.Lock] = {}

    def known(self, resource: Resource) -> bool | None:
        """Whether ranges are honoured, as was found lately; None: it has to be asked."""
        found = self._found.get(resource)
        if found is None or found.until <= asyncio.get_running_loop().time():
            return None
        return found.honoured

    async def honours(self, resource_type: ResourceType) -> bool:
        """The same, asked if it is not known. False where the server did not answer; remembered for less long."""
        resource = resource_type.resource
        async with self._asking.setdefault(resource, asyncio.Lock()):
            known = self.known(resource)
            if known is not None:
                return known
            kept_s = REMEMBERED_S
            try:
                honoured = await honours_shard_selector(self._connection, resource_type)
            except (ShoalError, TimeoutError) as error:
                log.info("ranges not probed", extra={"resource": str(resource), "problem": str(error)})
                honoured, kept_s = False, FORGOTTEN_S
            self._found[resource] = _Found(honoured, asyncio.get_running_loop().time() + kept_s)
            return honoured

    def forget(self) -> None:
        """The server may be another one: everything is asked again."""
        self._found.clear()
