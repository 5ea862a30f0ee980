"""The machine of the side that is asked (`protocol`). Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..model.errors import ShoalError
from ..model.partitions import Epoch, ShardId
from ..settings import WireSettings
from . import messages
from .authentication import PROTOCOL, Secret, Transcript
from .failures import encode_failure
from .frames import Frame, WireError
from .messages import (
    ANSWER,
    CANCEL,
    CHALLENGE,
    CREDIT,
    END,
    FAILURE,
    HANDSHAKE_BYTES_MAX,
    ITEM,
    REQUEST_BYTES_MAX,
    VERBS,
    WELCOME,
    Challenge,
    Hello,
    Proved,
    Verb,
    decode,
    encode,
)
from .protocol import Asked, Call, Cancelled, Credited, Event, Opened, Side

GREETING_S = 1.0
"""A gateway greets the moment it is connected. Who has not by then is not one, and takes the place of one."""


class ShardSide(Side):
    """The side that is asked. `epoch_now` gives the newest epoch the shard has heard of."""

    def __init__(
        self,
        *,
        shard: ShardId,
        incarnation: str,
        secret: Secret,
        nonce: bytes,
        binding: bytes,
        epoch_now: Callable[[], Epoch],
        settings: WireSettings,
        now: float,
    ) -> None:
        super().__init__(settings, now)
        self.state = "awaited"
        self._secret = secret
        self._transcript = Transcript(
            shard=shard, incarnation=incarnation, gateway_nonce=b"", shard_nonce=nonce, binding=binding
        )
        self._epoch_now = epoch_now
        self._last = 0
        self._requests = 0
        self._window = 0
        self._ungreeted_s = 0.0

    @property
    def greeted(self) -> bool:
        """Whether the peer has greeted; anybody can."""
        return self.state != "awaited"

    def tick(self, now: float) -> None:
        """As `Side.tick`; a greeting is waited for `GREETING_S`, of our own time as well."""
        if not self.greeted:
            self._ungreeted_s += min(now - self._ticked, 2 * self.tick_s)
            if self._ungreeted_s > GREETING_S:
                raise WireError(f"no greeting within {GREETING_S:g} s")
        super().tick(now)

    @property
    def payload_bytes_max(self) -> int:
        """As `Side.payload_bytes_max`."""
        return REQUEST_BYTES_MAX if self.open else HANDSHAKE_BYTES_MAX

    # -- answers ----------------------------------------------------------------------------------------------

    def answer(self, call: Call, payload: bytes) -> None:
        """Ends a call with its answer."""
        self._end(call, ANSWER, payload)

    def may_send(self, call: Call) -> bool:
        """Whether the reader of a stream has room for another item."""
        return call.outstanding < self._window

    def item(self, call: Call, payload: bytes) -> None:
        """Sends an item of a stream."""
        if call.id in self.calls:
            call.outstanding += len(payload)
            self._reply(ITEM, call, payload)

    def end(self, call: Call) -> None:
        """Ends a stream, or a call that was cancelled."""
        self._end(call, END, b"")

    def fail(self, call: Call, error: ShoalError) -> None:
        """Ends a call with an error."""
        self._end(call, FAILURE, encode_failure(error, self.settings.frame_bytes_max))

    def _end(self, call: Call, kind: int, payload: bytes) -> None:
        if self.calls.pop(call.id, None) is not None:
            if not call.verb.streamed:
                self._requests -= 1
            self._reply(kind, call, payload)

    def _reply(self, kind: int, call: Call, payload: bytes) -> None:
        self.epoch = max(self.epoch, self._epoch_now())
        self._send(kind, call.id, 0, payload)

    # -- requests ---------------------------------------------------------------------------------------------

    def receive(self, frame: Frame, now: float) -> Event:
        """What a frame means. Raises WireError as `GatewaySide.receive`."""
        if self.state != "open":
            return self._shaken(frame)
        kind = frame.kind
        verb = VERBS.get(kind)
        if verb is not None:
            return self._asked(frame, verb, now)
        if kind not in (CANCEL, CREDIT):
            return self._both(frame)
        call = self.calls.get(frame.call)
        if call is None:
            if frame.call > self._last:
                raise WireError(f"request {frame.call} was never made")
            return None  # the end of the call is on its way
        if kind == CANCEL:
            call.abandoned = True
            return Cancelled(call)
        if not call.verb.streamed:
            raise WireError(f"credit for {call.verb.name}, which is no stream")
        if frame.argument > call.outstanding:
            raise WireError("credit for more than was sent")
        call.outstanding -= frame.argument
        return Credited(call)

    def _asked(self, frame: Frame, verb: Verb, now: float) -> Event:
        if frame.call <= self._last:
            raise WireError(f"request {frame.call} after {self._last}")
        if verb.streamed:
            if len(self.calls) - self._requests >= self.settings.streams_max:
                raise WireError(f"more than {self.settings.streams_max} streams")
        elif self._requests >= self.settings.requests_max:
            raise WireError(f"more than {self.settings.requests_max} requests in flight")
        query = decode(verb.queries, frame.payload, f"a request to {verb.name}")
        self._last = frame.call
        call = self.calls[frame.call] = Call(frame.call, verb, now + frame.argument / 1000, None)
        if not verb.streamed:
            self._requests += 1
        return Asked(call, query)

    def _shaken(self, frame: Frame) -> Event:
        match self.state, frame.kind:
            case "awaited", messages.HELLO:
                hello: Hello = decode(messages.HELLOS, frame.payload, "a greeting")
                if hello.protocol != PROTOCOL:
                    raise WireError(f"the peer speaks {hello.protocol[:40]!r}: expected {PROTOCOL!r}")
                transcript = self._transcript = msgspec.structs.replace(
                    self._transcript, gateway_nonce=hello.nonce
                )
                proof = transcript.proof(self._secret, "shard")
                challenge = Challenge(transcript.shard, transcript.incarnation, transcript.shard_nonce, proof)
                self._send(CHALLENGE, 0, 0, encode(challenge))
                self.state = "challenged"
                return None
            case "challenged", messages.PROOF:
                proved: Proved = decode(messages.PROOFS, frame.payload, "a proof")
                if not self._transcript.proves(self._secret, "gateway", proved.proof):
                    raise WireError("the peer does not know the shard's secret")
                self._window = proved.window_bytes
                self.state = "open"
                self.epoch = self._epoch_now()
                self._send(WELCOME, 0, 0, b"")
                return Opened()
        raise WireError(f"a frame of kind {frame.kind} during the handshake")
