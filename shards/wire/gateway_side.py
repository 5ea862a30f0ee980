"""The machine of the side that opens a connection and asks (`protocol`). Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from ..model.errors import BadRequest, ShoalError
from ..model.partitions import Epoch, ShardId
from ..settings import WireSettings
from . import messages
from .authentication import PROTOCOL, Secret, Transcript
from .failures import decode_failure
from .frames import Frame, WireError
from .messages import (
    ANSWER,
    CANCEL,
    CREDIT,
    END,
    FAILURE,
    HANDSHAKE_BYTES_MAX,
    HELLO,
    ITEM,
    PROOF,
    REQUEST_BYTES_MAX,
    Challenge,
    Hello,
    Proved,
    Verb,
    decode,
    encode,
)
from .protocol import ARGUMENT_MAX, NEVER, Answered, Arrived, Call, Ended, Event, Failed, Opened, Side


class GatewaySide(Side):
    """The side that opens the connection and asks."""

    def __init__(
        self,
        *,
        shard: ShardId,
        incarnation: str,
        secret: Secret,
        nonce: bytes,
        settings: WireSettings,
        now: float,
    ) -> None:
        super().__init__(settings, now)
        self.state = "greeting"
        self._shard = shard
        self._incarnation = incarnation
        self._secret = secret
        self._nonce = nonce
        self._last = 0
        self._binding = b""

    @property
    def payload_bytes_max(self) -> int:
        """As `Side.payload_bytes_max`."""
        return self.settings.frame_bytes_max if self.open else HANDSHAKE_BYTES_MAX

    def greet(self, binding: bytes) -> None:
        """Begins the handshake; `binding` says which certificate the peer has shown."""
        self._binding = binding
        self._send(HELLO, 0, 0, encode(Hello(PROTOCOL, self._nonce)))

    # -- requests ---------------------------------------------------------------------------------------------

    def ask(self, verb: Verb, query: Any, *, timeout_s: float, now: float, owner: Any) -> Call:
        """Sends a request.

        Raises:
            BadRequest: it is too long, or holds what has no place in a query (numbers beyond 64 bits, half characters).
        """
        try:
            payload = encode(query)
        except (UnicodeEncodeError, OverflowError) as error:
            raise BadRequest(f"the query cannot be asked of a shard: {error}") from error
        if len(payload) > REQUEST_BYTES_MAX:
            raise BadRequest(f"a query of {len(payload)} bytes: expected at most {REQUEST_BYTES_MAX}")
        self._last += 1
        call = self.calls[self._last] = Call(self._last, verb, now + timeout_s, owner)
        self._send(verb.kind, call.id, min(int(timeout_s * 1000) + 1, ARGUMENT_MAX), payload)
        return call

    def abandon(self, call: Call) -> None:
        """Nobody waits for this call any more; safe to repeat, and after its end."""
        if call.id in self.calls and not call.abandoned:
            call.abandoned = True
            call.deadline = NEVER
            call.owner = None
            self._send(CANCEL, call.id, 0, b"")

    def took(self, call: Call, size: int) -> None:
        """The reader of a stream has taken an item."""
        call.outstanding += size
        if (
            call.outstanding >= self.settings.window_bytes // 2
            and call.id in self.calls
            and not call.abandoned
        ):
            self._send(CREDIT, call.id, min(call.outstanding, ARGUMENT_MAX), b"")
            call.outstanding = 0

    # -- what comes back --------------------------------------------------------------------------------------

    def receive(self, frame: Frame) -> Event:
        """What a frame means.

        Raises:
            WireError: it must not come now, or cannot be read.
        """
        if self.state != "open":
            return self._shaken(frame)
        if frame.epoch != self.epoch:
            if frame.epoch < self.epoch:
                raise WireError(f"epoch {frame.epoch} after {self.epoch}")
            self.epoch = Epoch(frame.epoch)
        kind = frame.kind
        if not ANSWER <= kind <= FAILURE:
            return self._both(frame)
        call = self.calls.get(frame.call)
        if call is None:
            raise WireError(f"an answer to request {frame.call}, which is not in flight")
        if kind == ITEM:
            if not call.verb.streamed:
                raise WireError(f"an item for {call.verb.name}, which is no stream")
            if call.abandoned:
                return None
            value = decode(call.verb.answers, frame.payload, f"an item of {call.verb.name}")
            return Arrived(call, value, len(frame.payload))
        return self._over(kind, call, frame.payload)

    def _over(self, kind: int, call: Call, payload: memoryview) -> Event:
        if kind == ANSWER and call.verb.streamed:
            raise WireError(f"one answer to {call.verb.name}, which is a stream")
        if kind == END and not call.verb.streamed and not call.abandoned:
            raise WireError(f"no answer to {call.verb.name}")
        event: Event
        if call.abandoned:
            event = Ended(call)
        elif kind == ANSWER:
            event = Answered(call, decode(call.verb.answers, payload, f"an answer to {call.verb.name}"))
        elif kind == END:
            event = Ended(call)
        else:
            event = Failed(call, _failure(payload))
        del self.calls[call.id]
        return event

    def _shaken(self, frame: Frame) -> Event:
        match self.state, frame.kind:
            case "greeting", messages.CHALLENGE:
                challenge: Challenge = decode(messages.CHALLENGES, frame.payload, "a challenge")
                if challenge.shard != self._shard or challenge.incarnation != self._incarnation:
                    raise WireError("another shard, or another life of it, answers at this address")
                transcript = Transcript(
                    shard=self._shard,
                    incarnation=self._incarnation,
                    gateway_nonce=self._nonce,
                    shard_nonce=challenge.nonce,
                    binding=self._binding,
                )
                if not transcript.proves(self._secret, "shard", challenge.proof):
                    raise WireError("the peer does not know the shard's secret")
                proof = transcript.proof(self._secret, "gateway")
                self._send(PROOF, 0, 0, encode(Proved(proof, self.settings.window_bytes)))
                self.state = "proving"
                return None
            case "proving", messages.WELCOME:
                self.state = "open"
                self.epoch = Epoch(frame.epoch)
                return Opened()
        raise WireError(f"a frame of kind {frame.kind} during the handshake")


def _failure(payload: memoryview) -> ShoalError:
    try:
        return decode_failure(payload)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"an error that cannot be read: {error}") from error
