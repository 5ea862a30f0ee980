"""Errors as values: a `ShoalError` by the name of its class and its fields, never as a pickle. Pure.

The receiver rebuilds only classes of `model.errors`, and only with the attributes these have. A class it does not know
(the other side is newer) is `Broken` with the same message.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..model import errors
from ..model.errors import Broken, CertificateRejected, ConnectionFailed, NotServed, ShoalError, Upstream

CLASSES: dict[str, type[ShoalError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, ShoalError)
}

OWN_FIELDS: dict[type[ShoalError], dict[str, Any]] = {
    CertificateRejected: {"sent": bool},
    ConnectionFailed: {"sent": bool},
    NotServed: {"partition": str, "epoch": int},
    Upstream: {"http_status": int, "upstream_status": dict[str, Any] | None},
}
"""What some classes have beyond `ShoalError`, by name and type."""


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """One error."""

    kind: str
    message: str
    details: dict[str, Any] | None = None
    metadata: dict[str, Any] = {}
    retry_after_s: int | None = None
    own: dict[str, Any] = {}


def encode_failure(error: ShoalError, payload_bytes_max: int) -> bytes:
    """The payload that says `error`; without its details if they cannot be said, or are too long."""
    kind = _known(type(error))
    own = {name: getattr(error, name) for name in OWN_FIELDS.get(kind, {})}
    failure = Failure(kind.__name__, error.message, error.details, error.metadata, error.retry_after_s, own)
    try:
        payload = msgspec.msgpack.encode(failure)
    except (TypeError, ValueError, OverflowError, RecursionError):
        payload = b""
    if not payload or len(payload) > payload_bytes_max:
        kept = own if kind is NotServed else {}
        shorter = kind if kind is NotServed or kind not in OWN_FIELDS else Broken
        payload = msgspec.msgpack.encode(
            Failure(shorter.__name__, error.message[:1000], None, {}, error.retry_after_s, kept)
        )
    return payload


def _known(kind: type[ShoalError]) -> type[ShoalError]:
    """The class the other side knows: subclasses made elsewhere travel as what they are in the tree."""
    return next(base for base in kind.__mro__ if CLASSES.get(base.__name__) is base)


def decode_failure(payload: bytes | memoryview) -> ShoalError:
    """The error a payload says.

    Raises:
        msgspec.DecodeError, RecursionError, UnicodeDecodeError: it is no error at all.
    """
    failure = _decoder.decode(payload)
    kind = CLASSES.get(failure.kind)
    if kind is None:
        return Broken(f"a shard answered with an error of unknown kind {failure.kind!r}: {failure.message}")
    error = kind.__new__(kind)
    ShoalError.__init__(
        error,
        failure.message,
        details=failure.details,
        metadata=failure.metadata,
        retry_after_s=failure.retry_after_s,
    )
    for name, expected in OWN_FIELDS.get(kind, {}).items():
        setattr(error, name, msgspec.convert(failure.own.get(name), expected))
    return error


_decoder = msgspec.msgpack.Decoder(Failure)
