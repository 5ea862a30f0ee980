"""The proof of a partition's frontier: that nothing is missing up to a version which its own watch does not tell of.

A watch on an idle part of a resource brings neither events nor, on a wholly idle resource, bookmarks. Its frontier
stays where it was, however far the server's versions have moved on. What can be had of the server at any time:

1. A consistent LIST of one object says a version V that the answering server has reached.
2. A watch from the frontier with ``timeoutSeconds=1`` replays everything after it that this server knows. It goes over
   the same TCP connection, so the same server answers: its cache has reached V.
3. When the watch has ended properly, nothing up to V is missing: the frontier is V.

What the replay brings is applied as if the partition's own watch had brought it: both are the server's order from a
version on that had been reached, and the store ignores what it has. So an attempt that ends uncleanly has done no harm,
and proved nothing. An attempt is void when a list begins meanwhile (it may be a way back, and what it compares against
must not move), when the server says an older version than ours, or when the connection was not kept.

Limits: step 1 says what the *watch cache* has reached only where consistent lists come from it (1.31 and later). An
older server answers the list from etcd; that its cache catches up within the second of the watch is then likely, and
not proved. A proxy that spreads requests of one connection over several servers undoes the pinning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Literal

from ..api.client import ERROR_BODY_BYTES_MAX, ApiConnection
from ..api.decode import Decoder
from ..api.requests import list_request, watch_request
from ..model.errors import ConnectionFailed, Garbage, KubeconfigError
from ..model.observations import Bookmark, Observation
from ..model.partitions import Partition
from ..model.versions import Version
from .stream import EventStream
from .writer import ProvablePartition

Outcome = Literal["proved", "unreached", "behind", "void", "refused", "unclean", "failed"]
"""
========= =====================================================================================================
proved    the frontier has reached the version the server said
unreached the server itself has not reached the version that is waited for
behind    the server says an older version than ours: another replica, or one that lost its past
void      a list began meanwhile
refused   the server answered one of the requests with an error
unclean   the replay had an ERROR line, garbage, or no end of its own
failed    no connection, not the same connection, or no answer in time
========= =====================================================================================================
"""

REPLAY_S = 1
"""``timeoutSeconds`` of the watch: the least there is."""
ATTEMPT_S = 10.0
"""For both requests together. Who waits has usually given up after 3 s, but the result is good for the next one."""


class FrontierProof:
    """Attempts for one partition; one at a time."""

    def __init__(
        self,
        partition: Partition,
        connection: ApiConnection,
        store: ProvablePartition,
        decoder: Callable[[], Decoder],
    ) -> None:
        self._partition = partition
        self._connection = connection
        self._store = store
        self._decoder = decoder
        self.said: Version | None = None
        """The version of the server as the last attempt found it; None if it did not come so far."""

    async def attempt(self, wanted: Version) -> Outcome:
        """Tries once, for somebody who waits for `wanted`."""
        store, self.said = self._store, None
        if not store.synced or store.listing:
            return "void"
        try:
            async with asyncio.timeout(ATTEMPT_S), self._connection.pinned() as pinned:
                turn, began, asked = store.turn, store.frontier, store.moment
                version = await self._version(pinned)
                if version is None:
                    return "refused"
                if store.turn != turn:
                    return "void"
                self.said = version
                store.told(version, asked)
                if version < began:
                    return "behind"
                if version <= store.frontier:
                    store.proven(version)
                elif version >= wanted:
                    return await self._replay(pinned, turn, version)
                return "proved" if store.frontier >= wanted else "unreached"
        except (ConnectionFailed, KubeconfigError, Garbage, TimeoutError):
            return "failed"

    async def ask(self) -> Version | None:
        """The version of the server now, in a consistent list; None if it does not say."""
        try:
            async with asyncio.timeout(ATTEMPT_S):
                return await self._version(self._connection)
        except (ConnectionFailed, KubeconfigError, Garbage, TimeoutError):
            return None

    async def _version(self, connection: ApiConnection) -> Version | None:
        async with connection.open(list_request(self._partition, limit=1)) as response:
            if response.status != 200:
                await response.read(ERROR_BODY_BYTES_MAX)
                return None
            return self._decoder().page(await response.read()).version

    async def _replay(self, connection: ApiConnection, turn: int, version: Version) -> Outcome:
        """Applies what the server has after the frontier; then the frontier is `version`."""
        store = self._store
        request = watch_request(self._partition, version=store.frontier, timeout_s=REPLAY_S)
        async with AsyncExitStack() as exchange:
            response = await exchange.enter_async_context(connection.open(request))
            if response.status != 200:
                return "refused"
            deadline = asyncio.get_running_loop().time() + ATTEMPT_S
            stream = EventStream(response, self._decoder(), exchange, deadline)
            while (items := await stream.next_items()) is not None:
                if store.turn != turn:
                    return "void"
                for item in items:
                    match item:
                        case Observation():
                            store.apply(item)
                        case Bookmark():
                            store.proven(item.version)
                        case _:
                            return "unclean"
                if store.frontier >= version:
                    # Told by an event or a bookmark of this very stream, or by the partition's own.
                    return "proved"
            if stream.incomplete:
                return "unclean"
            if store.turn != turn:
                return "void"
            store.proven(version)
            return "proved"
