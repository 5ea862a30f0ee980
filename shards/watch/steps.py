"""What goes into the reflector machine and what comes out of it: events and instructions, as values. Pure.

`protocol.Machine` turns one into the other; `reflector.Reflector` performs instructions and reports events.
An answer of the machine is a `Step`: effects, which are done at once and cannot fail, and then exactly one
activity, which takes time and ends in exactly one event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from ..api.requests import Refusal
from ..model.observations import ErrorLine
from ..model.versions import UNKNOWN, Version

# -- events --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The reflector was started; `version` is what its store holds already, `UNKNOWN` for nothing."""

    version: Version = UNKNOWN
    old: bool = False
    """What is held was not followed up to now: the server may be another one than it was."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The permit to list is held."""


@dataclass(frozen=True, slots=True)
class PageApplied:
    """A page of a list arrived and was put into the open generation."""

    version: Version
    continue_token: str
    """Empty: it was the last page."""
    selector_ignored: bool = False
    """A ``shardSelector`` was sent and the answer does not echo it."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A stream was asked for, and the head of its answer says yes."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The answer is not the one asked for."""

    refusal: Refusal


FailureKind = Literal["connection", "certificate", "credentials", "silent", "garbage"]


@dataclass(frozen=True, slots=True)
class Failed:
    """A request had no usable answer: none at all, none in time, or one that cannot be read."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class VersionTold:
    """The version the server's newest state has, as it says; `UNKNOWN` if it does not."""

    version: Version


@dataclass(frozen=True, slots=True)
class InitialEventsEnded:
    """The bookmark that ends the first part of a streaming list."""

    version: Version


@dataclass(frozen=True, slots=True)
class PlainBookmark:
    """A bookmark *without* that mark, while the mark is awaited."""


@dataclass(frozen=True, slots=True)
class ErrorReported:
    """The stream carried an ERROR line; what came before it was applied up to `version`."""

    line: ErrorLine
    version: Version = UNKNOWN
    delivered: bool = False
    """An event or bookmark came before it, since the stream is being watched."""

    @property
    def refusal(self) -> Refusal:
        """The line as if it had been the answer."""
        line = self.line
        details = line.status.get("details")
        seconds = details.get("retryAfterSeconds") if isinstance(details, Mapping) else None
        return Refusal(
            line.code or 500,
            line.message or f"the watch ended with an ERROR line: {line.reason or 'no reason given'}",
            line.reason,
            float(seconds) if isinstance(seconds, (int, float)) else None,
            line.status,
        )


StreamEnd = Literal["clean", "broken", "truncated", "garbage", "silent", "overlong"]
"""
========= ==================================================================================================
clean     the answer is complete
broken    the connection broke
truncated the answer is complete, but its last line is not
garbage   a line is no watch event; nothing after it was applied
silent    no byte for `WatchSettings.list_silence_s`, while a streaming list is not complete
overlong  the stream outlived the time it was asked for by `WatchSettings.grace_s`: it is dead
========= ==================================================================================================
"""


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream is over; what it carried was applied up to `version`."""

    how: StreamEnd
    version: Version = UNKNOWN
    delivered: bool = False
    """As in `ErrorReported`."""
    message: str = ""

    @property
    def restart(self) -> str:
        """What the counter of watch restarts calls it."""
        return _RESTARTS.get(self.how, self.how)

    @property
    def error(self) -> str:
        """What the counter of errors calls it."""
        return _ERRORS.get(self.how, self.how)


_RESTARTS: Mapping[str, str] = {
    "clean": "ended",
    "broken": "failed",
    "overlong": "stalled",
    "silent": "stalled",
}
_ERRORS: Mapping[str, str] = {"broken": "connection", "overlong": "silent", "clean": "unfinished"}


@dataclass(frozen=True, slots=True)
class Distrusted:
    """What is held was found to differ from what the server has, although it was followed up to `version`."""

    reason: str
    version: Version = UNKNOWN
    delivered: bool = False
    """As in `ErrorReported`."""


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The wait is over."""


Event: TypeAlias = (
    Begin
    | Granted
    | PageApplied
    | Accepted
    | Declined
    | Failed
    | VersionTold
    | InitialEventsEnded
    | PlainBookmark
    | ErrorReported
    | StreamEnded
    | Distrusted
    | Elapsed
)

# -- effects -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenGeneration:
    """`PartitionWriter.begin`."""


@dataclass(frozen=True, slots=True)
class CompleteGeneration:
    """`PartitionWriter.finish`."""

    version: Version


@dataclass(frozen=True, slots=True)
class DropGeneration:
    """`PartitionWriter.abandon`."""


@dataclass(frozen=True, slots=True)
class ReturnPermit:
    """The list is over, one way or the other."""


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Nothing more is wanted of the open stream."""


Effect: TypeAlias = OpenGeneration | CompleteGeneration | DropGeneration | ReturnPermit | CloseStream

# -- activities ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AwaitPermit:
    """Ends in `Granted`."""


@dataclass(frozen=True, slots=True)
class AskPage:
    """Asks for one page (all of it, if `limit` is None) and puts it into the open generation.

    Ends in `PageApplied`, `Declined` or `Failed`.
    """

    limit: int | None
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class AskVersion:
    """Asks for one object, to learn which version the server is at: behind `held` or not. Nothing of the answer is
    stored.

    Ends in `VersionTold`, `Declined` or `Failed`.
    """

    held: Version


@dataclass(frozen=True, slots=True)
class AskStreamingList:
    """Asks for a streaming list that the server is to end after `timeout_s`.

    Ends in `Accepted`, `Declined` or `Failed`.
    """

    timeout_s: int


@dataclass(frozen=True, slots=True)
class AskWatch:
    """Asks for everything after `version`. Ends in `Accepted`, `Declined` or `Failed`."""

    version: Version
    timeout_s: int


@dataclass(frozen=True, slots=True)
class ReadInitialEvents:
    """Puts what arrives into the open generation.

    Ends in `InitialEventsEnded`, `PlainBookmark`, `ErrorReported` or `StreamEnded`.
    """


@dataclass(frozen=True, slots=True)
class ReadEvents:
    """Applies what arrives to what is held. Ends in `ErrorReported`, `StreamEnded` or `Distrusted`."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Ends in `Elapsed` after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing is left to be done, ever."""


Activity: TypeAlias = (
    AwaitPermit
    | AskPage
    | AskVersion
    | AskStreamingList
    | AskWatch
    | ReadInitialEvents
    | ReadEvents
    | Wait
    | Stop
)


class Step(NamedTuple):
    """What to do next: all effects in their order, then the activity."""

    effects: tuple[Effect, ...]
    activity: Activity
