"""What informers raise beyond the errors of every request. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ...shards.model.errors import NotFound, ShoalError


class UnknownResource(NotFound):
    """The API server serves no such resource, or none that can be followed; `close` are names it may have been."""

    def __init__(self, message: str, *, close: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.close = tuple(close)


class InformerClosed(ShoalError):  # noqa: N818 - what has happened
    """The informer, or the handler's registration, has ended: nothing more will be delivered."""
