"""A server whose address is found out when it is needed, and again when nothing can be connected to there any more.

What it keeps true: a server that moved is found by the next request after the one that failed; one that is down is not
looked for more often than every `FIND_AGAIN_S`, however many requests there are; and as long as it is not found
anywhere else, it is asked where it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from ...shards.api.client import ApiConnection, ApiResponse, Credentials, Endpoint
from ...shards.api.requests import ApiRequest
from ...shards.model.errors import ConnectionFailed, ShoalError

log = logging.getLogger("shoal.cluster.client")

FIND_AGAIN_S: Final = 5.0
"""Asking Ray takes a while, and every informer has requests that fail."""


class Sought:
    """`Credentials` for such a server.

    Args:
        find: Gives its URL.
        make: Gives the credentials for it.
    """

    def __init__(self, find: Callable[[], Awaitable[str]], make: Callable[[str], Credentials]) -> None:
        self._find = find
        self._make = make
        self._lock = asyncio.Lock()
        self._url = ""
        self._found: Credentials | None = None
        self._doubted = False
        self._looked_again_at = float("-inf")

    @property
    def found(self) -> Credentials | None:
        """Those of where it is thought to be; None: nobody has looked."""
        return self._found

    def unreachable(self, found: Credentials | None) -> None:
        """Nothing could be connected to where it was `found` to be."""
        # What fails late says nothing about where it is now.
        if found is None or found is self._found:
            self._doubted = True

    async def endpoint(self) -> Endpoint:
        """As `Credentials.endpoint`.

        Raises:
            ShoalError: there is no such server, and never was.
        """
        async with self._lock:
            found = self._found
            if found is None:
                self._url = await self._find()
                found = self._found = self._make(self._url)
            elif self._doubted:
                found = self._found = await self._look_again(found)
        return await found.endpoint()

    def rejected(self, endpoint: Endpoint, *, again: bool = False) -> bool:
        """As `Credentials.rejected`."""
        return self._found is not None and self._found.rejected(endpoint, again=again)

    def doubted(self, endpoint: Endpoint) -> bool:
        """As `Credentials.doubted`."""
        return self._found is not None and self._found.doubted(endpoint)

    async def _look_again(self, known: Credentials) -> Credentials:
        now = asyncio.get_running_loop().time()
        if now - self._looked_again_at < FIND_AGAIN_S:
            return known
        self._looked_again_at, self._doubted = now, False
        try:
            url = await self._find()
            if url == self._url:
                return known
            made = self._make(url)
        except ShoalError as error:
            log.warning("server is not found again", extra={"server": self._url, "problem": error.message})
            return known
        log.info("server has moved", extra={"from": self._url, "to": url})
        self._url = url
        return made


class SoughtConnection:
    """`ApiConnection` that tells a `Sought` where nothing can be connected to."""

    def __init__(self, connection: ApiConnection, sought: Sought) -> None:
        self._connection = connection
        self._sought = sought

    @asynccontextmanager
    async def open(self, request: ApiRequest) -> AsyncIterator[ApiResponse]:
        """As `ApiConnection.open`."""
        found = self._sought.found
        try:
            async with self._connection.open(request) as response:
                yield response
        except ConnectionFailed as error:
            if not error.sent:
                self._sought.unreachable(found)
            raise

    @asynccontextmanager
    async def pinned(self) -> AsyncIterator[ApiConnection]:
        """As `ApiConnection.pinned`."""
        async with self._connection.pinned() as pinned:
            yield SoughtConnection(pinned, self._sought)

    async def aclose(self) -> None:
        """As `ApiConnection.aclose`."""
        await self._connection.aclose()
