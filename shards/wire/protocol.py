"""The machine of a connection, one for each side: frames in, events out, and bytes to be sent. Pure.

    gateway (`GatewaySide`)                    shard (`ShardSide`)
      "greeting"  -- HELLO ------------------->  "awaited"
                  <------------- CHALLENGE ----  "challenged"
      "proving"   -- PROOF ------------------->
                  <--------------- WELCOME ----  "open"
      "open"      == requests, in any number at once ==

Until it is open a connection takes nothing but the next frame of the handshake, at most `HANDSHAKE_BYTES_MAX` long.
Whatever breaks the rules raises `WireError`, after which the connection is to be closed; nothing else is ever raised
for what a peer sends.

*Requests* are numbered by the gateway, ever upwards. A request is *live* from its frame to the one that ends it.
Its deadline runs on both sides by their own clocks: `overdue` names the requests it has passed for.

*Streams* are pulled. The shard sends an item only while less than the window is on its way (`ShardSide.may_send`), so
one item may exceed it; the gateway gives credit as its reader takes items, half a window at a time.

*Liveness*: `tick`, called every `tick_s`, sends a BEAT if nothing was sent for a third of the keep-alive time, and
raises if nothing was received for all of it. Time in which this process itself stood still does not count against the
peer.

*Epochs*: a shard's never goes back on a connection; one that did would be another shard.

The driver (`link`) owns sockets and time: it hands in frames with the time of day, sends `outgoing`, and acts on
events. `owner` of a call is the driver's, and never looked at.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..model.errors import ShoalError
from ..model.partitions import Epoch
from ..settings import WireSettings
from . import messages
from .frames import HEADER, Frame, WireError, frame_head
from .messages import BEAT, GOODBYE, Verb

NEVER = float("inf")
TICK_S_MAX = 0.25
"""Deadlines are looked at this often: a timer for each request would cost more than the request."""
ARGUMENT_MAX = (1 << 32) - 1


class Opened(msgspec.Struct, frozen=True):
    """Both sides have proved who they are."""


class Left(msgspec.Struct, frozen=True):
    """The peer closes the connection."""

    reason: str


class Call:
    """One live request. `owner`, `deadline` and `reason` are the driver's to change."""

    __slots__ = ("abandoned", "deadline", "id", "outstanding", "owner", "reason", "verb")

    def __init__(self, number: int, verb: Verb, deadline: float, owner: Any) -> None:
        self.id = number
        self.verb = verb
        self.deadline = deadline
        self.owner = owner
        self.abandoned = False
        """Nobody waits for it any more; it is live until the shard has ended it."""
        self.reason: ShoalError | None = None
        """What the request ends with when the driver gives it up."""
        self.outstanding = 0
        """Of a stream: bytes sent and not credited (shard), or taken and not credited (gateway)."""


class Answered(msgspec.Struct, frozen=True):
    """To the gateway: the call has its answer and is over."""

    call: Call
    value: Any


class Arrived(msgspec.Struct, frozen=True):
    """To the gateway: an item of a stream. `size` is to be given back by `GatewaySide.took`."""

    call: Call
    value: Any
    size: int


class Ended(msgspec.Struct, frozen=True):
    """To the gateway: the stream is over, or the call nobody waited for any more is."""

    call: Call


class Failed(msgspec.Struct, frozen=True):
    """To the gateway: the call is over with an error."""

    call: Call
    error: ShoalError


class Asked(msgspec.Struct, frozen=True):
    """To the shard: a request."""

    call: Call
    query: Any


class Cancelled(msgspec.Struct, frozen=True):
    """To the shard: nobody waits any more. The call is live until it is ended."""

    call: Call


class Credited(msgspec.Struct, frozen=True):
    """To the shard: more of this stream may be sent."""

    call: Call


Event = Opened | Left | Answered | Arrived | Ended | Failed | Asked | Cancelled | Credited | None


class Side:
    """What both sides do alike."""

    def __init__(self, settings: WireSettings, now: float) -> None:
        self.settings = settings
        self.state = ""
        self.epoch = Epoch(0)
        """The newest epoch of the shard that this side has heard of."""
        self.calls: dict[int, Call] = {}
        self.outgoing: list[bytes | memoryview] = []
        self.outgoing_bytes = 0
        self.tick_s = min(TICK_S_MAX, settings.keepalive_s / 8)
        self._began = self._heard = self._said = self._ticked = now

    @property
    def open(self) -> bool:
        """Whether requests may be sent."""
        return self.state == "open"

    @property
    def payload_bytes_max(self) -> int:
        """The longest payload the peer may send now."""
        raise NotImplementedError

    def heard(self, now: float) -> None:
        """Bytes of whatever kind have arrived."""
        self._heard = now

    def take_outgoing(self, now: float) -> list[bytes | memoryview]:
        """What is to be sent, now."""
        outgoing, self.outgoing = self.outgoing, []
        self.outgoing_bytes = 0
        self._said = now
        return outgoing

    def tick(self, now: float) -> None:
        """Says that we are alive if it is time to.

        Raises:
            WireError: the peer is silent, or has not proved who it is in time.
        """
        settings = self.settings
        self._heard += max(0.0, now - self._ticked - 2 * self.tick_s)
        self._ticked = now
        if not self.open and now - self._began > settings.handshake_timeout_s:
            raise WireError(f"no handshake within {settings.handshake_timeout_s:g} s")
        if now - self._heard > settings.keepalive_s:
            raise WireError(f"nothing was heard for {settings.keepalive_s:g} s")
        if self.open and now - self._said >= settings.keepalive_s / 3:
            self._send(BEAT, 0, 0, b"")

    def overdue(self, now: float) -> list[Call]:
        """The live calls whose deadline has passed. They stay live: end them (shard) or abandon them (gateway)."""
        return [call for call in self.calls.values() if call.deadline < now]

    def say_goodbye(self, reason: str) -> None:
        """Tells the peer why the connection is closed."""
        if self.open:
            self._send(GOODBYE, 0, 0, reason[:500].encode())

    def _send(self, kind: int, call: int, argument: int, payload: bytes) -> None:
        self.outgoing.append(frame_head(kind, call, self.epoch, argument, len(payload)))
        self.outgoing_bytes += len(payload) + HEADER.size
        if payload:
            self.outgoing.append(payload)

    def _both(self, frame: Frame) -> Event:
        """The frames either side may send once the connection is open."""
        match frame.kind:
            case messages.BEAT:
                return None
            case messages.GOODBYE:
                return Left(bytes(frame.payload[:500]).decode(errors="replace"))
            case kind:
                raise WireError(f"a frame of kind {kind}, which is not to be sent to this side")
