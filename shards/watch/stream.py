"""An open watch: decodes what arrives, piece by piece, and remembers what was decoded and not used.

The loop gets its turn after every piece, so that one busy partition does not starve the others beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from ..api.client import ApiResponse
from ..api.decode import Decoder
from ..model.observations import Item

PIECE_BYTES = 64 << 10
"""Decoded and applied without a pause: 7 pods or 100 small objects, a few hundred microseconds. Smaller
pieces cost more turns of the loop (5 us each), larger ones delay queries."""


class EventStream:
    """The items of one answer. `exchange` is the context the answer lives in."""

    def __init__(
        self, response: ApiResponse, decoder: Decoder, exchange: AsyncExitStack, deadline: float
    ) -> None:
        self.deadline = deadline
        """Loop time at which the stream is dead."""
        self._decoder = decoder
        self._chunks = response.chunks()
        self._exchange = exchange
        self._unread: list[Item] = []
        self._chunk = b""
        self._position = 0
        self._decoded_bytes = self._decoded_items = 0

    @property
    def backlog(self) -> int:
        """Lines received and not yet decoded, by the mean length of those before.

        Counting them would cost 5 us an event of 8 KB: `bytes.count` looks at every byte.
        """
        left = max(0, len(self._chunk) - self._position)
        return left * self._decoded_items // max(1, self._decoded_bytes)

    @property
    def incomplete(self) -> bool:
        """The bytes so far end in the middle of a line."""
        return self._decoder.pending > 0

    def unread(self, items: list[Item]) -> None:
        """Gives items back: they are the next ones."""
        self._unread = items

    async def next_items(self) -> list[Item] | None:
        """The items of the next piece (none if it completes no line), or None at the end of the answer.

        Raises:
            ConnectionFailed: the connection broke before the answer was complete.
        """
        if self._unread:
            items, self._unread = self._unread, []
            return items
        if self._position >= len(self._chunk):
            self._chunk = await anext(self._chunks, b"")
            self._position = 0
            if not self._chunk:
                return None
        else:
            await asyncio.sleep(0)
        end = self._position + PIECE_BYTES
        # The usual chunk is taken whole: a slice of all of it is the same object.
        piece = self._chunk[self._position : end]
        items = self._decoder.lines(piece)
        self._position = end
        self._decoded_bytes += len(piece)
        self._decoded_items += len(items)
        return items

    async def aclose(self) -> None:
        """Ends the exchange; the rest of the answer is not wanted."""
        self._chunk = b""
        if isinstance(self._chunks, AsyncGenerator):
            await self._chunks.aclose()
        await self._exchange.aclose()
