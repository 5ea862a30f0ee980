"""Faults on demand: what networks, proxies and servers do to clients, seeded and counted.

A `Fault` says what happens, to which requests, how often. Tests arm it through `Faults`; other processes
through ``/simulator/faults`` (`control`). Request faults are looked up when a request arrives, stream
faults each time a stream is about to send lines (or at once, with `Fault.immediate`), acts happen when
they are armed.

=================== ======= =========================================================================
kind                when    what
=================== ======= =========================================================================
drop                request the connection ends before an answer
slow                request the answer begins `seconds` later
status-410          request HTTP 410 Expired
status-429          request HTTP 429 with Retry-After
status-500          request HTTP 500
status-503          request HTTP 503 with Retry-After
ignore-selectors    request label, field and shard selectors have no effect on this answer or stream
no-bookmarks        request this stream sends none (but the one that ends a streaming list)
late-bookmarks      request they come `seconds` later
cut                 stream  the connection breaks between two lines, or within the body of any other answer
truncate            stream  it breaks in the middle of a line
garbage             stream  a line is replaced by bytes that are no JSON; the stream goes on
line-410            stream  an ERROR line with a 410 Status, then the stream ends
stall               stream  nothing is sent for `seconds` (0: ever again); the connection stays open
compact             act     the log up to now is forgotten: older versions are 410
restart             act     every stream breaks, the log is forgotten; revisions go on `jump` later, or
                            earlier if it is negative: a backup is restored (see `Storage.restart`)
=================== ======= =========================================================================

Everything random comes from one generator, so that a seed repeats a run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from ...shards.model.errors import Expired, RetryLater, ShoalError, TooManyRequests
from .storage import Callbacks, Storage

RequestKind: TypeAlias = Literal[
    "drop", "slow", "status-410", "status-429", "status-500", "status-503",
    "ignore-selectors", "no-bookmarks", "late-bookmarks",
]  # fmt: skip
StreamKind: TypeAlias = Literal["cut", "truncate", "garbage", "line-410", "stall"]
ActKind: TypeAlias = Literal["compact", "restart"]
Kind: TypeAlias = RequestKind | StreamKind | ActKind

STREAM_KINDS: tuple[StreamKind, ...] = ("cut", "truncate", "garbage", "line-410", "stall")
EXPIRED_TEXT = "The resourceVersion for the provided watch is too old."


class Aborted(Exception):  # noqa: N818 - control flow: the connection is to be broken
    """The connection is to be torn down without a proper end; `kind` is the fault that does it, if one does."""

    def __init__(self, kind: str = "") -> None:
        super().__init__(kind)
        self.kind = kind


class Refused(Exception):  # noqa: N818 - control flow: an error is to be answered
    """The fault `kind` answers `error` in the place of what was asked for."""

    def __init__(self, kind: str, error: ShoalError) -> None:
        super().__init__(kind)
        self.kind = kind
        self.error = error


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of trouble, whom it hits and how often."""

    kind: Kind
    resource: str = ""
    """Qualified name (``pods``, ``deployments.apps``); empty for any."""
    verb: str = ""
    """``list``, ``watch``, ``get``, ``create``, …; empty for any."""
    namespace: str | None = None
    """Of the request's path; None for any."""
    count: Annotated[int, Meta(ge=1)] | None = 1
    """How many times it happens; None for as long as it is armed."""
    probability: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Of happening at each opportunity."""
    after_lines: Annotated[int, Meta(ge=0)] = 0
    """Stream faults spare a stream's first so many lines."""
    immediate: bool = False
    """A stream fault hits open streams now, without waiting for a line to send."""
    seconds: Annotated[float, Meta(ge=0)] = 0.0
    retry_after_s: Annotated[int, Meta(ge=0)] | None = 1
    """For 429 and 503; None leaves the header out."""
    jump: int = 0
    """By how much a restart moves the revision on; negative: back, though not below 1."""


class _InternalFault(ShoalError):  # noqa: N818 - named like the Status reasons
    """The 500 of a fault."""

    reason = "InternalError"


class Faults:
    """The faults that are armed, and what they have done."""

    def __init__(self, storage: Storage, rng: Random) -> None:
        self._storage = storage
        self._rng = rng
        self._armed: dict[int, Fault] = {}
        self._left: dict[int, int] = {}
        self._next_id = 1
        self.injected: Counter[str] = Counter()
        """Times each kind has had its effect; being armed, or chosen, does not count."""
        self.pokes = Callbacks()
        """Streams that want to know when a fault is armed."""

    def arm(self, fault: Fault) -> int:
        """Arms a fault (acts happen at once); returns the number that `disarm` takes."""
        number, self._next_id = self._next_id, self._next_id + 1
        if fault.kind == "compact":
            self._storage.compact()
            self.happened(fault.kind)
        elif fault.kind == "restart":
            self._storage.restart(revision=self._storage.revision + fault.jump)
            self.happened(fault.kind)
        else:
            self._armed[number] = fault
            if fault.count is not None:
                self._left[number] = fault.count
            if fault.immediate:
                for poke in tuple(self.pokes):
                    poke()
        return number

    def disarm(self, number: int | None = None) -> None:
        """Takes back one fault, or all; unknown numbers are ignored."""
        if number is None:
            self._armed.clear()
            self._left.clear()
        else:
            self._armed.pop(number, None)
            self._left.pop(number, None)

    @property
    def armed(self) -> dict[int, Fault]:
        """What is armed, by number, with the counts that are left."""
        return {
            number: msgspec.structs.replace(fault, count=self._left.get(number))
            for number, fault in self._armed.items()
        }

    def take(self, kinds: Sequence[str], target: Target, *, lines: int | None = None) -> Fault | None:
        """The fault of one of these kinds that is to happen now to `target`, if one is.

        Whoever takes it lets it happen, and says so by `happened` where the effect is, not before.

        `lines` is how many lines a stream has sent; None leaves `Fault.after_lines` out of account. A stream
        without lines to send passes -1, which only immediate faults answer.
        """
        if not self._armed:
            return None
        for number, fault in tuple(self._armed.items()):
            if fault.kind not in kinds or not target.matches(fault):
                continue
            if lines is not None and (lines < fault.after_lines if lines >= 0 else not fault.immediate):
                continue
            if fault.probability < 1 and self._rng.random() >= fault.probability:
                continue
            if number in self._left:
                self._left[number] -= 1
                if not self._left[number]:
                    self.disarm(number)
            return fault
        return None

    def happened(self, kind: str) -> None:
        """A fault has had its effect."""
        self.injected[kind] += 1

    async def before_answer(self, target: Target) -> None:
        """Request faults that come before any answer.

        Raises:
            Aborted: the connection is to be dropped.
            Refused: the status to answer.
        """
        if not self._armed:
            return
        slow = self.take(("slow",), target)
        if slow is not None:
            await asyncio.sleep(slow.seconds)
            self.happened(slow.kind)
        fault = self.take(("drop", "status-410", "status-429", "status-500", "status-503"), target)
        if fault is None:
            return
        if fault.kind == "drop":
            raise Aborted(fault.kind)
        raise Refused(fault.kind, _refusal(fault))

    async def stall(self, fault: Fault) -> None:
        """Returns after the seconds of the fault, or never."""
        self.happened(fault.kind)
        await asyncio.sleep(fault.seconds) if fault.seconds else await asyncio.Event().wait()

    def pick(self, upto: int) -> int:
        """A number from 0 to `upto`, both included, from the seeded generator."""
        return self._rng.randint(0, upto)

    def noise(self) -> bytes:
        """A line that is no JSON: bytes of any value but the newline that ends it. It counts as garbage sent."""
        self.happened("garbage")
        return bytes(self._rng.choice(_NOISE) for _ in range(self._rng.randint(1, 60))) + b"\n"


_NOISE = bytes(byte for byte in range(256) if byte not in b'\n\r\t 0123456789{}[]"tfn-')


def _refusal(fault: Fault) -> ShoalError:
    match fault.kind:
        case "status-410":
            return Expired(EXPIRED_TEXT)
        case "status-429":
            text = "Too many requests, please try again later."
            return TooManyRequests(text, retry_after_s=fault.retry_after_s)
        case "status-503":
            text = "the server is currently unable to handle the request"
            return RetryLater(text, retry_after_s=fault.retry_after_s)
        case _:
            return _InternalFault("Internal error occurred: fault injected")


class Target(msgspec.Struct, frozen=True):
    """The request a fault is matched with."""

    resource: str = ""
    """Qualified name; empty for what is no resource."""
    verb: str = ""
    namespace: str | None = None

    def matches(self, fault: Fault) -> bool:
        """Whether the fault is meant for it."""
        return (
            (not fault.resource or fault.resource == self.resource)
            and (not fault.verb or fault.verb == self.verb)
            and (fault.namespace is None or fault.namespace == self.namespace)
        )
