"""How the two ends of a connection prove that the control plane made them known to each other. Pure.

Each life of a shard's process (*incarnation*) makes a secret. The control plane (Ray) hands it out with the shard's
address; whoever can ask there may read the shard. On the connection the secret never appears: each side signs
both sides' nonces, the shard's name and incarnation, and, under TLS, the shard's certificate (HMAC-SHA256; the
parts preceded by their lengths, the two roles by different words, so that no proof serves for another). A peer that
relays the bytes of two others under a certificate of its own fails, because they saw different certificates.

Without TLS nothing protects what is said afterwards from somebody in between; the network has to be trusted then.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec

from ..model.partitions import ShardId
from ..settings import WireSettings

SECRET_BYTES = 32
NONCE_BYTES = 32
PROTOCOL = "shoal-wire-1"
"""Part of every proof: sides that speak different versions never agree."""

Role = Literal["shard", "gateway"]


class Secret:
    """The secret of one incarnation. Shows itself nowhere: not in a repr, a log or a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        if len(value) < SECRET_BYTES:
            raise ValueError(f"a secret of {len(value)} bytes; expected at least {SECRET_BYTES}")
        self._value = value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> tuple[type[Secret], tuple[bytes]]:
        return Secret, (self._value,)

    def sign(self, text: bytes) -> bytes:
        """HMAC-SHA256 of a text."""
        return hmac.digest(self._value, text, "sha256")


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a shard answers, and what is needed to be answered. Crosses the control plane only."""

    shard: ShardId
    incarnation: str
    host: str
    port: int
    secret: Secret
    settings: WireSettings
    """The shard's; the gateway keeps to them on this connection."""


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides have seen of the handshake, and therefore sign."""

    shard: ShardId
    incarnation: str
    gateway_nonce: bytes
    shard_nonce: bytes
    binding: bytes
    """SHA-256 of the shard's certificate; empty without TLS."""

    def proof(self, secret: Secret, role: Role) -> bytes:
        """What `role` sends to prove that it knows the secret."""
        parts = (
            PROTOCOL.encode(),
            role.encode(),
            self.shard.encode(),
            self.incarnation.encode(),
            self.gateway_nonce,
            self.shard_nonce,
            self.binding,
        )
        return secret.sign(b"".join(len(part).to_bytes(4, "big") + part for part in parts))

    def proves(self, secret: Secret, role: Role, proof: bytes) -> bool:
        """Whether `proof` is that of `role`; takes equally long whatever is wrong with it."""
        return hmac.compare_digest(self.proof(secret, role), proof)


def binding_of(certificate: bytes | None) -> bytes:
    """What a proof says of the shard's certificate (DER); None: there is no TLS."""
    return b"" if certificate is None else hashlib.sha256(certificate).digest()
