"""Whether the next list is to be a streaming list: what a server has shown of its understanding them. Pure.

What it keeps true: one that failed is followed by one list in pages, so that something is achieved before it is tried
again; and a server that cannot do them, by its own word or by two that never came to their end, is not asked again.
"""

from __future__ import annotations

from typing import Final, Literal

SILENT_LISTS_MAX: Final = 2
"""Streaming lists in a row whose end never came, until the server counts as one that has none."""


class StreamingLists:
    """What is known of one partition's server."""

    def __init__(self, *, wanted: bool) -> None:
        self._next: Literal["yes", "not now", "never"] = "yes" if wanted else "never"
        self._silent = 0

    def take(self) -> bool:
        """Whether the list that begins now is to be one."""
        now = self._next == "yes"
        if self._next == "not now":
            self._next = "yes"
        return now

    def failed(self) -> None:
        """It was understood, or nobody knows whether it was."""
        self._next = "not now"

    def unknown(self) -> None:
        """The server has none."""
        self._next = "never"

    def unfinished(self) -> None:
        """Its end did not come in the time it had."""
        self._silent += 1
        self._next = "never" if self._silent >= SILENT_LISTS_MAX else "not now"

    def finished(self) -> None:
        """Its end has come."""
        self._silent = 0
