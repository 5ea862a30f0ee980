"""What informers raise beyond the errors of every request. Pure."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

from ...shards.model.errors import NotFound, ShoalError


class UnknownResource(NotFound):
    """The API server serves no such resource, or none that can be followed; `close` are names it may have been."""

    def __init__(self, message: str, *, close: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.close = tuple(close)


class InformerClosed(ShoalError):  # noqa: N818 - what has happened
    """The informer, or the handler's registration, has ended: nothing more will be delivered."""


E = TypeVar("E", bound=BaseException)


def again(error: E) -> E:
    """The same error, to be raised once more: each time one object is raised its traceback grows."""
    return copy.copy(error).with_traceback(None)
